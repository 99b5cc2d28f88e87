"""Whether a draft and a target fit: every token id must mean the same to both."""

from shared.pb import specdec_pb2 as pb


def mismatches(target: pb.ModelInfo, service: pb.DraftServiceGetModelInfoResponse) -> list[str]:
    """Return the differences, one line each; an empty list if the two fit.

    A draft service without a model has no vocabulary of its own and fits any target. Rows beyond the tokenizer's
    vocabulary are padding and may differ in number.
    """
    draft = service.model_info
    if not service.HasField("model_info") or draft.tokenizer_fingerprint == target.tokenizer_fingerprint:
        return []
    if draft.tokenizer_size != target.tokenizer_size:
        sizes = f"{draft.tokenizer_size} tokens, the target's ({target.name}) {target.tokenizer_size}"
        return [f"the draft's tokenizer ({draft.name}) has {sizes}"]
    prints = f"fingerprints {draft.tokenizer_fingerprint[:12]} and {target.tokenizer_fingerprint[:12]}"
    names = f"the tokenizers of the draft ({draft.name}) and the target ({target.name})"
    return [f"{names} both have {target.tokenizer_size} tokens, but not the same ones at the same ids ({prints})"]
