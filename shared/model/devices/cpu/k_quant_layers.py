"""All layers of a model with the weights of a .gguf file, in one call: stages that threads compute together."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from shared.errors import ModelError
from shared.model.checkpoints.k_quants import HEAD_GRAIN, SUPERBLOCK
from shared.model.devices.cpu.batch import Batch
from shared.model.devices.cpu.compiled_code.attention_product import KEY_BLOCK
from shared.model.devices.cpu.compiled_code.stage_numbers import ITEMS, KIND, Attend, Gate, Kind, Norm, Rotate
from shared.model.devices.cpu.compiled_code.team import run
from shared.model.devices.cpu.compiled_code.tile_product import Task
from shared.model.devices.cpu.fused_layers import FusedAttention
from shared.model.devices.cpu.kernels.k_quant_kernel import KQuantKernel, RoundedRows, Stage, program
from shared.model.devices.cpu.kv_cache import SlotCache

_GROUP_ROWS = 8  # neighbouring rows that read their keys together, where there is work for all threads
_LEAST_ROWS = 64  # that memory is made for

_Floats = NDArray[np.float32]


def fuse_k_quants(model: PreTrainedModel) -> None:
    """Replace the layers of a model of the family, whose linear layers are packed. Raises ModelError."""
    act, head_dim = model.config.hidden_act, model.model.layers[0].self_attn.head_dim
    if act != "silu" or head_dim % HEAD_GRAIN:
        raise ModelError(f"layers with {act} and heads of {head_dim} numbers are not computed with K-quants")
    model.model.layers = nn.ModuleList([KQuantLayers(model.model.layers)])


class KQuantLayers(nn.Module):
    """The layers, one after the other, and the memory in which they compute."""

    def __init__(self, layers: Sequence[Any]) -> None:
        """Take over the parts of fused layers."""
        super().__init__()
        self._layers = [_Layer(layer) for layer in layers]
        self._cache: SlotCache | None = None
        self._memory: _Memory
        self._stages: NDArray[np.int64]  # which hold addresses of the memory, and of the cache

    def forward(
        self,
        hidden_states: torch.Tensor,  # [1, rows, hidden]
        position_embeddings: tuple[torch.Tensor, torch.Tensor],  # [1, rows, head_dim] float32 each
        past_key_values: SlotCache,
        batch: Batch,
        **_: Any,
    ) -> torch.Tensor:
        """Compute the layers. Returns [1, rows, hidden]."""
        num_rows = hidden_states.shape[1]
        if past_key_values is not self._cache or num_rows > len(self._memory.rows):
            self._cache = None  # should there be no memory left
            self._memory = _Memory(self._layers[0], max(num_rows, _LEAST_ROWS))
            self._stages = program(self._memory.stages(self._layers, past_key_values))
            self._cache = past_key_values
        stages, memory = self._stages, self._memory
        memory.rows[:num_rows] = hidden_states[0].numpy()
        memory.places[:num_rows, 0], memory.places[:num_rows, 1] = batch.slots.numpy(), batch.positions.numpy()
        kinds = stages[:, KIND]
        kv_heads = self._layers[0].attention.kv_heads
        together = max(1, min(num_rows * kv_heads // torch.get_num_threads(), _GROUP_ROWS))
        num_groups = memory.group(num_rows, together)
        stages[(kinds == Kind.NORM) | (kinds == Kind.ROTATE) | (kinds == Kind.ROUND), ITEMS] = num_rows
        stages[kinds == Kind.ATTEND, ITEMS] = num_groups * kv_heads
        stages[kinds == Kind.GATE, ITEMS] = num_rows * (self._layers[0].inner_size // SUPERBLOCK)
        stages[kinds >= Kind.Q4_K, Task.ROWS] = num_rows
        cos, sin = (table[0].contiguous() for table in position_embeddings)
        stages[kinds == Kind.ROTATE, Rotate.COS], stages[kinds == Kind.ROTATE, Rotate.SIN] = (
            cos.data_ptr(),
            sin.data_ptr(),
        )
        run(stages)
        return torch.from_numpy(memory.rows[:num_rows].copy())[None]


class _Layer:
    """The parts of a layer, with biases of zeros where it has none."""

    def __init__(self, layer: Any) -> None:
        self.attention: FusedAttention = layer.self_attn
        self.qkv, self.o = _Linear(layer.self_attn.qkv_proj), _Linear(layer.self_attn.o_proj)
        self.gate_up, self.down = _Linear(layer.mlp.gate_up_proj), _Linear(layer.mlp.down_proj)
        norms = layer.input_layernorm, layer.post_attention_layernorm
        self.before, self.between = (norm.weight.detach().numpy() for norm in norms)
        of_heads = [norm for norm in (self.attention.q_norm, self.attention.k_norm) if norm]
        self.norms = np.array([norm.weight.detach().numpy() for norm in of_heads], np.float32)
        self.eps = np.array([layer.input_layernorm.eps], np.float32)
        scaling = self.attention.scaling * np.log2(np.e)
        self.constants = np.array([of_heads[0].eps if of_heads else 0, scaling], np.float32)
        self.hidden_size, self.inner_size = len(self.before), self.down.linear.in_features


class _Linear:
    def __init__(self, linear: KQuantKernel) -> None:
        self.linear = linear
        self.bias = np.zeros(linear.out_features, np.float32) if linear.bias is None else linear.bias.numpy()


class _Memory:
    """What stages read and write, for a number of rows; and the stages of all layers, which know their addresses."""

    def __init__(self, layer: _Layer, num_rows: int) -> None:
        attention, hidden, inner = layer.attention, layer.hidden_size, layer.inner_size
        heads, size = attention.heads, attention.heads * attention.head_dim

        def floats(*shape: int) -> _Floats:
            return np.zeros((num_rows, *shape), np.float32)

        self.rows, self.normal, self.products = floats(hidden), floats(hidden), floats(hidden)
        self.qkv, self.gate_up = floats(layer.qkv.linear.out_features), floats(2 * inner)
        self.queries, self.attended = np.zeros((num_rows, size), np.int16), floats(size)  # and weights: of bfloat16
        self.scores, self.weights = floats(heads, KEY_BLOCK), np.zeros((num_rows, heads, KEY_BLOCK), np.int16)
        self.peaks = floats(heads, 2)
        self.rounded, self.rounded_heads, self.rounded_inner = (
            RoundedRows(num_rows, of) for of in (hidden, size, inner)
        )
        self.places, self.groups = np.zeros((num_rows, 2), np.int64), np.zeros((num_rows, 2), np.int64)

    def group(self, num_rows: int, together: int) -> int:
        """Group so many neighbouring rows at neighbouring positions of a slot, and return the number of groups."""
        places = self.places[:num_rows]
        joins = (np.diff(places, axis=0) == [0, 1]).all(1)
        starts = np.flatnonzero(np.concatenate([[True], ~joins, [True]]))  # of runs, and the end
        firsts = np.concatenate([np.arange(*its, together) for its in pairwise(starts)])
        self.groups[: len(firsts), 0] = firsts
        self.groups[: len(firsts), 1] = np.diff(np.append(firsts, num_rows))
        return len(firsts)

    def stages(self, layers: Sequence[_Layer], cache: SlotCache) -> list[Stage]:
        """Return the stages of all layers."""
        stages: list[Stage] = []
        added: Stage = {}
        for layer in layers:
            stages += [self._norm(layer.before, layer.eps, added), *layer.qkv.linear.stages(self.rounded, self.qkv)]
            stages += [*self._attention(layer, cache), *layer.o.linear.stages(self.rounded_heads, self.products)]
            stages.append(self._norm(layer.between, layer.eps, self._added(layer.o)))
            stages += layer.gate_up.linear.stages(self.rounded, self.gate_up)
            gate: Stage = {
                Gate.SIZE: layer.inner_size,
                Gate.PRODUCTS: _at(self.gate_up),
                Gate.BIAS: _at(layer.gate_up.bias),
            }
            stages.append({KIND: Kind.GATE, **gate, **self.rounded_inner.numbers})
            stages += layer.down.linear.stages(self.rounded_inner, self.products)
            added = self._added(layer.down)
        return [*stages, {KIND: Kind.NORM, Norm.SIZE: self.rows.shape[1], Norm.ROWS: _at(self.rows), **added}]

    def _norm(self, weight: _Floats, eps: _Floats, added: Stage) -> Stage:
        places: Stage = {
            Norm.ROWS: _at(self.rows),
            Norm.WEIGHT: _at(weight),
            Norm.EPS: _at(eps),
            Norm.NORMAL: _at(self.normal),
        }
        return {KIND: Kind.NORM, Norm.SIZE: len(weight), **added, **places, **self.rounded.numbers}

    def _added(self, linear: _Linear) -> Stage:
        return {Norm.PRODUCTS: _at(self.products), Norm.BIAS: _at(linear.bias)}

    def _attention(self, layer: _Layer, cache: SlotCache) -> list[Stage]:
        attention = layer.attention
        sizes = attention.kv_heads, attention.head_dim
        keys, values = cache.layers[attention.layer_idx].tensors(*sizes, dtype=torch.bfloat16)
        common: Stage = {
            Rotate.HEADS: attention.heads,
            Rotate.KV_HEADS: attention.kv_heads,
            Rotate.HEAD_DIM: attention.head_dim,
            Rotate.MAX_LENGTH: keys.shape[2],
            Rotate.KEYS: keys.data_ptr(),
            Rotate.VALUES: values.data_ptr(),
            Rotate.QUERIES: _at(self.queries),
            Rotate.PLACES: _at(self.places),
        }
        rotated: Stage = {
            Rotate.PRODUCTS: _at(self.qkv),
            Rotate.BIAS: _at(layer.qkv.bias),
            Rotate.NORMS: _at(layer.norms) if len(layer.norms) else 0,
            Rotate.CONSTANTS: _at(layer.constants),
        }
        attended: Stage = {
            Attend.GROUPS: _at(self.groups),
            Attend.SCORES: _at(self.scores),
            Attend.WEIGHTS: _at(self.weights),
            Attend.PEAKS: _at(self.peaks),
            Attend.SUMS: _at(self.attended),
        }
        rounded: Stage = {Norm.SIZE: self.attended.shape[1], Norm.ROWS: _at(self.attended)}
        return [
            {KIND: Kind.ROTATE, **common, **rotated},
            {KIND: Kind.ATTEND, **common, **attended},
            {KIND: Kind.ROUND, **rounded, **self.rounded_heads.numbers},
        ]


def _at(array: NDArray[Any]) -> int:
    return int(array.ctypes.data)
