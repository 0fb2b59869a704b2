"""The promises of `ports.webhooks`, as tests that every store must pass.

Used as `StoreSuite` is; the fixture is the same.
"""

import asyncio
from typing import Any

import msgspec
import pytest

from tandem.domain.audit import problems_of
from tandem.domain.automation import AutomationStatus
from tandem.domain.automation_keeping import PauseAutomation, Save
from tandem.domain.creation import NewRun
from tandem.domain.errors import (
    ChangeRefused,
    InvalidRequest,
    NotFound,
    StoreUnavailable,
)
from tandem.domain.ids import (
    LOCAL_TENANT,
    AutomationId,
    RunId,
    TenantId,
)
from tandem.domain.json import digest
from tandem.domain.lifecycle import RunState
from tandem.domain.signal import Signal
from tandem.domain.trigger import TriggerType
from tandem.domain.webhook import DeliveryStatus, TriggerSpec, WebhookTrigger, new_trigger
from tandem.domain.webhook_delivery import (
    Arrival,
    Dedupe,
    Delivery,
    claims_of,
    not_believed,
    raw_event,
    run_id_of,
    signal_of,
    trigger_context_of,
)
from tandem.domain.webhook_keeping import (
    DisableTrigger,
    RevealToken,
    RotateSecret,
    SealedSecret,
    TriggerChange,
    first_secret,
)
from tandem.ports.store import RunFilter
from tandem.ports.webhooks import DeliveryFilter, RefusedRun, SettledDelivery, Settling
from tandem.testing.builders import webhook_node
from tandem.testing.store_suite import (
    NOW_MS,
    OTHER_TENANT,
    CommitFault,
    OpenStore,
    Scene,
    chain,
    plan_of,
)

JOB = AutomationId("job")
HOOK = "hook"
S = DeliveryStatus


class Post:
    """One store with an automation and a trigger, and deliveries that come there."""

    def __init__(self, store_of: OpenStore, fault: CommitFault | None = None) -> None:
        self.scene = Scene(store_of(fault))
        self.store = self.scene.store
        self.plan, self.document = plan_of(chain(1))

    async def open(self, *, tenant: TenantId = LOCAL_TENANT) -> WebhookTrigger:
        """Save the automation and make the trigger, with one secret."""
        await self.save(tenant=tenant)
        trigger = self.trigger(tenant=tenant)
        await self.store.create_trigger(first_secret(trigger, b"one", now_ms=NOW_MS))
        return trigger

    def trigger(self, *, tenant: TenantId = LOCAL_TENANT, name: str = HOOK) -> WebhookTrigger:
        """Describe a trigger of the automation."""
        return new_trigger(
            TriggerSpec(provider="generic"),
            tenant=tenant,
            automation_id=JOB,
            trigger_id=name,
            public_path_token=f"whpub_{name}",
            now_ms=NOW_MS,
            unsigned_allowed=False,
        )

    async def save(self, length: int = 1, *, tenant: TenantId = LOCAL_TENANT) -> None:
        """Save the automation with a chain of this length."""
        plan, document = plan_of(chain(length))
        command = Save(
            definition_digest=plan.digest,
            name="Job",
            creator_id="ann",
            actor="ann",
            status=AutomationStatus.ACTIVE,
        )
        await self.store.execute_on_automation(
            JOB,
            command,
            tenant=tenant,
            change_id=self.scene.change_id(),
            now_ms=NOW_MS,
            document=document,
        )

    def arrival(
        self, name: str, body: bytes = b"{}", *, event_id: str | None = None, at_ms: int = NOW_MS
    ) -> Arrival:
        """Describe a delivery whose sender was believed."""
        trigger = self.trigger()
        delivery = Delivery(
            delivery_id=f"automation-webhook-delivery-{name}",
            event_id=f"automation-webhook-event-{name}",
            tenant=LOCAL_TENANT,
            trigger_id=HOOK,
            automation_id=JOB,
            provider_event_id=event_id,
            body_digest=digest(body),
            verification_scheme=trigger.signature_scheme,
            verification_provider="generic",
            received_at_ms=at_ms,
        )
        return Arrival(
            delivery=delivery,
            claims=claims_of(HOOK, event_id, digest(body)),
            event=raw_event({}, body),
            payload=body,
        )

    async def come(self, name: str, body: bytes = b"{}", **how: Any) -> Delivery:
        """Receive a delivery."""
        return await self.store.receive(self.arrival(name, body, **how))

    def new_run(self, delivery: Delivery) -> NewRun:
        """Describe the run that a delivery is to become."""
        return NewRun(
            run_id=run_id_of(delivery),
            tenant=LOCAL_TENANT,
            change_id=self.scene.change_id(),
            plan=self.plan,
            document=self.document,
            inputs={},
            workspace="",
            trigger_type=TriggerType.WEBHOOK,
            trigger_context=trigger_context_of(self.trigger(), delivery),
            automation_version=1,
        )

    def signal(self, delivery: Delivery) -> Signal:
        """Return the signal of a delivery."""
        return signal_of(delivery, {}, event_kind=None)

    async def settle(
        self,
        delivery: Delivery,
        *,
        version: int | None = 1,
        refusal: RefusedRun | None = None,
    ) -> SettledDelivery | None:
        """Let a delivery become what it leads to."""
        settling = Settling(
            signal=self.signal(delivery),
            automation_version=version,
            run=None if refusal else self.new_run(delivery),
            refusal=refusal,
        )
        return await self.store.settle_delivery(
            delivery.delivery_id,
            settling,
            tenant=LOCAL_TENANT,
            change_id=self.scene.change_id(),
            now_ms=NOW_MS + 1,
        )

    def find(self, name: str) -> Delivery:
        """Return a delivery that has to be there."""
        delivery_id = f"automation-webhook-delivery-{name}"
        found = self.store.find_delivery(delivery_id, tenant=LOCAL_TENANT)
        assert found is not None
        return found

    def runs(self) -> list[RunId]:
        """Return the runs that deliveries started."""
        every = self.store.list_runs(RunFilter(tenant=LOCAL_TENANT))
        return [run.run_id for run in every if run.trigger_type == TriggerType.WEBHOOK]

    def secrets(self, now_ms: int) -> list[bytes]:
        """Return the secrets that are valid at a moment."""
        return [found.sealed for found in self.store.list_secrets(HOOK, now_ms=now_ms)]


