"""bfloat16 weights by FBGEMM: the product of the weights as they are, in one slab or in many."""

import pytest
import torch
from torch import nn

from shared.model.devices.cpu.kernels import half_linear
from shared.model.devices.cpu.kernels.half_linear import HalfLinear


@pytest.mark.skipif("fbgemm" not in torch.backends.quantized.supported_engines, reason="FBGEMM is for x86")
@pytest.mark.parametrize("bias", [True, False])
def test_slabs_change_no_bit(monkeypatch: pytest.MonkeyPatch, bias: bool) -> None:  # noqa: FBT001
    """A weight in slabs, the last of which is smaller, gives what it gives in one, and that is the product."""
    torch.manual_seed(0)
    linear = nn.Linear(96, 200, bias=bias, dtype=torch.bfloat16)
    x = torch.randn(1, 13, 96)
    whole = HalfLinear(linear)
    monkeypatch.setattr(half_linear, "_SLAB_BYTES", 2 * 96 * 40)
    slabs = HalfLinear(linear)
    assert (len(whole.packed), len(slabs.packed)) == (1, 7)
    assert torch.equal(slabs(x), whole(x))
    torch.testing.assert_close(
        whole(x), nn.functional.linear(x, linear.weight.float(), linear.bias.float() if bias else None)
    )
