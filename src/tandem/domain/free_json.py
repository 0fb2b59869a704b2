"""Looking into free JSON, such as metadata: what is not of the kind that is asked for is absent."""

from collections.abc import Mapping, Sequence

from tandem.domain.json import JsonObject, JsonValue

_EMPTY: JsonObject = {}


def object_at(value: JsonValue, *names: str) -> JsonObject:
    """Return the object below `value` at these names; empty when there is none."""
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else _EMPTY


def list_at(value: JsonValue, *names: str) -> Sequence[JsonValue]:
    """Return the list below `value` at these names; empty when there is none."""
    *above, name = names
    found = object_at(value, *above).get(name)
    return found if isinstance(found, Sequence) and not isinstance(found, str) else ()


def text_of(value: JsonValue) -> str:
    """Return a text without blanks around it, a whole number as text, and nothing for the rest."""
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""
