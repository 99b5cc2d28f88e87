"""The formats that are known, and which one a model has."""

import re
from collections.abc import Collection

from gateway.parsing.formats.deepseek import DEEPSEEK, DEEPSEEK_V31
from gateway.parsing.formats.glm import GLM
from gateway.parsing.formats.hermes import HERMES
from gateway.parsing.formats.llama import LLAMA
from gateway.parsing.formats.mistral import MISTRAL, MISTRAL_NAMED
from gateway.parsing.formats.qwen_coder import QWEN_CODER
from gateway.parsing.formats.tool_format import ToolFormat

FORMATS: dict[str, ToolFormat] = {
    "hermes": HERMES,
    "qwen3_coder": QWEN_CODER,
    "llama3_json": LLAMA,
    "mistral": MISTRAL,
    "mistral_v11": MISTRAL_NAMED,
    "deepseek_v3": DEEPSEEK,
    "deepseek_v31": DEEPSEEK_V31,
    "glm45": GLM,
}
"""By their names in the settings, which are vLLM's where it has them."""
_MARKS = [  # what a template has that writes calls so, the more special before the more common
    ("deepseek_v3", r"<｜tool▁call▁begin｜>(?s:.)*```json"),
    ("deepseek_v31", "<｜tool▁call▁begin｜>"),
    ("glm45", "<arg_key>"),
    ("qwen3_coder", "<function=(?s:.)*<parameter="),
    ("mistral_v11", r"\[TOOL_CALLS\](?s:.)*\[ARGS\]"),
    ("mistral", r"\[TOOL_CALLS\]"),
    ("hermes", r"\A(?!(?s:.)*<function=)(?s:.)*<tool_call>"),
    ("llama3_json", r'\A(?=(?s:.)*tools)(?s:.)*"parameters"'),
]
_TOKENS = {
    "<｜tool▁call▁begin｜>": "deepseek_v3", "<arg_key>": "glm45", "[TOOL_CALLS]": "mistral", "<tool_call>": "hermes",
    "<|python_tag|>": "llama3_json",
}  # fmt: skip


def tool_format(template: str, tokens: Collection[str] = (), name: str = "auto") -> ToolFormat | None:
    """Return how a model calls tools; None if it does not, or in an unknown way.

    `auto` is what its chat template shows or, if that tells of tools and shows no call, what its vocabulary has tokens
    for.
    """
    if name != "auto":
        return FORMATS[name]
    for known, mark in _MARKS:
        if re.search(mark, template):
            return FORMATS[known]
    if not re.search(r"\btools\b", template):
        return None
    return next((FORMATS[known] for token, known in _TOKENS.items() if token in tokens), None)
