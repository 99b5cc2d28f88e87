"""What fails ends the session that it failed for; the others get the tokens that they would have got."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from mix import trial_settings
from structlog.testing import capture_logs

from shared.errors import NoTokenError, OutriderError, SessionFailedError
from shared.model.devices.cpu.cpu_runner import CpuRunner
from shared.model.engine import prefixes, worker
from shared.model.engine.engine import Engine
from shared.model.loading.load_engine import load_engine
from shared.model.runner import Rows, Segment
from shared.sampling_params import SamplingParams

POISON = 299
PROMPTS = [[5, 6, 7], [8, 9], list(range(20, 70))]
SEEDS = range(len(PROMPTS))
NUM_TOKENS = 12


class DeviceError(Exception):
    """An error of no class that anybody knows, as ONNX Runtime's are."""


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Engine]:
    """Run an engine of three slots over a model of the toy pair."""
    engine = await load_engine(folder, trial_settings(folder, device="cpu", slot_wait_seconds=30, max_waiting=9))
    task = asyncio.create_task(engine.run())
    with capture_logs():  # a traceback on the console takes seconds
        yield engine
    task.cancel()
    await asyncio.wait([task])


async def decode(engine: Engine, prompt: Sequence[int], seed: int, draft_ids: Sequence[int] = ()) -> list[int]:
    """Return the session's tokens, each round with the same draft tokens."""
    async with engine.session(prompt, SamplingParams(seed=seed)) as session:
        while len(session.token_ids) < len(prompt) + NUM_TOKENS:
            await engine.verify(session, draft_ids)
        return session.token_ids[len(prompt) :][:NUM_TOKENS]


async def check_beside(engine: Engine, poisonous: Callable[[], Any], kind: type[OutriderError]) -> list[str]:
    """Run a session that fails beside two that do not and, once more, after it in every slot; return its errors."""
    expected = [await decode(engine, PROMPTS[i], SEEDS[i]) for i in (0, 1, 2)]
    problems = []
    for first in (0, 1, 2):
        others = [i for i in range(3) if i != first]
        failed, *got = await asyncio.gather(
            poisonous(), *(decode(engine, PROMPTS[i], i) for i in others), return_exceptions=True
        )
        assert isinstance(failed, kind), failed
        problems.append(str(failed))
        assert got == [expected[i] for i in others]
    assert await asyncio.gather(*(decode(engine, PROMPTS[i], i, [POISON - 1, 3]) for i in range(3))) == expected
    return problems


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate"), "out of memory"),
        (MemoryError(), "out of memory"),
        (ValueError("of the pass"), "ValueError: of the pass"),
        (IndexError("of the pass"), "IndexError: of the pass"),
        (DeviceError("of the pass"), "DeviceError: of the pass"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_pass_that_fails_of_one_session(
    toy: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, error: Exception, says: str
) -> None:
    """The others of the pass are run again without it."""
    extend = CpuRunner.extend

    def extended(runner: CpuRunner, segments: Sequence[Segment]) -> list[Rows]:
        rows = extend(runner, segments)
        if any(POISON in segment.token_ids for segment in segments):
            with torch.inference_mode():
                for segment in segments:  # as a pass leaves it that ended half-way
                    for layer in runner._cache.layers:
                        layer.keys[segment.slot, :, segment.start :] = torch.nan
            raise error
        return rows

    async with running(toy[0]) as engine:
        monkeypatch.setattr(CpuRunner, "extend", extended)
        problems = await check_beside(engine, lambda: decode(engine, [4, POISON], 0), SessionFailedError)
        assert all(says in problem for problem in problems)
        # what fails of a draft token is run without it
        assert await decode(engine, PROMPTS[0], 0, [POISON]) == await decode(engine, PROMPTS[0], 0)


async def test_what_is_not_a_number(toy: tuple[Path, Path]) -> None:
    """A token that makes everything NaN ends its own session, unless it is a draft token; the slot is then clean."""
    async with running(toy[0]) as engine:

        def spoil(_: torch.nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
            return output.masked_fill((inputs[0] == POISON)[..., None], torch.nan)

        embeddings = engine._runner.model.get_input_embeddings()  # type: ignore[attr-defined]  # the CPU's runner
        embeddings.register_forward_hook(spoil)
        problems = await check_beside(engine, lambda: decode(engine, [4, POISON, 5], 0), NoTokenError)
        assert set(problems) == {"no token can be drawn at position 3: a logit is not a number"}
        for left in PROMPTS:  # one that leaves before anybody sees what it does
            async with engine.session([*left, POISON, POISON, 7], SamplingParams()) as session:
                await engine.settle(session)
        expected = [await decode(engine, PROMPTS[i], i) for i in SEEDS]
        assert [await decode(engine, PROMPTS[i], i, [3, POISON]) for i in SEEDS] == expected


@pytest.mark.parametrize(("module", "name"), [(worker, "verify"), (prefixes, "common_prefix")])
async def test_what_else_fails(toy: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
    """A bug in drawing tokens, or in looking for a common prefix, ends the session that runs into it."""
    async with running(toy[0]) as engine:
        original = getattr(module, name)

        def failing(*args: Any) -> Any:
            if any(POISON in argument for argument in args if isinstance(argument, list)):
                raise LookupError("of ours")
            return original(*args)

        monkeypatch.setattr(module, name, failing)
        draft_ids = [POISON] if module is worker else []
        problems = await check_beside(engine, lambda: decode(engine, [4, POISON, 6], 0, draft_ids), SessionFailedError)
        assert set(problems) == {"the session's pass failed: LookupError: of ours"}


async def test_a_pass_that_fails_once(toy: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs nobody anything but time."""
    extend, failures = CpuRunner.extend, iter([True])

    def extended(runner: CpuRunner, segments: Sequence[Segment]) -> list[Rows]:
        if next(failures, False):
            raise DeviceError("just this once")
        return extend(runner, segments)

    async with running(toy[0]) as engine:
        expected = [await decode(engine, PROMPTS[i], i) for i in SEEDS]
        monkeypatch.setattr(CpuRunner, "extend", extended)
        assert await asyncio.gather(*(decode(engine, PROMPTS[i], i) for i in SEEDS)) == expected
        assert next(failures, None) is None


async def test_a_device_that_runs_nothing_any_more(toy: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """No session is to blame, so none gets an error: the engine ends, and with it the process."""

    def extended(*_: object) -> NoReturn:
        raise DeviceError("gone")

    engine = await load_engine(toy[0], trial_settings(toy[0], device="cpu", slot_wait_seconds=30, max_waiting=9))
    monkeypatch.setattr(CpuRunner, "extend", extended)
    asking = [asyncio.create_task(decode(engine, PROMPTS[i], i)) for i in SEEDS]
    with pytest.raises(DeviceError, match="gone"), capture_logs():
        await engine.run()
    assert not any(task.done() for task in asking)
    for task in asking:
        task.cancel()
    await asyncio.wait(asking)
