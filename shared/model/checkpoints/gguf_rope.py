"""The rotary scaling of Llama 3, which a .gguf file holds as a tensor of factors that transformers does not read."""

import math
from typing import Any

import numpy as np
from gguf import GGUFReader
from numpy.typing import NDArray
from transformers import PretrainedConfig

from shared.errors import ModelError

_TENSOR = "rope_freqs.weight"
_LOW, _HIGH, _ORIGINAL = 1.0, 4.0, 8192  # of all releases of Llama 3; the factor is 8 or 32


def take_over_rope(reader: GGUFReader, config: PretrainedConfig, name: str) -> None:
    """Write the scaling whose factors the file holds into the configuration. Raises ModelError if it is another."""
    found = [tensor.data for tensor in reader.tensors if tensor.name == _TENSOR]
    if not found:
        return
    [factors] = found
    scaling = {
        "rope_type": "llama3",
        "factor": float(factors.max()),
        "low_freq_factor": _LOW,
        "high_freq_factor": _HIGH,
        "original_max_position_embeddings": _ORIGINAL,
    }
    expected = llama3_factors(config.rope_parameters["rope_theta"], 2 * len(factors), scaling["factor"])
    if not np.allclose(factors, expected, rtol=1e-3):
        raise ModelError(f"{name}: {_TENSOR} scales positions in a way that is not known")
    config.rope_parameters = config.rope_parameters | scaling


def llama3_factors(theta: float, head_dim: int, factor: Any) -> NDArray[np.float64]:
    """Return by what each frequency is divided. [head_dim / 2]."""
    waves = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)  # lengths, in positions
    smooth = (_ORIGINAL / waves - _LOW) / (_HIGH - _LOW)
    factors: NDArray[np.float64] = 1 / ((1 - smooth) / factor + smooth)
    factors[waves < _ORIGINAL / _HIGH] = 1
    factors[waves > _ORIGINAL / _LOW] = factor
    return factors
