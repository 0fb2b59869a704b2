"""An operator's process killed with SIGKILL before and after the commit of its command.

Afterwards the run is as if the command had not been given, or as if it had been, never half; and
it goes on to the end that it would have had.
"""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from program import OPERATIONS, SIGNAL, TOKENS
from story import KILLED, Look, Nursery, Story, effects_of, outputs_of

COMMITS_MAX = 40
ONCE = {"max_attempts": 1}
BASES: dict[str, str] = {
    "pause": "queued",
    "resume": "paused",
    "cancel": "queued",
    "recover": "failed",
    "repair": "failed",
    "retry": "completed",
    "requeue": "failed",
    "continue": "blocked",
    "skip": "failed",
    "set-output": "completed",
    "dispose": "failed",
    "redeliver": "failed",
    "fork": "completed",
    "delete": "completed",
    "decide": "gated",
    "resolve": "waiting",
    "signal": "waiting",
    "allow": "spent",
    "hand-back": "running",
    "panic": "running",
    "account": "running",
    "own": "queued",
}
"""Every operation and the state of the run in which it is asked for."""
STATUS = {"gated": "awaiting_approval", "waiting": "paused", "spent": "paused"}
CUT_OFF = {
    "gated": {"gate": True},
    "waiting": {"wait": True},
    "spent": {"gate": True},
    "running": {"body": "b"},
}
"""Where the engine is killed that brings a run into this state."""


def automation(kind: str) -> dict[str, Any]:
    """Return `a`, `b` and `c`, where `b` ends as its kind says until the folder is mended."""
    functions = {"failed": "host:broken", "blocked": "host:draft", "spent": "host:spend"}
    function = functions.get(kind, "host:work")
    fields: dict[str, Any] = {"effects": "external"} if kind == "failed" else {}
    limits = {"max_total_tokens": TOKENS} if kind == "spent" else {}
    if kind == "blocked":
        fields = {
            "output_contract": {
                "kind": "structured_json",
                "schema": {"type": "object"},
                "enforcement": {"repair_budget": 0},
            }
        }
    b = node("b", function, "a", retry_policy=ONCE, **fields)
    if kind == "gated":
        b = {"node_id": "b", "depends_on": ["a"], "gate": {"required": True}}
    if kind == "waiting":
        key = {"source": "literal", "value": SIGNAL.subject}
        named = {"kind": "external_condition", "condition_key": key}
        wait = {**named, "timeout": {"expires_after_ms": 3_600_000}}
        b = {"node_id": "b", "depends_on": ["a"], "wait": wait}
    return {
        "automation_id": "operated",
        "nodes": [node("a", "host:work"), b, node("c", "host:work", "b")],
        "execution": limits,
    }


def node(name: str, function: str, *after: str, **fields: Any) -> dict[str, Any]:
    """Return a node that notes that it ran."""
    action = {"kind": "python", "function": function, "arguments": {"name": name}}
    return {"node_id": name, "depends_on": list(after), "action": action, **fields}


@pytest.fixture(scope="module")
def bases(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a folder with a run in each of the states."""
    made: dict[str, Path] = {}
    for kind in sorted(set(BASES.values())):
        folder = tmp_path_factory.mktemp("bases") / kind
        if kind in ("queued", "paused"):
            assert nursery.run(folder, automation(kind), None, operate="create") == 0
            if kind == "paused":
                assert nursery.run(folder, automation(kind), None, operate="pause") == 0
        else:
            kill = CUT_OFF.get(kind)
            assert nursery.run(folder, automation(kind), kill) == (KILLED if kill else 0)
        assert [status for status, _ in Look(folder).runs] == [STATUS.get(kind, kind)]
        made[kind] = folder
    return made


def happened(look: Look) -> list[tuple[Any, ...]]:
    """Return what the events say, without the ids of changes."""
    return [(seq, event, node, attempt) for seq, event, node, attempt, _ in look.events]


def copy_of(base: Path, folder: Path) -> Path:
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*.sock"))
    return folder


def go_on(nursery: Nursery, folder: Path, kind: str) -> dict[str, Any]:
    """Let an engine drive the newest run to where it rests; what was broken is mended."""
    (folder / "mended").touch()
    said = folder / "stderr.txt"
    assert nursery.run(folder, automation(kind), None) == 0, said.read_text()
    return outputs_of(folder)


def test_every_operation_is_killed() -> None:
    assert set(BASES) == set(OPERATIONS)


@pytest.mark.parametrize("operation", BASES)
def test_operator_killed_around_the_commit_of_a_command(
    nursery: Nursery, bases: dict[str, Path], tmp_path: Path, operation: str
) -> None:
    kind = BASES[operation]
    base, document = bases[kind], automation(kind)
    obeyed = copy_of(base, tmp_path / "obeyed")
    assert nursery.run(obeyed, document, None, operate=operation) == 0, (
        obeyed / "stderr.txt"
    ).read_text()
    as_before, as_after = happened(Look(base)), happened(Look(obeyed))
    assert as_before != as_after

    before = copy_of(base, tmp_path / "before")
    kill = {"commit": 1, "moment": "before"}
    assert nursery.run(before, document, kill, operate=operation) == KILLED
    assert happened(Look(before)) == as_before

    after = copy_of(base, tmp_path / "after")
    kill = {"commit": 1, "moment": "after"}
    assert nursery.run(after, document, kill, operate=operation) == KILLED
    assert happened(Look(after)) == as_after

    if operation == "delete":
        assert Look(after).runs == []
        return
    untouched = copy_of(base, tmp_path / "untouched")
    assert go_on(nursery, before, kind) == go_on(nursery, untouched, kind)
    assert go_on(nursery, after, kind) == go_on(nursery, obeyed, kind)
    assert effects_of(after) == effects_of(obeyed)
    assert effects_of(before) == effects_of(untouched)
    for folder in (before, after):
        look = Look(folder)
        assert look.integrity == [("ok",)]
        twice = Counter(attempt for attempt in started(look))
        assert set(twice.values()) <= {1}


@pytest.mark.parametrize("moment", ["before", "after"])
def test_engine_killed_around_a_pause_that_stops_what_runs(
    nursery: Nursery, tmp_path: Path, moment: str
) -> None:
    document = {
        "automation_id": "paused",
        "nodes": [node("a", "host:work"), node("b", "host:held", "a"), node("c", "host:work", "b")],
    }
    whole = tmp_path / "whole"
    assert nursery.run(whole, document, None) == 0, (whole / "stderr.txt").read_text()
    assert [e for _, e, *_ in Look(whole).events].count("run_paused") == 1
    assert effects_of(whole) == {"a": 1, "b": 2, "c": 1}
    story = Story(nursery, document, outputs_of(whole))
    for number in range(1, COMMITS_MAX):
        if not story.play(tmp_path / str(number), {"commit": number, "moment": moment}):
            break
    else:
        pytest.fail(f"the run took more than {COMMITS_MAX} commits")
    assert number > 6


def started(look: Look) -> list[tuple[Any, ...]]:
    """Return the attempts of the first run that began, each of which began once."""
    first_run = look.events[: next_run(look)]
    return [(node, attempt) for _, event, node, attempt, _ in first_run if event == "node_started"]


def next_run(look: Look) -> int:
    """Return where the events of the second run begin."""
    seqs = look.seqs
    return next((i for i in range(1, len(seqs)) if seqs[i] == 1), len(seqs))
