"""What `tandem db export` and `import` carry, what they leave out, and that they say so."""

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tandem.adapters.sql import portable
from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.command import Cancel
from tandem.domain.ids import LOCAL_TENANT, NodeId, RunId
from tandem.domain.session import (
    AddInstance,
    AddSession,
    ClearSession,
    RunSessions,
    SessionStep,
    SetMcpServers,
)
from tandem.domain.signal import Signal, SignalKind
from tandem.testing.store_suite import NOW_MS, Scene, chain
from tests.adapters.cli.conftest import Answer, Call, sh

RUN = RunId("talks")


class Place:
    """A state directory, which is the one of the command line as long as nobody goes on."""

    def __init__(self, call: Call, folder: Path, enter: Callable[[Path], None]) -> None:
        self.call = call
        self.folder = folder
        self._enter = enter

    def enter(self) -> None:
        """Be the state directory of what is called from now on."""
        self._enter(self.folder)

    def within(self, story: Callable[[SqliteStore, Scene], Awaitable[None]]) -> None:
        """Let something happen in the store."""
        self.folder.mkdir(exist_ok=True)
        store = SqliteStore(self.folder / "tandem.db", synchronous="OFF")
        try:
            asyncio.run(_play(story, store))
        finally:
            store.close()

    def sessions(self, run_id: RunId = RUN) -> RunSessions:
        """Return what the record of a run says of its sessions."""
        store = SqliteStore(self.folder / "tandem.db", synchronous="OFF")
        try:
            return store.read_sessions(run_id, tenant=LOCAL_TENANT)
        finally:
            store.close()

    def tamper(self, *statements: str) -> None:
        """Change rows behind the store's back."""
        with sqlite3.connect(self.folder / "tandem.db") as connection:
            for statement in statements:
                assert connection.execute(statement).rowcount >= 1

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Return what a statement finds."""
        with sqlite3.connect(self.folder / "tandem.db") as connection:
            return connection.execute(statement).fetchall()

    def export(self, file: Path) -> Answer:
        """Export the store."""
        self.enter()
        return self.call("db", "export", str(file), "--json")

    def take(self, file: Path) -> Answer:
        """Import a file."""
        self.enter()
        return self.call("db", "import", str(file), "--json")


async def _play(story: Callable[[SqliteStore, Scene], Awaitable[None]], store: SqliteStore) -> None:
    await story(store, Scene(store, name=store.path.parent.name))


@pytest.fixture
def places(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Place, Place]:
    """Where runs are, and where they are to go."""

    def enter(folder: Path) -> None:
        monkeypatch.setenv("TANDEM_STATE_DIR", str(folder))

    here, there = (Place(call, tmp_path / name, enter) for name in ("here", "there"))
    return here, there


async def talk(store: SqliteStore, scene: Scene, *extra: SessionStep) -> None:
    """A run that had sessions and an instance, and was cancelled; then more bookkeeping."""
    await scene.claimed(RUN, chain(2))
    steps: tuple[SessionStep, ...] = (
        AddSession(session_id="z-first", run_id=RUN, node_id=NodeId("n0")),
        AddSession(session_id="a-second", run_id=RUN),
        SetMcpServers(session_id="a-second", servers=("files", "web")),
        AddInstance(instance_id="i2", run_id=RUN),
        AddInstance(instance_id="i1", run_id=RUN),
        ClearSession(session_id="a-second"),
        *extra,
    )
    for step in steps:
        await store.tend_session(step, tenant=LOCAL_TENANT)
    await scene.execute(RUN, Cancel())


def edit(file: Path, changed: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Change the lines of an export by hand, so that every digest fits again."""
    lines = [json.loads(text) for text in file.read_text().splitlines()]
    hashed = sha256()
    out: list[bytes] = []
    for line in lines:
        if line["kind"] != "end":
            change(line)
        if line["kind"] == "run":
            made = portable.PortableRun(run=line["run"], rows=line["rows"])
            line["digest"] = portable.digest_of(made)
        if line["kind"] == "end":
            line["digest"] = hashed.hexdigest()
        text = msgspec.json.encode(line) + b"\n"
        hashed.update(text)
        out.append(text)
    changed.write_bytes(b"".join(out))
    return changed


