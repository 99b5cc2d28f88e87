"""The steps of the hour, in an order that leaves something wherever it is cut off: the cheap and the certain first."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.machine import ROOT
from deploy.first_hour.plan import Plan
from deploy.first_hour.step import Step

TEXTS = ROOT / "deploy" / "benchmarks" / "trn2" / "texts.jsonl"
COLLECTIVES = ("gather", "all_reduce")


def before_serving(plan: Plan) -> list[list[Step]]:
    """Return what is tried before the target's ranks are arranged; those of an inner list run at once."""
    doctor = Step(
        plan,
        "doctor",
        "the machine has what device neuron needs, and the target fits",
        _python(plan.ranks, "target_service", "doctor", model=plan.target, cores=plan.target_cores, **_common(plan)),
        _seconds(plan, "doctor"),
    )
    limit = _seconds(plan, "reload")
    reloads = [
        Step(
            plan,
            f"reload-{collective}",
            f"a graph with {collective} runs from the cache in other processes",
            _python(
                plan.ranks,
                "target_service",
                "doctor",
                machine=False,
                collective=collective,
                reload_seconds=limit,
                cores=plan.target_cores,
            ),
            3 * limit,
        )
        for collective in COLLECTIVES[: 2 if plan.ranks > 1 else 1]
    ]
    return [[doctor], *([reload] for reload in reloads)]


def compiling(plan: Plan) -> list[Step]:
    """Return what compiles both models' graphs, at once. Cut off, it finds in the cache what it compiled."""
    halves = {"draft": (1, plan.draft, plan.draft_cores), "target": (plan.ranks, plan.target, plan.target_cores)}
    return [
        Step(
            plan,
            f"compile-{half}",
            f"the {half}'s graphs compile, and the model computed is the model",
            _python(
                ranks,
                f"{half}_service",
                "compile",
                model=model,
                cores=cores,
                collective=plan.collective,
                **_common(plan),
            ),
            _seconds(plan, "compile"),
        )
        for half, (ranks, model, cores) in halves.items()
    ]


def serving(plan: Plan, url: str) -> list[Step]:
    """Return what asks the gateway at this address."""

    def bench(name: str, title: str, mode: str, kind: str, **flags: object) -> Step:
        command = _python(1, "benchmarks", mode, gateway=url, **flags)
        return Step(plan, name, title, [*command, "--json"], _seconds(plan, kind))

    described = _python(1, "deploy.first_hour.described", url)
    title = "rows have the same bits alone and together"
    steps = [Step(plan, "start", title, described, _seconds(plan, "start"))]
    for name, temperature in {"greedy": 0, "sampled": 0.8}.items():
        title = f"texts are equal with speculation and without, {name}"
        flags = {"prompts": TEXTS, "temperature": temperature, "seed": 1, "repeats": 1, **plan.texts}
        steps.append(bench(f"texts-{name}", title, "single", "texts", **flags))
    for name, workload in plan.workloads.items():
        steps.append(bench(f"benchmark-{name}", f"AWS's workload: {name}", "trn2", "benchmark", **workload))
    return steps


def environment(plan: Plan) -> dict[str, str]:
    """Return the variables that give the services their settings."""
    settings = {**plan.settings, "collective": plan.collective}
    return {f"OUTRIDER_{name.upper()}": str(value) for name, value in settings.items()} | {"COLUMNS": "180"}


def serve(plan: Plan, ports: Sequence[int]) -> list[str]:
    """Return the command that runs the three services on these ports: the gateway's, the draft's, the target's."""
    pair = {"pair": plan.target} if plan.target == plan.draft else {"target": plan.target, "draft": plan.draft}
    where = {"target_ranks": plan.ranks, "target_cores": plan.target_cores, "draft_cores": plan.draft_cores}
    flags: Mapping[str, Any] = {**pair, **where, **_common(plan), "device": "neuron", "draft_quant": "none"}
    return _python(1, "scripts.serve", **flags, **dict(zip(("port", "draft_port", "target_port"), ports, strict=True)))


def _common(plan: Plan) -> dict[str, Any]:
    return {"dtype": plan.dtype, "num_slots": plan.num_slots}


def _seconds(plan: Plan, kind: str) -> float:
    return plan.minutes[kind] * 60


def _python(ranks: int, module: str, *words: str, **flags: object) -> list[str]:
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    given = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items() if value != ""]
    return [sys.executable, *launch, "-m", module, *words, *given]
