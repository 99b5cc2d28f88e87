"""The reply to a completion."""

from collections.abc import Sequence

from gateway.generation.delta import Delta, ScoredToken
from gateway.parsing.reply_parts import ReplyParts
from gateway.replies.logprobs import completion_logprobs
from gateway.replies.reply import Json, Reply


class CompletionReply(Reply):
    """The reply to a completion."""

    id_prefix, object, chunk_object = "cmpl", "text_completion", "text_completion"
    tells_prompt_once = False

    def _whole(self, parts: ReplyParts) -> Json:
        return {"text": parts.content}

    def _first(self) -> Json:
        return {"text": ""}

    def _piece(self, delta: Delta) -> Json:
        return {"text": delta.parts.content}

    def _last(self) -> Json:
        return {"text": ""}

    def _logprobs(self, tokens: Sequence[ScoredToken]) -> Json:
        return completion_logprobs(tokens, self._names)
