"""A beginning that several prompts share is run once, whichever sessions are running, and changes no token."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shared.model.engine.metrics import EngineMeter
from shared.model.engine.scheduler import Scheduler
from shared.model.engine.session import Session, common_prefix
from shared.model.engine.slots import Slots
from shared.model.engine.worker import DECODE_ROWS
from shared.model.loading.load_runner import load_int4_runner, load_runner
from shared.model.runner import Rows, Runner, Segment
from shared.model.sampling.sampler import Sampler
from shared.sampling_params import SamplingParams

NUM_SLOTS, MAX_LENGTH, PREFILL_ROWS = 8, 512, 48
NUM_TOKENS = 4
PARAMS = SamplingParams(temperature=1.0, seed=5)
TEXT = random.Random(1).choices(range(5, 400), k=200)


@dataclass
class Counted(Runner):
    """A runner that counts the rows it runs."""

    runner: Runner
    device: str = "cpu"
    num_rows: int = 0
    copies: list[int] = field(default_factory=list)

    def extend(self, segments: Sequence[Segment]) -> list[Rows]:
        """Run and count them."""
        self.num_rows += sum(len(segment.token_ids) for segment in segments)
        return self.runner.extend(segments)

    def copy(self, source: int, slot: int, num_tokens: int) -> bool:
        """Copy, if there is anything to copy."""
        self.copies.append(num_tokens)
        return self.runner.copy(source, slot, num_tokens)

    def clear(self, slot: int) -> None:
        """Clear."""
        self.runner.clear(slot)


class Decoding:
    """Sessions over the slots of one runner."""

    def __init__(self, runner: Runner, num_slots: int) -> None:
        """Begin with empty slots."""
        self.slots = Slots(num_slots, MAX_LENGTH, 30, 64)
        self.scheduler = Scheduler(runner, PREFILL_ROWS, EngineMeter(self.slots), ThreadPoolExecutor(1))

    @asynccontextmanager
    async def session(self, prompt: list[int], namespace: str = "") -> AsyncIterator[Session]:
        """Hold a session that prefills."""
        session = await self.slots.open(prompt, Sampler(PARAMS, prompt), namespace=namespace)
        self.scheduler.prefill(session)
        yield session
        await self.scheduler.settle(session)
        self.slots.close(session)

    async def decode(self, prompt: list[int], num_tokens: int = NUM_TOKENS) -> list[int]:
        """Return the tokens that follow; every other time they are rewritten, as in a draft session."""
        rng = random.Random(len(prompt))
        async with self.session(prompt) as session:
            for turn in range(num_tokens):
                await self.scheduler.verify(session, [])
                if turn % 2:
                    session.rewrite(len(session.token_ids) - 2, [rng.randrange(5, 400)])
            return session.token_ids[len(prompt) :]


@asynccontextmanager
async def decoding(runner: Runner, num_slots: int = NUM_SLOTS) -> AsyncIterator[Decoding]:
    """Decode for the duration of the block."""
    over = Decoding(runner, num_slots)
    running = asyncio.create_task(over.scheduler.run())
    try:
        yield over
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def runner(request: pytest.FixtureRequest, toy: tuple[Path, Path]) -> Runner:
    """Return the toy pair's target."""
    return load_runner(toy[0], request.param, NUM_SLOTS, MAX_LENGTH)


async def alone(runner: Runner, prompt: list[int], num_tokens: int = NUM_TOKENS) -> list[int]:
    """Decode with nothing in any slot."""
    async with decoding(runner) as fresh:
        return await fresh.decode(prompt, num_tokens)


async def test_eight_at_once(runner: Runner) -> None:
    """Eight sessions that arrive together run their common beginning once, and each runs its own rest."""
    prompts = [[*TEXT, *range(10 + 20 * number, 30 + 20 * number)] for number in range(8)]
    expected = [await alone(runner, prompt) for prompt in prompts]
    counted = Counted(runner)
    async with decoding(counted) as together:
        assert await asyncio.gather(*map(together.decode, prompts)) == expected
    assert len(counted.copies) == 7
    assert min(counted.copies) >= len(TEXT) - DECODE_ROWS  # the end of the first one's prompt runs beside the next one
    assert counted.num_rows < len(TEXT) + 7 * DECODE_ROWS + 8 * (20 + 2 * NUM_TOKENS)


