"""The chain of receipts notices every change of what was recorded."""

import msgspec
import pytest

from tandem.domain.ids import ChangeId
from tandem.domain.lifecycle import RunEvent
from tandem.domain.receipts import ChainCheck, seal
from tandem.domain.run import LifecycleEvent


def chain(length: int = 4) -> list[LifecycleEvent]:
    head, made = "", []
    for seq in range(1, length + 1):
        event = LifecycleEvent(
            seq=seq,
            event=RunEvent.NODE_STARTED,
            recorded_at_ms=seq,
            change_id=ChangeId("c"),
            metadata={"n": seq},
        )
        made.append(seal(head, event))
        head = made[-1].record_hash
    return made


def problems_of(events: list[LifecycleEvent]) -> list[str]:
    whole = chain()
    check = ChainCheck()
    check.follow(events)
    check.close(seq=whole[-1].seq, head=whole[-1].record_hash)
    return check.problems


def test_whole_chain_has_no_problems() -> None:
    assert problems_of(chain()) == []


@pytest.mark.parametrize("field", ["reason", "change_id", "event", "recorded_at_ms", "attempt"])
def test_changed_event_is_found(field: str) -> None:
    events = chain()
    value = {"event": RunEvent.NODE_FAILED, "recorded_at_ms": 9, "attempt": 3}.get(field, "other")
    events[1] = msgspec.structs.replace(events[1], **{field: value})
    assert any("event 2" in problem for problem in problems_of(events))


def test_gap_replay_and_missing_end_are_found() -> None:
    events = chain()
    assert any("gap" in problem for problem in problems_of([events[0], *events[2:]]))
    assert any("replay" in problem for problem in problems_of([*events[:2], *events[1:]]))
    cut = problems_of(events[:-1])
    assert cut[0] == "the events end at 3, the run counts 4"
    assert cut[1].startswith("the newest event is not")


def test_events_from_before_the_chain_are_only_counted() -> None:
    old = msgspec.structs.replace(chain(1)[0], record_hash="")
    check = ChainCheck()
    check.follow([old])
    assert (check.unsealed, check.problems) == (1, [])

    check.follow([seal("", msgspec.structs.replace(old, seq=2))])
    check.follow([msgspec.structs.replace(old, seq=3)])
    assert check.problems == ["event 3 has no hash, though the chain has begun"]
