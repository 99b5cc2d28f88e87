"""Decoding as a plain loop that shares no code with the services: the reference for their output."""

import hashlib
import math
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
    """Gumbel noise for all tokens at a position, [size], in unsigned arithmetic of twice the width."""
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


@np.errstate(over="ignore")
def changed(logits: Logits, params: SamplingParams, prompt: Sequence[int], output: Sequence[int]) -> Logits:
    """Apply the bias, then min_tokens, then the penalties, each written out for one token at a time."""
    scores = logits.copy()
    for token_id, bias in params.logit_bias.items():
        scores[token_id] += np.float32(bias)
    if len(output) < params.min_tokens:
        scores[list(params.stop_token_ids)] = -np.inf
    for token_id in {*prompt, *output}:
        factor = np.float32(params.repetition_penalty)
        scores[token_id] = scores[token_id] / factor if scores[token_id] > 0 else scores[token_id] * factor
    for token_id in set(output):
        frequency, presence = np.float32(params.frequency_penalty), np.float32(params.presence_penalty)
        scores[token_id] -= frequency * np.float32(output.count(token_id)) + presence
    return scores


@np.errstate(over="ignore", under="ignore")
def sample(logits: Logits, params: SamplingParams, position: int) -> int:
    """Apply temperature, min-p, top-k and top-p, then take the greatest of logit plus noise; ties stay together."""
    if params.temperature < 1e-5:
        return int(logits.argmax())
    logits = np.minimum(logits, np.finfo(np.float32).max)
    scores = (logits - logits.max()) / np.float32(params.temperature)
    if params.min_p:
        scores = np.where(scores >= np.float32(math.log(params.min_p)), scores, np.float32(-np.inf))
    order = np.argsort(-scores, kind="stable")
    if params.top_k:
        order = order[scores[order] >= scores[order[: params.top_k][-1]]]
    if params.top_p < 1:
        probabilities = np.exp(scores[order] - scores[order].max())
        before = np.cumsum(probabilities) - probabilities
        reached = order[before < params.top_p * probabilities.sum()]
        order = order[scores[order] >= scores[reached[-1]]]
    return int(order[(scores[order] + noise(len(logits), params.seed, position)[order]).argmax()])


class Reference:
    """A transformers model, run over the whole sequence for each token."""

    def __init__(self, folder: Path) -> None:
        """Open the folder in float32."""
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def decode(self, prompt: Sequence[int], params: SamplingParams, max_tokens: int) -> list[int]:
        """Return the tokens after the prompt."""
        return self.decode_with_logprobs(prompt, params, max_tokens)[0]

    @torch.inference_mode()
    def decode_with_logprobs(
        self, prompt: Sequence[int], params: SamplingParams, max_tokens: int
    ) -> tuple[list[int], list[Logits]]:
        """Return the tokens after the prompt, and at each of them the model's own log-probabilities of all tokens."""
        ids, past, logprobs = list(prompt), None, []
        for _ in range(max_tokens):
            fed = ids if past is None else ids[-1:]
            output = self.model(torch.tensor([fed]), past_key_values=past, use_cache=True)
            past = output.past_key_values
            logits = output.logits[0, -1].float()
            logprobs.append(logits.double().log_softmax(-1).float().numpy())
            scores = changed(logits.numpy(), params, prompt, ids[len(prompt) :])
            ids.append(sample(scores, params, len(ids)))
            if ids[-1] in params.stop_token_ids:
                break
        return ids[len(prompt) :], logprobs
