"""Removing what nothing needs any more: files of large outputs, scratch folders, leftover parts.

Everything is looked at one by one, so what goes on being written meanwhile is never in danger: a
file counts as garbage only when it is old and nothing names it, judged under the lock that `put`
takes (`artifacts.FileArtifacts`).
"""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from tandem.adapters.local.artifacts import exclusive
from tandem.domain.ids import Digest

IsReferenced = Callable[[Digest], bool]
IsEnded = Callable[[str, str, int], bool]


class Swept(msgspec.Struct, kw_only=True):
    """What was removed, or would be: how many of each kind, and how many bytes they take."""

    artifacts: int = 0
    artifact_bytes: int = 0
    scratch_folders: int = 0
    scratch_bytes: int = 0


def sweep_artifacts(
    folder: Path, is_referenced: IsReferenced, *, before_ms: int, dry_run: bool, swept: Swept
) -> None:
    """Remove files that no run names and that nobody put there since `before_ms`.

    Args:
        folder: of the artifacts.
        is_referenced: says whether any run names this digest.
        before_ms: what is younger stays; its run may not have recorded it yet.
        dry_run: only count.
        swept: is added to.
    """
    for path in sorted(folder.glob("*/??/*")):
        digest = Digest(f"sha256:{path.name}")
        is_leftover = path.suffix == ".tmp"
        if not is_leftover and (len(path.name) != 64 or is_referenced(digest)):
            continue
        with exclusive(folder):
            size = _old_size(path, before_ms)
            if size is None or (not is_leftover and is_referenced(digest)):
                continue
            if not dry_run:
                path.unlink(missing_ok=True)
        swept.artifacts += 1
        swept.artifact_bytes += size


def _old_size(path: Path, before_ms: int) -> int | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size if found.st_mtime_ns // 1_000_000 < before_ms else None


def sweep_scratch(
    folder: Path, is_ended: IsEnded, *, before_ms: int, dry_run: bool, swept: Swept
) -> None:
    """Remove the scratch folders of attempts that ended and were not written to since `before_ms`.

    Args:
        folder: of all scratch folders, `RUN/NODE/NUMBER` below it.
        is_ended: says whether attempt NUMBER of NODE in RUN has ended for good.
        before_ms: what is younger stays; a person may want to look at its logs.
        dry_run: only count.
        swept: is added to.
    """
    for attempt in sorted(folder.glob("*/*/*")):
        if not attempt.name.isdecimal() or attempt.is_symlink() or not attempt.is_dir():
            continue
        run_id, node_id, number = attempt.parts[-3:]
        size, newest_ms = _measure(attempt)
        if newest_ms >= before_ms or not is_ended(run_id, node_id, int(number)):
            continue
        if not dry_run:
            shutil.rmtree(attempt, ignore_errors=True)
            for parent in (attempt.parent, attempt.parent.parent):
                with suppress(OSError):
                    parent.rmdir()
        swept.scratch_folders += 1
        swept.scratch_bytes += size


def _measure(folder: Path) -> tuple[int, int]:
    """Return the bytes of the files below, and when anything there was last written."""
    size, newest = 0, 0
    for path in (folder, *folder.rglob("*")):
        with suppress(OSError):
            found = path.lstat()
            newest = max(newest, found.st_mtime_ns // 1_000_000)
            size += 0 if path.is_dir() else found.st_size
    return size, newest
