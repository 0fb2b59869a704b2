"""Stored automations: what they are, and starting runs of them (http-api 3.2)."""

from contextlib import suppress
from typing import Any, Final

import msgspec
from starlette.responses import Response

from tandem.adapters.http.bodies import flag, read_json, whole
from tandem.adapters.http.call import Call, Endpoint, Parameter, answer
from tandem.adapters.http.definition_reading import Form, Given
from tandem.adapters.http.definitions import (
    as_http,
    new_document,
    patched_document,
    refuse_reserved,
    refuse_unknown,
    whole_document,
)
from tandem.adapters.http.errors import HttpError
from tandem.adapters.http.governing import require_no_agent
from tandem.adapters.http.schemas import (
    CreateAutomation,
    PatchAutomation,
    PutAutomation,
    Reasoned,
    RunNow,
    Share,
)
from tandem.adapters.http.sight import UNKNOWN_CREATORS
from tandem.adapters.http.telling import tell_run, told_reason
from tandem.domain.automation import AutomationStatus
from tandem.domain.automation_record import spec_record
from tandem.domain.command import Pause
from tandem.domain.definition import Definition
from tandem.domain.errors import InvalidAutomation, NotFound, Refused
from tandem.domain.execution import ExecutionProfile
from tandem.domain.ids import AutomationId
from tandem.domain.json import JsonObject, decode
from tandem.domain.lifecycle import RunState
from tandem.domain.run import Run
from tandem.domain.stored_automation import AutomationChange, StoredAutomation
from tandem.domain.visibility import Visibility, access_document, read_access
from tandem.engine.automations import Automations
from tandem.ports.store import RunFilter

LISTED_AT_ONCE: Final = 500
PAUSED_RUNS_MAX: Final = 100
PAUSE_WAIT_MS: Final = 10_000
SAVES_MAX: Final = 5
"""So often a change is made anew because somebody else saved first."""
CONFLICT: Final = "automation_version_conflict"
RECORDS_MAX: Final = 1_000
FIRINGS_DEFAULT: Final = 100
FIRINGS_MAX: Final = 1_000
TIMING: Final = (
    "next_fire_at_ms",
    "last_fired_at_ms",
    "fired_until_ms",
    "deferred_at_ms",
    "deferred_by",
)


def _id(call: Call) -> AutomationId:
    return AutomationId(call.path("automation_id"))


def _automations(call: Call) -> Automations:
    return call.service.automations(call.tenant)


def _told(call: Call, automation_id: AutomationId, **beside: Any) -> Response:
    record = call.service.queries.automation(automation_id, tenant=call.tenant)
    return answer({**beside, "automation": record})


# Reading


async def list_automations(call: Call) -> Response:
    """List the automations of the tenant by id, all of them."""
    is_summary = call.query.get("view", "").strip().lower() == "summary"
    found: list[Any] = []
    after_id = ""
    while True:
        page = call.service.queries.automations(
            tenant=call.tenant, summary=is_summary, after_id=after_id, limit=LISTED_AT_ONCE
        )
        found += [
            each for each in page if call.sight.sees(AutomationId(str(each["automation_id"])))
        ]
        if len(page) < LISTED_AT_ONCE:
            break
        after_id = str(page[-1]["automation_id"])
    view = {"view": "summary"} if is_summary else {}
    return answer({"automations": found, "count": len(found), **view})


async def get_automation(call: Call) -> Response:
    """Tell the current version of an automation."""
    return _told(call, _id(call))


async def get_version(call: Call) -> Response:
    """Tell an older version of an automation."""
    automations = _automations(call)
    row = automations.get(_id(call))
    text = call.path("version")
    is_number = text.isascii() and text.isdigit() and len(text) < 20
    if not (is_number and 0 < int(text) <= row.version):
        raise NotFound(f"automation {row.automation_id} has no version {text[:20]!r}")
    spec = spec_record(automations.definition(row, int(text)))
    return answer({"automation": spec, "version": int(text)})


