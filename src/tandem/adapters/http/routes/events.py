"""Events: the live streams, and what happened to one run (http-api 2)."""

from typing import Final

from starlette.responses import Response

from tandem.adapters.http.bodies import whole
from tandem.adapters.http.call import Call, Endpoint, Parameter, answer
from tandem.adapters.http.sight import Sight
from tandem.adapters.http.sse import MEDIA_TYPE
from tandem.domain.engine_event import EngineEvent, engine_events, wire_event
from tandem.domain.errors import NotFound
from tandem.domain.ids import AutomationId, RunId
from tandem.domain.json import JsonObject, decode
from tandem.engine.event_feed import Wanted
from tandem.ports.store import EventRecord

EVENTS_MAX: Final = 1_000
EVENTS_DEFAULT: Final = 250
STREAMED: Final = "automation.v2."
"""How the types begin that the stream of automations carries (D4)."""


async def all_events(call: Call) -> Response:
    """Stream every event of the tenant."""
    greeting: list[JsonObject] = [
        {"type": "server.connected", "properties": {}},
        {
            "type": "engine.lifecycle.ready",
            "properties": {
                "status": "ready",
                "transport": "sse",
                "timestamp_ms": call.service.clock.now_ms(),
            },
        },
    ]
    return _stream(call, _wanted(call, run="runID", session="sessionID"), greeting)


async def automation_events(call: Call) -> Response:
    """Stream the events of automations and their runs."""
    ready: JsonObject = {
        "status": "ready",
        "stream": "automations_v2",
        "timestamp_ms": call.service.clock.now_ms(),
    }
    wanted = _wanted(call, run="run_id", automation="automation_id", prefix=STREAMED)
    return _stream(call, wanted, [ready])


async def run_events(call: Call) -> Response:
    """Stream the events of one run, or list them unless a stream is accepted (D5)."""
    run_id = RunId(call.path("run_id"))
    if call.service.store.find_run(run_id, tenant=call.tenant) is None:
        raise NotFound(f"there is no run {run_id}")
    if MEDIA_TYPE not in call.request.headers.get("accept", ""):
        return answer([decode(content) for content in _stored(call, run_id, names="all")])
    connected: JsonObject = {"type": "run.stream.connected", "properties": {"runID": run_id}}
    return _stream(call, Wanted(tenant=call.tenant, run_id=run_id), [connected])


async def stored_events(call: Call) -> Response:
    """List events of one run by number; of an unknown run there are none."""
    run_id = RunId(call.path("run_id"))
    documents = [decode(content) for content in _stored(call, run_id, names="first")]
    events = [_flat(document) for document in documents if isinstance(document, dict)]
    return answer(
        {
            "run_id": run_id,
            "events": events,
            "count": len(events),
            "first_seq": events[0]["seq"] if events else None,
            "last_seq": events[-1]["seq"] if events else None,
            "limit": _limit(call),
            "tail": _tail(call) or None,
            "sequence_scope": "run",
        }
    )


def _flat(document: JsonObject) -> dict[str, object]:
    envelope = document["envelope"]
    if not isinstance(envelope, dict):
        raise AssertionError("every event has an envelope")
    return {**envelope, "event_type": document["type"], "payload": document["properties"]}


def _stored(call: Call, run_id: RunId, *, names: str) -> list[bytes]:
    """Return events of a run under `all` of their names or the `first`."""
    run = call.service.store.find_run(run_id, tenant=call.tenant)
    if run is None:
        return []
    query = call.query
    since = "since_seq" if "since_seq" in query else "after_seq"
    after_seq = whole(query, since, default=0, lowest=0, highest=2**53)
    before_seq = whole(query, "before_seq", default=2**53, lowest=0, highest=2**53)
    tail = _tail(call)
    limit = tail or _limit(call)
    if tail:
        after_seq = max(after_seq, min(run.event_seq, before_seq - 1) - tail)
    found = call.service.store.list_event_records(
        run_id, tenant=call.tenant, after_seq=after_seq, limit=limit
    )
    return [
        wire_event(event)
        for record in found
        if record.event.seq < before_seq
        for event in _published(record, names)
    ]


