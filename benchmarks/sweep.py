"""Every k and every proposer: the table to tune by, and the cost model compared with it."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import prompts
from benchmarks.client import PLAIN, SPECULATIVE, Client, speculating
from benchmarks.comparison import Comparison
from benchmarks.plot import plot_speeds
from benchmarks.reply import Reply
from benchmarks.section import Section, Value
from benchmarks.tuning import Tuning

PROPOSERS = ("model", "lookup")  # as in a request's `speculative`
OWN = "own choice"  # what the gateway does when it is told nothing
MODELLED = "model"  # drafts in every round, as the cost model assumes


def add_flags(flags: ArgumentParser) -> None:
    """Add this mode's flags."""
    flags.add_argument("--largest-k", type=int, default=12, help="each k up to this, and plain decoding")
    flags.add_argument("--proposers", nargs="+", choices=PROPOSERS, default=list(PROPOSERS))
    flags.add_argument("--repeats", type=int, default=1, help="how often each prompt is asked with each k")
    flags.add_argument("--plot", type=Path, default=Path("sweep.png"), help="where to write the plot")
    flags.set_defaults(num_slots=4)


async def run(client: Client, args: Namespace) -> Section:
    """Measure."""
    section = Section("Sweep of k")
    asked, ks = prompts.load(args.prompts, args.limit), range(1, args.largest_k + 1)
    fields = {_name(proposer, 0): PLAIN for proposer in args.proposers} | {
        _name(proposer, k): speculating(k=k, proposer=proposer) for proposer in args.proposers for k in ks
    }
    variants = {name: client.asking(of) for name, of in (fields | {OWN: SPECULATIVE}).items()}
    comparison = await Comparison.run("sweep", asked, variants, args.repeats)
    section.problems += comparison.failures()
    section.problems += [f"{prompt_id}: the texts of different k differ" for prompt_id in comparison.unequal(*variants)]
    section.notes.append(
        f"{len(asked)} prompts, each asked {args.repeats} times with each k, in turns. Tokens per second are those "
        "after the first piece of text, all prompts together. Predicted: by shared/cost_model.py from this table's own "
        "acceptance by position and costs. Own choice: what the gateway does when it is told nothing. Beside "
        "it, tokens per second are those of whole requests, since its draft reads the prompt after the first piece."
    )
    if section.problems:
        section.notes.append("No table: it would be of some of the requests.")
        return section
    tunings = {proposer: Tuning([comparison.of(_name(proposer, k)) for k in (0, *ks)]) for proposer in args.proposers}
    kinds = list(dict.fromkeys(prompt.kind for prompt in asked))
    for proposer, tuning in tunings.items():
        modelled = proposer == MODELLED
        section.table(f"Proposer: {proposer}", tuning.rows(predict=modelled))
        section.table(
            f"Best k by kind of prompt, proposer: {proposer}",
            [_kind_row(kind, _of_kind(comparison, proposer, kind, ks), predict=modelled) for kind in kinds],
        )
        section.notes.append(
            f"Proposer {proposer}: the best k is {tuning.best_k}, {tuning.over_plain(tuning.best_k):.2f} times plain."
            + (f" The cost model expects {tuning.costs.best_k(tuning.acceptance)}." if modelled else "")
        )
    section.table("The gateway's own choice against the best fixed one", [_own_row(comparison, kind) for kind in kinds])
    measured = {proposer: tuning.measured for proposer, tuning in tunings.items()}
    plot_speeds(args.plot, measured, {name: tuning.predicted for name, tuning in tunings.items() if name == MODELLED})
    section.plots.append(args.plot)
    return section


def _name(proposer: str, k: int) -> str:
    return f"{proposer}, k={k}" if k else "plain"


def _of_kind(comparison: Comparison, proposer: str, kind: str, ks: Sequence[int]) -> Tuning:
    return Tuning([comparison.of(_name(proposer, k), (kind,)) for k in (0, *ks)])


def _own_row(comparison: Comparison, kind: str) -> Mapping[str, Value]:
    speeds = {name: _whole_speed(comparison.of(name, (kind,))) for name in comparison.variants}
    own = speeds.pop(OWN)
    best = max(speeds, key=speeds.__getitem__)
    return {
        "kind": kind,
        "own choice, tokens/s": own,
        "best fixed": best,
        "tokens/s": speeds[best],
        "own over best fixed": own / speeds[best],
    }


def _whole_speed(replies: Sequence[Reply]) -> float:
    """Return the tokens a second of all these requests, from their beginning on."""
    return sum(reply.completion_tokens for reply in replies) / sum(reply.seconds for reply in replies)


def _kind_row(kind: str, tuning: Tuning, *, predict: bool) -> Mapping[str, Value]:
    best = tuning.best_k
    return {
        "kind": kind,
        "best k": best,
        "tokens/s": tuning.measured[best],
        "over plain": tuning.over_plain(best),
        "expected best k": tuning.costs.best_k(tuning.acceptance) if predict else None,
        "acceptance by position": " ".join(f"{rate:.2f}" for rate in tuning.acceptance),
    }