async def records(call: Call) -> Response:
    """Tell what happened to an automation: who, when, why."""
    automations = _automations(call)
    row = automations.get(_id(call))
    after_seq = whole(call.query, "after_seq", default=0, lowest=0, highest=2**53)
    found = automations.records(row, after_seq=after_seq)
    return answer({"automationID": row.automation_id, "records": found, "count": len(found)})


async def firings(call: Call) -> Response:
    """Tell when an automation fires next, and what its triggers did lately."""
    automations = _automations(call)
    row = automations.get(_id(call))
    limit = whole(call.query, "limit", default=FIRINGS_DEFAULT, lowest=1, highest=FIRINGS_MAX)
    found = msgspec.to_builtins(automations.firings(row, limit=limit))
    timing = {name: getattr(row, name) for name in TIMING}
    beside = {"automationID": row.automation_id, "timing": timing}
    return answer({**beside, "firings": found, "count": len(found)})


# Saving


async def create(call: Call) -> Response:
    """Keep a new automation."""
    given, said = await _given(call, Form.CREATE)
    document = new_document(said, tenant=call.tenant, access=_stamp(call))
    refuse_reserved(document.get("automation_id"))
    if given.automation_id is None:
        document["automation_id"] = f"automation-v2-{call.service.ids.new()}"
    document["creator_id"] = call.caller.actor_id or given.creator_id or "unknown"
    definition = await _read(call, document)
    automation_id = definition.automation_id
    row = call.service.store.find_automation(automation_id, tenant=call.tenant)
    if row is None or (
        # Whoever restores an automation gets its runs, too.
        row.is_deleted and not call.sight.refusal(automation_id, is_definition=True)
    ):
        await _save_new(call, definition)
    elif row.definition_digest != definition.digest:  # else it was sent twice
        raise _exists(automation_id)
    return _told(call, automation_id, **_warned(given))


async def _given(call: Call, form: Form) -> tuple[Given, dict[str, Any]]:
    """Return what the body says, and its document."""
    given = await call.service.reader.body(await read_json(call.request), form)
    refuse_unknown(given.warnings, is_strict=flag(call.query, "strict"))
    document: Any = decode(given.document)
    return given, document


def _stamp(call: Call) -> JsonObject | None:
    """Return who may see what the caller makes: nobody else, where others are told apart."""
    asserted = call.caller.asserted
    if asserted is None:
        return None
    person = asserted.person
    return access_document(owner=person, visibility=Visibility.PRIVATE, by=person)


async def _save_new(call: Call, definition: Definition) -> None:
    try:
        await _save(call, definition, expected_version=0)
    except Refused as refused:
        if refused.code == CONFLICT:
            raise _exists(definition.automation_id) from refused
        raise


async def _save(call: Call, definition: Definition, **how: Any) -> AutomationChange:
    change = await _automations(call).save(definition, by=call.caller.name, **how)
    call.service.queries.keep_saved(definition, tenant=call.tenant)
    return change


def _exists(automation_id: AutomationId) -> HttpError:
    return HttpError(
        "AUTOMATION_V2_CREATE_FAILED",
        f"there is an automation {automation_id} already, and it says something else; change it "
        "with PATCH, or leave `automation_id` out to get a new one",
        status=409,
        details={"automationID": automation_id},
    )


async def patch(call: Call) -> Response:
    """Change an automation: what is given replaces what was there."""
    given, said = await _given(call, Form.PATCH)
    said.pop("automation_id", None)
    said.pop("creator_id", None)
    await _change(call, said)
    return _told(call, _id(call), **_warned(given))


async def _change(call: Call, patch: dict[str, Any], *, reason: str = "") -> None:
    """Save a version in which `patch` replaces what was there; of two at once none is lost.

    A pause is lifted where another status is asked for: a save alone does not do it.
    """
    automations = _automations(call)
    for left in reversed(range(SAVES_MAX)):
        row = automations.get(_id(call))
        before = {**automations.document(row), "status": row.status.value}
        definition = await _read(call, patched_document(before, patch, tenant=call.tenant))
        if row.status is AutomationStatus.PAUSED and definition.status is not row.status:
            await automations.resume(row.automation_id, by=call.caller.name)
        try:
            await _save(call, definition, expected_version=row.version, reason=reason)
        except Refused as refused:
            if refused.code != CONFLICT or not left:
                raise
        else:
            return


