"""Whoever asks something of a store beside the runs is killed before and after the commit.

Afterwards the store is as if nothing had been asked for, or as if it had been answered, never half;
every table is compared.
"""

import re
import shutil
from pathlib import Path
from typing import Any

import apsw
import pytest
from desk_stories import DESK
from story import KILLED, Nursery

NOT_COMPARED = {"sqlite_sequence", "sqlite_stat1"}


@pytest.fixture(scope="module")
def furnished(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store in which everything can be asked for."""
    folder = tmp_path_factory.mktemp("furnished") / "store"
    (folder / "work").mkdir(parents=True)
    for story, code in (("die", KILLED), ("fill", 0), ("furnish", 0)):
        assert nursery.run(folder, {}, None, tell=story) == code, said(folder)
    return folder


def said(folder: Path) -> str:
    return (folder / "stderr.txt").read_text()


def copy_of(base: Path, folder: Path) -> Path:
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*.sock"))
    return folder


def everything_in(folder: Path) -> dict[str, list[Any]]:
    """Return all rows of all tables."""
    connection = apsw.Connection(str(folder / "store.db"))
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        tables = [
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
            if name not in NOT_COMPARED
        ]
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in tables}
    finally:
        connection.close()


def lasting(tables: dict[str, list[Any]]) -> dict[str, list[str]]:
    """Return rows without ids and secrets that are drawn, and without moments."""
    return {name: sorted(map(shown, rows)) for name, rows in tables.items()}


def shown(row: tuple[object, ...]) -> str:
    values = [f"{len(value)} bytes" if isinstance(value, bytes) else value for value in row]
    return re.sub(r"[0-9a-f]{12,}|\b[12][0-9]{12}\b", "#", repr(values))


@pytest.mark.parametrize("asked", DESK)
def test_asked_for_by_somebody_who_is_killed(
    nursery: Nursery, furnished: Path, tmp_path: Path, asked: str
) -> None:
    as_before = everything_in(furnished)
    answered = copy_of(furnished, tmp_path / "answered")
    assert nursery.run(answered, {}, None, tell=asked) == 0, said(answered)
    as_after = everything_in(answered)
    assert as_after != as_before

    before = copy_of(furnished, tmp_path / "before")
    kill = {"commit": 1, "moment": "before"}
    assert nursery.run(before, {}, kill, tell=asked) == KILLED
    assert everything_in(before) == as_before
    # Asked again there is one answer.
    assert nursery.run(before, {}, {"commit": 1, "moment": "after"}, tell=asked) == KILLED
    assert lasting(everything_in(before)) == lasting(as_after)
