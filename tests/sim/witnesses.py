"""Searches begin at a witness: a seed that is known to show what is looked for.

Worlds change with their rules, and then a witness may show nothing any more. The search goes on
over other seeds, so nothing fails, it only takes longer; the end of the test run says which
witness to write down instead.
"""

from collections.abc import Callable

STALE = "stale witness"
"""The property of a test whose witness has to be replaced."""


class Witnesses:
    """Notes for the end of the test run what a search found."""

    def __init__(self, record: Callable[[str, object], None]) -> None:
        self._record = record

    def note(self, name: str, known: object, found: object) -> None:
        """Say what was found, and what was thought to show it."""
        if known != found:
            self._record(STALE, f"{name}: {found} shows it now, {known} does not")
