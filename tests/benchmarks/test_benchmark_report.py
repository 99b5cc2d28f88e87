"""The benchmark's arithmetic, and that what goes wrong is shown and is in the exit code."""

import json
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks import prompts, single
from benchmarks.client import Client
from benchmarks.comparison import Comparison
from benchmarks.flags import numbers
from benchmarks.load import Generator
from benchmarks.machine import Machine
from benchmarks.reply import Reply
from benchmarks.report import Report, shown
from benchmarks.section import Section
from benchmarks.spread import Spread, percentile
from benchmarks.tuning import Tuning
from gateway.generation.acceptance_counts import Acceptance

PARTS = ("draft", "wire", "queue", "verify", "sample", "emit")
Answer = Callable[[dict[str, Any]], str]


def stream(*pieces: str, done: bool = True) -> str:
    """Return the events of an answer."""
    counts = {"prompt_tokens": 5, "completion_tokens": len(pieces)}
    metrics = {
        **Acceptance().metrics(),
        "round_p50_ms": dict.fromkeys(PARTS, 1.0),
        "round_overhead_p50_ms": 4.0,
    }
    chunks: list[dict[str, Any]] = [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
    chunks.append({"choices": [], "usage": counts, "metrics": {"speculative_decoding": metrics}})
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n" * done


def client(answer: Answer) -> Client:
    """Return a client of a server that answers so."""

    def handle(request: httpx.Request) -> httpx.Response:
        body = answer(json.loads(request.content))
        return httpx.Response(503, text="no slot") if body == "busy" else httpx.Response(200, text=body)

    http = httpx.AsyncClient(transport=httpx.MockTransport(handle), base_url="http://server")
    return Client(http, "model", max_tokens=4)


def fails_when_speculative(body: str) -> Answer:
    """Answer well when plain, and like this when speculative."""
    return lambda asked: stream("as it", " is") if asked["speculative"].get("enabled") is False else body


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (stream("as it", " was"), "the plain and the speculative texts differ"),
        ("busy", "speculative: HTTP 503: no slot"),
        (stream("as it", " is", done=False), "speculative: the stream ended early"),
        (stream() + 'data: {"error": {"message": "lost"}}\n\n', "in the stream"),
        (stream(), "no text, or no usage"),
    ],
)
async def test_a_bad_run_shows(body: str, problem: str, tmp_path: Path) -> None:
    """Claim: an unequal text and each kind of failure is on the console, in Markdown, in JSON, in the verdict."""
    args = Namespace(prompts=prompts.OWN, limit=1, repeats=2, num_slots=4)
    section = await single.run(client(fails_when_speculative(body)), args)
    assert len(section.problems) >= 5
    assert all(problem in line for line in section.problems)
    assert "NOT all requests" in section.notes[0]
    report = Report(Machine.here(), [section])
    assert report.failed
    assert problem in report.markdown(tmp_path)
    assert f"THIS RUN HAS FAILED: {len(section.problems)} problems" in report.markdown(tmp_path)
    assert json.loads(report.json())["failed"]
    report.show(Console(file=(output := StringIO()), width=300))
    assert problem in output.getvalue()


async def test_a_text_that_changes_between_repeats_is_unequal() -> None:
    """Claim: equality is over all repeats of all variants, not between two that happen to agree."""
    texts = iter(["warm", "a", "a", "a", "b"])
    asked = [prompts.Prompt("x", "code", "?")]
    ask = client(lambda _: stream(next(texts))).asking({})

    async def same(_: str) -> Reply:
        return Reply(text="a", completion_tokens=1, seconds=1)

    comparison = await Comparison.run("test", asked, {"theirs": same, "ours": ask}, repeats=4)
    assert list(comparison.unequal("theirs")) == []
    assert list(comparison.unequal("theirs", "ours")) == ["x"]
    assert comparison.num_equal("theirs", "ours") == 0


async def test_a_failed_request_is_no_speed() -> None:
    """Claim: what failed counts for no speed and no equality, but is counted."""
    failed, whole = Reply(error="gone"), Reply(text="a", completion_tokens=10, seconds=2)
    asked = [prompts.Prompt("x", "code", "?"), prompts.Prompt("y", "open", "?")]
    comparison = Comparison(asked, ["ours", "theirs"])
    comparison.replies = {("ours", "x"): [whole], ("theirs", "x"): [failed], ("ours", "y"): [whole] * 2}
    comparison.replies["theirs", "y"] = [Reply(text="a", completion_tokens=10, seconds=4), failed]
    assert comparison.ratios("ours", "theirs") == [2.0]
    assert comparison.mean_ratio("ours", "theirs", ("code",)) is None
    assert comparison.num_equal("ours", "theirs") == 1
    assert list(comparison.failures()) == ["x, theirs: gone", "y, theirs: gone"]


def test_the_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Claim: a mode that cannot run at all is a problem of the report, and the exit code is 1."""
    monkeypatch.setattr(sys, "argv", ["benchmarks", "single", "--gateway", "http://127.0.0.1:9", "--json"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 1
    (problem,) = json.loads(capsys.readouterr().out)["sections"][0]["problems"]
    assert problem.startswith("the mode ended with ConnectError")


def test_a_flag_that_no_mode_knows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Claim: `all` passes flags on to the modes that know them, and at once refuses one that none knows."""
    for mode in ("all", "single"):
        monkeypatch.setattr(sys, "argv", ["benchmarks", mode, "--size=1"])
        with pytest.raises(SystemExit) as ended:
            command.main()
        assert ended.value.code == 2
        assert "no mode knows --size=1" in capsys.readouterr().err


