"""`make demo`: one coding question, answered with speculation and without, by a real pair of models."""

import sys
import time
from dataclasses import dataclass
from typing import Any

import httpx
from openai import OpenAI
from rich.table import Table

from scripts.stack import console, free_port, parser, stack

QUESTION = "Write a Python function that merges overlapping intervals, with a docstring and three doctests."
MAX_TOKENS = 256


@dataclass(frozen=True)
class Answer:
    """An answer, its speed and its metrics."""

    text: str
    tokens: int
    seconds: float
    metrics: dict[str, Any]

    @property
    def tokens_per_second(self) -> float:
        """Over the whole request, prefill included."""
        return self.tokens / self.seconds


def ask(client: OpenAI, model: str, *, speculate: bool, show: bool) -> Answer:
    """Stream the answer to the question."""
    started = time.perf_counter()
    text, tokens, metrics = "", 0, {}
    chunks = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=MAX_TOKENS,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"speculative": {"enabled": speculate, "metrics": True}},
    )
    for chunk in chunks:
        piece = chunk.choices[0].delta.content if chunk.choices else None
        if piece and show:
            console.print(piece, end="", markup=False, highlight=False, soft_wrap=True)
        text += piece or ""
        if chunk.usage:
            tokens = chunk.usage.completion_tokens
            metrics = (chunk.model_extra or {})["metrics"]["speculative_decoding"]
    return Answer(text, tokens, time.perf_counter() - started, metrics)


def main() -> None:
    """Ask twice and compare. Exits with 1 if the texts differ."""
    args = parser(__doc__).parse_args()
    with stack(args, free_port(), free_port(), free_port(), log_level="ERROR") as url:
        client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        model = client.models.list().data[0]
        device = httpx.get(f"{url}/version").json()["device"]
        console.rule(f"{QUESTION}", align="left")
        fast = ask(client, model.id, speculate=True, show=True)
        console.rule()
        with console.status("the same without speculation"):
            plain = ask(client, model.id, speculate=False, show=False)
    table = Table("", "speculative", "plain", "ratio", title=None if args.device == "cpu" else f"device: {device}")
    ratio = fast.tokens_per_second / plain.tokens_per_second
    table.add_row("tokens", str(fast.tokens), str(plain.tokens), "")
    table.add_row("tokens/s", f"{fast.tokens_per_second:.2f}", f"{plain.tokens_per_second:.2f}", f"{ratio:.2f}")
    table.add_row("acceptance rate", f"{fast.metrics['acceptance_rate'] or 0:.0%}", "", "")
    table.add_row("mean acceptance length", f"{fast.metrics['mean_acceptance_length'] or 1:.2f}", "1", "")
    overheads = [f"{answer.metrics['round_overhead_p50_ms']:.1f} ms" for answer in (fast, plain)]
    table.add_row("round's overhead, p50", *overheads, "")
    table.add_row("texts equal", "yes" if fast.text == plain.text else "NO", "", "")
    console.print(table)
    if warning := (model.model_extra or {}).get("warning"):
        console.print(warning, style="bold", highlight=False)
    sys.exit(fast.text != plain.text)


if __name__ == "__main__":
    main()
