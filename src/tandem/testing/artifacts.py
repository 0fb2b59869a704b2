"""Large outputs and workspaces of a simulated world, in memory; they outlive its processes."""

from collections.abc import Callable, Sequence
from io import BytesIO
from itertools import count
from typing import BinaryIO

from tandem.domain.artifact import ArtifactRef, FileStamp
from tandem.domain.errors import NotFound, Refused
from tandem.domain.ids import Digest, TenantId
from tandem.domain.json import digest
from tandem.domain.start_check import WorkspaceState
from tandem.ports.clock import Clock


class MemoryArtifacts:
    """Bytes by tenant and digest."""

    def __init__(self) -> None:
        self._kept: dict[tuple[TenantId, str], bytes] = {}

    def put(self, tenant: TenantId, name: str, content: bytes, *, media_type: str) -> ArtifactRef:
        """See `Artifacts.put`."""
        ref = ArtifactRef(
            name=name, digest=digest(content), size_bytes=len(content), media_type=media_type
        )
        self._kept[tenant, ref.digest] = content
        return ref

    def remove(self, tenant: TenantId, digest: Digest, *, put_before_ms: int) -> bool:
        """See `Artifacts.remove`; here nothing was put just now."""
        return self._kept.pop((tenant, digest), None) is not None

    def get(self, tenant: TenantId, ref: ArtifactRef) -> bytes:
        """See `Artifacts.get`."""
        try:
            return self._kept[tenant, ref.digest]
        except KeyError:
            raise NotFound(f"the artifact {ref.digest} is gone") from None


class NoFiles:
    """A workspace in which there is nothing."""

    def state_of(self, workspace: str) -> WorkspaceState:
        """See `WorkspaceFiles.state_of`."""
        return WorkspaceState.READY

    def remove_file(self, workspace: str, relative: str) -> None:
        """See `WorkspaceFiles.remove_file`; there is nothing to remove."""

    def real_path(self, workspace: str) -> str:
        """See `WorkspaceFiles.real_path`; there are no links."""
        return workspace

    def find_file(self, workspace: str, relative: str) -> ArtifactRef | None:
        """See `WorkspaceFiles.find_file`."""
        return None

    def stamp(self, workspace: str, relative: str) -> FileStamp | None:
        """See `WorkspaceFiles.stamp`."""
        return None

    def list_files(
        self, workspace: str, relative: str, suffix: str, *, limit: int
    ) -> Sequence[tuple[str, FileStamp]]:
        """See `WorkspaceFiles.list_files`."""
        return ()

    def put_file(self, workspace: str, relative: str, content: bytes) -> None:
        """See `WorkspaceFiles.put_file`; there is no place for it."""
        raise Refused(f"cannot write {relative}")

    def read_text(self, workspace: str, relative: str, *, bytes_max: int) -> str:
        """See `WorkspaceFiles.read_text`."""
        raise NotFound(f"there is no file {relative}")

    def open_file(self, workspace: str, relative: str) -> BinaryIO:
        """See `WorkspaceFiles.open_file`."""
        raise NotFound(f"there is no file {relative!r} in {workspace}")


_MARKS = count()

Files = dict[tuple[str, str], tuple[bytes, FileStamp]]
"""Content and stamp by workspace and path."""


class MemoryFiles(NoFiles):
    """Workspaces in which only what was put there can be found; `touch` is called around it."""

    def __init__(
        self, files: Files, clock: Clock, touch: Callable[[], None] = lambda: None
    ) -> None:
        self._files = files
        self._clock = clock
        self._touch = touch

    def list_files(
        self, workspace: str, relative: str, suffix: str, *, limit: int
    ) -> Sequence[tuple[str, FileStamp]]:
        """See `WorkspaceFiles.list_files`."""
        start = f"{relative}/"
        found = [
            (path.removeprefix(start), stamp)
            for (where, path), (_, stamp) in self._files.items()
            if where == workspace and path.startswith(start) and path.endswith(suffix)
        ]
        return sorted(found, key=lambda each: (each[1].changed_at_ms, each[0]))[:limit]

    def put_file(self, workspace: str, relative: str, content: bytes) -> None:
        """See `WorkspaceFiles.put_file`."""
        self._touch()
        stamp = FileStamp(changed_at_ms=self._clock.now_ms(), mark=str(next(_MARKS)))
        self._files[workspace, relative] = content, stamp
        self._touch()

    def remove_file(self, workspace: str, relative: str) -> None:
        """See `WorkspaceFiles.remove_file`."""
        self._touch()
        self._files.pop((workspace, relative), None)
        self._touch()

    def read_text(self, workspace: str, relative: str, *, bytes_max: int) -> str:
        """See `WorkspaceFiles.read_text`."""
        return self.open_file(workspace, relative).read(bytes_max).decode()

    def open_file(self, workspace: str, relative: str) -> BinaryIO:
        """See `WorkspaceFiles.open_file`."""
        if (workspace, relative) not in self._files:
            raise NotFound(f"there is no file {relative!r} in {workspace}")
        return BytesIO(self._files[workspace, relative][0])
