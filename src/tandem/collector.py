"""How Python's collector of garbage is set in the processes that are ours.

Nearly all that an engine makes is freed by counting references, and what a start imports stays.
To look for cycles among it every 700 objects takes a tenth of the time of *many* and of a short
command, and their end another tenth.
"""

import gc
from typing import Final

YOUNG_MAX: Final = 20_000
"""So many objects are made before the collector looks at them."""


def collect_rarely() -> None:
    """Set the collector for a process that does nothing but run an engine, or a command."""
    gc.set_threshold(YOUNG_MAX)


def end_soon() -> None:
    """Spare the end of a process the search for what goes with it anyway."""
    gc.freeze()