# Sessions


def test_sessions_and_instances_come_along(places: tuple[Place, Place], tmp_path: Path) -> None:
    here, there = places
    here.within(talk)
    # Numbers that differ, so that nothing is right by chance.
    there.within(lambda _store, scene: scene.create("other"))
    assert here.export(tmp_path / "all.jsonl").code == 0

    read = there.take(tmp_path / "all.jsonl")

    assert (read.code, read.json["imported"]) == (0, 1), read.err
    assert here.sessions().latest_session_id == "a-second"
    assert there.sessions() == here.sessions()
    for table in ("session", "instance"):
        columns = "*" if table == "session" else "tenant, run_id, instance_id, epoch"
        found = [place.rows(f"SELECT {columns} FROM {table} ORDER BY 1") for place in places]
        assert found[0] == found[1]
    assert there.export(tmp_path / "back.jsonl").code == 0
    line = (tmp_path / "all.jsonl").read_text().splitlines()[2]
    assert line in (tmp_path / "back.jsonl").read_text().splitlines()
    again = there.take(tmp_path / "all.jsonl")
    assert (again.code, again.json["same"]) == (0, 1)
    assert there.sessions() == here.sessions()
    assert here.take(tmp_path / "all.jsonl").json["same"] == 1


def test_session_of_another_run_is_kept_and_said(
    places: tuple[Place, Place], tmp_path: Path
) -> None:
    here, there = places
    here.within(talk)
    assert here.export(tmp_path / "all.jsonl").code == 0

    async def other(store: SqliteStore, scene: Scene) -> None:
        await scene.create("other")
        step = AddSession(session_id="a-second", run_id=RunId("other"))
        await store.tend_session(step, tenant=LOCAL_TENANT)

    there.within(other)
    before = there.rows("SELECT * FROM session")

    read = there.take(tmp_path / "all.jsonl")

    assert (read.code, read.json["imported"]) == (5, 1)
    (said,) = read.json["left_out"]
    assert "session a-second of run talks" in said
    assert "run other" in said
    assert there.rows("SELECT * FROM session WHERE session_id = 'a-second'") == before
    assert there.sessions().latest_session_id == "z-first"
    again = there.take(tmp_path / "all.jsonl")
    assert (again.code, again.json["same"]) == (0, 1)
    assert there.rows("SELECT * FROM session WHERE session_id = 'a-second'") == before


def test_session_that_waited_for_its_run_is_taken_over(
    places: tuple[Place, Place], tmp_path: Path
) -> None:
    here, there = places
    here.within(talk)
    assert here.export(tmp_path / "all.jsonl").code == 0

    async def early(store: SqliteStore, _scene: Scene) -> None:
        for step in (
            SetMcpServers(session_id="z-first", servers=("ours",)),
            AddSession(session_id="a-second", run_id=RUN),
            AddInstance(instance_id="i1", run_id=RUN),
        ):
            await store.tend_session(step, tenant=LOCAL_TENANT)

    there.within(early)

    read = there.take(tmp_path / "all.jsonl")

    assert (read.code, read.json["left_out"]) == (0, [])
    assert there.sessions() == here.sessions()
    found = "SELECT session_id, mcp_servers FROM session ORDER BY session_no"
    assert there.rows(found) == [("z-first", '["ours"]'), ("a-second", '["files","web"]')]


def test_export_from_before_sessions_is_still_the_same_run(
    places: tuple[Place, Place], tmp_path: Path
) -> None:
    here, there = places
    here.within(talk)
    assert here.export(tmp_path / "all.jsonl").code == 0

    def forget(line: dict[str, Any]) -> None:
        for table in ("session", "instance"):
            line.get("rows", {}).pop(table, None)

    old = edit(tmp_path / "all.jsonl", tmp_path / "old.jsonl", forget)

    assert here.take(old).json["same"] == 1
    assert there.take(old).json["imported"] == 1
    assert there.sessions() == RunSessions()
    assert there.take(old).json["same"] == 1


