"""Secrets sealed with a key that lies in a file of the state folder, beside the store.

AES-256-GCM; what a secret belongs to is authenticated with it, so a sealed secret that is moved to
another row does not open. The key is made when it is first needed.
"""

import os
import stat
from hashlib import sha256
from pathlib import Path
from typing import Final

from tandem.domain.errors import StoreUnavailable

KEY_FILE: Final = "webhook-secrets.key"
KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_FORMAT: Final = b"\x01"
_NAME_BYTES: Final = 4
"""So many bytes of the hash of a key tell which one a secret was sealed with."""


class FileVault:
    """See `ports.vault.Vault`. The key is read once."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / KEY_FILE
        self._key = b""

    def draw(self, size_bytes: int) -> bytes:
        """See `Vault.draw`."""
        return os.urandom(size_bytes)

    def seal(self, secret: str, *, context: str) -> bytes:
        """See `Vault.seal`."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key = self._read_key(makes=True)
        nonce = os.urandom(_NONCE_BYTES)
        closed = AESGCM(key).encrypt(nonce, secret.encode(), context.encode())
        return _FORMAT + _name_of(key) + nonce + closed

    def unseal(self, sealed: bytes, *, context: str) -> str:
        """See `Vault.unseal`."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key = self._read_key(makes=False)
        head = _FORMAT + _name_of(key)
        if not sealed.startswith(head):
            raise StoreUnavailable(
                f"a webhook secret was sealed with another key than that in {self._path}; put the "
                "former file back, or rotate the secret"
            )
        nonce, closed = sealed[len(head) :][:_NONCE_BYTES], sealed[len(head) + _NONCE_BYTES :]
        try:
            return AESGCM(key).decrypt(nonce, closed, context.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise StoreUnavailable("a webhook secret in the store is damaged") from error

    def _read_key(self, *, makes: bool) -> bytes:
        if not self._key:
            try:
                self._key = self._open_key()
            except FileNotFoundError:
                if not makes:
                    raise StoreUnavailable(
                        f"the key of webhook secrets, {self._path}, is gone; put it back, or "
                        "rotate every secret"
                    ) from None
                self._key = self._make_key()
            except OSError as error:
                raise self._unusable(error) from error
        return self._key

    def _open_key(self) -> bytes:
        file = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(file, "rb") as opened:
            found = os.fstat(opened.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077:
                raise StoreUnavailable(
                    f"{self._path} can be read by others than its owner; it holds the key of "
                    f"webhook secrets: chmod 600 {self._path}, and rotate them"
                )
            key = opened.read(KEY_BYTES + 1)
        if len(key) != KEY_BYTES:
            raise StoreUnavailable(f"{self._path} is not a key of {KEY_BYTES} bytes")
        return key

    def _make_key(self) -> bytes:
        """Make the key; of several processes that do so at once one is first, for all."""
        draft = self._path.with_name(f".{KEY_FILE}.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(draft, flags, 0o600), "wb") as opened:
                opened.write(os.urandom(KEY_BYTES))
                opened.flush()
                os.fsync(opened.fileno())
            try:
                os.link(draft, self._path)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
            _sync_folder(self._path.parent)
            return self._open_key()
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(
            f"the key of webhook secrets, {self._path}, cannot be used: {error.strerror}"
        )


def _name_of(key: bytes) -> bytes:
    return sha256(b"tandem webhook key " + key).digest()[:_NAME_BYTES]


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
