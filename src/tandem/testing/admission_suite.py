"""The promises of `ports.store` about admission as tests that every store must pass."""

import asyncio
from typing import Any

import msgspec
import pytest

from tandem.domain.admission import Needs
from tandem.domain.command import Adopt, Cancel, Pause, ProcessesEnded, Resume
from tandem.domain.errors import NotFound
from tandem.domain.ids import LOCAL_TENANT, EngineId, RunId, TenantId
from tandem.domain.lifecycle import RunState
from tandem.domain.outcome import Failed, FailureClass
from tandem.domain.run import QueueReason
from tandem.domain.settling import Settled
from tandem.domain.view import RunView
from tandem.testing.store_suite import (
    ENGINE_A,
    ENGINE_B,
    NOW_MS,
    OTHER_TENANT,
    OpenStore,
    Scene,
    chain,
    engine_row,
    succeeded,
)

KEY = "concurrency://local/key"


def locked(path: str) -> Needs:
    """Return the needs of a run that has a workspace to itself."""
    return Needs(lock_path=path)


def keyed(limit: int = 1, key: str = KEY) -> Needs:
    """Return the needs of a run under a concurrency key."""
    return Needs(concurrency_key=key, concurrency_limit=limit)


def request(host: str) -> list[dict[str, Any]]:
    """Return a node that asks a host, and one after it that does not."""
    action = {"kind": "http", "url": f"http://{host}/"}
    return [
        {"node_id": "ask", "action": action},
        {
            "node_id": "after",
            "depends_on": ["ask"],
            "action": {"kind": "python", "function": "m:f"},
        },
    ]


async def end(scene: Scene, view: RunView) -> None:
    """Drive a claimed chain of one node to its end."""
    await scene.store.apply(scene.next(view))
    await scene.store.apply(scene.next(view, succeeded(0)))
    assert view.run.status is RunState.COMPLETED


