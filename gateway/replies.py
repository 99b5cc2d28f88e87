"""The replies of the OpenAI API: whole bodies, and the chunks of streams."""

import time
from abc import ABC, abstractmethod
from typing import Any, ClassVar
from uuid import uuid4

from gateway.choices import Delta
from gateway.decoder import FinishReason
from gateway.usage import Usage

Json = dict[str, Any]


class Reply(ABC):
    """One reply: what all its chunks have in common, and the form of its choices."""

    id_prefix: ClassVar[str]
    object: ClassVar[str]
    chunk_object: ClassVar[str]

    def __init__(self, model: str, seed: int, *, metrics: bool) -> None:
        """Begin a reply that was sampled with this seed, and tell of speculation where asked."""
        self._head = {"id": f"{self.id_prefix}-{uuid4().hex}", "created": int(time.time()), "model": model}
        self._seed, self._metrics = seed, metrics

    def body(self, texts: list[str], reasons: list[FinishReason | None], usage: Usage) -> Json:
        """Return the whole reply; one text and one finish reason a choice."""
        choices = [self._whole(text) | _rest(index, reasons[index]) for index, text in enumerate(texts)]
        head = self._head | {"object": self.object, "choices": choices, "seed": self._seed, "usage": usage.tokens()}
        return head | self._measured(usage)

    def opening(self, index: int) -> Json:
        """Return the chunk with which the choice begins: it reports the seed."""
        return self._chunk([self._first() | _rest(index)]) | {"seed": self._seed}

    def chunks(self, delta: Delta) -> list[Json]:
        """Return the chunks of a delta: none if it has no text, and one more to finish the choice."""
        text = [self._chunk([self._piece(delta.text) | _rest(delta.index)])] if delta.text else []
        if delta.finish_reason is None:
            return text
        return [*text, self._chunk([self._last() | _rest(delta.index, delta.finish_reason)])]

    def closing(self, usage: Usage) -> Json:
        """Return the chunk after the choices."""
        return self._chunk([]) | {"usage": usage.tokens()} | self._measured(usage)

    def _chunk(self, choices: list[Json]) -> Json:
        return self._head | {"object": self.chunk_object, "choices": choices}

    def _measured(self, usage: Usage) -> Json:
        return {"metrics": usage.metrics()} if self._metrics else {}

    @abstractmethod
    def _whole(self, text: str) -> Json: ...
    @abstractmethod
    def _first(self) -> Json: ...
    @abstractmethod
    def _piece(self, text: str) -> Json: ...
    @abstractmethod
    def _last(self) -> Json: ...


class ChatReply(Reply):
    """The reply to a chat."""

    id_prefix, object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def _whole(self, text: str) -> Json:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def _first(self) -> Json:
        return {"delta": {"role": "assistant", "content": ""}}

    def _piece(self, text: str) -> Json:
        return {"delta": {"content": text}}

    def _last(self) -> Json:
        return {"delta": {}}


class CompletionReply(Reply):
    """The reply to a completion."""

    id_prefix, object, chunk_object = "cmpl", "text_completion", "text_completion"

    def _whole(self, text: str) -> Json:
        return {"text": text}

    def _first(self) -> Json:
        return {"text": ""}

    def _piece(self, text: str) -> Json:
        return {"text": text}

    def _last(self) -> Json:
        return {"text": ""}


def _rest(index: int, finish_reason: FinishReason | None = None) -> Json:
    return {"index": index, "logprobs": None, "finish_reason": finish_reason}
