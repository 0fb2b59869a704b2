"""Ed25519 signatures, verified with public keys from a file.

The file is a JSON object: the name of each key (`kid`) and its 32 bytes in base64, or its PEM text.
"""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tandem.domain.errors import InvalidRequest

FILE_BYTES_MAX = 1_048_576


class Ed25519Signatures:
    """Public keys by their names."""

    def __init__(self, keys: Mapping[str, Ed25519PublicKey]) -> None:
        self._keys = dict(keys)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the keys of a file.

        Raises:
            InvalidRequest: it cannot be read, or one of them is no public key of this kind.
        """
        try:
            with path.open("rb") as file:
                content = file.read(FILE_BYTES_MAX)
            texts = msgspec.json.decode(content, type=dict[str, str])
            return cls({name: _key_of(text) for name, text in texts.items()})
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            raise InvalidRequest(
                f"cannot use the keys of {path}: {error}; it has to be a JSON object with names "
                "and Ed25519 public keys, as base64 or PEM"
            ) from error

    def verify(self, key_id: str, signed: bytes, signature: bytes) -> bool:
        """See `Signatures.verify`."""
        key = self._keys.get(key_id)
        if key is None:
            return False
        try:
            key.verify(signature, signed)
        except InvalidSignature:
            return False
        return True


def _key_of(text: str) -> Ed25519PublicKey:
    if text.lstrip().startswith("-----BEGIN"):
        key = load_pem_public_key(text.encode())
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("a key is not an Ed25519 public key")
        return key
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("a key is neither base64 nor PEM") from None
    return Ed25519PublicKey.from_public_bytes(raw)
