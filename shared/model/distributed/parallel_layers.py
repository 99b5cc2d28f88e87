"""Layers that are split between ranks, and how their results are combined.

Tensor parallelism as in Megatron-LM (arXiv 1909.08053). transformers knows how to split each layer of a model, and
loads the parts; the layers that compute are our own, so that a part can be packed or compiled like a whole layer.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel
from transformers.distributed.parallel_utils import replace_layer_number_by_wildcard

from shared.errors import ModelError
from shared.model.distributed.collective import Collective
from shared.model.distributed.kv_copies import num_copies
from shared.model.distributed.ranks import num_ranks, rank


class SummedLinear(nn.Module):
    """A linear layer split by inputs; the ranks' results are summed."""

    def __init__(self, linear: nn.Linear, collective: Collective) -> None:
        """Take this rank's part, and the whole bias."""
        super().__init__()
        self.linear, self.bias, self.collective = linear, linear.bias, collective
        linear.register_parameter("bias", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply. x: [..., in / ranks]; returns [..., out]."""
        y = self.collective.summed(self.linear(x))
        return y if self.bias is None else y + self.bias


class GatheredLinear(nn.Module):
    """A linear layer split by outputs; every rank gathers all of them."""

    def __init__(self, linear: nn.Linear, collective: Collective) -> None:
        """Take this rank's part."""
        super().__init__()
        self.linear, self.collective = linear, collective

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply. x: [..., in]; returns [..., out]."""
        return self.collective.joined(self.linear(x))


class SummedEmbedding(nn.Module):
    """Token embeddings split by vocabulary; the ranks' results are summed."""

    def __init__(self, embedding: nn.Embedding, collective: Collective) -> None:
        """Take this rank's part."""
        super().__init__()
        self.weight, self.collective = embedding.weight, collective  # [vocabulary / ranks, hidden]
        self.first: torch.Tensor  # [1] int32, this rank's first token
        first = torch.tensor([rank() * self.weight.shape[0]], dtype=torch.int32)
        self.register_buffer("first", first, persistent=False)

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Look up. token_ids: [..., rows]; returns [..., rows, hidden]."""
        places = token_ids - self.first
        last = self.weight.shape[0] - 1
        elsewhere = (places < 0) | (places > last)
        embedded = functional.embedding(places.clamp(0, last), self.weight)
        return self.collective.summed(embedded.masked_fill(elsewhere[..., None], 0))


def check_parts(config: PretrainedConfig) -> None:
    """Raise ModelError if the model cannot be split evenly."""
    text = config.get_text_config()
    if not text.base_model_tp_plan:
        raise ModelError(f"{config.model_type}: transformers does not know how to part it")
    for what in ("num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size"):
        size = getattr(text, what, 0)
        copies = num_copies(config) if what == "num_key_value_heads" else 1
        if size * copies % num_ranks():
            raise ModelError(f"{config.model_type}: {what} {size} does not divide by {num_ranks()} ranks")


def num_weights(model: PreTrainedModel) -> int:
    """Return how many weights of the whole model this rank has."""
    parted = {name for name, module in model.named_modules() if _style(model, name) in {"colwise", *JOINED}}
    return sum(
        parameter.numel() // (num_ranks() if name.rpartition(".")[0] in parted else 1)
        for name, parameter in model.named_parameters()
    )


def take_parts(model: PreTrainedModel, collective: Collective) -> None:
    """Replace the layers that transformers has split. Raises ModelError for an unknown way of splitting."""
    for name, module in list(model.named_modules()):
        style = _style(model, name)
        if style:
            del module.forward  # transformers' wrapper around the class's forward
            _localize(module)
        if style in JOINED:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, JOINED[style](module, collective))
        elif style not in {None, *LEFT_APART}:
            raise ModelError(f"{model.config.model_type}: tensor parallelism by {style} of {name}: not supported")
    parted = [name for name, parameter in model.named_parameters() if isinstance(parameter, DTensor)]
    if parted:
        raise ModelError(f"{model.config.model_type}: tensor parallelism of {parted[0]}: not supported")


def share_of_head(model: PreTrainedModel) -> tuple[Collective | None, range]:
    """Make the model return the logits of this rank's part of the vocabulary, and return who can join them, and which.

    Where every rank has the whole output layer, nobody needs to, and the part is all of it.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, GatheredLinear):
        return None, range(model.config.get_text_config().vocab_size)
    model.set_output_embeddings(head.linear)
    size = head.linear.weight.shape[0]
    return head.collective, range(rank() * size, (rank() + 1) * size)


def _style(model: PreTrainedModel, module: str) -> str | None:
    style: str | None = model.tp_plan.get(replace_layer_number_by_wildcard(module))
    return style


def _localize(module: nn.Module) -> None:
    for name, parameter in list(module.named_parameters(recurse=False)):
        if isinstance(parameter, DTensor):
            setattr(module, name, nn.Parameter(parameter.to_local().contiguous(), requires_grad=False))
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape


JOINED: dict[str | None, Callable[..., nn.Module]] = {  # by transformers' names for the ways to split a layer
    "rowwise": SummedLinear,
    "colwise_gather_output": GatheredLinear,
    "embedding_rowwise": SummedEmbedding,
}
LEFT_APART = ("colwise", "replicated_with_grad_allreduce")
