"""Runs a model over the slots with a fixed set of graphs."""

import math
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import structlog
import torch
from typing_extensions import override

from shared.model.devices.static.draw_in_graph import DrawInputs
from shared.model.devices.static.graphs import GraphKey, Graphs, Kind
from shared.model.runner import Rows, Runner, Segment
from shared.model.sampling.noise import row_key

log = structlog.get_logger()

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
    The bucket that computes a row depends only on its position, so that what runs beside it cannot change its bits.
    A pass fails if its graph would have to be recompiled.
    """

    def __init__(self, graphs: Graphs, device: str, *, alone: bool | None = None) -> None:
        """Compile every graph and run it once; `device` is the device's name.

        `alone` says whether passes of one row per session use the graph for one row. None tries it out: use that graph
        if it gives a row the same bits as the verify graph.
        """
        self._graphs, self.sizes, self.device = graphs, graphs.sizes, device
        self.kernel, self.quant, self.inexact = device, "none", ""
        self.model, self.num_slots, self.max_length = graphs.model, graphs.sizes.num_slots, graphs.sizes.max_length
        self.warmed = [self._warm(key) for key in self.sizes.keys]
        self._alone = self._alone_is_exact() if alone is None else alone
        seconds = round(sum(warmed.seconds for warmed in self.warmed), 1)
        log.info("graphs are warm", device=device, graphs=len(self.warmed), seconds=seconds, row_graphs=self._alone)

    @override
    @torch.no_grad()
    def extend(self, segments: Sequence[Segment]) -> list[Rows]:
        waves: dict[tuple[int, int], list[_Piece]] = defaultdict(list)
        with torch.compiler.set_stance("fail_on_recompile"):
            for index, segment in enumerate(segments):
                num_rows, verify_rows = len(segment.token_ids), self.sizes.verify_rows
                last = max(segment.num_logits, min(num_rows, verify_rows)) if segment.num_logits else 0
                for piece in self._pieces(index, segment, range(num_rows - last), self.sizes.prefill_rows):
                    self._prefill(segment, piece)
                wanted = range(num_rows - last, num_rows)
                for turn, piece in enumerate(self._pieces(index, segment, wanted, verify_rows)):
                    waves[turn, piece.bucket].append(piece)
            results: list[list[Result]] = [[] for _ in segments]
            for (_, bucket), pieces in sorted(waves.items()):
                for piece, result in zip(pieces, self._verify(bucket, segments, pieces), strict=True):
                    results[piece.segment].append(result)
        return [_wanted(segment, result) for segment, result in zip(segments, results, strict=True)]

    @override
    def copy(self, source: int, slot: int, num_tokens: int) -> bool:
        return False  # it would be one more graph

    @override
    @torch.no_grad()
    def clear(self, slot: int) -> None:
        for states in self._graphs.cache.tensors:
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
        token_ids, positions = self._padding("prefill")
        self._fill(token_ids[0], positions[0], segment, piece.rows)
        device = self._graphs.device
        self._graphs.prefill(piece.bucket, slots.to(device), token_ids.to(device), positions.to(device))

    def _verify(self, bucket: int, segments: Sequence[Segment], pieces: Sequence[_Piece]) -> Iterator[Result]:
        """Run one piece for each of some slots; yields each piece's logits, [rows, V], and drawn tokens."""
        kind: Kind = "row" if self._alone and all(len(piece.rows) == 1 for piece in pieces) else "verify"
        token_ids, positions = self._padding(kind)
        draw = DrawInputs.greedy(*token_ids.shape)
        for piece in pieces:
            segment = segments[piece.segment]
            self._fill(token_ids[segment.slot], positions[segment.slot], segment, piece.rows)
            if segment.draw and not segment.draw.greedy:
                draw.temperature[segment.slot] = segment.draw.temperature
                draw.floor[segment.slot] = math.log(segment.draw.min_p) if segment.draw.min_p else -math.inf
                keys = [row_key(segment.draw.seed, segment.start + row + 1) for row in piece.rows]
                draw.noise_keys[segment.slot, : len(keys)] = torch.tensor(keys, dtype=torch.int32)
        device = self._graphs.device
        drawn, logits = self._graphs.verify(
            GraphKey(kind, bucket),
            token_ids.to(device),
            positions.to(device),
            draw.to(device),
            want_logits=any(segments[piece.segment].wants_logits for piece in pieces),
        )
        drawn_ids = drawn.tolist()
        for piece in pieces:
            slot, num_rows = segments[piece.segment].slot, len(piece.rows)
            yield None if logits is None else logits[slot, :num_rows], drawn_ids[slot][:num_rows]

    def _padding(self, kind: Kind) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens and positions that make all of a graph's rows padding, in scratch positions. [B, T] int32."""
        num_slots, num_rows = self.sizes.shape(kind)
        scratch = torch.arange(self.max_length, self.max_length + num_rows, dtype=torch.int32)
        return torch.zeros(num_slots, num_rows, dtype=torch.int32), scratch.repeat(num_slots, 1)

    @staticmethod
    def _fill(token_ids: torch.Tensor, positions: torch.Tensor, segment: Segment, rows: range) -> None:
        token_ids[: len(rows)] = torch.tensor(segment.token_ids[rows.start : rows.stop], dtype=torch.int32)
        positions[: len(rows)] = torch.arange(rows.start, rows.stop, dtype=torch.int32) + segment.start

    @torch.no_grad()
    def _warm(self, key: GraphKey) -> Warmed:
        started = perf_counter()
        device = self._graphs.device
        token_ids, positions = (tensor.to(device) for tensor in self._padding(key.kind))
        if key.kind == "prefill":
            self._graphs.prefill(key.num_keys, torch.zeros(1, dtype=torch.int32).to(device), token_ids, positions)
        else:
            draw = DrawInputs.greedy(*token_ids.shape).to(device)
            self._graphs.verify(key, token_ids, positions, draw)[0].cpu()
        return Warmed(key, self.sizes.shape(key.kind), perf_counter() - started)

    def _alone_is_exact(self) -> bool:
        """Return whether the graphs for one row give it the same bits as the verify ones do. Uses the first slot."""
        vocabulary = range(self.model.config.get_text_config().vocab_size)
        num_rows = self.sizes.verify_rows
        for bucket in self.sizes.buckets:
            tokens = random.Random(bucket).choices(vocabulary, k=min(bucket, 2 * num_rows))  # noqa: S311 - no secret
            self._alone = False
            verified = self.extend([Segment(0, bucket - len(tokens), tokens, num_rows)])[0].logits  # [T, V]
            self._alone = True
            for row, token in enumerate(tokens[-num_rows:]):
                alone = self.extend([Segment(0, bucket - num_rows + row, [token], 1)])[0].logits  # [1, V]
                if not torch.equal(alone[0], verified[row]):
                    return False
        return True


def _wanted(segment: Segment, results: Sequence[Result]) -> Rows:
    """Join the wanted rows of a segment, its last ones."""
    before = sum(len(ids) for _, ids in results) - segment.num_logits  # how many rows come before the wanted ones
    pieces: list[torch.Tensor] = []
    drawn: list[int] = []
    for logits, ids in results:
        if logits is not None:
            pieces.append(logits[before:] if before > 0 else logits)
        drawn += ids[max(0, before) :]
        before -= len(ids)
    return Rows(pieces, drawn if segment.draw else None)
