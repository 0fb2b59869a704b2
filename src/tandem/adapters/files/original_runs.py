"""Files in which the original engine kept its runs (run-lifecycle 8.1, 8.4).

The hot file (a bare map in version 0, an envelope in version 1) or a folder of history shards.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from tandem.domain.errors import NotFound, Refused

VERSION: Final = 1


class StoredRun(NamedTuple):
    """One stored run: its key in the file, what is stored, and where it was found."""

    key: str
    entry: Any
    source: str


def list_files(path: Path) -> list[Path]:
    """Return every file below a folder that may be a shard, or the one file."""
    return sorted(path.rglob("*.json")) if path.is_dir() else [path]


def read_file(path: Path) -> list[StoredRun]:
    """Return the runs of a hot file or of one shard.

    Raises:
        NotFound: there is no such file.
        Refused: it is none of these, or a newer version wrote it.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}") from error
    return list(read_text(text, source=path.name))


def read_text(text: bytes, *, source: str) -> Iterator[StoredRun]:
    """Yield the runs of one file; blank and `{}` hold none.

    Raises:
        Refused: as `read_file`.
    """
    if not text.strip():
        return
    try:
        document: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"{source} is not JSON: {error}", code="import_unreadable") from None
    if not isinstance(document, dict):
        raise Refused(f"{source} holds no runs: it is no JSON object", code="import_unreadable")
    version = document.get("schema_version")
    if version is None:
        runs: Any = document
    else:
        _check_version(version, source)
        runs = {_key(document["run"]): document["run"]} if "run" in document else None
        runs = document.get("runs") if runs is None else runs
    if not isinstance(runs, Mapping):
        raise Refused(f"{source} has neither `runs` nor `run`", code="import_unreadable")
    for key, entry in runs.items():
        yield StoredRun(key, entry, source)


def _check_version(version: Any, source: str) -> None:
    if not isinstance(version, int) or isinstance(version, bool) or version < 0:
        raise Refused(
            f"{source} has no version that is known: {version!r}", code="import_unreadable"
        )
    if version > VERSION:
        raise Refused(
            f"{source} has schema version {version}, this engine reads up to {VERSION}; "
            "nothing of it was imported, use a newer engine",
            code="import_too_new",
        )


def _key(run: Any) -> str:
    return str(run.get("run_id", "")) if isinstance(run, Mapping) else ""
