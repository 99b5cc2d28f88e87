"""Reasoning and calls of tools, however the text is split."""

import json
from typing import Any

import pytest

from gateway.parsing.formats.hermes import HERMES
from gateway.parsing.formats.known import tool_format
from gateway.parsing.formats.llama import LLAMA
from gateway.parsing.reply_format import ReplyFormat
from gateway.parsing.reply_parser import ReplyParser
from shared.sampling_params import Grammar

CALL = '{"name": "f", "arguments": {"a": "x } </tool \\" {", "b": [1, {}]}}'
ARGUMENTS = '{"a": "x } </tool \\" {", "b": [1, {}]}'
OTHER = '{"name": "g", "arguments": {}}'
BAD_ESCAPE, HALF_NAME = '{"name": "a\\q", "arguments": {}}', '{"name": "\\ud83d", "arguments": {}}'
DEEP = '{"a": ' + "[" * 2000
DEEP_CALL = '{"name": "f", "arguments": ' + DEEP + "]" * 2000 + "}}"
THINKING, HERMES_TOOLS, LLAMA_TOOLS = ReplyFormat(reasoning=True), ReplyFormat(tools=HERMES), ReplyFormat(tools=LLAMA)
ALL = ReplyFormat(reasoning=True, tools=HERMES)
BARE = ReplyFormat(tools=HERMES, bare=["f", "g"])
TAGS_ARGUMENTS = '{"text": "use <tool_call> and </tool_call>"}'
TAGS = f'{{"name": "w", "arguments": {TAGS_ARGUMENTS}}}'
LAX = {
    '{"a": "x\ny\tz"}': '{"a": "x\\ny\\tz"}',
    '{"a": [1, 2, ], "b": 1,}': '{"a": [1, 2 ], "b": 1}',
    "{'a': 'say \"so\"', 'b': 'it\\'s'}": '{"a": "say \\"so\\"", "b": "it\'s"}',
    '{"a": None, "b": True}': '{"a": null, "b": true}',
    '{"a": /* here */ 1} // there\n': '{"a":  1}',
    '{a: "\\d+", b: -1.5e3, c: red}': '{"a": "\\\\d+", "b": -1.5e3, "c": "red"}',
    '{"a": {"b": [1, 2': '{"a": {"b": [1, 2]}}',
}
BARE_FORMS = {
    f"{CALL}\n{OTHER}": "",
    f"[{CALL}, {OTHER}]": "",
    f"```json\n{CALL}\n{OTHER}\n```": "",
    f"```json\n{CALL}\n```\n```json\n{OTHER}\n```\n": "",
    f"<tools>\n[{CALL}, {OTHER}]\n</tools>": "",
    f"<response>\n{CALL}\n</response>\n<response>\n{OTHER}\n</response>": "",
    f"{{{CALL}}}\n{{{OTHER.replace('arguments', 'parameters')}}}": "",
    f"```xml\n<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{OTHER}\n</tool_call>\n```": "",
    f"I look it up.\n\n```json\n{CALL}\n{OTHER}\n```": "I look it up.",
    f"```c\nint f;\n```\n<tools>{CALL}{OTHER}</tools>": "```c\nint f;\n```",
}
BARE_OTHERS = [
    f"So:\n```json\n{CALL}\n```\nThat was f.",
    f"So: [{CALL}, 5]",
    f"``` ```json\n{OTHER}\n```",
    f'{{"name": "f", "x": {{}}}}\n{OTHER}!',
    "<tool> <b>`x` ``y``</b> {{{",
    "[1, 2] {",
]
CASES: list[tuple[ReplyFormat, str, str, str, list[tuple[str, str]]]] = [
    (ReplyFormat(), " plain <think> <tool_call> ", " plain <think> <tool_call> ", "", []),
    (THINKING, "<think>\nWell.\n\nSo\n</think>\n\nYes.\n", "Yes.\n", "Well.\n\nSo", []),
    (THINKING, "<think>\n\n</think>\n\nYes", "Yes", "", []),
    (THINKING, "\nNo <think> here", "\nNo <think> here", "", []),
    (THINKING, "<think", "<think", "", []),
    (THINKING, "<think>cut off </thi", "", "cut off </thi", []),
    (ReplyFormat(reasoning=True, thinking=True), "Well\n</think>\nYes", "Yes", "Well", []),
    (HERMES_TOOLS, f"<tool_call>\n{CALL}\n</tool_call>", "", "", [("f", ARGUMENTS)]),
    (
        HERMES_TOOLS,
        f"Let me see.\n\n<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{OTHER}\n</tool_call>\n",
        "Let me see.",
        "",
        [("f", ARGUMENTS), ("g", "{}")],
    ),
    (HERMES_TOOLS, "a < b and <tool_c \n", "a < b and <tool_c \n", "", []),
    (HERMES_TOOLS, "<tool_call>nonsense</tool_call>", "<tool_call>nonsense</tool_call>", "", []),
    (HERMES_TOOLS, f"<tool_call>\n{CALL}", "", "", [("f", ARGUMENTS)]),
    (HERMES_TOOLS, '<tool_call>{"name": "f", "arguments": {"a": 1', "", "", [("f", '{"a": 1')]),
    (HERMES_TOOLS, '<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>', "", "", [("f", '{"a": 1}')]),
    (ReplyFormat(tools=HERMES, parallel=False), f"<tool_call>{OTHER}</tool_call><tool_call>{CALL}</tool_call>", "", "",
     [("g", "{}")]),
    (ALL, f"<think>Hm <tool_call></think>\n\n<tool_call>\n{CALL}\n</tool_call>", "", "Hm <tool_call>",
     [("f", ARGUMENTS)]),
    (LLAMA_TOOLS, '{"name": "f", "parameters": {"a": 1}}', "", "", [("f", '{"a": 1}')]),
    (LLAMA_TOOLS, ' {"type": "function", "name": "f", "parameters": {"a": 1}}; {"name": "g", "parameters": {}}', "", "",
     [("f", '{"a": 1}'), ("g", "{}")]),
    (LLAMA_TOOLS, "It is {so}.", "It is {so}.", "", []),
    (LLAMA_TOOLS, '{"steps": []}', '{"steps": []}', "", []),
    (BARE, CALL, "", "", [("f", ARGUMENTS)]),
    (BARE, f"\n```json\n{OTHER}\n```\n", "", "", [("g", "{}")]),
    (BARE, f"```\n{OTHER}\n```", "", "", [("g", "{}")]),
    (BARE, f"```json\n{OTHER}\n", "", "", [("g", "{}")]),
    (BARE, f"{OTHER} That was g.", "That was g.", "", [("g", "{}")]),
    (BARE, f"Here: {OTHER}", f"Here: {OTHER}", "", []),
    (BARE, '{"name": "h", "arguments": {}}', '{"name": "h", "arguments": {}}', "", []),
    (BARE, '{"name": "f", "arguments": 5}', '{"name": "f", "arguments": 5}', "", []),
    (BARE, '{"name": "f", "arguments": {"a": 1', "", "", [("f", '{"a": 1')]),
    (BARE, "```c\nint f;\n```", "```c\nint f;\n```", "", []),
    (BARE, f"\n<tool_call>\n{CALL}\n</tool_call>", "", "", [("f", ARGUMENTS)]),
    (HERMES_TOOLS, OTHER, OTHER, "", []),
    (HERMES_TOOLS, f"<tool_call>{BAD_ESCAPE}</tool_call>", "", "", [("a\\q", "{}")]),
    (HERMES_TOOLS, f"<tool_call>{HALF_NAME}</tool_call>", f"<tool_call>{HALF_NAME}</tool_call>", "", []),
    (HERMES_TOOLS, f'<tool_call>{{"arguments": {DEEP}', f'<tool_call>{{"arguments": {DEEP}', "", []),
    (HERMES_TOOLS, f'<tool_call>{{"name": "f", "arguments": {DEEP}', "", "", [("f", DEEP)]),
    (LLAMA_TOOLS, f'{{"name": "f", "parameters": {DEEP}', "", "", [("f", DEEP)]),
    (LLAMA_TOOLS, f'{{"name": "f", "parameters": {{}}}} {OTHER}', "", "", [("f", "{}"), ("g", "{}")]),
    (LLAMA_TOOLS, f'{{"name": "f", "parameters": {{}}}};; {OTHER}', f";; {OTHER}", "", [("f", "{}")]),
    (BARE, DEEP_CALL, "", "", [("f", DEEP_CALL[27:-1])]),
    # A tag within a string is text, and JSON says where a call ends.
    (HERMES_TOOLS, f"<tool_call>\n{TAGS}\n</tool_call>", "", "", [("w", TAGS_ARGUMENTS)]),
    (HERMES_TOOLS, f"{TAGS} </tool_call> <tool_call>{TAGS}", f"{TAGS} </tool_call>", "", [("w", TAGS_ARGUMENTS)]),
    (HERMES_TOOLS, f"<tool_call>{OTHER[:-1]}</tool_call>so", "so", "", [("g", "{}")]),
    # Several calls in a block, arrays, twice the bracket, other keys, no closing tag.
    (HERMES_TOOLS, f"<tool_call>\n{CALL}\n{OTHER}\n</tool_call>", "", "", [("f", ARGUMENTS), ("g", "{}")]),
    (HERMES_TOOLS, f"<tool_call>[{CALL}, {OTHER}]</tool_call>", "", "", [("f", ARGUMENTS), ("g", "{}")]),
    (HERMES_TOOLS, f"<tool_call>{{{OTHER}}}</tool_call>", "", "", [("g", "{}")]),
    (HERMES_TOOLS, f"<tool_call>{OTHER}<tool_call>{CALL}", "", "", [("g", "{}"), ("f", ARGUMENTS)]),
    (HERMES_TOOLS, f"<tool_call>{OTHER} and so on</tool_call> .", "and so on .", "", [("g", "{}")]),
    (HERMES_TOOLS, f"<tool_call>\n{OTHER}\nThat was g.\n\n", "That was g.", "", [("g", "{}")]),
    (HERMES_TOOLS, f"<tool_call>{OTHER}</tool_call></tool_call>", "</tool_call>", "", [("g", "{}")]),
    (HERMES_TOOLS, f"<tool_call>{OTHER} and so\n</tool_call>I do", "and so\nI do", "", [("g", "{}")]),
    (HERMES_TOOLS, f"<tool_call>{OTHER}\nno <tool_call>: \n</tool_call>so", "no <tool_call>: \nso", "", [("g", "{}")]),
    (HERMES_TOOLS, f"<tool_call>{OTHER}\n<tool_call>\n</tool_call>", "<tool_call>", "", [("g", "{}")]),
    (HERMES_TOOLS, f"<tool_call>{OTHER}</tool_call>\n<tool_call>no</tool_call>", "\n<tool_call>no</tool_call>", "",
     [("g", "{}")]),
    (HERMES_TOOLS, '<tool_call>{"function": "f", "arguments": {}}</tool_call>', "", "", [("f", "{}")]),
    (HERMES_TOOLS, '<tool_call>{"name": "f", "arguments": "{}"}</tool_call>', "", "", [("f", "{}")]),
    (HERMES_TOOLS, '<tool_call>{"name": "f", "arguments": null}</tool_call>', "", "", [("f", "{}")]),
    (HERMES_TOOLS, "So:\n<tool_call>[{", "So:\n<tool_call>[{", "", []),
    (HERMES_TOOLS, f"<tool_call>no<tool_call>{OTHER}", "<tool_call>no", "", [("g", "{}")]),
    # What is no JSON becomes JSON, where it is clear what was meant.
    *[(HERMES_TOOLS, f'<tool_call>{{"name": "f", "arguments": {lax}</tool_call>', "", "", [("f", exact)])
      for lax, exact in LAX.items()],
    # Without tags at the beginning, it is certain to be a call once its arguments begin: what follows is content.
    (BARE, f"```json\n{CALL}\n```\nThat was f.", "That was f.", "", [("f", ARGUMENTS)]),
    (BARE, f"[{CALL}, 5]", "5]", "", [("f", ARGUMENTS)]),
    (BARE, f"[{CALL}] [1] says so.", "[1] says so.", "", [("f", ARGUMENTS)]),
    (BARE, f"{CALL}\n{{{{x}}}} is", "{{x}} is", "", [("f", ARGUMENTS)]),
    *[(form, f"{tag}{CALL} {end}", end, "", [("f", ARGUMENTS)])
      for form, tag in ((BARE, ""), (HERMES_TOOLS, "<tool_call>")) for end in ("[", "{", "[ {")],
    (BARE, f"{OTHER}\nand\n<tool_call>\n{CALL}\n</tool_call>", "and", "", [("g", "{}"), ("f", ARGUMENTS)]),
    (BARE, f'{OTHER}{{"name": "h", "arguments": {{}}}}', '{"name": "h", "arguments": {}}', "", [("g", "{}")]),
    # Without tags: wrong ones, blocks, arrays, words before, and nothing after.
    *[(BARE, text, words, "", [("f", ARGUMENTS), ("g", "{}")]) for text, words in BARE_FORMS.items()],
    *[(BARE, text, text, "", []) for text in BARE_OTHERS],
]  # fmt: skip


