"""The gateway's tokenizer: templates, stop tokens, and text that grows token by token."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from gateway.generation.seeds import choice_seed
from gateway.requests.chat import ChatMessage
from gateway.text.stop_strings import StopStrings
from gateway.text.tokenizer import ChatTokenizer
from shared.errors import InvalidFieldError, ModelError
from shared.fingerprint import fingerprint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny tokenizer."""
    return tiny_tokenizer.save(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> ChatTokenizer:
    """Return a tiny tokenizer."""
    return ChatTokenizer.load(str(folder))


def message(role: str, content: object) -> ChatMessage:
    """Return a message as a request would have it."""
    return ChatMessage.model_validate({"role": role, "content": content})


def text_of(tokenizer: ChatTokenizer, token_ids: list[int]) -> str:
    """Decode token by token, as a stream does."""
    detokenizer = tokenizer.detokenizer()
    return "".join(map(detokenizer.push, token_ids)) + detokenizer.flush()


def test_torch_is_not_imported(folder: Path) -> None:
    """Claim: the whole gateway, a loaded tokenizer and a rendered chat need no torch, though it is installed here."""
    script = (
        "import sys, gateway.app\n"
        "from gateway.text.tokenizer import ChatTokenizer\n"
        "from gateway.requests.chat import ChatMessage\n"
        f"ChatTokenizer.load({str(folder)!r}).encode_chat([ChatMessage(role='user', content='hi')])\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_chat_is_rendered_up_to_the_reply(tokenizer: ChatTokenizer) -> None:
    """Claim: a chat is its template's text, control tokens as single ids, ending where the assistant begins."""
    token_ids = tokenizer.encode_chat([message("user", "the horse")])
    start, end = 1, 2
    assert token_ids[0] == start
    expected = [start, *tokenizer.encode("user\nthe horse"), end, *tokenizer.encode("\n")]
    assert token_ids == [*expected, start, *tokenizer.encode("assistant\n")]


def test_options_and_tools_reach_the_template(tmp_path: Path) -> None:
    """Claim: a template sees the request's options, its tools, and calls with their arguments as an object."""
    folder = tiny_tokenizer.save(tmp_path)
    template = "{{ tools }} {{ enable_thinking }} {{ messages[0].tool_calls[0].function.arguments.a }}"
    (folder / "chat_template.jinja").write_text(template)
    call = {"id": "1", "function": {"name": "f", "arguments": '{"a": 5}'}}
    said = ChatMessage.model_validate({"role": "assistant", "tool_calls": [call]})
    text = ChatTokenizer.load(str(folder)).render_chat([said], [{"type": "function"}], {"enable_thinking": False})
    assert text == "[{'type': 'function'}] False 5"


def test_text_parts_are_one_text(tokenizer: ChatTokenizer) -> None:
    """Claim: text parts are joined by line ends."""
    parts = [{"type": "text", "text": "the"}, {"type": "text", "text": "coach"}]
    assert tokenizer.encode_chat([message("user", parts)]) == tokenizer.encode_chat([message("user", "the\ncoach")])


def test_developer_is_system_where_the_template_does_not_know_it(tokenizer: ChatTokenizer) -> None:
    """Claim: a developer message is not lost on a template that knows only system."""
    chats = [[message(role, "be brief"), message("user", "hi")] for role in ("developer", "system")]
    assert tokenizer.encode_chat(chats[0]) == tokenizer.encode_chat(chats[1])


def test_refusal_of_the_template_names_messages(tokenizer: ChatTokenizer) -> None:
    """Claim: what a template raises is the client's error, and the template's words reach the client."""
    with pytest.raises(InvalidFieldError, match=r"messages: .*begins with the user"):
        tokenizer.encode_chat([message("assistant", "hi")])


def test_no_template_names_messages(tmp_path: Path) -> None:
    """Claim: a chat with a model that has no template is the client's error; plain text still works."""
    tokenizer = ChatTokenizer.load(str(tiny_tokenizer.save(tmp_path, template=False)))
    assert tokenizer.encode("the horse")
    with pytest.raises(InvalidFieldError, match=r"messages: the model has no chat template; .* --chat-template FILE"):
        tokenizer.encode_chat([message("user", "hi")])


@pytest.mark.parametrize("own", [True, False])
def test_a_given_template_takes_the_place_of_the_models(tmp_path: Path, *, own: bool) -> None:
    """Claim: whether the model has one or not."""
    file = tmp_path / "given template.jinja"
    file.write_text(
        "{% for message in messages %}{% generation %}<{{ message.content }}>{% endgeneration %}{% endfor %}"
    )
    tokenizer = ChatTokenizer.load(str(tiny_tokenizer.save(tmp_path, template=own)), str(file))
    assert tokenizer.render_chat([message("user", "hé")]) == "<hé>"


@pytest.mark.parametrize("content", [None, b"{% for %}", b"\xff"], ids=["no file", "no template", "no text"])
def test_a_bad_template_stops_the_start(folder: Path, tmp_path: Path, content: bytes | None) -> None:
    """Claim: in a sentence that names the file."""
    file = tmp_path / "template.jinja"
    if content:
        file.write_bytes(content)
    with pytest.raises(ModelError, match=rf"^chat template {file}: .+$"):
        ChatTokenizer.load(str(folder), str(file))


def test_stop_tokens_come_from_both_sources(folder: Path, tmp_path: Path) -> None:
    """Claim: stop tokens are those of generation_config.json (one or several, if any) and the tokenizer's own."""
    assert ChatTokenizer.load(str(folder)).stop_token_ids == {0, 2}
    other = tiny_tokenizer.save(tmp_path)
    (other / "generation_config.json").write_text(json.dumps({"eos_token_id": 0}), "utf-8")
    assert ChatTokenizer.load(str(other)).stop_token_ids == {0, 2}
    (other / "generation_config.json").unlink()
    assert ChatTokenizer.load(str(other)).stop_token_ids == {2}


def test_missing_tokenizer_is_a_model_error(tmp_path: Path) -> None:
    """Claim: a folder without a tokenizer stops the start with an error that names it."""
    with pytest.raises(ModelError, match=str(tmp_path)):
        ChatTokenizer.load(str(tmp_path))


def test_fingerprint_is_of_the_vocabulary(tokenizer: ChatTokenizer, folder: Path) -> None:
    """Claim: the fingerprint covers every token of tokenizer.json, the specials included."""
    data = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    vocabulary = data["model"]["vocab"] | {token["content"]: token["id"] for token in data["added_tokens"]}
    assert tokenizer.fingerprint == fingerprint(vocabulary)


@pytest.mark.parametrize("text", ["the horse rides", "naïve café — 東京 🐎🏇🏽!", " leading and trailing ", "\n\n\t"])
def test_detokenizing_token_by_token_gives_the_text_back(tokenizer: ChatTokenizer, text: str) -> None:
    """Claim: token by token the text is whole again, though most of its characters span several tokens."""
    assert text_of(tokenizer, tokenizer.encode(text)) == text


def test_half_a_character_waits_and_the_end_shows_it(tokenizer: ChatTokenizer) -> None:
    """Claim: bytes of an unfinished character are held, and become U+FFFD when the reply is cut there."""
    detokenizer = tokenizer.detokenizer()
    pieces = [detokenizer.push(token_id) for token_id in tokenizer.encode("a🐎")[:-1]]
    assert "".join(pieces) == "a"
    assert detokenizer.flush() == "\ufffd"


def test_special_and_padding_tokens_have_no_text(tokenizer: ChatTokenizer) -> None:
    """Claim: control tokens, and ids of padded rows that no token has, leave the text as it is."""
    token_ids = tokenizer.encode("the coach")
    assert text_of(tokenizer, [1, *token_ids[:1], 290_000, *token_ids[1:], 2]) == "the coach"


@given(data=st.data())
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
def test_any_tokens_have_the_text_that_the_tokenizer_gives_them(tokenizer: ChatTokenizer, data: st.DataObject) -> None:
    """Claim: token by token, bytes that are no characters included, the text is that of all tokens at once."""
    token_ids = data.draw(st.lists(st.integers(0, 299), max_size=40))
    assert text_of(tokenizer, token_ids) == tokenizer._tokenizer.decode(token_ids)


def test_single_bytes_of_a_vocabulary_without_an_alphabet(tmp_path: Path) -> None:
    """Claim: SentencePiece's way to spell what is no token gives whole characters, and U+FFFD for the rest."""
    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581the", "horse"]
    model = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, [], byte_fallback=True))
    model.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    PreTrainedTokenizerFast(tokenizer_object=model, eos_token="<unk>").save_pretrained(tmp_path)  # noqa: S106
    tokenizer = ChatTokenizer.load(str(tmp_path))
    the, horse, *parts = 257, 258, *(byte + 1 for byte in "é\n🐎".encode())
    assert text_of(tokenizer, [the, horse, *parts, the]) == "thehorseé\n🐎 the"
    assert text_of(tokenizer, [horse, *parts[:2], 0x81, horse, *parts[-3:]]) == "horseé\ufffdhorse\ufffd\ufffd\ufffd"


