"""Every error that a response may carry, and the one shape that all of them have.

    {"error": text, "code": CODE, "retryable": bool, "hint": text, …context}

The codes of the contract keep their names; those of ours are in capitals, too. The table below is
the source of docs/reference/errors.md.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from starlette.responses import Response

from tandem.domain.errors import (
    EngineError,
    InvalidAutomation,
    InvalidRequest,
    NotFound,
    RateLimited,
    Refused,
    StoreError,
)
from tandem.domain.json import encode, plain
from tandem.domain.redaction import Redactor

BAD, UNKNOWN, FORBIDDEN, MISSING, CONFLICT, WRONG, OURS = 400, 401, 403, 404, 409, 422, 500


BY_SHAPE: Final = Redactor()


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What a code means: its status, when it is answered, what to do about it."""

    status: int
    says: str
    do: str
    is_retryable: bool = False
    also: tuple[int, ...] = ()
    """Other statuses that come with it."""


KINDS: Final[Mapping[str, Kind]] = {
    # Before a route is reached
    "AUTH_REQUIRED": Kind(
        status=UNKNOWN,
        says="No token came with the request, or one that is not known.",
        do="Send `Authorization: Bearer TOKEN`.",
    ),
    "TENANT_CONTEXT_DENIED": Kind(
        status=FORBIDDEN,
        says="The tenant assertion is missing, wrong, expired or was used before.",
        do="Get a new assertion; never send a tenant in a plain header.",
    ),
    "SCOPE_DENIED": Kind(
        status=FORBIDDEN,
        says="The token does not reach as far as this route.",
        do="Use a token with the scope that is named.",
    ),
    "TENANT_SCOPE_DENIED": Kind(
        status=FORBIDDEN,
        says="The request is for another tenant than the one of whoever asks.",
        do="Ask for your own tenant, or use a token of the other one.",
    ),
    "TOKEN_TOO_WIDE": Kind(
        status=FORBIDDEN,
        says="The new token could do what its maker may not.",
        do="Ask for less, or have a person with more scopes make it.",
    ),
    "TOKEN_NOT_FOUND": Kind(
        status=MISSING, says="The tenant has no such token.", do="List them with `GET /tokens`."
    ),
    "TOKEN_REVOKED": Kind(
        status=CONFLICT,
        says="The token was revoked before.",
        do="Nothing is left to do.",
    ),
    "RATE_LIMITED": Kind(
        status=429,
        says="The tenant or the client has had as much as it may for now.",
        do="Wait for as many seconds as `Retry-After` says.",
        is_retryable=True,
    ),
    "VALIDATION_FAILED": Kind(
        status=BAD, says="A header has a value that it cannot have.", do="Mend the header."
    ),
    "AUDIT_PERSISTENCE_FAILED": Kind(
        status=OURS,
        says="The request was refused, and the refusal could not be recorded.",
        do="Look at the log of the server: its store does not take writes.",
        is_retryable=True,
    ),
    "IDEMPOTENCY_KEY_REUSED": Kind(
        status=WRONG,
        says="The Idempotency-Key was used for a request that said something else.",
        do="Send a new request with a new key; `runID` is what the other one was about.",
    ),
    "HOST_DENIED": Kind(
        status=FORBIDDEN,
        says="The request names a host that this server does not answer to.",
        do="Use the address that the server printed, or list the name in TANDEM_ALLOWED_HOSTS.",
    ),
    "ORIGIN_DENIED": Kind(
        status=FORBIDDEN,
        says="A web page of another origin asks for a change.",
        do="List the origin in TANDEM_CORS_ORIGINS.",
    ),
    "LOOPBACK_ONLY": Kind(
        status=FORBIDDEN,
        says="The route answers only to this machine.",
        do="Ask from the machine that the server runs on.",
    ),
    "METRICS_DISABLED": Kind(
        status=MISSING,
        says="The metrics are off.",
        do="Set TANDEM_OBSERVABILITY_PROMETHEUS_ENABLED=1 and start the server again.",
    ),
    "ENGINE_STARTING": Kind(
        status=503,
        says="The engine opens its store.",
        do="Try again in a moment.",
        is_retryable=True,
    ),
    "REQUEST_MALFORMED": Kind(
        status=BAD, says="What came is no request of HTTP/1.1.", do="Send one."
    ),
    "REQUEST_TOO_SLOW": Kind(
        status=408,
        says="The head or the body of the request did not come in time.",
        do="Send it again, at once and whole.",
        is_retryable=True,
    ),
    "HEAD_TOO_LARGE": Kind(
        status=431,
        says="The head of the request is larger than a server takes.",
        do="Send fewer or shorter headers.",
    ),
    "NOT_FOUND": Kind(
        status=MISSING, says="There is no such thing for this tenant.", do="Check the id."
    ),
    "METHOD_NOT_ALLOWED": Kind(
        status=405, says="The path does not know this method.", do="See the `Allow` header."
    ),
    # Webhooks
    "AUTOMATION_WEBHOOK_CREATE_FAILED": Kind(
        status=BAD,
        says="A field of the new trigger has a value that it may not have.",
        do="Mend the field.",
    ),
    "AUTOMATION_WEBHOOK_UPDATE_FAILED": Kind(
        status=BAD,
        says="A field of the trigger would have a value that it may not have.",
        do="Mend the field.",
    ),
    "AUTOMATION_WEBHOOK_ROTATE_FAILED": Kind(
        status=BAD,
        says="The overlap is out of bounds.",
        do="Send `overlap_seconds` within its bounds.",
    ),
    "AUTOMATION_WEBHOOK_ROTATE_UNSUPPORTED": Kind(
        status=BAD,
        says="The secret of the trigger is made by its provider.",
        do="Rotate it at the provider.",
    ),
    "AUTOMATION_WEBHOOK_REVEAL_FAILED": Kind(
        status=BAD,
        says="The provider of the trigger has no verification tokens.",
        do="Rotate the secret instead.",
    ),
    "AUTOMATION_WEBHOOK_RESET_VERIFICATION_FAILED": Kind(
        status=BAD,
        says="The provider of the trigger has no verification tokens.",
        do="Rotate the secret instead.",
    ),
    "AUTOMATION_WEBHOOK_SECRET_IMPORT_FAILED": Kind(
        status=BAD,
        says="The secret is unusable, or the trigger has one of ours.",
        do="Send the secret of the provider.",
    ),
    "AUTOMATION_WEBHOOK_EVENT_STATUS_INVALID": Kind(
        status=BAD,
        says="There is no such status of a delivery.",
        do="Send one of those that are listed.",
    ),
    "AUTOMATION_WEBHOOK_TRIGGER_NOT_FOUND": Kind(
        status=MISSING,
        says="The automation has no such trigger.",
        do="List its triggers.",
    ),
    "AUTOMATION_WEBHOOK_DELIVERY_NOT_FOUND": Kind(
        status=MISSING,
        says="The trigger has no such delivery, or it is too old.",
        do="List its deliveries.",
    ),
    "AUTOMATION_WEBHOOK_EVENT_NOT_FOUND": Kind(
        status=MISSING,
        says="There is no such raw event, or it is too old.",
        do="List the raw events.",
    ),
    "AUTOMATION_WEBHOOK_TOKEN_UNAVAILABLE": Kind(
        status=CONFLICT,
        says="No verification token has come, or it was shown before.",
        do="Reset the verification.",
    ),
    "AUTOMATION_WEBHOOK_TRIGGER_DISABLED": Kind(
        status=CONFLICT,
        says="The trigger is disabled.",
        do="Enable it first.",
    ),
    "AUTOMATION_WEBHOOK_PAYLOAD_UNAVAILABLE": Kind(
        status=CONFLICT,
        says="The body of the delivery is not there: it was not believed, or is too old.",
        do="Have the sender deliver it again.",
    ),
    # The body and the query
    "BODY_TOO_LARGE": Kind(
        status=413, says="The body is larger than the bound.", do="Send less, or name a file."
    ),
    "CONTENT_TYPE_UNSUPPORTED": Kind(
        status=415,
        says="The body is not declared as JSON.",
        do="Send `Content-Type: application/json` and a JSON object, at least `{}`.",
    ),
    "BODY_NOT_JSON": Kind(status=BAD, says="The body is not JSON.", do="Mend the syntax."),
    "BODY_INVALID": Kind(
        status=WRONG,
        says="The body is JSON of the wrong shape; `problems` lists each place.",
        do="Mend every place that is listed.",
    ),
    "QUERY_INVALID": Kind(
        status=BAD, says="A parameter of the query has a wrong value.", do="Mend the parameter."
    ),
    "UNKNOWN_KEYS": Kind(
        status=BAD,
        says="With `?strict=1`: the body has keys that nothing knows.",
        do="Mend or remove them.",
    ),
    "INVALID_REQUEST": Kind(
        status=BAD, says="The request is wrong whatever the state is.", do="Mend the request."
    ),
    "INVALID_AUTOMATION": Kind(
        status=BAD,
        says="The definition or the inputs are wrong; `problems` lists each place.",
        do="Mend every place that is listed.",
    ),
    "INVALID_CURSOR": Kind(
        status=BAD,
        says="The cursor is none that a list of this server gave.",
        do="Begin with the first page.",
    ),
    "REASON_REQUIRED": Kind(
        status=BAD, says="A person answers for this and gives no reason.", do="Send `reason`."
    ),
    "OUTPUT_TOO_LARGE": Kind(
        status=BAD,
        says="The output is over its bound.",
        do="Write a file and name it in the output.",
    ),
    # Automations
    "AUTOMATION_V2_NOT_FOUND": Kind(
        status=MISSING,
        says="There is no such automation for this tenant, or it was deleted.",
        do="List the automations with `GET /automations/v2`.",
    ),
    "AUTOMATION_V2_CREATE_FAILED": Kind(
        status=BAD,
        says="The definition is wrong, `problems` lists every mistake; with 409 there is another "
        "automation with this id.",
        do="Mend every place that is listed; change what is there with PATCH.",
        also=(CONFLICT,),
    ),
    "AUTOMATION_V2_UPDATE_FAILED": Kind(
        status=BAD,
        says="The definition would be wrong after this change; `problems` lists every mistake.",
        do="Mend every place that is listed and send it again.",
    ),
    "AUTOMATION_VERSION_CONFLICT": Kind(
        status=CONFLICT,
        says="Somebody else saved another version first.",
        do="Load the automation and decide anew.",
        is_retryable=True,
    ),
    "AUTOMATION_V2_INVALID_METADATA": Kind(
        status=BAD,
        says="Capabilities belong into the metadata, and those are no object.",
        do="Send `metadata` as an object.",
    ),
    "AUTOMATION_V2_INVALID_VISIBILITY": Kind(
        status=BAD, says="There is no such visibility.", do="Send private, group or org."
    ),
    "AUTOMATION_V2_SHARE_FAILED": Kind(
        status=BAD,
        says="Who may see the automation cannot be kept in its metadata.",
        do="Make the metadata an object first.",
    ),
    "AUTOMATION_V2_RUN_CREATE_FAILED": Kind(
        status=BAD,
        says="The inputs do not fit, or a node needs what is not installed; see `problems`.",
        do="Mend every place that is listed.",
    ),
    "PREMIUM_FEATURE_REQUIRED": Kind(
        status=501,
        says="An agent asks for a change of a definition or a trigger, and nothing governs agents.",
        do="Have a person make the change.",
    ),
    "AUTOMATION_V2_ACCESS_DENIED": Kind(
        status=FORBIDDEN,
        says="The automation is shared with whoever asks, and belongs to somebody else.",
        do="Ask its owner or an admin.",
    ),
    "AUTOMATION_WEBHOOK_ACCESS_DENIED": Kind(
        status=FORBIDDEN,
        says="The triggers belong to an automation of somebody else.",
        do="Ask its owner or an admin.",
    ),
    "AUTOMATION_V2_NOT_OWNER": Kind(
        status=FORBIDDEN,
        says="In hosted modes: somebody else made the automation, and nothing says who may see it.",
        do="Ask whoever made it, or an admin.",
    ),
    # Runs
    "AUTOMATION_V2_RUN_NOT_FOUND": Kind(
        status=MISSING,
        says="There is no such run for this tenant.",
        do="List the runs with `GET /automations/v2/runs`.",
    ),
    "AUTOMATION_V2_RUN_NOT_PAUSABLE": Kind(
        status=CONFLICT,
        says="Only a queued, running or waiting run can be paused.",
        do="Look at the status of the run.",
    ),
    "AUTOMATION_V2_RUN_NOT_PAUSED": Kind(
        status=CONFLICT,
        says="Only a run that a person paused can be resumed.",
        do="A failed or blocked run is recovered.",
    ),
    "AUTOMATION_V2_RUN_NOT_RECOVERABLE": Kind(
        status=CONFLICT,
        says="Only a failed, blocked or paused run can be recovered.",
        do="Retry a node, or fork the run.",
    ),
    "AUTOMATION_V2_RUN_FAILURE_CONTEXT_MISSING": Kind(
        status=CONFLICT,
        says="Nothing says which node made the run fail.",
        do="Retry a node, or fork the run from one.",
    ),
    "AUTOMATION_V2_RUN_BLOCKED_CONTEXT_MISSING": Kind(
        status=CONFLICT,
        says="Nothing says which node blocked the run.",
        do="Retry a node, or fork the run from one.",
    ),
    "AUTOMATION_V2_RUN_NOT_REPAIRABLE": Kind(
        status=CONFLICT, says="The run goes on.", do="Pause it first."
    ),
    "AUTOMATION_V2_REPAIR_NODE_REQUIRED": Kind(
        status=BAD, says="The repair names no node.", do="Send `node_id`."
    ),
    "AUTOMATION_V2_REPAIR_NODE_NOT_FOUND": Kind(
        status=MISSING, says="The run has no such node.", do="Send a node of the run."
    ),
    "AUTOMATION_V2_REPAIR_AGENT_NOT_FOUND": Kind(
        status=MISSING,
        says="The automation has no such agent as the node names.",
        do="Add the agent to the automation.",
    ),
    "AUTOMATION_V2_REPAIR_METADATA_INVALID": Kind(
        status=BAD,
        says="The prompt belongs into the metadata of the node, and those are no object.",
        do="Mend the automation.",
    ),
    "AUTOMATION_V2_REPAIR_PERSIST_FAILED": Kind(
        status=BAD,
        says="The edit cannot be saved: the automation is not stored, or has another version now.",
        do="Repair the run without `save`, or change the automation.",
    ),
    "REPAIR_WITHOUT_EFFECT": Kind(
        status=BAD,
        says="The node has no use for this edit.",
        do="Send an edit that fits the kind of the node.",
    ),
    "REPAIR_INVALID": Kind(
        status=BAD, says="The edit is none that a node can have.", do="Mend the edit."
    ),
    "RUN_CLEANUP_PENDING": Kind(
        status=CONFLICT,
        says="Processes of the run may still live.",
        do="Try again in a moment.",
        is_retryable=True,
    ),
    "RUN_NOT_ENDED": Kind(
        status=CONFLICT, says="Only a run that has ended can be deleted.", do="Cancel it first."
    ),
    "DEAD_LETTER_NOT_FOUND": Kind(
        status=CONFLICT,
        says="No node with outside effects failed in the run.",
        do="Recover the run, or retry a node.",
    ),
    "DEAD_LETTER_NOT_RETRYABLE": Kind(
        status=CONFLICT,
        says="Only a failed or blocked run has dead letters.",
        do="Look at the status of the run.",
    ),
    "RETRY_EXHAUSTED": Kind(
        status=CONFLICT, says="The node was sent out too often.", do="Retry it by hand."
    ),
    # Nodes
    "AUTOMATION_V2_TASK_NODE_REQUIRED": Kind(
        status=BAD, says="The path names no node.", do="Name a node of the run."
    ),
    "AUTOMATION_V2_TASK_NODE_NOT_FOUND": Kind(
        status=MISSING, says="The run has no such node.", do="Name a node of the run."
    ),
    "AUTOMATION_V2_TASK_NODE_OUTPUT_NOT_FOUND": Kind(
        status=MISSING, says="The node has no output.", do="Wait until it is completed."
    ),
    "NO_OUTPUT": Kind(
        status=CONFLICT, says="The node has no output now.", do="Wait until it is completed."
    ),
    "AUTOMATION_V2_RUN_TASK_NOT_MUTABLE": Kind(
        status=CONFLICT, says="The run goes on, or the node is what it is.", do="Pause it first."
    ),
    "AUTOMATION_V2_RUN_TASK_NOT_CONTINUEABLE": Kind(
        status=CONFLICT, says="The run goes on.", do="Pause it first."
    ),
    "AUTOMATION_V2_TASK_NOT_BLOCKED": Kind(
        status=CONFLICT, says="The node did not block itself.", do="Retry it instead."
    ),
    "AUTOMATION_V2_TASK_DISPOSITION_INVALID": Kind(
        status=BAD,
        says="There is no such disposition.",
        do="Send unmarked, accepted, rejected or re_ran_strict.",
    ),
    # Gates and waits
    "AUTOMATION_V2_GATE_REQUIRES_HUMAN": Kind(
        status=FORBIDDEN, says="Gates are decided by people.", do="Ask a person to decide."
    ),
    "AUTOMATION_V2_RUN_NOT_AWAITING_APPROVAL": Kind(
        status=CONFLICT,
        says="No such gate is open; `winningDecision` is the one that counted.",
        do="Look at the run.",
    ),
    "AUTOMATION_V2_GATE_INVALID_DECISION": Kind(
        status=BAD, says="The gate does not offer this decision.", do="Send one of `decisions`."
    ),
    "AUTOMATION_V2_GATE_NODE_NOT_FOUND": Kind(
        status=MISSING, says="The run has no such node.", do="Look at the open gates of the run."
    ),
    "AUTOMATION_V2_GATE_EXPIRED": Kind(
        status=CONFLICT, says="The gate expired before it was decided.", do="Look at the run."
    ),
    "AUTOMATION_V2_GATE_SELF_APPROVAL_FORBIDDEN": Kind(
        status=FORBIDDEN,
        says="Whoever started the run may not approve what has consequences.",
        do="Ask somebody else to approve.",
    ),
    "AUTOMATION_V2_GATE_REVIEWER_AUTHORITY_REQUIRED": Kind(
        status=FORBIDDEN,
        says="The gate has to be approved by a person with a name.",
        do="Use a token that belongs to a person.",
    ),
    "AUTOMATION_V2_GATE_TRANSITION_GUARD_DENIED": Kind(
        status=CONFLICT,
        says="The decision is meant for another asking of the gate.",
        do="Look at the gate again and decide this asking.",
    ),
    "WAIT_NOT_OPEN": Kind(
        status=CONFLICT, says="The run has not reached the wait.", do="Try again when it has."
    ),
    "WAIT_PAYLOAD_INVALID": Kind(
        status=CONFLICT,
        says="The payload misses the schema of the wait; it waits on.",
        do="Send a payload that fits.",
    ),
    "IDEMPOTENCY_KEY_INVALID": Kind(
        status=BAD,
        says="The key of what came for a wait is empty or too long.",
        do="Send a key of 1 to 512 bytes.",
    ),
    "PAYLOAD_TOO_LARGE": Kind(
        status=BAD,
        says="The payload of what came for a wait is too large.",
        do="Send at most 16,384 bytes.",
    ),
    "SIGNAL_INVALID": Kind(
        status=BAD,
        says="What came names no condition.",
        do="Send `condition_key`.",
    ),
    "ARTIFACT_NOT_FOUND": Kind(
        status=MISSING,
        says="The run has no such artifact, or its bytes are gone or were changed.",
        do="List the artifacts of the run; a node that is retried makes them anew.",
    ),
    "RANGE_NOT_THERE": Kind(
        status=416,
        says="The part that is asked for lies behind the end of the artifact.",
        do="Ask for a part within the length that `content-range` tells, or for the whole.",
    ),
    # Budgets
    "LIMIT_REQUIRED": Kind(
        status=BAD, says="No limit is given.", do="Send one of the `max_total_…` keys."
    ),
    "LIMIT_INVALID": Kind(
        status=BAD,
        says="A limit is below 0, or too large.",
        do="Send 0 to 2^53 - 1, or dollars up to 10^9.",
    ),
    "RUN_BUDGET_EXCEEDED": Kind(
        status=CONFLICT,
        says="The run would be stopped again at once: a budget is used up.",
        do="Raise that limit with `allow`.",
    ),
    # Backlogs and handoffs
    "AUTOMATION_V2_BACKLOG_TASK_REQUIRED": Kind(
        status=BAD,
        says="The path names no task.",
        do="Name a task of the run.",
    ),
    "AUTOMATION_V2_BACKLOG_TASK_NOT_FOUND": Kind(
        status=MISSING,
        says="The run has no such task.",
        do="List the tasks of the run.",
    ),
    "AUTOMATION_V2_BACKLOG_TASK_INVALID_TYPE": Kind(
        status=CONFLICT,
        says="This is a node of the run, and no task of its backlog.",
        do="Name a task of the backlog.",
    ),
    "AUTOMATION_V2_BACKLOG_TASK_NOT_CLAIMABLE": Kind(
        status=CONFLICT,
        says="Somebody has the task, it is done, or it waits for another one.",
        do="Look at its `status` and try another.",
    ),
    "AUTOMATION_V2_BACKLOG_TASK_NOT_REQUEUEABLE": Kind(
        status=CONFLICT,
        says="The task is done.",
        do="Retry its node to plan anew.",
    ),
    "AUTOMATION_V2_BACKLOG_TASK_NOT_COMPLETABLE": Kind(
        status=CONFLICT,
        says="The task is not claimed, or by somebody else.",
        do="Claim it first.",
    ),
    "HANDOFF_WITHOUT_WORKSPACE": Kind(
        status=BAD,
        says="The automation has no workspace, so nothing can be handed over to it.",
        do="Give it a `workspace_root`.",
    ),
    "HANDOFF_FOLDER_INVALID": Kind(
        status=BAD,
        says="A handoff folder of the automation is no folder of its workspace.",
        do="Mend its `handoff_config`.",
    ),
    # The state
    "REFUSED": Kind(
        status=CONFLICT,
        says="The state does not allow it.",
        do="Look at the state and decide anew.",
    ),
    "CHANGE_REFUSED": Kind(
        status=CONFLICT,
        says="Another change came first; nothing was written.",
        do="Try again.",
        is_retryable=True,
    ),
    # Ours
    "STORE_UNAVAILABLE": Kind(
        status=503,
        says="The store did not answer; nothing was written.",
        do="Try again; look at the log of the server when it stays so.",
        is_retryable=True,
    ),
    "STORE_ERROR": Kind(
        status=OURS,
        says="The store holds something that cannot be read.",
        do="Look at the log of the server; `tandem doctor` checks the store.",
    ),
    "INTERNAL_ERROR": Kind(
        status=OURS,
        says="A mistake of ours; the log of the server has it under `incident`.",
        do="Report it with the incident.",
        is_retryable=True,
    ),
}


