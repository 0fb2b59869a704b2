"""The promises of `ports.store` about stored automations, as tests that every store must pass.

Used as `StoreSuite` is; the fixture is the same.
"""

from collections.abc import Sequence

import pytest

from tandem.domain.admission import Needs
from tandem.domain.automation import Automation, AutomationStatus, canonical_document
from tandem.domain.automation_keeping import (
    AutomationCommand,
    DeleteAutomation,
    PauseAutomation,
    ResumeAutomation,
    Save,
)
from tandem.domain.change import Change
from tandem.domain.command import Pause, Repair
from tandem.domain.creation import NewRun
from tandem.domain.errors import NotFound, Refused, StoreUnavailable
from tandem.domain.graph import Plan
from tandem.domain.ids import (
    LOCAL_TENANT,
    AutomationId,
    DefinitionDigest,
    NodeId,
    RunId,
    TenantId,
)
from tandem.domain.json import JsonObject, digest
from tandem.domain.lifecycle import RunEvent, RunState
from tandem.domain.run import QueueReason, Run
from tandem.domain.stored_automation import AutomationChange, AutomationEvent
from tandem.ports.store import RunFilter
from tandem.testing.store_suite import (
    ENGINE_B,
    NO_NEEDS,
    NOW_MS,
    OTHER_TENANT,
    CommitFault,
    OpenStore,
    Scene,
    chain,
    plan_of,
)

JOB = AutomationId("job")
MANY = 150


class Keeper:
    """One store with the automation `job` in it."""

    def __init__(self, store_of: OpenStore, fault: CommitFault | None = None) -> None:
        self.scene = Scene(store_of(fault))
        self.store = self.scene.store

    async def ask(
        self, command: AutomationCommand, *, tenant: TenantId = LOCAL_TENANT, document: bytes = b""
    ) -> tuple[AutomationChange, Sequence[Change]]:
        """Execute a command on the automation."""
        return await self.store.execute_on_automation(
            JOB,
            command,
            tenant=tenant,
            change_id=self.scene.change_id(),
            now_ms=NOW_MS,
            document=document,
        )

    async def save(
        self,
        length: int = 2,
        *,
        status: AutomationStatus | None = None,
        expected_version: int | None = None,
        tenant: TenantId = LOCAL_TENANT,
    ) -> AutomationChange:
        """Save a chain of this length as the definition."""
        plan, document = plan_of(chain(length))
        command = Save(
            definition_digest=plan.digest,
            name="Job",
            creator_id="ann",
            actor="ann",
            status=status,
            expected_version=expected_version,
        )
        return (await self.ask(command, tenant=tenant, document=document))[0]

    async def pause(self) -> Sequence[Change]:
        """Pause the automation; the changes of its runs."""
        return (await self.ask(PauseAutomation(by="eve", reason="too loud")))[1]

    async def resume(self) -> None:
        """Resume the automation."""
        await self.ask(ResumeAutomation(by="eve"))

    async def claim_all(self) -> list[str]:
        """Claim until nothing more happens; the runs that are to be driven."""
        taken: list[str] = []
        while found := await self.scene.attempt_claim():
            taken += [one.view.run.run_id for one in found if one.is_taken]
        return taken


async def create_lacking(
    scene: Scene, run_id: str, *, context: JsonObject | None = None, needs: Needs = NO_NEEDS
) -> None:
    """Create a run whose definition needs a context that it does not give."""
    lacking = Automation.model_validate(
        {
            "automation_id": "lacking",
            "flow": {"nodes": chain(1)},
            "metadata": {"shared_context_pack_ids": ["pack"]},
        }
    )
    document = canonical_document(lacking)
    await scene.store.create_run(
        NewRun(
            run_id=RunId(run_id),
            tenant=LOCAL_TENANT,
            change_id=scene.change_id(),
            plan=Plan(lacking, DefinitionDigest(digest(document))),
            document=document,
            inputs={},
            workspace="",
            runtime_context=context,
            needs=needs,
        ),
        now_ms=NOW_MS,
    )


