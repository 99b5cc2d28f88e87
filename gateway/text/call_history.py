"""Calls of earlier turns, in the form that a chat template takes them."""

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any

Json = dict[str, Any]
Render = Callable[[Sequence[Json]], str]
_KEY, _SHORT_ID = "outrider_key", "abcdefghi"
_WANTS_SHORT_IDS = re.compile(r"id\s*\|\s*length\s*(?:!=|<)\s*9")


def takes_text(render: Render) -> bool:
    """Return whether a template takes the arguments of a call as text: given an object, it fails or spells Python's.

    Others take an object, some of them alone. Nothing but trying tells; llama.cpp does it likewise.
    """
    return not _shows(render, {_KEY: "x"}) and _shows(render, f'{{"{_KEY}": "x"}}')


def as_taken(messages: Sequence[Json], template: str, arguments: Sequence[Sequence[str]] | None) -> list[Json]:
    """Return the messages with the arguments of their calls as these texts, if given, and with ids that fit.

    Mistral's templates refuse ids that are not nine letters and digits.
    """
    short = bool(_WANTS_SHORT_IDS.search(template))
    return [_taken(message, short, arguments[number] if arguments else None) for number, message in enumerate(messages)]


def _taken(message: Json, short: bool, arguments: Sequence[str] | None) -> Json:  # noqa: FBT001
    message = dict(message)
    if short and "tool_call_id" in message:
        message["tool_call_id"] = _short(message["tool_call_id"])
    if calls := message.get("tool_calls"):
        texts = arguments or [call["function"]["arguments"] for call in calls]
        message["tool_calls"] = [
            call
            | {"id": _short(call["id"]) if short else call["id"], "function": call["function"] | {"arguments": text}}
            for call, text in zip(calls, texts, strict=True)
        ]
    return message


def _short(name: str) -> str:
    fits = len(name) == len(_SHORT_ID) and name.isascii() and name.isalnum()
    return name if fits else hashlib.sha256(name.encode()).hexdigest()[: len(_SHORT_ID)]


def _shows(render: Render, arguments: object) -> bool:
    call = {"id": _SHORT_ID, "type": "function", "function": {"name": "f", "arguments": arguments}}
    chat: list[Json] = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "x", "tool_call_id": _SHORT_ID},
    ]
    try:
        text = render(chat)
    except Exception:  # noqa: BLE001  # a template is a program, and what it is given decides how it fails
        return False
    return _KEY in text and f"'{_KEY}'" not in text
