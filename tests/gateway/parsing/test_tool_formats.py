"""The formats in which models call tools: however a text is split, the same calls, and no text lost."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.parsing.calls.tool_call import ToolCallDelta
from gateway.parsing.formats.deepseek import DEEPSEEK, DEEPSEEK_V31
from gateway.parsing.formats.glm import GLM
from gateway.parsing.formats.hermes import HERMES
from gateway.parsing.formats.known import FORMATS, tool_format
from gateway.parsing.formats.llama import LLAMA
from gateway.parsing.formats.mistral import MISTRAL, MISTRAL_NAMED
from gateway.parsing.formats.qwen_coder import QWEN_CODER
from gateway.parsing.formats.tool_format import ToolFormat
from gateway.requests.tool_fields import Function
from gateway.settings import GatewaySettings

PROPERTIES: dict[str, Any] = {
    "path": {"type": "string"},
    "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    "lines": {"type": "integer"},
    "ratio": {"type": ["number", "null"]},
    "deep": {"$ref": "#/$defs/deep"},
    "list": {"type": "array", "items": {"type": "string"}},
    "force": {"type": "boolean"},
    "mode": {"enum": ["a", "b"]},
    "anything": {},
}
FUNCTIONS = [
    Function.model_validate(
        {
            "name": "write",
            "parameters": {"type": "object", "properties": PROPERTIES, "$defs": {"deep": {"type": "object"}}},
        }
    ),
    Function.model_validate({"name": "now"}),
]
TEXT = 'if a < b:\n\tprint("</x> \\n")\n'
V3 = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>write\n```json\n{}\n```<｜tool▁call▁end｜>"
V3_NEXT = "\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
LISTED = '{"name": "write", "arguments": {"path": "[TOOL_CALLS]"}, "id": "abcdefghi"}, {"arguments": {}, "name": "now"}'
V31 = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>write<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"


def xml(**arguments: str) -> str:
    """Return a call as Qwen3-Coder writes it."""
    inner = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in arguments.items())
    return f"<tool_call>\n<function=write>\n{inner}</function>\n</tool_call>"


def glm(**arguments: str) -> str:
    """Return a call as GLM 4.5 writes it."""
    inner = "".join(f"<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n" for key, value in arguments.items())
    return f"<tool_call>write\n{inner}</tool_call>"


Calls = list[tuple[str, Any]]
NOW: Calls = [("now", {})]
VALUES: dict[str, tuple[str, Any]] = {
    "path": (TEXT, TEXT),
    "note": ("null", None),
    "lines": ("-3", -3),
    "ratio": ("1e3", 1000.0),
    "deep": ("{'a': [True, None],}", {"a": [True, None]}),
    "list": ('["x", "</y>"]', ["x", "</y>"]),
    "force": ("True", True),
    "mode": ("b", "b"),
    "anything": ("5", "5"),
}
UNCLOSED = [(QWEN_CODER, "<tool_call>\n<function=now>\n</function>"), (QWEN_CODER, "<function=now>\n</function>")]
WRITTEN = {key: text for key, (text, _) in VALUES.items()}
MEANT = {key: value for key, (_, value) in VALUES.items()}
CASES: list[tuple[ToolFormat, str, str, Calls]] = [
    # Qwen3-Coder: types by the schema, text around, without the first tag, tags in values, tags that are missing.
    (QWEN_CODER, xml(**WRITTEN), "", [("write", MEANT)]),
    (QWEN_CODER, f"I write.\n\n{xml(path='a')}\n{xml(path='b')}\n", "I write.",
     [("write", {"path": "a"}), ("write", {"path": "b"})]),
    (QWEN_CODER, "<tool_call>\n<function=now>\n</function>\n</tool_call> Done.", " Done.", NOW),
    (QWEN_CODER, "<function=now></function>", "", NOW),
    (QWEN_CODER, "<function=now>\n</function>\n</tool_call>", "", NOW),
    (QWEN_CODER, "Use <function=other>\n</function> here", "Use <function=other>\n</function> here", []),
    (QWEN_CODER, "<function=f", "<function=f", []),
    (QWEN_CODER, xml(path="use </parameter> and </function> and <parameter=x>\n or <tool_call>"), "",
     [("write", {"path": "use </parameter> and </function> and <parameter=x>\n or <tool_call>"})]),
    (QWEN_CODER, "<tool_call>\n<function=write>\n<parameter=path>\na\n<parameter=lines>\n5\n</function>\n</tool_call>",
     "", [("write", {"path": "a", "lines": 5})]),
    (QWEN_CODER, "<tool_call>\n<function=write>\n<parameter=path>\na\n</parameter>\n", "", [("write", {"path": "a"})]),
    (QWEN_CODER, "<tool_call><function=write><parameter=path>a</parameter></function></tool_call>", "",
     [("write", {"path": "a"})]),
    (QWEN_CODER, xml(lines="many", deep="[1]", force="5", note="nul", ratio="NaN"), "",
     [("write", {"lines": "many", "deep": "[1]", "force": "5", "note": "nul", "ratio": "NaN"})]),
    (QWEN_CODER, xml(lines="3.0", path=""), "", [("write", {"lines": 3, "path": ""})]),
    (QWEN_CODER, "<tool_call><function=write>\nwell</function>", "<tool_call><function=write>\nwell</function>", []),
    *[(QWEN_CODER, f'<tool_call>\n{{"name": "now", "arguments": {{}}}}{end}', content, NOW) for end, content in (
        ("", ""), ("\n</tool_call>", ""), ("\n</tool_call>\nSo.", "\nSo."), (" So.", "So."),
    )],
    (QWEN_CODER, xml(path="a").replace("</function>\n", "") + " </tool_call>", " </tool_call>",
     [("write", {"path": "a"})]),
    (QWEN_CODER, "<tool_call>\n<function=write>\n<parameter=path>\na\n</parameter>\nso</function>", "",
     [("write", {"path": "a\n</parameter>\nso"})]),
    # A closing tag that comes late, behind words or a tag that opens nothing, leaves the words around it as they are.
    *[(form, f"{call}{text}", content, NOW) for form, call in UNCLOSED for text, content in (
        (" and so\n</tool_call>I do", " and so\nI do"), (" and so</tool_call>\nI do", " and so\nI do"),
        ("\n</tool_call>So", "So"), ("\n</tool_call>\n</tool_call>", "\n</tool_call>"),
        (", not <tool_call>:</tool_call> so", ", not <tool_call>: so"), (".<tool_call>\n</tool_call>", ".<tool_call>"),
        ("</tool_call>\n<tool_call>no</tool_call>", "\n<tool_call>no</tool_call>"),
    )],
    # GLM: 4.5 in lines, 4.7 without.
    (GLM, glm(**WRITTEN), "", [("write", MEANT)]),
    (GLM, glm(path="a\nb", lines="5").replace("\n<", "<").join(["So.", "<tool_call>now</tool_call>"]), "So.",
     [("write", {"path": "a\nb", "lines": 5}), ("now", {})]),
    (GLM, "<tool_call>now\n</tool_call>", "", NOW),
    (GLM, glm(path="</arg_value> is its end"), "", [("write", {"path": "</arg_value> is its end"})]),
    (GLM, "<tool_call>write now</tool_call>", "<tool_call>write now</tool_call>", []),
    (GLM, "<tool_call>now", "<tool_call>now", []),
    (GLM, "<tool_call>write\n<arg_key>path</arg_key>\n<arg_value>a</arg_value>\n<arg_key>lines", "\n<arg_key>lines",
     [("write", {"path": "a"})]),
    # Mistral: a list, or a name before each call.
    *[(form, text, content, calls) for form in (MISTRAL, MISTRAL_NAMED) for text, content, calls in (
        (f"[TOOL_CALLS] [{LISTED}]", "", [("write", {"path": "[TOOL_CALLS]"}), ("now", {})]),
        ('Hello[TOOL_CALLS]write[ARGS]{"path": "a"}[TOOL_CALLS]now[ARGS]{}', "Hello", [("write", {"path": "a"}), *NOW]),
        ("[TOOL_CALLS]now[CALL_ID]abcdefghi[ARGS]{}", "", NOW),
        ('[TOOL_CALLS]write {"lines": 3,}', "", [("write", {"lines": 3})]),
        ("[TOOL_CALLS] nothing to call", "[TOOL_CALLS] nothing to call", []),
        ("[TOOL_CALLS]now[ARGS]5", "[TOOL_CALLS]now[ARGS]5", []),
        ("[TOOL_CALLS]now[ARGS]{} Done", " Done", NOW),
        ("[TOOL", "[TOOL", []),
    )],
    # DeepSeek: with a block of Markdown and without.
    *[(form, text, content, calls) for form in (DEEPSEEK, DEEPSEEK_V31) for text, content, calls in (
        (V3.format('{"path": "```<｜tool▁sep｜>"}') + V3_NEXT, "", [("write", {"path": "```<｜tool▁sep｜>"}), *NOW]),
        ("Well.\n\n" + V31.format('{"lines": 3}'), "Well.", [("write", {"lines": 3})]),
        (V31.format("[]"), V31.format("[]"), []),
        ("<｜tool▁call▁begin｜>now<｜tool▁sep｜>{}", "", NOW),
        (V31.format('{"lines": 3}') + " Done.", " Done.", [("write", {"lines": 3})]),
        (V31.format('{"lines": 3}, so'), ", so", [("write", {"lines": 3})]),
        ("<｜tool▁call▁begin｜>now<｜tool▁sep｜>{}\nSo <｜tool▁calls▁end｜>it is", "\nSo it is", NOW),
    )],
    # Llama 3: bare, or behind its tag.
    (LLAMA, '<|python_tag|>{"name": "write", "parameters": {"path": "a"}}; {"name": "now", "parameters": {}}', "",
     [("write", {"path": "a"}), *NOW]),
    (LLAMA, 'So:\n<|python_tag|>{"name": "now", "parameters": {}}', "So:", NOW),
    (LLAMA, '{"name": "now", "parameters": {}} , that was all.', " , that was all.", NOW),
    (LLAMA, "<|python_tag|>print(5)", "<|python_tag|>print(5)", []),
    (LLAMA, '{"steps": []}<|python_tag|>{"name": "now", "parameters": {}}', '{"steps": []}', NOW),
]  # fmt: skip
TEMPLATES = {  # what the models' own templates have
    "hermes": '{% if tools %}{{ tools }}{% endif %}<tool_call>\n{"name": <function-name>}',
    "qwen3_coder": "{{ tools }}'\\n<tool_call>\\n<function=' + tool_call.name + '>\\n' '<parameter=' + name + '>\\n'",
    "llama3_json": "{% if not tools %}{% endif %}{{- '\"parameters\": ' }}{{- tool_call.arguments | tojson }}",
    "mistral": '{{ tools }}{{- "[TOOL_CALLS] [" }}',
    "mistral_v11": "{{ tools }}{{- '[TOOL_CALLS]' + name + '[CALL_ID]' + id + '[ARGS]' + arguments }}",
    "deepseek_v3": "'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + '\\n```json'",
    "deepseek_v31": "'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + name + '<｜tool▁sep｜>' + arguments",
    "glm45": "{{ tools }}{{ '\\n<tool_call>' + tc.name }}\n<arg_key>{{ k }}</arg_key>\n<arg_value>{{ v }}</arg_value>",
}  # fmt: skip


def read(form: ToolFormat, pieces: Sequence[str]) -> tuple[str, list[tuple[str, str]]]:
    """Return the content and the calls of a text in pieces; a call's first part alone has its name and id."""
    parser, content, calls = form.parser(FUNCTIONS), "", list[list[str]]()
    for number, piece in enumerate(pieces, 1):
        for part in parser.push(piece, last=number == len(pieces)):
            if isinstance(part, ToolCallDelta):
                assert (part.index == len(calls)) == bool(part.id) == bool(part.name)
                if part.name:
                    calls.append([part.name, ""])
                calls[part.index][1] += part.arguments
            else:
                content += part
    return content, [(name, arguments) for name, arguments in calls]


