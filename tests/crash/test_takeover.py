"""What a killed engine leaves: nothing of an old attempt lives when the next one begins."""

import os
import shutil
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from story import KILLED, Look, Nursery, outputs_of

PLAIN = "echo ready; sleep 600"
DAEMON = "( setsid sh -c 'trap \"\" TERM HUP; echo ready; sleep 600' & ) ; sleep 600"
"""A child that leaves the session, loses its parent and ignores polite signals."""

BODY = """
exec 9>../lock
flock -n 9 || { echo overlap >> ../overlaps; exit 3; }
echo start >> ../bodies
if [ ! -e ../second ]; then
  : > ../second
  %s
fi
echo end >> ../bodies
echo done
"""
"""It holds a lock, its children hold it with it: whoever finds it taken has met an old body."""

ISOLATIONS = ["subreaper", "pid_namespace"] if shutil.which("bwrap") else ["subreaper"]


def automation(script: str, mark: str) -> dict[str, Any]:
    """Return one command that can be found by its mark."""
    action = {"kind": "command", "shell": True, "script": BODY % script, "env": {"MARK": mark}}
    return {"automation_id": "one", "nodes": [{"node_id": "only", "action": action}]}


def marked(mark: str) -> list[int]:
    """Return the processes that carry the mark in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            if f"MARK={mark}".encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue  # it has just ended
    return found


@pytest.fixture
def mark() -> Iterator[str]:
    """A mark for the processes of one test; none of them outlives it."""
    made = uuid.uuid4().hex
    yield made
    for pid in marked(made):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("script", [PLAIN, DAEMON], ids=["plain", "daemon"])
def test_no_two_bodies_of_a_node_overlap(
    nursery: Nursery, tmp_path: Path, mark: str, script: str, isolation: str
) -> None:
    folder = tmp_path / "run"
    document = automation(script, mark)

    assert nursery.run(folder, document, {"says": "ready"}, isolation=isolation) == KILLED
    assert nursery.run(folder, document, None, isolation=isolation) == 0

    assert outputs_of(folder) == {"end": "completed", "only": "done\n"}
    assert not (folder / "overlaps").exists()
    assert (folder / "bodies").read_text().split() == ["start", "start", "end"]
    assert marked(mark) == []
    assert Look(folder).attempts == 2


def test_leftovers_are_found_when_their_supervisor_died_too(
    nursery: Nursery, tmp_path: Path, mark: str
) -> None:
    """Nobody is left who would end the daemon but the engine that takes over."""
    folder = tmp_path / "run"
    document = automation(DAEMON, mark)

    assert nursery.run(folder, document, {"says": "ready", "supervisors": True}) == KILLED
    assert marked(mark) != []
    assert nursery.run(folder, document, None) == 0

    assert not (folder / "overlaps").exists()
    assert (folder / "bodies").read_text().split() == ["start", "start", "end"]
    assert marked(mark) == []


@pytest.mark.parametrize("times", [3])
def test_every_takeover_ends_what_the_last_engine_left(
    nursery: Nursery, tmp_path: Path, mark: str, times: int
) -> None:
    """Killed several times in the same command, each life meets a free lock."""
    folder = tmp_path / "run"
    document = automation(DAEMON, mark)
    for _ in range(times):
        assert nursery.run(folder, document, {"says": "ready"}) == KILLED
        (folder / "second").unlink()
    (folder / "second").touch()
    assert nursery.run(folder, document, None) == 0
    assert not (folder / "overlaps").exists()
    assert (folder / "bodies").read_text().split() == ["start"] * (times + 1) + ["end"]
    assert marked(mark) == []
