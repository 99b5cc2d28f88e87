"""The reply of Anthropic's Messages API: its content blocks, the events that carry them, and the whole."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from gateway.clients.target.identity import system_fingerprint
from gateway.generation.delta import Delta
from gateway.generation.usage import Usage
from gateway.parsing.calls.tool_call import ToolCallDelta
from gateway.parsing.reply_parser import ReplyFinish
from gateway.parsing.reply_parts import ReplyPart
from gateway.requests.messages import MessagesRequest

Json = dict[str, Any]


class MessagesReply:
    """Turns the deltas of the one choice into events; after the last delta, `body` is the whole message."""

    def __init__(self, request: MessagesRequest, seed: int, usage: Usage) -> None:
        """Begin a reply sampled with this seed."""
        self._request, self._usage = request, usage
        self._content: list[Json] = []
        self._pieces = list[str]()  # of the block that is open
        self._is_open = False
        self._rounds: list[Json] = []
        self._message: Json = {
            "id": f"msg_{uuid4().hex}",
            "type": "message",
            "role": "assistant",
            "model": request.model,
            "content": self._content,
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "container": None,
            "usage": None,
            "seed": seed,
            "system_fingerprint": None,
        }

    @property
    def body(self) -> Json:
        """The message so far."""
        return self._message | {"content": list(self._content), "usage": self._tokens()}

    def opening(self, delta: Delta) -> Iterator[Json]:
        """Yield the events before those of the first delta, which says who decodes and what was cached."""
        self._message["system_fingerprint"] = system_fingerprint(delta.report.round_.identity)
        yield {"type": "message_start", "message": self.body}
        yield {"type": "ping"}

    def events(self, delta: Delta) -> Iterator[Json]:
        """Yield the events of a delta; after the last delta, also the closing events."""
        if self._request.speculative.rounds:
            self._rounds.append(delta.report.body)
        for part in delta.parts.in_order:
            yield from self._part(part)
        if delta.finish_reason:
            yield from self._close()
            yield from self._end(delta.finish_reason, delta.stop_string)

    def _part(self, part: ReplyPart) -> Iterator[Json]:
        if part.call:
            yield from self._call(part.call)
        elif part.reasoning:
            yield from self._open({"type": "thinking", "thinking": "", "signature": ""})
            yield self._piece("thinking_delta", "thinking", part.reasoning)
        elif part.content:
            yield from self._open({"type": "text", "text": "", "citations": None})
            yield self._piece("text_delta", "text", part.content)

    def _call(self, call: ToolCallDelta) -> Iterator[Json]:
        if call.id:
            yield from self._close()
            named = {"id": f"toolu_{call.id.removeprefix('call_')}", "name": call.name}
            yield from self._open({"type": "tool_use", **named, "input": {}, "caller": {"type": "direct"}})
        if call.arguments:
            yield self._piece("input_json_delta", "partial_json", call.arguments)

    def _open(self, block: Json) -> Iterator[Json]:
        """Begin a block, unless one of this kind is open."""
        if self._is_open and self._content[-1]["type"] == block["type"]:
            return
        yield from self._close()
        self._content.append(block)
        self._pieces, self._is_open = [], True
        yield {"type": "content_block_start", "index": len(self._content) - 1, "content_block": dict(block)}

    def _piece(self, kind: str, field: str, text: str) -> Json:
        self._pieces.append(text)
        return self._delta({"type": kind, field: text})

    def _delta(self, delta: Json) -> Json:
        return {"type": "content_block_delta", "index": len(self._content) - 1, "delta": delta}

    def _close(self) -> Iterator[Json]:
        """End the last block, if it is open."""
        if not self._is_open:
            return
        block, text = self._content[-1], "".join(self._pieces)
        if block["type"] == "tool_use":
            block["input"] = _object(text)
        else:
            block[block["type"]] = text
        if block["type"] == "thinking":  # clients send thoughts back only if they are signed
            block["signature"] = hashlib.sha256(text.encode()).hexdigest()
            yield self._delta({"type": "signature_delta", "signature": block["signature"]})
        self._is_open = False
        yield {"type": "content_block_stop", "index": len(self._content) - 1}

    def _end(self, finish: ReplyFinish, stop_string: str) -> Iterator[Json]:
        reason = {"length": "max_tokens", "tool_calls": "tool_use", "stop": "end_turn"}[finish]
        if reason == "max_tokens" and self._usage.cut:
            reason = "model_context_window_exceeded"
        sequence = stop_string or None
        delta = {"stop_reason": "stop_sequence" if sequence and finish == "stop" else reason, "stop_sequence": sequence}
        self._message |= delta
        reports: Json = {"metrics": self._usage.metrics()} if self._request.speculative.metrics else {}
        if self._request.speculative.rounds:
            reports["rounds"] = self._rounds
        self._message |= reports
        yield {"type": "message_delta", "delta": delta, "usage": self._tokens()} | reports
        yield {"type": "message_stop"}

    def _tokens(self) -> Json:
        """Return the usage, in which the prompt's cached tokens are counted apart from its others."""
        usage = self._usage
        return {
            "input_tokens": usage.prompt_tokens - usage.cached_tokens,
            "cache_creation": None,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": usage.cached_tokens,
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
            "server_tool_use": None,
            "service_tier": "standard",
            "inference_geo": None,
        } | usage.cut


def _object(text: str) -> Json:
    """Return a call's arguments; none where they were cut off."""
    try:
        arguments = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return arguments if isinstance(arguments, dict) else {}
