"""Runs a model over the slots with a fixed set of graphs."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import torch
from typing_extensions import override

from shared.model.devices.static.draw_in_graph import DrawInputs
from shared.model.devices.static.graph_choice import GraphChoice
from shared.model.devices.static.graphs import GraphKey, Graphs
from shared.model.runner import Rows, Runner, Segment
from shared.model.sampling.noise import row_key

Result = tuple[torch.Tensor | None, list[int]]  # of a piece: logits, [rows, V], if they are wanted, and tokens drawn


@dataclass(frozen=True)
class _Piece:
    """Consecutive rows of one segment that one call of a graph runs."""

    segment: int
    bucket: int
    rows: range  # of the segment


@dataclass(frozen=True)
class Warmed:
    """A graph that has run once."""

    key: GraphKey
    shape: tuple[int, int]
    """The number of slots, and of rows per slot."""
    seconds: float
    """The time of its first call, in which it is compiled or found in the cache."""


class StaticRunner(Runner):
    """A model and the KV cache of its sessions, with only fixed shapes, so that nothing is compiled while serving.

    A prompt's rows go through the prefill graph, one chunk of one slot at a time; the last rows before a sample go
    through a verify graph, for all slots at once. Missing rows are padding, which reads and writes scratch positions.
    Which graph computes a row depends on its position alone, except between graphs that were seen to give it the same
    bits, so that what runs beside it cannot change its bits. A pass fails if its graph would have to be recompiled.
    """

    def __init__(self, graphs: Graphs, device: str, choice: GraphChoice | None = None) -> None:
        """Compile the graphs of the choice and run each once; `device` is the device's name.

        Without a choice only the widest verify graphs run; `start_checks.choose` finds out what else may.
        """
        self.graphs, self.sizes, self.device = graphs, graphs.sizes, device
        self.kernel, self.quant, self.inexact = device, "none", ""
        self.model, self.num_slots, self.max_length = graphs.model, graphs.sizes.num_slots, graphs.sizes.max_length
        self.vocab_size: int = graphs.model.config.get_text_config().vocab_size
        self.choice = choice or GraphChoice.widest(self.sizes)
        self.warmed: list[Warmed] = []
        for key in filter(self.choice.uses, self.sizes.keys):
            self.warm(key)

    @override
    @torch.no_grad()
    def extend(self, segments: Sequence[Segment]) -> list[Rows]:
        waves: dict[tuple[int, int], list[_Piece]] = defaultdict(list)
        with torch.compiler.set_stance("fail_on_recompile"):
            for index, segment in enumerate(segments):
                num_rows, verify_rows = len(segment.token_ids), self.sizes.verify_rows
                last = max(segment.num_logits, min(num_rows, verify_rows)) if segment.num_logits else 0
                prefilled = num_rows - last if self.choice.wide_prefill else 0
                for piece in self._pieces(index, segment, range(prefilled), self.sizes.prefill_rows):
                    self._prefill(segment, piece)
                verified = range(prefilled, num_rows)
                for turn, piece in enumerate(self._pieces(index, segment, verified, verify_rows)):
                    waves[turn, 0 if self.choice.larger_buckets else piece.bucket].append(piece)
            results: list[list[Result]] = [[] for _ in segments]
            for _, pieces in sorted(waves.items()):
                for piece, result in zip(pieces, self._verify(segments, pieces), strict=True):
                    results[piece.segment].append(result)
        return [
            _wanted(segment, result, drawn=self._draws(segment))
            for segment, result in zip(segments, results, strict=True)
        ]

    @override
    def copy(self, source: int, slot: int, num_tokens: int) -> bool:
        return False  # it would be one more graph

    @override
    @torch.no_grad()
    def clear(self, slot: int) -> None:
        for states in self.graphs.cache.tensors:
            states[slot] = 0

    def _pieces(self, index: int, segment: Segment, rows: range, max_rows: int) -> Iterator[_Piece]:
        """Split rows where a bucket ends, and into pieces of at most `max_rows`."""
        while rows:
            bucket = self.sizes.bucket(segment.start + rows[0])
            piece = rows[: min(max_rows, bucket - segment.start - rows[0])]
            yield _Piece(index, bucket, piece)
            rows = rows[len(piece) :]

    def _prefill(self, segment: Segment, piece: _Piece) -> None:
        slots = torch.tensor([segment.slot], dtype=torch.int32)
        token_ids, positions = self._padding(self.sizes.prefill(piece.bucket))
        self._fill(token_ids[0], positions[0], segment, piece.rows)
        device = self.graphs.device
        self.graphs.prefill(piece.bucket, slots.to(device), token_ids.to(device), positions.to(device))

    def _verify(self, segments: Sequence[Segment], pieces: Sequence[_Piece]) -> Iterator[Result]:
        """Run one piece for each of some slots; yields each piece's logits, [rows, V], and drawn tokens."""
        most = max(len(piece.rows) for piece in pieces)
        num_rows = next(count for count in self.choice.row_counts if count >= most)
        key = GraphKey("verify", num_rows, max(piece.bucket for piece in pieces))
        token_ids, positions = self._padding(key)
        draw = DrawInputs.greedy(*token_ids.shape)
        for piece in pieces:
            segment = segments[piece.segment]
            self._fill(token_ids[segment.slot], positions[segment.slot], segment, piece.rows)
            if segment.draw and not segment.draw.greedy:
                draw.temperature[segment.slot] = segment.draw.temperature
                draw.floor[segment.slot] = math.log(segment.draw.min_p) if segment.draw.min_p else -math.inf
                keys = [row_key(segment.draw.seed, segment.start + row + 1) for row in piece.rows]
                draw.noise_keys[segment.slot, : len(keys)] = torch.tensor(keys, dtype=torch.int32)
        device = self.graphs.device
        wanted = [segment for piece in pieces if (segment := segments[piece.segment]).num_logits]
        drawn, logits = self.graphs.verify(
            key,
            token_ids.to(device),
            positions.to(device),
            draw.to(device),
            want_logits=any(segment.wants_logits or not self._draws(segment) for segment in wanted),
        )
        drawn_ids = drawn.tolist()
        for piece in pieces:
            slot, num_rows = segments[piece.segment].slot, len(piece.rows)
            yield None if logits is None else logits[slot, :num_rows], drawn_ids[slot][:num_rows]

    def _draws(self, segment: Segment) -> bool:
        return segment.draw is not None and self.choice.draws_in_graph(segment.draw)

    def _padding(self, key: GraphKey) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens and positions that make all of a graph's rows padding, in scratch positions. [B, T] int32."""
        num_slots, num_rows = self.sizes.shape(key)
        scratch = torch.arange(self.max_length, self.max_length + num_rows, dtype=torch.int32)
        return torch.zeros(num_slots, num_rows, dtype=torch.int32), scratch.repeat(num_slots, 1)

    @staticmethod
    def _fill(token_ids: torch.Tensor, positions: torch.Tensor, segment: Segment, rows: range) -> None:
        token_ids[: len(rows)] = torch.tensor(segment.token_ids[rows.start : rows.stop], dtype=torch.int32)
        positions[: len(rows)] = torch.arange(rows.start, rows.stop, dtype=torch.int32) + segment.start

    @torch.no_grad()
    def warm(self, key: GraphKey) -> None:
        """Compile a graph, if it is not yet, by running it over padding."""
        if any(warmed.key == key for warmed in self.warmed):
            return
        started = perf_counter()
        device = self.graphs.device
        token_ids, positions = (tensor.to(device) for tensor in self._padding(key))
        if key.kind == "prefill":
            self.graphs.prefill(key.num_keys, torch.zeros(1, dtype=torch.int32).to(device), token_ids, positions)
        else:
            draw = DrawInputs.greedy(*token_ids.shape).to(device)
            self.graphs.verify(key, token_ids, positions, draw)[0].cpu()
        self.warmed.append(Warmed(key, self.sizes.shape(key), perf_counter() - started))


def _wanted(segment: Segment, results: Sequence[Result], *, drawn: bool) -> Rows:
    """Join the wanted rows of a segment, its last ones."""
    before = sum(len(ids) for _, ids in results) - segment.num_logits  # how many rows come before the wanted ones
    pieces: list[torch.Tensor] = []
    drawn_ids: list[int] = []
    for logits, ids in results:
        if logits is not None and before < len(ids):
            pieces.append(logits[max(0, before) :])
        drawn_ids += ids[max(0, before) :]
        before -= len(ids)
    return Rows(pieces, drawn_ids if drawn else None)
