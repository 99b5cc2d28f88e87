"""Every mode of the benchmark, end to end over the toy pair's services as processes."""

import json
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from k_quant_models import random_model, save_rounded
from services import ROOT
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks import __main__ as command
from benchmarks.cost import dollars_per_million
from benchmarks.engines import known
from benchmarks.section import Section
from scripts.stack import parser as stack_parser
from shared.model.checkpoints.pairs import own_quant

TINY = ["--pair=toy", "--dtype=float32", "--draft-quant=none", "--limit=1", "--max-tokens=12"]
QUALITY_TEXTS = ROOT / "benchmarks" / "texts"
KINDS = ["code", "edit", "json", "structured", "open"]


def run(url: str, *argv: str) -> Section:
    """Run one mode against the gateway and return its section, which must be without problems."""
    args = command.parser().parse_args([*argv, *TINY, "--gateway", url])
    args.command = "the command"
    (section,) = command.run_each([args])
    assert (section.problems, section.command) == ([], "the command")
    assert section.notes.pop(0) == "Target: target in float32 on cpu."
    return section


def rows(section: Section, table: int) -> list[dict[str, Any]]:
    """Return the rows of a table."""
    return [dict(row) for row in section.tables[table].rows]


def column(section: Section, table: int, name: str) -> list[Any]:
    """Return the values of a column."""
    return [row[name] for row in rows(section, table)]


def test_single(toy_url: str) -> None:
    """Claim: plain and speculative are compared by kind of prompt, texts included; every round's time has its parts."""
    section = run(toy_url, "single", "--repeats=2")
    assert column(section, 0, "kind") == KINDS
    assert column(section, 0, "texts equal") == [True] * 5
    for row in rows(section, 0):
        assert row["ratio"] == pytest.approx(row["speculative, tokens/s"].median / row["plain, tokens/s"].median)
        assert row["plain, tokens/s"].count == 2
        assert 0 < row["acceptance rate"] < 1 < row["mean acceptance length"]
    assert min(column(section, 1, "lowest")) <= min(column(section, 1, "geometric mean"))
    plain, speculative = rows(section, 3)
    assert plain["draft"] == 0 < speculative["draft"]
    assert 0 < plain["overhead, share of the round"] < 1
    assert "All texts are equal." in section.notes[0]


def test_schemas(toy_url: str) -> None:
    """Claim: each way answers by the schema with the same text; a part of it is forced, without white space more."""
    section = run(toy_url, "schemas", "--repeats=1", "--max-tokens=40")
    spaced, compact = rows(section, 0)
    for row in (spaced, compact):
        assert row["prompt"] == "flat-ticket"
        assert row["forced over draft alone"] == pytest.approx(
            row["with forced tokens, tokens/s"] / row["draft alone, tokens/s"]
        )
    assert 0 < spaced["share of forced tokens"] < compact["share of forced tokens"] < 1
    assert "All texts are equal." in section.notes[0]


def test_memory(toy_url: str) -> None:
    """Claim: the second call has one text with and without the memory, which proposes a part of it."""
    section = run(toy_url, "memory", "--repeats=1", "--max-tokens=40")
    (row,) = rows(section, 0)
    assert row["calls"] == "docstrings"
    assert 0 <= row["of the reply from the memory"] < 1
    assert row["with over without"] == pytest.approx(row["with it"] / row["without the memory"])
    assert "All texts are equal." in section.notes[0]


def test_crowd(toy_url: str) -> None:
    """Claim: /health answers beside all who wait, and the memory of a stream is that of those that were there."""
    flags = ["crowd", "--idle=100", "--half=50", "--streams=30", "--seconds=3", *TINY, f"--gateway={toy_url}"]
    (section,) = command.run_each([command.parser().parse_args(flags, Namespace(command=""))])
    assert [problem for problem in section.problems if "is meant to" not in problem] == []  # other tests run beside it
    (health,), (memory,) = rows(section, 0), rows(section, 1)
    assert health["asked"] > 10
    assert 0 < health["p50, s"] <= health["p99.9, s"] <= health["at most, s"] < 3
    assert 0 < memory["before, MB"] <= memory["at most, MB"] < 2 * memory["before, MB"]
    assert 20 < memory["streams then"] <= 30


