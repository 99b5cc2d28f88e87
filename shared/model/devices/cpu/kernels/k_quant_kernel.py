"""Linear layers with the weights of a .gguf file and activations of 8 bits, exact by construction.

Activations are rounded for each 32 neighbouring inputs, where llama.cpp takes 256. What follows goes row by row in one
order.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from shared.model.checkpoints.k_quant_linear import KQuantLinear
from shared.model.checkpoints.k_quants import LANES, SUPERBLOCK
from shared.model.devices.cpu.compiled_code.stage_numbers import ITEMS, KIND, WIDTH, Kind, Norm
from shared.model.devices.cpu.compiled_code.team import run
from shared.model.devices.cpu.compiled_code.tile_product import NEIGHBOURS, ROUNDED_BYTES, Task
from shared.model.devices.cpu.compiled_code.vector_code import has_avx2
from shared.model.devices.cpu.kernels.kernel_linear import KernelLinear

# Of weights, that a thread takes at once, or so: at the begin of them, nothing has been asked for ahead of its use.
_ITEM_BYTES = 1 << 19

Stage = Mapping[int, int]
"""Of the numbers of a stage, those that are not zero, by their places."""


class RoundedRows:
    """Where rows are rounded to: whole numbers of 8 bits, of which the largest of each GROUP is 127."""

    def __init__(self, num_rows: int, size: int) -> None:
        """Make the memory. size: numbers of a row."""
        groups = -(-num_rows // NEIGHBOURS)
        self._memory = np.zeros((groups, size // SUPERBLOCK, NEIGHBOURS, ROUNDED_BYTES), np.uint8)

    @property
    def numbers(self) -> Stage:
        """Their numbers in a stage."""
        return {Task.ROUNDED: self._memory.ctypes.data}


class KQuantKernel(KernelLinear):
    """A linear layer whose weight stays as its .gguf file has it."""

    def __init__(self, linear: nn.Linear) -> None:
        """Take the layer's weight; the layer itself can be dropped afterwards. Raises RuntimeError without AVX2."""
        super().__init__(linear)
        if not has_avx2():
            raise RuntimeError("products with K-quants need AVX2")
        self.bias: torch.Tensor | None = None if linear.bias is None else linear.bias.detach().float()  # [out]
        # A copy begins at a line of the processor's cache, and in large pages; what a file is mapped to does not.
        self._parts = [(form, tiles.clone()) for form, tiles in KQuantLinear.of(linear).parts]

    def multiply(self, rows: torch.Tensor) -> torch.Tensor:
        """Multiply at once. rows: [rows, in] float32; returns [rows, out] float32."""
        rows, num_rows = rows.contiguous(), len(rows)
        rounded, products = RoundedRows(num_rows, self.in_features), np.empty((num_rows, self.out_features), np.float32)
        places: Stage = {Norm.SIZE: self.in_features, Norm.ROWS: rows.data_ptr()}
        first = {KIND: Kind.ROUND, ITEMS: num_rows, **places, **rounded.numbers}
        run(program([first, *self.stages(rounded, products, num_rows)]))
        y = torch.from_numpy(products)
        return y if self.bias is None else y.add_(self.bias)

    def stages(self, rounded: RoundedRows, products: NDArray[np.float32], num_rows: int = 0) -> Iterable[Stage]:
        """Yield the stages that write the products of rounded rows, less the bias. products: [rows, out]."""
        first, threads = 0, torch.get_num_threads()
        for form, tiles in self._parts:
            num_tiles, superblocks, _ = tiles.shape
            items = threads * max(1, round(tiles.nbytes / threads / _ITEM_BYTES))
            chunk = -(-num_tiles // items)
            yield {
                KIND: Kind[form.name],
                ITEMS: -(-num_tiles // chunk),
                Task.TILES: num_tiles,
                Task.CHUNK: chunk,
                Task.ROWS: num_rows,
                Task.SUPERBLOCKS: superblocks,
                Task.WEIGHTS: tiles.data_ptr(),
                Task.PRODUCTS: products.ctypes.data + 4 * first,
                Task.OUTPUTS: self.out_features,
                **rounded.numbers,
            }
            first += LANES * num_tiles


def program(stages: Sequence[Stage]) -> NDArray[np.int64]:
    """Return stages as `run` takes them, [stages, WIDTH]."""
    numbers = np.zeros((len(stages), WIDTH), np.int64)
    for row, stage in zip(numbers, stages, strict=True):
        row[list(stage)] = list(stage.values())
    return numbers
