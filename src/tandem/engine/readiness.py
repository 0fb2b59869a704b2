"""Whether an engine can take work now, for those who send it some."""

import msgspec

from tandem.domain.errors import EngineError
from tandem.engine.engine import Engine


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """What has to hold; nothing here says why, so it may be told to anybody."""

    engine: bool
    """It was entered and is not about to stop."""
    lease: bool
    """Its lease was renewed in time, so the store took a write lately."""
    store: bool
    """The store answers now."""

    @property
    def is_ready(self) -> bool:
        """Whether all of it holds."""
        return self.engine and self.lease and self.store


def look(engine: Engine) -> Readiness:
    """Look at an engine. It reads one small table and writes nothing."""
    try:
        engine.store.list_engines()
    except EngineError:
        can_read = False
    else:
        can_read = True
    return Readiness(
        engine=engine.is_driving,
        lease=engine.is_driving and engine.lease_left_ms > 0,
        store=can_read,
    )
