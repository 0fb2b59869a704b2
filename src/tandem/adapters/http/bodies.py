"""Reading what a request says: its body and the parameters of its query."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel
from starlette.requests import Request

from tandem.adapters.http.errors import HttpError
from tandem.domain.json import encode

M = TypeVar("M", bound="Body")

PROBLEMS_MAX = 100
MOMENT_MAX = 2**53
"""The largest whole number that every client reads as it is."""


class Body(BaseModel):
    """A JSON object that a request carries. Keys may be written in camelCase, too.

    Where both spellings of a key are there, the one of ours wins. Unknown keys are ignored.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class ExactBody(Body):
    """A body in which unknown keys are refused: a misspelt one would do more than was meant."""

    model_config = ConfigDict(extra="forbid")


async def read_object(request: Request) -> dict[str, Any]:
    """Return the JSON object of the body.

    Raises:
        HttpError: 415, 400 or 422, in this order.
    """
    return decode_object(await read_json(request))


async def read_json(request: Request) -> bytes:
    """Return the body of a request that says that it is JSON.

    Raises:
        HttpError: 415, it says something else.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )
    if not is_json:
        given = f"`{kind}`" if kind else "missing"
        raise HttpError("CONTENT_TYPE_UNSUPPORTED", f"the content type of the body is {given}")
    return await request.body()


def decode_object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object of a body.

    Raises:
        HttpError: 400 or 422, in this order.
    """
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HttpError("BODY_NOT_JSON", f"the body is not JSON: {error}") from None
    except RecursionError:
        raise HttpError("BODY_NOT_JSON", "the body is nested too deeply") from None
    if not isinstance(value, dict):
        raise HttpError("BODY_INVALID", "the body has to be a JSON object")
    return value


def shape(value: Mapping[str, Any], model: type[M]) -> M:
    """Return a body in its shape.

    Raises:
        HttpError: 422 with every place that is wrong.
    """
    try:
        # As JSON: there the strict rules are those of JSON, not of Python objects.
        return model.model_validate_json(encode(_renamed(value, model)), strict=True)
    except ValidationError as error:
        problems = [
            {
                "path": ".".join(str(step) for step in problem["loc"]),
                "code": problem["type"],
                "message": problem["msg"],
            }
            for problem in error.errors(include_url=False, include_input=False)[:PROBLEMS_MAX]
        ]
        first = problems[0]
        raise HttpError(
            "BODY_INVALID",
            f"the body has the wrong shape: `{first['path']}`: {first['message']}",
            details={"problems": problems},
        ) from None


def _renamed(value: Mapping[str, Any], model: type[Body]) -> dict[str, Any]:
    """Return a body, and the bodies within it, with the names of ours."""
    renamed = dict(value)
    for name, field in model.model_fields.items():
        camel = to_camel(name)
        if camel != name and camel in renamed:
            given = renamed.pop(camel)
            renamed.setdefault(name, given)
        inner, kind = renamed.get(name), field.annotation
        if isinstance(inner, dict) and isinstance(kind, type) and issubclass(kind, Body):
            renamed[name] = _renamed(inner, kind)
    return renamed


def whole(query: Mapping[str, str], name: str, *, default: int, lowest: int, highest: int) -> int:
    """Return a whole number of the query, clamped to its bounds.

    Raises:
        HttpError: it is no whole number.
    """
    text = query.get(name)
    if text is None:
        return default
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise HttpError("QUERY_INVALID", f"`{name}` has to be a whole number, not {text[:40]!r}")
    return min(max(int(text), lowest), highest)


def moment(query: Mapping[str, str], name: str) -> int | None:
    """Return a moment of the query in milliseconds, clamped to what can be kept, or None.

    Raises:
        HttpError: it is no whole number.
    """
    if not query.get(name):
        return None
    return whole(query, name, default=0, lowest=0, highest=MOMENT_MAX)


def optional(query: Mapping[str, str], name: str, read: Callable[[str], Any]) -> Any:
    """Return a parameter of the query as `read` reads it, or None without one.

    Raises:
        HttpError: `read` raised a ValueError.
    """
    text = query.get(name, "")
    if not text:
        return None
    try:
        return read(text)
    except ValueError:
        raise HttpError("QUERY_INVALID", f"`{name}` cannot be {text[:40]!r}") from None


def flag(query: Mapping[str, str], name: str) -> bool:
    """Return whether a switch of the query is on."""
    return query.get(name, "").lower() in ("1", "true", "yes", "on")
