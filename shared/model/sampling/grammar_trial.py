"""Compiles grammars in processes that may crash, hang or run out of memory, before a service compiles them itself.

llguidance recurses as deep as a grammar's rules refer to each other, takes as long as it takes, and cannot be stopped.
Each trial is a process of its own, forked from one that has read the tokenizer, with half of the service's stack, an
alarm, and a limit to its memory. What comes through is harmless to compile.
"""

import json
import os
import pickle
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock, Thread
from time import monotonic
from typing import IO, cast
from weakref import finalize

from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.gbnf_to_lark import GbnfToLarkError, any_to_lark

from shared.model.large_stack import BYTES, large_stack
from shared.sampling_params import JSON_WHITESPACE

_GBNF = re.compile(r'%gbnf ("(?:[^"\\]|\\.)*")')


def _from_lark(text: str) -> str:
    """Return a grammar in llguidance's own form: of one in Lark, of one in GBNF, or of one in Lark with parts in GBNF.

    A part is written as `%gbnf` and a string of JSON. Raises ValueError.
    """
    try:
        whole = _GBNF.sub(lambda found: f"%lark {{\n{any_to_lark(json.loads(found[1]))}\n}}", text)
        return LLMatcher.grammar_from_lark(any_to_lark(text) if whole == text else whole)
    except (GbnfToLarkError, RecursionError) as error:
        raise ValueError(f"Failed to convert the grammar from GBNF to Lark: {error}") from error


# Errors without the grammar in them; rows with room for a choice of many; at most 100 MB of a lexer's states.
_LIMITS = LLParserLimits(verbose_errors=False, max_items_in_row=50_000, max_lexer_states=50_000)
_WRITERS: dict[str, Callable[[str], str]] = {
    "json_schema": lambda text: LLMatcher.grammar_from_json_schema(
        text, defaults={"whitespace_pattern": JSON_WHITESPACE}
    ),
    "regex": lambda text: LLMatcher.grammar_from_regex(text or "()"),  # an empty one stops without an error
    "lark": _from_lark,
}
_ADDRESSES = 4 * 2**30  # bytes; most of them the tokenizer's and the stack's
_STEPS = 8  # tokens that a trial follows the grammar for


@dataclass(frozen=True)
class Trial:
    """How compiling went."""

    written: str = ""
    """The grammar in llguidance's own form."""
    num_bytes: int = 0
    """The memory that it took."""
    problem: str = ""
    """Why it cannot be compiled; empty if it can."""


def matcher_of(vocabulary: LLTokenizer, written: str) -> LLMatcher:
    """Return a matcher in its initial state, or in an error."""
    return LLMatcher(vocabulary, written, log_level=0, limits=_LIMITS)


class GrammarTrials:
    """Tries grammars for one tokenizer. Safe to use from several threads."""

    def __init__(self, tokenizer: str, vocab_size: int, end_ids: Sequence[int], seconds: float) -> None:
        """Prepare; the process starts with the first trial. tokenizer: as JSON. seconds: a trial's CPU time at most."""
        self._tokenizer, self._seconds = pickle.dumps((tokenizer, vocab_size, list(end_ids))), seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = Lock()

    def run(self, kind: str, text: str) -> Trial:
        """Compile a grammar of one of `SamplingParams`' kinds in a new process, and wait for it."""
        with self._starting:
            if not self._process or self._process.poll() is not None:
                self._start()
        ours, theirs = Pipe()
        with ours:
            with theirs:
                socket.send_fds(self._control, [b"\0"], [theirs.fileno()])
            started = monotonic()
            try:
                ours.send((kind, text, self._seconds))
                trial: Trial = ours.recv()
            except (EOFError, OSError):  # it was killed: by its alarm, or for another reason
                late = monotonic() - started >= self._seconds
                problem = f"takes more than {self._seconds:g} s to compile" if late else "too complex to compile"
                return Trial(problem=problem)
        return trial

    def _start(self) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            program = f"from {__name__} import serve; serve({theirs.fileno()})"
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-c", program],
                cwd=Path(__file__).parents[3],
                stdin=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
            )
        with cast("IO[bytes]", self._process.stdin) as pipe:
            pipe.write(self._tokenizer)
        finalize(self, _end, self._control, self._process)


def _end(control: socket.socket, process: subprocess.Popen[bytes]) -> None:
    control.close()
    process.wait()


def serve(control_fd: int) -> None:
    """Fork a process for each connection that arrives, until the service is gone."""
    control = socket.socket(fileno=control_fd)
    tokenizer, vocab_size, end_ids = pickle.load(sys.stdin.buffer)  # noqa: S301 - the service's own
    vocabulary = LLTokenizer(tokenizer, n_vocab=vocab_size, eos_token=end_ids)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the service, too, which drains
    while fds := socket.recv_fds(control, 1, 1)[1]:
        if os.fork():
            os.close(fds[0])
            continue
        try:
            connection = Connection(fds[0])
            kind, text, seconds = connection.recv()
            signal.setitimer(signal.ITIMER_PROF, seconds)
            resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
            connection.send(_tried(vocabulary, kind, text))
        finally:
            os._exit(0)


def _tried(vocabulary: LLTokenizer, kind: str, text: str) -> Trial:
    """Compile in a thread with half the stack, and let go in one with an ordinary one."""
    compiled: list[tuple[Trial, object]] = []
    with large_stack(BYTES // 2):
        thread = Thread(target=lambda: compiled.append(_compiled(vocabulary, kind, text)))
        thread.start()
    thread.join()
    return compiled.pop()[0] if compiled else Trial(problem="too complex to compile")


def _compiled(vocabulary: LLTokenizer, kind: str, text: str) -> tuple[Trial, object]:
    """Return how it went, and what must be kept until then."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        written = _WRITERS[kind](text)
    except ValueError as error:
        return Trial(problem=str(error)), None
    matcher = matcher_of(vocabulary, written)
    follower = matcher.deep_copy()
    follower.compute_bitmask()
    if problem := matcher.get_error() or follower.get_error():
        return Trial(problem=problem), None
    for _ in range(_STEPS):
        mask = follower.compute_bitmask()
        allowed = next((8 * at + byte.bit_length() - 1 for at, byte in enumerate(mask) if byte), None)
        if follower.is_stopped() or allowed is None or not follower.consume_token(allowed):
            break
    num_bytes = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    return Trial(written, num_bytes), (matcher, follower)
