"""The prompts for the real pair's matrix."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from pairwise import Length

from gateway.requests.chat import ChatMessage
from gateway.text.tokenizer import ChatTokenizer

FILE = Path(__file__).with_name("real_prompts.jsonl")


@dataclass(frozen=True)
class Prompt:
    """A request: a chat with its own system line, so that no two begin alike, or a text to complete."""

    id: str
    kind: str
    length: Length
    text: str
    system: str | None = None
    lines: int = 0
    """How many lines the ledger in the prompt has."""

    def encode(self, tokenizer: ChatTokenizer) -> list[int]:
        """Return its token ids, by the chat template unless it has no system line."""
        text = "\n".join([self.text, *ledger(self.id, self.lines)])
        if self.system is None:
            return tokenizer.encode(text)
        chat = [{"role": "system", "content": self.system}, {"role": "user", "content": text}]
        return tokenizer.encode_chat([ChatMessage.model_validate(message) for message in chat])


def load_prompts() -> list[Prompt]:
    """Return them all, in the file's order."""
    return [Prompt(**json.loads(line)) for line in FILE.read_text("utf-8").splitlines()]


PEOPLE = ["Mira", "Anton", "Salome", "Piet", "Ines", "Okoro", "Lene", "Tomasz", "Yuki", "Farid"]
GOODS = ["lamps", "dried figs", "copper wire", "sail cloth", "oak planks", "glass jars", "tea", "wool", "salt"]
PLACES = ["the quay", "the mill", "the north gate", "the dry dock", "the old market", "the ropery"]
ENDS = ["and was paid {} crowns", "but {} of them were wet", "{} minutes late", "after a wait of {} minutes"]


def ledger(seed: str, num_lines: int) -> list[str]:
    """Return lines of a harbour's ledger, all of them different."""
    rng = random.Random(seed)
    lines = []
    for day in range(1, num_lines + 1):
        start, end = rng.sample(PLACES, 2)
        what = f"{rng.choice(PEOPLE)} took {rng.randint(2, 90)} crates of {rng.choice(GOODS)} from {start} to {end}"
        lines.append(f"Day {day}: {what} {rng.choice(ENDS).format(rng.randint(2, 60))}.")
    return lines
