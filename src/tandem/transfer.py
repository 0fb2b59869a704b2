"""The runs of a store out and in: to a file, from one, and from files of the original."""

import base64
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from tandem.adapters.files.original_runs import StoredRun, list_files, read_file
from tandem.adapters.local.artifacts import FileArtifacts
from tandem.adapters.local.clock import SystemClock
from tandem.adapters.local.files import LocalFiles
from tandem.adapters.local.ids import RandomIds
from tandem.adapters.sql import portable
from tandem.adapters.sql.portable import (
    End,
    Header,
    Line,
    PortableContent,
    PortableDefinition,
    PortableRun,
)
from tandem.adapters.sqlite.histories import SOURCE_ORIGINAL, NewHistory
from tandem.adapters.sqlite.store import SqliteStore
from tandem.adapters.sqlite.transfer import Imported, LeftOut
from tandem.domain import original
from tandem.domain.artifact import ArtifactRef
from tandem.domain.errors import NotFound, Refused, StoreUnavailable
from tandem.domain.ids import ChangeId, TenantId
from tandem.domain.json import canonical, digest, encode
from tandem.domain.original import OriginalRun
from tandem.engine.runnable import unrunnable
from tandem.settings import Settings
from tandem.wiring import open_store

RUNS_AT_ONCE: Final = 50
LINE_BYTES_MAX: Final = 1 << 30
_TOLD_MAX: Final = 3
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC

Progress = Callable[[int], None]


class Exported(msgspec.Struct, kw_only=True):
    """What an export holds. `missing` are large outputs whose bytes are gone.

    `left_out` says of runs that could not be read, wholly or in part, why. `not_exported` counts
    what the store keeps beside its runs: an export is of runs.
    """

    runs: int = 0
    definitions: int = 0
    contents: int = 0
    missing: int = 0
    size_bytes: int = 0
    left_out: list[str] = msgspec.field(default_factory=list)
    not_exported: dict[str, int] = msgspec.field(default_factory=dict)


class Tally(msgspec.Struct, kw_only=True):
    """What an import did, in runs.

    `renewed` were here already and are told anew, from a copy that says more. `differing` and
    `corrupt` are ids, `unreadable` says of files of a folder why they could not be read, and
    `left_out` of runs, and of what belongs to them, why they did not come in.
    """

    imported: int = 0
    paused: int = 0
    same: int = 0
    renewed: int = 0
    differing: list[str] = msgspec.field(default_factory=list)
    corrupt: list[str] = msgspec.field(default_factory=list)
    unreadable: list[str] = msgspec.field(default_factory=list)
    left_out: list[str] = msgspec.field(default_factory=list)
    contents: int = 0

    def add(self, found: list[Imported]) -> None:
        """Count what became of runs."""
        for one in found:
            self.left_out += one.said
            match one.outcome:
                case "imported":
                    self.imported += 1
                case "paused":
                    self.paused += 1
                case "same":
                    self.same += 1
                case "renewed":
                    self.renewed += 1
                case "differs":
                    self.differing.append(one.run_id)
                case _:
                    pass

    @property
    def here(self) -> int:
        """How many runs of what was read are in the store now."""
        return self.imported + self.paused + self.same + self.renewed + len(self.differing)


# Out


def export_to(
    settings: Settings, path: Path, *, with_contents: bool, progress: Progress
) -> Exported:
    """Write every run of the store to a new file, as they are at one moment.

    Args:
        settings: of this process.
        path: the file; it must not exist.
        with_contents: write the bytes of large outputs too.
        progress: hears the number of runs written so far.

    Raises:
        Refused: the file exists.
        StoreUnavailable: the store cannot be read, or the file not be written; none is left.
    """
    if path.exists():
        raise Refused(f"{path} exists; name another file or remove it", code="file_exists")
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    store = open_store(settings)
    try:
        found = _write(settings, store, partial, with_contents=with_contents, progress=progress)
        os.link(partial, path)
        return found
    except FileExistsError:
        raise Refused(f"{path} exists; name another file", code="file_exists") from None
    except OSError as error:
        raise StoreUnavailable(f"cannot write {path}: {error.strerror}") from error
    finally:
        store.close()
        with suppress(OSError):
            partial.unlink()


