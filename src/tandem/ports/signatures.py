"""The port for signatures of parties that the engine trusts."""

from typing import Protocol


class Signatures(Protocol):
    """Verifies Ed25519 signatures with the public keys that were configured."""

    def verify(self, key_id: str, signed: bytes, signature: bytes) -> bool:
        """Say whether the key of this name signed exactly these bytes; False without the key."""
        ...
