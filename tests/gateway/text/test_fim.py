"""Prompts for the middle of a text: each family's order of tokens, and no text that stands for one."""

from pathlib import Path

import pytest
import tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from gateway.text.fim import FAMILIES, FimTokens
from gateway.text.plain_encoder import PlainEncoder
from gateway.text.tokenizer import ChatTokenizer


def with_tokens(folder: Path, names: list[str], *, special: bool) -> ChatTokenizer:
    """Return a tiny tokenizer with these tokens."""
    tokenizer = ChatTokenizer.load(str(tiny_tokenizer.save(folder)))
    (tokenizer._tokenizer.add_special_tokens if special else tokenizer._tokenizer.add_tokens)(names)
    return ChatTokenizer(tokenizer._chat, tokenizer.stop_token_ids)


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family[0])
def test_families(tmp_path: Path, family: tuple[str, str, str], *, special: bool) -> None:
    """Claim: prefix, suffix, middle, or the suffix first where there is no token for the middle; all of them end it."""
    tokenizer = with_tokens(tmp_path, [name for name in family if name], special=special)
    assert tokenizer.fim
    prefix, suffix, middle = family
    text = tokenizer.decode(tokenizer.fim.prompt(tokenizer.encode("the"), tokenizer.encode("ahead")))
    assert text == (f"{prefix}the{suffix}ahead{middle}" if middle else f"{suffix}ahead{prefix}the")
    assert {tokenizer._tokenizer.token_to_id(name) for name in family if name} <= tokenizer.fim.ends
    assert tokenizer._tokenizer.token_to_id("<|endoftext|>") in tokenizer.fim.ends
    assert not set(tokenizer.encode_plain(f"the{prefix}{suffix}<|im_end|>")) & (tokenizer.fim.ends | {0, 1, 2})
    assert tokenizer.decode(tokenizer.encode_plain(f"the{prefix}")) == f"the{prefix}"


def test_no_family() -> None:
    """Claim: a part of a family is none."""
    assert FimTokens.of({"<fim_prefix>": 5, "<fim_suffix>": 6}.get) is None


def test_what_continues_a_text_gets_no_space_of_its_own() -> None:
    """Claim: SentencePiece's space before a text, which CodeLlama's suffix must not have, is left out."""
    vocabulary = {piece: number for number, piece in enumerate(["▁", "a", "☺"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace()
    encode = PlainEncoder(tokenizer).encode
    assert (encode("aa"), encode("aa", continues=True)) == ([0, 1, 1], [1, 1])
