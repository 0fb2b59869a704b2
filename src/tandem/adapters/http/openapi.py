"""The OpenAPI document, made from the table of routes."""

import re
from collections.abc import Iterable
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from tandem.adapters.http.call import Endpoint, Parameter
from tandem.adapters.http.errors import KINDS
from tandem.adapters.http.policy import DEFINING, POLICY, Open
from tandem.adapters.http.shapes import shapes

COMMON: Final = ("AUTH_REQUIRED", "SCOPE_DENIED", "ENGINE_STARTING", "INTERNAL_ERROR")
"""What every route with a token may answer."""
OF_BODIES: Final = ("BODY_NOT_JSON", "BODY_TOO_LARGE", "CONTENT_TYPE_UNSUPPORTED", "BODY_INVALID")
_OF_AGENTS: Final = ("PREMIUM_FEATURE_REQUIRED",)
_INNER: Final = re.compile(r"{[^}]*}| \([^)]*\)")
_KEY: Final = re.compile(r"(?P<name>\w+)(:(?P<shape>\w+))?(?P<many>\[\])?(?P<maybe>\?)?")
_SHAPES, _COMPONENTS = shapes()
_NAMES: Final = re.compile(r"{(\w+)}")


def openapi(endpoints: Iterable[Endpoint], *, version: str) -> dict[str, Any]:
    """Return the document of all routes."""
    listed = list(endpoints)
    bodies = {endpoint.body for endpoint in listed if endpoint.body is not None}
    _, schemas = models_json_schema(
        [(body, "validation") for body in sorted(bodies, key=lambda body: body.__name__)],
        ref_template="#/components/schemas/{model}",
    )
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in listed:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tandem Engine", "version": version},
        "paths": paths,
        "components": {
            "schemas": {**schemas.get("$defs", {}), **_COMPONENTS, "Error": _error_schema()},
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Made by `tandem tokens create`; needed once there is one.",
                }
            },
        },
    }


def codes_of(endpoint: Endpoint) -> tuple[str, ...]:
    """Return every code that a route may answer."""
    is_open = isinstance(POLICY.get(endpoint.name), Open)
    of_body = OF_BODIES if endpoint.body is not None else ()
    own = (*endpoint.codes.values(), *endpoint.errors)
    return tuple(
        dict.fromkeys((*(() if is_open else COMMON), *of_body, *own, *_governing(endpoint)))
    )


def _governing(endpoint: Endpoint) -> tuple[str, ...]:
    """Return how a change of what is somebody else's is refused."""
    if endpoint.name in DEFINING:
        kind = "WEBHOOK" if "/webhook-triggers" in endpoint.path else "V2"
        return (f"AUTOMATION_{kind}_ACCESS_DENIED", "AUTOMATION_V2_NOT_OWNER", *_OF_AGENTS)
    is_of_one = "{automation_id}" in endpoint.path or "{run_id}" in endpoint.path
    return ("AUTOMATION_V2_ACCESS_DENIED",) if is_of_one and endpoint.method != "GET" else ()


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    needed = POLICY.get(endpoint.name)
    found: dict[str, Any] = {
        "operationId": _operation_id(endpoint),
        "summary": endpoint.says,
        "tags": [endpoint.handler.__module__.rpartition(".")[2]],
        "parameters": [_of_path(name) for name in _NAMES.findall(endpoint.path)]
        + [_of_query(parameter) for parameter in endpoint.query],
        "responses": _responses(endpoint),
        "security": [] if isinstance(needed, Open) else [{"token": []}],
        "x-scope": "" if isinstance(needed, Open) else str(needed),
    }
    if endpoint.body is not None:
        ref = {"$ref": f"#/components/schemas/{endpoint.body.__name__}"}
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": ref}}}
    return found


def _operation_id(endpoint: Endpoint) -> str:
    words = re.findall(r"\w+", endpoint.path)
    return "_".join([endpoint.method.lower(), *words])


def _of_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _of_query(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "query",
        "required": False,
        "description": parameter.says,
        "schema": {"type": parameter.kind},
    }


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    told = {"schema": _schema_of(endpoint.answers)} if "json" in endpoint.media_type else {}
    content = {endpoint.media_type: told}
    found: dict[str, Any] = {"200": {"description": endpoint.answers, "content": content}}
    for status, says in endpoint.also.items():
        found[str(status)] = {"description": says, "content": content}
    by_status: dict[int, list[str]] = {}
    for code in codes_of(endpoint):
        by_status.setdefault(KINDS[code].status, []).append(code)
    for code, status in endpoint.statuses.items():
        by_status.setdefault(status, []).append(code)
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for status, codes in sorted(by_status.items()):
        found[str(status)] = {"description": ", ".join(sorted(codes)), "content": error}
    return found


def _schema_of(answers: str) -> dict[str, Any]:
    """Return the shape that the keys of an answer have.

    `?` says that one may be absent, `:` names its shape, `; or ` separates answers of which one is
    given, and an answer in brackets is a list. What is no list of keys is any object.
    """
    several = answers.split("; or ")
    if len(several) > 1:
        return {"anyOf": [_schema_of(one) for one in several]}
    if answers.startswith("["):
        return {"type": "array", "items": _schema_of(answers.strip("[]"))}
    found: dict[str, Any] = {"type": "object"}
    keys = _INNER.sub("", answers).removesuffix(", …").split(", ")
    read = [_KEY.fullmatch(key) for key in keys]
    if not all(read):
        return found
    named = {key["name"]: key for key in read if key is not None}
    found["required"] = [name for name, key in named.items() if not key["maybe"]]
    found["properties"] = {
        name: {"$ref": f"#/components/schemas/{key['shape']}"}
        if key["shape"]
        else _SHAPES.get(name, {"type": "array"} if key["many"] else {})
        for name, key in named.items()
    }
    return found


def _error_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["error", "code", "retryable", "hint"],
        "properties": {
            "error": {"type": "string"},
            "code": {"type": "string", "enum": sorted(KINDS)},
            "retryable": {"type": "boolean"},
            "hint": {"type": "string"},
        },
        "examples": [
            {
                "error": "there is no run r1",
                "code": "AUTOMATION_V2_RUN_NOT_FOUND",
                "retryable": False,
                "hint": KINDS["AUTOMATION_V2_RUN_NOT_FOUND"].do,
                "runID": "r1",
            }
        ],
    }