class WebhookSuite:
    """What every store promises of webhooks."""

    async def test_trigger_is_found_by_its_id_and_by_its_address(
        self, open_store: OpenStore
    ) -> None:
        post = Post(open_store)
        trigger = await post.open()
        found = post.store.find_trigger(HOOK, tenant=LOCAL_TENANT)
        assert found == post.store.find_trigger_by_token("whpub_hook")
        assert found == first_secret(trigger, b"one", now_ms=NOW_MS).trigger
        assert post.store.find_trigger(HOOK, tenant=OTHER_TENANT) is None
        assert post.store.find_trigger_by_token("whpub_other") is None
        await post.store.create_trigger(TriggerChange(trigger=post.trigger(name="second")))
        listed = post.store.list_triggers(tenant=LOCAL_TENANT, automation_id=JOB, limit=9)
        assert [one.trigger_id for one in listed] == ["second", HOOK]
        assert not post.store.list_triggers(tenant=OTHER_TENANT, automation_id=JOB, limit=9)

    async def test_trigger_needs_an_automation_that_is_there(self, open_store: OpenStore) -> None:
        post = Post(open_store)
        with pytest.raises(NotFound):
            await post.store.create_trigger(TriggerChange(trigger=post.trigger()))

    async def test_former_secret_is_gone_at_once_or_when_its_time_is_over(
        self, open_store: OpenStore
    ) -> None:
        post = Post(open_store)
        await post.open()
        assert post.secrets(NOW_MS) == [b"one"]

        async def rotate(sealed: bytes, overlap_ms: int) -> None:
            await post.store.execute_on_trigger(
                HOOK,
                RotateSecret(sealed, overlap_ms, "ann"),
                tenant=LOCAL_TENANT,
                automation_id=JOB,
                now_ms=NOW_MS,
            )

        await rotate(b"two", 0)
        assert post.secrets(NOW_MS) == [b"two"]
        await rotate(b"three", 1_000)
        assert post.secrets(NOW_MS + 999) == [b"three", b"two"]
        assert post.secrets(NOW_MS + 1_000) == [b"three"]
        await rotate(b"four", 1_000)
        assert post.secrets(NOW_MS) == [b"four", b"three"]
        (newest, _) = post.store.list_secrets(HOOK, now_ms=NOW_MS)
        assert newest == SealedSecret(version=4, sealed=b"four")

    async def test_command_on_a_trigger_is_refused_where_it_is_not_allowed(
        self, open_store: OpenStore
    ) -> None:
        post = Post(open_store)
        await post.open()

        async def ask(command: Any, **named: Any) -> WebhookTrigger:
            of = {"tenant": LOCAL_TENANT, "automation_id": JOB, **named}
            return await post.store.execute_on_trigger(HOOK, command, now_ms=NOW_MS, **of)

        with pytest.raises(NotFound):
            await ask(DisableTrigger(), tenant=OTHER_TENANT)
        with pytest.raises(NotFound):
            await ask(DisableTrigger(), automation_id=AutomationId("other"))
        with pytest.raises(InvalidRequest):
            await ask(RevealToken())
        assert not (await ask(DisableTrigger())).enabled

    async def test_every_change_of_a_trigger_is_in_the_audit_with_who_made_it(
        self, open_store: OpenStore
    ) -> None:
        post = Post(open_store)
        await post.save()
        of: dict[str, Any] = {"tenant": LOCAL_TENANT, "automation_id": JOB, "now_ms": NOW_MS}
        await post.store.create_trigger(first_secret(post.trigger(), b"one", now_ms=NOW_MS), by="a")
        for command, by in ((RotateSecret(b"two", 0, "b"), "b"), (DisableTrigger(), "c")):
            await post.store.execute_on_trigger(HOOK, command, by=by, **of)
        # This one changes nothing.
        await post.store.execute_on_trigger(HOOK, DisableTrigger(), by="d", **of)
        await post.store.delete_trigger(HOOK, by="e", **of)
        records = post.store.list_audit(tenant=LOCAL_TENANT, after_no=0, limit=10)
        assert [(record.entry.event.value, record.entry.actor) for record in records] == [
            ("webhook_trigger_created", "a"),
            ("webhook_secret_rotated", "b"),
            ("webhook_trigger_disabled", "c"),
            ("webhook_trigger_deleted", "e"),
        ]
        assert problems_of(records) == []

    async def test_delivery_names_the_record_of_what_became_of_it(
        self, open_store: OpenStore
    ) -> None:
        post = Post(open_store)
        await post.open()
        await post.come("1", b"1", event_id="e1")
        assert post.find("1").audit_event_id is None
        await post.settle(post.find("1"))
        await post.come("2", b"1", event_id="e1")
        await post.come("3", b"3", event_id="e1")
        records = post.store.list_audit(tenant=LOCAL_TENANT, after_no=0, limit=10)
        assert [
            (record.entry.event.value, record.entry.detail["delivery_id"])
            for record in records
            if "delivery_id" in record.entry.detail
        ] == [
            ("webhook_delivery_accepted", post.find("1").delivery_id),
            ("webhook_delivery_rejected", post.find("3").delivery_id),
        ]
        named = [post.find(name).audit_event_id for name in ("1", "2", "3")]
        last = records[-1].audit_no
        assert named == [f"audit-{last - 1}", None, f"audit-{last}"]

    async def test_deleted_trigger_takes_its_secrets_and_keys_along(
        self, open_store: OpenStore
    ) -> None:
        post = Post(open_store)
        await post.open()
        await post.come("1", event_id="e1")

        async def delete() -> None:
            await post.store.delete_trigger(
                HOOK, tenant=LOCAL_TENANT, automation_id=JOB, now_ms=NOW_MS, by="ann"
            )

        await delete()
        assert post.secrets(NOW_MS) == []
        with pytest.raises(NotFound):
            await delete()
        with pytest.raises(NotFound):
            await post.come("2")
        settled = await post.settle(post.find("1"))
        assert settled is not None
        assert settled.delivery.rejection_reason_code == "webhook_trigger_missing"
        assert settled.delivery.status is S.FAILED

    async def test_of_an_event_and_of_a_body_one_delivery_is_taken(
        self, open_store: OpenStore
    ) -> None:
        post = Post(open_store)
        await post.open()
        first = await post.come("1", b"[1]", event_id="e1")
        assert (first.status, first.dedupe_result) == (S.RECEIVED, Dedupe.ACCEPTED)
        again = await post.come("2", b"[1]", event_id="e1")
        other = await post.come("3", b"[2]", event_id="e1")
        body = await post.come("4", b"[1]", event_id="e2")
        late = await post.come("5", b"[9]", event_id="e2")
        assert [one.status for one in (again, other, body, late)] == [
            S.DUPLICATE,
            S.REJECTED,
            S.DUPLICATE,
            S.REJECTED,
        ]
        assert other.dedupe_result is Dedupe.CONFLICT
        assert [one for _, one in post.store.list_open_deliveries(limit=9)] == [first.delivery_id]
        trigger = post.store.find_trigger(HOOK, tenant=LOCAL_TENANT)
        assert trigger is not None
        counts = trigger.delivery_counts
        assert (counts.total, counts.received, counts.duplicate, counts.rejected) == (5, 1, 2, 2)
        await post.settle(first)
        assert post.find("2").duplicate_of_run_id == run_id_of(first)

    async def test_same_delivery_again_changes_nothing(self, open_store: OpenStore) -> None:
        post = Post(open_store)
        await post.open()
        first = await post.come("1")
        await post.settle(first)
        assert await post.come("1") == post.find("1")
        trigger = post.store.find_trigger(HOOK, tenant=LOCAL_TENANT)
        assert trigger is not None
        assert trigger.delivery_counts.total == 1

    async def test_delivery_becomes_one_run_however_often_it_is_settled(
        self, open_store: OpenStore
    ) -> None:
        post = Post(open_store)
        await post.open()
        delivery = await post.come("1")
        results = await asyncio.gather(*(post.settle(delivery) for _ in range(3)))
        (settled,) = [one for one in results if one is not None]
        assert settled.run is not None
        assert post.runs() == [settled.run.run_id]
        assert post.find("1").queued_run_id == settled.run.run_id
        run = post.scene.get(settled.run.run_id)
        assert (run.status, run.trigger_type) == (RunState.QUEUED, "webhook")
        context = run.trigger_context
        assert context is not None
        assert context["automation_webhook"]["delivery_id"] == delivery.delivery_id
        assert not post.store.list_open_deliveries(limit=9)
        chosen = DeliveryFilter(tenant=LOCAL_TENANT, run_id=run.run_id)
        assert post.store.list_deliveries(chosen) == [post.find("1")]

    @pytest.mark.parametrize("moment", ["before", "after"])
    async def test_commit_that_fails_makes_no_second_run(
        self, open_store: OpenStore, moment: str
    ) -> None:
        fault = CommitFault()
        post = Post(open_store, fault)
        await post.open()
        delivery = await post.come("1")
        fault.arm(moment)
        try:
            await post.settle(delivery)
        except StoreUnavailable:
            assert moment == "before"
            assert post.runs() == []
            assert post.find("1").is_open
        await post.settle(delivery)
        assert post.runs() == [run_id_of(delivery)]

    async def test_changed_automation_is_read_again_before_it_is_run(
        self, open_store: OpenStore
    ) -> None:
        post = Post(open_store)
        await post.open()
        delivery = await post.come("1")
        await post.save(2)
        with pytest.raises(ChangeRefused):
            await post.settle(delivery)
        assert post.find("1").is_open
        assert await post.settle(delivery, version=2) is not None

    async def test_paused_automation_or_disabled_trigger_starts_nothing(
        self, open_store: OpenStore
    ) -> None:
        post = Post(open_store)
        await post.open()
        one, two = await post.come("1", b"[1]"), await post.come("2", b"[2]")
        three = await post.come("3", b"[3]")
        refused = await post.settle(one, refusal=RefusedRun(reason="scope", detail="why"))
        assert refused is not None
        assert (refused.delivery.rejection_reason_code, refused.delivery.rejection_detail) == (
            "scope",
            "why",
        )
        await post.store.execute_on_automation(
            JOB,
            PauseAutomation(by="eve", reason="loud"),
            tenant=LOCAL_TENANT,
            change_id=post.scene.change_id(),
            now_ms=NOW_MS,
        )
        paused = await post.settle(two)
        assert paused is not None
        assert paused.delivery.rejection_reason_code == "automation_inactive"
        await post.store.execute_on_trigger(
            HOOK, DisableTrigger(), tenant=LOCAL_TENANT, automation_id=JOB, now_ms=NOW_MS
        )
        disabled = await post.settle(three)
        assert disabled is not None
        assert disabled.delivery.status is S.DISABLED
        assert post.runs() == []

    async def test_delivery_wakes_a_wait_and_starts_no_run_then(
        self, open_store: OpenStore
    ) -> None:
        post = Post(open_store)
        await post.open()
        view = await post.scene.claimed("waiting", [webhook_node("w", event_id="e1")])
        await post.store.apply(post.scene.next(view))
        assert post.scene.get("waiting").status is RunState.PAUSED
        delivery = await post.come("1", event_id="e1")
        settled = await post.settle(delivery)
        assert settled is not None
        assert (settled.delivery.woken_run_id, settled.run) == ("waiting", None)
        ((wait_id, _),) = settled.woken
        assert settled.delivery.woken_wait_id == wait_id
        assert post.scene.get("waiting").status is RunState.QUEUED
        assert post.runs() == []

    async def test_accepted_delivery_wakes_a_wait_that_comes_later(
        self, open_store: OpenStore
    ) -> None:
        post = Post(open_store)
        await post.open()
        view = await post.scene.claimed("waiting", [webhook_node("w", event_id="e1")])
        delivery = await post.come("1", event_id="e1")
        await post.settle(delivery)
        assert post.runs() == [run_id_of(delivery)]
        await post.store.apply(post.scene.next(view))
        assert post.scene.get("waiting").status is RunState.QUEUED

    async def test_what_was_not_believed_is_listed_and_bounded(self, open_store: OpenStore) -> None:
        post = Post(open_store)
        await post.open()
        await post.come("kept")
        for number in range(1_030):
            asked = msgspec.structs.replace(post.arrival(f"x{number}").delivery, event_id=None)
            wrong = not_believed(asked, "bad_signature")
            await post.store.receive(Arrival(delivery=wrong))
        chosen = DeliveryFilter(tenant=LOCAL_TENANT, trigger_id=HOOK, limit=2_000)
        found = post.store.list_deliveries(chosen)
        assert len(found) == 1_025
        assert found[0].delivery_id.endswith("x1029")
        assert found[-1].delivery_id.endswith("kept")
        raw = post.store.list_webhook_events(chosen)
        assert [one.delivery.delivery_id for one in raw] == [found[-1].delivery_id]

    async def test_lists_show_what_is_asked_for_to_its_tenant(self, open_store: OpenStore) -> None:
        post = Post(open_store)
        await post.open()
        one = await post.come("1", b"[1]")
        await post.come("2", b"[1]")
        listed = DeliveryFilter(tenant=LOCAL_TENANT, automation_id=JOB, status=S.DUPLICATE)
        assert [found.delivery_id for found in post.store.list_deliveries(listed)] == [
            "automation-webhook-delivery-2"
        ]
        assert len(post.store.list_deliveries(DeliveryFilter(tenant=LOCAL_TENANT, limit=1))) == 1
        assert one.event_id is not None
        event = post.store.find_event(one.event_id, tenant=LOCAL_TENANT)
        assert event is not None
        assert (event.delivery, event.is_available, event.event.payload_bytes) == (one, True, 3)
        assert post.store.read_payload(one.event_id, tenant=LOCAL_TENANT) == b"[1]"
        other = OTHER_TENANT
        assert post.store.find_event(one.event_id, tenant=other) is None
        assert post.store.read_payload(one.event_id, tenant=other) is None
        assert post.store.find_delivery(one.delivery_id, tenant=other) is None
        for chosen in (
            DeliveryFilter(tenant=other),
            DeliveryFilter(tenant=other, trigger_id=HOOK),
            DeliveryFilter(tenant=other, automation_id=JOB),
        ):
            assert post.store.list_deliveries(chosen) == []

    async def test_old_deliveries_are_forgotten_and_open_ones_never(
        self, open_store: OpenStore
    ) -> None:
        post = Post(open_store)
        await post.open()
        for number in range(4):
            delivery = await post.come(str(number), b"[%d]" % number, at_ms=NOW_MS + number)
            if number:
                await post.settle(delivery)

        async def forget(before_ms: int, payloads_max: int) -> int:
            return await post.store.forget_deliveries(
                payloads_before_ms=before_ms,
                rejected_before_ms=before_ms,
                payloads_max=payloads_max,
                limit=10,
            )

        assert await forget(NOW_MS, 9) == 0
        assert await forget(NOW_MS + 2, 9) == 1
        assert await forget(NOW_MS, 1) == 1
        left = post.store.list_deliveries(DeliveryFilter(tenant=LOCAL_TENANT, trigger_id=HOOK))
        assert [one.delivery_id[-1] for one in left] == ["3", "0"]
        again = await post.come("9", b"[1]")
        assert again.status is S.DUPLICATE  # the keys outlive what claimed them