@pytest.mark.parametrize(("form", "text", "content", "calls"), CASES, ids=[case[1][:50] for case in CASES])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_calls(form: ToolFormat, text: str, content: str, calls: Calls, size: int) -> None:
    """Claim: content and calls are told apart, the arguments are JSON of the schema's types, in pieces of any size."""
    said, called = read(form, [text[start : start + size] for start in range(0, len(text), size)])
    assert (said, [(name, json.loads(arguments)) for name, arguments in called]) == (content, calls)


PIECES = [
    "<tool_call>", "</tool_call>", "\n", " ", "<function=write>", "<function=", "</function>", "<parameter=path>",
    "<parameter=lines>", "</parameter>", "write", "now", "<arg_key>path</arg_key>", "<arg_key>", "<arg_value>",
    "</arg_value>", "{", "}", '{"name": "now", "arguments": {}}', '{"path": "x', '"', "[", "]", ",", "5",
    "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>",
    "```json\n", "```", "function", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>", "<|python_tag|>", "é", "\\", "null",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_text_in_any_pieces(form: ToolFormat, data: st.DataObject) -> None:
    """Claim: whatever is written, all splits give the same; and without a call, the content is the text."""
    text = "".join(data.draw(st.lists(st.sampled_from(PIECES), max_size=25)))
    whole = read(form, [text])
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=12)))
    assert read(form, [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]) == whole
    assert read(form, [*text, ""]) == whole
    if not whole[1]:
        assert whole[0] == text


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (QWEN_CODER, xml(path=TEXT * 5)),
        (QWEN_CODER, xml(note=TEXT * 5)),
        (GLM, glm(path=TEXT * 5)),
        (MISTRAL_NAMED, "[TOOL_CALLS]write[ARGS]" + json.dumps({"path": TEXT * 5})),
        (DEEPSEEK, V3.format(json.dumps({"path": TEXT * 5}))),
        (LLAMA, "<|python_tag|>" + json.dumps({"name": "write", "parameters": {"path": TEXT * 5}})),
    ],
)
def test_arguments_come_as_they_are_written(form: ToolFormat, text: str) -> None:
    """Claim: long texts in arguments are not kept back until they are whole."""
    parser = form.parser(FUNCTIONS)
    parts = [part for char in text for part in parser.push(char, last=False) if isinstance(part, ToolCallDelta)]
    assert len(parts) > len(TEXT * 5) / 2


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_known_by_its_template(name: str) -> None:
    """Claim: the models' own templates tell their formats; a setting names another, and has all names."""
    assert tool_format(TEMPLATES[name]) is FORMATS[name]
    assert tool_format(TEMPLATES["hermes"], name=name) is FORMATS[name]
    assert set(get_args(GatewaySettings.model_fields["tool_format"].annotation)) == {"auto", *FORMATS}


def test_a_format_is_known_by_the_vocabulary() -> None:
    """Claim: where the template tells of tools but shows no call, the vocabulary's tokens tell."""
    assert tool_format("{{ tools }}", ["<s>", "[TOOL_CALLS]"]) is MISTRAL
    assert tool_format("{{ tools }}", ["<tool_call>"]) is HERMES
    assert tool_format("{{ tools }}", ["<s>"]) is None
    assert tool_format("{{ messages }}", ["<tool_call>"]) is None
    assert tool_format("<tool_call><function=") is None


def test_docs_have_every_format() -> None:
    """Claim: the table of docs/api.md has the formats by their names, and no others."""
    page = (Path(__file__).parents[3] / "docs" / "api.md").read_text("utf-8")
    table = page.split("<!-- formats", 1)[1].split("\n\n", 1)[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == list(FORMATS)
