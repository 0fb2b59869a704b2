"""What an engine looks after now and then, in bounded queries and ordinary commands."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from tandem.domain.errors import EngineError
from tandem.ports.clock import Clock

SWEEP_MS = 1_000
SWEEP_LIMIT = 100
"""So many rows one part looks at in one turn."""

Part = Callable[[], Awaitable[object]]
P = TypeVar("P", bound=Callable[..., object])


def named(parts: Sequence[P]) -> dict[str, P]:
    """Return methods by their names, in their order."""
    return {getattr(part, "__name__", "").lstrip("_"): part for part in parts}


class Sweeps:
    """Turns through the parts of one engine, one after the other, until it stops.

    What a part cannot do now (the store is away, a process does not die) is tried again with the
    next turn; two engines that sweep at once do no harm.
    """

    def __init__(
        self, parts: Sequence[Part], *, clock: Clock, complain: Callable[[str], None]
    ) -> None:
        self.parts: Mapping[str, Part] = named(parts)
        """What is looked after, by its name, in its order."""
        self._clock = clock
        self._complain = complain
        self._failing: set[str] = set()
        self.failures: dict[str, int] = {}
        """How often each part failed, by its name."""

    async def run(self, is_stopping: Callable[[], bool]) -> None:
        """Sweep once a second until the engine stops."""
        while not is_stopping():
            for name, part in self.parts.items():
                await self._try(name, part)
            await self._clock.sleep(SWEEP_MS)

    async def _try(self, name: str, part: Part) -> None:
        try:
            await part()
        except EngineError as error:
            self._failed(name, error)
        else:
            self._failing.discard(name)

    def _failed(self, name: str, error: EngineError) -> None:
        """Count it, and say it once for each time that it begins to fail."""
        self.failures[name] = self.failures.get(name, 0) + 1
        if name not in self._failing:
            self._failing.add(name)
            self._complain(f"the sweep could not {name.replace('_', ' ')}: {error}; trying again")
