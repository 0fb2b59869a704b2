"""The chain of receipts: each lifecycle event holds the hash of itself and of the one before it.

Whoever changes, removes, adds or repeats an event breaks the chain at that place or at its end,
which the run row holds (run-lifecycle 5, "Receipts"; decision 13). The chain knows no secret: it
proves that the record is whole, and, to somebody who noted the newest hash elsewhere, that it is
the same.
"""

from collections.abc import Iterable
from hashlib import sha256

import msgspec

from tandem.domain.json import encode
from tandem.domain.lifecycle import RunEvent
from tandem.domain.run import LifecycleEvent, Run


def record_hash(before: str, event: LifecycleEvent) -> str:
    """Return the hex SHA-256 that seals `event` to the record before it; `before` may be empty."""
    content = encode(
        (
            event.seq,
            event.event,
            event.recorded_at_ms,
            event.change_id,
            event.node_id,
            event.attempt,
            event.reason,
            event.stop_kind,
            event.metadata,
        )
    )
    return sha256(before.encode() + content).hexdigest()


def seal(before: str, event: LifecycleEvent) -> LifecycleEvent:
    """Give a new event its hash and return it; nobody else has seen it yet."""
    # The record is frozen for everybody else; a copy of it for each event would cost as much again.
    msgspec.structs.force_setattr(event, "record_hash", record_hash(before, event))
    return event


def record(run: Run, event: LifecycleEvent) -> LifecycleEvent:
    """Seal the next event of a run and let its row name it; return the event.

    Every event of a run comes through here, or through `first_event`.
    """
    sealed = seal(run.event_hash, event)
    run.event_seq = sealed.seq
    run.event_hash = sealed.record_hash
    return sealed


def first_event(run: Run) -> LifecycleEvent:
    """Return the event of the creation of a run, sealed as the first one."""
    created = LifecycleEvent(
        seq=1,
        event=RunEvent.RUN_CREATED,
        recorded_at_ms=run.created_at_ms,
        change_id=run.last_change_id,
    )
    return seal("", created)


class ChainCheck(msgspec.Struct, kw_only=True):
    """Follows the events of one run in order and collects what is wrong with them.

    Events that were written before there was a chain are counted, not judged; once the chain has
    begun every event belongs to it.
    """

    head: str = ""
    seq: int = 0
    unsealed: int = 0
    problems: list[str] = msgspec.field(default_factory=list)

    def follow(self, events: Iterable[LifecycleEvent]) -> None:
        """Take the next events."""
        for event in events:
            self._follow(event)

    def _follow(self, event: LifecycleEvent) -> None:
        if event.seq > self.seq + 1:
            self.problems.append(f"gap: events {self.seq + 1} to {event.seq - 1} are missing")
        elif event.seq <= self.seq:
            self.problems.append(f"replay: event {event.seq} comes again")
        self.seq = max(self.seq, event.seq)
        if not event.record_hash:
            self.unsealed += 1
            if self.head:
                self.problems.append(f"event {event.seq} has no hash, though the chain has begun")
            return
        if event.record_hash != record_hash(self.head, event):
            self.problems.append(f"event {event.seq} ({event.event}) does not fit its hash")
        self.head = event.record_hash

    def close(self, *, seq: int, head: str) -> None:
        """Compare the end of the chain with what the run row says of it."""
        if self.seq != seq:
            self.problems.append(f"the events end at {self.seq}, the run counts {seq}")
        if self.head != head:
            self.problems.append("the newest event is not the one that the run names")
