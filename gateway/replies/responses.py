"""The reply of OpenAI's Responses API: its items, the events that carry them, and the whole."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any
from uuid import uuid4

from gateway.clients.target.identity import system_fingerprint
from gateway.generation.delta import Delta, ScoredToken
from gateway.generation.usage import Usage
from gateway.parsing.calls.tool_call import ToolCallDelta
from gateway.parsing.reply_parser import ReplyFinish
from gateway.replies.logprobs import TokenNames, chat_logprobs
from gateway.requests.responses import ResponsesRequest
from gateway.requests.responses_tools import CustomTool, input_of, offered
from gateway.text.token_bytes import TokenBytes

Json = dict[str, Any]
PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc"}
ECHOED = {
    "frequency_penalty",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "parallel_tool_calls",
    "presence_penalty",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
}


class ResponsesReply:
    """Turns the deltas of the one choice into events; after the last delta, `body` is the whole response."""

    def __init__(self, request: ResponsesRequest, seed: int, token_bytes: TokenBytes, usage: Usage) -> None:
        """Begin a reply sampled with this seed."""
        self._request, self._usage, self._names = request, usage, TokenNames(token_bytes)
        self._output: list[Json] = []
        self._texts, self._logprobs = list[str](), list[Json]()  # of the item that is open
        self._rounds: list[Json] = []
        self._scored = deque[ScoredToken]()  # tokens that no part was read from yet
        self._num_events = 0
        self._tools = {one.name: one for one in offered(request.tools)}
        self._written = request.written  # the tool whose input the reply is
        self._response: Json = request.model_dump(include=ECHOED) | {
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
            "background": False,
            "completed_at": None,
            "service_tier": "default",
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
            elif self._written:
                yield from self._write_input(part.content, self._written.name)
            else:
                yield from self._write_message(part.content, scored)
        if delta.finish_reason:
            if self._scored and not self._written and (not self._output or self._output[-1]["type"] == "message"):
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
        is_call = kind in {"function_call", "custom_tool_call"}
        if not is_call:
            item["content"] = []
        self._output.append(item)
        self._texts, self._logprobs = [], []
        yield self._event("response.output_item.added", **self._place(item=False), item=dict(item))
        if is_call:
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
            known = self._tools.get(call.name or "")
            fields = {"call_id": call.id, "name": known.tool.name if known else call.name}
            if known and known.namespace:
                fields["namespace"] = known.namespace
            if known and isinstance(known.tool, CustomTool):
                yield from self._open("custom_tool_call", fields | {"input": ""})
            else:
                yield from self._open("function_call", fields | {"arguments": ""})
        self._texts.append(call.arguments)
        if call.arguments and self._output[-1]["type"] == "function_call":
            kind = "response.function_call_arguments.delta"
            yield self._event(kind, **self._place(), delta=call.arguments)

    def _write_input(self, text: str, name: str) -> Iterator[Json]:
        """Go on with the input of the tool that had to be called."""
        yield from self._open("custom_tool_call", {"call_id": f"call_{uuid4().hex[:24]}", "name": name, "input": ""})
        self._texts.append(text)
        yield self._event("response.custom_tool_call_input.delta", **self._place(), delta=text)

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
        elif item["type"] == "custom_tool_call":
            item["input"] = text if self._written else input_of(text)
            if not self._written:  # it is in JSON, and only whole is it known what it is
                yield self._event("response.custom_tool_call_input.delta", **self._place(), delta=item["input"])
            yield self._event("response.custom_tool_call_input.done", **self._place(), input=item["input"])
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
            "completed_at": int(time.time()) if status == "completed" else None,
            "incomplete_details": {"reason": "max_output_tokens"} if reason == "length" else None,
            "usage": {
                "input_tokens": usage.prompt_tokens,
                "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
                "output_tokens": usage.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
                "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            }
            | usage.cut,
        }
        if self._request.speculative.metrics:
            self._response["metrics"] = usage.metrics()
        if self._request.speculative.rounds:
            self._response["rounds"] = self._rounds
        yield self._event(f"response.{status}", response=self.body)

    def _place(self, *, item: bool = True) -> Json:
        place = {"output_index": len(self._output) - 1}
        return place | ({"item_id": self._output[-1]["id"]} if item else {})
