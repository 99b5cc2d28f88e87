"""The reply of llama-server's fill-in-the-middle: its chunks, and the whole."""

from collections.abc import Iterator
from time import perf_counter
from typing import Any

from gateway.clients.target.identity import system_fingerprint
from gateway.generation.choice import Choice
from gateway.generation.delta import Delta
from gateway.generation.usage import Usage
from gateway.requests.infill import InfillRequest

Json = dict[str, Any]


class InfillReply:
    """Turns the deltas of the one choice into chunks; after the last delta, `body` is the whole reply."""

    def __init__(self, request: InfillRequest, choice: Choice, prompt: str, usage: Usage) -> None:
        """Begin the reply to a prompt of this text."""
        self._request, self._choice, self._prompt, self._usage = request, choice, prompt, usage
        self._pieces, self._token_ids, self._rounds = list[str](), list[int](), list[Json]()
        self._end: Json = {}
        self._started = self._first = perf_counter()

    @property
    def body(self) -> Json:
        """The whole reply."""
        content = "".join(self._pieces)
        tokens = self._token_ids if self._request.return_tokens else []
        return self._counted(content, tokens) | {"has_new_line": "\n" in content} | self._end

    def opening(self, delta: Delta) -> Iterator[Json]:
        """Yield nothing: the first delta says who decodes."""
        self._end["system_fingerprint"] = system_fingerprint(delta.report.round_.identity)
        self._first = perf_counter()
        yield from ()

    def events(self, delta: Delta) -> Iterator[Json]:
        """Yield the chunk of a delta; after the last delta, also the one that tells how it went."""
        token_ids = delta.report.token_ids
        self._pieces.append(delta.parts.content)
        self._token_ids += token_ids
        rounds = {"rounds": [delta.report.body]} if self._request.speculative.rounds else {}
        self._rounds += rounds.get("rounds", [])
        yield self._counted(delta.parts.content, token_ids) | {"stop": False} | rounds
        if delta.finish_reason:
            self._finish(delta)
            yield self._counted("", []) | self._end

    def _counted(self, content: str, token_ids: list[int]) -> Json:
        counts = {"tokens_predicted": len(self._token_ids), "tokens_evaluated": len(self._choice.prompt_ids)}
        return {"index": 0, "content": content, "tokens": token_ids, "id_slot": -1} | counts

    def _finish(self, delta: Delta) -> None:
        word = delta.stop_string
        params, usage = self._choice.params, self._usage
        measured = {"metrics": usage.metrics()} if self._request.speculative.metrics else {}
        self._end |= {
            "stop": True,
            "model": self._request.model,
            "stop_type": "word" if word else "limit" if delta.finish_reason == "length" else "eos",
            "stopping_word": word,
            "truncated": False,
            "tokens_cached": len(self._choice.prompt_ids) + len(self._token_ids),
            "prompt": self._prompt,
            "generation_settings": {
                "n_predict": self._request.n_predict,
                "seed": params.seed,
                "temperature": params.temperature,
                "top_k": params.top_k,
                "top_p": params.top_p,
                "min_p": params.min_p,
                "repeat_penalty": params.repetition_penalty,
                "presence_penalty": params.presence_penalty,
                "frequency_penalty": params.frequency_penalty,
                "stop": list(self._choice.stop_strings),
                "stream": self._request.stream,
            },
            "timings": self._timings(),
        }
        self._end |= measured | ({"rounds": self._rounds} if self._request.speculative.rounds else {})

    def _timings(self) -> Json:
        cached, predicted = self._usage.cached_tokens, len(self._token_ids)
        evaluated = len(self._choice.prompt_ids) - cached
        prompt_ms, predicted_ms = 1000 * (self._first - self._started), 1000 * (perf_counter() - self._first)
        return {
            "cache_n": cached,
            "prompt_n": evaluated,
            "prompt_ms": prompt_ms,
            "prompt_per_second": 1000 * evaluated / max(prompt_ms, 1e-3),
            "predicted_n": predicted,
            "predicted_ms": predicted_ms,
            "predicted_per_second": 1000 * predicted / max(predicted_ms, 1e-3),
        }
