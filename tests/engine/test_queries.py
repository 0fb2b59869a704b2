"""The read side: records, lists and summaries of runs and automations."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.automation import Automation, canonical_document
from tandem.domain.automation_keeping import DeleteAutomation, Save
from tandem.domain.command import Cancel
from tandem.domain.errors import DEFINITION_UNREADABLE, InvalidRequest, NotFound, StoreError
from tandem.domain.ids import (
    LOCAL_TENANT,
    AutomationId,
    DefinitionDigest,
    NodeId,
    RunId,
    TenantId,
)
from tandem.domain.json import digest
from tandem.domain.lifecycle import RunState
from tandem.domain.run import Run
from tandem.domain.session import AddSession
from tandem.engine.queries import Queries, RunList
from tandem.ports.store import RunPage, RunSearch
from tandem.testing.store_suite import ENGINE_A, GATE, NOW_MS, Scene, chain, engine_row, succeeded

RUN = RunId("r")
LOCAL: dict[str, Any] = {"tenant": LOCAL_TENANT}
OTHERS: dict[str, Any] = {"tenant": TenantId("o/w")}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "tandem.db", synchronous="OFF")
    yield opened
    opened.close()


@pytest.fixture
def queries(store: SqliteStore) -> Queries:
    return Queries(store)


async def ran(store: SqliteStore, run_id: str = RUN) -> Scene:
    """Let a chain of two nodes run to its end."""
    scene = Scene(store)
    view = await scene.claimed(run_id)
    await store.apply(scene.next(view))
    await store.apply(scene.next(view, succeeded(0)))
    await store.apply(scene.next(view, succeeded(1)))
    return scene


async def save(store: SqliteStore, automation: Automation) -> None:
    document = canonical_document(automation)
    await store.execute_on_automation(
        AutomationId(automation.automation_id),
        Save(
            definition_digest=DefinitionDigest(digest(document)),
            name=automation.name,
            creator_id="ann",
            actor="ann",
        ),
        change_id=Scene(store).change_id(),
        now_ms=NOW_MS,
        document=document,
        **LOCAL,
    )


def made(automation_id: str) -> Automation:
    return Automation.model_validate({"automation_id": automation_id, "flow": {"nodes": chain(2)}})


async def test_the_record_of_a_run_is_put_together_from_its_rows(
    store: SqliteStore, queries: Queries
) -> None:
    await ran(store)

    record = queries.run_record(RUN, **LOCAL)

    assert record["status"] == "completed"
    assert record["checkpoint"]["completed_nodes"] == ["n0", "n1"]
    assert record["checkpoint"]["node_outputs"]["n1"]["content"] == "done"
    assert record["automation_snapshot"]["automation_id"] == "job"
    assert msgspec.json.decode(queries.run_json(RUN, **LOCAL)) == record


async def test_a_record_is_encoded_once_until_something_of_its_run_changes(
    store: SqliteStore, queries: Queries
) -> None:
    scene = await ran(store)
    first = queries.run_json(RUN, **LOCAL)
    assert queries.run_json(RUN, **LOCAL) is first
    assert queries.run_json(RUN, compat=True, **LOCAL) is not first

    await scene.create("other")
    assert queries.run_json(RUN, **LOCAL) is first
    await store.delete_run(RUN, **LOCAL)

    with pytest.raises(NotFound):
        queries.run_json(RUN, **LOCAL)


async def test_a_driven_run_is_told_with_its_newest_lease_and_sessions(
    store: SqliteStore, queries: Queries
) -> None:
    scene = Scene(store)
    await store.put_engine(engine_row(ENGINE_A, lease_until_ms=NOW_MS + 1))
    await scene.claimed(RUN)

    def seen() -> tuple[int, list[str]]:
        record = msgspec.json.decode(queries.run_json(RUN, **LOCAL))
        claim = record["execution_claim"]
        return claim["lease_expires_at_ms"], record["active_session_ids"]

    assert seen() == (NOW_MS + 1, [])
    await store.put_engine(engine_row(ENGINE_A, lease_until_ms=NOW_MS + 2))
    assert seen() == (NOW_MS + 2, [])
    await store.tend_session(AddSession(session_id="s", run_id=RUN), **LOCAL)
    assert seen() == (NOW_MS + 2, ["s"])


async def test_kept_records_are_bounded(store: SqliteStore) -> None:
    many = [f"run-{number}" for number in range(9)]
    for name in many:
        await ran(store, name)
    size = len(Queries(store).run_json(RunId(many[0]), **LOCAL))
    none = Queries(store, records_bytes_max=size)
    refused = [none.run_json(RunId(many[0]), **LOCAL) for _ in range(2)]
    assert refused[0] is not refused[1]

    few = Queries(store, records_bytes_max=8 * size + 100)
    kept = {name: few.run_json(RunId(name), **LOCAL) for name in many}

    assert few.run_json(RunId(many[-1]), **LOCAL) is kept[many[-1]]
    assert few.run_json(RunId(many[0]), **LOCAL) is not kept[many[0]]


async def test_older_clients_are_shown_a_status_that_they_know(
    store: SqliteStore, queries: Queries
) -> None:
    scene = Scene(store)
    view = await scene.claimed(RUN, GATE)
    await store.apply(scene.next(view))

    record = msgspec.json.decode(queries.run_json(RUN, compat=True, **LOCAL))
    (listed,) = map(
        msgspec.json.decode, queries.run_summaries(RunSearch(**LOCAL), compat=True).runs
    )

    for shown in (record, listed):
        assert (shown["status"], shown["stored_status"]) == ("paused", "awaiting_approval")
    assert queries.run_record(RUN, **LOCAL)["status"] == "awaiting_approval"


async def test_a_list_is_paged_with_a_cursor_that_says_nothing(
    store: SqliteStore, queries: Queries
) -> None:
    scene = Scene(store)
    for number in range(3):
        await scene.create(f"r{number}")
    await scene.execute("r1", Cancel(reason="x"))
    search = RunSearch(limit=2, **LOCAL)

    first = queries.run_summaries(search)
    second = queries.run_summaries(search, cursor=first.cursor)

    assert ids(first) == ["r2", "r1"]
    assert ids(second) == ["r0"]
    assert second.cursor is None
    cancelled = RunSearch(statuses=(RunState.CANCELLED,), **LOCAL)
    assert ids(queries.run_summaries(cancelled)) == ["r1"]


def ids(found: RunList) -> list[str]:
    return [msgspec.json.decode(run)["run_id"] for run in found.runs]


async def test_a_list_is_told_from_memory_until_a_row_of_it_changes(
    store: SqliteStore, queries: Queries
) -> None:
    scene = Scene(store)
    await scene.create("r0")
    await scene.create("r1")
    search = RunSearch(**LOCAL)
    before = queries.run_summaries(search).runs
    read: list[Run] = []

    class Watched(SqliteStore):
        def search_runs(self, search: RunSearch, **how: Any) -> RunPage:
            page = super().search_runs(search, **how)
            read.extend(page.runs)
            return page

    store.__class__ = Watched
    assert queries.run_summaries(search).runs == before
    assert read == []
    await scene.execute("r0", Cancel(reason="x"))
    after = queries.run_summaries(search).runs
    assert [run.run_id for run in read] == ["r0"]
    assert after[0] == before[0]
    assert msgspec.json.decode(after[1])["status"] == "cancelled"


@pytest.mark.parametrize("cursor", ["", "x", "ä", "MQ", "MS4yLjM", "YS5i"])
def test_a_foreign_cursor_is_refused(queries: Queries, cursor: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        queries.run_summaries(RunSearch(**LOCAL), cursor=cursor)
    assert refused.value.code == "invalid_cursor"


async def test_the_whole_history_can_be_paged(store: SqliteStore, queries: Queries) -> None:
    await ran(store)
    shown = queries.run_record(RUN, **LOCAL)["checkpoint"]["lifecycle_history"]
    first = queries.run_history(RUN, limit=2, **LOCAL)
    rest = queries.run_history(RUN, after_seq=2, **LOCAL)
    assert [*first, *rest] == shown


async def test_a_preview_says_what_a_retry_would_undo(store: SqliteStore, queries: Queries) -> None:
    await ran(store)

    found = queries.reset_preview(RUN, NodeId("n1"), now_ms=NOW_MS, **LOCAL)

    assert (found["run_id"], found["node_id"], found["reset_nodes"]) == ("r", "n1", ["n1"])
    assert found["preserves_upstream_outputs"] is True
    assert found["cleared_outputs"] == []
    with pytest.raises(NotFound):
        queries.reset_preview(RUN, NodeId("zz"), now_ms=NOW_MS, **LOCAL)


async def test_approvals_are_those_of_the_tenant_and_of_this_engine(
    store: SqliteStore, queries: Queries
) -> None:
    scene = Scene(store)
    view = await scene.claimed(RUN, GATE)
    await store.apply(scene.next(view))

    (item,) = queries.approvals(**LOCAL)

    assert item["request_id"] == "automation_v2:r:ask"
    assert item["workflow_name"] == "job"
    assert queries.approvals(**OTHERS) == []
    assert queries.approvals(source="coder", **LOCAL) == []
    assert len(queries.approvals(source="anything", **LOCAL)) == 1


async def test_what_was_let_pass_is_summed_up(store: SqliteStore, queries: Queries) -> None:
    await ran(store)
    asked = {"now_ms": NOW_MS, "window_hours": 9_999, "limit": 0, **LOCAL}
    found: Any = queries.graduation_summary(**asked)
    assert (found["window_hours"], found["since_ms"]) == (720, NOW_MS - 720 * 3_600_000)
    assert (found["scanned_runs"], found["automation_id"]) == (1, None)
    assert found["summary"]["total_outputs_scanned"] == 2


async def test_automations_are_emitted_whole_or_in_short(
    store: SqliteStore, queries: Queries
) -> None:
    await save(store, made("b"))
    await save(store, made("a"))

    whole: Any = queries.automation(AutomationId("a"), **LOCAL)
    assert (whole["creator_id"], whole["version"]) == ("ann", 1)
    assert whole["flow"]["nodes"][0]["node_id"] == "n0"
    assert queries.automations(**LOCAL) == [whole, queries.automation(AutomationId("b"), **LOCAL)]
    short: Any = queries.automations(summary=True, after_id="a", **LOCAL)
    assert [(each["automation_id"], each["node_count"]) for each in short] == [("b", 2)]
    assert queries.automations(**OTHERS) == []
    await store.execute_on_automation(
        AutomationId("a"),
        DeleteAutomation(by="ann", reason=""),
        change_id=Scene(store, name="d").change_id(),
        now_ms=NOW_MS,
        **LOCAL,
    )
    for gone in ("a", "never"):
        with pytest.raises(NotFound):
            queries.automation(AutomationId(gone), **LOCAL)


async def test_specs_are_kept_for_so_many_definitions_only(
    store: SqliteStore, queries: Queries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tandem.engine.queries._SPECS_MAX", 1)
    await save(store, made("b"))
    await save(store, made("a"))
    for _ in range(2):
        assert len(queries.automations(**LOCAL)) == 2


async def test_a_definition_that_cannot_be_read_is_said_to_be_so(store: SqliteStore) -> None:
    scene = await ran(store)
    await save(store, made("a"))
    store.committer.connection.execute("UPDATE definition SET document = x'7b'").fetchall()
    reopened = SqliteStore(store.path, synchronous="OFF")
    try:
        queries = Queries(reopened)
        record = queries.run_record(RUN, **LOCAL)
        assert record["checkpoint"]["blocked_nodes"] == ["checkpoint"]
        assert len(record["checkpoint"]["lifecycle_history"]) == scene.get(RUN).event_seq
        for ask in (
            lambda: queries.automation(AutomationId("a"), **LOCAL),
            lambda: queries.reset_preview(RUN, NodeId("n1"), now_ms=NOW_MS, **LOCAL),
        ):
            with pytest.raises(StoreError) as failed:
                ask()
            assert failed.value.code == DEFINITION_UNREADABLE
    finally:
        reopened.close()