async def test_prompts_come_back_late() -> None:
    """Claim: between two requests with one prompt come nearly as many others as there are prompts."""
    asked = [prompts.Prompt(str(number), "code", "?") for number in range(12)]
    ask = client(lambda _: stream("a")).asking({})
    comparison = await Comparison.run("test", asked, {"plain": ask, "speculative": ask}, repeats=3)
    assert comparison.fewest_between("plain", "speculative") >= 10
    assert len(comparison.order) == 72


async def test_load_counts_every_request() -> None:
    """Claim: a closed loop sends all its requests and Poisson arrivals theirs; both end at their time."""
    asked = prompts.load(prompts.OWN, 1)
    loads = Generator(client(lambda _: stream("a", "b")), asked, {}, most_seconds=60)
    level = await loads.closed_loop(3, 4)
    assert len(level.whole) == 12
    assert level.tokens_per_second == pytest.approx(24 / level.seconds)
    assert len((await loads.poisson(1000, 10)).whole) == 10
    hasty = replace(loads, most_seconds=0)
    assert (len((await hasty.poisson(1, 10)).replies), len((await hasty.closed_loop(1, 5)).replies)) == (1, 0)


def test_spread_and_percentiles() -> None:
    """Claim: medians, quartiles and percentiles are what they are called."""
    assert Spread.of([4, 1, 2, 3, 5]) == Spread(3, 2, 4, 5)
    assert Spread.of([7]) == Spread(7, 7, 7, 1)
    assert Spread.of([]) is None
    values = [float(value) for value in range(101)]
    assert [percentile(values, at) for at in (50, 90, 99)] == pytest.approx([50, 90, 99])
    assert (percentile([2.0], 99), percentile([], 50)) == (2.0, None)


def test_a_reply_s_times() -> None:
    """Claim: a piece's tokens are a share of all, and the time for a token counts from the first piece."""
    reply = Reply(piece_seconds=(1.0, 2.0, 4.0, 5.0), seconds=5.0, completion_tokens=8)
    assert (reply.tokens_per_second, reply.first_token_seconds, reply.gap_seconds) == (1.6, 1.0, [1.0, 2.0, 1.0])
    assert (reply.later_tokens, reply.token_seconds) == (6.0, 4 / 6)
    assert Reply(piece_seconds=(1.0,), completion_tokens=3).token_seconds is None


def test_tuning_finds_the_costs_that_made_the_replies() -> None:
    """Claim: from replies of known costs and acceptance come these costs, and a prediction that is the speed."""
    replies = [[_made(k)] for k in range(5)]
    tuning = Tuning(replies)
    assert tuning.acceptance == pytest.approx([0.8, 0.5, 0.5, 0.5])
    assert tuning.costs.draft_token_seconds == pytest.approx(0.010)
    assert tuning.costs.proposal_seconds == pytest.approx(0.004)
    assert tuning.costs.overhead_seconds == pytest.approx(0.002)
    assert tuning.predicted == pytest.approx(tuning.measured)
    assert tuning.best_k == tuning.costs.best_k(tuning.acceptance) == 2
    assert [row["best"] for row in tuning.rows(predict=True)] == ["", "", "*", "", ""]


def _made(k: int) -> Reply:
    """Return a reply of 40 rounds with k draft tokens of 10 ms, 4 ms to ask for them, and verifies of 80 ms and up."""
    acceptance, reached = Acceptance(), [40, 32, 16, 8, 4]  # of 40 rounds, so many get as far as each position
    for position in range(k + 1):
        for _ in range(reached[position] - (reached[position + 1] if position < k else 0)):
            acceptance.count(k, position)
    tokens = sum(reached[: k + 1])
    verify, overhead = 80 + 4 * k, 2 + (4 if k else 0)
    seconds = (10 * k + verify + overhead) / 1000
    pieces = tuple(seconds * (number + 1) for number in range(40))
    parts = dict.fromkeys(PARTS, 0.0) | {"draft": 10.0 * k, "verify": float(verify)}
    metrics = acceptance.metrics() | {"round_p50_ms": parts, "round_overhead_p50_ms": float(overhead)}
    return Reply(piece_seconds=pieces, completion_tokens=tokens, metrics=metrics)


def test_numbers() -> None:
    """Claim: lists and ranges of numbers are read."""
    assert (numbers("1,2,8"), numbers("0-3,7")) == ([1, 2, 8], [0, 1, 2, 3, 7])


def test_values_as_people_read_them() -> None:
    """Claim: three significant digits, and a range where there is one."""
    assert [shown(value) for value in (1234.5, 12.34, 0.01234, True, False, None, 7, "a")] == [
        "1234",
        "12.3",
        "0.0123",
        "yes",
        "NO",
        "",
        "7",
        "a",
    ]
    assert shown(Spread(2, 1, 3, 9)) == "2 (1 to 3)"


def test_prompts(tmp_path: Path) -> None:
    """Claim: our own prompts are of every kind; a file of another form is refused with the line's number."""
    kinds = [prompt.kind for prompt in prompts.load(prompts.OWN)]
    assert set(kinds) == {*prompts.STRUCTURED, prompts.OPEN}
    assert min(kinds.count(kind) for kind in kinds) >= 2
    assert len(prompts.load(prompts.OWN, limit=1)) == 5
    (tmp_path / "bad.jsonl").write_text('{"id": "a", "kind": "code", "prompt": "x"}\n{"id": "b"}\n')
    with pytest.raises(ValueError, match="line 2"):
        prompts.load(tmp_path / "bad.jsonl")


def test_a_plot_is_linked_from_where_the_report_is(tmp_path: Path) -> None:
    """Claim: the Markdown finds the plot beside it."""
    section = Section("Sweep", "python -m benchmarks sweep", plots=[tmp_path / "sweep.png"])
    assert "![Sweep](sweep.png)" in Report(Machine.here(), [section]).markdown(tmp_path)
