"""The reply of OpenAI's Responses API: its items, the events that carry them, and the whole."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any
from uuid import uuid4

from gateway.clients.identity import system_fingerprint
from gateway.generation.delta import Delta, ScoredToken
from gateway.generation.usage import Usage
from gateway.parsing.reply_parser import ReplyFinish
from gateway.parsing.tool_call import ToolCallDelta
from gateway.replies.logprobs import chat_logprobs
from gateway.requests.responses import ResponsesRequest
from gateway.text.token_bytes import TokenBytes

Json = dict[str, Any]
PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc"}


class ResponsesReply:
    """Turns the deltas of the one choice into events; after the last delta, `body` is the whole response."""

    def __init__(self, request: ResponsesRequest, seed: int, names: TokenBytes, usage: Usage) -> None:
        """Begin a reply sampled with this seed; `names` has the tokens' bytes."""
        echoed = {"instructions", "max_output_tokens", "metadata", "parallel_tool_calls", "temperature", "tool_choice"}
        self._request, self._usage, self._names = request, usage, names
        self._output: list[Json] = []
        self._texts, self._logprobs = list[str](), list[Json]()  # of the item that is open
        self._rounds: list[Json] = []
        self._scored = deque[ScoredToken]()  # tokens that no part was read from yet
        self._num_events = 0
        self._response: Json = request.model_dump(include=echoed | {"tools", "top_p", "top_logprobs"}) | {
            "id": f"resp_{uuid4().hex}",
            "object": "response",
            "created_at": int(time.time()),
            "model": request.model,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "output": self._output,
            "text": {"format": {"type": "text"} | request.text.format.model_dump(by_alias=True, exclude_unset=True)},
            "previous_response_id": None,
            "store": False,
            "truncation": "disabled",
            "usage": None,
            "seed": seed,
            "system_fingerprint": None,
        }

    @property
    def body(self) -> Json:
        """The response so far."""
        return self._response | {"output": [dict(item) for item in self._output]}

    def opening(self, delta: Delta) -> Iterator[Json]:
        """Yield the events before those of the first delta, which says who decodes."""
        self._response["system_fingerprint"] = system_fingerprint(delta.report.round_.identity)
        for kind in ("response.created", "response.in_progress"):
            yield self._event(kind, response=self.body)

    def events(self, delta: Delta) -> Iterator[Json]:
        """Yield the events of a delta; after the last delta, also the closing events."""
        if self._request.speculative.rounds:
            self._rounds.append(delta.report.body)
        self._scored.extend(delta.logprobs)
        for part in delta.parts.in_order:
            scored = [self._scored.popleft() for _ in range(min(part.num_tokens, len(self._scored)))]
            if part.reasoning:
                yield from self._open("reasoning", {"summary": []})
                yield from self._write("reasoning_text", part.reasoning)
            elif part.call:
                yield from self._call(part.call)
            else:
                yield from self._write_message(part.content, scored)
        if delta.finish_reason:
            if self._scored and (not self._output or self._output[-1]["type"] == "message"):
                yield from self._write_message("", self._scored)
            yield from self._end(delta.finish_reason)

    def _event(self, kind: str, **fields: Any) -> Json:
        self._num_events += 1
        return {"type": kind, "sequence_number": self._num_events - 1} | fields

    def _open(self, kind: str, fields: Json) -> Iterator[Json]:
        """Begin an item, unless the last one is of this kind and still open."""
        last = self._output[-1] if self._output else {}
        if last.get("type") == kind and last["status"] == "in_progress":
            return
        yield from self._close("completed")
        item: Json = {"id": f"{PREFIXES[kind]}_{uuid4().hex}", "type": kind, "status": "in_progress"} | fields
        if kind != "function_call":
            item["content"] = []
        self._output.append(item)
        self._texts, self._logprobs = [], []
        yield self._event("response.output_item.added", **self._place(item=False), item=dict(item))
        if kind == "function_call":
            return
        text: Json = {"type": "reasoning_text", "text": ""}
        if kind == "message":
            text = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        item["content"].append(text)
        yield self._event("response.content_part.added", **self._place(), content_index=0, part=dict(text))

    def _write_message(self, text: str, scored: Iterable[ScoredToken]) -> Iterator[Json]:
        yield from self._open("message", {"role": "assistant"})
        logprobs = chat_logprobs(scored, self._names)["content"]
        self._logprobs += logprobs
        yield from self._write("output_text", text, logprobs=logprobs)

    def _write(self, kind: str, text: str, **fields: Any) -> Iterator[Json]:
        self._texts.append(text)
        yield self._event(f"response.{kind}.delta", **self._place(), content_index=0, delta=text, **fields)

    def _call(self, call: ToolCallDelta) -> Iterator[Json]:
        if call.id:
            yield from self._close("completed")
            yield from self._open("function_call", {"call_id": call.id, "name": call.name, "arguments": ""})
        self._texts.append(call.arguments)
        if call.arguments:
            kind = "response.function_call_arguments.delta"
            yield self._event(kind, **self._place(), delta=call.arguments)

    def _close(self, status: str) -> Iterator[Json]:
        """End the last item, if it is open."""
        item = self._output[-1] if self._output else None
        if not item or item["status"] != "in_progress":
            return
        item["status"], text = status, "".join(self._texts)
        if item["type"] == "function_call":
            item["arguments"] = text
            kind = "response.function_call_arguments.done"
            yield self._event(kind, **self._place(), arguments=item["arguments"], name=item["name"])
        else:
            part = item["content"][0]
            fields = {"logprobs": self._logprobs} if "logprobs" in part else {}
            part |= {"text": text} | fields
            yield self._event(f"response.{part['type']}.done", **self._place(), content_index=0, text=text, **fields)
            yield self._event("response.content_part.done", **self._place(), content_index=0, part=dict(part))
        yield self._event("response.output_item.done", **self._place(item=False), item=dict(item))

    def _end(self, reason: ReplyFinish) -> Iterator[Json]:
        status = "incomplete" if reason == "length" else "completed"
        yield from self._close(status)
        usage = self._usage
        self._response |= {
            "status": status,
            "incomplete_details": {"reason": "max_output_tokens"} if reason == "length" else None,
            "usage": {
                "input_tokens": usage.prompt_tokens,
                "input_tokens_details": {"cached_tokens": usage.cached_tokens},
                "output_tokens": usage.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
                "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            },
        }
        if self._request.speculative.metrics:
            self._response["metrics"] = usage.metrics()
        if self._request.speculative.rounds:
            self._response["rounds"] = self._rounds
        yield self._event(f"response.{status}", response=self.body)

    def _place(self, *, item: bool = True) -> Json:
        place = {"output_index": len(self._output) - 1}
        return place | ({"item_id": self._output[-1]["id"]} if item else {})
