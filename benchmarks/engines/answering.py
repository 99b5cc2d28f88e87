"""What the process of each engine does; in environments of their own, so this imports nothing of ours.

It says `{}` once the models are loaded. Then it answers each line `{"ids", "max_tokens"}` on standard input, where the
ids are the prompt's tokens, with a line `{"text", "tokens", "seconds"}`, until the input ends.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

Generate = Callable[[Sequence[int], int], tuple[str, int]]
"""From the prompt's tokens, and how many to generate at most: the text, and how many it has."""


def answer(load: Callable[[], Generate]) -> None:
    """Load, and answer until standard input ends. What the engine itself prints goes to standard error."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

        def say(said: dict[str, Any]) -> None:
            print(json.dumps(said), file=answers, flush=True)

        generate = load()
        say({})
        for line in sys.stdin:
            asked = json.loads(line)
            started = perf_counter()
            text, tokens = generate(asked["ids"], asked["max_tokens"])
            say({"text": text, "tokens": tokens, "seconds": perf_counter() - started})
