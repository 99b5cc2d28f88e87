"""What the tokenizer refuses at once, what chat templates may fail on, and that others run beside it."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import tiny_tokenizer

from gateway.requests.chat import ChatMessage
from gateway.requests.json_text import MAX_DEPTH, parse_json
from gateway.text.tokenizer import ChatTokenizer, TextLengthError
from shared.errors import InvalidFieldError

HELLO = [ChatMessage.model_validate({"role": "user", "content": "hi"})]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    """Return a tiny tokenizer."""
    return ChatTokenizer.load(str(tiny_tokenizer.save(tmp_path_factory.mktemp("tokenizer"))))


@pytest.mark.parametrize("text", ["", "the horse rides", "naïve 東京 🐎\n\0", "<|im_start|>user", "a" * 3000])
def test_tokens_are_the_librarys(tokenizer: ChatTokenizer, text: str) -> None:
    """They are those of the library's plain method, of which a limit changes nothing."""
    expected = tokenizer._tokenizer.encode(text).ids
    assert tokenizer.encode(text) == tokenizer.encode(text, at_most=len(expected)) == expected


def test_a_text_too_long_is_told_by_its_tokens_or_its_bytes(tokenizer: ChatTokenizer) -> None:
    """A text that might fit is counted; one that cannot, even of the longest token, is not."""
    longest = tokenizer.token_bytes.longest
    assert longest == max(len(tokenizer.token_bytes[token_id]) for token_id in range(300))
    with pytest.raises(TextLengthError, match="11 tokens"):
        tokenizer.encode("x" * 11, at_most=10)
    assert len(tokenizer.encode("<|endoftext|>" * 10, at_most=10)) == 10
    with pytest.raises(TextLengthError, match=f"{10 * longest + 1} bytes"):
        tokenizer.encode("a" * (10 * longest + 1), at_most=10)
    with pytest.raises(TextLengthError, match=f"{10 * longest + 2} bytes"):
        tokenizer.encode("é" * (5 * longest + 1), at_most=10)


def test_others_run_while_a_long_text_is_tokenized(tokenizer: ChatTokenizer) -> None:
    """The interpreter is free for nearly all of the time, so an event loop beside it goes on."""
    text = "the horse and 東京 " * 60_000
    tokenizing = threading.Thread(target=tokenizer.encode, args=[text])
    began = last = time.perf_counter()
    longest = 0.0
    tokenizing.start()
    while tokenizing.is_alive():
        time.sleep(0.001)
        longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
    assert longest < (last - began) / 3


TEMPLATES = {
    "a wrong type": "{{ messages[0].content + 5 }}",
    "arithmetic": "{{ 1 // (messages | length - 1) }}",
    "a missing key": "{{ nothing.at.all }}",
    "endless recursion": "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    "a large loop": "{% for i in range(10 ** 9) %}{% endfor %}",
    "its own refusal": "{{ raise_exception('no') }}",
    "a method": "{{ messages[0].content.index('?') }}",
    "an attribute": "{{ messages[0].content.nothing() }}",
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES.keys())
def test_whatever_a_template_raises(tmp_path: Path, template: str) -> None:
    """It is an error of the request that names what the template was given."""
    folder = tiny_tokenizer.save(tmp_path)
    (folder / "chat_template.jinja").write_text(template)
    tokenizer = ChatTokenizer.load(str(folder))
    with pytest.raises(InvalidFieldError, match="messages: the model's chat template"):
        tokenizer.render_chat(HELLO)


@pytest.mark.parametrize(
    "name",
    [
        *("tokenize", "chat_template", "tools", "add_generation_prompt", "messages", "conversation", "conversations"),
        *("return_dict", "padding", "continue_final_message", "self", "tokenizer_kwargs", "max_length"),
    ],
)
def test_options_that_are_not_the_templates(tokenizer: ChatTokenizer, name: str) -> None:
    """An option by which the chat is rendered, and not what it says, is refused by name."""
    with pytest.raises(InvalidFieldError, match=f"chat_template_kwargs: {name} is not"):
        tokenizer.render_chat(HELLO, options={name: True})


@pytest.mark.parametrize("options", [{"raise_exception": 5, "x": 1}, {"a b": None}, {"": 1}, {"loop": 1}])
def test_other_options(tokenizer: ChatTokenizer, options: dict[str, Any]) -> None:
    """Any other option is the template's to use or not."""
    assert "hi" in tokenizer.render_chat(HELLO, options=options)


def test_what_options_break_names_them(tokenizer: ChatTokenizer) -> None:
    """Where there are options, they are named as what may be at fault."""
    with pytest.raises(InvalidFieldError, match=r"chat_template_kwargs: .* dicts with 'title'"):
        tokenizer.render_chat(HELLO, options={"documents": [1]})


def test_the_deepest_tool_is_rendered(tmp_path: Path) -> None:
    """What is read at the limit of depth can be written into the prompt."""
    folder = tiny_tokenizer.save(tmp_path)
    (folder / "chat_template.jinja").write_text("{{ tools[0] | tojson }} {{ x | tojson }}")
    deep = parse_json('{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH)
    text = ChatTokenizer.load(str(folder)).render_chat(HELLO, [deep], {"x": deep})
    assert text.count("{") == 2 * MAX_DEPTH
