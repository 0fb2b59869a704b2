"""`tandem schedule`: when automations fire."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tandem.adapters.cli.server_options import ask, on_server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tandem.adapters.cli.desk import Desk
    from tandem.adapters.cli.tools import Tools
    from tandem.domain.schedule import Schedule
    from tandem.domain.stored_automation import StoredAutomation

FIRINGS_MAX: Final = 1_000


@click.group()
def schedule() -> None:
    """Look at when automations start runs by themselves."""


@schedule.command()
@click.argument("what", metavar="FILE|AUTOMATION")
@click.option("--limit", type=click.IntRange(1, FIRINGS_MAX), default=10, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@on_server
@click.pass_obj
def preview(tools: Tools, what: str, limit: int, as_json: bool) -> None:
    """Show when FILE would fire if it were saved now, or when AUTOMATION fires next."""
    import time

    from tandem.adapters.cli import text
    from tandem.domain.timetable import next_firings

    if Path(what).is_file():
        found = tools.load_automation(Path(what)).schedule
        instants: Sequence[int] = next_firings(
            found, after_ms=int(time.time() * 1_000), limit=limit
        )
    else:
        found, instants = _stored(tools, what, limit)
    shown = firings_shown(found, instants)
    if as_json:
        text.print_json(shown)
    elif shown:
        text.print_table([{**row, "at_ms": str(row["at_ms"])} for row in shown])
    else:
        text.note("it does not fire by itself")


def _stored(tools: Tools, automation_id: str, limit: int) -> tuple[Schedule, Sequence[int]]:
    from tandem.domain.firing import schedule_of, upcoming

    async def read(desk: Desk) -> StoredAutomation:
        row, _ = await desk.automation(automation_id)
        # With it comes until when its schedule was looked at.
        return (await desk.firings(row, limit=1))[0]

    row = ask(tools, read, acts=True)
    return schedule_of(row), upcoming(row, limit=limit)


def firings_shown(found: Schedule, instants: Sequence[int]) -> list[dict[str, Any]]:
    """Return firings as rows, with a note where the clocks are set in between."""
    from tandem.domain.timetable import zone_of

    zone = zone_of(found)
    rows: list[dict[str, Any]] = []
    before: datetime | None = None
    for instant_ms in instants:
        moment = datetime.fromtimestamp(instant_ms / 1_000, zone)
        note = ""
        if before is not None and before.utcoffset() != moment.utcoffset():
            note = f"clocks go from {before:%z} to {moment:%z} before it"
        rows.append(
            {
                "at_ms": instant_ms,
                "local": moment.isoformat(timespec="seconds"),
                "weekday": f"{moment:%a}",
                "note": note,
            }
        )
        before = moment
    return rows
