"""The cost model against the paper's formula, against rounds drawn at random, and against sums by hand."""

import random

import pytest
from services import ROOT

from deploy import sizing
from shared.cost_model import CostModel


@pytest.mark.parametrize("acceptance", [0.0, 0.3, 0.8, 0.99])
@pytest.mark.parametrize("ratio", [0.01, 0.2, 1.0])
def test_one_rate_is_the_papers_speedup(acceptance: float, ratio: float) -> None:
    """Theorem 3.8 of arXiv 2211.17192: (1 - a^(k+1)) / ((1 - a)(ck + 1)) times the plain speed."""
    plain = 0.05
    speeds = CostModel(ratio * plain, [plain] * 13).tokens_per_second(acceptance)
    for k, speed in enumerate(speeds):
        speedup = (1 - acceptance ** (k + 1)) / ((1 - acceptance) * (ratio * k + 1))
        assert speed * plain == pytest.approx(speedup)


def test_rates_by_position_are_those_of_drawn_rounds() -> None:
    """Over 40,000 rounds in which position i is accepted with its own probability, tokens a second agree to 1 %."""
    rng = random.Random(1)
    acceptance = [0.9, 0.5, 0.95, 0.2]
    costs = CostModel(0.01, [0.1, 0.11, 0.13, 0.16, 0.2], overhead_seconds=0.002, proposal_seconds=0.004)
    for k, speed in enumerate(costs.tokens_per_second(acceptance)):
        committed = 0
        for _ in range(40_000):
            accepted = 0
            while accepted < k and rng.random() < acceptance[accepted]:
                accepted += 1
            committed += accepted + 1
        seconds = 0.002 + (0.004 + 0.01 * k if k else 0) + [0.1, 0.11, 0.13, 0.16, 0.2][k]
        assert committed / (40_000 * seconds) == pytest.approx(speed, rel=0.01)


def test_a_token_below_break_even_lowers_the_speed() -> None:
    """A last draft token that is accepted as often as that leaves the speed as it is; less often, it costs."""
    costs = CostModel(0.02, [0.1, 0.11, 0.12], proposal_seconds=0.01)
    one = costs.tokens_per_second([0.9, 0.0])[1]
    border = costs.break_even(one, 2) / 0.9
    for last, faster in ((border - 0.01, False), (border + 0.01, True)):
        assert (costs.tokens_per_second([0.9, last])[2] > one) is faster


@pytest.mark.parametrize(
    ("costs", "acceptance", "best"),
    [
        (CostModel(0.01, [0.1] * 9), 0.0, 0),  # nothing is accepted
        (CostModel(0.0, [0.1] * 9), 1.0, 8),  # all is accepted, and drafting is free
        (CostModel(0.1, [0.1] * 9), 0.9, 0),  # a draft as slow as the target
        (CostModel(0.0, [0.1 * (k + 1) for k in range(9)]), 0.9, 0),  # every row costs as much as the first
        (CostModel(0.0, [0.1] * 4 + [0.3] * 5), 0.9, 3),  # a step in the cost
        (CostModel(0.0, [0.1] * 9, proposal_seconds=0.3), 0.5, 0),  # asking costs more than it brings
        (CostModel(0.0, [0.1] * 5), [1.0, 1.0, 0.0, 1.0], 2),  # what follows a sure rejection is worth nothing
    ],
)
def test_best_k(costs: CostModel, acceptance: float | list[float], best: int) -> None:
    """The best k is 0 where speculation does not pay, and ends where another token does not."""
    assert costs.best_k(acceptance) == best


def test_a_position_without_acceptance() -> None:
    """Too few positions are an error, not a shorter answer."""
    with pytest.raises(ValueError, match="shorter"):
        CostModel(0.01, [0.1] * 5).tokens_per_second([0.9, 0.9])


def test_sizing_is_as_documented(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/deploy.md shows what `python -m deploy.sizing` prints."""
    monkeypatch.setattr("sys.argv", ["sizing"])
    sizing.main()
    assert capsys.readouterr().out in (ROOT / "docs" / "deploy.md").read_text()
