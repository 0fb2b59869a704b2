"""A run that is killed and taken up again: real engines, and a look at their store from outside."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import apsw

PROGRAM = Path(__file__).with_name("program.py")
ROOT = Path(__file__).parents[2]


class Nursery:
    """Starts engines in processes of their own, one at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

        self.took_s = 0.0

    def run(
        self,
        folder: Path,
        automation: dict[str, Any],
        kill: dict[str, Any] | None,
        *,
        isolation: str = "subreaper",
        operate: str = "",
        **more: Any,
    ) -> int:
        """Run one engine to its end and return its exit code; minus 9 when it was killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        job = {
            "folder": str(folder),
            "automation": automation,
            "kill": kill,
            "isolation": isolation,
            **more,
            "operate": operate,
        }
        print(json.dumps(job), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        self.took_s = float(answer["took_s"])
        return int(answer["code"])

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=30)


class Look:
    """What a store holds, read from a copy, so that looking changes nothing."""

    def __init__(self, folder: Path) -> None:
        copy = folder / "look"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for name in ("store.db", "store.db-wal"):
            if (folder / name).exists():
                shutil.copyfile(folder / name, copy / name)
        connection = apsw.Connection(str(copy / "store.db"))
        try:
            self.integrity = connection.execute("PRAGMA integrity_check").fetchall()
            self.runs = connection.execute("SELECT status, event_seq FROM run").fetchall()
            self.events = connection.execute(
                "SELECT seq, event, node_id, attempt, change_id FROM lifecycle_event"
                " ORDER BY run_no, seq"
            ).fetchall()
            self.attempts = connection.execute("SELECT count(*) FROM attempt").fetchall()[0][0]
        except apsw.SQLError:
            # The kill came before the tables were made.
            self.runs, self.events, self.attempts = [], [], 0
        finally:
            connection.close()

    @property
    def completed(self) -> set[str]:
        """The nodes whose completion is recorded."""
        return {str(node) for _, event, node, *_ in self.events if event == "node_completed"}

    @property
    def seqs(self) -> list[int]:
        """The numbers of the events."""
        return [int(seq) for seq, *_ in self.events]


def effects_of(folder: Path) -> Counter[str]:
    """Return how often each body ran."""
    try:
        lines = (folder / "effects.log").read_text().splitlines()
    except FileNotFoundError:
        lines = []
    return Counter(line.split()[0] for line in lines)


def outputs_of(folder: Path) -> dict[str, Any]:
    """Return the outputs of the run that ended there, without moments and the ids of waits."""
    outputs: dict[str, Any] = json.loads((folder / "outputs.json").read_text())
    return {name: _lasting(value) for name, value in outputs.items()}


def _lasting(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {
        key: _lasting(inner)
        for key, inner in value.items()
        if not key.endswith("_at_ms") and key != "wait_id"
    }


KILLED = -signal.SIGKILL


class Story:
    """One run that is killed, looked at, and taken up again."""

    def __init__(self, nursery: Nursery, automation: dict[str, Any], expected: dict[str, Any]):
        self._nursery = nursery
        self._automation = automation
        self._expected = expected
        self.first_took_s = 0.0

    def play(self, folder: Path, kill: dict[str, Any]) -> bool:
        """Kill one run, restart it, check everything; False when the kill came too late."""
        code = self._nursery.run(folder, self._automation, kill)
        self.first_took_s = self._nursery.took_s
        said = folder / "stderr.txt"
        assert code in (0, KILLED), (code, said.read_text() if said.exists() else "")
        if (folder / "store.db").exists():
            self._restart_and_check(folder, kill)
        else:
            self._restart(folder, kill)
        return code == KILLED

    def _restart(self, folder: Path, kill: dict[str, Any]) -> None:
        assert self._nursery.run(folder, self._automation, None) == 0, (
            kill,
            (folder / "stderr.txt").read_text(),
        )
        assert outputs_of(folder) == self._expected, kill

    def _restart_and_check(self, folder: Path, kill: dict[str, Any]) -> None:
        before, ran_before = Look(folder), effects_of(folder)
        self._restart(folder, kill)
        after, ran_after = Look(folder), effects_of(folder)

        # Nothing recorded was lost, and it is exactly what it was.
        assert after.events[: len(before.events)] == before.events, kill
        assert after.integrity == [("ok",)], kill
        assert after.seqs == list(range(1, len(after.events) + 1)), kill
        assert after.runs == [("completed", len(after.events))], kill
        # No node whose completion was recorded ran again, and each completed once.
        again = {name for name in before.completed if ran_after[name] != ran_before[name]}
        assert again == set(), kill
        completions = Counter(
            node for _, event, node, *_ in after.events if event == "node_completed"
        )
        assert set(completions.values()) == {1}, (kill, completions)
        # Every body that ran was announced before it ran.
        started = Counter(node for _, event, node, *_ in after.events if event == "node_started")
        assert all(ran_after[name] <= started[name] for name in ran_after), kill
