"""The port for secrets."""

from typing import Protocol


class Secrets(Protocol):
    """Makes secrets that nobody can guess."""

    def new(self, size_bytes: int) -> bytes:
        """Return so many random bytes, fit for a secret."""
        ...
