"""Decoding as a plain loop, sharing no code with the services: what their output is compared with."""

import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForCausalLM

from shared.sampling_params import SamplingParams

Logits = npt.NDArray[np.float32]
MASK = np.uint64(0xFFFFFFFF)


def noise(size: int, seed: int, position: int) -> Logits:
    """Gumbel noise of all tokens at a position, [size], in unsigned arithmetic of twice the width."""
    key = hashlib.blake2b(struct.pack("<qq", seed, position), digest_size=8, person=b"outrider").digest()
    words = np.arange(size, dtype=np.uint64)
    for word in struct.unpack("<II", key):
        words = words ^ np.uint64(word)
        words = ((words ^ (words >> np.uint64(16))) * np.uint64(0x21F0AAAD)) & MASK
        words = ((words ^ (words >> np.uint64(15))) * np.uint64(0x735A2D97)) & MASK
        words = words ^ (words >> np.uint64(15))
    uniform = ((words & np.uint64(0x7FFFFFFF)).astype(np.float32) + np.float32(0.5)) * np.float32(2**-31)
    result: Logits = -np.log(-np.log1p(-np.minimum(uniform, np.float32(1 - 2**-24))))
    return result


def sample(logits: Logits, params: SamplingParams, position: int) -> int:
    """Temperature, then top-k, then top-p, then the greatest of logit plus noise."""
    if params.temperature == 0:
        return int(logits.argmax())
    scores = logits / np.float32(params.temperature)
    order = np.argsort(-scores, kind="stable")
    if params.top_k:
        order = order[: params.top_k]
    if params.top_p < 1:
        probabilities = np.exp(scores[order] - scores[order].max())
        before = np.cumsum(probabilities) - probabilities
        order = order[before < params.top_p * probabilities.sum()]
    return int(order[(scores[order] + noise(len(logits), params.seed, position)[order]).argmax()])


class Reference:
    """A model of transformers, run whole for each token."""

    def __init__(self, folder: Path) -> None:
        """Open the folder in float32."""
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def decode(self, prompt: Sequence[int], params: SamplingParams, max_tokens: int) -> list[int]:
        """Return the tokens after the prompt."""
        ids, past = list(prompt), None
        for _ in range(max_tokens):
            fed = ids if past is None else ids[-1:]
            output = self.model(torch.tensor([fed]), past_key_values=past, use_cache=True)
            past = output.past_key_values
            ids.append(sample(output.logits[0, -1].float().numpy(), params, len(ids)))
            if ids[-1] in params.stop_token_ids:
                break
        return ids[len(prompt) :]
