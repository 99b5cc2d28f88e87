"""The sizes of attention that a model's configuration may leave to be worked out."""

from transformers import PretrainedConfig


def head_dim(config: PretrainedConfig) -> int:
    """Return how many numbers a head has."""
    text = config.get_text_config()
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def num_kv_heads(config: PretrainedConfig) -> int:
    """Return how many heads of keys and values there are; as many as of queries, if it does not say."""
    text = config.get_text_config()
    return int(getattr(text, "num_key_value_heads", None) or text.num_attention_heads)
