"""A model that serves sessions: what the draft service and the target service have in common."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from math import inf

import structlog

from shared.errors import InvalidFieldError, NoFreeSlotError
from shared.interpolation import pass_seconds
from shared.model.engine.measure_passes import measure_passes
from shared.model.engine.metrics import EngineMeter
from shared.model.engine.scheduler import Scheduler
from shared.model.engine.session import Session
from shared.model.engine.slots import Slots
from shared.model.large_stack import large_stack
from shared.model.runner import Runner
from shared.model.sampling.grammar import GrammarMask, Grammars
from shared.model.sampling.sampler import Sampler
from shared.model.settings import EngineSettings
from shared.pb import specdec_pb2 as pb
from shared.sampling_params import SamplingParams

log = structlog.get_logger()

STUCK_AFTER = 50  # times what a pass took at start, where no session was long


class Engine:
    """A model, its slots and its scheduler.

    Everything is computed in one thread, loading included. OpenMP keeps a team of threads for each thread that ever
    computed, and when all these outnumber the cores they sleep between any two products: a pass took 1.2 times as long
    (docs/decisions.md).
    """

    def __init__(
        self, runner: Runner, settings: EngineSettings, info: pb.ModelInfo, grammars: Grammars, worker: Executor
    ) -> None:
        """Put the parts together; nothing runs before `run`."""
        self.info, self._runner, self._grammars = info, runner, grammars
        self.slots = Slots(info.num_slots, info.max_length, settings.slot_wait_seconds, settings.max_waiting)
        self.meter = EngineMeter(self.slots)
        self._scheduler = Scheduler(runner, settings.prefill_rows, self.meter, worker, self._allowed_seconds)
        self._worker = worker
        self._watchdog_seconds = settings.watchdog_seconds
        self._compilers = ThreadPoolExecutor(2, "grammar")
        self._compile_seconds = settings.slot_wait_seconds + 2 * settings.grammar_seconds
        self.inexact = ""
        """Why a row's bits may depend on the rows beside it; empty if the start's checks found that they do not."""
        self.verifies = runner.every_row
        """Whether it can verify draft tokens."""
        self.run = self._scheduler.run
        self.verify = self._scheduler.verify
        self.decode = self._scheduler.decode
        self.withdraw = self._scheduler.withdraw
        self.settle = self._scheduler.settle

    async def measure(self) -> None:
        """Add the measured cost of passes to `info`. Call it before `run`; other load on the machine distorts it."""
        session_rows = min(self.info.max_draft_tokens + 1, self.info.max_length)
        measuring = partial(measure_passes, self._runner, self.info.num_slots, session_rows)
        self.info.pass_costs.extend(await asyncio.get_running_loop().run_in_executor(self._worker, measuring))

    @asynccontextmanager
    async def session(
        self, prompt_ids: Sequence[int], params: SamplingParams, max_wait_seconds: float = inf, namespace: str = ""
    ) -> AsyncIterator[Session]:
        """Hold a slot for the duration of the block, and start to prefill the prompt; see `Slots.open` for the wait.

        What earlier sessions of the same namespace have run of the prompt is not run again. If log-probabilities of the
        prompt are wanted, the session starts with its first token alone, and verifies draw the others.

        Raises InvalidFieldError for an invalid prompt or grammar, and NoFreeSlotError.
        """
        if not prompt_ids:
            raise InvalidFieldError("prompt_token_ids", "empty")
        if len(prompt_ids) > self.info.max_length - 1:
            limit = f"at most {self.info.max_length - 1} fit before a first token"
            raise InvalidFieldError("prompt_token_ids", f"{len(prompt_ids)} tokens, {limit}")
        self.check_token_ids("prompt_token_ids", prompt_ids)
        if not 0 <= (params.output_start or 0) <= len(prompt_ids):
            raise InvalidFieldError("output_start", f"{params.output_start} is not within the prompt")
        num_output = 0 if params.output_start is None else len(prompt_ids) - params.output_start
        if num_output < params.min_tokens and not params.grammar and self._all_stop(params):
            raise InvalidFieldError("stop_token_ids", "with min_tokens, they forbid each token of the vocabulary")
        sampler = await self._sampler(params, list(prompt_ids))
        first_ids = list(prompt_ids[: 1 if params.prompt_logprobs else None])
        session = await self.slots.open(first_ids, sampler, max_wait_seconds, namespace)
        try:
            self._scheduler.prefill(session)
            yield session
        finally:
            self._scheduler.withdraw(session, lambda: self.slots.close(session))

    async def _sampler(self, params: SamplingParams, prompt_ids: list[int]) -> Sampler:
        """Return a sampler that begins after the prompt. Raises InvalidFieldError, NoFreeSlotError."""
        if not (grammar := params.grammar):
            return Sampler(params, prompt_ids)
        if not (matcher := self._grammars.kept(grammar)):  # which does not wait for those that compile
            with large_stack():  # the thread may start now
                compiling = asyncio.get_running_loop().run_in_executor(self._compilers, self._grammars.compile, grammar)
            try:
                matcher = await asyncio.wait_for(compiling, self._compile_seconds)
            except TimeoutError:
                problem = f"other grammars were compiled for {self._compile_seconds:g} s"
                raise NoFreeSlotError(problem, round(self._compile_seconds * 1000)) from None
        return await asyncio.to_thread(lambda: Sampler(params, prompt_ids, GrammarMask(grammar.kind, matcher)))

    def _allowed_seconds(self, num_rows: int) -> float:
        """Return how long a pass may take before it counts as stuck: many times what its kind took at start."""
        rows = [cost.num_rows for cost in self.info.pass_costs]
        seconds = [cost.forward_us / 1e6 for cost in self.info.pass_costs]
        return max(self._watchdog_seconds, STUCK_AFTER * pass_seconds(rows, seconds, num_rows) if rows else 0)

    def check_token_ids(self, field: str, token_ids: Sequence[int]) -> None:
        """Raise InvalidFieldError if a token is outside the vocabulary."""
        size = self.info.vocab_size
        if token_ids and not 0 <= min(token_ids) <= max(token_ids) < size:  # many times as fast as one by one
            index, token_id = next((i, token_id) for i, token_id in enumerate(token_ids) if not 0 <= token_id < size)
            raise InvalidFieldError(f"{field}[{index}]", f"{token_id} is outside the vocabulary of {size}")

    def _all_stop(self, params: SamplingParams) -> bool:
        vocabulary = range(self.info.vocab_size)
        return len(params.stop_token_ids) >= len(vocabulary) and params.stop_token_ids.issuperset(vocabulary)