class HttpError(EngineError):
    """An answer that is no success, with facts for programs in `details`."""

    code = "INTERNAL_ERROR"

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.status = status
        self.details: Mapping[str, Any] = details or {}
        self.headers: Mapping[str, str] = headers or {}


def respond(
    error: EngineError,
    *,
    context: Mapping[str, Any] | None = None,
    codes: Mapping[str, str] | None = None,
    redactor: Redactor = BY_SHAPE,
) -> Response:
    """Return the response that tells of an error.

    Args:
        error: what happened.
        context: the ids that the path names.
        codes: what general codes of the domain are called at this route.
        redactor: takes out of it what looks like a secret, or is one.
    """
    kind, code = kind_of(error, codes or {})
    document: dict[str, Any] = {
        "error": _text(error),
        "code": code,
        "retryable": kind.is_retryable,
        "hint": "",
        **(context or {}),
        **getattr(error, "details", {}),
    }
    if isinstance(error, InvalidAutomation):
        document["problems"] = [
            {"code": p.code, "path": p.path, "message": p.message, "hint": p.hint}
            for p in error.problems
        ]
    headers = dict(getattr(error, "headers", {}))
    if code == "AUTH_REQUIRED":
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, RateLimited):
        headers["retry-after"] = str(error.retry_after_s)
    status = getattr(error, "status", None) or kind.status
    # What to do is a sentence of ours, and may show how a secret is sent.
    told = {**redactor.value(plain(document)), "hint": kind.do}
    return Response(encode(told), status, headers, media_type="application/json")


def kind_of(error: EngineError, codes: Mapping[str, str]) -> tuple[Kind, str]:
    """Return what an error means on the wire, and its code there."""
    code = codes.get(error.code, error.code).upper()
    if code in KINDS:
        return KINDS[code], code
    match error:
        case InvalidAutomation():
            return KINDS["INVALID_AUTOMATION"], "INVALID_AUTOMATION"
        case InvalidRequest():
            return KINDS["INVALID_REQUEST"], "INVALID_REQUEST"
        case NotFound():
            return KINDS["NOT_FOUND"], "NOT_FOUND"
        case Refused():
            return KINDS["REFUSED"], "REFUSED"
        case StoreError():
            return KINDS["STORE_ERROR"], "STORE_ERROR"
    return KINDS["INTERNAL_ERROR"], "INTERNAL_ERROR"


def _text(error: EngineError) -> str:
    """Return the message; that of a store may name files, which are nobody's business."""
    if isinstance(error, StoreError):
        return "the store could not do what was asked"
    return str(error)
