"""Every answer that the tests get, held against the OpenAPI document."""

import re
from functools import cache
from typing import Any

import httpx2
import jsonschema_rs

from tandem.adapters.http.app import endpoints
from tandem.adapters.http.call import Endpoint
from tandem.adapters.http.openapi import openapi


@cache
def _document() -> dict[str, Any]:
    return openapi(endpoints(), version="0")


@cache
def _patterns() -> list[tuple[Endpoint, re.Pattern[str]]]:
    # Names that are written out before names that are filled in, as the application reads them.
    listed = sorted(endpoints(), key=lambda each: each.path.count("{"))
    return [(each, re.compile(re.sub(r"{\w+}", "[^/]+", each.path))) for each in listed]


@cache
def _validator(path: str, method: str, status: str) -> Any:
    told = _document()["paths"][path][method]["responses"].get(status)
    if told is None:
        raise AssertionError(f"{method} {path} is not said to answer {status}")
    schema = told["content"].get("application/json", {}).get("schema", {})
    schema = {**schema, "components": _document()["components"]}
    return jsonschema_rs.validator_for(schema)


async def hold_to_document(response: httpx2.Response) -> None:
    """Fail where an answer is not what the document says of its route."""
    request = response.request
    path = request.url.path.removeprefix("/compat/0.7")
    found = [
        each.path
        for each, pattern in _patterns()
        if each.method == request.method and pattern.fullmatch(path)
    ]
    if not found or response.headers.get("content-type") != "application/json":
        return
    await response.aread()
    _validator(found[0], request.method.lower(), str(response.status_code)).validate(
        response.json()
    )
