"""A random pair of real sizes: few layers, but each as wide as those of Qwen2.5 1.5B."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

VOCABULARY = 151_936
SPREAD = 3.0  # standard deviation of the logits
WRITTEN = 3.0  # by each layer, to outweigh the embedding: otherwise the likeliest token would be the last one again
EFFECT = 0.25  # of the layer that only the target has; tunes the acceptance rate
SHARPNESS = 2.0  # of attention, as in the toy pair


def make_pair(folder: Path, tokenizer: Path) -> tuple[Path, Path]:
    """Write a target of two layers, and a draft that is the first of them, with the tokenizer of another folder."""
    weights = _weights()
    halves = folder / "target", folder / "draft"
    for half, num_layers in zip(halves, (2, 1), strict=True):
        config = _config(num_layers)
        config.save_pretrained(half)
        own = {name: tensor for name, tensor in weights.items() if num_layers == 2 or ".layers.1." not in name}
        save_file(own, half / "model.safetensors", metadata={"format": "pt"})
        AutoTokenizer.from_pretrained(tokenizer).save_pretrained(half)
    return halves


def _config(num_layers: int) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=num_layers,
        num_attention_heads=12,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        architectures=["Qwen2ForCausalLM"],
        dtype="bfloat16",
    )


def _weights() -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        shapes = Qwen2ForCausalLM(_config(2)).state_dict()
    del shapes["lm_head.weight"]  # tied to the embedding
    generator = torch.Generator().manual_seed(0)
    weights = {name: _draw(name, like.shape, generator) for name, like in sorted(shapes.items())}
    weights["model.embed_tokens.weight"] *= SPREAD
    for name, weight in weights.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.mul_(WRITTEN * (EFFECT if ".layers.1." in name else 1))
        if name.endswith("q_proj.weight"):
            weight.mul_(SHARPNESS)
    return weights


def _draw(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Draw a matrix whose products keep the scale of their inputs; norms are 1, and biases 0."""
    if len(shape) == 1:
        return torch.full(shape, float("norm" in name), dtype=torch.bfloat16)
    weight = torch.empty(shape, dtype=torch.bfloat16)
    for rows in torch.split(weight, 4096):
        rows.copy_(torch.randn(rows.shape, generator=generator) * shape[-1] ** -0.5)
    return weight
