"""Tracks which prompts are in the cache, so that a common beginning is run once."""

from functools import partial

from shared.model.engine.session import Session, common_prefix
from shared.model.runner import Runner


class Prefixes:
    """What a new session can copy from other slots, whether their last session is still running or has ended.

    Looked up when a session's first rows are about to run, not when it is opened: among sessions that arrive together,
    the first runs the beginning that their prompts share, and the others find it. vLLM and SGLang (RadixAttention,
    arXiv 2312.07104) share prefixes too, but without the copy, which we need since a slot is one piece of memory.
    """

    def __init__(self, runner: Runner) -> None:
        """Begin with nothing in any slot of this runner."""
        self._runner = runner
        self._holders: dict[int, Session] = {}  # by slot: whose keys and values it holds

    def come(self, session: Session) -> None:
        """Note a session before any of its tokens run."""
        self._holders[session.slot] = session

    def take_over(self, session: Session) -> None:
        """Copy what another slot has of a new session's prompt, if that is more than its own slot has."""
        if session.begun:
            return
        holder = max(self._holders.values(), key=partial(_shared, session), default=session)
        num_tokens = _shared(session, holder)
        if num_tokens > session.cached and self._runner.copy(holder.slot, session.slot, num_tokens):
            session.reuse(num_tokens)


def _shared(session: Session, holder: Session) -> int:
    """Return how many tokens of the session's prompt, except the last, the holder's slot has as part of its prompt.

    Only its prompt, since another thread may rewrite what follows at any time; none of another namespace, whose prompts
    would otherwise be told by how quickly a guess of them is read.
    """
    if holder.namespace != session.namespace:
        return 0
    limit = min(holder.cached, holder.num_prompt, session.num_prompt - 1)
    return common_prefix(session.token_ids[:limit], holder.token_ids[:limit])
