"""The port to the machine that an engine lives on: who is alive, and waking each other."""

from collections.abc import Callable
from typing import Protocol

from tandem.domain.ids import EngineId
from tandem.ports.store import EngineRow


class Host(Protocol):
    """One engine's presence on its host."""

    def enter(self, engine_id: EngineId, wake: Callable[[], None]) -> EngineRow:
        """Take the lock that dies with this process and listen; `wake` is called on the loop.

        The lease of the returned row is 0; the engine fills it in.
        """
        ...

    def leave(self) -> None:
        """Stop listening and let the lock go; twice is harmless."""
        ...

    def can_see(self, engine: EngineRow) -> bool:
        """Say whether the lock of that engine can be seen here, so that no lease is needed."""
        ...

    def is_dead(self, engine: EngineRow, *, now_ms: int) -> bool:
        """Say whether that engine is provably gone: its lock is free, or its lease has run out.

        The lock decides where it can be seen; the lease only where it cannot.
        """
        ...

    def wake_others(self) -> None:
        """Tell the other engines of this host that there may be work; best effort."""
        ...
