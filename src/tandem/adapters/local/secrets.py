"""Secrets from the operating system."""

import secrets


class RandomSecrets:
    """Bytes of the kernel's random source."""

    def new(self, size_bytes: int) -> bytes:
        """See `Secrets.new`."""
        return secrets.token_bytes(size_bytes)
