"""The port that keeps secrets: draws them, seals them for the store, opens them again."""

from typing import Protocol


class Vault(Protocol):
    """Secrets at rest are sealed; `context` says what a secret belongs to and is sealed with it."""

    def draw(self, size_bytes: int) -> bytes:
        """Return random bytes that nobody can guess."""
        ...

    def seal(self, secret: str, *, context: str) -> bytes:
        """Return the secret unreadable for whoever has not the key.

        Raises:
            StoreUnavailable: there is no key, or others can read it.
        """
        ...

    def unseal(self, sealed: bytes, *, context: str) -> str:
        """Return a secret again.

        Raises:
            StoreUnavailable: it was sealed with another key or for another context, or there is
                no key.
        """
        ...
