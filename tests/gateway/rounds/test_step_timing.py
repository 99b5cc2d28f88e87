"""A service says how many rows and sessions shared a pass."""

import asyncio
from pathlib import Path

from services import StartService

from gateway.clients.target.client import TargetClient
from shared.pb import specdec_pb2 as pb
from shared.sampling_params import SamplingParams

PARAMS = SamplingParams(temperature=0)


async def timings(client: TargetClient, prompt: list[int], drafts: list[list[int]]) -> list[pb.StepTiming]:
    """Verify these draft tokens, a list a round, and return where the time of each round went."""
    async with client.session(prompt, PARAMS, max_tokens=200) as session:
        return [(await session.verify(draft_ids)).timing for draft_ids in drafts]


async def test_rows_and_sessions(start: StartService, toy: tuple[Path, Path]) -> None:
    """A verify alone has k+1 rows; a prefill takes several passes; sessions that share a pass all count its rows."""
    client = TargetClient(start("target_service", model=toy[0], device="simulated", profile="trn2-qwen3-32b").address)
    try:
        alone = await timings(client, list(range(40, 240)), [[], [], [1, 2, 3]])
        together = await asyncio.gather(*(timings(client, [40 + i] * 9, [[1, 2]] * 16) for i in range(6)))
    finally:
        await client.close()
    assert alone[0].num_passes > 1
    assert [(t.num_passes, t.num_rows, t.num_sessions) for t in alone[1:]] == [(1, 1, 1), (1, 4, 1)]
    shared = [timing for session in together for timing in session[2:]]
    assert {timing.num_passes for timing in shared} == {1}
    assert all(timing.num_rows == 3 * timing.num_sessions for timing in shared)
    # Sessions whose passes end together share the next one: no group runs ahead of the others.
    assert [timing.num_sessions for session in together for timing in session[4:12]].count(6) >= 40