async def test_the_same_prompt_again(runner: Runner) -> None:
    """Several replies to one prompt: while one is decoding, the next one only has to run the prompt's last token."""
    expected = await alone(runner, TEXT)
    counted = Counted(runner)
    async with decoding(counted) as busy, busy.session(TEXT) as first:
        await busy.scheduler.verify(first, [])
        before = counted.num_rows
        async with busy.session(TEXT) as second:
            await busy.scheduler.verify(second, [])
            assert second.reused == len(TEXT) - 1
            assert counted.num_rows == before + 1
        assert await busy.decode(TEXT) == expected


async def test_chats_that_take_turns(runner: Runner) -> None:
    """Two chats that share only a template each find their own earlier turns, whichever was last."""
    template, chats = TEXT[:5], (TEXT[5:60], TEXT[60:120])
    async with decoding(runner) as server:
        for turn in (1, 2, 3):
            for chat in chats:
                async with server.session([*template, *chat, *range(5, 5 + turn)]) as session:
                    if turn > 1:
                        assert session.reused == len(template) + len(chat) + turn - 1
                    await server.scheduler.verify(session, [])


@pytest.mark.parametrize("running", [False, True])
async def test_a_prefix_is_of_its_namespace(runner: Runner, running: bool) -> None:  # noqa: FBT001 - parametrized
    """What one namespace has run, or is running, another runs anew, in whichever slot, and the first one does not."""
    async with decoding(Counted(runner), num_slots=4) as server, AsyncExitStack() as left:
        async with AsyncExitStack() as ended:
            holder = left if running else ended
            first = await holder.enter_async_context(server.session(TEXT, "a"))
            await server.scheduler.verify(first, [])
        for namespace, reused in (("b", 0), ("", 0), ("a", len(TEXT) - 1), ("b", len(TEXT) - 1)):
            async with server.session(TEXT, namespace) as session:
                await server.scheduler.verify(session, [])
                assert (namespace, session.reused) == (namespace, reused)


async def test_any_history_changes_nothing(runner: Runner) -> None:
    """Prompts with a few common beginnings, three at once in reused slots, get the same tokens as alone."""
    rng = random.Random(7)
    prompts = [[*TEXT[: rng.randrange(1, 200)], *rng.choices(range(5, 400), k=rng.randrange(1, 40))] for _ in range(30)]
    lengths = [rng.randrange(1, 9) for _ in prompts]
    expected = [await alone(runner, *case) for case in zip(prompts, lengths, strict=True)]
    counted = Counted(runner)
    async with decoding(counted, num_slots=3) as busy:
        assert await asyncio.gather(*map(busy.decode, prompts, lengths)) == expected
    assert len(counted.copies) > 5


async def test_a_draft_of_4_bits(toy: tuple[Path, Path]) -> None:
    """It also copies, and then proposes what it would have proposed without copying."""
    runner = load_int4_runner(toy[1], NUM_SLOTS, MAX_LENGTH)
    [expected] = runner.extend([Segment(0, 0, TEXT, 1)])
    runner.extend([Segment(1, 0, TEXT[::-1], 0)])
    assert runner.copy(0, 1, 199)
    [copied] = runner.extend([Segment(1, 199, TEXT[199:], 1)])
    assert copied.logits.argmax() == expected.logits.argmax()


@pytest.mark.parametrize("agreeing", [0, 1, 2, 5, 63, 64, 99, 100])
def test_common_prefix(agreeing: int) -> None:
    """It is found at any length, even if tokens beyond it agree again."""
    a = list(range(100))
    b = [*a[:agreeing], *(-1 for _ in a[agreeing : agreeing + 1]), *a[agreeing + 1 :]]
    assert common_prefix(a, b) == common_prefix(b, a) == agreeing
    assert common_prefix(a, a[:agreeing]) == agreeing
