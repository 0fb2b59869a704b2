"""W-34: learning that runs again and again, and review counters that lose or repeat ends."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tandem.adapters.sqlite import reviewing
from tandem.adapters.sqlite import store as store_module
from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.automation_review import Review
from tandem.domain.command import Cancel, ProcessesEnded, Recover
from tandem.domain.ids import LOCAL_TENANT, AutomationId
from tandem.domain.learning import LearningPolicy
from tandem.domain.outcome import Failed, FailureClass
from tandem.domain.settling import Settled
from tandem.ports.learning import CandidateFilter
from tandem.testing.store_suite import ENGINE_A, NOW_MS, Scene, chain, succeeded

MakeScene = Callable[[], Scene]
JOB = AutomationId("job")
ONCE = [{**chain(1)[0], "retry_policy": {"max_attempts": 1}}]


@pytest.fixture
def make_scene(tmp_path: Path) -> Iterator[MakeScene]:
    """Open a store when the scene begins, so that mutants of its statements count."""
    opened: list[SqliteStore] = []

    def make() -> Scene:
        opened.append(SqliteStore(tmp_path / f"{len(opened)}.db", synchronous="OFF"))
        return Scene(opened[-1])

    yield make
    for store in opened:
        store.close()


def failed(number: int) -> Settled:
    outcome = Failed(failure_class=FailureClass.MISSING_CONFIG, message="no key")
    return Settled(node_no=0, number=number, outcome=outcome)


async def enrolled(scene: Scene, *, runs_max: int = 0) -> None:
    await scene.store.enrol(JOB, tenant=LOCAL_TENANT, runs_max=runs_max, now_ms=NOW_MS)


def record(scene: Scene) -> Review:
    found = scene.store.find_review(JOB, tenant=LOCAL_TENANT)
    assert found is not None
    return found


async def learn_all(scene: Scene) -> int:
    count = 0
    for run_no in scene.store.list_learning_due(limit=100):
        learned = await scene.store.learn(
            run_no, policy=LearningPolicy(), change_id=scene.change_id(), now_ms=NOW_MS
        )
        count += learned is not None
    return count


# Ends that come together are all counted


async def ends_that_come_together_are_all_counted(make_scene: MakeScene) -> None:
    scene = make_scene()
    await enrolled(scene)
    for number in range(20):
        await scene.create(f"r{number}", chain(1))
    views = await scene.claim(limit=20)
    for view in views:
        await scene.store.apply(scene.next(view))
    await asyncio.gather(*(scene.store.apply(scene.next(view, succeeded(0))) for view in views))
    assert record(scene).runs_total == 20
    assert len(scene.store.list_learning_due(limit=100)) == 20


async def test_w34_ends_that_come_together(make_scene: MakeScene) -> None:
    await ends_that_come_together_are_all_counted(make_scene)


async def test_w34_ends_that_come_together_is_caught(
    make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The counter is read once and written later, as under separate locks.
    seen: dict[str, Review | None] = {}
    find = reviewing.find_review

    def stale(*asked: object) -> Review | None:
        if seen.get("review") is None:
            seen["review"] = find(*asked)  # type: ignore[arg-type] # handed on
        return seen["review"]

    monkeypatch.setattr(reviewing, "find_review", stale)
    with pytest.raises(AssertionError):
        await ends_that_come_together_are_all_counted(make_scene)


# An end counts once, whatever touches the run afterwards; a recovered run that ends again counts


async def an_end_counts_once_and_a_second_end_again(make_scene: MakeScene) -> None:
    scene = make_scene()
    await enrolled(scene)
    view = await scene.claimed("r", chain(2))
    await scene.store.apply(scene.next(view))
    await scene.execute("r", Cancel())  # its body may still live
    assert await learn_all(scene) == 1
    await scene.execute("r", ProcessesEnded(engine_id=ENGINE_A))
    assert record(scene).runs_total == 1
    assert await learn_all(scene) == 0

    again = await scene.claimed("f", ONCE)
    await scene.store.apply(scene.next(again))
    await scene.store.apply(scene.next(again, failed(1)))
    assert await learn_all(scene) == 1
    await scene.execute("f", Recover())
    (once_more,) = await scene.claim()
    await scene.store.apply(scene.next(once_more))
    await scene.store.apply(scene.next(once_more, failed(2)))
    assert record(scene).runs_total == 3
    assert await learn_all(scene) == 1
    assert scene.store.list_candidates(CandidateFilter(tenant=LOCAL_TENANT)) == []
    metrics = scene.store.read_metrics(JOB, tenant=LOCAL_TENANT, now_ms=NOW_MS)
    assert metrics.sample_size == 2


async def test_w34_touched_after_its_end(make_scene: MakeScene) -> None:
    await an_end_counts_once_and_a_second_end_again(make_scene)


async def test_w34_touched_after_its_end_is_caught(
    make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every touch of an ended run counts as an end, as in the original.
    statements = dict(store_module.load_statements())
    monkeypatch.setattr(store_module, "load_statements", lambda: statements)
    monkeypatch.setattr(reviewing, "TERMINAL", _EndedNow(reviewing.TERMINAL), raising=True)
    with pytest.raises(AssertionError):
        await an_end_counts_once_and_a_second_end_again(make_scene)


class _EndedNow(frozenset[object]):
    """Contains the terminal states, but never the state from which a run came."""

    asked = 0

    def __contains__(self, state: object) -> bool:
        # `follow` asks for the state after first, then for the one before.
        type(self).asked += 1
        return super().__contains__(state) if type(self).asked % 2 else False


# A pass that is made twice gives the same rows


async def a_pass_made_twice_gives_the_same_rows(make_scene: MakeScene) -> None:
    scene = make_scene()
    for number in range(2):
        view = await scene.claimed(f"r{number}", ONCE)
        await scene.store.apply(scene.next(view))
        await scene.store.apply(scene.next(view, failed(1)))
    due = scene.store.list_learning_due(limit=10)
    for _ in range(2):
        for run_no in due:
            await scene.store.learn(
                run_no, policy=LearningPolicy(), change_id=scene.change_id(), now_ms=NOW_MS
            )
    found = scene.store.list_candidates(CandidateFilter(tenant=LOCAL_TENANT))
    assert sorted(candidate.kind.value for candidate in found) == ["prompt_patch", "repair_hint"]
    assert {candidate.run_ids for candidate in found} == {("r1", "r0")}
    summary = scene.get("r1").learning_summary
    assert summary is not None
    assert len(summary.generated_candidate_ids) == 2
    assert summary.post_run_metrics is not None
    assert summary.post_run_metrics.sample_size == 2


async def test_w34_pass_made_twice(make_scene: MakeScene) -> None:
    await a_pass_made_twice_gives_the_same_rows(make_scene)


async def test_w34_pass_made_twice_is_caught(
    make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Candidates are not recognised when they are found again.
    statements = {
        **store_module.load_statements(),
        "find_learning_due": "SELECT '' AS review_request_id WHERE :run_no > 0",
        "put_candidate": """
            INSERT INTO learning_candidate (candidate_id, tenant, automation_id, kind, status,
                   confidence, updated_at_ms, candidate)
            VALUES (:candidate_id || random(), :tenant, :automation_id, :kind, :status,
                   :confidence, :updated_at_ms, :candidate)""",
    }
    monkeypatch.setattr(store_module, "load_statements", lambda: statements)
    with pytest.raises(AssertionError):
        await a_pass_made_twice_gives_the_same_rows(make_scene)
