"""The tokens by which a model fills in what is missing in the middle of a text."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

FAMILIES = [  # before the prefix, before the suffix, before the middle
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen2.5-Coder, CodeGemma
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder 2, Granite
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),  # CodeLlama
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek-Coder
    ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),  # GLM 4.5
    ("[PREFIX]", "[SUFFIX]", ""),  # Codestral, which has the suffix first
]
_REPO, _FILE = ["<|repo_name|>", "<repo_name>", "<reponame>"], ["<|file_sep|>", "<file_sep>", "<|file_separator|>"]
_ENDS = ["<|fim_pad|>", "<fim_pad>", "<fim-pad>", "▁<EOT>", "<|endoftext|>", "<｜end▁of▁sentence｜>"]


@dataclass(frozen=True)
class FimTokens:
    """The ids of a vocabulary's tokens. None of them is part of what is filled in."""

    prefix: int
    suffix: int
    middle: int | None
    """None where the suffix comes first."""
    repo: int | None
    file: int | None
    ends: frozenset[int]
    """All of these and others, any of which ends the middle."""

    @classmethod
    def of(cls, id_of: Callable[[str], int | None]) -> Self | None:
        """Return the tokens of a vocabulary, which tells the id of a token's name; None if it has none."""
        for prefix, suffix, middle in FAMILIES:
            ids = [id_of(prefix), id_of(suffix), id_of(middle) if middle else None]
            if ids[0] is not None and ids[1] is not None and (ids[2] is not None or not middle):
                repo, file = _first(id_of, _REPO), _first(id_of, _FILE)
                ends = frozenset({*ids, repo, file, *map(id_of, _ENDS)} - {None})
                return cls(ids[0], ids[1], ids[2], repo, file, ends)  # type: ignore[arg-type]  # it has no None
        return None

    def prompt(self, prefix: Sequence[int], suffix: Sequence[int]) -> list[int]:
        """Return the prompt whose continuation is the middle."""
        if self.middle is None:
            return [self.suffix, *suffix, self.prefix, *prefix]
        return [self.prefix, *prefix, self.suffix, *suffix, self.middle]


def _first(id_of: Callable[[str], int | None], names: Iterable[str]) -> int | None:
    return next((token_id for token_id in map(id_of, names) if token_id is not None), None)