@pytest.mark.parametrize(("form", "text", "content", "reasoning", "calls"), CASES, ids=[case[1][:40] for case in CASES])
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_parts(  # noqa: PLR0917  # a case's own
    form: ReplyFormat, text: str, content: str, reasoning: str, calls: list[tuple[str, str]], size: int
) -> None:
    """Claim: pieces of any size give the same parts, and a call's name comes with its first part and only there."""
    parser, said, thought, called = ReplyParser(form), "", "", list[dict[str, Any]]()
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    for number, piece in enumerate(pieces, 1):
        parts = parser.push(piece, last=number == len(pieces))
        said, thought = said + parts.content, thought + parts.reasoning
        for part in parts.tool_calls:
            if part.index == len(called):
                assert part.id
                called.append({"name": part.name, "arguments": ""})
            else:
                assert part.name is None
            called[part.index]["arguments"] += part.arguments
    assert (said, thought) == (content, reasoning)
    assert [(call["name"], call["arguments"]) for call in called] == calls
    thinks = form.reasoning and (form.thinking or text.startswith("<think>"))
    end = text.index("</think>") + len("</think>") if "</think>" in text else len(text)
    assert parser.reasoning_tokens == (len(range(0, end, size)) if thinks else 0)
    at_once = ReplyParser(form).push(*pieces, last=True)
    assert (at_once.content, at_once.reasoning) == (content, reasoning)


