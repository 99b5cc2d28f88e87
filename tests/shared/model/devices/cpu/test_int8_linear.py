"""Weights and activations of 8 bits: sums of whole numbers, the same by every kernel and for any number of rows."""

import pytest
import torch
from torch import nn

from shared.model.checkpoints.rounded_linear import RoundedLinear
from shared.model.devices.cpu.exactness.agreement import COUNTS
from shared.model.devices.cpu.kernels.int8_linear import Int8Linear, levels
from shared.model.devices.cpu.kernels.kernels import Kernel, kernels

KERNELS = [kernel for kernel in kernels(torch.int8) if not kernel.problem]
FAST = KERNELS[:-1]


def linear() -> nn.Linear:
    """Return a layer with a bias, each time the same."""
    torch.manual_seed(0)
    return nn.Linear(320, 77)


def layer(block: int) -> RoundedLinear:
    """Return it rounded."""
    return RoundedLinear.of(linear(), block)


def packed(kernel: Kernel, stored: RoundedLinear) -> Int8Linear:
    """Pack it."""
    with torch.inference_mode():
        layer = kernel.pack(stored)
    assert isinstance(layer, Int8Linear)
    return layer


@pytest.mark.parametrize("block", [1, 64])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_a_rows_bits_are_its_own(kernel: Kernel, block: int) -> None:
    """For every number of rows, beside rows of any magnitude, a row has the bits that it has alone."""
    multiply = packed(kernel, layer(block))
    x = torch.randn(max(COUNTS), 320) * torch.logspace(-20, 20, max(COUNTS))[:, None]
    alone = torch.cat([multiply(row[None]) for row in x])
    for count in COUNTS:
        assert torch.equal(multiply(x[-count:]), alone[-count:])


@pytest.mark.parametrize("kernel", FAST, ids=lambda kernel: kernel.name)
def test_kernels_sum_alike(kernel: Kernel) -> None:
    """The sums are those of exact arithmetic, at the largest magnitudes too."""
    multiply, oracle = packed(kernel, layer(1)), packed(KERNELS[-1], layer(1))
    number = levels(type(multiply))
    rows = torch.randint(-number, number + 1, (9, 320)).float()
    rows[0] = number
    torch.testing.assert_close(multiply.product(rows, number + 1), oracle.product(rows, number + 1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_it_is_near_the_layer(kernel: Kernel) -> None:
    """The result is the layer's up to rounding, which rotated inputs make finer where one of them is large."""
    x = torch.randn(40, 320)
    x[torch.arange(40), torch.randint(320, (40,))] *= 100  # as a few channels of a language model are
    errors = []
    for block in (1, 64):
        stored = layer(block)
        with torch.inference_mode():
            exact, stored_alone = linear()(x), stored(x)
            torch.testing.assert_close(stored_alone, exact, rtol=0.05, atol=0.1)
            errors.append(float((packed(kernel, stored)(x) - stored_alone).abs().mean()))
    assert errors[1] < errors[0] / 3


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_zeros_and_what_is_no_number(kernel: Kernel) -> None:
    """A row of zeros gives the bias; one with a NaN or an infinity stays no number and leaves the others alone."""
    multiply = packed(kernel, layer(64))
    x = torch.randn(4, 320)
    x[0], x[1, 5], x[2, 5] = 0, torch.nan, torch.inf
    y = multiply(x)
    assert multiply.bias is not None
    assert torch.equal(y[0], multiply.bias)
    assert not y[1:3].isfinite().any()
    assert torch.equal(y[3:], multiply(x[3:]))


def test_rounding_again_changes_nothing() -> None:
    """Scales have as few digits as bfloat16, weights are within a half step, and outputs of zeros stay zeros."""
    linear = nn.Linear(64, 32)
    linear.weight.data[7] = 0
    stored = RoundedLinear.of(linear)
    assert RoundedLinear.of(stored) is stored
    assert torch.equal(stored.weight_scale.bfloat16().float(), stored.weight_scale)
    error = (stored.weight * stored.weight_scale - linear.weight).abs() / stored.weight_scale
    assert error.max() < 1  # the largest one may be cut by as much as the scale was rounded
    assert error.median() < 0.5
    assert not stored.weight[7].any()
