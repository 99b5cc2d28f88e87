"""Which prompts are in the cache, so that what several begin with is run once."""

from functools import partial

from shared.model.engine.session import Session, common_prefix
from shared.model.runner import Runner


class Prefixes:
    """What a session that begins may copy from the slots of others, that are running or were the last ones there.

    Looked up when a session's first rows are about to run, and not when it is opened: of sessions that come together,
    the first one runs what all their prompts begin with, and the others find it. As vLLM and SGLang (RadixAttention,
    arXiv 2312.07104) share it, but for the copy: a slot is one piece of memory.
    """

    def __init__(self, runner: Runner) -> None:
        """Begin with nothing in any slot of this runner."""
        self._runner = runner
        self._holders: dict[int, Session] = {}  # by slot, whose keys and values are there

    def come(self, session: Session) -> None:
        """Take note of a session before anything of it runs."""
        self._holders[session.slot] = session

    def take_over(self, session: Session) -> None:
        """Give a session that begins what another slot has of its prompt, if that is more than it has itself."""
        if session.begun:
            return
        holder = max(self._holders.values(), key=partial(_shared, session), default=session)
        num_tokens = _shared(session, holder)
        if num_tokens > session.cached and self._runner.copy(holder.slot, session.slot, num_tokens):
            session.reuse(num_tokens)


def _shared(session: Session, holder: Session) -> int:
    """Return how many tokens of the session's prompt, but the last, are in the holder's slot as part of its prompt.

    What follows a prompt may be rewritten by another thread at any time.
    """
    limit = min(holder.cached, holder.num_prompt, session.num_prompt - 1)
    return common_prefix(session.token_ids[:limit], holder.token_ids[:limit])
