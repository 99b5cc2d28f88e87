"""Finds tool calls behind tags."""

from collections.abc import Callable, Sequence

from gateway.parsing.calls.call_reader import CallReader
from gateway.parsing.formats.tool_parser import ContentAndCalls
from gateway.text.held_space import HeldSpace
from gateway.text.stop_strings import StopStrings


class TaggedParser:
    """Reads the calls behind opening tags. Text that may begin a tag is held until it is decided."""

    def __init__(
        self, openings: Sequence[str], reader: Callable[[int, str], CallReader], closings: Sequence[str] = ()
    ) -> None:
        """Begin a reply. A reader is made for the index of the next call, and the tag that opens it.

        A closing tag behind its calls, at once or later, is no content: the first one of each kind.
        """
        self._openings, self._reader, self._closings = openings, reader, closings
        self._due = list[str]()  # the closing tags of the last calls that have not come
        self._tags = StopStrings(openings)
        self._run: CallReader | None = None
        self._opening = ""  # of the run
        self._num_calls = 0
        self._space = HeldSpace()  # dropped before a call and after one
        self._any_words = False  # since the last calls

    def push(self, text: str, *, last: bool) -> ContentAndCalls:
        """Return what the text adds."""
        found: ContentAndCalls = []
        while True:
            if self._run:
                found += self._run.push(text, last=last)
                if not self._run.stopped:
                    break
                text = self._leave(self._run, found)
            piece = self._tags.push(text)
            if last and not self._tags.found:
                piece += self._tags.flush()
            self._say(piece, found)
            if not self._tags.found:
                break
            text = self._tags.flush()
            if self._tags.found in self._openings:
                self._opening = self._tags.found
                self._run = self._reader(self._num_calls, self._opening)
            else:
                self._due.remove(self._tags.found)
                self._space = self._space if self._any_words else HeldSpace()
            self._tags = StopStrings([*self._due, *self._openings])
        if last and not self._num_calls and not self._run:
            found.append(self._space.flush())
        return found

    def _leave(self, run: CallReader, found: ContentAndCalls) -> str:
        """Go on behind a run: without a call, it is content. Return what is to be read."""
        self._run = None
        if not run.num_calls:
            self._say(self._opening + run.text, found)
        else:
            self._num_calls += run.num_calls
            self._space, self._any_words = HeldSpace(), False
            self._due = [*self._closings]
            self._tags = StopStrings([*self._due, *self._openings])
        return run.rest

    def _say(self, text: str, found: ContentAndCalls) -> None:
        words = self._space.push(text)
        self._any_words |= bool(words)
        found.append(words)
