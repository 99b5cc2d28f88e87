"""llama.cpp's server, by xllamacpp: `-m benchmarks.engines.llama_cpp_peer plain|draft|lookup TARGET DRAFT K`.

The models are .gguf files. Target and draft get every core each: left at its default, the draft takes threads of its
own, and all of them spin against each other, six times slower.
"""

import os
import sys
from collections.abc import Sequence

import xllamacpp

from benchmarks.engines.answering import Generate, answer

KINDS = xllamacpp.common_speculative_type
SPECULATION = {
    "draft": KINDS.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE,
    "lookup": KINDS.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE,
}
LONGEST = 4096  # tokens


def load() -> Generate:
    """Start a server with one slot, whose prompt it keeps from one call to the next."""
    mode, target, draft, k = sys.argv[1:]
    cores = len(os.sched_getaffinity(0))
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.verbosity = target, LONGEST, 1, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = cores
    if mode in SPECULATION:
        params.speculative.types = [SPECULATION[mode]]
    if mode == "draft":
        drafting = params.speculative.draft
        drafting.mparams.path, drafting.n_max = draft, int(k)
        drafting.cpuparams.n_threads = drafting.cpuparams_batch.n_threads = cores
        drafting.cpuparams.poll = drafting.cpuparams_batch.poll = 0  # it waits while the target computes
    server = xllamacpp.Server(params)

    def generate(ids: Sequence[int], max_tokens: int) -> tuple[str, int]:
        reply = server.handle_completions({"prompt": ids, "max_tokens": max_tokens, "temperature": 0})
        return reply["choices"][0]["text"], reply["usage"]["completion_tokens"]

    return generate


if __name__ == "__main__":
    answer(load)
