"""`doctor` tries a graph in two sets of processes."""

import os

import pytest

from shared.model.commands import doctor
from shared.model.commands.doctor import DoctorSettings, reload_finding
from shared.model.commands.reload_trial import Run, run_processes


def settings(**changed: object) -> DoctorSettings:
    """Return settings for graphs on the CPU."""
    values = {"compile_backend": "aot_eager", "collective": "all_reduce", "cores": "", "reload_seconds": 90.0}
    return DoctorSettings.model_construct(**(values | changed))  # type: ignore[arg-type]


def test_a_graph_of_two_ranks(monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]) -> None:
    """Processes of their own compile it, and run it."""
    for name, value in {"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    run = run_processes(settings(), str(tmp_path), 90)
    assert isinstance(run, Run), run
    assert len(run.digest) == 64


@pytest.mark.parametrize(
    ("second", "found", "advice"),
    [
        (Run(0.5, "a"), "20.0 s, then 0.5 s: the same bits", ""),
        (Run(0.5, "b"), "20.0 s, then 0.5 s: OTHER bits", "do not serve from a cache"),
        ("no end after 90 s", "from the cache: no end after 90 s", "try --collective=all_reduce"),
    ],
)
def test_what_is_found(monkeypatch: pytest.MonkeyPatch, second: Run | str, found: str, advice: str) -> None:
    """Bits that differ, or a second set of processes that never ends, want action."""
    runs = iter([Run(20, "a"), second])
    monkeypatch.setattr(doctor, "num_ranks", lambda: 2)
    monkeypatch.setattr(doctor, "run_processes", lambda *_: next(runs))
    finding = reload_finding(settings(collective="gather"))
    assert (finding.found, finding.advice) == (found, advice)
