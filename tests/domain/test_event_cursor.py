"""A cursor names its store and its place; one that leads nowhere says why."""

import pytest

from tandem.domain.event_cursor import (
    RESET_MEANINGS,
    WHOLE,
    EventCursor,
    EventTail,
    ResetReason,
    read_cursor,
)

TAIL = EventTail(store_id="5707e", position=100, packed_to=40)


def _read(text: str, *, of_one_run: bool = False) -> EventCursor | ResetReason:
    return read_cursor(text, TAIL, of_one_run=of_one_run)


@pytest.mark.parametrize("place", [0, 3, WHOLE])
def test_a_cursor_is_read_as_it_was_written(place: int) -> None:
    cursor = EventCursor("5707e", 77, place)
    assert _read(f" {cursor} ") == cursor


def test_the_end_of_a_store_is_a_cursor_of_it() -> None:
    cursor = EventCursor.at_end(TAIL)
    assert _read(str(cursor)) == cursor
    assert cursor.read_after == 100


def test_a_record_that_was_seen_in_part_is_read_again() -> None:
    cursor = EventCursor("5707e", 77, 0)
    assert cursor.read_after == 76
    assert cursor.has_seen(76, WHOLE)
    assert cursor.has_seen(77, 0)
    assert not cursor.has_seen(77, WHOLE)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("other-7", ResetReason.FOREIGN),
        ("5707e-39", ResetReason.EXPIRED),
        ("5707e-40.0", ResetReason.EXPIRED),
        ("5707e-101", ResetReason.AHEAD),
        ("17", ResetReason.UNREADABLE),
        ("5707e-7-7", ResetReason.UNREADABLE),
        ("5707e-\u0667", ResetReason.UNREADABLE),
        ("5707e-" + "9" * 5_000, ResetReason.UNREADABLE),
    ],
)
def test_a_cursor_that_leads_nowhere_says_why(text: str, reason: ResetReason) -> None:
    assert _read(text) == reason
    assert reason in RESET_MEANINGS


def test_what_is_packed_of_one_run_is_found() -> None:
    assert _read("5707e-3", of_one_run=True) == EventCursor("5707e", 3)
    assert _read("5707e-40") == EventCursor("5707e", 40)
