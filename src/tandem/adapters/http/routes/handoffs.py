"""What other automations have handed over to one (http-api 3.8)."""

from typing import Final

from starlette.responses import Response

from tandem.adapters.http.call import Call, Endpoint, answer
from tandem.domain.ids import AutomationId
from tandem.engine.handoffs import listing_document


def _id(call: Call) -> AutomationId:
    return AutomationId(call.path("automation_id"))


async def list_handoffs(call: Call) -> Response:
    """List the handoffs of an automation: in the inbox, approved and archived."""
    found = call.service.engine.handoffs.list(_id(call), tenant=call.tenant)
    return answer(listing_document(found))


async def approve(call: Call) -> Response:
    """Let a handoff of the inbox start its run."""
    handoff_id = call.path("handoff_id")
    handoff = call.service.engine.handoffs.approve(_id(call), handoff_id, tenant=call.tenant)
    return answer({"ok": True, "handoff": handoff})


_BASE: Final = "/automations/v2/{automation_id}/handoffs"
_CODES: Final = {"not_found": "AUTOMATION_V2_NOT_FOUND"}
_PLACE: Final = ("HANDOFF_WITHOUT_WORKSPACE", "HANDOFF_FOLDER_INVALID")

ROUTES = (
    Endpoint(
        method="GET",
        path=_BASE,
        handler=list_handoffs,
        says="List the handoffs of an automation, oldest first, up to 512 of each folder.",
        answers="automation_id, workspace_root, handoff_config, inbox[], approved[], archived[], "
        "counts",
        codes=_CODES,
        errors=_PLACE,
    ),
    Endpoint(
        method="POST",
        path=f"{_BASE}/{{handoff_id}}/approve",
        handler=approve,
        says="Let a handoff of the inbox start its run; twice is harmless.",
        answers="ok, handoff",
        codes=_CODES,
        errors=_PLACE,
    ),
)
