"""Another engine on this machine, each of its modes in a process of its own."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO

from benchmarks.machine import ROOT
from benchmarks.reply import Reply

MOST_SECONDS = 600  # for loading, and for an answer
Generate = Callable[[Sequence[int], int], Awaitable[Reply]]  # from a prompt's tokens, and how many to generate at most


@dataclass(frozen=True)
class Engine:
    """How to start it, and what it runs."""

    name: str
    weights: str
    """How the target's weights are kept."""
    command: Sequence[str]
    """The program of `benchmarks.engines.answering`, which the mode and the models follow."""
    models: Sequence[str]
    """What follows the mode."""
    modes: Sequence[str]
    keeps_prompts: bool = True
    """Whether a prompt that it has just run takes no time again."""

    @asynccontextmanager
    async def running(self, mode: str) -> AsyncIterator[Generate]:
        """Run it in this mode for the length of the block. If it ends before, that is the error of its replies."""
        pipe, command = asyncio.subprocess.PIPE, [*self.command, mode, *self.models]
        with TemporaryFile() as log:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=log, limit=2**20
            )
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("a process without pipes")
            writer, reader = process.stdin, process.stdout

            async def generate(ids: Sequence[int], max_tokens: int) -> Reply:
                try:
                    writer.write(f"{json.dumps({'ids': ids, 'max_tokens': max_tokens})}\n".encode())
                    await writer.drain()
                    answer = json.loads(await asyncio.wait_for(reader.readline(), MOST_SECONDS))
                except (OSError, json.JSONDecodeError) as error:  # an answer that is late is an OSError, too
                    return Reply(error=f"{self.name} has ended: {_last_line(log) or error}")
                return Reply(text=answer["text"], completion_tokens=answer["tokens"], seconds=answer["seconds"])

            try:
                await asyncio.wait_for(reader.readline(), MOST_SECONDS)  # the first question finds out if it has ended
                yield generate
            finally:
                writer.close()
                with suppress(ProcessLookupError):
                    process.terminate()
                await process.wait()


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    return (log.read().decode(errors="replace").strip().splitlines() or [""])[-1]
