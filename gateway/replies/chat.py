"""The reply to a chat."""

from collections.abc import Sequence

from gateway.generation.delta import Delta, ScoredToken
from gateway.parsing.calls.tool_call import ToolCallDelta
from gateway.parsing.reply_parts import ReplyParts
from gateway.replies.logprobs import chat_logprobs
from gateway.replies.reply import Json, Reply


class ChatReply(Reply):
    """The reply to a chat."""

    id_prefix, object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"
    tells_prompt_once = True

    def _whole(self, parts: ReplyParts) -> Json:
        calls = parts.tool_calls
        called = {"tool_calls": [_call(call) for call in calls]} if calls else {}
        content = {"content": parts.content or (None if called else "")}
        return {
            "message": {"role": "assistant", "refusal": None, "annotations": []}
            | content
            | called
            | _thought(parts.reasoning)
        }

    def _first(self) -> Json:
        return {"delta": {"role": "assistant", "content": ""}}

    def _piece(self, delta: Delta) -> Json:
        parts = delta.parts
        content = {"content": parts.content} if parts.content or delta.logprobs else {}
        calls = {"tool_calls": [{"index": call.index} | _call(call) for call in parts.tool_calls]}
        return {"delta": _thought(parts.reasoning) | content | (calls if parts.tool_calls else {})}

    def _last(self) -> Json:
        return {"delta": {}}

    def _logprobs(self, tokens: Sequence[ScoredToken]) -> Json:
        return chat_logprobs(tokens, self._names)


def _thought(reasoning: str) -> Json:
    """Return it by vLLM's name of today and by that of DeepSeek and most others."""
    return {"reasoning": reasoning, "reasoning_content": reasoning} if reasoning else {}


def _call(call: ToolCallDelta) -> Json:
    begun = {"id": call.id, "type": "function"} if call.id else {}
    return begun | {"function": ({"name": call.name} if call.name else {}) | {"arguments": call.arguments}}