class AdmissionSuite:
    """What a store promises of admission. Subclass it beside `StoreSuite`."""

    @pytest.fixture
    def scene(self, open_store: OpenStore) -> Scene:
        """One store."""
        return Scene(open_store())

    # Workspaces

    @pytest.mark.parametrize(
        ("one", "other", "fits"),
        [
            ("/r", "/r", False),
            ("/r", "/r/sub", False),
            ("/r/sub", "/r", False),
            ("/", "/r", False),
            ("/r", "/", False),
            ("/r", "/r2", True),
            ("/r/a", "/r/b", True),
            ("/r", "/r-x", True),
            ("", "/r", True),
        ],
    )
    async def test_overlapping_workspaces_are_held_by_one_run(
        self, scene: Scene, one: str, other: str, fits: bool
    ) -> None:
        await scene.create("r1", needs=locked(one))
        await scene.create("r2", needs=locked(other))

        assert await scene.claimed_ids() == (["r1", "r2"] if fits else ["r1"])
        if not fits:
            waiting = scene.get("r2")
            assert waiting.queue_reason is QueueReason.WORKSPACE_LOCK
            assert (waiting.resource_key, waiting.due_at_ms) == (one, None)
            assert waiting.queued_at_ms == NOW_MS

    async def test_two_runs_of_one_claim_do_not_share_a_workspace(self, scene: Scene) -> None:
        for number in range(3):
            await scene.create(f"r{number}", needs=locked("/r"))

        assert await scene.claimed_ids(limit=8) == ["r0"]

    async def test_end_of_a_run_frees_its_workspace_and_wakes_the_next(self, scene: Scene) -> None:
        for number in range(3):
            await scene.create(f"r{number}", chain(1), needs=locked("/r"), now_ms=NOW_MS + number)
        for number in range(3):
            (view,) = await scene.claim(now_ms=NOW_MS + 10)
            assert view.run.run_id == f"r{number}"
            await end(scene, view)

        assert await scene.claim(now_ms=NOW_MS + 10) == []

    async def test_woken_run_keeps_the_moment_since_which_it_waits(self, scene: Scene) -> None:
        await scene.create("r1", chain(1), needs=locked("/r"))
        await scene.create("r2", needs=locked("/r"))
        (view,) = await scene.claim()
        later = msgspec.structs.replace(view.run)
        await end(scene, view)

        waiting = scene.get("r2")
        assert (waiting.queued_at_ms, waiting.due_at_ms) == (NOW_MS, NOW_MS)
        assert (waiting.queue_reason, waiting.resource_key) == (None, "")
        assert later.lock_path == "/r"

    async def test_pausing_run_keeps_its_workspace_and_a_paused_one_does_not(
        self, scene: Scene
    ) -> None:
        await scene.create("r1", needs=locked("/r"))
        await scene.create("r2", needs=locked("/r"))
        (view,) = await scene.claim()
        await scene.store.apply(scene.next(view))

        await scene.execute("r1", Pause())
        assert await scene.claim() == []
        view = await scene.store.load(RunId("r1"), tenant=LOCAL_TENANT)
        await scene.store.apply(scene.next(view, succeeded(0)))
        assert view.run.status is RunState.PAUSED

        assert await scene.claimed_ids() == ["r2"]
        await scene.execute("r1", Resume())
        assert await scene.claim() == []
        assert scene.get("r1").queue_reason is QueueReason.WORKSPACE_LOCK

    async def test_cancelled_run_keeps_its_workspace_until_its_processes_are_dead(
        self, scene: Scene
    ) -> None:
        await scene.create(
            "r1", needs=Needs(lock_path="/r", concurrency_key=KEY, concurrency_limit=1)
        )
        await scene.create("r2", needs=locked("/r"))
        await scene.create("r3", needs=keyed())
        (view,) = await scene.claim()
        await scene.store.apply(scene.next(view))
        await scene.execute("r1", Cancel())
        assert scene.get("r1").cleanup == ENGINE_A

        assert await scene.claim() == []
        await scene.execute("r1", ProcessesEnded(engine_id=ENGINE_A))

        assert await scene.claimed_ids() == ["r2", "r3"]

    async def test_adopted_run_frees_its_workspace_and_may_have_it_again(
        self, scene: Scene
    ) -> None:
        await scene.create("r1", needs=locked("/r"))
        (view,) = await scene.claim()
        await scene.store.apply(scene.next(view))

        await scene.execute("r1", Adopt(dead=ENGINE_A))
        (again,) = await scene.claim(ENGINE_B)

        standing = scene.store.read_standing(RunId("r1"), tenant=LOCAL_TENANT, now_ms=NOW_MS)
        assert (again.run.epoch, standing.lock) == (2, None)

    async def test_lock_tells_its_holder(self, scene: Scene) -> None:
        await scene.create("r1", needs=locked("/r"))
        await scene.create("r2", needs=locked("/r/sub"))
        await scene.claim(now_ms=NOW_MS + 5)

        lock = scene.store.read_standing(RunId("r2"), tenant=LOCAL_TENANT, now_ms=NOW_MS).lock

        assert lock is not None
        assert (lock.path, lock.run_id, lock.tenant) == ("/r", "r1", LOCAL_TENANT)
        assert (lock.engine_id, lock.epoch, lock.since_ms) == (ENGINE_A, 1, NOW_MS + 5)

    async def test_workspace_is_held_against_other_tenants_too(self, scene: Scene) -> None:
        await scene.create("r1", needs=locked("/r"))
        await scene.create("r2", tenant=OTHER_TENANT, needs=locked("/r"))

        assert len(await scene.claim()) == 1

    # Concurrency keys

    async def test_no_more_runs_of_a_key_than_its_limit(self, scene: Scene) -> None:
        for number in range(4):
            await scene.create(f"r{number}", chain(1), needs=keyed(2))
        await scene.create("free")

        views = await scene.claim()
        assert [view.run.run_id for view in views] == ["r0", "r1", "free"]
        waiting = scene.get("r3")
        assert (waiting.queue_reason, waiting.resource_key) == (QueueReason.CONCURRENCY, KEY)

        await end(scene, views[0])
        assert await scene.claimed_ids() == ["r2"]

    async def test_each_run_is_judged_by_its_own_limit(self, scene: Scene) -> None:
        await scene.create("r1", needs=keyed(5))
        await scene.create("narrow", needs=keyed(1))
        await scene.create("wide", needs=keyed(5))

        assert await scene.claimed_ids() == ["r1", "wide"]

    async def test_limit_holds_among_engines_that_claim_at_once(
        self, open_store: OpenStore
    ) -> None:
        scenes = [Scene(open_store(), name=name) for name in ("one", "two")]
        for number in range(20):
            await scenes[0].create(f"r{number}", needs=keyed(3))

        rounds = await asyncio.gather(
            *(scenes[n % 2].claim(EngineId(f"engine-{n}"), limit=2) for n in range(8))
        )

        assert sum(len(views) for views in rounds) == 3

    async def test_dead_engine_leaves_no_place_taken(self, scene: Scene) -> None:
        await scene.create("r1", needs=keyed())
        await scene.create("r2", needs=keyed())
        await scene.claim(limit=1)
        assert await scene.claim(ENGINE_B) == []

        await scene.execute("r1", Adopt(dead=ENGINE_A))
        await scene.execute("r1", Cancel())

        assert await scene.claimed_ids(ENGINE_B) == ["r2"]

    # Throttles

    async def throttled(self, scene: Scene, *, retry_after_ms: int = 5_000) -> None:
        """Let a run hear from a host that it wants to be left alone."""
        await scene.create("r1", request("busy"))
        (view,) = await scene.claim()
        await scene.store.apply(scene.next(view))
        failed = Failed(
            failure_class=FailureClass.PROVIDER_TRANSIENT,
            message="429",
            retry_after_ms=retry_after_ms,
            provider="http:busy",
        )
        await scene.store.apply(scene.next(view, Settled(node_no=0, number=1, outcome=failed)))

    async def test_throttled_provider_is_left_alone_by_all_runs_of_the_tenant(
        self, scene: Scene
    ) -> None:
        await self.throttled(scene)
        await scene.create("r2", request("BUSY:8080"))
        await scene.create("other_host", request("idle"))
        await scene.create("other_tenant", request("busy"), tenant=OTHER_TENANT)

        assert sorted(await scene.claimed_ids()) == ["other_host", "other_tenant"]
        waiting = scene.get("r2")
        assert waiting.queue_reason is QueueReason.RATE_LIMIT
        assert (waiting.rate_limited_provider, waiting.due_at_ms) == ("http:busy", NOW_MS + 5_000)
        assert await scene.claim(now_ms=NOW_MS + 4_999) == []
        assert sorted(await scene.claimed_ids(now_ms=NOW_MS + 5_000)) == ["r1", "r2"]

    async def test_longer_wish_stands(self, scene: Scene) -> None:
        await self.throttled(scene, retry_after_ms=60_000)
        await scene.create("r2", request("busy"))
        assert await scene.claim(now_ms=NOW_MS + 59_999) == []
        assert scene.get("r2").due_at_ms == NOW_MS + 60_000

    async def test_run_whose_request_is_done_needs_the_provider_no_more(self, scene: Scene) -> None:
        await scene.create("done", request("busy"))
        (view,) = await scene.claim()
        await scene.store.apply(scene.next(view))
        await scene.execute("done", Pause())
        view = await scene.store.load(RunId("done"), tenant=LOCAL_TENANT)
        await scene.store.apply(scene.next(view, succeeded(0)))
        await self.throttled(scene)

        await scene.execute("done", Resume())

        assert await scene.claimed_ids() == ["done"]

    # Turns, places, labels

    async def test_tenants_take_turns_and_each_is_served_in_order(self, scene: Scene) -> None:
        for number in range(6):
            await scene.create(f"a{number}", tenant=TenantId("a"), now_ms=NOW_MS)
        for name in "bc":
            for number in range(2):
                await scene.create(f"{name}{number}", tenant=TenantId(name), now_ms=NOW_MS + 1)

        order: list[str] = []
        for limit in (1, 1, 2, 3, 3):
            order += await scene.claimed_ids(limit=limit, now_ms=NOW_MS + 5)

        assert order == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "a3", "a4", "a5"]

    async def test_runs_that_must_wait_hold_up_nobody(self, scene: Scene) -> None:
        await scene.create("holder", needs=locked("/r"))
        await scene.claim()
        for number in range(1_000):
            await scene.create(f"r{number}", needs=locked("/r"), now_ms=NOW_MS + 1)
        await scene.create("last", now_ms=NOW_MS + 2)

        found: list[str] = []
        for _ in range(11):
            found += await scene.claimed_ids(limit=1, now_ms=NOW_MS + 3)

        assert found == ["last"]

    async def test_all_engines_together_keep_to_the_total(self, scene: Scene) -> None:
        for number in range(9):
            await scene.create(f"r{number}")

        await scene.claim(ENGINE_A, limit=3, runs_total_max=5)
        await scene.claim(ENGINE_B, limit=9, runs_total_max=5)

        assert scene.store.count_driven() == {ENGINE_A: 3, ENGINE_B: 2}
        assert await scene.claim(EngineId("engine-c"), runs_total_max=5) == []

    async def test_engine_claims_only_what_it_has_the_labels_for(self, scene: Scene) -> None:
        await scene.create("gpu", needs=Needs(labels=("gpu",)))
        await scene.create("both", needs=Needs(labels=("eu", "gpu")))
        await scene.create("plain")

        assert await scene.claimed_ids() == ["plain"]
        assert await scene.claimed_ids(ENGINE_B, labels=("gpu",)) == ["gpu"]
        assert await scene.claimed_ids(ENGINE_B, labels=("us", "gpu", "eu")) == ["both"]

    async def test_engine_keeps_its_labels_and_places_in_its_row(self, scene: Scene) -> None:
        row = msgspec.structs.replace(
            engine_row(ENGINE_A), labels=("eu",), runs_max=3, runs_total_max=9, own_only=True
        )
        await scene.store.put_engine(row)

        assert list(scene.store.list_engines()) == [row]

    # The net

    async def test_net_wakes_those_who_wait_for_what_nobody_has(self, scene: Scene) -> None:
        for number in range(40):
            await scene.create(f"r{number}", needs=locked("/r"))
        await scene.claim(limit=1)
        assert await scene.claim() == []
        assert await scene.store.wake_freed(now_ms=NOW_MS, limit=100) == 0

        # The holder's end wakes the first ones; they are all taken away before they are claimed.
        await scene.execute("r0", Adopt(dead=ENGINE_A))
        await scene.execute("r0", Cancel())
        woken = [n for n in range(1, 40) if scene.get(f"r{n}").due_at_ms is not None]
        assert 0 < len(woken) < 39
        for number in woken:
            await scene.execute(f"r{number}", Cancel())

        assert await scene.claim() == []
        assert await scene.store.wake_freed(now_ms=NOW_MS, limit=100) == 39 - len(woken)
        assert len(await scene.claim()) == 1

    async def test_net_looks_at_some_keys_at_a_time_and_goes_on(self, scene: Scene) -> None:
        for number in range(3):
            await scene.create(f"holder{number}", needs=keyed(key=f"{KEY}{number}"))
        assert len(await scene.claim()) == 3
        for number in range(3):
            await scene.create(f"r{number}", needs=keyed(key=f"{KEY}{number}"))
        assert await scene.claim() == []

        for _ in range(4):
            assert await scene.store.wake_freed(now_ms=NOW_MS, limit=2) == 0

    # What is told

    async def test_standing_tells_holders_throttles_and_newest_events(self, scene: Scene) -> None:
        await self.throttled(scene)
        for number in range(2):
            await scene.create(f"k{number}", request("busy"), needs=keyed())
        await scene.create("k2", needs=keyed())
        assert await scene.claimed_ids() == ["k2"]

        found = scene.store.read_standing(RunId("k0"), tenant=LOCAL_TENANT, now_ms=NOW_MS)

        assert [holder.run_id for holder in found.holders] == ["k2"]
        assert found.claims == 1
        assert found.throttles == {"http:busy": NOW_MS + 5_000}
        of_holder = scene.store.read_standing(RunId("k2"), tenant=LOCAL_TENANT, now_ms=NOW_MS)
        assert (of_holder.claims, of_holder.holders, of_holder.throttles) == (0, (), {})
        assert [event.seq for event in of_holder.events] == [2, 1]
        with pytest.raises(NotFound):
            scene.store.read_standing(RunId("k2"), tenant=OTHER_TENANT, now_ms=NOW_MS)

    async def test_each_admission_and_each_completion_is_counted_once(self, scene: Scene) -> None:
        for number in range(3):
            await scene.create(f"r{number}", chain(1), now_ms=NOW_MS + number)
        views = await scene.claim(now_ms=NOW_MS + 10)
        await end(scene, views[0])
        await scene.execute("r1", Pause())
        await scene.execute("r1", Resume(), now_ms=NOW_MS + 20)
        await scene.claim(now_ms=NOW_MS + 30)
        await scene.execute("r2", Cancel())

        queue = scene.store.read_queue(now_ms=NOW_MS + 30)

        assert (queue.admitted_total, queue.completed_total, queue.active_runs) == (4, 2, 1)
        assert sorted(queue.waits_ms) == [8, 9, 10, 10]

    async def test_queue_is_counted_by_lane_and_reason(self, scene: Scene) -> None:
        for number in range(3):
            await scene.create(f"r{number}", needs=locked("/r"))
        await scene.claim()
        for number in range(2):
            await scene.create(f"gpu{number}", needs=Needs(labels=("gpu",)))
        await scene.create("later", now_ms=NOW_MS + 50)

        lanes = scene.store.read_queue(now_ms=NOW_MS).lanes

        found = {(lane.labels, lane.reason, lane.is_due): lane.runs for lane in lanes}
        assert found == {
            ((), "workspace_lock", False): 2,
            (("gpu",), "", True): 2,
            ((), "", False): 1,
        }
