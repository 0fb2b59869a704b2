"""`tandem scheduler`: what the scheduler has done and has to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tandem.adapters.cli.tools import Tools


@click.group()
def scheduler() -> None:
    """Look at the scheduler: what runs, what waits and why."""


@scheduler.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def metrics(tools: Tools, as_json: bool) -> None:
    """Count active and waiting runs, admissions and completions, and tell how long runs waited."""
    import time

    from tandem.adapters.cli import text
    from tandem.engine.reasons import scheduler_metrics

    settings = tools.read_settings()
    store = tools.open_store(settings)
    try:
        now_ms = time.time_ns() // 1_000_000
        found = scheduler_metrics(store, tools.open_host(settings), now_ms=now_ms)
    finally:
        store.close()
    if as_json:
        text.print_json(text.plain(found))
        return
    waiting = sorted(found.queued_runs_by_reason.items())
    rows = [
        ("active runs", str(found.active_runs)),
        *((f"queued, {reason}", str(count)) for reason, count in waiting),
        ("admitted", str(found.admitted_total)),
        ("completed", str(found.completed_total)),
        ("average wait", text.span(found.avg_wait_ms)),
        ("95% waited at most", text.span(found.p95_wait_ms)),
    ]
    text.print_table([{"metric": name, "value": value} for name, value in rows])
