"""Grammars that would crash, hang or fill the process that compiles them are refused, and cost nobody else anything."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from mix import trial_settings
from services import Service, decoder, service
from transformers import PreTrainedTokenizerFast

from gateway.requests.grammar_fields import choice_grammar
from gateway.rounds.decoder import Decoder
from shared.errors import InvalidFieldError, NoFreeSlotError
from shared.model.loading.load_engine import load_engine
from shared.model.sampling.grammar import Grammars
from shared.model.sampling.grammar_trial import GrammarTrials
from shared.sampling_params import MAX_GRAMMAR_CHARACTERS, Grammar, SamplingParams

SECONDS = 2


def chained_refs(count: int) -> str:
    """Return a schema whose definitions refer to one another."""
    chain: dict[str, object] = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(count)}
    return json.dumps({"$ref": "#/$defs/d0", "$defs": chain | {f"d{count}": {"const": 5}}})


def chained_rules(count: int, arrow: str = ":") -> str:
    """Return a grammar whose rules do."""
    return "".join(f"r{i}{arrow} r{i + 1}\n" for i in range(count)) + f'r{count}{arrow} "x"\n'


def chained_objects(count: int) -> str:
    """Return a schema of as many objects in one another."""
    chain: dict[str, object] = {
        f"d{i}": {"type": "object", "properties": {"a": {"$ref": f"#/$defs/d{i + 1}"}}} for i in range(count)
    }
    return json.dumps({"$ref": "#/$defs/d0", "$defs": chain | {f"d{count}": {"const": 5}}})


HARMLESS = {
    "kept": Grammar("regex", "[a-f]{3}"),
    "refs": Grammar("json_schema", chained_refs(6000)),
    "objects": Grammar("json_schema", chained_objects(2200)),
    "rules": Grammar("lark", "start: r0\n" + chained_rules(16_000)),
}
"""In an ordinary thread's stack, each of them but the first ended the process."""
MANY_RULES = "\n".join(f"r{i}: /[ -~]{{1,{i + 1}}}/ x?" for i in range(300))
REFUSED = {
    "patterns that begin at one place, behind a text": (
        Grammar("lark", f'start: "{"Q" * 60}" x+\nx: {" | ".join(f"r{i}" for i in range(300))}\n{MANY_RULES}'),
        "300 patterns, at most 128",
    ),
    "patterns in a schema": (
        Grammar("json_schema", json.dumps({"anyOf": [{"type": "string", "maxLength": i} for i in range(600)]})),
        "600 patterns, at most 512",
    ),
    "intersections": (
        Grammar("lark", "start: T\nT: " + " & ".join(f"/.*a{i}.*/" for i in range(120))),
        f"takes more than {SECONDS} s to compile",
    ),
    "conversion": (
        Grammar("lark", "root ::= r0\n" + chained_rules(20_000, " ::=")),
        f"takes more than {SECONDS} s to compile",
    ),
    "length": (Grammar("regex", "a" * (MAX_GRAMMAR_CHARACTERS + 1)), "524289 characters, at most 524288"),
    "parentheses": (Grammar("regex", "(" * 20_000 + "a" + ")" * 20_000), "at 1(8): invalid regex"),
}


@pytest.fixture(scope="module")
def target(toy: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Serve the toy target, whose grammars may take two seconds."""
    log = tmp_path_factory.mktemp("log") / "target.log"
    with service("target_service", log, model=toy[0], dtype="float32", grammar_seconds=SECONDS) as running:
        yield running


async def run(decode: Decoder, params: SamplingParams, max_tokens: int = 24) -> list[int]:
    """Return the tokens of a prompt."""
    rounds = decode.decode([70, 80, 90], params, max_tokens, 0)
    return [token_id async for done in rounds for token_id in done.token_ids]


async def test_hostile_grammars(target: Service) -> None:
    """All at once, beside a stream that keeps its tokens: those that can be compiled are, the others are refused."""
    async with decoder(target.address, None) as decode:
        params = SamplingParams(seed=1)
        expected = await run(decode, params, 200)
        beside = asyncio.create_task(run(decode, params, 200))
        compiled = [run(decode, SamplingParams(grammar=grammar)) for grammar in HARMLESS.values()]
        refused = [run(decode, SamplingParams(grammar=grammar)) for grammar, _ in REFUSED.values()]
        assert all(await asyncio.gather(*compiled))
        for error, (grammar, problem) in zip(
            await asyncio.gather(*refused, return_exceptions=True), REFUSED.values(), strict=True
        ):
            assert isinstance(error, InvalidFieldError), error
            assert error.field == grammar.kind
            assert error.problem.startswith(problem)
        assert await beside == expected
        assert target.process.is_alive()


async def test_many_at_once(toy: tuple[Path, Path]) -> None:
    """Two are compiled at a time; those that would wait too long are told to come back, and one that is kept is not."""
    settings = trial_settings(toy[0], device="cpu", grammar_seconds=0.5, slot_wait_seconds=0.5, max_waiting=9)
    engine = await load_engine(toy[0], settings)
    running = asyncio.create_task(engine.run())

    async def hold(grammar: Grammar) -> None:
        async with engine.session([5], SamplingParams(grammar=grammar)):
            pass

    await asyncio.to_thread(engine._grammars.compile, HARMLESS["kept"])  # however long the first process takes to start
    endless = [Grammar("lark", f"{REFUSED['intersections'][0].text} & /.*b{i}.*/") for i in range(20)]
    asking = [asyncio.create_task(hold(grammar)) for grammar in endless]
    await asyncio.sleep(0.1)
    await hold(HARMLESS["kept"])
    errors = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(error) for error in errors} <= {InvalidFieldError, NoFreeSlotError}
    assert sum(isinstance(error, NoFreeSlotError) for error in errors) > 10
    running.cancel()


async def test_a_choice_of_many(toy: tuple[Path, Path], target: Service) -> None:
    """One of 20,000 choices is made."""
    choices = [f"word {i}" for i in range(20_000)]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(toy[0])
    async with decoder(target.address, None) as decode:
        token_ids = await run(decode, SamplingParams(seed=3, grammar=choice_grammar(choices)))
    assert tokenizer.decode(token_ids, skip_special_tokens=True) in choices


def test_what_survives_no_stack(toy: tuple[Path, Path]) -> None:
    """It ends its trial and nothing else, as does the end of the process that trials are forked from."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(toy[0])
    trials = GrammarTrials(tokenizer.backend_tokenizer.to_str(), len(tokenizer), [tokenizer.eos_token_id], 30)
    assert trials.run("lark", "start: r0\n" + chained_rules(150_000)).problem == "too complex to compile"
    assert trials.run("regex", "a").problem == ""
    assert trials._process
    trials._process.kill()
    trials._process.wait()
    assert trials.run("regex", "a").problem == ""


def test_memory(toy: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes too much is refused, and what was used least recently is not kept."""
    monkeypatch.setattr("shared.model.sampling.grammar.MAX_BYTES", 40 * 2**20)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(toy[0])
    grammars = Grammars(tokenizer, len(tokenizer), [tokenizer.eos_token_id], 30)
    with pytest.raises(InvalidFieldError, match=r"regex: takes \d+ MB when compiled, at most 40"):
        grammars.compile(Grammar("regex", "a?" * 6000))
    several = [Grammar("regex", f"(a?){{{number}}}") for number in range(1500, 1510)]
    for grammar in several:
        assert not grammars.kept(grammar)
        grammars.compile(grammar)
        grammars.kept(several[0])
    assert grammars.kept(several[0])
    assert not grammars.kept(several[1])
    assert grammars.kept(several[-1])
