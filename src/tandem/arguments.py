"""What a program gives to the Python API, checked before it reaches a run.

A command line and a server read texts and JSON, which have types of their own. A program may give
anything; what has the wrong type must not get into the store, as nobody could read it from there.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from tandem.domain.automation import Automation
from tandem.domain.errors import InvalidRequest

S = TypeVar("S", bound=msgspec.Struct)
E = TypeVar("E", bound=StrEnum)


def require_automation(given: object) -> None:
    """Refuse what is no automation, and say how to get one.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(given, Automation):
        return
    if isinstance(given, Mapping):
        hint = "read it with `Automation.from_dict`"
    elif isinstance(given, str):
        hint = (
            "read a file with `Automation.from_file`; `engine.automation(id)` is one of the store"
        )
    else:
        hint = "take what `Automation.from_file` or `Automation.from_dict` returns"
    raise TypeError(f"this is no automation but {_kind(given)}; {hint}")


def require_texts(**given: object) -> None:
    """Refuse a value that is not text, by the name of its argument.

    Raises:
        TypeError: it is something else.
        InvalidRequest: it holds half a character, which no store can keep.
    """
    for name, value in given.items():
        if not isinstance(value, str):
            raise TypeError(f"`{name}` has to be text, not {_kind(value)}")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"`{name}` cannot be written as UTF-8: {error.reason}") from error


def require_whole(name: str, given: object, *, least: int, most: int = 2**53) -> None:
    """Refuse what is no whole number within these bounds.

    Raises:
        TypeError: it is no whole number.
        InvalidRequest: it is out of bounds.
    """
    if not isinstance(given, int) or isinstance(given, bool):
        raise TypeError(f"`{name}` has to be a whole number, not {_kind(given)}")
    if not least <= given <= most:
        raise InvalidRequest(f"`{name}` is {given}, it has to be from {least} to {most}")


def require_objects(**given: object) -> None:
    """Refuse a value that is no object of JSON, by the name of its argument; None is left out.

    Raises:
        TypeError: it is something else.
    """
    for name, value in given.items():
        if value is not None and not isinstance(value, Mapping):
            raise TypeError(f"`{name}` has to be a mapping, not {_kind(value)}")


def require_record(given: S, kinds: Iterable[type[msgspec.Struct]]) -> S:
    """Return a record as it is, if it is one of these kinds and its fields have their types.

    Raises:
        TypeError: a field, which is named, has another type; or it is another thing.
    """
    if type(given) not in kinds:
        raise TypeError(f"this is no {' or '.join(_names(kinds))} but {_kind(given)}")
    try:
        fields: dict[str, Any] = msgspec.structs.asdict(given)
        msgspec.convert(fields, type(given), builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise TypeError(f"wrong argument of {type(given).__name__}: {error}") from error
    return given


def choose(kind: type[E], name: str, given: object) -> E:
    """Return the member of an enumeration that a text names.

    Raises:
        InvalidRequest: it names none; the message has all that there are.
    """
    try:
        return kind(given)  # type: ignore[arg-type] # what is no text is no member either
    except ValueError:
        known = ", ".join(member.value for member in kind)
        raise InvalidRequest(f"`{name}` is {given!r:.80}, it has to be one of {known}") from None


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__


def _names(kinds: Iterable[type]) -> list[str]:
    names = [kind.__name__ for kind in kinds]
    return names if len(names) == 1 else ["command of `tandem.domain.command`"]
