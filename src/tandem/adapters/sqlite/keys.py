"""Keys that runs wait for: taken with a claim, freed when the run rests, told to those who wait.

A key is a workspace or a concurrency key. All of it happens in the transaction of the change that
causes it, so a run never waits for a key that nobody holds.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import apsw

from tandem.domain.admission import Lock, holds_keys, paths_around, range_inside
from tandem.domain.change import Change, Throttle
from tandem.domain.json import encode
from tandem.domain.lifecycle import DRIVEN, TERMINAL, RunState
from tandem.domain.run import Run

WOKEN_MAX: Final = 16
"""So many waiting runs are told that a key is free; most find it taken again by the first."""
ANY_NUMBER: Final = -1

Statements = Mapping[str, str]


def follow(connection: apsw.Connection, sql: Statements, change: Change) -> None:
    """Take or free what the run holds, as this change leaves it."""
    run = change.run
    if change.status_before is RunState.QUEUED and run.status in DRIVEN:
        if run.lock_path:
            values = (run.lock_path, run.run_no, run.epoch, run.engine_id, run.updated_at_ms)
            _rows(connection, sql["take_workspace"], values)
    elif not holds_keys(run):
        _free(connection, sql, run)
    if run.status in TERMINAL and change.status_before not in TERMINAL:
        _rows(connection, sql["count_completed"], ())


def _free(connection: apsw.Connection, sql: Statements, run: Run) -> None:
    now_ms = run.updated_at_ms
    if run.lock_path:
        for (path,) in _rows(connection, sql["release_workspace"], (run.run_no,)):
            wake(connection, sql, path, claims=ANY_NUMBER, now_ms=now_ms)
    if run.concurrency_key:
        claims = count_claims(connection, sql, run.concurrency_key)
        wake(connection, sql, run.concurrency_key, claims=claims, now_ms=now_ms)


def wake(
    connection: apsw.Connection,
    sql: Statements,
    key: str,
    *,
    claims: int,
    now_ms: int,
    limit: int = WOKEN_MAX,
) -> int:
    """Put runs that wait for this key back into the queue; return how many."""
    return len(_rows(connection, sql["wake_blocked"], (now_ms, key, claims, limit)))


def count_claims(connection: apsw.Connection, sql: Statements, key: str) -> int:
    """Return how many runs hold a place under a concurrency key."""
    return int(_rows(connection, sql["count_under_key"], (key,))[0][0])


def find_lock(connection: apsw.Connection, sql: Statements, path: str) -> Lock | None:
    """Return the lock that keeps others out of this workspace, if there is one."""
    first, past = range_inside(path)
    around = encode(paths_around(path)).decode()
    found = _rows(connection, sql["find_lock"], (around, first, past))
    return Lock(**dict(zip(Lock.__struct_fields__, found[0], strict=True))) if found else None


def record_throttle(
    connection: apsw.Connection, sql: Statements, run: Run, throttle: Throttle
) -> None:
    """Remember that a provider of this tenant wants to be left alone."""
    now_ms = run.updated_at_ms
    _rows(connection, sql["forget_throttles"], (run.tenant, now_ms))
    values = (run.tenant, throttle.provider, throttle.until_ms, now_ms, run.run_no)
    _rows(connection, sql["put_throttle"], values)


def _rows(connection: apsw.Connection, sql: str, values: Sequence[Any]) -> list[Any]:
    return connection.execute(sql, values).fetchall()
