"""Layers that are split between ranks, and how their results are combined.

Tensor parallelism as in Megatron-LM (arXiv 1909.08053). transformers knows how to split each layer of a model, and
loads the parts; the layers that compute are our own, so that a part can be packed or compiled like a whole layer.
"""

from collections.abc import Callable
from functools import reduce

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel
from transformers.distributed.parallel_utils import replace_layer_number_by_wildcard

from shared.errors import ModelError
from shared.model.distributed.ranks import num_ranks, rank


class SummedLinear(nn.Module):
    """A linear layer split by inputs; the ranks' results are summed."""

    def __init__(self, linear: nn.Linear) -> None:
        """Take this rank's part, and the whole bias."""
        super().__init__()
        self.linear, self.bias = linear, linear.bias
        linear.register_parameter("bias", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply. x: [..., in / ranks]; returns [..., out]."""
        y = _summed(self.linear(x))
        return y if self.bias is None else y + self.bias


class GatheredLinear(nn.Module):
    """A linear layer split by outputs; every rank gathers all of them."""

    def __init__(self, linear: nn.Linear) -> None:
        """Take this rank's part."""
        super().__init__()
        self.linear = linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply. x: [..., in]; returns [..., out]."""
        return torch.cat(_gathered(self.linear(x)), -1)


class SummedEmbedding(nn.Module):
    """Token embeddings split by vocabulary; the ranks' results are summed."""

    def __init__(self, embedding: nn.Embedding) -> None:
        """Take this rank's part."""
        super().__init__()
        self.weight = embedding.weight  # [vocabulary / ranks, hidden]
        self._first = rank() * self.weight.shape[0]

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Look up. token_ids: [..., rows]; returns [..., rows, hidden]."""
        places = token_ids - self._first
        last = self.weight.shape[0] - 1
        elsewhere = (places < 0) | (places > last)
        embedded = functional.embedding(places.clamp(0, last), self.weight)
        return _summed(embedded.masked_fill(elsewhere[..., None], 0))


def check_parts(config: PretrainedConfig) -> None:
    """Raise ModelError if the model cannot be split evenly."""
    text = config.get_text_config()
    if not text.base_model_tp_plan:
        raise ModelError(f"{config.model_type}: transformers does not know how to part it")
    for what in ("num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size"):
        size = getattr(text, what, 0)
        if size % num_ranks():
            raise ModelError(f"{config.model_type}: {what} {size} does not divide by {num_ranks()} ranks")


def num_weights(model: PreTrainedModel) -> int:
    """Return how many weights of the whole model this rank has."""
    parted = {name for name, module in model.named_modules() if _style(model, name) in {"colwise", *JOINED}}
    return sum(
        parameter.numel() // (num_ranks() if name.rpartition(".")[0] in parted else 1)
        for name, parameter in model.named_parameters()
    )


def take_parts(model: PreTrainedModel) -> None:
    """Replace the layers that transformers has split. Raises ModelError for an unknown way of splitting."""
    for name, module in list(model.named_modules()):
        style = _style(model, name)
        if style:
            del module.forward  # transformers' wrapper around the class's forward
            _localize(module)
        if style in JOINED:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, JOINED[style](module))
        elif style not in {None, *LEFT_APART}:
            raise ModelError(f"{model.config.model_type}: tensor parallelism by {style} of {name}: not supported")
    parted = [name for name, parameter in model.named_parameters() if isinstance(parameter, DTensor)]
    if parted:
        raise ModelError(f"{model.config.model_type}: tensor parallelism of {parted[0]}: not supported")


def _style(model: PreTrainedModel, module: str) -> str | None:
    style: str | None = model.tp_plan.get(replace_layer_number_by_wildcard(module))
    return style


def _localize(module: nn.Module) -> None:
    for name, parameter in list(module.named_parameters(recurse=False)):
        if isinstance(parameter, DTensor):
            setattr(module, name, nn.Parameter(parameter.to_local().contiguous(), requires_grad=False))
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape


def _gathered(part: torch.Tensor) -> tuple[torch.Tensor, ...]:
    parts = part.new_empty(num_ranks() * part.shape[0], *part.shape[1:])
    dist.all_gather_single(parts, part.contiguous())
    return parts.chunk(num_ranks())


def _summed(part: torch.Tensor) -> torch.Tensor:
    """Add the parts in rank order: in a reduction, a row's bits may depend on its place in the tensor."""
    return reduce(torch.add, _gathered(part))


JOINED: dict[str | None, Callable[..., nn.Module]] = {  # by transformers' names for the ways to split a layer
    "rowwise": SummedLinear,
    "colwise_gather_output": GatheredLinear,
    "embedding_rowwise": SummedEmbedding,
}
LEFT_APART = ("colwise", "replicated_with_grad_allreduce")