async def put(call: Call) -> Response:
    """Make this definition the current version, as `tandem automations apply` does."""
    given, said = await _given(call, Form.PUT)
    automations, automation_id = _automations(call), _id(call)
    if said.setdefault("automation_id", automation_id) != automation_id:
        raise HttpError(
            "BODY_INVALID",
            f"the path names automation {automation_id}, the body another",
            details={"automationID": automation_id},
        )
    if call.is_hidden:
        # As for a creation: an id that is taken cannot be had, whoever has it.
        raise _exists(automation_id)
    row = call.service.store.find_automation(automation_id, tenant=call.tenant)
    stamp = _stamp(call)
    before = (
        automations.document(row).get("metadata")
        if row is not None
        else None
        if stamp is None
        else {"resource_access": stamp}
    )
    document = whole_document(said, before=before, tenant=call.tenant)
    document.pop("creator_id", None)
    change = await _save(
        call,
        await _read(call, document),
        expected_version=_expected(call),
        reason=call.query.get("reason", ""),
    )
    event = change.record.event if change.record is not None else None
    return _told(call, automation_id, ok=True, event=event, **_warned(given))


def _expected(call: Call) -> int | None:
    if "expect_version" not in call.query:
        return None
    return whole(call.query, "expect_version", default=0, lowest=0, highest=2**53)


async def share(call: Call) -> Response:
    """Say who may see an automation."""
    given = await call.body(Share)
    try:
        visibility = Visibility(given.visibility.strip().lower())
    except ValueError:
        raise HttpError(
            "AUTOMATION_V2_INVALID_VISIBILITY",
            f"{given.visibility[:40]!r} is not one of {', '.join(Visibility)}",
        ) from None
    row = _automations(call).get(_id(call))
    metadata = _automations(call).document(row).get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise HttpError(
            "AUTOMATION_V2_SHARE_FAILED", "the metadata of this automation is no object"
        )
    access = access_document(
        owner=_owner_of(call, row, metadata),
        visibility=visibility,
        audience=given.audience_principals,
        by=call.caller.name,
    )
    await _change(call, {"resource_access": access})
    return _told(call, row.automation_id)


def _owner_of(call: Call, row: StoredAutomation, metadata: Any) -> str:
    """Return whose an automation is: sharing does not change that."""
    known = read_access(metadata)
    if known is not None and known.owner:
        return known.owner
    return call.caller.name if row.creator_id in UNKNOWN_CREATORS else row.creator_id


async def _read(call: Call, document: dict[str, Any]) -> Definition:
    try:
        return await call.service.reader.definition(document)
    except InvalidAutomation as error:
        raise as_http(error) from error


def _warned(given: Given) -> dict[str, Any]:
    return {"warnings": msgspec.to_builtins(given.warnings)} if given.warnings else {}


async def delete(call: Call) -> Response:
    """Take an automation out of the lists; its runs stay and go on."""
    why = told_reason(call.query.get("reason"))
    row = await _automations(call).delete(_id(call), by=call.caller.name, **why)
    return answer({"ok": True, "deleted": True, "automationID": row.automation_id})


# Holding and running


async def pause(call: Call) -> Response:
    """Pause what runs of an automation and hold what is queued; twice is harmless."""
    given = await call.body(Reasoned)
    try:
        await _automations(call).pause(_id(call), by=call.caller.name, **told_reason(given.reason))
    except Refused as refused:
        if refused.code != "automation_not_pausable":
            raise
    await _stop_attempts(call, given.reason)
    return _told(call, _id(call), ok=True)


