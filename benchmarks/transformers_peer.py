"""transformers' own `generate`, in a process of its own: `python -m benchmarks.transformers_peer TARGET [DRAFT]`.

Prints `{"ready": true}`, then answers each line `{"prompt", "assisted", "max_tokens"}` on standard input with a line
`{"text", "tokens", "seconds"}`. Decodes greedily, with settings that make it comparable: a fixed number of draft
tokens, none of the model's own penalties, prefill included in the time.
"""

import json
import sys
from argparse import ArgumentParser
from time import perf_counter
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    """Answer until standard input ends."""
    flags = ArgumentParser(description=__doc__)
    flags.add_argument("target")
    flags.add_argument("draft", nargs="?")
    flags.add_argument("--dtype", default="bfloat16")
    flags.add_argument("--k", type=int, default=4)
    args = flags.parse_args()
    target, tokenizer = _load(args.target, args.dtype), AutoTokenizer.from_pretrained(args.target)
    assistance: dict[str, Any] = {}
    if args.draft:
        draft = _load(args.draft, args.dtype)
        draft.generation_config.num_assistant_tokens = args.k
        draft.generation_config.num_assistant_tokens_schedule = "constant"
        draft.generation_config.assistant_confidence_threshold = 0.0
        assistance["assistant_model"] = draft
        if draft.config.vocab_size != target.config.vocab_size:
            # transformers takes padding rows for a different vocabulary, and then drafts by way of text.
            assistance |= {"tokenizer": tokenizer, "assistant_tokenizer": tokenizer}
    _say({"ready": True})
    for line in sys.stdin:
        asked = json.loads(line)
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": asked["prompt"]}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        assistant = assistance if asked["assisted"] else {}
        started = perf_counter()
        with torch.inference_mode():
            output = target.generate(
                **inputs, max_new_tokens=asked["max_tokens"], do_sample=False, repetition_penalty=1.0, **assistant
            )
        seconds = perf_counter() - started
        tokens = output[0, inputs["input_ids"].shape[1] :]
        _say({"text": tokenizer.decode(tokens, skip_special_tokens=True), "tokens": len(tokens), "seconds": seconds})


def _load(folder: str, dtype: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)  # noqa: T201 - this is its output


if __name__ == "__main__":
    main()
