"""The port for identifiers. Under simulation it is seeded; otherwise it is random."""

from typing import Protocol


class Ids(Protocol):
    """Makes identifiers that are never repeated, in no process."""

    def new(self) -> str:
        """Return 32 hexadecimal characters, unlike any before."""
        ...
