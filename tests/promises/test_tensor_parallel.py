"""A target that torchrun spreads over two processes."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from services import CONNECTING_SECONDS, Service, StartService, after, decoder, service
from structlog.testing import capture_logs
from test_lossless import Case, make_cases
from test_target_lost import LOST
from toy_gateway import post, serve
from transformers import AutoConfig, GPT2Config

from gateway.rounds.decoder import Decoder
from gateway.text.tokenizer import ChatTokenizer
from shared.errors import ModelError
from shared.model.distributed.parallel_layers import check_parts

CASES = make_cases(20)
MAX_TOKENS = 32


async def run(decode: Decoder, case: Case, k: int, progress: Callable[[], None] = lambda: None) -> list[int]:
    """Decode a case; return its tokens."""
    token_ids: list[int] = []
    async for done in decode.decode(case.prompt, case.params, MAX_TOKENS, k):
        token_ids += done.token_ids
        progress()
    return token_ids


async def run_all(decode: Decoder, at_once: int, progress: Callable[[], None] = lambda: None) -> list[list[int]]:
    """Decode all cases, `at_once` at a time, with speculation."""
    turns = asyncio.Semaphore(at_once)

    async def one(case: Case) -> list[int]:
        async with turns:
            return await run(decode, case, case.k, progress)

    return await asyncio.gather(*map(one, CASES))


async def ask_all(decode: Decoder, tokenizer: ChatTokenizer) -> list[str]:
    """Ask a gateway over HTTP for all cases at once; return two texts of each, the second with its prompt cached."""
    async with serve(decode, tokenizer) as url:
        answers = await asyncio.gather(
            *(
                post(
                    url,
                    "/v1/completions",
                    prompt=case.prompt,
                    max_tokens=MAX_TOKENS,
                    n=2,
                    temperature=case.params.temperature,
                    seed=case.params.seed,
                )
                for case in CASES
            )
        )
    return [choice["text"] for answer in answers for choice in answer["choices"]]


@pytest.fixture(scope="module")
async def expected(start: StartService, toy: tuple[Path, Path]) -> list[list[int]]:
    """Decode the cases in float32, without speculation, by a target of one process."""
    async with decoder(start("target_service", model=toy[0], dtype="float32").address, None) as decode:
        return [await run(decode, case, 0) for case in CASES]


def followers(target: Service) -> list[int]:
    """Return the pids of the ranks that do not serve."""
    children = Path(f"/proc/{target.pid}/task/{target.pid}/children").read_text().split()
    environments = {int(pid): Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in children}
    return [pid for pid, environment in environments.items() if b"RANK=1" in environment]


async def test_two_ranks_are_one_target(
    start: StartService, toy: tuple[Path, Path], tmp_path: Path, expected: list[list[int]]
) -> None:
    """20 requests get the tokens of a one-process target, also through the gateway, and also when a rank is killed.

    Then the whole replica is gone at once, and its sessions go on at another one with two ranks: a target of one
    process would add up in a different order.
    """
    draft = start("draft_service", model=toy[1], dtype="float32").address
    other = start("target_service", model=toy[0], dtype="float32")
    tokenizer = ChatTokenizer.load(str(toy[0]))
    async with decoder(other.address, None) as plain:
        texts = await ask_all(plain, tokenizer)
    with (
        service("target_service", tmp_path / "target.log", ranks=2, model=toy[0], dtype="float32") as spread,
        service("target_service", tmp_path / "stays.log", ranks=2, model=toy[0], dtype="float32") as stays,
    ):
        async with decoder(spread.address, draft) as decode:
            assert decode.target.device == "cpu, 2 ranks"
            assert decode.target.row_exact
            assert await run_all(decode, at_once=8) == expected
            assert await ask_all(decode, tokenizer) == texts
        async with decoder(f"ipv4:{stays.address},{spread.address}", draft) as decode:
            await asyncio.sleep(CONNECTING_SECONDS)
            (follower,) = followers(spread)
            killed = 0.0

            def kill() -> None:
                nonlocal killed
                os.kill(follower, signal.SIGKILL)
                killed = time.monotonic()

            with capture_logs() as logs:
                assert await run_all(decode, at_once=12, progress=after(30, kill)) == expected
            assert LOST in [log["event"] for log in logs]
            assert await asyncio.to_thread(spread.wait, 10) == 1
            assert time.monotonic() - killed < 10
    assert spread.events("a rank is lost")


async def test_bfloat16_and_drain(start: StartService, toy: tuple[Path, Path], tmp_path: Path) -> None:
    """On two ranks, too, a row has the same bits alone and beside others; when told to stop, they finish first."""
    draft = start("draft_service", model=toy[1], dtype="bfloat16").address
    settings = {"model": toy[0], "num_slots": len(CASES)}
    with service("target_service", tmp_path / "target.log", ranks=2, **settings) as spread:
        async with decoder(spread.address, draft) as decode:
            assert decode.target.row_exact
            alone = [await run(decode, case, 0) for case in CASES[:4]]
            stop = after(40, lambda: spread.send(signal.SIGTERM))
            together = await run_all(decode, at_once=len(CASES), progress=stop)
            assert together[: len(alone)] == alone
        await asyncio.to_thread(spread.wait, 10)
    assert spread.events("stopped")
    assert not spread.events("a rank is lost")


@pytest.mark.contract
async def test_graphs(start: StartService, toy: tuple[Path, Path], tmp_path: Path, expected: list[list[int]]) -> None:
    """Device neuron's graphs, compiled for the CPU and two ranks, give the tokens of a one-process target."""
    draft = start("draft_service", model=toy[1], dtype="float32").address
    settings = {"model": toy[0], "dtype": "float32", "num_slots": 8, "max_length": 192}
    settings |= {"device": "neuron", "compile_backend": "aot_eager", "smallest_bucket": 192, "max_draft_tokens": 8}
    with service("target_service", tmp_path / "target.log", ranks=2, **settings) as spread:
        async with decoder(spread.address, draft) as decode:
            assert await run_all(decode, at_once=8) == expected


def test_what_cannot_be_parted(toy: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads that do not divide are refused, naming both numbers, and so is a model without a plan in transformers."""
    config = AutoConfig.from_pretrained(toy[0])
    check_parts(config)
    for name, value in {"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    check_parts(config)  # with copies of its two heads of keys and values
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(ModelError, match="num_attention_heads 4 does not divide by 8 ranks"):
        check_parts(config)
    config.num_attention_heads, config.num_key_value_heads = 24, 3
    with pytest.raises(ModelError, match="num_key_value_heads 3 does not divide by 8 ranks"):
        check_parts(config)
    with pytest.raises(ModelError, match="gpt2: transformers does not know how to part it"):
        check_parts(GPT2Config())
