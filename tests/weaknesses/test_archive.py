"""What is stored stays, is told the same to everybody, and costs the same: W-01, W-02, W-10, W-18,
W-19, W-20, W-38.

Each weakness is a scenario that holds, and a mutant of our own code under which it does not.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from tandem import Automation, Engine
from tandem.adapters.sqlite.archive import Archive
from tandem.adapters.sqlite.committer import Committer
from tandem.adapters.sqlite.store import SqliteStore
from tandem.adapters.sqlite.tables import Tables
from tandem.domain import settling
from tandem.domain.artifact import Validity
from tandem.domain.change import Change
from tandem.domain.command import Recover
from tandem.domain.errors import StoreUnavailable
from tandem.domain.ids import LOCAL_TENANT, RunId
from tandem.domain.lifecycle import RunState
from tandem.domain.outcome import Failed, FailureClass
from tandem.domain.run import Run
from tandem.domain.settling import Settled
from tandem.engine import contract
from tandem.ports.store import RunFilter
from tandem.testing.store_suite import NOW_MS, CommitFault, Scene, chain, succeeded

LATER_MS = NOW_MS + 30 * 86_400_000
WAIT_S = 20

Scenario = Callable[[Path], Awaitable[None]]


async def fails(scenario: Scenario) -> None:
    """Say that a scenario does not hold under the mutant that was applied."""
    with tempfile.TemporaryDirectory() as folder, pytest.raises(AssertionError):
        await scenario(Path(folder))


def failed(node_no: int) -> Settled:
    outcome = Failed(failure_class=FailureClass.PROVIDER_TERMINAL, message="refused")
    return Settled(node_no=node_no, number=1, outcome=outcome)


def open_store(folder: Path, fault: CommitFault | None = None) -> SqliteStore:
    def commit(connection: apsw.Connection) -> None:
        if fault is not None and fault.take():
            raise apsw.FullError("database or disk is full")
        connection.execute("COMMIT")

    return SqliteStore(folder / "store.db", synchronous="OFF", commit=commit)


# W-01: a snapshot that was taken earlier overwrites what others wrote since


async def others_survive_a_late_write(folder: Path) -> None:
    store = open_store(folder)
    scene = Scene(store)
    view = await scene.claimed("a")
    prepared = scene.next(view)

    await scene.create("b")
    await store.apply(prepared)
    store.close()

    restarted = open_store(folder)
    found = {run.run_id for run in restarted.list_runs(RunFilter(tenant=LOCAL_TENANT))}
    assert found == {"a", "b"}
    restarted.close()


async def test_w01_late_write_touches_no_other_run(tmp_path: Path) -> None:
    await others_survive_a_late_write(tmp_path)


async def test_w01_late_write_touches_no_other_run_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = Tables.write

    def write_all(self: Tables, connection: apsw.Connection, change: Change) -> None:
        connection.execute("DELETE FROM run WHERE run_no > ?", (change.run.run_no,))
        write(self, connection, change)

    monkeypatch.setattr(Tables, "write", write_all)
    await fails(others_survive_a_late_write)


# W-02: memory first, errors of the disk ignored


async def full_disk_hands_out_nothing(folder: Path) -> None:
    fault = CommitFault()
    store = open_store(folder, fault)
    scene = Scene(store)
    await scene.create("a")
    fault.arm("before", times=3)

    (claimed,) = await asyncio.gather(scene.claim(), return_exceptions=True)
    on_disk = Scene(open_store(folder)).get("a")

    assert isinstance(claimed, StoreUnavailable), "a claim that is not on disk was handed out"
    assert on_disk.status is RunState.QUEUED
    fault.arm("before", times=0)
    # One write that cannot be done does not take its neighbours along.
    good, bad = await asyncio.gather(scene.create("b"), scene.create("a"), return_exceptions=True)
    assert isinstance(good, Run)
    assert isinstance(bad, StoreUnavailable)
    assert scene.get("b").status is RunState.QUEUED
    store.close()


async def test_w02_full_disk_hands_out_nothing(tmp_path: Path) -> None:
    await full_disk_hands_out_nothing(tmp_path)


async def test_w02_full_disk_hands_out_nothing_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    submit = Committer.submit

    def believing(self: Committer, statements: Any, **_how: object) -> Any:
        return submit(self, statements, landed=lambda _connection: True)

    monkeypatch.setattr(Committer, "submit", believing)
    await fails(full_disk_hands_out_nothing)


# W-18: the cost of a change grows with the history of its run


class Written:
    """Counts statements, and the pages that go to the WAL."""

    def __init__(self, store: SqliteStore) -> None:
        self.statements = 0
        self.pages = 0
        connection = store.committer.connection
        connection.exec_trace = self._traced
        connection.set_wal_hook(self._committed)

    def _traced(self, _cursor: apsw.Cursor, _sql: str, _values: object) -> bool:
        self.statements += 1
        return True

    def _committed(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self.pages = pages
        return apsw.SQLITE_OK


async def cost_stays_the_same_with_history(folder: Path) -> None:
    store = open_store(folder)
    scene = Scene(store)
    view = await scene.claimed("long", chain(1_200))
    await store.apply(scene.next(view))
    meter = Written(store)
    costs: list[tuple[int, int]] = []
    sizes: list[int] = []
    for number in range(1_150):
        statements, pages = meter.statements, meter.pages
        change = scene.next(view, succeeded(number))
        await store.apply(change)
        costs.append((meter.statements - statements, meter.pages - pages))
        sizes.append(len(msgspec.msgpack.encode(change)))

    early, late = costs[50:150], costs[-100:]
    assert {cost[0] for cost in early} == {cost[0] for cost in late}
    # On average a tree has become a level deeper: a page or two.
    assert sum(cost[1] for cost in late) <= sum(cost[1] for cost in early) + 200
    assert max(sizes[-100:]) <= max(sizes[50:150]) + 100
    store.close()


async def test_w18_cost_stays_the_same_with_history(tmp_path: Path) -> None:
    await cost_stays_the_same_with_history(tmp_path)


async def test_w18_cost_stays_the_same_with_history_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = Tables.write

    def rewriting(self: Tables, connection: apsw.Connection, change: Change) -> None:
        write(self, connection, change)
        values = (change.change_id, change.run.run_no)
        connection.execute("UPDATE lifecycle_event SET reason = ? WHERE run_no = ?", values)

    monkeypatch.setattr(Tables, "write", rewriting)
    await fails(cost_stays_the_same_with_history)


# W-19 and W-20: reads go backwards; packing destroys history


async def ended(scene: Scene, run_id: str) -> None:
    """Let a run complete one node and fail at the next one."""
    nodes = [{**node, "retry_policy": {"max_attempts": 1}} for node in chain(3)]
    view = await scene.claimed(run_id, nodes)
    await scene.store.apply(scene.next(view))
    await scene.store.apply(scene.next(view, succeeded(0, output=b'{"kept":[1,2]}')))
    await scene.store.apply(scene.next(view, failed(1)))
    assert scene.get(run_id).status is RunState.FAILED


def everything(store: SqliteStore, run_id: str) -> list[object]:
    """Return all that can be read of a run."""
    name = RunId(run_id)
    view = store.read(name, tenant=LOCAL_TENANT)
    lists = store.list_runs(RunFilter(tenant=LOCAL_TENANT))
    return [
        [msgspec.structs.replace(run, archived_at_ms=None) for run in lists],
        view.nodes,
        view.open_deps,
        list(store.list_events(name, tenant=LOCAL_TENANT, after_seq=0, limit=1_000)),
        list(store.list_events(name, tenant=LOCAL_TENANT, after_seq=2, limit=2)),
        list(store.list_attempts(name, tenant=LOCAL_TENANT)),
        list(store.list_artifacts(name, tenant=LOCAL_TENANT)),
    ]


async def packing_is_not_seen(folder: Path) -> None:
    store, reader = open_store(folder), open_store(folder)
    scene = Scene(store)
    await ended(scene, "r1")
    before = everything(store, "r1")

    steps = 0
    while await store.archive(before_ms=LATER_MS, rows_max=2, now_ms=LATER_MS):
        steps += 1
        assert everything(reader, "r1") == before
        assert everything(store, "r1") == before
    assert steps > 4
    assert scene.get("r1").archived_at_ms == LATER_MS

    await scene.execute("r1", Recover(), now_ms=LATER_MS)

    run = reader.find_run(RunId("r1"), tenant=LOCAL_TENANT)
    assert run is not None
    assert (run.status, run.archived_at_ms) == (RunState.QUEUED, None)
    view = reader.read(RunId("r1"), tenant=LOCAL_TENANT)
    assert view.node(0).output == b'{"kept":[1,2]}'
    assert view.node(1).state.value == "pending"
    seqs = [
        event.seq
        for event in reader.list_events(RunId("r1"), tenant=LOCAL_TENANT, after_seq=0, limit=1_000)
    ]
    assert seqs == list(range(1, run.event_seq + 1))
    for opened in (store, reader):
        opened.close()


async def test_w19_reads_never_go_backwards(tmp_path: Path) -> None:
    await packing_is_not_seen(tmp_path)


def hot_rows_only(patch: pytest.MonkeyPatch) -> None:
    """A reader looks at the tables alone."""
    patch.setattr(
        Archive,
        "read",
        lambda *_: {"node_run": [], "attempt": [], "lifecycle_event": [], "wait": []},
    )


def recovered_without_its_rows(patch: pytest.MonkeyPatch) -> None:
    """A run that is recovered is not unpacked."""
    patch.setattr(Archive, "move_out", lambda *_: None)


@pytest.mark.parametrize("mutant", [hot_rows_only, recovered_without_its_rows])
async def test_w19_reads_never_go_backwards_is_caught(
    monkeypatch: pytest.MonkeyPatch, mutant: Callable[[pytest.MonkeyPatch], None]
) -> None:
    mutant(monkeypatch)
    await fails(packing_is_not_seen)


def lines_of(store: SqliteStore) -> list[object]:
    return list(store.export())


async def nothing_is_lost_over_packing_and_restarts(folder: Path) -> None:
    store = open_store(folder)
    scene = Scene(store)
    for number in range(5):
        await ended(scene, f"r{number}")
    before = lines_of(store)
    assert await store.archive(before_ms=LATER_MS, rows_max=10_000, now_ms=LATER_MS)
    assert lines_of(store) == before
    store.close()

    again = open_store(folder)
    assert lines_of(again) == before
    assert await again.archive(before_ms=LATER_MS, rows_max=10_000, now_ms=LATER_MS) == 0
    # Back and forth changes nothing either.
    connection = again.committer.connection
    archive = Archive(again._tables.sql)
    for number in range(1, 6):
        archive.move_out(connection, number)
    assert lines_of(again) == before
    assert again.check() == []
    again.close()


async def test_w20_packing_loses_nothing(tmp_path: Path) -> None:
    await nothing_is_lost_over_packing_and_restarts(tmp_path)


async def test_w20_packing_loses_nothing_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    take = Archive._take

    def compacting(self: Archive, *how: Any) -> Any:
        taken, is_all = take(self, *how)
        for row in taken.get("node_run", ()):
            row["output"] = None
        return taken, is_all

    monkeypatch.setattr(Archive, "_take", compacting)
    await fails(nothing_is_lost_over_packing_and_restarts)


# W-10 and W-38: artifacts


def job(name: str, *nodes: dict[str, Any]) -> Any:
    return Automation.from_dict({"automation_id": name, "nodes": list(nodes)})


def making(**fields: Any) -> dict[str, Any]:
    """Describe a node that must leave `out.txt`."""
    return {
        "node_id": "make",
        "action": {"kind": "python", "function": "test:make"},
        "effects": "workspace",
        "retry_policy": {"max_attempts": 1},
        "output_contract": {"required_files": ["out.txt"]},
        **fields,
    }


ASK = {"node_id": "ask", "depends_on": ["make"], "gate": {"required": True}}


def engine_of(folder: Path, make: Callable[..., Any]) -> Engine:
    return Engine.open(f"sqlite:///{folder}/store.db", functions={"test:make": make})


async def rework_needs_a_new_file(folder: Path) -> None:
    calls: list[int] = []
    out = folder / "out.txt"

    def make(**_: Any) -> str:
        calls.append(1)
        if len(calls) != 2:  # the second time it thinks that its file is good enough
            out.write_text(f"draft {len(calls)}")
        return "made"

    async with asyncio.timeout(WAIT_S), engine_of(folder, make) as engine:
        run = await engine.run(job("w10", making(), ASK), workspace=folder)
        assert await run.wait_at_rest() is RunState.AWAITING_APPROVAL
        await run.decide("rework")
        state = await run.wait_at_rest()
        found = engine.parts.store.list_artifacts(run.run_id, tenant=LOCAL_TENANT)

        assert len(calls) == 2
        assert state is RunState.BLOCKED, "the rejected file was used again"
        assert "rejected" in str(run.row.last_failure)
        assert [left.validity for left in found] == [Validity.REJECTED]

        await run.resume()
        assert await run.wait_at_rest() is RunState.AWAITING_APPROVAL
        newest = engine.parts.store.list_artifacts(run.run_id, tenant=LOCAL_TENANT)[-1]
        assert (newest.validity, newest.attempt) == (Validity.VALID, 3)


async def test_w10_rework_never_reuses_a_rejected_artifact(tmp_path: Path) -> None:
    await rework_needs_a_new_file(tmp_path)


def anything_there_counts(patch: pytest.MonkeyPatch) -> None:
    """The contract asks only whether a file is there."""
    patch.setattr(contract, "refusal_of_file", lambda *_, **__: "")


def reset_forgets_the_registry(patch: pytest.MonkeyPatch) -> None:
    """A reset leaves the artifacts of its nodes valid."""
    write = Tables.write

    def forgetting(self: Tables, connection: apsw.Connection, change: Change) -> None:
        write(self, connection, msgspec.structs.replace(change, invalidated=()))

    patch.setattr(Tables, "write", forgetting)


@pytest.mark.parametrize("mutant", [anything_there_counts, reset_forgets_the_registry])
async def test_w10_rework_never_reuses_a_rejected_artifact_is_caught(
    monkeypatch: pytest.MonkeyPatch, mutant: Callable[[pytest.MonkeyPatch], None]
) -> None:
    mutant(monkeypatch)
    await fails(rework_needs_a_new_file)


async def registry_says_what_was_judged(folder: Path) -> None:
    calls: list[int] = []

    def make(**_: Any) -> str:
        calls.append(1)
        (folder / "out.txt").write_text(f"{len(calls)}")
        return "x" * 40_000

    checked = making(
        retry_policy={"max_attempts": 2},
        output_contract={
            "required_files": ["out.txt"],
            "verification": {"argv": ["grep", "-q", "2", "out.txt"]},
        },
    )
    bad = making(
        retry_policy={"max_attempts": 1},
        output_contract={"required_files": ["out.txt"], "verification": {"argv": ["false"]}},
    )
    async with asyncio.timeout(WAIT_S), engine_of(folder, make) as engine:
        store = engine.parts.store
        run = await engine.run(job("good", checked), workspace=folder)
        assert await run.wait() is RunState.COMPLETED
        file, output = store.list_artifacts(run.run_id, tenant=LOCAL_TENANT)
        assert (file.attempt, file.validity) == (2, Validity.VALID)
        assert file.provenance.accepted_candidate_source == "verified_output"
        assert (file.provenance.repair_attempt, file.provenance.repair_succeeded) == (1, True)
        assert file.provenance.freshness.current_attempt
        assert file.contract.startswith("sha256:")
        assert (output.ref.path, output.ref.size_bytes) == ("", 40_002)

        run = await engine.run(job("bad", bad), workspace=folder)
        assert await run.wait() is RunState.FAILED
        left = store.list_artifacts(run.run_id, tenant=LOCAL_TENANT)
        assert {one.validity for one in left} == {Validity.REJECTED}


async def test_w10_registry_holds_what_was_judged(tmp_path: Path) -> None:
    await registry_says_what_was_judged(tmp_path)


@pytest.mark.parametrize("changes", [{"attempt": 1}, {"validity": Validity.VALID}])
async def test_w10_registry_holds_what_was_judged_is_caught(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    entry = settling._entry

    def careless(*how: Any) -> Any:
        return msgspec.structs.replace(entry(*how), **changes)

    monkeypatch.setattr(settling, "_entry", careless)
    await fails(registry_says_what_was_judged)


async def runs_of_one_workspace_leave_each_other_alone(folder: Path) -> None:
    seen: list[str] = []
    out = folder / "out.txt"

    def make(**_: Any) -> str:
        seen.append(out.read_text() if out.exists() else "")
        if len(seen) == 1:
            out.write_text("of the first run")
        return "made"

    async with asyncio.timeout(WAIT_S), engine_of(folder, make) as engine:
        first = await engine.run(job("w38", making()), workspace=folder)
        assert await first.wait() is RunState.COMPLETED
        second = await engine.run(job("w38", making()), workspace=folder)
        state = await second.wait()

        assert seen == ["", "of the first run"], "the file of another run was removed"
        assert state is RunState.BLOCKED, "the file of another run counted as its own"
        assert "before this run" in str(second.row.last_failure)
        reuse = {"builder": {"allow_preexisting_output_reuse": True}}
        third = await engine.run(job("w38", making(metadata=reuse)), workspace=folder)
        assert await third.wait() is RunState.COMPLETED
        (file, *_) = engine.parts.store.list_artifacts(third.run_id, tenant=LOCAL_TENANT)
        assert file.provenance.accepted_candidate_source == "preexisting_output"
        assert not file.provenance.freshness.current_run


async def test_w38_outputs_of_other_runs_are_neither_removed_nor_believed(tmp_path: Path) -> None:
    await runs_of_one_workspace_leave_each_other_alone(tmp_path)


async def test_w38_outputs_of_other_runs_are_neither_removed_nor_believed_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    anything_there_counts(monkeypatch)
    await fails(runs_of_one_workspace_leave_each_other_alone)
