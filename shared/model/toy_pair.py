"""A toy draft/target pair, made from a seed in about two seconds: for tests, demos and machines without a network.

The models have learnt nothing; they are random, but shaped so that speculation has something to do. The target is the
draft's own layers plus further layers of small effect, so it agrees with the draft often and not always
(`tests/test_pairs.py` measures how often). The tokenizer is a real byte-level BPE with a ChatML template.
"""

import hashlib
import inspect
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

SEED = 20
TOKENIZER_SIZE = 512  # of it about 500 are used, the specials included
DRAFT_ROWS, TARGET_ROWS = 512, 576  # a padded tail, and not the same one: what real pairs have
DRAFT_LAYERS, TARGET_LAYERS = 2, 5
"""placeholder"""
