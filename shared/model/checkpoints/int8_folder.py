"""A model with weights of 8 bits as a Hugging Face folder: half the size of bfloat16."""

from pathlib import Path

import structlog
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from shared.model.checkpoints.rounded_models import round_model
from shared.model.checkpoints.supported import refusing, served_config

log = structlog.get_logger()

WEIGHTS = "model.safetensors"


def convert_int8(source: Path, folder: Path) -> None:
    """Write the Hugging Face folder `source`, its weights rounded to 8 bits, as the folder `folder`.

    Memory: that of the weights in bfloat16, and half of it again. Raises ModelError.
    """
    log.info("rounding the weights to 8 bits, once", model=str(source))
    with refusing(served_config(source).model_type, "its weights cannot be rounded"):
        save_int8(AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16), folder)
        AutoTokenizer.from_pretrained(source).save_pretrained(folder)


def save_int8(model: PreTrainedModel, folder: Path) -> None:
    """Round a model's weights to 8 bits and write it; the model itself is used up."""
    head = model.get_output_embeddings()
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)  # no longer the embeddings'
    with torch.inference_mode():
        round_model(model)
    save_weights(model, folder)


def save_weights(model: PreTrainedModel, folder: Path) -> None:
    """Write a model with rounded weights: transformers' own would not know their layers."""
    save_file(model.state_dict(), folder / WEIGHTS, metadata={"format": "pt"})
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
