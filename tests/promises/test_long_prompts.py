"""Prompts that are long for the draft's context, or for the wait for a first token."""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from services import StartService, decoder, service
from toy_gateway import post, serve

from gateway.clients.deadlines import Deadlines
from gateway.rounds.round import Round
from gateway.text.tokenizer import ChatTokenizer
from shared.model.devices.cpu.cpu_runner import CpuRunner
from shared.model.runner import Rows, Segment
from shared.sampling_params import SamplingParams

SHORT = 64  # the draft's context
REPEATED = [70, 80, 90, 75, 85, 95]
GREEDY = SamplingParams(temperature=0)


async def rounds(decode: Any, prompt: Sequence[int], k: int, lookup: int, max_tokens: int = 40) -> list[Round]:
    """Return the rounds of a reply."""
    return [done async for done in decode.decode(prompt, GREEDY, max_tokens, k, num_lookup_tokens=lookup)]


def tokens(done: Sequence[Round]) -> list[int]:
    """Return the tokens of rounds."""
    return [token_id for one in done for token_id in one.token_ids]


@pytest.mark.parametrize("length", [SHORT - 30, SHORT - 1, SHORT, SHORT + 60])
async def test_a_draft_with_a_shorter_context(start: StartService, toy: tuple[Path, Path], length: int) -> None:
    """Claim: where its context ends, lookups go on, and the tokens are the target's own."""
    target = start("target_service", model=toy[0], dtype="float32").address
    draft = start("draft_service", model=toy[1], dtype="float32", max_length=SHORT, memory_tokens=0).address
    prompt = (REPEATED * length)[:length]
    async with decoder(target, draft) as decode:
        plain = await rounds(decode, prompt, 0, 0)
        modelled = await rounds(decode, prompt, 4, 0)
        looked_up = await rounds(decode, prompt, 4, 6)
    assert tokens(modelled) == tokens(looked_up) == tokens(plain)
    drafting = [one for one in modelled if one.num_drafted]
    assert bool(drafting) == (length < SHORT)
    assert sum(len(one.token_ids) for one in drafting) <= max(0, SHORT + 1 - length)
    assert {one.proposer for one in looked_up[-3:] if one.num_drafted} <= {"lookup"}
    if length > SHORT:
        assert any(one.proposer == "lookup" for one in looked_up)


def slow() -> None:
    """Take a tenth of a second for a pass."""
    extend = CpuRunner.extend

    def extended(self: CpuRunner, segments: Sequence[Segment]) -> list[Rows]:
        time.sleep(0.1)
        return extend(self, segments)

    CpuRunner.extend = extended  # type: ignore[method-assign]


async def test_a_prompt_that_takes_long_is_waited_for(toy: tuple[Path, Path], tmp_path: Path) -> None:
    """Claim: a target that reads a prompt is not taken for a lost one, however long that takes."""
    with service("target_service", tmp_path / "log", plant=slow, model=toy[0], dtype="float32") as target:
        async with decoder(target.address, None, deadlines=Deadlines(first_token_seconds=1)) as decode:
            started = time.monotonic()
            done = await rounds(decode, [70] * 1280, 0, 0, max_tokens=2)
            assert time.monotonic() - started > 2
    assert len(tokens(done)) == 2
    assert not target.events("rpc refused")


def longer(folder: Path, into: Path, length: int) -> Path:
    """Return a copy of a model that says that its context is so long."""
    shutil.copytree(folder, into)
    config = into / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": length}))
    return into


async def test_what_an_agent_asks(toy: tuple[Path, Path], tmp_path: Path) -> None:
    """Claim: 5,000 tokens with a limit of 32,000 are answered, the same with speculation on and off."""
    models = [longer(folder, tmp_path / folder.name, 32_768) for folder in toy]
    body = {"messages": [{"role": "user", "content": "What is a token? " * 850}], "max_tokens": 32_000, "stop": ["e"]}
    with (
        service("target_service", tmp_path / "target.log", model=models[0], dtype="float32") as target,
        service("draft_service", tmp_path / "draft.log", model=models[1], dtype="float32") as draft,
    ):
        assert target.events("keys and values")[0]["max_length"] == 32_768
        async with (
            decoder(target.address, draft.address) as decode,
            serve(decode, ChatTokenizer.load(str(models[0]))) as url,
        ):
            on, off = [
                await post(url, "/v1/chat/completions", **body, seed=5, speculative={"enabled": enabled})
                for enabled in (True, False)
            ]
    assert on["choices"] == off["choices"]
    assert on["usage"]["prompt_tokens"] > 5000
    assert on["usage"]["max_tokens"] == 32_768 - on["usage"]["prompt_tokens"]