@pytest.mark.parametrize(("form", "text"), [(HERMES_TOOLS, f"<tool_call>\n{CALL}"), (BARE, f"```json\n{CALL}")])
def test_arguments_are_streamed(form: ReplyFormat, text: str) -> None:
    """Claim: the name comes before the arguments are whole, and these as they come, with tags and without."""
    parser = ReplyParser(form)
    parts = [parser.push(piece, last=False).tool_calls for piece in text]
    assert sum(bool(part) for part in parts) > len(ARGUMENTS) / 2


@pytest.mark.parametrize(
    ("template", "form"),
    [
        ("{{ tools }} <tool_call>", HERMES),
        ('{{ tools }} {"name": n, "parameters": p}', LLAMA),
        ("<tool_call><function=", None),
        ("{{ messages }}", None),
    ],
)
def test_formats_are_known_by_the_template(template: str, form: object) -> None:
    """Claim: the chat template tells how a model calls tools."""
    assert tool_format(template) is form


@pytest.mark.parametrize("text", ["{", "false", "5", "[]"])
def test_a_wrong_schema_is_left_to_the_target(text: str) -> None:
    """Claim: what is no schema is not wrapped in anything, so that the target names what is wrong."""
    wrong = Grammar("json_schema", text)
    assert THINKING.after_reasoning(wrong, {}) is wrong


def test_json_of_the_cases() -> None:
    """The calls above are calls."""
    assert json.loads(CALL)["arguments"] == json.loads(ARGUMENTS)
