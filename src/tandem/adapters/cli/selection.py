"""Which runs a command is for: one that is named, or all that a filter finds."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from tandem.adapters.cli.server_options import server_options

if TYPE_CHECKING:
    from tandem.ports.store import RunFilter

LOOKED_AT_MAX: Final = 100_000
_SPANS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}

# The same words as `RunState`, which is not imported for a help text; a test compares them.
STATES: Final = (
    "queued",
    "running",
    "pausing",
    "paused",
    "awaiting_approval",
    "completed",
    "blocked",
    "failed",
    "cancelled",
)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a person chose. `run` is None for a command to many; `node` is empty without one."""

    run: str | None
    node: str
    states: tuple[str, ...]
    automation: str | None
    older_than_ms: int | None
    dry_run: bool
    limit: int
    cursor: int | None
    as_json: bool

    def filter(self, usual: tuple[str, ...]) -> RunFilter:
        """Return the filter; `usual` are the states for which the command is meant."""
        from tandem.domain.ids import LOCAL_TENANT, AutomationId
        from tandem.domain.lifecycle import RunState
        from tandem.ports.store import RunFilter

        return RunFilter(
            tenant=LOCAL_TENANT,
            statuses=tuple(RunState(state) for state in self.states or usual),
            automation_id=AutomationId(self.automation) if self.automation else None,
            before_no=self.cursor,
            limit=self.limit,
        )


def selects(*, node: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command `[RUN]` (and `NODE`) and the options of a filter; it takes a `Selection`."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        def chosen(names: tuple[str, ...], **given: Any) -> Any:
            picked = {name: given.pop(name) for name in _OPTIONS}
            return function(selection=_selection(names, node=node, **picked), **given)

        chosen.__doc__ = function.__doc__
        chosen.__name__ = function.__name__
        # The options that stand below the decorator in the source.
        chosen.__click_params__ = list(getattr(function, "__click_params__", ()))  # type: ignore[attr-defined] # click's own
        for option in reversed(_decorators("[RUN] NODE" if node else "[RUN]")):
            chosen = option(chosen)
        return chosen

    return decorate


_OPTIONS: Final = (
    "states",
    "automation",
    "older_than",
    "every",
    "dry_run",
    "limit",
    "cursor",
    "as_json",
)


def _decorators(metavar: str) -> list[Callable[..., Any]]:
    return [
        click.argument("names", nargs=-1, metavar=metavar),
        click.option(
            "--status", "states", multiple=True, type=click.Choice(STATES), help="Repeatable."
        ),
        click.option("--automation", metavar="ID", help="Only runs of this automation."),
        click.option(
            "--older-than", metavar="SPAN", help="Created so long ago: 90s, 30m, 12h, 2d."
        ),
        click.option("--all", "every", is_flag=True, help="Every run that the filter finds."),
        click.option("--dry-run", is_flag=True, help="Only say what would happen."),
        click.option(
            "--limit",
            type=click.IntRange(1, LOOKED_AT_MAX),
            default=LOOKED_AT_MAX,
            help="Look at so many runs at most.",
        ),
        click.option(
            "--cursor", type=click.IntRange(1), help="Go on after the run that had this cursor."
        ),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        *server_options(),
    ]


def _selection(
    names: tuple[str, ...],
    *,
    node: bool,
    states: tuple[str, ...],
    automation: str | None,
    older_than: str | None,
    every: bool,
    dry_run: bool,
    limit: int,
    cursor: int | None,
    as_json: bool,
) -> Selection:
    filters = bool(states or automation or older_than or cursor)
    single = len(names) == (2 if node else 1)
    what = "RUN NODE" if node else "RUN"
    if single and (filters or every):
        raise click.UsageError(f"name {what}, or choose runs with --all and a filter; not both")
    if not single and len(names) != (1 if node else 0):
        raise click.UsageError(f"name {what}" + (", or NODE with --all" if node else ""))
    if not single and not every and not dry_run:
        raise click.UsageError(
            f"name {what}, or say --all to mean every run that the filter finds "
            "(--dry-run counts them first)"
        )
    return Selection(
        run=names[0] if single else None,
        node=names[-1] if node else "",
        states=states,
        automation=automation,
        older_than_ms=None if older_than is None else _span_ms(older_than),
        dry_run=dry_run,
        limit=limit,
        cursor=cursor,
        as_json=as_json,
    )


def _span_ms(text: str) -> int:
    found = re.fullmatch(r"(\d+)\s*([smhdw])", text.strip())
    if found is None:
        raise click.UsageError(f"--older-than {text!r}: write a number and s, m, h, d or w, as 2d")
    return int(found[1]) * _SPANS[found[2]]
