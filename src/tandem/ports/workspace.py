"""The port for the files that nodes leave in a workspace."""

from collections.abc import Sequence
from typing import BinaryIO, Protocol

from tandem.domain.artifact import ArtifactRef, FileStamp
from tandem.domain.start_check import WorkspaceState


class WorkspaceFiles(Protocol):
    """Looks at files below a workspace; nothing outside it can be named."""

    def state_of(self, workspace: str) -> WorkspaceState:
        """Say what is found where a workspace should be."""
        ...

    def remove_file(self, workspace: str, relative: str) -> None:
        """Remove a file; what is not there, or is a directory, is left as it is.

        Raises:
            Refused: the path leads out of the workspace, or the file cannot be removed.
        """

    def real_path(self, workspace: str) -> str:
        """Return the absolute path of a workspace with all links followed; it need not exist."""
        ...

    def find_file(self, workspace: str, relative: str) -> ArtifactRef | None:
        """Return a reference to a regular file with its plain SHA-256, or None if there is none.

        Raises:
            Refused: the path leads out of the workspace.
        """
        ...

    def stamp(self, workspace: str, relative: str) -> FileStamp | None:
        """Return when a regular file last changed, or None if there is none; nothing is read.

        Raises:
            Refused: the path leads out of the workspace.
        """
        ...

    def list_files(
        self, workspace: str, relative: str, suffix: str, *, limit: int
    ) -> Sequence[tuple[str, FileStamp]]:
        """Return the regular files of a folder whose names end so, the longest unchanged first.

        Links are left out. A folder that is not there is empty; of a very large one some are left
        out.

        Raises:
            Refused: the path leads out of the workspace.
        """
        ...

    def put_file(self, workspace: str, relative: str, content: bytes) -> None:
        """Write a file as a whole and replace what was there; missing folders are made.

        Raises:
            Refused: the path leads out of the workspace, or the file cannot be written.
        """
        ...

    def read_text(self, workspace: str, relative: str, *, bytes_max: int) -> str:
        """Return the first `bytes_max` bytes of a file as text; what is not UTF-8 is replaced.

        Raises:
            Refused: the path leads out of the workspace.
            NotFound: there is no such file.
        """
        ...

    def open_file(self, workspace: str, relative: str) -> BinaryIO:
        """Open a regular file for reading, whatever becomes of its name meanwhile.

        Raises:
            Refused: the path leads out of the workspace.
            NotFound: there is no such file.
        """
        ...