def test_turns(toy_url: str) -> None:
    """Claim: the first turn has about the tokens that were asked for, and both turns of both ways are timed."""
    section = run(toy_url, "turns", "--repeats=2", "--prefix-tokens=400")
    tokens = re.search(r"about (\d+) tokens", section.notes[0])
    assert tokens
    assert 350 < int(tokens[1]) < 450
    for row in rows(section, 0):
        assert row["second over first"] == pytest.approx(
            row["second turn TTFT, s"].median / row["first turn TTFT, s"].median
        )


def test_sweep(toy_url: str, tmp_path: Path) -> None:
    """Claim: each k has its costs, its speed and what the model predicts; the best is named; the plot is a PNG."""
    section = run(toy_url, "sweep", "--largest-k=2", f"--plot={tmp_path / 'sweep.png'}")
    assert column(section, 0, "k") == [0, 1, 2]
    assert min(*column(section, 0, "tokens/s"), *column(section, 0, "predicted")) > 0
    assert [best == "*" for best in column(section, 0, "best")] == [
        speed == max(column(section, 0, "tokens/s")) for speed in column(section, 0, "tokens/s")
    ]
    assert 0 < rows(section, 0)[1]["accepted at position k"] < 1
    assert column(section, 1, "kind") == KINDS
    assert [table.title for table in section.tables[2:]] == [
        "Proposer: lookup",
        "Best k by kind of prompt, proposer: lookup",
        "The gateway's own choice against the best fixed one",
    ]
    assert column(section, 4, "kind") == KINDS
    for row in rows(section, 4):
        assert row["best fixed"] in {"plain", *(f"{name}, k={k}" for name in ("model", "lookup") for k in (1, 2))}
        assert row["own over best fixed"] == row["own choice, tokens/s"] / row["tokens/s"] > 0
    assert section.plots[0].read_bytes().startswith(b"\x89PNG")


def test_peers(toy_url: str) -> None:
    """Claim: transformers, plain and with a draft, and a server, which is ourselves here, take turns with us."""
    section = run(toy_url, "peers", "--engines", "transformers", "llama_cpp", "--url", toy_url)
    theirs = ["transformers, plain", "transformers, draft", "server, toy"]
    assert column(section, 0, "") == ["ours, plain", "ours, speculative", *theirs]
    assert column(section, 0, "weights") == ["float32"] * 4 + [""]
    assert column(section, 0, "texts as its own plain") == [None, "5 of 5", None, "5 of 5", None]
    assert {(row["theirs"], row["texts equal"]) for row in rows(section, 1)} == {(name, "5 of 5") for name in theirs}
    for row in rows(section, 1):
        assert 0 < row["lowest"] <= row["all"]
    without, fastest, _ = section.notes
    assert without.startswith("Without llama_cpp: ")
    speeds = dict(zip(theirs, column(section, 0, "geometric mean")[2:], strict=True))
    assert fastest.endswith(f"the fastest peer: {max(theirs, key=speeds.__getitem__)}.")


def test_peers_take_the_model_as_others_read_it(tmp_path: Path) -> None:
    """Claim: whatever weights we serve, transformers gets a folder that it can read, or takes no part."""
    engine = known.transformers(stack_parser(None).parse_args(["--pair=toy", "--target-quant=int8"]))
    assert own_quant(Path(engine.models[0])) == "none"
    save_rounded(random_model("qwen2"), tmp_path)
    with pytest.raises(known.UnavailableError, match=r"has weights that only Outrider reads: gguf"):
        known.transformers(stack_parser(None).parse_args([f"--target={tmp_path}"]))


def test_quality(tmp_path: Path, toy: tuple[Path, Path]) -> None:
    """Claim: weights as they are lose nothing, rounded ones do, and the loss is what transformers computes."""
    (tmp_path / "b.txt").write_text((QUALITY_TEXTS / "german.txt").read_text())
    (tmp_path / "a.txt").write_text((QUALITY_TEXTS / "code-go.txt").read_text())
    flags = [
        "quality",
        "--quants",
        "none",
        "int8",
        f"--texts={tmp_path}",
        "--tokens=100",
        "--pair=toy",
        "--dtype=float32",
    ]
    (section,) = command.run_each([command.parser().parse_args(flags, Namespace(command=""))])
    assert section.problems == []
    assert column(section, 0, "text") == ["a", "b", "mean"]
    assert column(section, 0, "none: more loss, %") == [0, 0, 0]
    assert column(section, 0, "none: same likeliest token, %") == [100, 100, 100]
    assert 0 not in column(section, 0, "int8: more loss, %")
    assert 50 < column(section, 0, "int8: same likeliest token, %")[-1] < 100
    model, tokenizer = AutoModelForCausalLM.from_pretrained(toy[0]), AutoTokenizer.from_pretrained(toy[0])
    for name, loss in zip("ab", column(section, 0, "loss, float32"), strict=False):
        ids = tokenizer((tmp_path / f"{name}.txt").read_text(), return_tensors="pt").input_ids[:, :100]
        assert loss == pytest.approx(model(ids, labels=ids).loss.item(), rel=1e-4)


