"""What the contract makes of a definition that a client sends, before it is saved (http-api 3.2).

The defaults of a creation, the keys of the metadata that no body may set, what a change replaces.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tandem.adapters.http.bodies import shape
from tandem.adapters.http.errors import HttpError
from tandem.adapters.http.schemas import Capabilities
from tandem.adapters.http.spec import Warned
from tandem.domain.errors import InvalidAutomation, Problem
from tandem.domain.ids import TenantId
from tandem.domain.json import JsonObject
from tandem.domain.tenant import context_json
from tandem.domain.validation import NODES_MAX, too_many_nodes

BESIDE: Final = frozenset({"capabilities"})
"""Keys of a body that belong into the metadata."""
TENANT: Final = "tenant_context"
RESERVED: Final = ("events", "runs", "signals", "waits", "webhook-events", "graduation")
"""Words that stand in paths where ids of automations stand in others."""
SERVER_OWNED: Final = ("resource_access", "capabilities")
"""Keys of the metadata that have routes or fields of their own."""
SHAPES: Final = frozenset({"field_missing", "field_type", "field_value", "not_json"})
"""Problems that say that the body has the wrong shape."""
TOOLS_DEFAULT: Final = ("read",)


def refuse_many_nodes(given: Mapping[str, Any]) -> None:
    """Refuse more nodes than there may be before each of them is looked at, which takes long.

    Raises:
        InvalidAutomation: there are too many.
    """
    flow = given.get("flow")
    nodes = flow.get("nodes") if isinstance(flow, Mapping) else None
    if isinstance(nodes, list) and len(nodes) > NODES_MAX:
        raise InvalidAutomation([too_many_nodes(len(nodes))])


def refuse_reserved(automation_id: Any) -> None:
    """Refuse an id that is a word of our paths: nobody could ask for that automation.

    Raises:
        InvalidAutomation: it is one.
    """
    if automation_id in RESERVED:
        raise InvalidAutomation(
            [
                Problem(
                    code="automation_id_reserved",
                    message=f"`{automation_id}` is a word of the paths of this server; "
                    "choose another id",
                    path="automation_id",
                )
            ]
        )


def refuse_unknown(warnings: Sequence[Warned], *, is_strict: bool) -> None:
    """Refuse what would only be warned of, when that is asked for.

    Raises:
        HttpError: 400 with the warnings.
    """
    if is_strict and warnings:
        names = ", ".join(warned.path for warned in warnings[:10])
        raise HttpError(
            "UNKNOWN_KEYS",
            f"nothing knows these keys: {names}",
            details={"warnings": warnings},
        )


def new_document(
    document: Mapping[str, Any], *, tenant: TenantId, access: JsonObject | None = None
) -> dict[str, Any]:
    """Return a definition with the defaults of a creation over HTTP.

    Raises:
        HttpError: the metadata are no object, and have to say who may see the automation.
    """
    found = {key: value for key, value in document.items() if value is not None}
    if access is not None:
        found["resource_access"] = access
    found.setdefault("status", "draft")
    execution = found.setdefault("execution", {})
    if execution.get("max_parallel_agents") is None:
        found["execution"] = {**execution, "max_parallel_agents": 1}
    return _normal(found, before=None, tenant=tenant)


def patched_document(
    before: Mapping[str, Any], patch: Mapping[str, Any], *, tenant: TenantId
) -> dict[str, Any]:
    """Return a definition in which every key that is given replaces what was there.

    Raises:
        HttpError: the metadata would be no object, and have to hold what the server keeps there.
    """
    given = {key: value for key, value in patch.items() if value is not None}
    return _normal({**before, **given}, before=before.get("metadata"), tenant=tenant)


def whole_document(document: Mapping[str, Any], *, before: Any, tenant: TenantId) -> dict[str, Any]:
    """Return a definition that replaces another as a whole; `before` is the metadata of that one.

    It is kept as its author wrote it: only the keys of the server stay what they were.

    Raises:
        HttpError: the metadata are no object, and have to say who may see the automation.
    """
    found = {key: value for key, value in document.items() if value is not None}
    metadata = found.get("metadata", {})
    if isinstance(metadata, dict):
        kept = _metadata(metadata, before, tenant)
        found |= {"metadata": kept} if kept or "metadata" in found else {}
    elif isinstance(before, dict) and "resource_access" in before:
        raise _access_needs_an_object()
    return found


def _normal(document: dict[str, Any], *, before: Any, tenant: TenantId) -> dict[str, Any]:
    capabilities = document.pop("capabilities", None)
    access = document.pop("resource_access", None)
    metadata = document.get("metadata")
    if access is None and isinstance(before, dict):
        access = before.get("resource_access")
    if access is not None:
        if not isinstance(metadata if metadata is not None else {}, dict):
            raise _access_needs_an_object()
        metadata = {} if metadata is None else metadata
        before = {**(before if isinstance(before, dict) else {}), "resource_access": access}
    if capabilities is not None:
        if not isinstance(metadata if metadata is not None else {}, dict):
            raise HttpError(
                "AUTOMATION_V2_INVALID_METADATA",
                "the metadata has to be an object to hold capabilities",
            )
        metadata = metadata or {}
        kept = shape(capabilities, Capabilities).model_dump()
        before = {**(before if isinstance(before, dict) else {}), "capabilities": kept}
    if isinstance(metadata, dict):
        document["metadata"] = _metadata(metadata, before, tenant)
    document["agents"] = [_agent(agent) for agent in document.get("agents") or ()]
    return document


def _access_needs_an_object() -> HttpError:
    # Without it everybody would see the automation.
    return HttpError(
        "AUTOMATION_V2_INVALID_METADATA",
        "the metadata have to be an object: they say who may see the automation",
    )


def _metadata(given: Mapping[str, Any], before: Any, tenant: TenantId) -> dict[str, Any]:
    """Return metadata whose own keys come from the server: a body can choose none of them."""
    old = before if isinstance(before, dict) else {}
    found = {key: value for key, value in given.items() if key not in SERVER_OWNED}
    found |= {key: old[key] for key in SERVER_OWNED if key in old}
    if TENANT in found or TENANT in old:
        found[TENANT] = context_json(tenant)
    return found


def _agent(agent: Any) -> Any:
    """Return an agent with its name, and lists without blanks and repetitions."""
    if not isinstance(agent, dict):
        return agent
    found = dict(agent)
    if isinstance(found.get("display_name"), str) and not found["display_name"].strip():
        del found["display_name"]
    tools = found.get("tool_policy")
    tools = dict(tools) if isinstance(tools, dict) else {}
    for name in ("allowlist", "denylist"):
        tools[name] = _names(tools.get(name, []))
    # A denylist stays also beside the default (definitions 13.10).
    found["tool_policy"] = {**tools, "allowlist": tools["allowlist"] or list(TOOLS_DEFAULT)}
    servers = found.get("mcp_policy")
    if isinstance(servers, dict):
        lists = {
            name: _names(servers[name])
            for name in ("allowed_servers", "allowed_tools")
            if servers.get(name) is not None
        }
        found["mcp_policy"] = {**servers, **lists}
    return found


def _names(given: Any) -> Any:
    """Return trimmed names, each once; what is no list of texts is left for the judge of shapes."""
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        return given
    return list(dict.fromkeys(name.strip() for name in given if name.strip()))


def as_http(error: InvalidAutomation) -> Exception:
    """Return 422 for a wrong shape; what only makes no sense stays as it is."""
    shapes = [problem for problem in error.problems if problem.code in SHAPES]
    if not shapes:
        return error
    first = shapes[0]
    return HttpError(
        "BODY_INVALID",
        f"the body has the wrong shape: `{first.path}`: {first.message}",
        details={
            "problems": [
                {"path": p.path, "code": p.code, "message": p.message, "hint": p.hint}
                for p in error.problems
            ]
        },
    )
