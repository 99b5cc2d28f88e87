"""The text of one reply."""

from collections.abc import Iterable

from gateway.text.stop_strings import StopStrings
from gateway.text.tokenizer import ChatTokenizer
from shared.sampling_params import SamplingParams


class ReplyText:
    """Turns the tokens of a reply into its text, up to a stop string. Stop tokens have no text unless asked for."""

    def __init__(
        self,
        tokenizer: ChatTokenizer,
        params: SamplingParams,
        stops: tuple[str, ...],
        *,
        include_stop: bool,
        shown: Iterable[str] = (),
    ) -> None:
        """Begin a reply, of which special tokens of the names `shown` are a part.

        Its first `min_tokens` are not searched for stop strings.
        """
        self._detokenizer = tokenizer.detokenizer(shown)
        self._stops = StopStrings(stops, include=include_stop)
        self._silent = frozenset() if include_stop else params.stop_token_ids
        self._min_tokens = params.min_tokens
        self._num_tokens = 0

    @property
    def ended(self) -> bool:
        """Whether a stop string is complete."""
        return bool(self._stops.found)

    @property
    def stop_string(self) -> str:
        """The stop string, if one is complete."""
        return self._stops.found

    @property
    def num_chars(self) -> int:
        """How long the text is, including what is held back."""
        return self._detokenizer.num_chars

    def shows(self, token_id: int) -> bool:
        """Return whether the token is part of the reply."""
        return token_id not in self._silent

    def push(self, token_id: int) -> str:
        """Return the text that this token adds."""
        self._num_tokens += 1
        if not self.shows(token_id):
            return ""
        text = self._detokenizer.push(token_id)
        return text if self._num_tokens <= self._min_tokens else self._stops.push(text)

    def flush(self) -> str:
        """Return what was held back, at the end."""
        text = self._stops.push(self._detokenizer.flush())
        return text if self.ended else text + self._stops.flush()
