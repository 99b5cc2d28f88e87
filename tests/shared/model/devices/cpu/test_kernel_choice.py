"""Which kernel a model runs by: the preferred one, or one that was measured to be much faster."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from shared.errors import ModelError
from shared.model.devices.cpu.exactness import kernel_choice
from shared.model.devices.cpu.exactness.kernel_choice import GAIN, kernel_order
from shared.model.devices.cpu.exactness.kernel_trial import Trial, try_kernels
from shared.model.devices.cpu.kernels.kernels import kernels

PREFERRED, *OTHERS, LAST = [kernel.name for kernel in kernels(torch.bfloat16) if not kernel.isa]


@pytest.fixture
def model(toy: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> PreTrainedModel:
    """Return a model that is worth measuring, where nothing is kept yet."""
    monkeypatch.setattr(kernel_choice, "_WORTH_MEASURING", 0)
    monkeypatch.setenv("OUTRIDER_CACHE", str(tmp_path))
    return AutoModelForCausalLM.from_pretrained(toy[0], dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("milliseconds", "chosen"),
    [
        ([(10, 80), (9, 72)], PREFERRED),  # faster, and not by enough
        ([(10, 80), (10, 80 / GAIN - 20)], OTHERS[0]),
        ([None, (90, 900)], OTHERS[0]),
        ([(math.inf, math.inf), (1, 1)], PREFERRED),  # a machine too busy to measure on
        ([], PREFERRED),  # no process could be started
    ],
)
def test_the_preferred_kernel_is_left_for_a_gain(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, milliseconds: list[Any], chosen: str
) -> None:
    """The choice by what was measured; what was not measured is not kept."""
    asked = []

    def trials(isa: str, *_: object) -> list[Trial]:
        if isa:
            return []
        asked.append(1)
        return [
            Trial(name, milliseconds=times) if times else Trial(name, "not there")
            for name, times in zip([PREFERRED, *OTHERS], milliseconds, strict=False)
        ]

    monkeypatch.setattr(kernel_choice, "_try", trials)
    for _ in range(2):
        first, *others = kernel_order(model, torch.bfloat16, "auto")
        assert first.name == chosen
        assert {kernel.name for kernel in others} == {PREFERRED, *OTHERS, LAST} - {chosen}
    measured = any(times and math.isfinite(times[0]) for times in milliseconds[:1]) or milliseconds[:1] == [None]
    assert len(asked) == (1 if measured else 2)


def test_a_real_trial(model: PreTrainedModel, tmp_path: Path) -> None:
    """A process of its own tries what this machine has; the figures are kept with what they depend on."""
    assert kernel_order(model, torch.bfloat16, "auto")[0].name in {PREFERRED, *OTHERS}
    for file in tmp_path.glob("kernels/*.json"):  # none, if the machine was busy
        key, trials = json.loads(file.read_text())
        assert {trial["kernel"] for trial in trials} >= {PREFERRED, *OTHERS}
        assert json.loads(key)["threads"] == torch.get_num_threads()


def test_a_kernel_that_is_given_is_kept_to(model: PreTrainedModel) -> None:
    """Nothing else is tried; one that is not there is refused with a sentence."""
    assert [kernel.name for kernel in kernel_order(model, torch.bfloat16, LAST)] == [LAST]
    with pytest.raises(ModelError, match=f"kernel fast: for bfloat16 there are {PREFERRED}, "):
        kernel_order(model, torch.bfloat16, "fast")
    with pytest.raises(ModelError, match="for float32 there are"):
        kernel_order(model, torch.float32, "onednn-bfloat16")


def test_each_kernel_computes_the_product() -> None:
    """On this processor, whichever of them are there."""
    for trial in try_kernels(
        [kernel.name for kernel in kernels(torch.bfloat16) if not kernel.isa], torch.bfloat16, [(96, 160)]
    ):
        assert trial.problem or len(trial.milliseconds) == 2
    torch.manual_seed(0)
    linear = torch.nn.Linear(96, 160, dtype=torch.bfloat16)
    x = torch.randn(5, 96).bfloat16()
    expected = torch.nn.functional.linear(x.float(), linear.weight.float(), linear.bias.float())
    usable = [kernel for kernel in kernels(torch.bfloat16) if not kernel.isa and not kernel.problem]
    assert usable
    for kernel in usable:
        torch.testing.assert_close(
            kernel.pack(linear)(x.to(kernel.activations)).float(), expected, atol=2e-2, rtol=2e-2
        )
