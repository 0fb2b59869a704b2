"""The files that nodes leave in a workspace on this host."""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import BinaryIO, Final

from tandem.adapters.local.workspace import file_artifact, inside, open_inside
from tandem.domain.artifact import ArtifactRef, FileStamp
from tandem.domain.errors import NotFound, Refused
from tandem.domain.start_check import WorkspaceState

_ENTRIES_MAX: Final = 10_000
"""So many entries of a folder are looked at."""


class LocalFiles:
    """Reads below a workspace; links that lead out are refused."""

    def state_of(self, workspace: str) -> WorkspaceState:
        """See `WorkspaceFiles.state_of`."""
        try:
            mode = os.stat(workspace).st_mode
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return WorkspaceState.MISSING  # a ValueError is a NUL, which no path has
        except OSError:
            return WorkspaceState.READY  # it cannot be told; the body that needs it will say why
        return WorkspaceState.READY if stat.S_ISDIR(mode) else WorkspaceState.NOT_A_DIRECTORY

    def remove_file(self, workspace: str, relative: str) -> None:
        """See `WorkspaceFiles.remove_file`."""
        path = inside(workspace, relative)
        try:
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return
        except OSError as error:
            raise Refused(
                f"cannot remove {relative!r}, which an earlier start left: {error.strerror}",
                code="leftover_not_removed",
            ) from error

    def real_path(self, workspace: str) -> str:
        """See `WorkspaceFiles.real_path`."""
        if "\0" in workspace:
            return workspace  # as it is for what is not there
        return os.path.realpath(workspace)

    def find_file(self, workspace: str, relative: str) -> ArtifactRef | None:
        """See `WorkspaceFiles.find_file`."""
        try:
            return file_artifact(workspace, relative)
        except NotFound:
            return None

    def stamp(self, workspace: str, relative: str) -> FileStamp | None:
        """See `WorkspaceFiles.stamp`."""
        try:
            found = inside(workspace, relative).stat()
        except OSError:
            return None
        # The change time: unlike the modification time nothing but the kernel sets it.
        mark = f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_ctime_ns}"
        return FileStamp(changed_at_ms=found.st_ctime_ns // 1_000_000, mark=mark)

    def list_files(
        self, workspace: str, relative: str, suffix: str, *, limit: int
    ) -> Sequence[tuple[str, FileStamp]]:
        """See `WorkspaceFiles.list_files`."""
        found: list[tuple[str, FileStamp]] = []
        try:
            with os.scandir(inside(workspace, relative)) as entries:
                for entry in islice(entries, _ENTRIES_MAX):
                    if entry.name.endswith(suffix) and entry.is_file(follow_symlinks=False):
                        stamp = self.stamp(workspace, f"{relative}/{entry.name}")
                        found += [] if stamp is None else [(entry.name, stamp)]
        except OSError:
            return found
        return sorted(found, key=lambda each: (each[1].changed_at_ms, each[0]))[:limit]

    def put_file(self, workspace: str, relative: str, content: bytes) -> None:
        """See `WorkspaceFiles.put_file`."""
        path = inside(workspace, relative)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise Refused(
                f"cannot write {relative!r} in {workspace}: {error.strerror}",
                code="file_not_written",
            ) from error

    def read_text(self, workspace: str, relative: str, *, bytes_max: int) -> str:
        """See `WorkspaceFiles.read_text`."""
        with open_inside(workspace, relative) as file:
            return file.read(bytes_max).decode("utf-8", "replace")

    def open_file(self, workspace: str, relative: str) -> BinaryIO:
        """See `WorkspaceFiles.open_file`."""
        return open_inside(workspace, relative)
