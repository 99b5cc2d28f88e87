"""The kernels for a model's linear layers on a CPU."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import nn

from shared.errors import ModelError
from shared.model.devices.cpu.kernels.half_linear import HalfLinear
from shared.model.devices.cpu.kernels.int8_linear import FbgemmInt8Linear, OnednnInt8Linear, TorchInt8Linear
from shared.model.devices.cpu.kernels.kernel_linear import KernelLinear
from shared.model.devices.cpu.kernels.packed_linear import PackedLinear
from shared.model.devices.cpu.kernels.processor import ISA_VARIABLE, has_amx, has_bfloat16
from shared.model.devices.cpu.kernels.torch_linear import TorchLinear

WITHOUT_AMX = "AVX512_CORE_BF16"  # oneDNN's name for the greatest instruction set below AMX


@dataclass(frozen=True)
class Kernel:
    """One kernel: what lays out the weights and multiplies, and the types of weights and activations."""

    name: str
    linear: type[KernelLinear]
    weights: torch.dtype
    activations: torch.dtype
    isa: str = ""
    """The instruction set that oneDNN has to be kept to, before its first use in the process; empty leaves it."""
    keys: torch.dtype | None = None
    """The type of keys and values in the cache; None is that of the activations."""

    def pack(self, linear: nn.Linear) -> KernelLinear:
        """Return the layer with the same weights, laid out for this kernel."""
        if linear.weight.is_floating_point() and linear.weight.dtype is not self.weights:
            wider = nn.Linear(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
            wider.weight = nn.Parameter(linear.weight.detach().to(self.weights), requires_grad=False)
            if linear.bias is not None:
                wider.bias = nn.Parameter(linear.bias.detach().to(self.weights), requires_grad=False)
            linear = wider
        return self.linear(linear)

    def enter(self) -> None:
        """Limit oneDNN to the kernel's instruction set, if it has one."""
        if self.isa:
            os.environ[ISA_VARIABLE] = self.isa

    @property
    def problem(self) -> str:
        """Why this kernel is missing on this processor or in this build of torch; empty if it is there."""
        if self.isa and not has_amx():
            return "the processor has no AMX to do without"
        try:
            layer = self.pack(nn.Linear(256, 64, bias=True, dtype=self.weights))
            layer(torch.ones(2, 256, dtype=self.activations))
        except (RuntimeError, AttributeError, NotImplementedError) as error:
            return str(error).splitlines()[0]
        return ""


def kernels(dtype: torch.dtype) -> Sequence[Kernel]:
    """Return the kernels for weights of this type, int8 for rounded ones and uint8 for K-quants, best first."""
    half, single = torch.bfloat16, torch.float32
    if dtype is torch.int8:
        by_fbgemm = Kernel("fbgemm-int8", FbgemmInt8Linear, single, single)
        by_onednn = Kernel("onednn-int8", OnednnInt8Linear, single, single)
        by_torch = Kernel("torch-int8", TorchInt8Linear, single, single)
        return [by_onednn, by_fbgemm, by_torch] if has_amx() else [by_fbgemm, by_onednn, by_torch]
    if dtype is torch.uint8:
        if not find_spec("numba"):
            return []
        from shared.model.devices.cpu.kernels.k_quant_kernel import KQuantKernel  # noqa: PLC0415 - numba takes a second

        return [Kernel("k-quants", KQuantKernel, single, single, keys=half)]
    of_float32 = [
        Kernel("onednn-float32", PackedLinear, single, single),
        Kernel("torch-float32", TorchLinear, single, single),
    ]
    if dtype is single:
        return of_float32
    of_bfloat16 = [
        Kernel("onednn-bfloat16", PackedLinear, half, half),
        Kernel("onednn-bfloat16-no-amx", PackedLinear, half, half, WITHOUT_AMX),
    ]
    of_float16 = [Kernel("fbgemm-float16", HalfLinear, half, single)]
    # On a processor without bfloat16, oneDNN emulates it at a third of the speed or less.
    return [*of_bfloat16, *of_float16, *of_float32] if has_bfloat16() else [*of_float16, *of_bfloat16, *of_float32]


def rounds_fast() -> bool:
    """Whether this build of torch has a kernel for weights of 8 bits that is worth using."""
    return any(not kernel.problem for kernel in kernels(torch.int8)[:-1])


def named_kernel(name: str, dtype: torch.dtype) -> Kernel:
    """Return the kernel with this name. Raises ModelError if there is none for weights of this type."""
    known = {kernel.name: kernel for kernel in kernels(dtype)}
    if name not in known:
        raise ModelError(
            f"kernel {name}: for {str(dtype).removeprefix('torch.')} there are {', '.join(known)}, and auto"
        )
    return known[name]
