"""Paths below a workspace: none of them leads out, neither by its text nor by a link."""

import errno
import mimetypes
import os
import stat
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from tandem.domain.artifact import ArtifactRef
from tandem.domain.errors import NotFound, Refused
from tandem.domain.ids import Digest

CHUNK_BYTES = 1024 * 1024


def inside(workspace: str | Path, relative: str) -> Path:
    """Return the absolute path of `relative` in `workspace`, which need not exist.

    Raises:
        Refused: it is absolute, holds `..` or NUL, or a symbolic link on its way leads out.
    """
    parts = Path(relative).parts
    if "\0" in relative or Path(relative).is_absolute() or ".." in parts:
        raise Refused(
            f"{relative!r} is not a path inside the workspace: it must be relative, without `..`",
            code="path_outside",
        )
    root = os.path.realpath(workspace)
    path = os.path.realpath(os.path.join(root, relative))
    if os.path.commonpath((root, path)) != root:
        raise Refused(
            f"{relative!r} leads out of the workspace {root} to {path}", code="path_outside"
        )
    return Path(path)


def open_inside(workspace: str | Path, relative: str) -> BinaryIO:
    """Open a regular file in `workspace` for reading.

    Raises:
        NotFound: there is no such file, or it is not a regular one.
        Refused: as `inside`.
    """
    path = inside(workspace, relative)
    try:
        # `inside` resolved all links, so one that is met now was put there just now. A FIFO
        # must not block.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise NotFound(f"there is no file {relative!r} in {workspace}") from None
        raise NotFound(f"cannot read {relative!r} in {workspace}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotFound(f"{relative!r} in {workspace} is not a regular file")
    return os.fdopen(fd, "rb")


def file_artifact(
    workspace: str | Path, relative: str, media_type: str | None = None
) -> ArtifactRef:
    """Return a reference to a file in `workspace`: its digest, size and guessed media type.

    Raises:
        NotFound: there is no such regular file.
        Refused: as `inside`.
    """
    hashed = sha256()
    size_bytes = 0
    with open_inside(workspace, relative) as file:
        while chunk := file.read(CHUNK_BYTES):
            hashed.update(chunk)
            size_bytes += len(chunk)
    guessed = mimetypes.guess_type(relative)[0] or "application/octet-stream"
    return ArtifactRef(
        name=Path(relative).name,
        digest=Digest(f"sha256:{hashed.hexdigest()}"),
        size_bytes=size_bytes,
        media_type=media_type or guessed,
        path=Path(relative).as_posix(),
    )
