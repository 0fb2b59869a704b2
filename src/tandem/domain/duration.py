"""Spans of time in documents: whole milliseconds, or text such as `30s` and `1h30m`."""

import re
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

DURATION_MS_MAX: Final = 2**53 - 1

_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PART = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")
_HINT: Final = "write whole milliseconds (30000) or a number with a unit: 500ms, 30s, 5m, 2h, 1d"


def parse_duration_ms(value: object) -> object:
    """Return the milliseconds that a text such as `500ms`, `30s` or `1h30m` stands for.

    What is not text is returned as it is, for the integer check that follows.

    Raises:
        PydanticCustomError: the text is not a duration (type `duration`).
    """
    if isinstance(value, bool | float) or value is None:
        raise PydanticCustomError("duration", "not a duration: {hint}", {"hint": _HINT})
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not _WHOLE.fullmatch(text):
        raise PydanticCustomError(
            "duration", "`{text}` is not a duration: {hint}", {"text": text[:40], "hint": _HINT}
        )
    return round(sum(float(number) * _UNIT_MS[unit] for number, unit in _PART.findall(text)))


_SCHEMA: Final = WithJsonSchema(
    {
        "anyOf": [
            {"type": "integer", "minimum": 0},
            {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"},
        ]
    }
)

DurationMs = Annotated[
    int, Field(ge=0, le=DURATION_MS_MAX), BeforeValidator(parse_duration_ms), _SCHEMA
]
"""A span in milliseconds, 0 or more; documents may also write `500ms`, `30s`, `5m`, `2h`, `1d`."""

PositiveDurationMs = Annotated[
    int, Field(gt=0, le=DURATION_MS_MAX), BeforeValidator(parse_duration_ms), _SCHEMA
]
"""The same, but more than 0."""