class AutomationSuite:
    """What every store does with stored automations."""

    async def test_a_saved_automation_is_there_and_its_versions_stay(
        self, open_store: OpenStore
    ) -> None:
        """An old version is found by its number."""
        keeper = Keeper(open_store)
        await keeper.save(2)
        change = await keeper.save(3)
        row = keeper.store.find_automation(JOB, tenant=LOCAL_TENANT)
        assert row == change.row
        assert row is not None
        assert (row.version, row.automation_no > 0) == (2, True)
        lengths = [
            len(Automation.model_validate_json(keeper.store.automation_document(row, n)).nodes)
            for n in (1, 2)
        ]
        assert lengths == [2, 3]
        with pytest.raises(NotFound, match="has no version 3; the newest is 2"):
            keeper.store.automation_document(row, 3)

    async def test_what_happened_is_recorded(self, open_store: OpenStore) -> None:
        """Who, when and why, in order; a save without a difference is nothing."""
        keeper = Keeper(open_store)
        await keeper.save()
        assert (await keeper.save()).record is None
        await keeper.pause()
        await keeper.resume()
        (change, _) = await keeper.ask(DeleteAutomation(by="ann", reason="old"))
        records = keeper.store.list_automation_records(change.row, after_seq=0, limit=10)
        assert [(r.seq, r.event, r.actor, r.reason) for r in records] == [
            (1, AutomationEvent.CREATED, "ann", ""),
            (2, AutomationEvent.PAUSED, "eve", "too loud"),
            (3, AutomationEvent.RESUMED, "eve", "resumed by operator"),
            (4, AutomationEvent.DELETED, "ann", "old"),
        ]
        later = keeper.store.list_automation_records(change.row, after_seq=2, limit=1)
        assert [record.seq for record in later] == [3]

    async def test_of_two_that_saw_the_same_version_one_saves(self, open_store: OpenStore) -> None:
        """The version is compared inside the transaction."""
        keeper = Keeper(open_store)
        await keeper.save(2, expected_version=0)
        await keeper.save(3, expected_version=1)
        with pytest.raises(Refused, match="its version is 2, not 1"):
            await keeper.save(4, expected_version=1)
        row = keeper.store.find_automation(JOB, tenant=LOCAL_TENANT)
        assert row is not None
        assert row.version == 2

    async def test_lists_page_by_id_and_know_their_tenant(self, open_store: OpenStore) -> None:
        """A deleted automation is not in them; another tenant sees nothing."""
        keeper = Keeper(open_store)
        plan, document = plan_of(chain(1))
        command = Save(definition_digest=plan.digest, name="", creator_id="ann")
        for name in ("a", "b", "c"):
            await keeper.store.execute_on_automation(
                AutomationId(name),
                command,
                tenant=LOCAL_TENANT,
                change_id=keeper.scene.change_id(),
                now_ms=NOW_MS,
                document=document,
            )
        await keeper.save()
        await keeper.ask(DeleteAutomation(by="ann"))

        def ids(tenant: TenantId, after_id: str, limit: int) -> list[str]:
            found = keeper.store.list_automations(tenant=tenant, after_id=after_id, limit=limit)
            return [row.automation_id for row in found]

        assert ids(LOCAL_TENANT, "", 10) == ["a", "b", "c"]
        assert ids(LOCAL_TENANT, "a", 1) == ["b"]
        assert ids(OTHER_TENANT, "", 10) == []
        assert keeper.store.find_automation(AutomationId("a"), tenant=OTHER_TENANT) is None

    async def test_all_queued_runs_of_a_paused_automation_are_held(
        self, open_store: OpenStore
    ) -> None:
        """However many they are, also those that come later; nobody else waits for it."""
        keeper = Keeper(open_store)
        await keeper.save()
        for number in range(MANY):
            await keeper.scene.create(f"r{number:03}")
        await keeper.pause()
        await keeper.scene.create("late")
        await keeper.scene.create("other", automation="another")
        assert await keeper.claim_all() == ["other"]
        chosen = RunFilter(
            tenant=LOCAL_TENANT, automation_id=JOB, statuses=(RunState.QUEUED,), limit=MANY + 1
        )
        held = keeper.store.list_runs(chosen)
        assert len(held) == MANY + 1
        assert {(run.queue_reason, run.resource_key) for run in held} == {
            (QueueReason.AUTOMATION_PAUSED, "automation:job")
        }
        await keeper.resume()
        again = await keeper.claim_all()
        assert again == sorted(again, key=lambda name: (name == "late", name))
        assert len(again) == MANY + 1

    async def test_a_held_run_says_by_what_since_when_and_who(self, open_store: OpenStore) -> None:
        """The record of the hold stays with the run."""
        keeper = Keeper(open_store)
        await keeper.save()
        await keeper.scene.create("r")
        await keeper.pause()
        (held,) = await keeper.scene.attempt_claim()
        assert not held.is_taken
        events = keeper.store.list_events(RunId("r"), tenant=LOCAL_TENANT, after_seq=1, limit=9)
        assert [event.event for event in events] == [RunEvent.RUN_HELD]
        assert events[0].reason == "automation `job` is paused by eve: too loud"
        assert events[0].metadata["since_ms"] == NOW_MS

    async def test_a_pause_pauses_what_is_driven(self, open_store: OpenStore) -> None:
        """In the same transaction; runs of other automations and tenants go on."""
        keeper = Keeper(open_store)
        await keeper.save()
        for name in ("r1", "r2"):
            await keeper.scene.create(name)
        await keeper.scene.create("other", automation="another")
        await keeper.scene.create("foreign", tenant=OTHER_TENANT)
        await keeper.scene.claim(ENGINE_B)
        changes = await keeper.pause()
        assert {change.run.run_id for change in changes} == {"r1", "r2"}
        for name in ("r1", "r2"):
            run = keeper.scene.get(name)
            assert (run.status, run.pause_reason) == (RunState.PAUSED, "too loud")
        assert keeper.scene.get("other").status is RunState.RUNNING

    async def test_deleting_releases_what_was_held_and_keeps_the_runs(
        self, open_store: OpenStore
    ) -> None:
        """Runs of a deleted automation go on with their pinned definition."""
        keeper = Keeper(open_store)
        await keeper.save()
        await keeper.scene.create("r")
        await keeper.pause()
        assert await keeper.claim_all() == []
        await keeper.ask(DeleteAutomation(by="ann"))
        assert await keeper.claim_all() == ["r"]

    async def test_a_run_of_a_draft_is_refused_where_it_is_written(
        self, open_store: OpenStore
    ) -> None:
        """Dry runs are not; nor are runs of definitions that are not stored."""
        keeper = Keeper(open_store)
        await keeper.save(status=AutomationStatus.DRAFT)
        with pytest.raises(Refused, match="draft"):
            await self._create(keeper, "r1", is_dry=False)
        dry = await self._create(keeper, "r2", is_dry=True)
        assert (dry.status, dry.detail, dry.run_no > 0) == (RunState.COMPLETED, "dry_run", True)
        assert keeper.scene.get("r2") == dry
        await keeper.scene.create("r3")
        await keeper.ask(DeleteAutomation(by="ann"))
        with pytest.raises(NotFound):
            await self._create(keeper, "r4", is_dry=True)

    async def _create(self, keeper: Keeper, run_id: str, *, is_dry: bool) -> Run:
        plan, document = plan_of(chain(2))
        new = NewRun(
            run_id=RunId(run_id),
            tenant=LOCAL_TENANT,
            change_id=keeper.scene.change_id(),
            plan=plan,
            document=document,
            inputs={},
            workspace="",
            automation_version=1,
            is_dry=is_dry,
        )
        return await keeper.store.create_run(new, now_ms=NOW_MS)

    async def test_a_failed_commit_saves_nothing_or_all(self, open_store: OpenStore) -> None:
        """What is answered is what is on disk."""
        fault = CommitFault()
        keeper = Keeper(open_store, fault)
        fault.arm("before")
        with pytest.raises(StoreUnavailable):
            await keeper.save(2)
        assert keeper.store.find_automation(JOB, tenant=LOCAL_TENANT) is None
        fault.arm("after")
        change = await keeper.save(2)
        assert change.row == keeper.store.find_automation(JOB, tenant=LOCAL_TENANT)

    async def test_a_repair_is_saved_with_the_run_or_not_at_all(
        self, open_store: OpenStore
    ) -> None:
        """The version of the run and that of the automation are one transaction."""
        fault = CommitFault()
        keeper = Keeper(open_store, fault)
        await keeper.save()
        await keeper.scene.create("r")
        await keeper.scene.execute("r", Pause())
        before = keeper.scene.get("r")
        repair = Repair(
            node_id=NodeId("n1"), action={"kind": "command", "argv": ["false"]}, save=True
        )
        fault.arm("before")
        with pytest.raises(StoreUnavailable):
            await keeper.scene.execute("r", repair)
        row = keeper.store.find_automation(JOB, tenant=LOCAL_TENANT)
        assert row is not None
        assert (keeper.scene.get("r"), row.version) == (before, 1)

        change = await keeper.scene.execute("r", repair)

        row = keeper.store.find_automation(JOB, tenant=LOCAL_TENANT)
        assert row is not None
        assert (row.version, row.definition_digest) == (2, change.run.definition_digest)
        paused = await keeper.scene.execute("r", Pause())
        await keeper.save(3)
        with pytest.raises(Refused, match="version 3"):
            await keeper.scene.execute("r", repair)
        assert keeper.scene.get("r") == paused.run

    async def test_every_event_names_the_profile_of_its_run(self, open_store: OpenStore) -> None:
        """It is kept once, with the run (run-lifecycle 1.3)."""
        keeper = Keeper(open_store)
        await keeper.scene.create("r")
        await keeper.scene.claim()
        events = keeper.store.list_events(RunId("r"), tenant=LOCAL_TENANT, after_seq=0, limit=9)
        profiles = [event.metadata["effective_execution_profile"] for event in events]
        assert profiles == ["strict", "strict"]

    async def test_a_definition_without_its_context_fails_the_run_at_the_claim(
        self, open_store: OpenStore
    ) -> None:
        """The end is a change like every other; the run behind it is claimed."""
        keeper = Keeper(open_store)
        await create_lacking(keeper.scene, "without")
        await create_lacking(keeper.scene, "with", context={"routines": []})
        found = await keeper.scene.attempt_claim(limit=1)
        assert [(one.view.run.run_id, one.is_taken) for one in found] == [
            ("without", False),
            ("with", True),
        ]
        assert found[1].view.runtime_context == {"routines": []}
        failed = keeper.scene.get("without")
        assert failed == found[0].view.run
        assert failed.status is RunState.FAILED
        assert failed.detail == "runtime context partition missing for automation run"

    async def test_held_runs_are_left_alone_by_whoever_wakes_runs(
        self, open_store: OpenStore
    ) -> None:
        """The net wakes those behind them, and no held one; the resume wakes all."""
        keeper = Keeper(open_store)
        scene, store = keeper.scene, keeper.store
        await keeper.save()
        await keeper.pause()
        for number in range(3):
            await scene.create(f"held{number}", needs=Needs(lock_path="/r"))
        assert await keeper.claim_all() == []
        before = [scene.get(f"held{number}") for number in range(3)]

        assert await store.wake_freed(now_ms=NOW_MS, limit=1) == 0
        assert await store.wake_freed(now_ms=NOW_MS, limit=10) == 0
        assert [scene.get(f"held{number}") for number in range(3)] == before
        found = store.read_standing(RunId("held0"), tenant=LOCAL_TENANT, now_ms=NOW_MS)
        assert found.automation is not None
        assert (found.automation.paused_by, found.lock) == ("eve", None)

        await keeper.resume()
        assert await scene.claimed_ids() == ["held0"]
        assert scene.get("held1").queue_reason is QueueReason.WORKSPACE_LOCK
        assert scene.get("held1").queued_at_ms == before[1].queued_at_ms

    async def test_held_run_takes_neither_workspace_nor_place(self, open_store: OpenStore) -> None:
        """A run of another automation has them at once, and the held one is told first."""
        keeper = Keeper(open_store)
        scene = keeper.scene
        await keeper.save()
        await keeper.pause()
        needs = Needs(lock_path="/r", concurrency_key="concurrency://local/k", concurrency_limit=1)
        await scene.create("held", needs=needs)
        await scene.create("other", needs=needs, automation="other", now_ms=NOW_MS + 1)

        found = await scene.attempt_claim(limit=1, now_ms=NOW_MS + 1)
        assert [(one.view.run.run_id, one.is_taken) for one in found] == [
            ("held", False),
            ("other", True),
        ]
        queue = scene.store.read_queue(now_ms=NOW_MS + 1)
        assert (queue.admitted_total, queue.active_runs) == (1, 1)

    async def test_run_that_ends_at_its_claim_takes_nothing_and_counts_once(
        self, open_store: OpenStore
    ) -> None:
        """It waits for nothing that it needs no more, and frees nothing that others have."""
        scene = Scene(open_store())
        needs = Needs(lock_path="/r", concurrency_key="concurrency://local/k", concurrency_limit=1)
        await scene.create("holder", needs=needs)
        await scene.claim()
        await scene.create("waits", needs=needs)
        assert await scene.claim() == []
        waits = scene.get("waits")
        assert waits.queue_reason is QueueReason.WORKSPACE_LOCK

        await create_lacking(scene, "without", needs=needs)
        (ended,) = await scene.attempt_claim()
        assert ended.view.run.status is RunState.FAILED
        assert scene.get("waits") == waits
        assert await scene.store.wake_freed(now_ms=NOW_MS, limit=10) == 0
        found = scene.store.read_standing(RunId("waits"), tenant=LOCAL_TENANT, now_ms=NOW_MS)
        assert found.lock is not None
        assert found.lock.run_id == "holder"
        queue = scene.store.read_queue(now_ms=NOW_MS)
        assert (queue.admitted_total, queue.completed_total) == (1, 1)

    async def test_run_behind_many_refused_ones_is_claimed_with_a_definition_of_its_own(
        self, open_store: OpenStore
    ) -> None:
        """Definitions are read before the claim, and those that it comes to in spite of that."""
        scene = Scene(open_store())
        needs = Needs(lock_path="/r")
        for number in range(5):
            await scene.create(f"r{number}", needs=needs, automation=f"job{number}")
        await scene.create("free", automation="another")

        found = await Scene(open_store()).attempt_claim(limit=2)
        assert [one.view.run.run_id for one in found] == ["r0", "free"]
        assert len({one.change.change_id for one in found}) == 2
