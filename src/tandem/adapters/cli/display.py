"""What is shown while runs are driven, when it is not the live view: lines, JSON, or nothing."""

from collections.abc import Callable
from typing import Protocol

import click

from tandem.adapters.cli import text
from tandem.adapters.cli.references import short_id
from tandem.domain.ids import RunId
from tandem.domain.lifecycle import RunEvent
from tandem.domain.run import Gate, LifecycleEvent
from tandem.domain.view import RunView


class Display(Protocol):
    """Shows runs while they are driven. Called on the loop only; never waits."""

    asks: bool
    """Whether a person can be asked here."""
    answered: Callable[[], None]
    """Called when a person has typed an answer; set by who wants to know."""

    def happened(self, run_id: RunId, event: LifecycleEvent) -> None:
        """Show a lifecycle event, in order, each once."""
        ...

    def said(self, run_id: RunId, node_id: str, kind: str, words: str) -> None:
        """Show what a body wrote."""
        ...

    def show(self, view: RunView) -> None:
        """Show the present state of a run."""
        ...

    def note(self, words: str) -> None:
        """Say something beside the events."""
        ...

    def answer(self, gate: Gate) -> tuple[str, str] | None:
        """Return the decision and the reason that a person typed for this gate, if one did."""
        ...

    def restore(self) -> None:
        """Give the terminal back as it was; the program ends right after."""
        ...


def _ignore() -> None:
    """Nobody wants to know."""


class Quiet:
    """Shows nothing but notes."""

    asks = False

    def __init__(self) -> None:
        self.answered: Callable[[], None] = _ignore

    def happened(self, run_id: RunId, event: LifecycleEvent) -> None:
        """See `Display.happened`."""

    def said(self, run_id: RunId, node_id: str, kind: str, words: str) -> None:
        """See `Display.said`."""

    def show(self, view: RunView) -> None:
        """See `Display.show`."""

    def note(self, words: str) -> None:
        """See `Display.note`."""
        text.note(words)

    def answer(self, gate: Gate) -> tuple[str, str] | None:
        """See `Display.answer`."""
        return None

    def restore(self) -> None:
        """See `Display.restore`."""


class Lines(Quiet):
    """One plain line for each event; with `named` it says of which run."""

    def __init__(self, *, named: bool = False) -> None:
        super().__init__()
        self._named = named

    def happened(self, run_id: RunId, event: LifecycleEvent) -> None:
        """See `Display.happened`."""
        name = f"{short_id(run_id)}  " if self._named else ""
        click.echo(name + event_line(event))


class JsonLines(Quiet):
    """One JSON object for each event."""

    def happened(self, run_id: RunId, event: LifecycleEvent) -> None:
        """See `Display.happened`."""
        text.print_json({"type": "event", "run_id": run_id, **text.plain(event)}, indent=0)


def event_line(event: LifecycleEvent) -> str:
    """Return an event as one line: `12:01:05 node_started  collect  attempt 1`."""
    parts = [f"{text.clock(event.recorded_at_ms)} {event.event.value}"]
    if event.node_id is not None:
        parts.append(text.one_line(event.node_id))
    if event.attempt is not None:
        parts.append(f"attempt {event.attempt}")
    decision = event.metadata.get("decision")
    if event.event is RunEvent.GATE_DECIDED and decision is not None:
        parts.append(text.one_line(str(decision)))
    due_at_ms = event.metadata.get("due_at_ms")
    if isinstance(due_at_ms, int):
        parts.append(f"due {text.clock(due_at_ms)}")
    if event.reason:
        parts.append(text.one_line(event.reason, width=160))
    return "  ".join(parts)
