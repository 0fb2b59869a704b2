"""Runs as the original engine stored them, told anew in our events (run-lifecycle 1.1 to 1.3, 8.4).

What has a place in our rows goes there; the stored entry itself is kept word for word beside it, so
nothing is lost. Ended runs become history. One that was alive rests until a person resumes it.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
import pydantic

from tandem.domain.admission import needs_of
from tandem.domain.automation import Automation, canonical_document
from tandem.domain.change import Change
from tandem.domain.completion import complete
from tandem.domain.draft import Draft
from tandem.domain.errors import Refused
from tandem.domain.graph import Plan, PlanNode
from tandem.domain.ids import (
    AutomationId,
    ChangeId,
    DefinitionDigest,
    NodeId,
    RunId,
    TenantId,
)
from tandem.domain.json import canonical, digest, encode
from tandem.domain.lifecycle import TERMINAL, NodeState, RunEvent, RunState, StopKind
from tandem.domain.name import ID_CHARS_MAX, ID_RULE, is_id
from tandem.domain.receipts import first_event
from tandem.domain.run import Failure, NodeRun, Run
from tandem.domain.template import MissingReference
from tandem.domain.view import RunView

E, N, S = RunEvent, NodeState, RunState

CORRUPT_DETAIL: Final = "automation run checkpoint could not be parsed during startup: "
CORRUPT_NODE: Final = NodeId("checkpoint")
CORRUPT_KIND: Final = "checkpoint_recovery_failed"
MOMENT_MAX_MS: Final = 253_402_300_799_999
"""The end of the year 9999. What is stored as later is no moment, and no date shows it."""
ATTEMPTS_MAX: Final = 4_000
"""Rows number the attempts of a node up to 4,095; a run that goes on here needs some of them."""
TOLD: Final = "-told"
"""How the change ends that tells a run; it names the run for as long as nothing happened to it."""
_ABSENT: Final = object()
_ENDS: Final = {
    S.COMPLETED: E.RUN_COMPLETED,
    S.BLOCKED: E.RUN_BLOCKED,
    S.FAILED: E.RUN_FAILED,
    S.CANCELLED: E.RUN_STOPPED,
}
_UNKNOWN: Final = "extra_forbidden"
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9_-]")
_HASH_CHARS: Final = 12

_Moment = Annotated[int, msgspec.Meta(ge=0, le=MOMENT_MAX_MS)]
_Attempts = Annotated[int, msgspec.Meta(ge=0, le=ATTEMPTS_MAX)]
_Epoch = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class OriginalRecord(msgspec.Struct, kw_only=True):
    """One lifecycle record."""

    event: str
    recorded_at_ms: _Moment = 0
    metadata: Any = None


class OriginalFailure(msgspec.Struct, kw_only=True):
    """What made a run fail."""

    node_id: str
    reason: str = ""
    failed_at_ms: _Moment = 0
    failure_kind: str | None = None


class OriginalCheckpoint(msgspec.Struct, kw_only=True):
    """The durable progress of a run."""

    completed_nodes: list[str] = []
    pending_nodes: list[str] = []
    node_outputs: dict[str, Any] = {}
    node_attempts: dict[str, _Attempts] = {}
    blocked_nodes: list[str] = []
    awaiting_gate: dict[str, Any] | None = None
    lifecycle_history: list[OriginalRecord] = []
    last_failure: OriginalFailure | None = None


class OriginalRun(msgspec.Struct, kw_only=True):
    """A stored run; what is not named here is only kept word for word."""

    run_id: str
    automation_id: str
    trigger_type: str
    status: RunState
    created_at_ms: _Moment
    updated_at_ms: _Moment
    started_at_ms: _Moment | None = None
    finished_at_ms: _Moment | None = None
    checkpoint: OriginalCheckpoint = msgspec.field(default_factory=OriginalCheckpoint)
    automation_snapshot: dict[str, Any] | None = None
    execution_claim_epoch: _Epoch = 0
    pause_reason: str | None = None
    resume_reason: str | None = None
    detail: str | None = None
    stop_kind: StopKind | None = None
    stop_reason: str | None = None


class Told(msgspec.Struct, frozen=True):
    """A run of the original as ours: as it was created, and the one change to what it became."""

    run: Run
    document: bytes
    change: Change


def read_entry(key: str, entry: Any) -> OriginalRun | str:
    """Return a stored entry, or why it cannot be read (T05).

    Raises:
        Refused: it has not even an `automation_id`; then nothing of its file may be believed.
    """
    try:
        found = msgspec.convert(entry, OriginalRun, strict=True)
    except msgspec.ValidationError as error:
        automation_id = entry.get("automation_id") if isinstance(entry, Mapping) else None
        if not isinstance(automation_id, str) or not automation_id:
            raise Refused(
                f"entry `{key}` cannot be read and has no `automation_id`: {error}; "
                "nothing of its file was imported",
                code="import_unreadable",
            ) from None
        return str(error)
    # It names folders; one that leads out of them must not.
    return found if is_id(found.run_id) else f"its run_id is none, an id has {ID_RULE}"


def rank(entry: Any) -> tuple[int, ...]:
    """Return how much a stored copy of a run is to be believed; the greatest one is.

    The original leaves several: a shard for each month in which a run changed, and a row whose
    outputs and definition it dropped (W-19, W-20). The newest says what became of the run, of
    equally new ones the one that kept most; one that cannot be read is better than none.
    """
    try:
        found = read_entry("", entry)
    except Refused:
        return ()
    if isinstance(found, str):
        return (0,)
    kept = found.checkpoint
    return (
        1,
        found.updated_at_ms,
        len(kept.node_outputs),
        found.automation_snapshot is not None,
        len(kept.lifecycle_history),
    )


def tell(
    found: OriginalRun,
    *,
    tenant: TenantId,
    change_id: ChangeId,
    obstacles: str = "",
    real_path: str = "",
) -> Told:
    """Tell a stored run as ours.

    Args:
        found: the stored run.
        tenant: whose it becomes.
        change_id: of its creation; the change after it gets a name made from it.
        obstacles: what keeps it from running here, empty when nothing does.
        real_path: its workspace with all links followed, empty for a run without one.
    """
    automation = automation_of(found)
    run, plan, document = _created(found, automation, tenant=tenant, change_id=change_id)
    _need(run, plan, real_path)
    draft = _draft(run, plan, change_id)
    draft.now_ms = found.started_at_ms or found.created_at_ms
    if found.started_at_ms is not None or found.checkpoint.completed_nodes:
        _claim(draft, found)
        for plan_node in _in_order(plan, found):
            _tell_node(draft, plan_node, found)
    draft.now_ms = found.finished_at_ms or found.updated_at_ms
    if found.status in TERMINAL:
        _tell_end(draft, found)
    else:
        _tell_rest(draft, found, obstacles)
    return _closed(draft, run, document, found)


def tell_corrupt(
    key: str, entry: Mapping[str, Any], why: str, *, tenant: TenantId, change_id: ChangeId
) -> Told:
    """Tell an entry that cannot be read as a blocked run (T05)."""

    def number(name: str) -> int:
        value = entry.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            return 0
        return value if 0 < value <= MOMENT_MAX_MS else 0

    detail = f"{CORRUPT_DETAIL}{why}"
    failed_at_ms = number("updated_at_ms") or number("created_at_ms")
    trigger = entry.get("trigger_type")
    found = OriginalRun(
        run_id=_name_of(key, entry),
        automation_id=str(entry["automation_id"]),
        trigger_type=trigger if isinstance(trigger, str) and trigger else "recovered",
        status=S.BLOCKED,
        created_at_ms=number("created_at_ms"),
        updated_at_ms=failed_at_ms,
        finished_at_ms=number("finished_at_ms") or failed_at_ms,
        checkpoint=OriginalCheckpoint(pending_nodes=[CORRUPT_NODE], blocked_nodes=[CORRUPT_NODE]),
        detail=detail,
    )
    automation = automation_of(found)
    run, plan, document = _created(found, automation, tenant=tenant, change_id=change_id)
    draft = _draft(run, plan, change_id)
    draft.now_ms = failed_at_ms
    failure = Failure(
        node_id=CORRUPT_NODE, reason=detail, failed_at_ms=failed_at_ms, failure_kind=CORRUPT_KIND
    )
    plan_node = plan.nodes[0]
    blocked = NodeRun(node_no=0, finished_at_ms=failed_at_ms, failure=failure)
    _claim(draft, found)
    draft.move(plan_node, E.NODE_BLOCKED, blocked, reason=detail)
    draft.happen(E.RUN_BLOCKED_CORRUPT, reason=detail)
    draft.run.started_at_ms = number("started_at_ms") or None
    draft.run.last_failure = failure
    return _closed(draft, run, document, found)


def _name_of(key: str, entry: Mapping[str, Any]) -> str:
    """Return the id of an entry that cannot be read, or one made of it, the same every time."""
    name = str(entry.get("run_id") or key)
    if is_id(name):
        return name
    mark = digest(canonical(entry)).removeprefix("sha256:")[:_HASH_CHARS]
    return f"{_NO_NAME.sub('_', name)[: ID_CHARS_MAX - 1 - len(mark)]}-{mark}"


# The definition


def automation_of(found: OriginalRun) -> Automation:
    """Return the definition of a stored run: its snapshot, else one made from its checkpoint."""
    snapshot = found.automation_snapshot
    if snapshot is not None:
        parsed = _parse({**snapshot, "automation_id": found.automation_id})
        if parsed is not None:
            return parsed
    return Automation.model_validate(
        {
            "automation_id": found.automation_id,
            "flow": {"nodes": [{"node_id": name} for name in _node_ids(found)]},
        }
    )


def _parse(snapshot: dict[str, Any]) -> Automation | None:
    """Read a snapshot; keys that we do not know are left out, anything else makes it None."""
    document = msgspec.json.decode(encode(snapshot))
    while True:
        try:
            automation = Automation.model_validate(document)
            Plan(automation, DefinitionDigest(""))
            return automation
        except pydantic.ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            unknown = [problem["loc"] for problem in problems if problem["type"] == _UNKNOWN]
            # Each turn removes at least one key, so there is a last one.
            removed = [_remove(document, place) for place in unknown]
            if len(unknown) < len(problems) or not any(removed):
                return None
        except KeyError:
            return None  # a dependency that is no node


def _remove(document: Any, place: tuple[int | str, ...]) -> bool:
    """Remove what pydantic named; parts of the place that only name a variant are passed over."""
    holder: Any = document
    for part in place[:-1]:
        if not isinstance(holder, dict) or part in holder:
            holder = holder[part]
    return holder.pop(place[-1], _ABSENT) is not _ABSENT


def _node_ids(found: OriginalRun) -> list[str]:
    """Return the names of all nodes that the checkpoint knows."""
    kept = found.checkpoint
    failed = [kept.last_failure.node_id] if kept.last_failure is not None else []
    known = (
        *kept.completed_nodes,
        *kept.pending_nodes,
        *kept.blocked_nodes,
        *kept.node_outputs,
        *kept.node_attempts,
        *failed,
    )
    return list(dict.fromkeys(name for name in known if name)) or [str(CORRUPT_NODE)]


# The story


def _created(
    found: OriginalRun, automation: Automation, *, tenant: TenantId, change_id: ChangeId
) -> tuple[Run, Plan, bytes]:
    document = canonical_document(automation)
    plan = Plan(automation, DefinitionDigest(digest(document)))
    run = Run(
        run_id=RunId(found.run_id),
        tenant=tenant,
        automation_id=AutomationId(found.automation_id),
        name=automation.name,
        definition_digest=plan.digest,
        trigger_type=found.trigger_type,
        last_change_id=change_id,
        event_seq=1,
        created_at_ms=found.created_at_ms,
        updated_at_ms=found.created_at_ms,
        due_at_ms=found.created_at_ms,
        workspace=automation.workspace_root or "",
        nodes_total=len(plan),
    )
    run.event_hash = first_event(run).record_hash
    return run, plan, document


def _need(run: Run, plan: Plan, real_path: str) -> None:
    """Let the run have what it needs to itself, should it go on here."""
    try:
        needs = needs_of(
            plan.automation, plan.demand, tenant=run.tenant, inputs={}, real_path=real_path
        )
    except MissingReference:
        return  # the original knows no concurrency keys, and an attempt would say what is missing
    run.lock_path = needs.lock_path
    run.concurrency_key = needs.concurrency_key
    run.concurrency_limit = needs.concurrency_limit
    run.labels = needs.labels


def _draft(run: Run, plan: Plan, change_id: ChangeId) -> Draft:
    view = RunView(run, plan)
    return Draft(view, change_id=ChangeId(f"{change_id}{TOLD}"), now_ms=run.created_at_ms)


def _claim(draft: Draft, found: OriginalRun) -> None:
    draft.run.epoch = max(found.execution_claim_epoch, 1)
    draft.run.started_at_ms = draft.now_ms
    draft.happen(E.RUN_CLAIMED, metadata={"claimant_id": "import", "lease_epoch": draft.run.epoch})


def _in_order(plan: Plan, found: OriginalRun) -> list[PlanNode]:
    """Return the nodes of which something is known: the completed ones in their order first."""
    names = [*found.checkpoint.completed_nodes, *_node_ids(found)]
    numbers = (plan.by_id.get(NodeId(name)) for name in dict.fromkeys(names))
    return [plan.nodes[number] for number in numbers if number is not None]


def _tell_node(draft: Draft, plan_node: PlanNode, found: OriginalRun) -> None:
    kept, name = found.checkpoint, plan_node.node_id
    is_completed = name in kept.completed_nodes
    failure = kept.last_failure
    is_failed = failure is not None and failure.node_id == name and found.status is S.FAILED
    # A live run counts as blocked what only waits for a gate; here that waits by itself.
    is_blocked = name in kept.blocked_nodes and found.status in TERMINAL
    attempts = kept.node_attempts.get(name, 0)
    if not (is_completed or is_failed or is_blocked or attempts):
        return
    if is_blocked and not (is_completed or is_failed or attempts):
        draft.move(plan_node, E.NODE_BLOCKED, NodeRun(node_no=plan_node.node_no))
        return
    began_ms, ended_ms = _times(draft, name, found)
    draft.now_ms = began_ms
    attempts = max(attempts, 1)
    node = NodeRun(
        node_no=plan_node.node_no,
        state=N.RUNNING,
        attempts=attempts,
        attempts_used=attempts,
        started_at_ms=began_ms,
    )
    draft.move(plan_node, E.NODE_STARTED, node, attempt=attempts)
    draft.now_ms = ended_ms
    output = encode(kept.node_outputs[name]) if name in kept.node_outputs else None
    if is_completed:
        complete(draft, plan_node, output=output or b"null")
        return
    ended = msgspec.structs.replace(node, output=output, finished_at_ms=ended_ms)
    if is_failed and failure is not None:
        draft.run.last_failure = _failure(failure)
        ended = msgspec.structs.replace(ended, failure=draft.run.last_failure)
        draft.move(plan_node, E.NODE_FAILED, ended, attempt=attempts, reason=failure.reason)
    elif is_blocked:
        draft.move(plan_node, E.NODE_BLOCKED, ended, attempt=attempts)
    else:
        ended = msgspec.structs.replace(ended, finished_at_ms=None)
        draft.move(plan_node, E.NODE_INTERRUPTED, ended, attempt=attempts)


def _times(draft: Draft, name: str, found: OriginalRun) -> tuple[int, int]:
    """Return when a node began and ended, as far as the history tells; never out of order."""
    began, ended = draft.now_ms, draft.now_ms
    for record in found.checkpoint.lifecycle_history:
        metadata = record.metadata
        if not isinstance(metadata, Mapping) or metadata.get("node_id") != name:
            continue
        if record.event == E.NODE_STARTED.value:
            began = record.recorded_at_ms
        ended = max(ended, record.recorded_at_ms)
    return max(began, 0), max(ended, began)


def _failure(failure: OriginalFailure) -> Failure:
    return Failure(
        node_id=NodeId(failure.node_id),
        reason=failure.reason,
        failed_at_ms=failure.failed_at_ms,
        failure_kind=failure.failure_kind or "",
    )


def _tell_end(draft: Draft, found: OriginalRun) -> None:
    run = draft.run
    reason = found.stop_reason or found.detail or ""
    event = _ENDS[found.status]
    if run.status is S.QUEUED and event is not E.RUN_STOPPED:
        _claim(draft, found)
    draft.happen(event, reason=reason, stop_kind=found.stop_kind)
    run.finished_at_ms = found.finished_at_ms or found.updated_at_ms
    run.stop_kind = found.stop_kind
    run.stop_reason = found.stop_reason or ""
    if found.checkpoint.last_failure is not None:
        run.last_failure = _failure(found.checkpoint.last_failure)
    run.pause_reason = found.pause_reason or ""


def _tell_rest(draft: Draft, found: OriginalRun, obstacles: str) -> None:
    run = draft.run
    reason = f"imported while it was {found.status.value} elsewhere; " + (
        f"it cannot run here: {obstacles}"
        if obstacles
        else "resume it only when it does not go on there"
    )
    if run.status is S.RUNNING:
        draft.happen(E.RUN_PAUSE_REQUESTED, reason=reason)
    draft.happen(E.RUN_PAUSED, reason=reason)
    run.due_at_ms = None
    run.pause_reason = reason


def _closed(draft: Draft, run: Run, document: bytes, found: OriginalRun) -> Told:
    draft.moved = True
    draft.run.due_at_ms = None
    draft.run.resume_reason = found.resume_reason or ""
    rests = draft.run.status not in TERMINAL
    draft.run.detail = draft.run.pause_reason if rests else found.detail or ""
    change = draft.close()
    # The run is as old as it was there: retention counts from its own end.
    change.run.updated_at_ms = max(found.updated_at_ms, found.created_at_ms)
    return Told(run, document, change)
