"""Definitions as clients send them: other spellings are read, unknown keys are kept out (D7).

What comes out has the names of the definition only; whether it is right is for others to say.
"""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import Annotated, Any, Final, Literal, TypeAlias, Union, get_args, get_origin

import msgspec
from pydantic import BaseModel

from tandem.domain.automation import Automation
from tandem.domain.retry_policy import (
    BACKOFF_ALIASES,
    INLINE_BACKOFF_KEYS,
    RETRY_ALIASES,
    Backoff,
    RetryPolicy,
)
from tandem.domain.schedule import Schedule

OWNED: Final = frozenset(
    {
        "created_at_ms",
        "updated_at_ms",
        "next_fire_at_ms",
        "last_fired_at_ms",
        "version",
        "definition_digest",
        "pause_reason",
        "paused_by",
        "paused_at_ms",
    }
)
"""What the server says of an automation; whoever sends it back means nothing by it."""
WARNINGS_MAX: Final = 100

_HUMP: Final = re.compile(r"(?<=[a-z0-9])([A-Z]+)")
_MORE_KEYS: Final[Mapping[type[BaseModel], frozenset[str]]] = {
    RetryPolicy: frozenset(RETRY_ALIASES) | INLINE_BACKOFF_KEYS,
    Backoff: frozenset(BACKOFF_ALIASES),
}
_TAGS: Final = ("type", "kind", "source")
_Models: TypeAlias = tuple[type[BaseModel], ...]


class Warned(msgspec.Struct, frozen=True, kw_only=True):
    """A key that was kept out, and where."""

    path: str
    code: str = "field_unknown"
    message: str
    hint: str = ""


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """A definition in the names of ours, and what was kept out of it."""

    document: dict[str, Any]
    warnings: tuple[Warned, ...]


def read_spec(given: Mapping[str, Any], *, beside: frozenset[str] = frozenset()) -> Spec:
    """Read a definition, or a part of one, from a body.

    Args:
        given: the JSON object.
        beside: keys that a body may have and a definition has not; they are left in place.
    """
    reader = _Reader()
    own = {_snake(key): value for key, value in given.items() if _snake(key) in beside}
    rest = {
        key: value
        for key, value in given.items()
        if _snake(key) not in beside and _snake(key) not in OWNED
    }
    document = reader.read(rest, Automation, "")
    return Spec(document={**document, **own}, warnings=tuple(reader.warnings[:WARNINGS_MAX]))


class _Reader:
    def __init__(self) -> None:
        self.warnings: list[Warned] = []

    def read(self, given: Mapping[str, Any], model: type[BaseModel], path: str) -> dict[str, Any]:
        """Return a part in the names of `model`; of two spellings ours wins."""
        fields, more = _fields_of(model), _MORE_KEYS.get(model, frozenset())
        found: dict[str, Any] = {}
        for key, value in given.items():
            name = key if key in fields or key in more else _snake(key)
            place = f"{path}.{key}" if path else key
            if name in fields:
                if name != key and name in given:
                    continue
                if model is Schedule and name == "misfire_policy" and isinstance(value, str):
                    value = {"type": value}
                models = fields[name]
                found[name] = self._value(value, models, place) if models else value
            elif name in more:
                found[name] = value
            else:
                self.warnings.append(_unknown(key, place, [*fields, *sorted(more)]))
        return found

    def _value(self, value: Any, models: _Models, path: str) -> Any:
        if isinstance(value, list):
            return [self._value(each, models, f"{path}[{n}]") for n, each in enumerate(value)]
        if not isinstance(value, Mapping):
            return value
        model = _chosen(models, value)
        return value if model is None else self.read(value, model, path)


def _unknown(key: str, path: str, known: list[str]) -> Warned:
    close = get_close_matches(_snake(key)[:100], known, n=1)
    return Warned(
        path=path,
        message=f"there is no key `{key[:100]}` here; it was left out",
        hint=f"did you mean `{close[0]}`?" if close else "",
    )


@cache
def _fields_of(model: type[BaseModel]) -> Mapping[str, _Models]:
    """Return the names of a model, each with the models that its value may have."""
    return {
        field.alias or name: tuple(_models_in(field.annotation))
        for name, field in model.model_fields.items()
    }


def _chosen(models: _Models, value: Mapping[str, Any]) -> type[BaseModel] | None:
    """Return the model of a value, by its tag where there are several; None when it has no tag."""
    if len(models) == 1:
        return models[0]
    for model in models:
        for tag in _TAGS:
            field = model.model_fields.get(tag)
            if field is None or get_origin(field.annotation) is not Literal:
                continue
            if value.get(tag) in get_args(field.annotation):
                return model
    return None


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, Annotated, tuple, list):
        for part in get_args(annotation):
            yield from _models_in(part)


def _snake(key: str) -> str:
    """Return `maxParallelAgents` as `max_parallel_agents`, `automationID` as `automation_id`."""
    return _HUMP.sub(lambda hump: f"_{hump[1]}", key).lower()
