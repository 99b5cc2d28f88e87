"""Text to token ids, none of which is a special token whatever the text has."""

import json
from threading import Lock

from tokenizers import Tokenizer

_MARK = "\u263a"  # any text that the next one does not merge with


class PlainEncoder:
    """Encodes parts of a prompt that is put together from tokens: the name of a token in a text stays text.

    Safe to use from several threads.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Encode with this tokenizer's vocabulary."""
        self._original = tokenizer
        self._plain: Tokenizer | None = None
        self._making = Lock()

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """Return the token ids of a text; one that continues another gets no space of the vocabulary's own."""
        tokenizer = self._tokenizer()
        if not continues:
            return _encoded(tokenizer, text)
        mark, whole = _encoded(tokenizer, _MARK), _encoded(tokenizer, _MARK + text)
        return whole[len(mark) :] if whole[: len(mark)] == mark else self.encode(text)

    def _tokenizer(self) -> Tokenizer:
        """Return a copy without added tokens, made when it is first needed: that takes a second."""
        with self._making:
            if self._plain is None:
                self._plain = Tokenizer.from_str(json.dumps(json.loads(self._original.to_str()) | {"added_tokens": []}))
            return self._plain


def _encoded(tokenizer: Tokenizer, text: str) -> list[int]:
    [encoding] = tokenizer.encode_batch_fast([text], add_special_tokens=False)  # which lets go of the interpreter
    return list(encoding.ids)
