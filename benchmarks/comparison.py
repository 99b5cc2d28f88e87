"""Compares several ways to answer the same prompts, taking turns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import geometric_mean, median

from benchmarks.client import Ask
from benchmarks.progress import progress
from benchmarks.prompts import WARM_UP, Prompt
from benchmarks.reply import Reply


@dataclass
class Comparison:
    """The replies of each variant to each prompt, one per repeat."""

    prompts: Sequence[Prompt]
    variants: Sequence[str]
    replies: dict[tuple[str, str], list[Reply]] = field(default_factory=dict)
    """By variant and prompt id."""
    order: list[tuple[str, str]] = field(default_factory=list)
    """Variant and prompt id of each request."""

    @classmethod
    async def run(
        cls, title: str, prompts: Sequence[Prompt], variants: Mapping[str, Ask], repeats: int
    ) -> "Comparison":
        """Warm each variant up, then let them take turns, so that drift in the machine's speed hits all alike.

        At each turn every variant gets a different prompt: with many more prompts than slots, a prompt is no longer in
        a cache when its turn comes with the next variant.
        """
        comparison = cls(prompts, list(variants))
        names, count = list(variants), len(prompts)
        with progress(title, len(names) * (1 + repeats * count)) as advance:
            for name in names:
                await variants[name](WARM_UP)
                advance()
            for turn in range(repeats * count):
                for place, name in enumerate(names if turn // count % 2 == 0 else names[::-1]):
                    prompt = prompts[(turn + place * count // len(names)) % count]
                    comparison.replies.setdefault((name, prompt.id), []).append(await variants[name](prompt.text))
                    comparison.order.append((name, prompt.id))
                    advance()
        return comparison

    def of(self, variant: str, kinds: Sequence[str] = ()) -> list[Reply]:
        """Return the complete answers of a variant to prompts of these kinds, or of all kinds."""
        return [reply for prompt in self._of_kinds(kinds) for reply in self._whole(variant, prompt)]

    def mean_speed(self, variant: str, kinds: Sequence[str] = ()) -> float | None:
        """Return the geometric mean, over the prompts that it answered, of its median speeds; None if none."""
        speeds = [_speed(replies) for prompt in self._of_kinds(kinds) if (replies := self._whole(variant, prompt))]
        return geometric_mean(speeds) if speeds else None

    def ratios(self, variant: str, base: str, kinds: Sequence[str] = ()) -> list[float]:
        """Return, for each prompt that both answered, the ratio of their median speeds."""
        pairs = ((self._whole(variant, prompt), self._whole(base, prompt)) for prompt in self._of_kinds(kinds))
        return [_speed(ours) / _speed(theirs) for ours, theirs in pairs if ours and theirs]

    def mean_ratio(self, variant: str, base: str, kinds: Sequence[str] = ()) -> float | None:
        """Return the geometric mean of the ratios; None if there is none."""
        ratios = self.ratios(variant, base, kinds)
        return geometric_mean(ratios) if ratios else None

    def fewest_between(self, *variants: str) -> int:
        """Return the fewest requests that these variants sent between two of theirs with the same prompt."""
        asked = [prompt_id for name, prompt_id in self.order if name in variants]
        last: dict[str, int] = {}
        gaps = []
        for place, prompt_id in enumerate(asked):
            gaps.append(place - last.get(prompt_id, -len(asked)) - 1)
            last[prompt_id] = place
        return min(gaps)

    def failures(self) -> Iterator[str]:
        """Yield a line for each request that failed."""
        for (variant, prompt_id), replies in self.replies.items():
            yield from (f"{prompt_id}, {variant}: {reply.error}" for reply in replies if reply.error)

    def num_equal(self, variant: str, other: str) -> int:
        """Return how many prompts got the same text from both, every time."""
        pairs = ((self._whole(variant, prompt), self._whole(other, prompt)) for prompt in self.prompts)
        return sum(len({reply.text for reply in (*ours, *theirs)}) == 1 for ours, theirs in pairs if ours and theirs)

    def unequal(self, *variants: str) -> Iterator[str]:
        """Yield the id of each prompt that got different texts from these variants, or from one at different times."""
        for prompt in self.prompts:
            texts = {reply.text for variant in variants for reply in self._whole(variant, prompt)}
            if len(texts) > 1:
                yield prompt.id

    def _of_kinds(self, kinds: Sequence[str]) -> list[Prompt]:
        return [prompt for prompt in self.prompts if not kinds or prompt.kind in kinds]

    def _whole(self, variant: str, prompt: Prompt) -> list[Reply]:
        return [reply for reply in self.replies.get((variant, prompt.id), []) if not reply.error]


def _speed(replies: Sequence[Reply]) -> float:
    return median(reply.tokens_per_second for reply in replies)
