"""The second turn of a chat: how much sooner the first token comes thanks to a shared prefix."""

from argparse import ArgumentParser, Namespace
from statistics import median

from benchmarks.client import Client, Messages, user
from benchmarks.progress import progress
from benchmarks.prompts import unseen
from benchmarks.section import Section
from benchmarks.single import BOTH
from benchmarks.spread import Spread


def add_flags(flags: ArgumentParser) -> None:
    """Add this mode's flags."""
    flags.add_argument("--repeats", type=int, default=5, help="how many chats in each way")
    flags.add_argument("--prefix-tokens", type=int, default=1000, help="length of the first turn's prompt")
    flags.set_defaults(num_slots=4)


async def run(client: Client, args: Namespace) -> Section:
    """Measure."""
    section = Section("The second turn of a chat")
    sentences = await _sentences(client, args.prefix_tokens)
    rows = []
    with progress("second turn", 2 * args.repeats) as advance:
        firsts: dict[str, list[float]] = {name: [] for name in BOTH}
        seconds: dict[str, list[float]] = {name: [] for name in BOTH}
        prompt_tokens = []
        for number in range(args.repeats):
            for name, fields in BOTH.items():
                messages = _first_turn(sentences)
                first = await client.chat(messages, fields)
                messages = [*messages, {"role": "assistant", "content": first.text}, *user("And what came after that?")]
                second = first if first.error else await client.chat(messages, fields)
                advance()
                if second.error:
                    section.problems.append(f"chat {number}, {name}: {second.error}")
                    continue
                firsts[name].append(first.first_token_seconds)
                seconds[name].append(second.first_token_seconds)
                prompt_tokens.append(first.prompt_tokens)
    for name in BOTH:
        ratio = median(seconds[name]) / median(firsts[name]) if firsts[name] else None
        rows.append(
            {
                "": name,
                "first turn TTFT, s": Spread.of(firsts[name]),
                "second turn TTFT, s": Spread.of(seconds[name]),
                "second over first": ratio,
            }
        )
    section.notes.append(
        f"Chats whose first prompt has about {median(prompt_tokens) if prompt_tokens else 0:.0f} tokens that no chat "
        "before it had; the second turn adds the answer and a short question."
    )
    section.table("Time to the first token", rows)
    return section


async def _sentences(client: Client, prefix_tokens: int) -> int:
    """Return how many of the log's sentences make a prompt of about `prefix_tokens` tokens."""
    few, many = [(await client.chat(_first_turn(count), max_tokens=1)).prompt_tokens for count in (2, 12)]
    return max(1, round((prefix_tokens - few) / max((many - few) / 10, 1)) + 2)


def _first_turn(sentences: int) -> Messages:
    log = [f"At mile {mile} the rider met {mile % 7 + 1} carts and the road was clear." for mile in range(sentences)]
    return user(unseen(" ".join([*log, "Say in one sentence what this log is about."])))