def test_export_from_before_columns_were_added_is_still_the_same_run(
    places: tuple[Place, Place], tmp_path: Path
) -> None:
    here, there = places
    here.within(talk)
    assert here.export(tmp_path / "all.jsonl").code == 0
    newer = {"run": ("trigger_context", "runtime_clock"), "attempt": ("usage",)}

    def forget(line: dict[str, Any]) -> None:
        if line["kind"] == "run":
            for table, names in newer.items():
                for row in [line["run"]] if table == "run" else line["rows"].get(table, ()):
                    for name in names:
                        del row[name]

    old = edit(tmp_path / "all.jsonl", tmp_path / "old.jsonl", forget)

    assert here.take(old).json["same"] == 1
    assert there.take(tmp_path / "all.jsonl").json["imported"] == 1
    assert there.take(old).json["same"] == 1
    there.tamper("UPDATE run SET runtime_clock = 'wall'")
    other = there.take(old)
    assert (other.code, other.json["differing"]) == (5, [RUN])


# What cannot be read


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("DELETE FROM definition WHERE digest = {}", "is missing"),
        ("UPDATE definition SET document = x'ff00' WHERE digest = {}", "damaged"),
        ("UPDATE definition SET document = x'7b7d' WHERE digest = {}", "damaged"),
        ("UPDATE definition SET document = 'text' WHERE digest = {}", "damaged"),
    ],
)
def test_run_without_its_definition_takes_no_other_along(
    places: tuple[Place, Place], tmp_path: Path, damage: str, said: str
) -> None:
    here, there = places

    async def three(_store: SqliteStore, scene: Scene) -> None:
        for number in (1, 2, 3):
            await scene.create(f"run{number}", chain(number))
            await scene.execute(f"run{number}", Cancel())

    here.within(three)
    here.tamper(damage.format("(SELECT definition_digest FROM run WHERE run_id = 'run2')"))

    made = here.export(tmp_path / "all.jsonl")

    assert (made.code, made.json["runs"]) == (5, 3), made.err
    (told,) = made.json["left_out"]
    assert told.startswith("run run2: ")
    assert said in told
    read = there.take(tmp_path / "all.jsonl")
    assert (read.code, read.json["imported"]) == (5, 2), read.err
    (left,) = read.json["left_out"]
    assert left.startswith("run run2: ")
    assert "definition" in left
    assert there.rows("SELECT run_id FROM run ORDER BY 1") == [("run1",), ("run3",)]
    assert there.rows("SELECT count(*) FROM lifecycle_event") == [(4,)]
    # It is whole but for the definition: where that is, it comes in.
    there.within(lambda _store, scene: scene.create("like it", chain(2)))
    assert there.take(tmp_path / "all.jsonl").json["imported"] == 1


def test_export_of_an_older_engine_with_a_damaged_definition_is_no_dead_end(
    places: tuple[Place, Place], tmp_path: Path
) -> None:
    here, there = places

    async def two(_store: SqliteStore, scene: Scene) -> None:
        for number in (1, 2):
            await scene.create(f"run{number}", chain(number))

    here.within(two)
    assert here.export(tmp_path / "all.jsonl").code == 0

    def damage(line: dict[str, Any]) -> None:
        if line["kind"] == "definition" and '"n1"' not in line["document"]:
            line["document"] = "{}"

    read = there.take(edit(tmp_path / "all.jsonl", tmp_path / "old.jsonl", damage))

    assert (read.code, read.json["paused"]) == (5, 1), read.err
    assert read.json["left_out"][0].startswith("run run1: ")


