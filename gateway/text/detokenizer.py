"""Token ids to text, as they come."""

import codecs

from tokenizers import Tokenizer

from gateway.text.token_bytes import TokenBytes


class Detokenizer:
    """Turns the token ids of one reply into text as they come. Special tokens have no text, unless they are shown.

    The tokenizer's own stream decodes all tokens again for as long as they are no whole characters, and fails on some:
    here each token is looked at once.
    """

    def __init__(self, tokenizer: Tokenizer, token_bytes: TokenBytes, shown: frozenset[int] = frozenset()) -> None:
        """Begin a reply; these special tokens have their names as text."""
        self._tokenizer, self._token_bytes = tokenizer, token_bytes
        self._silent = token_bytes.special - shown
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._before: list[int] = []  # the last token: a decoder may leave out the space of the first
        self.num_chars = 0

    def push(self, token_id: int) -> str:
        """Return the text that this token completes; empty in the middle of a character."""
        if token_id in self._silent:
            return ""
        part = self._token_bytes.part(token_id)
        text = self.flush() + self._whole(token_id) if part is None else self._characters.decode(part)
        self._before = [token_id]
        self.num_chars += len(text)
        return text

    def flush(self) -> str:
        """Return a character that the end of the reply cut off, as U+FFFD."""
        return self._characters.decode(b"", final=True)

    def _whole(self, token_id: int) -> str:
        """Return the text of a token that is whole characters."""
        before = self._tokenizer.decode(self._before)
        return str(self._tokenizer.decode([*self._before, token_id]))[len(before) :]
