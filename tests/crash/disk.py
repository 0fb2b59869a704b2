"""A disk that remembers what was written and what was synced, so that a power cut can be played.

`Recorder` is a VFS of SQLite that writes down every operation on the files of one folder. `Disk`
plays them back: what a file held at its last sync is safe, what came later may be gone. A new name
and a removed one are safe once the folder is synced, which SQLite's unix VFS does with the first
sync of a new journal or WAL.
"""

from collections.abc import Iterator
from pathlib import Path

import apsw
import msgspec

DIRSYNC_FLAGS = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL


class Opened(msgspec.Struct, frozen=True):
    """A file was opened, and created if it was not there."""

    name: str
    syncs_folder: bool


class Written(msgspec.Struct, frozen=True):
    """Bytes were written."""

    name: str
    offset: int
    data: bytes


class Truncated(msgspec.Struct, frozen=True):
    """The file was cut."""

    name: str
    size: int


class Synced(msgspec.Struct, frozen=True):
    """The file was synced."""

    name: str


class Deleted(msgspec.Struct, frozen=True):
    """The file was removed."""

    name: str
    syncs_folder: bool


class Acknowledged(msgspec.Struct, frozen=True):
    """Somebody was told that this change is on disk."""

    change_id: str


Operation = Opened | Written | Truncated | Synced | Deleted | Acknowledged


class RecordedFile(apsw.VFSFile):
    """A file that writes down what happens to it."""

    def __init__(
        self, recorder: "Recorder", filename: apsw.URIFilename | str | None, flags: list[int]
    ) -> None:
        path = filename.filename() if isinstance(filename, apsw.URIFilename) else filename
        self._name = Path(path or "").name
        self._recorder = recorder
        recorder.log.append(Opened(self._name, bool(flags[0] & DIRSYNC_FLAGS)))
        super().__init__("", filename, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 # names of SQLite
        super().xWrite(data, offset)
        self._recorder.log.append(Written(self._name, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        super().xTruncate(newsize)
        self._recorder.log.append(Truncated(self._name, newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._recorder.before_sync(self._name)
        super().xSync(flags)
        self._recorder.log.append(Synced(self._name))


class Recorder(apsw.VFS):
    """Writes down what happens to the files. `failing_syncs` syncs fail from now on."""

    def __init__(self, name: str) -> None:
        self.log: list[Operation] = []
        self.failing_syncs = 0
        super().__init__(name, "")

    def before_sync(self, name: str) -> None:
        """Fail the sync if it has to."""
        if self.failing_syncs:
            self.failing_syncs -= 1
            raise apsw.IOError(f"sync of {name} failed")

    def xOpen(  # noqa: N802
        self, name: apsw.URIFilename | str | None, flags: list[int]
    ) -> RecordedFile:
        return RecordedFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        super().xDelete(filename, syncdir)
        self.log.append(Deleted(Path(filename).name, bool(syncdir)))


class _Inode:
    def __init__(self, *, syncs_folder: bool) -> None:
        self.syncs_folder = syncs_folder
        self.synced = b""
        self.now = bytearray()
        self.unsynced: list[Written | Truncated] = []

    def change(self, operation: Written | Truncated) -> None:
        _apply(self.now, operation)
        self.unsynced.append(operation)


def _apply(content: bytearray, operation: Written | Truncated) -> None:
    if isinstance(operation, Truncated):
        del content[operation.size :]
        return
    missing = operation.offset - len(content)
    if missing > 0:
        content.extend(bytes(missing))
    content[operation.offset : operation.offset + len(operation.data)] = operation.data


class Disk:
    """What the files hold, and what of it a power cut leaves."""

    def __init__(self) -> None:
        self._names: dict[str, _Inode] = {}
        self._safe_names: dict[str, _Inode] = {}
        self.acknowledged: list[str] = []

    def play(self, operation: Operation) -> None:
        """Let one operation happen."""
        match operation:
            case Opened(name, syncs_folder):
                self._names.setdefault(name, _Inode(syncs_folder=syncs_folder))
            case Written(name) | Truncated(name):
                self._names[name].change(operation)
            case Synced(name):
                self._sync(self._names[name])
            case Deleted(name, syncs_folder):
                self._names.pop(name, None)
                if syncs_folder:
                    self._safe_names = dict(self._names)
            case Acknowledged(change_id):
                self.acknowledged.append(change_id)

    def _sync(self, inode: _Inode) -> None:
        inode.synced = bytes(inode.now)
        inode.unsynced.clear()
        if inode.syncs_folder:
            inode.syncs_folder = False
            self._safe_names = dict(self._names)

    def cuts(self) -> Iterator[dict[str, bytes]]:
        """Yield what the files may hold after a power cut now.

        Everything unsynced is dropped; or all of it but the last write, which is torn; or the last
        write alone has reached the disk before those that were asked for earlier.
        """
        yield {name: inode.synced for name, inode in self._safe_names.items()}
        yield {name: _torn(inode) for name, inode in self._safe_names.items()}
        yield {name: _last_only(inode) for name, inode in self._safe_names.items()}


def _torn(inode: _Inode) -> bytes:
    if not inode.unsynced:
        return inode.synced
    content = bytearray(inode.synced)
    for operation in inode.unsynced[:-1]:
        _apply(content, operation)
    for operation in inode.unsynced[-1:]:
        if isinstance(operation, Written):
            half = operation.data[: len(operation.data) // 2]
            _apply(content, msgspec.structs.replace(operation, data=half))
    return bytes(content)


def _last_only(inode: _Inode) -> bytes:
    if not inode.unsynced:
        return inode.synced
    content = bytearray(inode.synced)
    for operation in inode.unsynced[-1:]:
        _apply(content, operation)
    return bytes(content)
