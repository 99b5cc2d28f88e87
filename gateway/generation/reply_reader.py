"""Reads the rounds of one sequence as a reply."""

from collections.abc import Iterator
from itertools import repeat

from gateway.generation.choice import Choice
from gateway.generation.delta import Delta, ScoredToken
from gateway.generation.round_report import RoundReport
from gateway.parsing.reply_parser import ReplyParser
from gateway.parsing.reply_parts import ReplyPart, ReplyParts
from gateway.rounds.round import Round
from gateway.text.reply_text import ReplyText
from gateway.text.tokenizer import ChatTokenizer


class ReplyReader:
    """Takes a choice's rounds one by one, and returns what each adds to the reply.

    It decodes nothing and waits for nothing. The delta with a finish reason is the last one, even if there are more
    rounds: only this reader knows that a stop string is complete.
    """

    def __init__(self, choice: Choice, tokenizer: ChatTokenizer) -> None:
        """Begin the reply."""
        self._choice, self._tokenizer = choice, tokenizer
        stops, shown = choice.stop_strings, choice.form.tokens
        self._text = ReplyText(tokenizer, choice.params, stops, include_stop=choice.include_stop, shown=shown)
        self._parser = ReplyParser(choice.form)
        self._begun = False
        self.token_ids: list[int] = []
        """The tokens of the reply so far, up to the one that completes a stop string."""

    def read(self, round_: Round) -> Delta:
        """Return what the next round adds."""
        logprobs, first = list[ScoredToken](), not self._begun
        self._begun = True
        if first and self._choice.params.prompt_logprobs:
            logprobs += self._prompt_logprobs(round_)
        texts, own_logprobs = self._read_tokens(round_)
        ends = self._text.ended or round_.finish_reason is not None
        rest = self._text.flush() if ends and not self._text.ended else ""
        if texts:
            texts[-1] += rest
        finish_reason = "stop" if self._text.ended else round_.finish_reason
        num_reasoning_tokens = self._parser.reasoning_tokens
        parts = self._parser.push(*(texts or [rest]), last=ends)
        if first and self._choice.echo:
            parts = ReplyParts.of([ReplyPart(self._choice.echo), *parts.in_order])
        return Delta(
            self._choice.index,
            parts,
            self._parser.finish_reason(finish_reason),
            logprobs + own_logprobs,
            RoundReport(round_, texts),
            num_reasoning_tokens=self._parser.reasoning_tokens - num_reasoning_tokens,
            stop_string=self._stop_string() if finish_reason == "stop" else "",
            num_cached_tokens=round_.num_cached if first and self._choice.first else 0,
        )

    def _stop_string(self) -> str:
        """Return the stop string that ended the reply: a text, or the name of its last token; empty if none did."""
        name = self._tokenizer.token_bytes.text(self.token_ids[-1]) if self.token_ids else ""
        return self._text.stop_string or (name if name in self._choice.stop_strings else "")

    def _read_tokens(self, round_: Round) -> tuple[list[str], list[ScoredToken]]:
        """Return the texts of the round's tokens up to the end of the reply, and the log-probabilities to report."""
        texts, scored = list[str](), list[ScoredToken]()
        for token_id, logprobs in zip(round_.token_ids, round_.logprobs or repeat(None), strict=False):
            if logprobs and self._text.shows(token_id):
                scored.append(ScoredToken(token_id, len(self._choice.echo) + self._text.num_chars, logprobs))
            texts.append(self._text.push(token_id))
            self.token_ids.append(token_id)
            if self._text.ended:
                break
        return texts, scored

    def _prompt_logprobs(self, round_: Round) -> Iterator[ScoredToken]:
        detokenizer = self._tokenizer.detokenizer()
        for token_id, logprobs in zip(self._choice.prompt_ids, [None, *round_.prompt_logprobs], strict=True):
            yield ScoredToken(token_id, detokenizer.num_chars, logprobs)
            detokenizer.push(token_id)
