"""The noise of `shared.model.sampling.noise`, in operations that a device of fixed shapes computes as it should.

Nothing here has a Python number that a graph would keep in float64, and nothing needs log1p, which Trainium2 lacks: as
log(1 + x) it would take the smallest numbers to 0, and their tokens' noise to infinity.
"""

import torch

from shared.model.sampling.noise import FACTORS

_SERIES_BELOW = 2.0**-5  # where four terms say as much as float32 holds, and 1 - u has not lost much of it


def words_in_graph(token_ids: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Return the words of `noise.words_of` for these tokens in rows with these keys; all int32, broadcast."""
    return _mix(_mix(token_ids ^ low) ^ high)


def noise_in_graph(words: torch.Tensor) -> torch.Tensor:
    """Return the noise that these words mean: int32 to float32, within 2e-6 of what `noise.noise_of` returns."""
    half, least, one = (_number(each, words) for each in (0.5, 2.0**-31, 1))
    uniform = ((words & 0x7FFFFFFF).float() + half) * least
    uniform = torch.minimum(uniform, _number(1 - 2.0**-24, words))
    series = _number(1 / 4, words)  # -log(1 - u) = u + u^2/2 + u^3/3 + ...
    for term in (3, 2, 1):
        series = series * uniform + _number(1 / term, words)
    small = uniform < _number(_SERIES_BELOW, words)
    return -torch.log(torch.where(small, uniform * series, -torch.log(one - uniform)))


def _mix(x: torch.Tensor) -> torch.Tensor:
    """Scramble 32-bit words one to one: `lowbias32` of C. Wellons' Hash Prospector, in wrapping int32 arithmetic."""
    # Shift distances are tensors, and `>>` is avoided, since torch-mlir lowers no other form of shift.
    sixteen, fifteen = (torch.full((), bits, dtype=torch.int32, device=x.device) for bits in (16, 15))
    x = (x ^ (torch.bitwise_right_shift(x, sixteen) & 0xFFFF)) * FACTORS[0]
    x = (x ^ (torch.bitwise_right_shift(x, fifteen) & 0x1FFFF)) * FACTORS[1]
    return x ^ (torch.bitwise_right_shift(x, fifteen) & 0x1FFFF)


def _number(value: float, like: torch.Tensor) -> torch.Tensor:
    return torch.full((), value, dtype=torch.float32, device=like.device)