async def _stop_attempts(call: Call, reason: str | None) -> None:
    """Stop what still runs of the automation, and wait for that in bounded time."""
    service = call.service
    pausing = RunFilter(
        tenant=call.tenant,
        automation_id=_id(call),
        statuses=(RunState.PAUSING,),
        limit=PAUSED_RUNS_MAX,
    )
    runs = service.store.list_runs(pausing)
    for run in runs:
        with suppress(Refused, NotFound):  # it has come to rest by itself
            command = Pause(now=True, **told_reason(reason))
            await service.engine.execute(run.run_id, command, tenant=call.tenant)
    with suppress(TimeoutError, NotFound):
        async with service.clock.deadline(PAUSE_WAIT_MS):
            for run in runs:
                await service.waiters.wait(run.run_id, until=_is_at_rest, tenant=call.tenant)


def _is_at_rest(run: Run) -> bool:
    return run.status is not RunState.PAUSING


async def resume(call: Call) -> Response:
    """Let held runs be claimed again; runs that were paused are resumed one by one."""
    automations = _automations(call)
    row = automations.get(_id(call))
    if row.status is AutomationStatus.PAUSED:
        why = told_reason(call.query.get("reason"))
        await automations.resume(row.automation_id, by=call.caller.name, **why)
    elif row.status is AutomationStatus.DRAFT:
        await require_no_agent(call)  # this saves another version
        reason = call.query.get("reason", "")
        await _change(call, {"status": AutomationStatus.ACTIVE.value}, reason=reason)
    return _told(call, row.automation_id, ok=True)


async def run_now(call: Call) -> Response:
    """Start a run of the current version, whatever the status of the automation is."""
    given = await call.body(RunNow)
    profile = given.execution_profile or given.profile
    call.spend_run_creation()
    run = await _automations(call).run(
        _id(call),
        given.inputs,
        is_dry=given.dry_run,
        runs_draft=True,
        profile=ExecutionProfile(profile) if profile else None,
        trigger_reason=given.reason or "",
        started_by=call.caller.name,
        key=call.key(f"run_now:{_id(call)}", given.model_dump(mode="json")),
    )
    plan = {"plan": await _plan(call, run)} if given.dry_run else {}
    return tell_run(call, run.run_id, as_of=run, ok=True, dry_run=given.dry_run, **plan)


async def _plan(call: Call, run: Run) -> Any:
    """Return what a real run would do, beside what the record of the dry one tells."""
    told = await call.service.engine.tell_dry_run(run)
    shown = {"nodes": told.nodes, "problems": told.problems, "obstacles": told.obstacles}
    return call.site.redactor.value(msgspec.to_builtins(shown))


_BASE: Final = "/automations/v2/{automation_id}"
_CODES: Final = {"not_found": "AUTOMATION_V2_NOT_FOUND"}
_STRICT: Final = Parameter(
    name="strict", says="Refuse unknown keys instead of warning.", kind="boolean"
)
_REASON: Final = Parameter(name="reason", says="Why; kept with what happened.")

