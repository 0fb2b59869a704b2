"""Event cursors: where in the events of a store somebody has come to (decision 23).

A cursor is an opaque text for everybody else. It names its store, so that one of another store, of
a copy that went its own way, or of a time whose events are packed is never taken for a place in
this one: whoever presents it is told so.
"""

import re
from enum import StrEnum
from typing import Final, Self

import msgspec

WHOLE: Final = 2**31
"""The place behind everything that is published for one record."""

_TEXT: Final = re.compile(r"([0-9a-z]{1,64})-(\d{1,40})(?:\.(\d{1,3}))?", re.ASCII)


class EventTail(msgspec.Struct, frozen=True, kw_only=True):
    """How far the events of a store reach at one moment.

    `position` is that of the newest one; positions only grow and are never given twice. Events of
    old runs up to `packed_to` may be packed, and are found through their run only.
    """

    store_id: str
    position: int
    packed_to: int = 0


class EventCursor(msgspec.Struct, frozen=True, order=True):
    """Everything up to here was seen: the position of a record, and how much of what it tells."""

    store_id: str
    position: int
    place: int = WHOLE

    def __str__(self) -> str:
        end = "" if self.place == WHOLE else f".{self.place}"
        return f"{self.store_id}-{self.position}{end}"

    @property
    def read_after(self) -> int:
        """The position after which the first record lies that is not wholly seen."""
        return self.position if self.place == WHOLE else self.position - 1

    def has_seen(self, position: int, place: int) -> bool:
        """Say whether what is published at this place lies before the cursor, or at it."""
        return (position, place) <= (self.position, self.place)

    @classmethod
    def at_end(cls, tail: EventTail) -> Self:
        """Return the cursor behind the newest event."""
        return cls(tail.store_id, tail.position)


class ResetReason(StrEnum):
    """Why a stream cannot go on from a cursor."""

    FOREIGN = "foreign"
    EXPIRED = "expired"
    AHEAD = "ahead"
    UNREADABLE = "unreadable"


RESET_MEANINGS: Final = {
    ResetReason.FOREIGN: "the cursor is one of another store, or of a copy of this one",
    ResetReason.EXPIRED: "events after the cursor are packed with their runs and not streamed "
    "any more",
    ResetReason.AHEAD: "the store does not reach as far as the cursor",
    ResetReason.UNREADABLE: "the text is not a cursor of this engine",
}


def read_cursor(text: str, tail: EventTail, *, of_one_run: bool) -> EventCursor | ResetReason:
    """Return where to go on from, or why that is not possible.

    Args:
        text: what a client presents.
        tail: of the store that is to be read.
        of_one_run: only events of one run are read; these are found when they are packed, too.
    """
    matched = _TEXT.fullmatch(text.strip())
    if matched is None:
        return ResetReason.UNREADABLE
    store_id, position, place = matched.groups()
    cursor = EventCursor(store_id, int(position), WHOLE if place is None else int(place))
    if cursor.store_id != tail.store_id:
        return ResetReason.FOREIGN
    if cursor.position > tail.position:
        return ResetReason.AHEAD
    if not of_one_run and cursor.read_after < tail.packed_to:
        return ResetReason.EXPIRED
    return cursor
