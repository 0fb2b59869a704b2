"""What time does to a gate or a wait that stays open: expiry, escalation, reminders, staleness.

Pure arithmetic over moments (run-lifecycle 6.4); what a step does to the run is decided by
`domain.expiry` for gates and `domain.waits` for waits.
"""

from enum import StrEnum
from typing import Final

import msgspec

from tandem.domain.run import Gate, PolicyState, Wait

UNASSIGNED: Final = "unassigned_escalation_principal"
"""Who is told when an escalation names nobody."""


class Step(StrEnum):
    """What is due."""

    CANCEL = "cancel"
    RESUME = "resume"
    ESCALATE = "escalate"
    REMIND = "remind"
    MARK_STALE = "mark_stale"


class Deadline(msgspec.Struct, frozen=True, kw_only=True):
    """The moments of one open gate or wait. `expires_at_ms` None means that it never expires."""

    since_ms: int
    expires_at_ms: int | None
    action: str
    remind_every_ms: int | None
    stale_after_ms: int | None
    state: PolicyState

    def next_at_ms(self) -> int | None:
        """Return when something is due next, if anything ever is."""
        moments = (self.expiry_at_ms(), self._reminder_at_ms(), self._stale_at_ms())
        return min((moment for moment in moments if moment is not None), default=None)

    def due(self, now_ms: int) -> Step | None:
        """Return the first thing that is due; expiry goes before a reminder."""
        for moment, step in (
            (self.expiry_at_ms(), self._expiry_step()),
            (self._reminder_at_ms(), Step.REMIND),
            (self._stale_at_ms(), Step.MARK_STALE),
        ):
            if moment is not None and moment <= now_ms:
                return step
        return None

    def _expiry_step(self) -> Step:
        return Step(self.action)

    def expiry_at_ms(self) -> int | None:
        """Return when it expires, unless it has done all that its expiry does."""
        done = {
            Step.ESCALATE: self.state.escalated_at_ms is not None,
            Step.REMIND: self.state.expired_reminder,
        }
        return None if done.get(self._expiry_step()) else self.expires_at_ms

    def _reminder_at_ms(self) -> int | None:
        """Return the next reminder: before the expiry for any action, after it only for `remind`.

        One reminder makes up for all that were missed, because the next counts from it.
        """
        if not self.remind_every_ms or self.state.escalated_at_ms is not None:
            return None
        last = self.state.last_reminded_at_ms
        at_ms = (self.since_ms if last is None else last) + self.remind_every_ms
        is_before = self.expires_at_ms is None or at_ms < self.expires_at_ms
        return at_ms if is_before or self.state.expired_reminder else None

    def _stale_at_ms(self) -> int | None:
        if self.stale_after_ms is None or self.state.stale_at_ms is not None:
            return None
        return self.since_ms + self.stale_after_ms


def deadline_of(item: Gate | Wait) -> Deadline:
    """Return the deadline of a gate or a wait."""
    if isinstance(item, Gate):
        return Deadline(
            since_ms=item.requested_at_ms,
            expires_at_ms=item.expires_at_ms,
            action=item.on_expiry,
            remind_every_ms=item.remind_every_ms,
            stale_after_ms=item.stale_after_ms,
            state=item.policy_state,
        )
    return Deadline(
        since_ms=item.registered_at_ms,
        expires_at_ms=item.timeout_at_ms,
        action=item.on_timeout,
        remind_every_ms=item.remind_every_ms,
        stale_after_ms=None,
        state=item.policy_state,
    )


def next_look_at_ms(item: Gate | Wait) -> int | None:
    """Return when time has something to do with an open gate or wait, if it ever has."""
    moments = [deadline_of(item).next_at_ms()]
    if isinstance(item, Wait):
        moments.append(item.due_at_ms)
    return min((moment for moment in moments if moment is not None), default=None)


def escalated(item: Gate | Wait, *, now_ms: int) -> PolicyState:
    """Return the state after the one escalation."""
    return msgspec.structs.replace(
        item.policy_state,
        escalated_at_ms=now_ms,
        escalated_to=item.escalate_to.strip() or UNASSIGNED,
    )


def reminded(item: Gate | Wait, *, now_ms: int) -> PolicyState:
    """Return the state after one more reminder."""
    state, expires_at_ms = item.policy_state, deadline_of(item).expires_at_ms
    return msgspec.structs.replace(
        state,
        reminder_count=state.reminder_count + 1,
        last_reminded_at_ms=now_ms,
        expired_reminder=expires_at_ms is not None and expires_at_ms <= now_ms,
    )


def is_late(item: Gate | Wait, *, now_ms: int) -> bool:
    """Say whether nothing but the expiry counts any more."""
    at_ms = deadline_of(item).expires_at_ms
    ends = deadline_of(item).action in (Step.CANCEL, Step.RESUME)
    return ends and at_ms is not None and at_ms <= now_ms
