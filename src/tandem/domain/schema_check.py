"""JSON Schema checks: compiled once, nothing fetched, mistakes in readable lines."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NoReturn

import jsonschema_rs
import msgspec

from tandem.domain.json import JsonValue, canonical, decode, encode

COMPILED_MAX: Final = 256
"""Compiled schemas that are kept."""
MESSAGE_CHARS_MAX: Final = 300
ERRORS_MAX: Final = 20

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class InvalidSchema(ValueError):
    """The schema is not a valid JSON Schema, or refers to something outside itself.

    `path` leads to the wrong place in the schema; it is empty when the place is not known.
    """

    def __init__(self, message: str, path: tuple[str | int, ...] = ()) -> None:
        self.path = path
        super().__init__(message)


class Violation(msgspec.Struct, frozen=True):
    """One way in which a value misses its schema; `path` leads to the place in the value."""

    path: tuple[str | int, ...]
    message: str

    def __str__(self) -> str:
        return f"at {json_path(self.path)}: {self.message}"


class Checker:
    """A compiled schema. Made by `compile_schema`."""

    def __init__(self, validator: jsonschema_rs.Validator) -> None:
        self._validator = validator

    def violations(self, value: JsonValue, *, limit: int = ERRORS_MAX) -> list[Violation]:
        """Return at most `limit` ways in which `value` misses the schema; none means it fits.

        A value that cannot be written as JSON has one violation, which says so.
        """
        try:
            plain = decode(encode(value))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            return [Violation((), f"the value cannot be written as JSON: {error}")][:limit]
        return list(_limited(self._validator.iter_errors(plain), limit))

    def errors(self, value: JsonValue, *, limit: int = ERRORS_MAX) -> list[str]:
        """Return the violations as lines such as `at $.rows[2].name: 5 is not of type "string"`."""
        return [str(violation) for violation in self.violations(value, limit=limit)]


def compile_schema(schema: JsonValue) -> Checker:
    """Compile `schema` (an object or a boolean); equal schemas are compiled once.

    The draft is the one that `$schema` names, else 2020-12. References to anything outside the
    schema are refused, they are never fetched.

    Raises:
        InvalidSchema: the schema is wrong; the message says how.
    """
    try:
        return _compiled(canonical(schema))
    except (TypeError, OverflowError, RecursionError) as error:
        raise InvalidSchema(f"the schema cannot be written as JSON: {error}") from error


def json_path(path: tuple[str | int, ...]) -> str:
    """Write a path the way JSONPath does: `$.rows[2]["odd key"]`."""
    return "$" + "".join(_step(step) for step in path)


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if _PLAIN_KEY.fullmatch(step) else f"[{encode(step).decode()}]"


def _limited(errors: Iterator[jsonschema_rs.ValidationError], limit: int) -> Iterator[Violation]:
    for _, error in zip(range(limit), errors, strict=False):
        yield Violation(tuple(error.instance_path), _shortened(error.message))


@lru_cache(maxsize=COMPILED_MAX)
def _compiled(schema: bytes) -> Checker:
    plain = decode(schema)
    if not isinstance(plain, dict | bool):
        raise InvalidSchema("a schema is an object or a boolean")
    try:
        return Checker(jsonschema_rs.validator_for(plain, retriever=_refuse))
    except jsonschema_rs.ValidationError as error:
        path = tuple(error.instance_path)
        where = f"at {json_path(path)}: " if path else ""
        raise InvalidSchema(where + _schema_message(error), path) from error


def _schema_message(error: jsonschema_rs.ValidationError) -> str:
    if error.instance_path[-1:] == ["type"] and error.kind.name == "anyOf":
        return f"{encode(error.instance).decode()} is no type of JSON Schema"
    return _shortened(error.message)


def _refuse(uri: str) -> NoReturn:
    raise ValueError(f"{uri} is outside this schema, and nothing is fetched")


def _shortened(message: str) -> str:
    if len(message) <= MESSAGE_CHARS_MAX:
        return message
    # Both ends: the start shows the value, the end says what is wrong with it.
    half = MESSAGE_CHARS_MAX // 2 - 2
    return f"{message[:half]} … {message[-half:]}"
