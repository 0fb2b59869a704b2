"""Identifiers of a simulated world."""

from random import Random


class SeededIds:
    """The same seed makes the same identifiers."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._next = self._draw()

    def new(self) -> str:
        """See `Ids.new`."""
        drawn = self._next
        self._next = self._draw()
        return drawn

    def peek(self) -> str:
        """Return what the next `new` returns."""
        return self._next

    def _draw(self) -> str:
        return f"{self._random.getrandbits(128):032x}"
