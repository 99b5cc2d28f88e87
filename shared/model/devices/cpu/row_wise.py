"""Makes all parts of a model other than its matrix products compute each row from that row alone."""

import inspect

import torch
from transformers import PreTrainedModel

from shared.model.devices.cpu.rotary_table import RotaryTable
from shared.model.devices.cpu.row_groups import RowGroups

ROTARY = "rotary_emb"  # transformers' name of the module
_ACTIVATIONS = "transformers.activations", "torch.nn.modules.activation"  # modules of their classes


def compute_by_rows(model: PreTrainedModel, num_positions: int) -> None:
    """Replace the model's rotary embeddings and activation functions with ones that always give a row the same bits."""
    dtype = model.get_input_embeddings()(torch.tensor([0])).dtype
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__module__ in _ACTIVATIONS and not isinstance(parent, RowGroups):
                setattr(parent, name, RowGroups(child))
            elif name == ROTARY and list(inspect.signature(child.forward).parameters) == ["x", "position_ids"]:
                setattr(parent, name, RotaryTable(child, num_positions, dtype))