def test_load(toy_url: str) -> None:
    """Claim: every load is put on twice, plain and speculative, and all of its requests are counted."""
    section = run(toy_url, "load", "--concurrency=1,3", "--requests=2", "--arrivals=3", "--shares=80")
    assert column(section, 0, "load")[:2] == ["1 at once", "3 at once"]
    assert column(section, 0, "load")[2].startswith("Poisson")
    assert column(section, 1, "requests") == [2, 2, 6, 6, 3, 3]
    assert column(section, 1, "failed") == [0] * 6
    for row in rows(section, 1):
        assert 0 < row["TTFT p50, s"] <= row["TTFT p90, s"] <= row["TTFT p99, s"]


def test_cost(toy_url: str) -> None:
    """Claim: the price of a million tokens is the machine's by the hour over what it makes in an hour."""
    section = run(toy_url, "cost", "--dollars-per-hour=0.9", "--concurrency=2", "--requests=1")
    (row,) = rows(section, 0)
    for name in ("plain", "speculative"):
        assert row[f"{name}, dollars"] == pytest.approx(0.9 * 1e6 / (row[f"{name}, tokens/s"] * 3600))
    assert dollars_per_million(3.6, 1000) == pytest.approx(1.0)


def test_trn2(toy_url: str) -> None:
    """Claim: each kind of AWS's prompts in each way of decoding, filled to one length, beside what was published."""
    flags = ["--ks=2,3", "--concurrency=2", "--requests=1", "--prompts=deploy/benchmarks/trn2/prompts.jsonl"]
    section = run(toy_url, "trn2", *flags)
    assert section.title == "AWS's workload on Trainium2"  # which says so where it is simulated
    assert column(section, 0, "prompts") == ["repeat", "open", "pod"]
    assert column(section, 0, "published: plain") == [None, 45, None]
    assert column(section, 0, "published: speculative") == [15, 45, None]
    ways = ["plain", "k=2", "k=3", "auto"]
    assert all(row[way] > 0 for row in rows(section, 0) for way in ways)
    assert column(section, 1, "") == ways
    assert column(section, 1, "requests") == [6] * 4
    assert column(section, 1, "tokens out") == [12] * 4
    lengths = column(section, 1, "tokens in")
    assert max(lengths) - min(lengths) <= 8
    assert 64 <= min(lengths) < 110  # with the chat's own
    assert column(section, 1, "acceptance rate")[0] is None


def test_a_model_that_cannot_be_had_is_the_problem(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of each mode, in a sentence and without a traceback."""
    path = tmp_path / "nothing.gguf"
    args = [
        command.parser().parse_args([mode, f"--target={path}"], Namespace(command="")) for mode in ("single", "load")
    ]
    assert [section.problems for section in command.run_each(args)] == [[f"{path}: no such file"]] * 2
    assert not capfd.readouterr().err


def test_all_writes_the_report(tmp_path: Path) -> None:
    """Claim: `all` starts the services, runs what it is told, and writes machine, commit, commands and tables."""
    report = tmp_path / "benchmarks.md"
    flags = [
        f"--report={report}",
        "--json",
        "--modes",
        "single",
        "cost",
        "load",
        "--repeats=1",
        "--concurrency=1,2",
        "--arrivals=1",
        *TINY,
    ]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "all", *flags], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    document = json.loads(done.stdout)
    assert [section["title"] for section in document["sections"]] == [
        "Single stream: plain against speculative",
        "Load",
    ]  # cost is left out without a price
    text = report.read_text()
    assert document["machine"]["commit"] in text
    assert "python -m benchmarks single --repeats=1 --pair=toy" in text
    assert "python -m benchmarks load --max-tokens=32 --seconds=60 --concurrency=1,2 --arrivals=1 --pair=toy" in text
    assert "| structured | 1 |" in text
