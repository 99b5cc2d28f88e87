"""JSON as models write it, made into JSON as it comes."""

import json
import re
from collections.abc import Iterator

_RUN = re.compile(r"""[^\\"'\x00-\x1f]+""")  # of a string: what goes on as it stands
_WORD = re.compile(r"[\w.+\-]+")
_LITERAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null")
_PYTHONS = {"True": "true", "False": "false", "None": "null", "NaN": "null", "undefined": "null"}
_CLOSING = {"{": "}", "[": "]"}


class LaxJson:
    """Takes the text of an object piece by piece, and passes it on as JSON.

    What is JSON comes out as it went in. Mended are line breaks and wrong escapes in strings, commas before a closing
    bracket, single quotes, words without quotes, Python's names of values, and comments. It ends with the bracket that
    closes it, or before a `<` outside strings, which begins a tag: then what is open is closed. Each character is
    looked at once.
    """

    def __init__(self) -> None:
        """Begin before the first bracket."""
        self.ended = False
        self.rest = ""
        """What the last text had after the end."""
        self._open: list[str] = []  # the closing brackets to come
        self._quote = ""  # of the string that one is in
        self._escaped = self._slash = False  # whether a backslash, or a slash outside strings, waits for what follows
        self._comment, self._comment_end = "", ""
        self._word: list[str] = []  # the pieces of one that may go on
        self._comma: list[str] = []  # a comma, and the space after it, that a closing bracket may follow

    def push(self, text: str) -> list[tuple[str, int]]:
        """Return the text in pieces, each up to a bracket and with how many are open then."""
        pieces, out = list[tuple[str, int]](), list[str]()
        for part in self._read(text):
            out.append(part)
            if part in {"{", "}", "[", "]"} and not self._quote:
                pieces.append(("".join(out), len(self._open)))
                out.clear()
        rest = "".join(out)
        return [*pieces, (rest, len(self._open))] if rest else pieces

    def finish(self) -> str:
        """Return what was held, of a text that is cut off."""
        return "".join([*self._end_of_word(), *self._comma])

    def _read(self, text: str) -> Iterator[str]:
        at = 0
        while at < len(text) and not self.ended:
            run = None
            if self._quote:
                run = None if self._escaped else _RUN.match(text, at)
                yield run[0] if run else self._in_string(text[at])
            elif self._comment_end:
                self._skip(text[at])
            elif not self._slash and (run := _WORD.match(text, at)):
                yield from self._end_of_comma(run[0])
                self._word.append(run[0])
            else:
                yield from self._outside(text[at])
            at = run.end() if run else at + (not self.ended or text[at] != "<")
        self.rest = text[at:]

    def _in_string(self, char: str) -> str:
        """Return what a character becomes that is not of a run."""
        if self._escaped:
            self._escaped = False
            if char in '"\\/bfnrtu':
                return f"\\{char}"
            return _inside(char if char == "'" or char < " " else f"\\{char}")
        if char == "\\":
            self._escaped = True
            return ""
        if char == self._quote:
            self._quote = ""
            return '"'
        return _inside(char)

    def _skip(self, char: str) -> None:
        """Go on in a comment."""
        self._comment = (self._comment + char)[-len(self._comment_end) :]
        if self._comment == self._comment_end:
            self._comment = self._comment_end = ""

    def _outside(self, char: str) -> Iterator[str]:  # noqa: C901  # a table
        """Yield what a character becomes that is in no string, comment or word."""
        if self._slash:
            self._slash = False
            if char in "/*":
                self._comment_end = "\n" if char == "/" else "*/"
                return
        yield from self._end_of_word()
        if char.isspace() and self._comma:
            self._comma.append(char)
            return
        if char == "/":
            self._slash = True
            return
        yield from self._end_of_comma(char)
        match char:
            case ",":
                self._comma.append(char)
            case '"' | "'":
                self._quote = char
                yield '"'
            case "{" | "[":
                self._open.append(_CLOSING[char])
                yield char
            case "}" | "]":
                if self._open:
                    self._open.pop()
                self.ended = not self._open
                yield char
            case "<":
                self.ended = True
                while self._open:
                    yield self._open.pop()
            case _:
                yield char

    def _end_of_word(self) -> Iterator[str]:
        if self._word:
            word = "".join(self._word)
            self._word.clear()
            yield word if _LITERAL.fullmatch(word) else _PYTHONS.get(word, f'"{word}"')

    def _end_of_comma(self, following: str) -> Iterator[str]:
        if self._comma:
            yield "".join(self._comma[following in "}],<" :])
            self._comma.clear()


def _inside(text: str) -> str:
    """Return the text as it stands in a string of JSON."""
    return json.dumps(text, ensure_ascii=False)[1:-1]
