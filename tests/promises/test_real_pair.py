"""The real pair, if this machine has it: `make test-real`."""

from pathlib import Path
from time import perf_counter

import pytest
from services import StartService, decoder

from gateway.requests.chat import ChatMessage
from gateway.text.tokenizer import ChatTokenizer
from shared.model.checkpoints.pairs import resolve_pair
from shared.sampling_params import SamplingParams

QUESTIONS = ["def quicksort(items):", "Write a haiku about the sea.", "class Stack:\n    def __init__(self):"]


@pytest.fixture(scope="module")
def pair() -> tuple[Path, Path]:
    """Return the folders of the real pair."""
    return resolve_pair("qwen-coder")


@pytest.mark.real
@pytest.mark.parametrize("temperature", [0.0, 0.8])
async def test_bfloat16_on_equals_off(start: StartService, pair: tuple[Path, Path], temperature: float) -> None:
    """In bfloat16, with drafts of full and rounded weights and k of 1, 4 and 8: the tokens of the target alone."""
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


ORIGINAL = '''\
def parse_table(text):
    """Read a table of names and numbers."""
    rows = []
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, _, number = line.partition("=")
        rows.append((name.strip(), float(number)))
    return rows


def total(rows):
    """Add up the numbers."""
    result = 0.0
    for name, number in rows:
        result += number
    return result


def largest(rows):
    """Return the name of the largest number."""
    best_name, best_number = None, float("-inf")
    for name, number in rows:
        if number > best_number:
            best_name, best_number = name, number
    return best_name
'''
EDIT = f"""\
Rename the function `total` to `sum_of_numbers`. Reply with the whole file and nothing else.

```python
{ORIGINAL}```"""


@pytest.mark.real
async def test_an_edit_with_its_original_as_prediction(start: StartService, pair: tuple[Path, Path]) -> None:
    """Without any draft model, an edit is decoded at least twice as fast as plainly, with the same tokens."""
    target = start("target_service", model=pair[0], num_slots=2).address
    draft = start("draft_service", model="none").address
    tokenizer = ChatTokenizer.load(str(pair[0]))
    prompt = tokenizer.encode_chat([ChatMessage.model_validate({"role": "user", "content": EDIT})])
    params = SamplingParams(temperature=0, stop_token_ids=tokenizer.stop_token_ids)
    predicted = tokenizer.encode(ORIGINAL, add_special_tokens=False)
    async with decoder(target, draft) as decode:

        async def measure(num_lookup_tokens: int) -> tuple[list[int], float]:
            """Return the tokens, and how many there were per second after the first round."""
            token_ids, started, first = [], 0.0, 0
            rounds = decode.decode(prompt, params, 300, 0, num_lookup_tokens=num_lookup_tokens, predicted_ids=predicted)
            async for done in rounds:
                token_ids += done.token_ids
                if not started:
                    started, first = perf_counter(), len(token_ids)
            return token_ids, (len(token_ids) - first) / (perf_counter() - started)

        expected, plain = await measure(0)
        token_ids, speed = await measure(8)
    assert token_ids == expected
    assert "def sum_of_numbers" in tokenizer.decode(token_ids)
    assert speed > 2 * plain
