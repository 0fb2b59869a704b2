"""The live view of one run on a terminal."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tandem.adapters.cli import text
from tandem.adapters.cli.keyboard import Keyboard
from tandem.adapters.cli.references import short_id
from tandem.adapters.cli.summary import duration, waits_for
from tandem.domain.gates import GATE_ALIASES
from tandem.domain.ids import RunId
from tandem.domain.lifecycle import NodeState
from tandem.domain.run import Gate, LifecycleEvent
from tandem.domain.view import RunView

N = NodeState

_MARKS: Final = {
    N.PENDING: ("·", "dim"),
    N.RUNNING: ("▶", "cyan"),
    N.BACKOFF: ("↻", "yellow"),
    N.GATED: ("?", "bold magenta"),
    N.WAITING: ("◷", "blue"),
    N.COMPLETED: ("✓", "green"),
    N.BLOCKED: ("■", "red"),
    N.FAILED: ("✗", "bold red"),
}
_FIRST: Final = (N.GATED, N.FAILED, N.RUNNING, N.BACKOFF, N.BLOCKED, N.WAITING)
_AROUND_LINES: Final = 10
_NOTES_MAX: Final = 3


class LiveView:
    """Nodes, states, times, attempts, the last line that each said, and the question of a gate."""

    asks = True

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._keyboard = Keyboard(typed=self._draw, entered=self._enter)
        self._said: dict[str, str] = {}
        self._notes: list[str] = []
        self._view: RunView | None = None
        self._gate: Gate | None = None
        self._answer: tuple[str, str] | None = None
        self.answered: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        self._keyboard.__enter__()
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()
        self._keyboard.__exit__(kind, error, trace)

    # Display

    def happened(self, run_id: RunId, event: LifecycleEvent) -> None:
        """See `Display.happened`; the states of the nodes show it."""

    def said(self, run_id: RunId, node_id: str, kind: str, words: str) -> None:
        """See `Display.said`."""
        lines = [line for line in words.splitlines() if line.strip()]
        if lines:
            self._said[node_id] = text.one_line(lines[-1], width=200)

    def show(self, view: RunView) -> None:
        """See `Display.show`."""
        self._view = view
        gates = sorted(view.gates.values(), key=lambda gate: gate.requested_at_ms)
        self._gate = gates[0] if gates else None
        self._draw()

    def note(self, words: str) -> None:
        """See `Display.note`."""
        self._notes = [*self._notes, text.one_line(words)][-_NOTES_MAX:]
        self._draw()

    def answer(self, gate: Gate) -> tuple[str, str] | None:
        """See `Display.answer`."""
        if self._gate is None or gate.gate_id != self._gate.gate_id:
            return None
        answer, self._answer = self._answer, None
        return answer

    def restore(self) -> None:
        """See `Display.restore`."""
        self.__exit__(None, None, None)

    # The picture

    def _draw(self) -> None:
        if self._view is not None:
            self._live.update(self._picture(self._view), refresh=True)

    def _picture(self, view: RunView) -> RenderableType:
        now_ms = time.time_ns() // 1_000_000
        parts: list[RenderableType] = [self._head(view, now_ms), self._table(view, now_ms)]
        if self._gate is not None:
            parts.append(self._question(self._gate))
        parts += [Text(words, style="yellow") for words in self._notes]
        return Group(*parts)

    def _head(self, view: RunView, now_ms: int) -> Text:
        run = view.run
        took = text.span(now_ms - (run.started_at_ms or run.created_at_ms))
        state = "waiting for time" if run.parked else run.status.value.replace("_", " ")
        name = text.one_line(run.name or run.automation_id)
        return Text.assemble(
            (name, "bold"),
            f"  {short_id(run.run_id)}  {state}  {took}  ",
            (f"{run.nodes_completed} of {text.count(run.nodes_total, 'node')}", "dim"),
        )

    def _table(self, view: RunView, now_ms: int) -> RenderableType:
        rows_max = max(self._console.height - _AROUND_LINES, 3)
        chosen = choose_rows(view, rows_max)
        table = Table.grid(padding=(0, 2), expand=False)
        for column in ({"width": 1}, {"no_wrap": True}, {}, {"justify": "right"}, {}):
            table.add_column(overflow="ellipsis", **column)
        for number in chosen:
            table.add_row(*self._row(view, number, now_ms))
        hidden = len(view.plan) - len(chosen)
        return Group(table, Text(f"  and {hidden} more", style="dim")) if hidden else table

    def _row(self, view: RunView, number: int, now_ms: int) -> list[Text]:
        plan_node, node = view.plan.nodes[number], view.node(number)
        mark, style = _MARKS[node.state]
        words = self._said.get(plan_node.node_id, "") if node.state is N.RUNNING else ""
        if node.failure is not None:
            words = text.one_line(node.failure.reason)
        elif node.state is N.BACKOFF and node.due_at_ms is not None:
            words = f"tries again in {text.span(max(node.due_at_ms - now_ms, 0))}"
        elif node.state is N.WAITING:
            words = waits_for(view, number, now_ms)
        state = node.state.value + (f" (attempt {node.attempts})" if node.attempts > 1 else "")
        return [
            Text(mark, style=style),
            Text(text.one_line(plan_node.node_id, width=40), no_wrap=True),
            Text(state, style=style, no_wrap=True),
            Text(duration(node, now_ms), no_wrap=True),
            Text(words, style="dim", no_wrap=True, overflow="ellipsis"),
        ]

    def _question(self, gate: Gate) -> RenderableType:
        lines = [Text(), Text(text.one_line(gate.title), style="bold magenta")]
        if gate.instructions and gate.instructions != gate.title:
            lines += [Text(line) for line in text.clean(gate.instructions).splitlines()[:4]]
        offered = ", ".join(gate.decisions)
        lines.append(
            Text.assemble(
                f"{text.one_line(gate.node_id)}: {offered} (and why) > ", self._keyboard.line, "▏"
            )
        )
        return Group(*lines)

    # The keyboard

    def _enter(self, line: str) -> None:
        if self._gate is None:
            return
        word, _, reason = line.partition(" ")
        decision = meant(word, self._gate.decisions)
        if decision is None:
            self.note(f"{word!r} is none of {', '.join(self._gate.decisions)}")
            return
        self._notes.clear()
        self._answer = (decision, reason.strip())
        self.answered()


def meant(word: str, decisions: Sequence[str]) -> str | None:
    """Return the decision that a typed word means: itself, an alias, or a beginning of only one."""
    low = word.lower()
    if low in decisions or low in GATE_ALIASES or low == "cancel":
        return low
    starts = [name for name in decisions if name.lower().startswith(low)]
    return starts[0] if len(starts) == 1 else None


def choose_rows(view: RunView, rows_max: int) -> list[int]:
    """Return the nodes to show, in the order of the document: what needs an eye first."""
    numbers = range(len(view.plan))
    if len(numbers) <= rows_max:
        return list(numbers)

    def weight(number: int) -> tuple[int, int]:
        node = view.node(number)
        if node.state in _FIRST:
            return (_FIRST.index(node.state), number)
        if node.state is N.COMPLETED:
            return (len(_FIRST), -(node.finished_at_ms or 0))
        return (len(_FIRST) + 1, number)

    return sorted(sorted(numbers, key=weight)[:rows_max])
