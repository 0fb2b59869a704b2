"""Artifacts as files below the state directory, by tenant and digest."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from tandem.domain.artifact import ArtifactRef
from tandem.domain.errors import NotFound, StoreUnavailable
from tandem.domain.ids import Digest, TenantId
from tandem.domain.json import digest


class FileArtifacts:
    """One file for each content; written under another name, synced, then renamed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, tenant: TenantId, name: str, content: bytes, *, media_type: str) -> ArtifactRef:
        """See `Artifacts.put`."""
        ref = ArtifactRef(
            name=name, digest=digest(content), size_bytes=len(content), media_type=media_type
        )
        try:
            with shared(self._folder):
                _put(self._path(tenant, ref.digest), content)
        except OSError as error:
            raise StoreUnavailable(
                f"cannot keep the output of `{name}` ({len(content)} bytes): {error.strerror}"
            ) from error
        return ref

    def remove(self, tenant: TenantId, digest: Digest, *, put_before_ms: int) -> bool:
        """See `Artifacts.remove`; putting again renews the time of the file."""
        path = self._path(tenant, digest)
        with suppress(OSError), exclusive(self._folder):
            if path.stat().st_mtime_ns < put_before_ms * 1_000_000:
                path.unlink()
                return True
        return False

    def get(self, tenant: TenantId, ref: ArtifactRef) -> bytes:
        """See `Artifacts.get`."""
        try:
            content = self._path(tenant, ref.digest).read_bytes()
        except OSError as error:
            raise NotFound(f"the artifact {ref.name} ({ref.digest}) is gone") from error
        if digest(content) != ref.digest:
            raise NotFound(f"the artifact {ref.name} is damaged: it is not {ref.digest} any more")
        return content

    def _path(self, tenant: TenantId, content: Digest) -> Path:
        hexadecimal = content.removeprefix("sha256:")
        # A tenant's name may hold anything; its hash is a safe folder.
        owner = sha256(tenant.encode()).hexdigest()[:16]
        return self._folder / owner / hexadecimal[:2] / hexadecimal


@contextmanager
def shared(folder: Path) -> Iterator[None]:
    """Keep those who remove out while a file is written, in all processes."""
    with _locked(folder, fcntl.LOCK_SH):
        yield


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keep writers out while one file is judged and removed, in all processes."""
    with _locked(folder, fcntl.LOCK_EX):
        yield


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, how)
        yield
    finally:
        os.close(fd)


def _put(path: Path, content: bytes) -> None:
    """Write a file, or renew the time of the one that is there, if that is still what it was."""
    if _holds(path, content):
        os.utime(path)
        return
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        _sync_folder(path.parent)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def _holds(path: Path, content: bytes) -> bool:
    """Say whether a file is there and undamaged: a run is about to rely on it."""
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
