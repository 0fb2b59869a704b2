"""Reception: a signal or a person resolves a wait of a run."""

from tandem.domain import waits
from tandem.domain.automation import ExternalConditionWait, WebhookWait
from tandem.domain.change import Denial
from tandem.domain.command import ResolveWait
from tandem.domain.draft import Draft
from tandem.domain.errors import NotFound, Refused
from tandem.domain.json import JsonValue, decode
from tandem.domain.lifecycle import TERMINAL, NodeState
from tandem.domain.run import OPEN_WAITS, Wait
from tandem.domain.schema_check import compile_schema
from tandem.domain.signal import check_idempotency_key, check_payload, fits_webhook
from tandem.domain.waits import wait_id

_EVENT_TYPES = {
    "timer": "stateful_runtime.wait.timer_woken",
    "webhook": "stateful_runtime.wait.webhook_woken",
    "external_condition": "stateful_runtime.wait.external_condition_resolved",
}


def resolve(draft: Draft, command: ResolveWait) -> None:
    """Wake one wait with what came for it (run-lifecycle 6.5).

    A timeout that ends the wait and is due already wins: it is written, and whoever asked is told.

    Raises:
        NotFound: the run has no such wait.
        Refused: the wait is over, the payload misses its schema, or the signal is of another
            kind than the wait wants.
        InvalidSignal: the idempotency key or the payload is out of bounds.
    """
    wait = _open(draft, command)
    payload = _payload(draft, wait, command)
    waits.pass_time(draft, wait.wait_id)
    wait = draft.wait(wait.wait_id)
    if wait.status not in OPEN_WAITS:
        draft.denial = Denial(
            code="wait_over",
            message=f"the wait of node `{wait.node_id}` was over when this came: "
            f"{wait.status.value}",
            details={"wait_id": wait.wait_id, "status": wait.status.value},
        )
        return
    waits.wake(
        draft,
        wait,
        event_type=_EVENT_TYPES[wait.kind],
        idempotency_key=command.idempotency_key,
        metadata=_metadata(command, payload),
    )


def _open(draft: Draft, command: ResolveWait) -> Wait:
    run = draft.run
    if command.node_id is not None and draft.plan.node(command.node_id) is None:
        raise NotFound(f"run {run.run_id} has no node `{command.node_id}`")
    open_waits = draft.open_waits()
    for wait in open_waits:
        by_id = command.wait_id in (None, wait.wait_id)
        by_node = command.node_id in (None, wait.node_id)
        if by_id and by_node and run.status not in TERMINAL:
            return wait
    if _is_over(draft, command):
        raise Refused(
            f"the wait of run {run.run_id} ({run.status.value}) is over already", code="wait_over"
        )
    meant = command.wait_id or (f"of node `{command.node_id}`" if command.node_id else "")
    hint = ", ".join(f"`{wait.node_id}`" for wait in open_waits)
    raise Refused(
        f"run {run.run_id} ({run.status.value}) has no open wait {meant}".rstrip()
        + (f"; open: {hint}" if hint else ""),
        code="wait_not_open",
    )


def _is_over(draft: Draft, command: ResolveWait) -> bool:
    """Say whether the wait that is meant was there and is over."""
    for plan_node in draft.plan.nodes:
        by_id = command.wait_id is not None and command.wait_id.split("/")[0] == wait_id(
            draft, plan_node, 1
        )
        if by_id or plan_node.node_id == command.node_id:
            state = draft.node(plan_node.node_no).state
            return state is NodeState.COMPLETED or draft.run.status in TERMINAL
    return False


def _payload(draft: Draft, wait: Wait, command: ResolveWait) -> JsonValue:
    signal = command.signal
    declared = draft.plan.nodes[wait.node_no].node.wait
    if signal is None:
        check_idempotency_key(command.idempotency_key)
        check_payload(command.payload)
    elif isinstance(declared, WebhookWait) and not fits_webhook(signal, declared):
        raise Refused(
            f"the wait of node `{wait.node_id}` is for another provider or kind of event",
            code="wait_signal_mismatch",
        )
    payload = decode(command.payload)
    if isinstance(declared, ExternalConditionWait) and declared.payload_schema is not None:
        wrong = compile_schema(declared.payload_schema).errors(payload)
        if wrong:
            raise Refused(
                f"the payload misses the schema of node `{wait.node_id}`: {'; '.join(wrong)}",
                code="wait_payload_invalid",
                details={"violations": wrong},
            )
    return payload


def _metadata(command: ResolveWait, payload: JsonValue) -> JsonValue:
    signal = command.signal
    found: dict[str, JsonValue] = {
        "idempotency_key": command.idempotency_key,
        "source": command.source,
        "payload": payload,
    }
    if signal is not None and signal.provider:
        found |= {"provider": signal.provider, "provider_event_kind": signal.provider_event_kind}
    return found