def _write(
    settings: Settings,
    store: SqliteStore,
    partial: Path,
    *,
    with_contents: bool,
    progress: Progress,
) -> Exported:
    found = Exported()
    hashed = sha256()
    # It holds what runs were given and made: for its owner alone, as the store itself is.
    with os.fdopen(os.open(partial, _NEW_FILE, 0o600), "wb") as file:

        def write(line: Line) -> None:
            text = encode(line) + b"\n"
            hashed.update(text)
            found.size_bytes += file.write(text)

        now_ms = SystemClock().now_ms()
        write(Header(format=portable.FORMAT, version=portable.VERSION, exported_at_ms=now_ms))
        contents = _Contents(settings) if with_contents else None
        for line in store.export():
            if isinstance(line, LeftOut):
                found.left_out.append(line.said)
                continue
            write(line)
            if isinstance(line, PortableDefinition):
                found.definitions += 1
                continue
            found.runs += 1
            progress(found.runs)
            for content in contents.of(line, found) if contents is not None else ():
                write(content)
        write(
            End(
                runs=found.runs,
                definitions=found.definitions,
                contents=found.contents,
                digest=hashed.hexdigest(),
            )
        )
        file.flush()
        os.fsync(file.fileno())
    found.not_exported = dict(store.count_beside())
    return found


class _Contents:
    """The bytes of large outputs, each once for each tenant."""

    def __init__(self, settings: Settings) -> None:
        self._artifacts = FileArtifacts(settings.state_dir / "artifacts")
        self._given: set[tuple[str, str]] = set()

    def of(self, run: PortableRun, found: Exported) -> Iterator[PortableContent]:
        tenant = TenantId(run.run["tenant"])
        for row in run.rows.get("artifact", ()):
            ref = msgspec.json.decode(row["ref"], type=ArtifactRef)
            if ref.path or (tenant, ref.digest) in self._given:
                continue
            self._given.add((tenant, ref.digest))
            try:
                content = self._artifacts.get(tenant, ref)
            except NotFound:
                found.missing += 1
                continue
            found.contents += 1
            text = base64.b64encode(content).decode()
            yield PortableContent(tenant=tenant, digest=ref.digest, content=text)


# In


async def import_from(
    settings: Settings, path: Path, *, tenant: TenantId, progress: Progress
) -> Tally:
    """Read runs from an export, or from what the original engine stored, into the store.

    Runs that are here already are compared and left as they are, so an import that was cut off
    is simply made again.

    Args:
        settings: of this process.
        path: a file, or a folder of history shards of the original.
        tenant: whose the runs of the original become; an export names its own.
        progress: hears the number of runs read so far.

    Raises:
        NotFound: there is no such file.
        Refused: it is no such file, was changed, is cut off, or a newer version wrote it. Files of
            a folder of which that is true are left out, and `unreadable` says so; runs of a whole
            file that cannot be understood are, and `left_out` says so.
        StoreUnavailable: the store cannot be written; what was imported before stays.
    """
    lines = _is_export(path)
    async with _opened(settings) as store:
        if lines:
            return await _Import(settings, store, progress).lines(path)
        return await _import_original(store, path, tenant=tenant, progress=progress)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[SqliteStore]:
    store = open_store(settings)
    try:
        yield store
    finally:
        store.close()


def _is_export(path: Path) -> bool:
    """Say whether a file begins with the header of an export."""
    if path.is_dir():
        return False
    try:
        with path.open("rb") as file:
            first = file.readline(4_096)
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}") from error
    return first.startswith(b'{"kind":"header"')


