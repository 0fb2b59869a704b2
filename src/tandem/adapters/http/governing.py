"""Who may change what is there, beside the scopes (http-api 1.4, 4.4; decision 27)."""

from typing import Final

from tandem.adapters.http.call import Call, Endpoint
from tandem.adapters.http.errors import HttpError
from tandem.adapters.http.guard import peer_of
from tandem.adapters.http.policy import DEFINING
from tandem.domain.caller import ActorKind
from tandem.domain.ids import AutomationId, RunId

PREMIUM: Final = "PREMIUM_FEATURE_REQUIRED"
_OF_TRIGGERS: Final = "/webhook-triggers"
_MEANINGS: Final = {
    PREMIUM: "definitions and their triggers are changed by people; this request is an agent's",
    "AUTOMATION_V2_ACCESS_DENIED": "only the owner and admins change this automation and its runs",
    "AUTOMATION_WEBHOOK_ACCESS_DENIED": "only the owner and admins change the triggers of this "
    "automation",
    "AUTOMATION_V2_NOT_OWNER": "somebody else made this automation",
}


async def protect(call: Call, endpoint: Endpoint) -> None:
    """Let nobody see or change what is not theirs.

    Who may not see the automation or the run of the path asks as from a tenant in which nothing
    is, so that the answer is that for something that is not there, to the last letter.

    Raises:
        HttpError: 403 or 501; it is on record.
        AuditPersistenceFailed: the refusal could not be recorded.
        StoreError: what is kept cannot be read now.
    """
    is_definition = endpoint.name in DEFINING
    if is_definition:
        await require_no_agent(call)
    if call.sight.is_whole:
        return
    automation_id = _automation_of(call)
    if automation_id is None:
        return
    if not call.sight.sees(automation_id):
        call.hide()
        return
    if endpoint.method == "GET":
        return
    code = call.sight.refusal(automation_id, is_definition=is_definition)
    if code:
        is_denied = code == "AUTOMATION_V2_ACCESS_DENIED"
        if is_denied and _OF_TRIGGERS in endpoint.path:
            code = "AUTOMATION_WEBHOOK_ACCESS_DENIED"
        await _refuse(call, code, automation_id)


async def require_no_agent(call: Call) -> None:
    """Refuse an agent that would change a definition or a trigger: there is no engine that governs.

    Raises:
        HttpError: 501; it is on record.
        AuditPersistenceFailed: the refusal could not be recorded.
    """
    if call.caller.kind is ActorKind.AGENT:
        await _refuse(call, PREMIUM, AutomationId(call.path("automation_id", "")))


async def _refuse(call: Call, code: str, automation_id: AutomationId) -> None:
    await call.site.refusals.record(
        call.service.store,
        call.caller,
        code=code,
        automation_id=automation_id,
        peer=peer_of(call.request.scope),
        now_ms=call.service.clock.now_ms(),
    )
    raise HttpError(code, _MEANINGS[code])


def _automation_of(call: Call) -> AutomationId | None:
    """Return the automation that the path is about, None when it names nothing that is there."""
    named = call.path("automation_id", "")
    if named:
        return AutomationId(named)
    run_id = call.path("run_id", "")
    run = call.service.store.find_run(RunId(run_id), tenant=call.tenant) if run_id else None
    return None if run is None else run.automation_id
