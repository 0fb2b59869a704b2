"""The birth of a run: its first row and its first events (run-lifecycle T01, T02)."""

from typing import Any

import msgspec

from tandem.domain.admission import Needs
from tandem.domain.automation import Automation
from tandem.domain.execution import ExecutionProfile
from tandem.domain.graph import Plan
from tandem.domain.ids import AutomationId, ChangeId, EngineId, RunId, TenantId
from tandem.domain.json import JsonObject
from tandem.domain.lifecycle import RunEvent, next_run_state
from tandem.domain.receipts import record
from tandem.domain.request_key import RequestKey
from tandem.domain.run import LifecycleEvent, Run, RuntimeClock
from tandem.domain.trigger import TriggerType, dry_run_of, told_of

E = RunEvent

DRY_RUN: str = "dry_run"


class NewRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is about to be created."""

    run_id: RunId
    tenant: TenantId
    change_id: ChangeId
    plan: Plan
    document: bytes
    """The canonical JSON of the definition; stored once per tenant and digest."""
    inputs: JsonObject
    workspace: str
    trigger_type: str = TriggerType.MANUAL
    trigger_reason: str = ""
    consumed_handoff_id: str = ""
    owner: EngineId | None = None
    requested_profile: ExecutionProfile | None = None
    effective_profile: ExecutionProfile = ExecutionProfile.STRICT
    runtime_context: JsonObject | None = None
    trigger_context: JsonObject | None = None
    automation_version: int | None = None
    """The stored version that it executes; the store refuses it if that may not run."""
    is_dry: bool = False
    runs_draft: bool = False
    """It may run although its automation is a draft."""
    started_by: str = ""
    key: RequestKey | None = None
    """The key of the request; the same one again creates nothing."""
    needs: Needs = Needs()
    runtime_clock: RuntimeClock = RuntimeClock.ACTIVE


def effective_profile(
    automation: Automation, requested: ExecutionProfile | None, default: ExecutionProfile
) -> ExecutionProfile:
    """Return the profile of a run: as asked for, else as the definition says, else the default."""
    policy = automation.execution
    return requested or (policy.profile if policy else None) or default


def create(new: NewRun, *, now_ms: int) -> tuple[Run, tuple[LifecycleEvent, ...]]:
    """Return the row of a new run and its events. A dry run is completed at once (T02)."""
    automation = new.plan.automation
    run = Run(
        run_id=new.run_id,
        tenant=new.tenant,
        automation_id=AutomationId(automation.automation_id),
        name=automation.name,
        definition_digest=new.plan.digest,
        definition_version=new.plan.version,
        automation_version=new.automation_version,
        trigger_type=dry_run_of(new.trigger_type) if new.is_dry else str(new.trigger_type),
        trigger_reason=new.trigger_reason,
        consumed_handoff_id=new.consumed_handoff_id,
        requested_execution_profile=new.requested_profile,
        effective_execution_profile=new.effective_profile,
        last_change_id=new.change_id,
        owner=None if new.is_dry else new.owner,
        started_by=new.started_by,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        due_at_ms=now_ms,
        queued_at_ms=now_ms,
        inputs=dict(new.inputs),
        workspace=new.workspace,
        lock_path=new.needs.lock_path,
        concurrency_key=new.needs.concurrency_key,
        concurrency_limit=new.needs.concurrency_limit,
        labels=new.needs.labels,
        runtime_context=None if new.runtime_context is None else dict(new.runtime_context),
        trigger_context=None if new.trigger_context is None else dict(new.trigger_context),
        nodes_total=len(new.plan),
        runtime_clock=new.runtime_clock,
    )
    happened: list[tuple[RunEvent, dict[str, Any]]] = [
        (E.RUN_CREATED, told_of(new.trigger_context))
    ]
    if new.is_dry:
        happened.append((E.RUN_COMPLETED_DRY, {}))
        run.started_at_ms = run.finished_at_ms = now_ms
        run.due_at_ms = run.queued_at_ms = None
        run.detail = DRY_RUN
        run.nodes_total = 0
    for event, _ in happened:
        run.status = next_run_state(run.status, event)
    events = tuple(
        record(
            run,
            LifecycleEvent(
                seq=seq,
                event=event,
                recorded_at_ms=now_ms,
                change_id=new.change_id,
                metadata=told,
            ),
        )
        for seq, (event, told) in enumerate(happened, start=1)
    )
    return run, events