def test_run_that_was_alive_and_cannot_be_understood_takes_no_other_along(
    places: tuple[Place, Place], tmp_path: Path
) -> None:
    here, there = places

    async def alive(_store: SqliteStore, scene: Scene) -> None:
        await scene.create("odd", chain(1))
        await scene.create("fine", chain(2))

    here.within(alive)
    text = b'{"nodes": 7}'
    digest = f"sha256:{sha256(text).hexdigest()}"
    here.tamper(
        f"INSERT INTO definition VALUES ('local', '{digest}', x'{text.hex()}')",
        f"UPDATE run SET definition_digest = '{digest}' WHERE run_id = 'odd'",
    )
    here.export(tmp_path / "all.jsonl")

    read = there.take(tmp_path / "all.jsonl")

    assert (read.code, read.json["paused"]) == (5, 1), read.err
    assert read.json["left_out"][0].startswith("run odd: ")
    assert there.rows("SELECT run_id FROM run") == [("fine",)]


def test_run_whose_packed_rows_are_damaged_takes_no_other_along(
    places: tuple[Place, Place], tmp_path: Path, call: Call
) -> None:
    here, there = places

    async def ended(_store: SqliteStore, scene: Scene) -> None:
        for name in ("broken", "fine"):
            await scene.create(name)
            await scene.execute(name, Cancel())

    here.within(ended)
    here.enter()
    assert call("db", "archive", "--older-than", "0").code == 0
    here.tamper(
        "UPDATE archive_part SET rows = x'00' "
        "WHERE run_no = (SELECT run_no FROM run WHERE run_id = 'broken')"
    )

    made = here.export(tmp_path / "all.jsonl")

    assert (made.code, made.json["runs"]) == (5, 1), made.err
    assert made.json["left_out"][0].startswith("run broken: ")
    assert there.take(tmp_path / "all.jsonl").json["imported"] == 1


# What was edited by hand


