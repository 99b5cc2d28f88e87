"""transformers' own `generate`: `python -m benchmarks.engines.transformers_peer plain|draft TARGET DRAFT K DTYPE`.

Greedy, with settings that make it comparable: a fixed number of draft tokens, none of the model's own penalties. It
keeps no prompt from one call to the next.
"""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.engines.answering import Generate, answer


def load() -> Generate:
    """Load the target, and the draft if it is to help."""
    mode, target_folder, draft_folder, k, dtype = sys.argv[1:]
    target, tokenizer = _load(target_folder, dtype), AutoTokenizer.from_pretrained(target_folder)
    assistance: dict[str, Any] = {}
    if mode == "draft":
        draft = _load(draft_folder, dtype)
        draft.generation_config.num_assistant_tokens = int(k)
        draft.generation_config.num_assistant_tokens_schedule = "constant"
        draft.generation_config.assistant_confidence_threshold = 0.0
        assistance["assistant_model"] = draft
        if draft.config.vocab_size != target.config.vocab_size:
            # transformers takes padding rows for a different vocabulary, and then drafts by way of text.
            assistance |= {"tokenizer": tokenizer, "assistant_tokenizer": tokenizer}

    def generate(ids: Sequence[int], max_tokens: int) -> tuple[str, int]:
        prompt = torch.tensor([ids])
        options = {"max_new_tokens": max_tokens, "do_sample": False, "repetition_penalty": 1.0}
        with torch.inference_mode():
            output = target.generate(prompt, attention_mask=torch.ones_like(prompt), **options, **assistance)
        tokens = output[0, len(ids) :]
        return tokenizer.decode(tokens, skip_special_tokens=True), len(tokens)

    return generate


def _load(folder: str, dtype: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()


if __name__ == "__main__":
    answer(load)
