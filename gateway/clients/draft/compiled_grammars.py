"""Which grammars a draft service has compiled, as far as its proposals tell."""

from shared.sampling_params import Grammar

MOST = 256


class CompiledGrammars:
    """Those used last. A draft that has one compiled proposes at once; one that has not takes up to seconds."""

    def __init__(self) -> None:
        """Begin with none."""
        self._hashes = dict[int, None]()  # as ordered sets go: a grammar may have a million characters

    def __contains__(self, grammar: Grammar) -> bool:
        """Return whether it was compiled."""
        return hash(grammar) in self._hashes

    def add(self, grammar: Grammar) -> None:
        """Note that it was compiled, or used again."""
        self._hashes.pop(hash(grammar), None)
        self._hashes[hash(grammar)] = None
        if len(self._hashes) > MOST:
            del self._hashes[next(iter(self._hashes))]

    def clear(self) -> None:
        """Forget all: another process serves."""
        self._hashes.clear()
