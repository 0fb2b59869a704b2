"""Tokens of the tenant, and the audit of what was done to them and who was turned away."""

from typing import Any, Final

import msgspec
from starlette.responses import Response

from tandem.adapters.http.bodies import whole
from tandem.adapters.http.call import Call, Endpoint, Parameter, answer
from tandem.adapters.http.errors import HttpError
from tandem.adapters.http.schemas import CreateToken
from tandem.domain.audit import AuditRecord
from tandem.domain.caller import ActorKind, Scope
from tandem.domain.ids import TenantId
from tandem.domain.tenant import context_of
from tandem.domain.token import Token, require_no_more, token_record

LISTED_DEFAULT: Final = 100
LISTED_MAX: Final = 1_000


async def list_tokens(call: Call) -> Response:
    """List the tokens of the tenant by id, without their texts, which nobody has."""
    _require_own(call, call.query.get("tenant", "").strip() or None)
    limit = _limit(call)
    after_id = call.query.get("cursor", "").strip()
    found = call.service.tokens.list(tenant=call.tenant, after_id=after_id, limit=limit)
    cursor = found[-1].token_id if len(found) == limit else None
    shown = [_told(call, token) for token in found]
    return answer({"tokens": shown, "count": len(shown), "cursor": cursor})


async def create(call: Call) -> Response:
    """Make a token for the tenant of the caller; its text is in this answer and nowhere else."""
    given = await call.body(CreateToken)
    _require_own(call, given.tenant)
    scopes, kind = [Scope(scope) for scope in given.scopes], ActorKind(given.kind)
    require_no_more(call.caller, scopes, kind=kind, actor_id=given.actor_id)
    token, text = await call.service.tokens.create(
        tenant=call.tenant,
        name=given.name,
        scopes=scopes,
        actor_id=given.actor_id,
        kind=kind,
        by=call.caller.name,
        expires_in_ms=given.expires_in_ms,
    )
    return answer({"ok": True, "token": _told(call, token), "secret": text})


async def revoke(call: Call) -> Response:
    """End a token of the tenant for good; servers refuse it within a second."""
    token = await call.service.tokens.revoke(
        call.path("token_id"), by=call.caller.name, tenant=call.tenant
    )
    return answer({"ok": True, "token": _told(call, token)})


async def list_audit(call: Call) -> Response:
    """List the records of the audit that are about the tenant, in their order."""
    limit = _limit(call)
    after_no = whole(call.query, "cursor", default=0, lowest=0, highest=2**53)
    found = call.service.store.list_audit(tenant=call.tenant, after_no=after_no, limit=limit)
    cursor = found[-1].audit_no if len(found) == limit else None
    shown = [_shown(record) for record in found]
    return answer({"records": shown, "count": len(shown), "cursor": cursor})


def _require_own(call: Call, tenant: str | None) -> None:
    if tenant is not None and tenant not in (call.tenant, _words(call.tenant)):
        raise HttpError(
            "TENANT_SCOPE_DENIED", f"this token is about the tokens of `{call.tenant}` only"
        )


def _limit(call: Call) -> int:
    return whole(call.query, "limit", default=LISTED_DEFAULT, lowest=1, highest=LISTED_MAX)


def _told(call: Call, token: Token) -> dict[str, Any]:
    return token_record(token, now_ms=call.service.clock.now_ms())


def _shown(record: AuditRecord) -> dict[str, Any]:
    entry: dict[str, Any] = msgspec.to_builtins(record.entry)
    return {"audit_no": record.audit_no, **entry, "record_hash": record.record_hash}


def _words(tenant: TenantId) -> str:
    """Return a tenant as people write it; the local one is `local/local`."""
    context = context_of(tenant)
    parts = (context.org_id, context.workspace_id, context.deployment_id)
    return "/".join(part for part in parts if part)


_PAGE: Final = (
    Parameter(name="limit", says="So many at most; 100 without.", kind="integer"),
    Parameter(name="cursor", says="Continues the page that told it."),
)

ROUTES = (
    Endpoint(
        method="GET",
        path="/tokens",
        handler=list_tokens,
        says="List the tokens of the tenant, without their texts.",
        answers="tokens[], count, cursor",
        query=(*_PAGE, Parameter(name="tenant", says="May only say the tenant of the caller.")),
        errors=("QUERY_INVALID", "TENANT_SCOPE_DENIED"),
    ),
    Endpoint(
        method="POST",
        path="/tokens",
        handler=create,
        says="Make a token for the tenant of the caller; `secret` is told this once.",
        answers="ok, token, secret",
        body=CreateToken,
        errors=("INVALID_REQUEST", "TENANT_SCOPE_DENIED", "TOKEN_TOO_WIDE"),
    ),
    Endpoint(
        method="POST",
        path="/tokens/{token_id}/revoke",
        handler=revoke,
        says="End a token of the tenant for good.",
        answers="ok, token",
        errors=("TOKEN_NOT_FOUND", "TOKEN_REVOKED"),
    ),
    Endpoint(
        method="GET",
        path="/audit",
        handler=list_audit,
        says="List what was done to tokens of the tenant and who was turned away.",
        answers="records[], count, cursor",
        query=_PAGE,
        errors=("QUERY_INVALID",),
    ),
)
