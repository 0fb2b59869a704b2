"""The bookkeeping of sessions on the tables: each operation, and what survives."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.command import Cancel, Pause
from tandem.domain.errors import NotFound
from tandem.domain.ids import LOCAL_TENANT, NodeId, RunId
from tandem.domain.session import (
    AddInstance,
    AddSession,
    ClearInstance,
    ClearSession,
    ForgetSessions,
    RunSessions,
    SessionStep,
    SetMcpServers,
)
from tandem.testing.store_suite import OTHER_TENANT, Scene, chain

RUN = RunId("r")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "tandem.db", synchronous="OFF")
    yield opened
    opened.close()


async def tend(store: SqliteStore, *steps: SessionStep) -> None:
    for step in steps:
        await store.tend_session(step, tenant=LOCAL_TENANT)


def sessions(store: SqliteStore) -> RunSessions:
    return store.read_sessions(RUN, tenant=LOCAL_TENANT)


async def test_sessions_come_and_go_with_their_run(store: SqliteStore) -> None:
    scene = Scene(store)
    await scene.claimed(RUN, chain(1))
    before = scene.get(RUN).last_change_id
    await tend(
        store,
        AddSession(session_id="s1", run_id=RUN, node_id=NodeId("n0")),
        AddSession(session_id="s2", run_id=RUN),
        AddSession(session_id="s1", run_id=RUN),  # again: neither twice, nor without its node
        AddInstance(instance_id="i", run_id=RUN),
        AddInstance(instance_id="i", run_id=RUN),
        AddInstance(instance_id="j", run_id=RUN),
        ClearInstance(instance_id="j", run_id=RUN),
    )
    assert sessions(store) == RunSessions(
        active_session_ids=("s1", "s2"), latest_session_id="s2", active_instance_ids=("i",)
    )
    assert store.find_session("s1", tenant=LOCAL_TENANT) == (RUN, "n0")
    assert store.find_session("s2", tenant=LOCAL_TENANT) == (RUN, None)
    assert store.find_session("s1", tenant=OTHER_TENANT) is None
    assert scene.get(RUN).last_change_id == before  # no driver loses a change to it

    await tend(store, ClearSession(session_id="s1"))
    assert sessions(store).active_session_ids == ("s2",)
    assert store.find_session("s1", tenant=LOCAL_TENANT) is None
    await tend(store, ForgetSessions(session_ids=("s2", "unknown")))
    assert store.find_session("s2", tenant=LOCAL_TENANT) is None
    assert sessions(store).active_session_ids == ("s2",)  # the record is not touched

    await scene.execute(RUN, Pause())
    assert sessions(store) == RunSessions(latest_session_id="s2")


async def test_servers_of_a_session_are_replaced_and_removed(store: SqliteStore) -> None:
    def servers() -> tuple[str, ...]:
        return store.mcp_servers_of("s", tenant=LOCAL_TENANT)

    assert servers() == ()
    await tend(store, SetMcpServers(session_id="s", servers=("git", "mail")))
    assert servers() == ("git", "mail")
    assert store.find_session("s", tenant=LOCAL_TENANT) is None
    await tend(store, AddSession(session_id="s", run_id=RUN))
    await tend(store, SetMcpServers(session_id="s", servers=("git",)))
    await tend(store, ClearSession(session_id="s"))
    assert servers() == ("git",)
    await tend(store, SetMcpServers(session_id="s"))
    assert servers() == ()
    await tend(store, SetMcpServers(session_id="s", servers=("git",)))
    await tend(store, ForgetSessions(session_ids=("s",)))
    assert servers() == ()


async def test_session_is_mapped_to_a_run_that_is_not_known(store: SqliteStore) -> None:
    await tend(store, AddSession(session_id="s", run_id=RunId("nowhere")))
    assert store.find_session("s", tenant=LOCAL_TENANT) == ("nowhere", None)
    with pytest.raises(NotFound):
        sessions(store)


async def test_sessions_survive_a_restart(store: SqliteStore) -> None:
    await Scene(store).claimed(RUN, chain(1))
    await tend(store, AddSession(session_id="s", run_id=RUN))
    again = SqliteStore(store.path, synchronous="OFF")
    try:
        assert again.find_session("s", tenant=LOCAL_TENANT) == (RUN, None)
        assert sessions(again).latest_session_id == "s"
    finally:
        again.close()


async def test_what_is_beside_a_run_is_deleted_with_it(store: SqliteStore) -> None:
    scene = Scene(store)
    await scene.create(RUN, chain(1))
    await tend(store, AddSession(session_id="s", run_id=RUN))
    await tend(store, AddInstance(instance_id="i", run_id=RUN))
    await scene.execute(RUN, Cancel())
    assert len(store.list_learning_due(limit=5)) == 1
    await store.delete_run(RUN, tenant=LOCAL_TENANT)
    assert store.list_learning_due(limit=5) == []
    assert store.find_session("s", tenant=LOCAL_TENANT) is None
