"""A toy draft/target pair, made from a seed in about a second: for tests, demos and machines without a network.

The models are untrained. They are random, but built so that speculation has something to do: the target is the draft's
own layers plus more layers of small effect, so that it agrees with the draft often but not always (`test_pairs.py`
measures how often). The tokenizer is a real byte-level BPE with a ChatML template.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

SEED = 20
TOKENIZER_SIZE = 500
DRAFT_ROWS, TARGET_ROWS = 512, 576  # padded, and to different sizes, as in real pairs
DRAFT_LAYERS, TARGET_LAYERS = 2, 4
EFFECT = 0.3  # of the target's extra layers; tunes the acceptance rate
SHARPNESS = 2.0  # of attention: high enough that greedy decoding wanders instead of repeating itself
SPREAD = 3.0  # standard deviation of the logits
BLOCKED = -256.0  # pushes a token so far down that it is never sampled: beyond the reach of noise at temperature 2
END_BIAS = 2.0  # makes most answers 20 to 300 tokens long at temperature 1

END_OF_TEXT, START_OF_TURN, END_OF_TURN = SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls %}\n<tool_call>\n{{ call.function | tojson }}\n</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = """\
An outrider rides ahead of the carriage and clears the road. The draft model rides ahead; the target model decides.
In each round the draft proposes a few tokens and the target verifies all of them in one forward pass. A proposed token
is accepted when it equals the token that the target draws for itself; at the first one that differs, the target's own
token is the recovered one, and when all of them stand, the target adds a bonus token. So every round commits at least
one token, and the answer is what the target alone would have written, word for word, only sooner. How much sooner
depends on how often the two agree, on how many tokens are drafted, and on how fast the smaller model is compared with
the larger one. Speculation pays because a modern machine spends most of its time moving weights: running five rows
through the model costs hardly more than running a single row. When memory is not what limits it, nothing is gained,
and then it is better to draft nothing at all. Who would travel fast must know the road; who would know the road must
send someone ahead. If the scout is lost, the journey goes on, slower than before, but it goes on to the same place.
What is a token? A piece of text: a letter, a syllable, a word, sometimes several. What is a seed? A number from which
all the noise follows, so that the same question with the same seed gets the same answer, today, tomorrow and elsewhere.
"""


def make_toy_pair(folder: Path, seed: int = SEED) -> None:
    """Write the Hugging Face folders `folder`/target and `folder`/draft; the same seed gives the same weights."""
    tokenizer = _train_tokenizer()
    target, draft = _model(TARGET_LAYERS, TARGET_ROWS), _model(DRAFT_LAYERS, DRAFT_ROWS)
    with torch.no_grad():
        _fill(target, tokenizer, torch.Generator().manual_seed(seed))
    # Each of the draft's tensors is the target's tensor of the same name, without the target's extra padding rows.
    weights = target.state_dict()
    draft.load_state_dict({name: weights[name][: len(own)] for name, own in draft.state_dict().items()})
    for name, model in (("target", target), ("draft", draft)):
        model.generation_config = GenerationConfig(
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=True
        )
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def _train_tokenizer() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENIZER_SIZE,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([TEXT], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END_OF_TURN, pad_token=END_OF_TEXT)
    tokenizer.add_special_tokens({"additional_special_tokens": [START_OF_TURN]})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _model(num_layers: int, vocab_size: int) -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )
    return Qwen2ForCausalLM(config)


def _fill(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, generator: torch.Generator) -> None:
    """Draw the weights. Dimension 0 of the residual stream is always 1, which gives the output layer a bias."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            fan_in = module.in_features if isinstance(module, nn.Linear) else 1
            module.weight.normal_(0, fan_in**-0.5, generator=generator)
    model.model.embed_tokens.weight[:, 0] = 1
    for number, layer in enumerate(model.model.layers):
        layer.self_attn.q_proj.weight *= SHARPNESS
        for writer in (layer.self_attn.o_proj, layer.mlp.down_proj):
            writer.weight[0] = 0
            if number >= DRAFT_LAYERS:
                writer.weight *= EFFECT
    rows = model.lm_head.weight  # [V, hidden]
    rows *= SPREAD
    rows[:, 0] = BLOCKED
    rows[sorted(set(tokenizer(TEXT)["input_ids"])), 0] = 0  # blocked: padding, specials and bytes of no text
    rows[tokenizer.eos_token_id, 0] = END_BIAS
