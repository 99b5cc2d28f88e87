"""What the start's proofs find, and that what they leave keeps a row's bits."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import AutoModelForCausalLM

from shared.model.devices.cpu import attention
from shared.model.devices.cpu.exactness import agreement as exactness
from shared.model.devices.cpu.exactness.agreement import COUNTS, agreeing_counts, cancelling_rows, inexact_attention
from shared.model.devices.cpu.exactness.proof import prove
from shared.model.devices.cpu.kernels.kernel_linear import KernelLinear
from shared.model.devices.cpu.kernels.kernels import Kernel
from shared.model.devices.cpu.kernels.row_counts import ANY_COUNT, RowCounts
from shared.model.devices.cpu.kernels.torch_linear import TorchLinear
from shared.model.devices.cpu.rotary_table import RotaryTable
from shared.model.devices.cpu.row_groups import RowGroups, group_sizes
from shared.model.loading.load_runner import load_runner
from shared.model.loading.probes import inexact_pass
from shared.model.runner import Rows, Runner, RunnerWrapper, Segment


def nudged(y: torch.Tensor) -> torch.Tensor:
    """Return what a sum in another order gives: here and there the next number."""
    other = y.clone()
    other.view(-1)[::97] = torch.nextafter(other, torch.tensor(torch.inf, dtype=y.dtype)).view(-1)[::97]
    return other


class ByRow(TorchLinear):
    """A product that is exact on any machine: one row after the other."""

    def multiply(self, rows: torch.Tensor) -> torch.Tensor:
        """Multiply each by itself."""
        return torch.cat([functional.linear(row[None], self.weight, self.bias) for row in rows])


class InexactAbove16(ByRow):
    """Planted: other bits above 16 rows."""

    def multiply(self, rows: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        y = super().multiply(rows)
        return nudged(y) if len(rows) > 16 else y


class InexactIfLarge(ByRow):
    """Planted: other bits from 5 rows on in layers of more than 64 inputs, and none anywhere else."""

    def multiply(self, rows: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        y = super().multiply(rows)
        return nudged(y) if len(rows) > 12 and self.in_features > 64 else y


class InexactByPlace(ByRow):
    """Planted: the last row of a product has other bits."""

    def multiply(self, rows: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        y = super().multiply(rows)
        return torch.cat([y[:-1], nudged(y[-1:])])


def planted(linear: type[KernelLinear]) -> Kernel:
    """Return a kernel of this layer."""
    return Kernel(linear.__name__, linear, torch.float32, torch.float32)


@pytest.fixture
def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep no result."""
    monkeypatch.setenv("OUTRIDER_CACHE", str(tmp_path))


@pytest.mark.usefixtures("no_cache")
@pytest.mark.parametrize(("linear", "most"), [(ByRow, 512), (InexactAbove16, 16), (InexactIfLarge, 12)])
def test_the_proof_finds_a_planted_layer(toy: tuple[Path, Path], linear: type[KernelLinear], most: int) -> None:
    """Row counts at which a layer has other bits are not run in layers of its size."""
    model = AutoModelForCausalLM.from_pretrained(toy[0], dtype=torch.float32)
    proof = prove(model, [planted(linear)], 256)
    assert not proof.problem
    counts = proof.of_layers["128 to 64"]
    assert counts.counts == tuple(count for count in COUNTS if count <= most)
    assert max(proof.of_layers["64 to 64"].counts) == (512 if linear is InexactIfLarge else most)


@pytest.mark.usefixtures("no_cache")
def test_the_next_kernel_is_taken(toy: tuple[Path, Path]) -> None:
    """A kernel that is exact for no row count is left; where no other one is, the proof says so."""
    model = AutoModelForCausalLM.from_pretrained(toy[0], dtype=torch.float32)
    assert prove(model, [planted(InexactByPlace), planted(ByRow)], 256).kernel.name == "ByRow"
    assert "InexactByPlace: a layer of 64 to " in prove(model, [planted(InexactByPlace)], 256).problem


