"""Mixtures of experts, computed so that a row's bits do not depend on which other rows chose the same expert.

transformers groups the rows of a pass by expert, so the number of rows in a product, and with it a row's rounding,
depends on the whole pass. Here every product of an expert, or of the router before it, has exactly BLOCK_ROWS rows.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from shared.errors import ModelError

BLOCK_ROWS = 8  # rows in every product of an expert or a router


def use_blocks(model: PreTrainedModel) -> bool:
    """Make the model's experts and routers compute in blocks, with the same weights. Return whether it has any.

    Raises ModelError for experts that are not gated, or that have biases or norms.
    """
    mixtures = [parent for parent in model.modules() if _is_experts(getattr(parent, "experts", None))]
    for mixture in mixtures:
        experts = mixture.experts
        if experts.is_transposed or experts.has_bias or not experts.has_gate or experts.has_post_expert_norm:
            raise ModelError(f"{model.config.model_type}: its experts are of another kind than ours")
        experts.forward = partial(_experts_in_blocks, experts)
        for router in mixture.children():
            weight = router._parameters.get("weight")  # noqa: SLF001 - its own, not a submodule's
            if weight is not None and weight.ndim == 2 and not isinstance(router, nn.Linear):
                router.forward = partial(_router_in_blocks, router.forward)
    return bool(mixtures)


def _is_experts(module: Any) -> bool:
    """Recognize transformers' experts, which keep all weights in one tensor: [experts, out, in]."""
    return isinstance(module, nn.Module) and hasattr(module, "is_transposed") and hasattr(module, "down_proj")


def _experts_in_blocks(
    experts: Any,
    hidden_states: torch.Tensor,  # [rows, hidden]
    top_k_index: torch.Tensor,  # [rows, k] int64
    top_k_weights: torch.Tensor,  # [rows, k]
) -> torch.Tensor:
    """Run each row through its k experts and add up their weighted results. Returns [rows, hidden]."""
    said = hidden_states.new_zeros(*top_k_index.shape, hidden_states.shape[-1])  # [rows, k, hidden]
    for expert in torch.unique(top_k_index).tolist():
        rows, places = (top_k_index == expert).nonzero(as_tuple=True)
        compute = partial(_expert, experts, expert)
        said[rows, places] = torch.cat(_blocks(compute, hidden_states[rows]))[: len(rows)]
    weighted = (said * top_k_weights[..., None]).float()
    total = weighted[:, 0]
    for place in range(1, weighted.shape[1]):  # one by one: `sum` would choose its own order
        total = total + weighted[:, place]
    return total.to(hidden_states.dtype)


def _expert(experts: Any, expert: int, block: torch.Tensor) -> torch.Tensor:
    """Run a block through one expert. block: [BLOCK_ROWS, hidden]; returns the same shape."""
    gated = experts._apply_gate(functional.linear(block, experts.gate_up_proj[expert]))  # noqa: SLF001 - transformers' own
    return functional.linear(gated, experts.down_proj[expert])


def _router_in_blocks(route: Callable[..., Any], hidden_states: torch.Tensor, *rest: Any) -> Any:
    """Route. hidden_states: [..., hidden]; returns the router's result: one tensor or several, [rows, ...] each."""
    rows = hidden_states.reshape(-1, hidden_states.shape[-1])
    routed = _blocks(lambda block: route(block, *rest), rows)
    if isinstance(routed[0], torch.Tensor):
        return torch.cat(routed)[: len(rows)]
    return tuple(torch.cat(parts)[: len(rows)] for parts in zip(*routed, strict=True))


def _blocks(compute: Callable[[torch.Tensor], Any], rows: torch.Tensor) -> list[Any]:
    """Compute rows in blocks of BLOCK_ROWS, padding the last block with zeros. rows: [rows, hidden]."""
    filled = functional.pad(rows, (0, 0, 0, -len(rows) % BLOCK_ROWS))
    return [compute(block) for block in torch.split(filled, BLOCK_ROWS)]
