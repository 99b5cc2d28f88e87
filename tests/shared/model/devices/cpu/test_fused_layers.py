"""The quicker parts of a layer compute what torch's own do."""

from types import SimpleNamespace

import torch
from torch.nn import functional

from shared.model.devices.cpu.fused_layers import UnitNorm


def test_a_norm_without_weights() -> None:
    """It is torch's, up to rounding, and a row's bits are its own, whatever is beside it."""
    x = torch.randn(1, 300, 1536) * torch.logspace(-3, 3, 300)[:, None]
    norm = UnitNorm(SimpleNamespace(variance_epsilon=1e-6, weight=torch.ones(1536)))
    torch.testing.assert_close(norm(x), functional.rms_norm(x, (1536,), eps=1e-6))
    alone = torch.cat([norm(row) for row in torch.split(x, 1, 1)], 1)
    for count in (2, 5, 8, 31, 64, 256):
        assert torch.equal(norm(x[:, :count]), alone[:, :count])