def _set(table: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    def change(line: dict[str, Any]) -> None:
        if line["kind"] == "run" and line["run"]["run_id"] == "strange":
            for row in [line["run"]] if table == "run" else line["rows"][table]:
                row.update(values)

    return change


def _drop(table: str, *names: str) -> Callable[[dict[str, Any]], None]:
    def change(line: dict[str, Any]) -> None:
        if line["kind"] == "run" and line["run"]["run_id"] == "strange":
            for row in [line["run"]] if table == "run" else line["rows"][table]:
                for name in names:
                    row.pop(name)

    return change


EDITS = {
    "unknown status": _set("run", status="dozing"),
    "no tenant": _drop("run", "tenant"),
    "no definition": _drop("run", "definition_digest"),
    "no status": _drop("run", "status"),
    "a tenant that is a number": _set("run", tenant=7),
    "a tenant that is empty": _set("run", tenant=""),
    "a number over 64 bits": _set("run", updated_at_ms=2**63),
    "a number far over 64 bits": _set("run", updated_at_ms=10**40),
    "a text for a number": _set("run", created_at_ms="yesterday"),
    "a fraction for a number": _set("run", created_at_ms=0.5),
    "a list": _set("run", name=["a"]),
    "an object": _set("run", name={"a": 1}),
    "bytes that are none": _set("run", event_hash={"b64": "%"}),
    "bytes that are a number": _set("run", event_hash={"b64": 7}),
    "inputs that are no JSON": _set("run", inputs="{"),
    "the number of another run": _set("run", run_no=1),
    "packed here": _set("run", archived_at_ms=1),
    "an owner": _set("run", owner="e"),
    "an event of another run": _set("lifecycle_event", run_no=1),
    "an event at a cursor": _set("lifecycle_event", cursor=1),
    "an event without a number": _drop("lifecycle_event", "seq"),
    "an event of no kind": _set("lifecycle_event", event="boo"),
    "an event with metadata that are none": _set("lifecycle_event", metadata="]"),
    "all events the same": _set("lifecycle_event", seq=1),
    "a node of another run": _set("node_run", node_no=1 << 20),
    "a node before the first": _set("node_run", node_no=-1),
    "a node that is a text": _set("node_run", node_no="n0"),
    "a node without a number": _drop("node_run", "node_no"),
    "a node by its key": _set("node_run", node_run_id=1),
    "a node in no state": _set("node_run", state="dozing"),
    "an attempt over the last": _set("attempt", number=1 << 12),
    "an attempt without a number": _drop("attempt", "number"),
    "an attempt of no node": _set("attempt", node_no=77),
    "an attempt that used a text": _set("attempt", usage="x"),
    "a session of nobody": _drop("session", "session_id"),
    "a session of somebody": _set("session", tenant="else"),
    "a session of another run": _set("session", run_id="sound"),
    "a session that is open by word": _set("session", is_open="yes"),
    "an instance with a text": _set("instance", epoch="first"),
}


@pytest.mark.parametrize("change", EDITS.values(), ids=EDITS.keys())
def test_line_that_was_edited_by_hand_is_refused_in_a_sentence(
    places: tuple[Place, Place], tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    here, there = places

    async def two(store: SqliteStore, scene: Scene) -> None:
        view = await scene.claimed("strange", chain(2))
        await store.apply(scene.next(view))
        await scene.create("sound")
        for step in (
            AddSession(session_id="s", run_id=RunId("strange")),
            AddInstance(instance_id="i", run_id=RunId("strange")),
        ):
            await store.tend_session(step, tenant=LOCAL_TENANT)

    here.within(two)
    assert here.export(tmp_path / "all.jsonl").code == 0
    edited = edit(tmp_path / "all.jsonl", tmp_path / "edited.jsonl", change)
    there.within(lambda _store, scene: scene.create("ours"))
    before = there.rows("SELECT * FROM run JOIN lifecycle_event USING (run_no)")

    read = there.take(edited)

    assert read.code == 5, read.out + read.err
    said = read.err + "".join(read.json["left_out"] if read.out else [])
    assert "strange" in said or "line 3" in said
    assert there.rows("SELECT run_id FROM run WHERE run_id = 'strange'") == []
    ours = "SELECT * FROM run JOIN lifecycle_event USING (run_no) WHERE run_id = 'ours'"
    assert there.rows(ours) == before
    listed = there.call("runs", "list", "--json")
    assert listed.code == 0
    assert there.call("db", "check").code == 0
    # What no other run has: the rows of the one that was refused are gone with it.
    for table in ("session", "instance", "attempt"):
        assert there.rows(f"SELECT count(*) FROM {table}") == [(0,)]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("definition", {"tenant": 7}),
        ("definition", {"document": None}),
        ("header", {"version": "new"}),
        ("header", {"version": 10**40}),
        ("run", {"rows": []}),
        ("run", {"rows": {"wait": {}}}),
        ("run", {"rows": {"wait": [7]}}),
        ("run", {"run": {}}),
    ],
)
def test_line_that_has_another_shape_is_refused(
    places: tuple[Place, Place], tmp_path: Path, kind: str, values: dict[str, Any]
) -> None:
    here, there = places
    here.within(lambda _store, scene: scene.create("strange"))
    assert here.export(tmp_path / "all.jsonl").code == 0

    def change(line: dict[str, Any]) -> None:
        if line["kind"] == kind:
            line.update(values)

    read = there.take(edit(tmp_path / "all.jsonl", tmp_path / "edited.jsonl", change))

    assert read.code == 5, read.out + read.err
    assert "line" in read.err or "version" in read.err


# What stays where it is


