"""Separates a model's reasoning from its answer."""

from gateway.text.held_space import HeldSpace
from gateway.text.stop_strings import StopStrings

THINK, THOUGHT = "<think>", "</think>"


class ReasoningParser:
    """Takes, piece by piece, a text that may begin with `<think>`. Space around the tags is dropped."""

    def __init__(self, *, thinking: bool) -> None:
        """Begin a reply; `thinking` says that the prompt ended with the first tag."""
        self._pieces: list[str] = []  # held until it is decided whether the reply begins with a tag
        self._begun = ""  # as much of them as a tag is long, without the space before it
        self._state = "thinking" if thinking else "undecided"
        self._end = StopStrings([THOUGHT])
        self._any_reasoning = self._any_answer = False
        self._space = HeldSpace()
        self.num_pieces = 0
        """How many pieces were reasoning, tags included, as far as decided."""

    def push(self, text: str, *, last: bool) -> tuple[str, str]:
        """Return the reasoning and the answer that this text adds; `last` says that it ends."""
        self.num_pieces += self._state != "answering"
        if self._state == "undecided":
            self._pieces.append(text)
            self._begun = (self._begun + text).lstrip()[: len(THINK)]
            if not last and self._begun != THINK and THINK.startswith(self._begun):
                return "", ""
            text = "".join(self._pieces)
            if self._begun == THINK:
                text, self._state = text.lstrip()[len(THINK) :], "thinking"
            else:
                self._state, self._any_answer, self.num_pieces = "answering", True, 0
        if self._state == "answering":
            return "", self._answer(text)
        reasoning = self._end.push(text)
        if not self._end.found:
            return self._reasoning(reasoning + (self._end.flush() if last else "")), ""
        self._state = "answering"
        return self._reasoning(reasoning), self._answer(self._end.flush())

    def _reasoning(self, text: str) -> str:
        text = self._space.push(text if self._any_reasoning else text.lstrip())
        self._any_reasoning |= bool(text)
        return text

    def _answer(self, text: str) -> str:
        text = text if self._any_answer else text.lstrip()
        self._any_answer |= bool(text)
        return text
