"""A turn of what an engine looks after by itself, killed before and after each of its commits.

One store has something to do for every part of a turn. One process after the other takes the turn
and is killed at its first commit: before it, then after it. In the end the store is as one in
which nobody was killed, and its runs end in the same way.
"""

import fcntl
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest
from story import KILLED, Nursery, effects_of
from turn_stories import parts_of_a_turn

from tandem.settings import Settings
from tandem.wiring import open_engine

LOST = {"lost-1": 1, "lost-2": 2, "lost-3": 2}
"""Runs of dead engines and how often their bodies run; the first one cannot be read any more."""
TURNS_MAX = 8
KILLS_MAX = 80
FOUND = {
    "runs": "SELECT automation_id, trigger_type, trigger_reason, status, event_seq, interruptions,"
    " auto_resumes, stop_kind, queue_reason, archived_at_ms IS NULL, learning_summary IS NULL"
    " FROM run",
    "events": "SELECT automation_id, seq, event, node_id, attempt"
    " FROM lifecycle_event JOIN run USING (run_no)",
    "gates": "SELECT node_id, status, on_expiry, decision, policy_state FROM gate",
    "waits": "SELECT node_id, status, policy_state FROM wait",
    "signals": "SELECT kind, subject, open_after FROM signal",
    "candidates": "SELECT automation_id, kind, status, candidate FROM learning_candidate",
    "due": "SELECT review_request_id = '' FROM learning_due",
    "reviews": "SELECT automation_id, runs_since_review, runs_total, review_required FROM review",
    "firings": "SELECT occurrence, outcome, code, missed FROM firing",
    "handoffs": "SELECT handoff_id, archived_at_ms IS NULL FROM consumed_handoff",
    "deliveries": "SELECT status, run_id IS NULL FROM webhook_delivery",
    "counted": "SELECT admitted_total, completed_total FROM admission",
    "rows": "SELECT (SELECT count(*) FROM request_key), (SELECT count(*) FROM webhook_payload),"
    " (SELECT count(*) FROM signal_key), (SELECT count(*) FROM run_facts),"
    " (SELECT count(*) FROM attempt), (SELECT count(*) FROM session),"
    " (SELECT count(*) FROM archive_part), (SELECT count(*) FROM workspace_lock)",
}
"""What two stores have in common to which the same has happened."""


def found_in(folder: Path) -> dict[str, list[str]]:
    """Return what is in a store, without ids that are drawn, moments and the order of the runs."""
    connection = apsw.Connection(str(folder / "store.db"))
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return {
            name: sorted(lasting(repr(row)) for row in connection.execute(sql))
            for name, sql in FOUND.items()
        }
    finally:
        connection.close()


def lasting(text: str) -> str:
    """Return the text without drawn ids and moments."""
    return re.sub(r"[0-9a-f]{16,}|\b[12][0-9]{12}\b|20\d\d-\d\d-\d\d.\d\d:\d\d:\d\dZ", "#", text)


@contextmanager
def hung(folder: Path) -> Iterator[int]:
    """Hold the lock of the engine that died last, as if it stood still."""
    lock = max((folder / "engines").glob("*.lock"), key=lambda path: path.stat().st_mtime_ns)
    fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield fd
    finally:
        os.close(fd)


def tell(nursery: Nursery, folder: Path, story: str, kill: dict[str, Any] | None = None) -> bool:
    """Tell a part of the story; return whether it was cut off."""
    code = nursery.run(folder, {}, kill, tell=story)
    assert code in (0, KILLED), (story, (folder / "stderr.txt").read_text())
    return code == KILLED


def fill(nursery: Nursery, folder: Path) -> Path:
    (folder / "work").mkdir(parents=True)
    for _ in LOST:
        assert tell(nursery, folder, "die")
    assert not tell(nursery, folder, "fill")
    (folder / "at_work.log").unlink()
    return folder


def at_work(folder: Path) -> list[str]:
    """Return which part of a turn made each of the commits."""
    log = folder / "at_work.log"
    return log.read_text().split() if log.exists() else []


@pytest.fixture(scope="module")
def undisturbed(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store in which turns were taken until nothing was left to do."""
    folder = fill(nursery, tmp_path_factory.mktemp("undisturbed") / "store")
    with hung(folder):
        assert not tell(nursery, folder, "turn")
    for _ in range(TURNS_MAX):
        before = len(at_work(folder))
        assert not tell(nursery, folder, "turn")
        if len(at_work(folder)) == before:
            return folder
    pytest.fail("there is always something left to do")


async def test_every_part_of_a_turn_has_something_to_do(undisturbed: Path, tmp_path: Path) -> None:
    async with open_engine(Settings(state_dir=tmp_path), drives=False) as parts:
        names = set(parts_of_a_turn(parts.engine))
    assert set(at_work(undisturbed)) == names


def test_turn_that_is_killed_around_each_of_its_commits_does_everything_once(
    nursery: Nursery, undisturbed: Path, tmp_path: Path
) -> None:
    folder = fill(nursery, tmp_path / "store")
    before = found_in(folder)
    killed: Counter[str] = Counter()
    with hung(folder) as fd:
        for _ in range(KILLS_MAX):
            if not tell(nursery, folder, "turn", {"commit": 1, "moment": "before"}):
                break
            # Nothing of what was about to be written is there; then all of it, and once.
            assert found_in(folder) == before
            assert tell(nursery, folder, "turn", {"commit": 1, "moment": "after"})
            before, name = found_in(folder), at_work(folder)[-1]
            killed[name] += 1
            if name == "reap":
                fcntl.flock(fd, fcntl.LOCK_UN)
        else:
            pytest.fail(f"the turn took more than {KILLS_MAX} commits")

    assert killed == Counter(at_work(undisturbed))
    assert found_in(folder) == found_in(undisturbed)
    assert not tell(nursery, folder, "finish")
    assert not tell(nursery, undisturbed, "finish")
    assert found_in(folder) == found_in(undisturbed)
    assert effects_of(folder) == effects_of(undisturbed)
    ran = effects_of(folder)
    assert {name: ran[name] for name in LOST} == LOST
    assert all(ran[name] == 1 for name in ran if name not in LOST)


def test_end_that_a_review_counts_is_counted_once_wherever_its_engine_is_killed(
    nursery: Nursery, tmp_path: Path
) -> None:
    action = {"kind": "python", "function": "host:work", "arguments": {"name": "a"}}
    reviewed = {"automation_id": "reviewed", "nodes": [{"node_id": "a", "action": action}]}
    cut_off = 0
    for number, moment in itertools.product(range(1, KILLS_MAX), ("before", "after")):
        folder, kill = tmp_path / f"{number}-{moment}", {"commit": number, "moment": moment}
        assert not tell(nursery, folder, "enrol")
        is_cut_off = nursery.run(folder, reviewed, kill) == KILLED
        if is_cut_off:
            assert nursery.run(folder, reviewed, None) == 0, (folder / "stderr.txt").read_text()
        found = found_in(folder)
        assert found["reviews"] == ["('reviewed', 1, 1, 1)"], kill
        assert found["due"] == [], kill
        (candidate,) = found["candidates"]
        assert candidate.count("automation-v2-run-") == 3, kill  # its source, evidence and runs
        assert sum("automation_review_requested" in event for event in found["events"]) == 1, kill
        if not is_cut_off:
            break
        cut_off += 1
    assert cut_off >= 10
