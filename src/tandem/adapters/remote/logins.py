"""The tokens of servers, kept in one file that nobody else can read."""

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from tandem.domain.errors import Refused
from tandem.domain.json import encode

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700
_OTHERS: Final = 0o077
_BYTES_MAX: Final = 1_048_576


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of one server."""

    token: str


_decoder = msgspec.json.Decoder(dict[str, Login])


class Logins:
    """The file. It is written whole, by renaming, in a folder that is its owner's alone."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def find(self, url: str) -> str:
        """Return the token for a server, empty when there is none.

        Raises:
            Refused: others can read the file, or it is damaged.
        """
        found = self._read().get(url)
        return "" if found is None else found.token

    def keep(self, url: str, token: str) -> None:
        """Keep the token of a server in place of an older one.

        Raises:
            Refused: the file cannot be written, or is not safe.
        """
        self._write({**self._read(), url: Login(token=token)})

    def forget(self, url: str | None) -> list[str]:
        """Forget the token of one server, or with None of all; return whose there were.

        Raises:
            Refused: the file cannot be written, or is not safe.
        """
        known = dict(self._read())
        gone = [name for name in known if url in (None, name)]
        if gone:
            self._write({name: login for name, login in known.items() if name not in gone})
        return gone

    def _read(self) -> Mapping[str, Login]:
        try:
            # A link could lead to a file of somebody else.
            handle = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._refused(f"cannot be read: {error.strerror}") from error
        with os.fdopen(handle, "rb") as file:
            self._check(os.fstat(handle), self.path, FILE_MODE)
            self._check(self.path.parent.stat(), self.path.parent, FOLDER_MODE)
            content = file.read(_BYTES_MAX + 1)
        try:
            return _decoder.decode(content)
        except msgspec.DecodeError as error:
            raise self._refused(f"is damaged: {error}; delete it and log in again") from error

    def _check(self, found: os.stat_result, path: Path, mode: int) -> None:
        if found.st_uid != os.geteuid():
            raise self._refused(f"is not safe: {path} belongs to somebody else")
        if found.st_mode & _OTHERS:
            raise self._refused(f"is not safe, others may use {path}: chmod {mode:o} {path}")

    def _write(self, known: Mapping[str, Login]) -> None:
        folder = self.path.parent
        temporary = ""
        try:
            folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            self._check(folder.stat(), folder, FOLDER_MODE)
            # `mkstemp` makes a file that only its owner may use.
            handle, temporary = tempfile.mkstemp(dir=folder, prefix=".logins-")
            with os.fdopen(handle, "wb") as file:
                file.write(encode(dict(known)))
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.path)
        except OSError as error:
            with suppress(OSError):
                os.unlink(temporary)
            raise self._refused(f"cannot be written: {error.strerror}") from error

    def _refused(self, why: str) -> Refused:
        return Refused(f"the file of logins {self.path} {why}", code="logins_unsafe")