@pytest.mark.parametrize(
    ("stops", "text", "expected"),
    [
        (["END"], "a END b", "a "),
        (["END"], "a EN b", "a EN b"),
        (["END", "a E"], "x a END", "x "),
        (["aab"], "aaab!", "a"),
        (["ababac"], "abababac", "ab"),
        (["abab", "b"], "aab", "aa"),
        ([], "anything", "anything"),
    ],
)
def test_stop_strings_cut_the_same_however_the_text_is_split(stops: list[str], text: str, expected: str) -> None:
    """Claim: character by character or in pairs, text before the stop string comes out and nothing after it."""
    for size in (1, 2):
        matcher, out = StopStrings(stops), ""
        for start in range(0, len(text), size):
            out += matcher.push(text[start : start + size])
            if matcher.found:
                break
        else:
            out += matcher.flush()
        assert out == expected


def test_only_a_possible_stop_is_held_back() -> None:
    """Claim: text comes out at once unless its end may be the beginning of a stop string."""
    matcher = StopStrings(["</s>"])
    assert [matcher.push(piece) for piece in ("one <", "b> two </", "s")] == ["one ", "<b> two ", ""]
    assert matcher.flush() == "</s"


def test_what_is_held_back_is_what_may_begin_a_stop() -> None:
    """Claim: for strings that overlap themselves and each other, it is the longest end of the text that begins one."""
    rng = random.Random(1)
    for _ in range(300):
        stops = ["".join(rng.choices("ab", k=rng.randint(1, 7))) for _ in range(3)]
        matcher, text, out = StopStrings(stops), "", ""
        while not matcher.found and len(text) < 30:
            piece = "".join(rng.choices("ab", k=rng.randint(1, 3)))
            text, out = text + piece, out + matcher.push(piece)
            if not any(stop in text for stop in stops):
                begun = (length for stop in stops for length in range(len(stop)) if text.endswith(stop[:length]))
                assert out == text[: len(text) - max(begun)]
        starts = [text.find(stop) for stop in stops if stop in text]
        assert out == (text[: min(starts)] if starts else out)


def test_choice_seeds_are_fixed() -> None:
    """Claim: choice 0 has the request's seed; the others have fixed, distinct seeds of 64 signed bits."""
    seeds = [choice_seed(-5, index) for index in range(128)]
    assert seeds[0] == -5
    assert len(set(seeds)) == 128
    assert all(seed in range(-(2**63), 2**63) for seed in seeds)
    assert choice_seed(42, 1) == EXPECTED_SEED


EXPECTED_SEED = 1274913726319268062
"""Written down once: a change would break the promise that a seed gives the same output in every version."""