ROUTES = (
    Endpoint(
        method="GET",
        path="/automations/v2",
        handler=list_automations,
        says="List the automations by id.",
        answers="automations[], count, view?",
        query=(Parameter(name="view", says="`summary` leaves the definitions out."),),
    ),
    Endpoint(
        method="POST",
        path="/automations/v2",
        handler=create,
        says="Keep a new automation; the same one again changes nothing.",
        answers="automation, warnings[]?",
        body=CreateAutomation,
        query=(_STRICT,),
        codes={"invalid_automation": "AUTOMATION_V2_CREATE_FAILED"},
        errors=("AUTOMATION_V2_INVALID_METADATA", "UNKNOWN_KEYS"),
        statuses={"AUTOMATION_V2_CREATE_FAILED": 409},
    ),
    Endpoint(
        method="GET",
        path=_BASE,
        handler=get_automation,
        says="Tell the current version of an automation.",
        answers="automation",
        codes=_CODES,
    ),
    Endpoint(
        method="PATCH",
        path=_BASE,
        handler=patch,
        says="Change an automation: what is given replaces what was there, null changes nothing.",
        answers="automation, warnings[]?",
        body=PatchAutomation,
        query=(_STRICT,),
        codes={**_CODES, "invalid_automation": "AUTOMATION_V2_UPDATE_FAILED"},
        errors=("AUTOMATION_V2_INVALID_METADATA", "AUTOMATION_VERSION_CONFLICT", "UNKNOWN_KEYS"),
    ),
    Endpoint(
        method="PUT",
        path=_BASE,
        handler=put,
        says="Make this the current version, whole, of an automation that is there or is not; "
        "without a difference nothing changes.",
        answers="ok, event, automation, warnings[]?",
        body=PutAutomation,
        query=(
            _STRICT,
            Parameter(
                name="expect_version",
                says="Only if this is the current version; 0 for none.",
                kind="integer",
            ),
            _REASON,
        ),
        errors=(
            "AUTOMATION_V2_CREATE_FAILED",
            "AUTOMATION_VERSION_CONFLICT",
            "UNKNOWN_KEYS",
            "QUERY_INVALID",
        ),
    ),
    Endpoint(
        method="DELETE",
        path=_BASE,
        handler=delete,
        says="Take an automation out of the lists; its runs and versions stay.",
        answers="ok, deleted, automationID",
        query=(_REASON,),
        codes=_CODES,
    ),
    Endpoint(
        method="GET",
        path=f"{_BASE}/versions/{{version}}",
        handler=get_version,
        says="Tell one version of an automation.",
        answers="automation, version",
        codes=_CODES,
    ),
    Endpoint(
        method="GET",
        path=f"{_BASE}/records",
        handler=records,
        says="Tell what happened to an automation: who, when, why; at most 1,000 records.",
        answers="automationID, records[], count",
        query=(Parameter(name="after_seq", says="Records after this number.", kind="integer"),),
        codes=_CODES,
        errors=("QUERY_INVALID",),
    ),
    Endpoint(
        method="GET",
        path=f"{_BASE}/firings",
        handler=firings,
        says="Tell when an automation fires next, and what its triggers did lately, newest first: "
        "which runs, or why there are none.",
        answers="automationID, timing{next_fire_at_ms, last_fired_at_ms, fired_until_ms, "
        "deferred_at_ms, deferred_by}, firings[], count",
        query=(Parameter(name="limit", says="So many at most; 100 without.", kind="integer"),),
        codes=_CODES,
        errors=("QUERY_INVALID",),
    ),
    Endpoint(
        method="POST",
        path=f"{_BASE}/share",
        handler=share,
        says="Say who may see an automation: private, group or org.",
        answers="automation",
        body=Share,
        codes={**_CODES, "invalid_automation": "AUTOMATION_V2_SHARE_FAILED"},
        errors=("AUTOMATION_V2_INVALID_VISIBILITY", "AUTOMATION_VERSION_CONFLICT"),
    ),
    Endpoint(
        method="POST",
        path=f"{_BASE}/pause",
        handler=pause,
        says="Pause what runs of an automation and hold what is queued; twice is harmless.",
        answers="ok, automation",
        body=Reasoned,
        codes=_CODES,
    ),
    Endpoint(
        method="POST",
        path=f"{_BASE}/resume",
        handler=resume,
        says="Make an automation active; runs that were paused are resumed one by one.",
        answers="ok, automation",
        query=(_REASON,),
        codes={**_CODES, "invalid_automation": "AUTOMATION_V2_UPDATE_FAILED"},
        errors=("AUTOMATION_VERSION_CONFLICT", "PREMIUM_FEATURE_REQUIRED"),
    ),
    Endpoint(
        method="POST",
        path=f"{_BASE}/run_now",
        handler=run_now,
        says="Start a run of the current version, whatever the status of the automation is; a dry "
        "run starts nothing and tells the plan.",
        answers="ok, dry_run, plan{nodes[], problems[], obstacles[]}?, run, contextRunID, "
        "linked_context_run_id",
        body=RunNow,
        codes={**_CODES, "invalid_automation": "AUTOMATION_V2_RUN_CREATE_FAILED"},
        errors=("RATE_LIMITED",),
    ),
)
