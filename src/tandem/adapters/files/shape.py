"""Says in plain words what pydantic found wrong with the shape of a document."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tandem.adapters.files.tree import Path, path_text
from tandem.domain.automation import Automation
from tandem.domain.errors import Problem
from tandem.domain.retry_policy import (
    BACKOFF_ALIASES,
    INLINE_BACKOFF_KEYS,
    RETRY_ALIASES,
    Backoff,
    RetryPolicy,
)

VALUE_CHARS_MAX: Final = 40
KEYS_SHOWN_MAX: Final = 12

_MORE_KEYS: Final[Mapping[type[BaseModel], frozenset[str]]] = {
    Automation: frozenset({"nodes"}),
    RetryPolicy: frozenset(RETRY_ALIASES) | INLINE_BACKOFF_KEYS,
    Backoff: frozenset(BACKOFF_ALIASES),
}
_KINDS_LATER: Final = frozenset({"mcp_tool", "automation"})
"""Kinds of actions that the design names and this version does not have."""

_EXPECTED: Final = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_BOUNDS: Final = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


class Misshapen(NamedTuple):
    """A mistake, with its path from the root and without a place in a file.

    `meant` is what was evidently meant, where that is one of a few words.
    """

    path: Path
    problem: Problem
    meant: str | None = None


def shape_problems(error: ValidationError) -> Iterator[Misshapen]:
    """Yield each mistake."""
    for details in error.errors(include_url=False):
        # A default that is made from a field which is wrong itself, and a list that is called
        # empty because all that is in it is wrong.
        follows = details["type"] == "default_factory_not_called" or (
            details["type"] == "too_short" and details["input"]
        )
        if not follows:
            yield _problem(details)


def _problem(details: ErrorDetails) -> Misshapen:
    path, models = _walk(details["loc"])
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    code, hint, meant = "field_value", "", None
    last = str(path[-1]) if path else "the document"
    if kind == "missing":
        code, message = "field_missing", f"`{last}` is missing"
    elif kind == "extra_forbidden":
        known = _keys(_walk(details["loc"][:-1])[1])
        code, message, hint = (
            "field_unknown",
            f"there is no key `{last}` here",
            _did_you_mean(_nearest(last, known)) or _listed(known),
        )
    elif kind in ("union_tag_invalid", "union_tag_not_found"):
        path, message, meant = _tag_problem(path, models, value, context)
        hint = _did_you_mean(meant)
    elif kind in _EXPECTED:
        code = "field_type"
        given = _shown(value) if isinstance(value, float) else _noun(value)
        message = f"must be {_EXPECTED[kind]}, not {given}"
        if kind == "string_type" and isinstance(value, bool | int | float):
            hint = "quote it"
        elif value is None:
            hint = "remove the key or give it a value"
    elif kind in ("enum", "literal_error"):
        choices = _unquoted(str(context.get("expected", "")))
        message = f"{_shown(value)} is not one of: {', '.join(choices)}"
        meant = _nearest(str(value), choices)
        hint = _did_you_mean(meant)
    elif kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        message = f"must be {words} {context.get(name)}, not {_shown(value)}"
    elif kind in ("too_short", "string_too_short"):
        message = "must not be empty"
    elif kind == "string_pattern_mismatch":
        message = _pattern_message(last, value)
    else:
        message = details["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        message = message[:1].lower() + message[1:]
    problem = Problem(code=code, message=message, path=path_text(path), hint=hint)
    return Misshapen(path, problem, meant)


def _pattern_message(last: str, value: object) -> str:
    if last == "function":
        return f"{_shown(value)} is not of the form package.module:function"
    return f"{_shown(value)} is no name of an environment variable"


def _tag_problem(
    path: Path, models: list[type[BaseModel]], value: object, context: Mapping[str, Any]
) -> tuple[Path, str, str | None]:
    key = str(context.get("discriminator", "kind")).strip("'")
    tags = [_tag(model, key) for model in models]
    listed = ", ".join(tags)
    given = value.get(key) if isinstance(value, Mapping) else None
    if given is None:
        return path, f"`{key}` is missing; it is one of: {listed}", None
    if isinstance(given, str) and given in _KINDS_LATER:
        return (
            (*path, key),
            f"`{given}` is not available in this version; there are: {listed}",
            None,
        )
    message = f"{_shown(given)} is not one of: {listed}"
    return (*path, key), message, _nearest(str(given), tags)


def _walk(location: tuple[int | str, ...]) -> tuple[Path, list[type[BaseModel]]]:
    """Return the path that a person would write, and the models that its end may be.

    Pydantic puts the chosen kind of a tagged union and the word `[key]` into its locations; a
    document has neither.
    """
    path: list[int | str] = []
    models: list[type[BaseModel]] = [Automation]
    for step in location:
        if len(models) > 1:
            models = [model for model in models if _has_tag(model, step)]
            continue
        if step == "[key]":
            continue
        path.append(step)
        if isinstance(step, str):
            models = _field_models(models[0], step) if models else []
    return tuple(path), models


def _field_models(model: type[BaseModel], key: str) -> list[type[BaseModel]]:
    for name, field in model.model_fields.items():
        if key in (name, field.alias):
            return list(dict.fromkeys(_models_in(field.annotation)))
    return []


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, Annotated, tuple, list):
        for part in get_args(annotation):
            yield from _models_in(part)


def _has_tag(model: type[BaseModel], tag: object) -> bool:
    return any(
        get_origin(field.annotation) is Literal and get_args(field.annotation) == (tag,)
        for field in model.model_fields.values()
    )


def _tag(model: type[BaseModel], key: str) -> str:
    return str(get_args(model.model_fields[key].annotation)[0])


def _keys(models: list[type[BaseModel]]) -> list[str]:
    return [
        key
        for model in models
        for key in (
            *(field.alias or name for name, field in model.model_fields.items()),
            *sorted(_MORE_KEYS.get(model, ())),
        )
    ]


def _nearest(name: str, known: list[str]) -> str | None:
    return next(iter(get_close_matches(name[:100], known, n=1)), None)


def _did_you_mean(meant: str | None) -> str:
    return "" if meant is None else f"did you mean `{meant}`?"


def _listed(known: list[str]) -> str:
    more = ", …" if len(known) > KEYS_SHOWN_MAX else ""
    return f"keys here: {', '.join(known[:KEYS_SHOWN_MAX])}{more}" if known else ""


def _unquoted(expected: str) -> list[str]:
    return [part.strip().strip("'") for part in expected.replace(" or ", ", ").split(",")]


def _shown(value: object) -> str:
    text = str(value)
    return f"`{text}`" if len(text) <= VALUE_CHARS_MAX else f"`{text[:VALUE_CHARS_MAX]}…`"


def _noun(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case Mapping():
            return "a mapping"
        case _:
            return "a list"