@pytest.mark.usefixtures("no_cache")
def test_blocks_keep_the_bits_of_a_planted_layer(toy: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """With a layer that is inexact above 16 rows, a pass of 100 gives what passes of one give."""
    monkeypatch.setattr("shared.model.loading.load_runner.kernel_order", lambda *_: [planted(InexactAbove16)])
    runner = load_runner(toy[0], "float32", 2, 256)
    tokens = [7 * i % 400 for i in range(100)]
    [together] = runner.extend([Segment(0, 0, tokens, 100)])
    alone = torch.cat([runner.extend([Segment(1, i, [token], 1)])[0].logits for i, token in enumerate(tokens)])
    assert torch.equal(together.logits, alone)


def test_a_cancelling_sum_shows_its_rounding() -> None:
    """A sum of bfloat16 in another order shows in nearly every row, where random rows show nearly nothing."""
    torch.manual_seed(0)
    weight = torch.randn(256, 1536).bfloat16()
    differing = {}
    for name, rows in (("cancelling", cancelling_rows(weight, None, 64)), ("random", torch.randn(64, 1536))):
        x = rows.bfloat16().float()
        order = torch.randperm(1536)
        one, other = (x @ weight.float().T).bfloat16(), (x[:, order] @ weight.float()[:, order].T).bfloat16()
        differing[name] = float((one != other).float().mean())
    assert differing["cancelling"] > 0.02 > 10 * differing["random"]


def test_attention_that_depends_on_its_blocks_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted attention whose bits depend on the number of blocks, or on a row's place in its block."""
    attend = functional.scaled_dot_product_attention
    assert not inexact_attention(4, 2, 16, 512, torch.float32)

    def by_blocks(query: torch.Tensor, *args: torch.Tensor, **options: torch.Tensor) -> torch.Tensor:
        y = attend(query, *args, **options)  # type: ignore[arg-type]  # whatever it takes
        return nudged(y) if len(query) > 6 else y

    def by_place(query: torch.Tensor, *args: torch.Tensor, **options: torch.Tensor) -> torch.Tensor:
        y = attend(query, *args, **options)  # type: ignore[arg-type]  # likewise
        y[:, :, -1:] = nudged(y[:, :, -1:])
        return y

    for plant in (by_blocks, by_place):
        monkeypatch.setattr(attention, "scaled_dot_product_attention", plant)
        assert "attention to 64 keys" in inexact_attention(4, 2, 16, 512, torch.float32)


class LooksAtThePass(RunnerWrapper):
    """A runner whose logits change when a pass reaches far, as those of a model with `longrope` would."""

    def __init__(self, runner: Runner, far: int) -> None:
        """Change them from this position on."""
        super().__init__(runner, runner.device)
        self._far = far

    def extend(self, segments: Sequence[Segment]) -> list[Rows]:
        """Run, and change all rows of a pass that has a far one."""
        results = self.runner.extend(segments)
        if max(segment.start + len(segment.token_ids) for segment in segments) <= self._far:
            return results
        return [Rows([nudged(rows.logits)]) for rows in results]


@pytest.mark.parametrize("max_length", [40, 80, 300])
def test_a_model_that_looks_at_the_whole_pass_is_found(toy: tuple[Path, Path], max_length: int) -> None:
    """A session far away in the same pass is part of the trial, at any length."""
    runner = load_runner(toy[0], "bfloat16", 2, max_length)
    assert inexact_pass(runner, 576)[0] == ""
    looking = LooksAtThePass(runner, max_length - 1)
    assert "beside" in inexact_pass(looking, 576)[0]


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Set the number of threads for the length of a test."""
    number = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(number)


@pytest.mark.parametrize("num_threads", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("width", [8960, 4864, 14336, 128])
def test_activations_have_the_bits_of_a_row_alone(threads: Callable[[int], None], num_threads: int, width: int) -> None:
    """SiLU in float32, of the half of a joined product as the model has it, for 1 to 64 rows."""
    threads(num_threads)
    x = torch.randn(1, 64, 2 * width, generator=torch.Generator().manual_seed(0))
    activate = RowGroups(nn.SiLU())
    alone = torch.cat([functional.silu(row[:, :width]) for row in x[0].split(1)])  # type: ignore[no-untyped-call]
    for num_rows in range(1, 65):
        assert torch.equal(activate(x[:, :num_rows].chunk(2, -1)[0])[0], alone[:num_rows])


def test_groups_are_few() -> None:
    """Where torch parts rows between whole vectors anyway they run at once; else in two groups or three."""
    assert group_sizes(64, 8960, 2) == [64]
    assert group_sizes(8, 8960, 3) == [7, 1]
    assert max(len(group_sizes(rows, 8960, 16)) for rows in range(1, 129)) <= 3


def test_the_rotary_table_is_the_embedding(toy: tuple[Path, Path]) -> None:
    """A position has the bits that the embedding gives it, whatever else is in the pass."""
    embedding = AutoModelForCausalLM.from_pretrained(toy[0], dtype=torch.float32).model.rotary_emb
    table = RotaryTable(embedding, 500, torch.float32)
    positions = torch.tensor([[3, 499, 64, 65]])
    for ours, theirs in zip(table(torch.empty(0), positions), embedding(torch.ones(1), positions), strict=True):
        assert torch.equal(ours, theirs)


def test_blocks_of_rows() -> None:
    """As many of the largest as fit, then the rest, padded."""
    counts = RowCounts([2, 3, 4, 8, 16, 32])
    assert [counts.blocks(n) for n in (1, 4, 5, 32, 33, 72)] == [[2], [4], [8], [32], [32, 2], [32, 32, 8]]
    assert [counts.pad(n) for n in (1, 5, 33)] == [2, 8, 34]
    assert ANY_COUNT.blocks(1) == [1]


def test_a_layer_pads_by_itself() -> None:
    """Rows in a number that is not allowed give the rows that they give in one that is."""
    torch.manual_seed(0)
    layer = ByRow(nn.Linear(16, 24))
    x = torch.randn(2, 5, 16)
    expected = layer(x)
    layer.counts = RowCounts([4, 8])
    assert torch.equal(layer(x), expected)
    assert layer(x).shape == (2, 5, 24)


def test_every_count_is_tried_at_another_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference is of blocks, so a product whose last row is odd agrees with none."""
    torch.manual_seed(0)
    linear = nn.Linear(32, 48)
    x = torch.randn(80, 32)
    assert agreeing_counts(ByRow(linear), x, range(1, 65)) == list(range(1, 65))
    assert exactness.REFERENCE_ROWS not in agreeing_counts(InexactByPlace(linear), x, range(1, 65))
    monkeypatch.setattr(exactness, "REFERENCE_ROWS", 4)
    assert agreeing_counts(InexactAbove16(linear), x, range(1, 65)) == list(range(1, 17))