class _Import:
    """Reads an export line by line and writes its runs a batch at a time."""

    def __init__(self, settings: Settings, store: SqliteStore, progress: Progress) -> None:
        self._artifacts = FileArtifacts(settings.state_dir / "artifacts")
        self._store = store
        self._progress = progress
        self._ids = RandomIds()
        self._clock = SystemClock()
        self._definitions: list[PortableDefinition] = []
        self._runs: list[PortableRun] = []
        self._read = 0
        self.tally = Tally()

    async def lines(self, path: Path) -> Tally:
        hashed = sha256()
        end: End | None = None
        with path.open("rb") as file:
            for number, text in enumerate(iter(lambda: file.readline(LINE_BYTES_MAX), b""), 1):
                if end is not None:
                    raise Refused(f"line {number} comes after the end", code="export_damaged")
                line = portable.read_line(text, number=number)
                if isinstance(line, End):
                    end = line
                else:
                    hashed.update(text)
                    await self._take(line)
        await self._flush()
        if end is None:
            raise Refused(
                f"{path} is cut off: its last line is missing; {self._came()}",
                code="export_damaged",
            )
        if end.digest != hashed.hexdigest() or end.runs != self._read:
            raise Refused(
                f"{path} is not as it was written: lines are missing, were moved or changed; "
                f"{self._came()}",
                code="export_damaged",
            )
        return self.tally

    def _came(self) -> str:
        """Say what of a file that is damaged came in all the same."""
        told = "".join(f"; {said}" for said in self.tally.left_out[:_TOLD_MAX])
        return f"{self.tally.here} of the {self._read} whole runs in it are here now{told}"

    async def _take(self, line: Line) -> None:
        match line:
            case PortableDefinition():
                # A damaged one is none; the runs that need it are left out.
                if portable.is_whole(line):
                    self._definitions.append(line)
            case PortableRun():
                self._runs.append(line)
                self._read += 1
                if len(self._runs) >= RUNS_AT_ONCE:
                    await self._flush()
            case PortableContent():
                # Bytes first, then the rows that name them, as a running engine does it.
                content = base64.b64decode(line.content)
                self._artifacts.put(
                    TenantId(line.tenant), "import", content, media_type="application/json"
                )
                self.tally.contents += 1
            case _:
                pass

    async def _flush(self) -> None:
        if not self._runs:
            return
        found = await self._store.import_runs(
            self._definitions,
            self._runs,
            change_id=ChangeId(f"import-{self._ids.new()}"),
            now_ms=self._clock.now_ms(),
        )
        self.tally.add(list(found))
        self._definitions, self._runs = [], []
        self._progress(self._read)


async def _import_original(
    store: SqliteStore, path: Path, *, tenant: TenantId, progress: Progress
) -> Tally:
    tally = Tally()
    ids = RandomIds()
    clock = SystemClock()
    waiting: list[NewHistory] = []
    read = 0

    async def flush() -> None:
        if waiting:
            found = await store.import_histories(waiting, now_ms=clock.now_ms())
            tally.add(list(found))
            waiting.clear()
            progress(read)

    for stored, found in _entries(path, tally):
        change_id = ChangeId(f"import-{ids.new()}")
        history = _history(stored, found, tenant=tenant, change_id=change_id)
        read += 1
        if isinstance(found, str):
            tally.corrupt.append(history.run.run_id)
        waiting.append(history)
        if len(waiting) >= RUNS_AT_ONCE:
            await flush()
    await flush()
    return tally


def _entries(path: Path, tally: Tally) -> Iterator[tuple[StoredRun, OriginalRun | str]]:
    """Yield the entries of each file once all of it was understood.

    A file of a folder that is not leaves the others alone; one that was named is refused.
    """
    for file in list_files(path):
        try:
            entries = read_file(file)
            read = [original.read_entry(stored.key, stored.entry) for stored in entries]
        except (NotFound, Refused) as error:
            if not path.is_dir():
                raise
            tally.unreadable.append(f"{file}: {error}")
            continue
        yield from zip(entries, read, strict=True)


def _history(
    stored: StoredRun, found: OriginalRun | str, *, tenant: TenantId, change_id: ChangeId
) -> NewHistory:
    """Return one stored run as ours; a text says why it could not be read."""
    if isinstance(found, str):
        told = original.tell_corrupt(
            stored.key, stored.entry, found, tenant=tenant, change_id=change_id
        )
    else:
        automation = original.automation_of(found)
        problems = unrunnable(automation)
        obstacles = "; ".join(problem.message for problem in problems[:3])
        workspace = automation.workspace_root
        told = original.tell(
            found,
            tenant=tenant,
            change_id=change_id,
            obstacles=obstacles,
            real_path=LocalFiles().real_path(workspace) if workspace else "",
        )
    return NewHistory(
        run=told.run,
        document=told.document,
        change=told.change,
        source=f"{SOURCE_ORIGINAL}{stored.source}",
        digest=digest(canonical(stored.entry)),
        entry=encode(stored.entry),
    )
