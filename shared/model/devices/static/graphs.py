"""The fixed set of graphs that are compiled ahead of time for a device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import torch
from transformers import PreTrainedModel

from shared.model.devices.static import static_attention
from shared.model.devices.static.draw_in_graph import DrawInputs, draw_in_graph
from shared.model.devices.static.noise_in_graph import noise_in_graph, words_in_graph
from shared.model.devices.static.static_cache import Batch, StaticCache
from shared.model.distributed.parallel_layers import share_of_head
from shared.model.settings import EngineSettings

Kind = Literal["prefill", "verify"]
Backend = str | Callable[..., object]

_ROW_COUNTS = (2, 5, 9, 17)  # k + 1 for no draft tokens (padded), 4, 8 and 16


class GraphKey(NamedTuple):
    """Identifies a graph: what it does, for how many rows of a slot, and to how many positions these attend at most."""

    kind: Kind
    num_rows: int
    num_keys: int


@dataclass(frozen=True)
class GraphSizes:
    """The shapes of the set. No graph is for one row, since neuronx-cc has misread those."""

    num_slots: int
    max_length: int
    prefill_rows: int  # of one slot
    row_counts: tuple[int, ...]  # of each slot in a verify, ascending; the last one is k+1
    buckets: tuple[int, ...]  # numbers of keys, ascending; the last one is max_length

    @property
    def verify_rows(self) -> int:
        """The most rows of a slot that a verify runs."""
        return self.row_counts[-1]

    @property
    def num_positions(self) -> int:
        """Positions in a slot: those of the sequence, then scratch ones that padding writes to and nothing reads."""
        return self.max_length + max(self.prefill_rows, self.verify_rows)

    def shape(self, key: GraphKey) -> tuple[int, int]:
        """Return B, the number of slots that a graph runs, and T, the number of rows of each."""
        return 1 if key.kind == "prefill" else self.num_slots, key.num_rows

    def bucket(self, position: int) -> int:
        """Return how many keys the row at this position is computed with, regardless of what runs beside it."""
        return next(bucket for bucket in self.buckets if position < bucket)

    def prefill(self, num_keys: int) -> GraphKey:
        """Name the prefill graph of a bucket."""
        return GraphKey("prefill", self.prefill_rows, num_keys)

    @property
    def keys(self) -> list[GraphKey]:
        """All graphs of the set."""
        return [
            key
            for bucket in self.buckets
            for key in (self.prefill(bucket), *(GraphKey("verify", rows, bucket) for rows in self.row_counts))
        ]

    @classmethod
    def of(cls, settings: EngineSettings, max_length: int) -> Self:
        """Choose buckets that double from the smallest up to max_length."""
        buckets = [settings.smallest_bucket]
        while buckets[-1] < max_length:
            buckets.append(buckets[-1] * 2)
        most = settings.max_draft_tokens + 1
        row_counts = (*(rows for rows in _ROW_COUNTS if rows < most), most)
        return cls(settings.fixed_size[0], max_length, settings.prefill_rows, row_counts, (*buckets[:-1], max_length))


def compiled(graph: Callable[..., Any], backend: Backend) -> Callable[..., Any]:
    """Return what is compiled, whole and for one set of shapes, when it is first called."""
    return torch.compile(  # type: ignore[call-overload,no-any-return]  # its types lag behind its parameters
        graph, backend=backend, fullgraph=True, dynamic=False, recompile_limit=1, isolate_recompiles=True
    )


class Graphs:
    """A model, its cache and its graphs, on one device. All shapes are fixed, and only the cache changes."""

    def __init__(self, model: PreTrainedModel, sizes: GraphSizes, device: torch.device, backend: Backend) -> None:
        """Move the model to the device and allocate the cache; a graph is compiled only when it is first called."""
        self.sizes, self.device, self.backend = sizes, device, backend
        self.model = model.to(device)
        _turn_numbers_into_tensors(model, device)
        model.set_attn_implementation(static_attention.NAME)
        self.cache = StaticCache(model.config, sizes.num_slots, sizes.num_positions, model.dtype, device)
        self._columns = torch.arange(sizes.max_length, dtype=torch.int32, device=device)
        self._slots = torch.arange(sizes.num_slots, dtype=torch.int32, device=device)
        self._kv_heads = torch.arange(self.cache.tensors[0].shape[1], dtype=torch.int32, device=device)
        self._ranks, vocabulary = share_of_head(model)
        self.vocabulary = torch.arange(vocabulary.start, vocabulary.stop, dtype=torch.int32, device=device)
        self._compiled = {key: compiled(self._graph(key), backend) for key in sizes.keys}
        self._join = {num_rows: compiled(self._ranks.joined, backend) for num_rows in sizes.row_counts if self._ranks}
        self._noise = compiled(_words_and_noise, backend)
        self._greatest = compiled(self._ranks.greatest, backend) if self._ranks else None

    def prefill(self, num_keys: int, slot: torch.Tensor, token_ids: torch.Tensor, positions: torch.Tensor) -> None:
        """Run rows of one slot just for their keys and values. slot: [1]; the others [1, prefill_rows]; all int32."""
        self._compiled[self.sizes.prefill(num_keys)](slot, token_ids, positions)

    def verify(
        self,
        key: GraphKey,
        token_ids: torch.Tensor,
        positions: torch.Tensor,
        inputs: DrawInputs,
        *,
        want_logits: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Run rows of every slot. token_ids, positions: [B, T] int32, of the graph's shape.

        Returns the tokens drawn, [B, T] int32, and the logits, [B, T, V], on the device; ranks, of which each has some
        of the vocabulary, join them only if they are wanted.
        """
        drawn, logits = self._compiled[key](token_ids, positions, inputs)
        if self._ranks:
            logits = self._join[key.num_rows](logits) if want_logits else None
        return drawn, logits

    def all_say(self, verdict: bool) -> bool:  # noqa: FBT001  # what this rank says
        """Return whether each rank says so: ranks that run different graphs would wait for one another for ever."""
        if not self._greatest:
            return verdict
        objections = torch.full((2,), float(not verdict)).to(self.device)
        return not self._greatest(objections).cpu().any()

    def noise(self, key: Sequence[int], words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the noise as graphs do, apart from a model. key: `noise.row_key`. words: [N] int32.

        Returns the words of all of the vocabulary, [V] int32, and the noise that the given words mean, [N] float32.
        """
        low, high = (torch.tensor([word], dtype=torch.int32).to(self.device) for word in key)
        drawn, noise = self._noise(self.vocabulary, low, high, words.to(self.device))
        return drawn.cpu(), noise.cpu()

    def _graph(self, key: GraphKey) -> Callable[..., Any]:
        def prefill(slot: torch.Tensor, token_ids: torch.Tensor, positions: torch.Tensor) -> None:
            batch = self._batch(slot, positions, key.num_keys, every_slot=False)
            self._run(self.model.get_decoder(), batch, token_ids)

        def verify(
            token_ids: torch.Tensor, positions: torch.Tensor, inputs: DrawInputs
        ) -> tuple[torch.Tensor, torch.Tensor]:
            batch = self._batch(self._slots, positions, key.num_keys, every_slot=True)
            logits = self._run(self.model, batch, token_ids).logits
            split = {"ranks": self._ranks} if self._ranks else {}
            return draw_in_graph(logits, self.vocabulary, inputs, **split), logits

        return prefill if key.kind == "prefill" else verify

    def _batch(self, slots: torch.Tensor, positions: torch.Tensor, num_keys: int, *, every_slot: bool) -> Batch:
        hidden = self._columns[:num_keys] > positions[:, None, :, None]  # [B, 1, T, num_keys]
        seen, unseen = (torch.full((), number, dtype=torch.float32, device=self.device) for number in (0, -torch.inf))
        mask = torch.where(hidden, unseen, seen)
        return Batch(slots, self._kv_heads, positions, every_slot, num_keys, mask)

    def _run(self, module: torch.nn.Module, batch: Batch, token_ids: torch.Tensor) -> Any:
        return module(
            input_ids=token_ids,
            position_ids=batch.positions,
            past_key_values=self.cache.over(batch),
            use_cache=True,
            batch=batch,
        )


def _words_and_noise(
    vocabulary: torch.Tensor, low: torch.Tensor, high: torch.Tensor, words: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return words_in_graph(vocabulary, low, high), noise_in_graph(words)


def _turn_numbers_into_tensors(model: PreTrainedModel, device: torch.device) -> None:
    """Keep the float attributes of transformers' modules as tensors: a graph would have Python numbers in float64."""
    tensors: dict[float, torch.Tensor] = {}
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, float) and not type(module).__module__.startswith("torch."):
                tensor = tensors.setdefault(value, torch.tensor(value, dtype=torch.float32, device=device))
                setattr(module, name, tensor)
