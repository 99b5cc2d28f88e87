"""What the ways to store rounded weights have in common: transformers opens them as they are, and trains none."""

from typing import Any

from transformers import PreTrainedModel
from transformers.quantizers.base import HfQuantizer
from typing_extensions import override


class StoredQuantizer(HfQuantizer):  # type: ignore[misc]  # transformers is untyped
    """Makes transformers load weights that need nothing more once they are there."""

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **_: Any) -> PreTrainedModel:
        return model

    @override
    def is_serializable(self) -> bool:
        return True

    @property
    @override
    def is_trainable(self) -> bool:
        return False
