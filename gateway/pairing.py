"""Whether a draft and a target fit: every token id must mean the same to both."""

from shared.pb import specdec_pb2 as pb


def misfits(target: pb.ModelInfo, draft: pb.ModelInfo) -> list[str]:
    """Return what differs, in one line each; nothing if the two fit.

    Rows beyond the tokenizer's vocabulary are padding and may differ in number.
    """
    if draft.tokenizer_fingerprint == target.tokenizer_fingerprint:
        return []
    if draft.tokenizer_size != target.tokenizer_size:
        sizes = f"{draft.tokenizer_size} tokens, the target's ({target.name}) {target.tokenizer_size}"
        return [f"the draft's tokenizer ({draft.name}) has {sizes}"]
    prints = f"fingerprints {draft.tokenizer_fingerprint[:12]} and {target.tokenizer_fingerprint[:12]}"
    names = f"the tokenizers of the draft ({draft.name}) and the target ({target.name})"
    return [f"{names} both have {target.tokenizer_size} tokens, but not the same ones at the same ids ({prints})"]
