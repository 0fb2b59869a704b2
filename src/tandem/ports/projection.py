"""The port that shows a run outside the store (status.json). Losing a projection loses nothing."""

from typing import Protocol

from tandem.domain.view import RunView


class Projection(Protocol):
    """Writes what a run looks like, after the commit, off the hot path."""

    def show(self, view: RunView) -> None:
        """Write the present state of the run; errors are reported, never raised."""
        ...
