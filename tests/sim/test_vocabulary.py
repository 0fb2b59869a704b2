"""What the engine really records is what the vocabulary says; `test_schedules.py` asks of it."""

from collections.abc import Iterable

import pytest

from tandem.domain.lifecycle import RunEvent
from tandem.domain.vocabulary import WORDS
from tandem.testing.invariants import Seen

CREATED = Seen("r", 1, RunEvent.RUN_CREATED, None, "c")


def check_vocabulary(events: Iterable[Seen]) -> None:
    """Check that the metadata of every event is declared."""
    undeclared = {
        (seen.event.value, key)
        for seen in events
        for key in seen.metadata.difference(WORDS[seen.event].metadata)
    }
    assert undeclared == set()


def test_metadata_that_nobody_declared_is_found() -> None:
    check_vocabulary([CREATED])
    with pytest.raises(AssertionError):
        check_vocabulary([Seen("r", 1, RunEvent.RUN_CREATED, None, "c", frozenset({"strange"}))])
