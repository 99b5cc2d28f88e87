"""Products with K-quants: near those of real numbers, and each row from that row alone."""

import numpy as np
import pytest
import torch
from torch import nn

from shared.model.checkpoints.k_quant_linear import KQuantLinear
from shared.model.checkpoints.k_quants import K_QUANTS, rounded_to
from shared.model.devices.cpu.kernels.k_quant_kernel import KQuantKernel

INPUTS, OUTPUTS = 768, 144


def _layer(*forms: str, bias: bool = True) -> KQuantLinear:
    """Return a layer of these forms, each of OUTPUTS outputs."""
    generator = torch.Generator().manual_seed(len(forms))
    layers = []
    for name in forms:
        layer = KQuantLinear.empty(INPUTS, OUTPUTS, None, K_QUANTS[name])
        tiles = rounded_to(torch.randn(OUTPUTS, INPUTS, generator=generator) / 20, K_QUANTS[name])
        layer.weight = nn.Parameter(tiles, requires_grad=False)
        layers.append(layer)
    own = nn.Parameter(torch.randn(OUTPUTS * len(forms), generator=generator), requires_grad=False)
    return KQuantLinear.joined(layers, own if bias else None)


LAYERS = {name: (name,) for name in K_QUANTS} | {"joined": ("Q4_K", "Q4_K", "Q6_K")}


@pytest.mark.parametrize("forms", LAYERS.values(), ids=LAYERS)
def test_products(forms: tuple[str, ...]) -> None:
    """As near as 8 bits for each 32 activations allow; the parts of a joined layer follow each other."""
    layer = _layer(*forms)
    rows = torch.randn(11, INPUTS, generator=torch.Generator().manual_seed(9))
    groups = rows.view(11, -1, 32)
    steps = groups.abs().amax(-1, keepdim=True) / 127
    rounded = (groups / steps).round() * steps
    expected = layer(rounded.view(11, INPUTS).double().float())
    torch.testing.assert_close(KQuantKernel(layer).multiply(rows), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("forms", LAYERS.values(), ids=LAYERS)
def test_a_row_is_its_own(forms: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """At any number of rows and of threads, and beside rows that are zero, infinite or no numbers."""
    layer = KQuantKernel(_layer(*forms))
    rows = torch.randn(70, INPUTS, generator=torch.Generator().manual_seed(9))
    rows[3] = 0
    expected = layer.multiply(rows)
    for count in (*range(1, 20), 33, 64, 70):
        first = 70 - count
        assert torch.equal(layer.multiply(rows[first:]), expected[first:]), count
    other = rows.clone()
    other[::2] = torch.tensor([torch.nan, torch.inf, 1e30, 0, -torch.inf])[:, None].expand(-1, 7).flatten()[:, None]
    found = layer.multiply(other)
    assert torch.equal(found[1::2], expected[1::2])
    assert not found[0].isfinite().any()
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert torch.equal(KQuantKernel(_layer(*forms)).multiply(rows), expected)


def test_sums_do_not_saturate() -> None:
    """With the largest codes and steps, of both signs."""
    for name, form in K_QUANTS.items():
        weight = torch.full((16, 256), 1.0)
        weight[:, ::32] = -1.0 if form.has_minimums else -0.99
        layer = KQuantLinear.empty(256, 16, None, form)
        layer.weight = nn.Parameter(rounded_to(weight, form), requires_grad=False)
        for sign in (1, -1):
            rows = sign * torch.ones(3, 256)
            torch.testing.assert_close(KQuantKernel(layer).multiply(rows), layer(rows), rtol=1e-5, atol=1e-5, msg=name)


def test_without_a_team(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch has another OpenMP, one thread computes, and the same."""
    layer, rows = KQuantKernel(_layer("Q4_K")), torch.from_numpy(np.linspace(-1, 1, 5 * INPUTS, dtype=np.float32))
    expected = layer.multiply(rows.view(5, INPUTS))
    monkeypatch.setattr("shared.model.devices.cpu.compiled_code.team._team", lambda: None)
    assert torch.equal(layer.multiply(rows.view(5, INPUTS)), expected)
