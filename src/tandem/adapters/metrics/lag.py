"""How much too late the event loop comes to what is due."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

EVERY_S: Final = 0.5


class LagWatch:
    """Tells `late(seconds)` twice a second while it is entered. It has no task and no thread."""

    def __init__(self, late: Callable[[float], None]) -> None:
        self._late = late
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._set(loop)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + EVERY_S
        self._timer = loop.call_at(due, self._look, loop, due)

    def _look(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._late(max(loop.time() - due, 0.0))
        self._set(loop)