def test_export_says_what_a_store_keeps_beside_its_runs(
    places: tuple[Place, Place], tmp_path: Path, write: Callable[[str, str], str]
) -> None:
    here, there = places

    async def signalled(store: SqliteStore, scene: Scene) -> None:
        signal = Signal(
            kind=SignalKind.EXTERNAL_CONDITION,
            subject="paid",
            idempotency_key="k",
            source="test",
        )
        await store.deliver(signal, tenant=LOCAL_TENANT, change_id=scene.change_id(), now_ms=NOW_MS)
        await store.tend_session(
            AddSession(session_id="s", run_id=RunId("of another")), tenant=LOCAL_TENANT
        )

    here.enter()
    script = f"nodes: [{{node_id: a, action: {sh('echo made')}}}]\n"
    file = write("daily.yaml", "automation_id: daily\n" + script)
    for words in (
        ("automations", "apply", file),
        ("webhooks", "create", "daily"),
        ("tokens", "create", "--name", "t", "--scope", "viewer"),
        ("automations", "run", "daily"),
    ):
        assert here.call(*words).code == 0, words
    here.within(signalled)

    made = here.export(tmp_path / "all.jsonl")

    assert (made.code, made.json["runs"]) == (0, 1)
    said = made.json["not_exported"]
    for what in (
        "stored automations",
        "webhook triggers",
        "tokens",
        "signals",
        "sessions of no run",
    ):
        assert said[what] == 1
    words = here.call("db", "export", str(tmp_path / "again.jsonl")).out
    assert "not in it: stored automations (1)" in words
    assert "tandem db backup" in words
    assert there.take(tmp_path / "all.jsonl").json["imported"] == 1
    there.enter()
    assert there.call("automations", "list", "--json").out.strip() in ("", "[]")
    for table in ("webhook_trigger", "webhook_secret", "token", "signal", "session", "audit"):
        assert there.rows(f"SELECT * FROM {table}") == []
    assert "not in it" not in there.call("db", "export", str(tmp_path / "back.jsonl")).out


def test_what_commands_tell_of_runs_is_the_same_there(
    places: tuple[Place, Place], tmp_path: Path, write: Callable[[str, str], str]
) -> None:
    here, there = places
    here.enter()
    made = '{"backlog_tasks": [{"title": "One"}, {"title": "Two"}]}'
    plan = f"""
automation_id: plan
nodes:
  - node_id: plan
    action: {sh(f"echo '{made}'")}
    metadata: {{builder: {{project_backlog_tasks: true}}}}
"""
    asks = """
automation_id: asks
nodes:
  - {node_id: ask, gate: {required: true}}
  - {node_id: nap, depends_on: [ask], wait: {kind: timer, delay_ms: 1}}
"""
    for name, text in (("plan", plan), ("asks", asks)):
        assert here.call("automations", "apply", write(f"{name}.yaml", text)).code == 0
    assert here.call("automations", "run", "plan").code == 0
    assert here.call("backlog", "claim", "latest", "backlog-plan-one", "--agent", "ann").code == 0
    assert here.call("runs", "fork", "latest", "plan").code == 0
    assert here.call("runs", "cancel", "latest", "--reason", "moves").code == 0
    assert here.call("run", "asks.yaml", "--decide", "ask=approve", "--json").code == 0
    runs = [run["run_id"] for run in here.call("runs", "list", "--json").json]
    questions = [
        *(("backlog", "list", run_id, "--json") for run_id in runs),
        *(("runs", "show", run_id, "--json") for run_id in runs),
        ("runs", "list", "--json"),
        ("waits", "list", "--json"),
        ("gates", "list", "--json"),
    ]
    told = [here.call(*question) for question in questions]

    events = [here.call("runs", "events", run_id, "--json").lines for run_id in runs]

    assert here.export(tmp_path / "all.jsonl").code == 0
    assert there.take(tmp_path / "all.jsonl").code == 0

    again = [there.call("runs", "events", run_id, "--json").lines for run_id in runs]
    for story in (*events, *again):
        for event in story:
            event.pop("cursor", None)
    assert again == events
    for question, answer in zip(questions, told, strict=True):
        again = there.call(*question)
        assert _carried(again.json) == _carried(answer.json), question


def _carried(found: Any) -> Any:
    """Return what is told of runs without the time at which it was, and who drove them there."""
    if isinstance(found, list):
        return [_carried(one) for one in found]
    if not isinstance(found, dict):
        return found
    return {name: value for name, value in found.items() if name not in ("now_ms", "owner")}
