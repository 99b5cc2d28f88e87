"""Replies of the OpenAI API: whole bodies, and the chunks of streams."""

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from uuid import uuid4

from gateway.clients.target.identity import joint_fingerprint, system_fingerprint
from gateway.generation.choice import Choice
from gateway.generation.delta import Delta, ScoredToken
from gateway.generation.round_report import RoundReport
from gateway.generation.usage import Usage
from gateway.parsing.reply_parser import ReplyFinish
from gateway.parsing.reply_parts import ReplyPart, ReplyParts
from gateway.replies.logprobs import TokenNames
from gateway.requests.generation import GenerationRequest
from gateway.text.token_bytes import TokenBytes

Json = dict[str, Any]


@dataclass
class Answer:
    """One whole choice, built from its deltas."""

    parts: list[ReplyPart] = field(default_factory=list)
    finish_reason: ReplyFinish | None = None
    logprobs: list[ScoredToken] = field(default_factory=list)
    rounds: list[RoundReport] = field(default_factory=list)

    def add(self, delta: Delta) -> None:
        """Append a delta."""
        self.parts += delta.parts.in_order
        self.finish_reason = delta.finish_reason
        self.logprobs += delta.logprobs
        self.rounds.append(delta.report)


class Reply(ABC):
    """One reply: what all its chunks have in common, and the form of its choices."""

    id_prefix: ClassVar[str]
    object: ClassVar[str]
    chunk_object: ClassVar[str]
    tells_prompt_once: ClassVar[bool]
    """Whether the ids of the prompt are the reply's, or those of each choice."""

    def __init__(self, request: GenerationRequest, choices: Sequence[Choice], token_bytes: TokenBytes) -> None:
        """Begin a reply of these choices."""
        self._head = {"id": f"{self.id_prefix}-{uuid4().hex}", "created": int(time.time()), "model": request.model}
        self._fingerprints: dict[int, str] = {}  # of the choices
        self._request, self._choices = request, choices
        self._seed = choices[0].params.seed
        self._wants_logprobs = request.wants_logprobs is not None
        self._names = TokenNames(token_bytes, as_ids=request.return_tokens_as_token_ids)
        self._num_tokens = Counter[int]()  # of the choices so far

    def body(self, answers: Sequence[Answer], usage: Usage) -> Json:
        """Return the whole reply, with one answer per choice."""
        choices = [
            self._whole(ReplyParts.of(answer.parts))
            | self._rest(index, answer.rounds, answer.logprobs, answer.finish_reason)
            | ({} if self.tells_prompt_once else self._prompt(index))
            for index, answer in enumerate(answers)
        ]
        fingerprint = joint_fingerprint(_fingerprint(answer.rounds[0]) for answer in answers)
        head = self._head | {"system_fingerprint": fingerprint, "object": self.object, "choices": choices}
        prompt = self._prompt(0) if self.tells_prompt_once else {}
        return head | prompt | {"seed": self._seed, "usage": usage.tokens()} | self._measured(usage)

    def opening(self, delta: Delta) -> Json:
        """Return the chunk that begins a choice, given its first delta: it reports the seed."""
        self._fingerprints[delta.index] = _fingerprint(delta.report)
        prompt = self._prompt(delta.index)
        of_reply, of_choice = (prompt, {}) if self.tells_prompt_once else ({}, prompt)
        chunk = self._chunk(delta.index, self._first() | self._rest(delta.index) | of_choice)
        return chunk | of_reply | {"seed": self._seed}

    def chunks(self, delta: Delta) -> list[Json]:
        """Return the chunks of a delta: none if it adds nothing, and one more to finish the choice."""
        self._num_tokens[delta.index] += len(delta.report.texts)
        parts, asked = delta.parts, self._request.speculative.rounds or self._request.return_token_ids
        adds = parts.content or parts.reasoning or parts.tool_calls or delta.logprobs or asked
        pieces = [self._piece(delta) | self._rest(delta.index, [delta.report], delta.logprobs)] if adds else []
        if delta.finish_reason:
            pieces.append(self._last() | self._rest(delta.index, finish_reason=delta.finish_reason))
        return [self._chunk(delta.index, piece) for piece in pieces]

    def closing(self, usage: Usage) -> Json:
        """Return the chunk after the choices."""
        fingerprint = joint_fingerprint(self._fingerprints[index] for index in sorted(self._fingerprints))
        head = self._head | {"system_fingerprint": fingerprint, "object": self.chunk_object, "choices": []}
        return head | {"usage": usage.tokens()} | self._measured(usage)

    def _chunk(self, index: int, piece: Json) -> Json:
        head = self._head | {"system_fingerprint": self._fingerprints[index]}
        return head | {"object": self.chunk_object, "choices": [piece]} | self._usage(index)

    def _measured(self, usage: Usage) -> Json:
        return {"metrics": usage.metrics()} if self._request.speculative.metrics else {}

    def _usage(self, index: int) -> Json:
        """Return what a chunk of a choice says of its tokens: null but with continuous_usage_stats."""
        options = self._request.stream_options
        if not (options.include_usage and options.continuous_usage_stats):
            return {"usage": None} if options.include_usage else {}
        prompt, completion = len(self._choices[index].prompt_ids), self._num_tokens[index]
        counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        return {"usage": counts}

    def _prompt(self, index: int) -> Json:
        asked = self._request.return_token_ids
        return {"prompt_token_ids": list(self._choices[index].prompt_ids)} if asked else {}

    def _rest(
        self,
        index: int,
        reports: Sequence[RoundReport] = (),
        logprobs: Sequence[ScoredToken] = (),
        finish_reason: ReplyFinish | None = None,
    ) -> Json:
        reported = self._logprobs(logprobs) if self._wants_logprobs and (logprobs or not finish_reason) else None
        rest: Json = {"index": index, "logprobs": reported, "finish_reason": finish_reason}
        if self._request.return_token_ids:
            rest["token_ids"] = [token_id for report in reports for token_id in report.token_ids]
        if self._request.speculative.rounds and reports:
            rest["rounds"] = [report.body for report in reports]
        return rest

    @abstractmethod
    def _whole(self, parts: ReplyParts) -> Json: ...
    @abstractmethod
    def _first(self) -> Json: ...
    @abstractmethod
    def _piece(self, delta: Delta) -> Json: ...
    @abstractmethod
    def _last(self) -> Json: ...
    @abstractmethod
    def _logprobs(self, tokens: Sequence[ScoredToken]) -> Json: ...


def _fingerprint(report: RoundReport) -> str:
    return system_fingerprint(report.round_.identity)