def _published(record: EventRecord, names: str) -> list[EngineEvent]:
    events = engine_events(record.run, record.event, status=record.status)
    return list(events if names == "all" else events[:1])


def _limit(call: Call) -> int:
    return whole(call.query, "limit", default=EVENTS_DEFAULT, lowest=1, highest=EVENTS_MAX)


def _tail(call: Call) -> int:
    """Return how many of the newest are asked for; 0 when that is not asked."""
    if "tail" not in call.query:
        return 0
    return whole(call.query, "tail", default=EVENTS_DEFAULT, lowest=1, highest=EVENTS_MAX)


def _wanted(
    call: Call, *, run: str, automation: str = "", session: str = "", prefix: str = ""
) -> Wanted:
    """Read the filter of a stream; blank parameters count as absent."""
    query = call.query
    run_id = query.get(run, "").strip()
    automation_id = query.get(automation, "").strip()
    return Wanted(
        tenant=call.tenant,
        run_id=RunId(run_id) if run_id else None,
        automation_id=AutomationId(automation_id) if automation_id else None,
        session_id=query.get(session, "").strip() or None,
        prefix=prefix,
    )


def _stream(call: Call, wanted: Wanted, greeting: list[JsonObject]) -> Response:
    access, caller = call.site.access, call.caller
    return call.service.streams.open(
        wanted,
        request=call.request,
        caller=caller,
        may_stay=lambda: access.still_holds(caller),
        greeting=greeting,
        sight=None if call.sight.is_whole else lambda: Sight(caller, call.service.queries),
    )


_CURSOR: Final = (
    Parameter(name="after", says="Goes on behind this id, as the header `Last-Event-ID` does."),
    Parameter(name="cursor", says="The same as `after`."),
)
_LIST: Final = (
    Parameter(name="since_seq", says="Events after this number.", kind="integer"),
    Parameter(name="after_seq", says="The same as `since_seq`.", kind="integer"),
    Parameter(name="before_seq", says="Events before this number.", kind="integer"),
    Parameter(name="limit", says="So many at most; 250 without.", kind="integer"),
    Parameter(name="tail", says="So many of the newest.", kind="integer"),
)
_OF_ALL: Final = (
    Parameter(name="runID", says="Only events of this run."),
    Parameter(name="sessionID", says="Only events of this session."),
    *_CURSOR,
)

ROUTES = (
    *(
        Endpoint(
            method="GET",
            path=path,
            handler=all_events,
            says="Stream every event of the tenant.",
            answers="type, properties, runID, envelope",
            query=_OF_ALL,
            errors=("RATE_LIMITED",),
            media_type=MEDIA_TYPE,
        )
        for path in ("/event", "/global/event")
    ),
    Endpoint(
        method="GET",
        path="/automations/v2/events",
        handler=automation_events,
        says="Stream the events of automations and their runs.",
        answers="type, properties, runID, envelope",
        query=(
            Parameter(name="automation_id", says="Only events of this automation."),
            Parameter(name="run_id", says="Only events of this run."),
            *_CURSOR,
        ),
        errors=("RATE_LIMITED",),
        media_type=MEDIA_TYPE,
    ),
    *(
        Endpoint(
            method="GET",
            path=path,
            handler=run_events,
            says="List the events of a run, or stream them where the request accepts "
            "`text/event-stream`.",
            answers="[type, properties, runID, envelope]",
            query=(*_LIST, *_CURSOR),
            errors=("RATE_LIMITED", "QUERY_INVALID"),
            codes={"not_found": "AUTOMATION_V2_RUN_NOT_FOUND"},
        )
        for path in ("/run/{run_id}/events", "/api/run/{run_id}/events")
    ),
    Endpoint(
        method="GET",
        path="/runs/{run_id}/events",
        handler=stored_events,
        says="List events of a run by number.",
        answers="run_id, events[], count, first_seq, last_seq, limit, tail, sequence_scope",
        query=_LIST,
        errors=("QUERY_INVALID",),
    ),
)
