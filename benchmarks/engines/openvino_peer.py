"""OpenVINO GenAI: `-m benchmarks.engines.openvino_peer plain|draft|lookup TARGET DRAFT K`.

The models are folders that optimum-intel exported.
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino
import openvino_genai

from benchmarks.engines.answering import Generate, answer

CACHE_GB = 1
LONGEST_NGRAM = 3


def load() -> Generate:
    """Make a pipeline, which keeps prompts from one call to the next."""
    mode, target, draft, k = sys.argv[1:]
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size, scheduler.enable_prefix_caching = CACHE_GB, True
    options: dict[str, dict[str, Any]] = {
        "plain": {},
        "draft": {"draft_model": openvino_genai.draft_model(draft, "CPU")} if mode == "draft" else {},
        "lookup": {"prompt_lookup": True},
    }
    pipeline = openvino_genai.LLMPipeline(target, "CPU", scheduler_config=scheduler, **options[mode])
    tokenizer = pipeline.get_tokenizer()

    def generate(ids: Sequence[int], max_tokens: int) -> tuple[str, int]:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.do_sample = max_tokens, False
        if mode != "plain":
            config.num_assistant_tokens = int(k)
        if mode == "lookup":
            config.max_ngram_size = LONGEST_NGRAM
        (tokens,) = pipeline.generate(openvino.Tensor(np.array([ids], dtype=np.int64)), config).tokens
        return tokenizer.decode(tokens), len(tokens)

    return generate


if __name__ == "__main__":
    answer(load)
