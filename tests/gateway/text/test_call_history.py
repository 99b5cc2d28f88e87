"""Calls of earlier turns: each template gets them as it takes them."""

from pathlib import Path

import pytest
import tiny_tokenizer

from gateway.requests.chat import ChatMessage
from gateway.text.tokenizer import ChatTokenizer

ARGUMENTS = '{"a":  "é", "b": [1]}'
LOOP = "{% for m in messages %}{% for c in m.tool_calls or [] %}BODY{% endfor %}{% endfor %}"
TEMPLATES = {
    "{{ c.function.arguments | tojson }}": '{"a": "é", "b": [1]}',  # Hermes, Qwen 2.5
    "{{ c.function.arguments if c.function.arguments is string else c.function.arguments | tojson }}":
        '{"a": "é", "b": [1]}',  # Qwen 3
    "{{ '<｜tool▁sep｜>' + c.function.arguments + '<｜tool▁call▁end｜>' }}":  # DeepSeek
        f"<｜tool▁sep｜>{ARGUMENTS}<｜tool▁call▁end｜>",
    "{% for k, v in c.function.arguments | items %}<parameter={{ k }}>{{ v }}{% endfor %}":  # Qwen3-Coder
        "<parameter=a>é<parameter=b>[1]",
    "{% for k, v in c.function.arguments.items() %}{{ k }}{{ v | tojson if v is not string else v }}{% endfor %}":
        "aéb[1]",  # GLM
    "{{ c.function.arguments }}": ARGUMENTS,
}  # fmt: skip


def render(folder: Path, template: str, *, call_id: str = "call_1") -> str:
    """Return a chat with a call and its result, rendered by a template."""
    (tiny_tokenizer.save(folder) / "chat_template.jinja").write_text(template)
    call = {"id": call_id, "function": {"name": "f", "arguments": ARGUMENTS}}
    chat = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "5", "tool_call_id": call_id},
    ]
    return ChatTokenizer.load(str(folder)).render_chat([ChatMessage.model_validate(message) for message in chat])


@pytest.mark.parametrize(("body", "text"), TEMPLATES.items())
def test_arguments_are_an_object_or_text(tmp_path: Path, body: str, text: str) -> None:
    """Claim: a template that joins strings gets the text as it was sent, others an object."""
    assert render(tmp_path, LOOP.replace("BODY", body)) == text


@pytest.mark.parametrize("call_id", ["call_123456789abc", "abc123DEF", ""])
def test_ids_fit_mistrals_templates(tmp_path: Path, call_id: str) -> None:
    """Claim: ids of another length than theirs are replaced, a call's and its result's alike."""
    template = (
        "{% for m in messages %}{% for c in m.tool_calls or [] %}{% if c.id is not defined or c.id|length != 9 %}"
        "{{ raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}{% endif %}{{ c.id }} "
        "{% endfor %}{{ m.tool_call_id }}{% endfor %}"
    )
    asked, answered = render(tmp_path, template, call_id=call_id or "x").split()
    assert asked == answered
    assert (asked == call_id) == (call_id == "abc123DEF")
