"""Put on PYTHONPATH by test_without_ops.py: Python runs this at its start, and torch lacks what it lacks elsewhere.

macOS has no oneDNN, and Arm no FBGEMM: there these operators do not exist, and asking for one is an AttributeError.
"""

import torch


class _Missing:
    """A namespace without operators."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, operator: str) -> object:
        raise AttributeError(f"'_OpNamespace' '{self._name}' object has no attribute '{operator}'")


for name in ("mkldnn", "onednn", "quantized"):
    setattr(torch.ops, name, _Missing(name))
