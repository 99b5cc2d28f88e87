"""The bytes that single tokens stand for."""

import json
import re
from collections.abc import Iterable
from functools import lru_cache

from tokenizers import Tokenizer

# GPT-2's alphabet of byte-level BPE: a printable byte is its own character, the others follow from U+0100 on.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
_ALPHABET = {chr(byte): byte for byte in _PRINTABLE} | {chr(256 + i): byte for i, byte in enumerate(_OTHERS)}
_BYTE_FALLBACK = re.compile("<0x([0-9A-F]{2})>")


class TokenBytes:
    """Returns the bytes of tokens, for byte-level vocabularies and for SentencePiece's with its byte fallback."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Find out how the vocabulary is written."""
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._added = frozenset(added)
        self.special = frozenset(token_id for token_id, token in added.items() if token.special)
        """The tokens that are no text."""
        self.added = {token.content: token_id for token_id, token in added.items()}
        """The texts that are always a single token, special ones and others, and these."""
        self.part = lru_cache(maxsize=4096)(self._part)
        """Returns the bytes of a token that may be a part of a character, None for one that is whole characters."""
        self._byte_level = '"ByteLevel"' in json.dumps(json.loads(tokenizer.to_str())["decoder"])
        lengths = (len(token) if self._byte_level else len(token.encode()) for token in tokenizer.get_vocab())
        self.longest = max(*lengths, *(len(token.encode()) for token in self.added), 1)
        """The most bytes of a token."""

    def __getitem__(self, token_id: int) -> bytes:
        """Return the token's bytes: none for padding, the name of a special token."""
        part = self.part(token_id)
        return (self._tokenizer.id_to_token(token_id) or "").replace("\u2581", " ").encode() if part is None else part

    def _part(self, token_id: int) -> bytes | None:
        token = self._tokenizer.id_to_token(token_id) or ""
        if token_id in self._added:
            return token.encode()
        if self._byte_level:
            try:
                return bytes(map(_ALPHABET.__getitem__, token))
            except KeyError:  # none of the alphabet's: the tokenizer, too, takes it as it stands
                return token.encode()
        match = _BYTE_FALLBACK.fullmatch(token)
        return bytes([int(match[1], 16)]) if match else None

    def named(self, texts: Iterable[str]) -> frozenset[int]:
        """Return the special tokens that these texts are the names of."""
        token_ids = map(self._tokenizer.token_to_id, texts)
        return frozenset(token_id for token_id in token_ids if token_id in self.special)

    def text(self, token_id: int) -> str:
        r"""Return the token as text, or in the form `\xf0\x9f` if it is not whole characters."""
        token = self[token_id]
        try:
            return token.decode()
        except UnicodeDecodeError:
            return "".join(f"\\x{byte:02x}" for byte in token)
