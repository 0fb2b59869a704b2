"""Everything that the record of a run is made of, read at one moment."""

from collections.abc import Sequence
from typing import Final

import msgspec

from tandem.domain.run import Attempt, Gate, LifecycleEvent
from tandem.domain.session import RunSessions
from tandem.domain.view import RunView

HISTORY_MAX: Final = 1_000
"""So many newest lifecycle events, and so many newest askings, a record shows."""
VERDICTS_MAX: Final = 20
"""So many newest verdicts of each node a record shows."""
CONTENT_BYTES_MAX: Final = 1_048_576
"""Outputs are shown until they have this size together; of the others only the size is told."""


class RunPicture(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Its definition may be unreadable, then `view` holds the row alone.

    `attempts` are in the order of nodes and numbers, `gates` and `events` in that of time, the
    newest `HISTORY_MAX` of each; open gates and waits are in the view. `claim` is the event of the
    claim under which the run is driven, `lease_until_ms` is until when its engine has the right.
    """

    view: RunView
    is_readable: bool = True
    attempts: Sequence[Attempt] = ()
    gates: Sequence[Gate] = ()
    events: Sequence[LifecycleEvent] = ()
    sessions: RunSessions = RunSessions()
    claim: LifecycleEvent | None = None
    lease_until_ms: int | None = None
