"""Removes torch operators that other platforms lack. test_without_ops.py puts it on PYTHONPATH; Python runs it first.

macOS has no oneDNN, and Arm no FBGEMM: there these operators do not exist, and accessing one is an AttributeError.
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
