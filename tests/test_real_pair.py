"""The real pair, where it is on this machine: `make test-real`."""

from pathlib import Path

import pytest
from conftest import StartService, decoder

from gateway.tokenizer import ChatTokenizer
from shared.model.pairs import resolve_pair
from shared.sampling_params import SamplingParams

QUESTIONS = ["def quicksort(items):", "Write a haiku about the sea.", "class Stack:\n    def __init__(self):"]


@pytest.fixture(scope="module")
def pair() -> tuple[Path, Path]:
    """Return the folders of the real pair."""
    return resolve_pair("qwen-coder")


@pytest.mark.real
@pytest.mark.parametrize("temperature", [0.0, 0.8])
async def test_bfloat16_on_equals_off(start: StartService, pair: tuple[Path, Path], temperature: float) -> None:
    """In bfloat16, drafts of whole and of rounded weights, k of 1, 4 and 8: the tokens are the target's alone."""
    target = start("target_service", model=pair[0], num_slots=2).address
    drafts = [start("draft_service", model=pair[1], num_slots=2, quant=quant).address for quant in ("none", "auto")]
    tokenizer = ChatTokenizer.load(str(pair[0]))
    for seed, question in enumerate(QUESTIONS):
        prompt, params = tokenizer.encode(question), SamplingParams(temperature, top_p=0.95, seed=seed)
        async with decoder(target, drafts[0]) as decode:
            assert decode.target.row_exact
            expected = [i async for done in decode.decode(prompt, params, 48, 0) for i in done.token_ids]
        for draft, k in ((drafts[0], 1), (drafts[1], 4), (drafts[1], 8)):
            async with decoder(target, draft) as decode:
                assert [i async for done in decode.decode(prompt, params, 48, k) for i in done.token_ids] == expected
