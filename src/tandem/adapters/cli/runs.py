"""`tandem runs`: list, show, why, events, output; what changes runs is in `operate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from tandem.adapters.cli import operate
from tandem.adapters.cli.selection import STATES
from tandem.adapters.cli.verify import verify
from tandem.adapters.cli.watching import watch

if TYPE_CHECKING:
    from tandem.adapters.cli.tools import Tools
    from tandem.domain.run import Run

LISTED_MAX: Final = 10_000
FOLLOW_S: Final = 0.2
FORKS_SHOWN_MAX: Final = 20
EVENTS_AT_ONCE: Final = 1_000

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def runs() -> None:
    """Look at runs, hold them, end them. RUN is an id, the beginning of one, or `latest`."""


runs.add_command(verify)
runs.add_command(watch)


@runs.command("list")
@click.option("--status", "states", multiple=True, type=click.Choice(STATES), help="Repeatable.")
@click.option("--automation", metavar="ID", help="Only runs of this automation.")
@click.option("--limit", type=click.IntRange(1, LISTED_MAX), default=50, show_default=True)
@_json
@click.pass_obj
def list_(
    tools: Tools, states: tuple[str, ...], automation: str | None, limit: int, as_json: bool
) -> None:
    """List runs, newest first."""
    from tandem.adapters.cli import text
    from tandem.domain.ids import LOCAL_TENANT, AutomationId
    from tandem.domain.lifecycle import RunState
    from tandem.ports.store import RunFilter

    store = tools.open_store(tools.read_settings())
    try:
        found = store.list_runs(
            RunFilter(
                tenant=LOCAL_TENANT,
                statuses=tuple(RunState(state) for state in states),
                automation_id=AutomationId(automation) if automation else None,
                # The store filters the states of one automation's runs after it has cut them.
                limit=LISTED_MAX if automation and states else limit,
            )
        )[:limit]
    finally:
        store.close()
    if as_json:
        text.print_json([text.plain(run) for run in found])
    elif found:
        text.print_table([_row(run) for run in found])
    else:
        text.note("no runs")


def _row(run: Run) -> dict[str, str]:
    from tandem.adapters.cli import text
    from tandem.adapters.cli.references import short_id

    ended = run.finished_at_ms
    started = run.started_at_ms or run.created_at_ms
    return {
        "run": short_id(run.run_id),
        "automation": text.one_line(run.automation_id, width=30),
        "status": run.status.value,
        "created": text.moment(run.created_at_ms),
        "duration": text.span(ended - started) if ended else "",
        "nodes": f"{run.nodes_completed}/{run.nodes_total}",
        "detail": text.one_line(run.detail, width=60),
    }


@runs.command()
@click.argument("run")
@_json
@click.pass_obj
def show(tools: Tools, run: str, as_json: bool) -> None:
    """Explain a run: what happened, where, why, and what to do next."""
    from tandem.adapters.cli import story, summary, text
    from tandem.adapters.cli.references import find_run_id
    from tandem.domain.ids import LOCAL_TENANT
    from tandem.domain.standing import ReasonKind

    settings = tools.read_settings()
    store = tools.open_store(settings)
    artifacts = tools.open_artifacts(settings)
    try:
        told = story.read_story(store, tools.open_host(settings), find_run_id(store, run))
        forks = store.list_forks(told.run.run_id, tenant=LOCAL_TENANT, limit=FORKS_SHOWN_MAX)
        if as_json:
            found = story.document(told, artifacts, settings)
            text.print_json({**found, "forks": [fork.run_id for fork in forks]})
            return
        row = told.run
        click.echo(f"{text.one_line(row.name or row.automation_id)}  {row.run_id}")
        summary.print_explanation(told)
        if told.reason.kind not in (ReasonKind.RUNNING, ReasonKind.ENDED):
            summary.print_reason(told.reason)
        summary.print_times(told)
        summary.print_usage(told.view, told.now_ms)
        summary.print_decisions(told)
        summary.print_lineage(told.run, forks)
        click.echo()
        summary.print_nodes(told, nodes_max=summary.NODES_SHOWN_MAX)
        click.echo()
        summary.print_outputs(told, artifacts)
        summary.print_artifacts(told)
        summary.print_status_file(told, settings)
    finally:
        store.close()


@runs.command()
@click.argument("run")
@_json
@click.pass_obj
def why(tools: Tools, run: str, as_json: bool) -> None:
    """Say what a run waits for, since when, who holds it, and what would free it."""
    import time

    from tandem.adapters.cli import text
    from tandem.adapters.cli.references import find_run_id, short_id
    from tandem.adapters.cli.story import budget_document
    from tandem.adapters.cli.summary import print_reason, print_usage
    from tandem.domain.ids import LOCAL_TENANT
    from tandem.engine import reasons

    settings = tools.read_settings()
    store = tools.open_store(settings)
    try:
        run_id = find_run_id(store, run)
        now_ms = time.time_ns() // 1_000_000
        host = tools.open_host(settings)
        reason = reasons.why(store, host, run_id, tenant=LOCAL_TENANT, now_ms=now_ms)
        view = store.read(run_id, tenant=LOCAL_TENANT)
    finally:
        store.close()
    if as_json:
        told = {"run_id": run_id, **text.plain(reason), **budget_document(view, now_ms)}
        text.print_json(told)
        return
    click.echo(f"run {short_id(run_id)}: {text.clean(reason.sentence)}")
    print_reason(reason)
    print_usage(view, now_ms)


@runs.command()
@click.argument("run")
@click.option("--after", type=click.IntRange(0), default=0, help="Only events after this number.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the run has ended.")
@_json
@click.pass_obj
def events(tools: Tools, run: str, after: int, follow: bool, as_json: bool) -> None:
    """Print the lifecycle events of a run; `--json` prints one object a line."""
    import time

    from tandem.adapters.cli import display
    from tandem.adapters.cli.references import find_run_id
    from tandem.domain.ids import LOCAL_TENANT
    from tandem.engine.waiting import is_ended

    shown = display.JsonLines() if as_json else display.Lines()
    store = tools.open_store(tools.read_settings())
    try:
        run_id = find_run_id(store, run)
        while True:
            row = store.find_run(run_id, tenant=LOCAL_TENANT)
            found = store.list_events(
                run_id, tenant=LOCAL_TENANT, after_seq=after, limit=EVENTS_AT_ONCE
            )
            for event in found:
                shown.happened(run_id, event)
                after = event.seq
            if len(found) == EVENTS_AT_ONCE:
                continue
            # The row was read first, so all events of an ended run have been seen.
            if not follow or row is None or is_ended(row):
                return
            time.sleep(FOLLOW_S)
    finally:
        store.close()


@runs.command()
@click.argument("run")
@click.argument("node")
@click.pass_obj
def output(tools: Tools, run: str, node: str) -> None:
    """Print the output of a completed node: a text as it is, anything else as JSON."""
    import sys

    from tandem.adapters.cli.references import find_run_id
    from tandem.adapters.cli.story import read_output
    from tandem.adapters.cli.text import clean
    from tandem.domain.errors import NotFound, Refused
    from tandem.domain.ids import LOCAL_TENANT, NodeId
    from tandem.domain.json import decode
    from tandem.domain.lifecycle import NodeState

    settings = tools.read_settings()
    store = tools.open_store(settings)
    try:
        view = store.read(find_run_id(store, run), tenant=LOCAL_TENANT)
    finally:
        store.close()
    plan_node = view.plan.node(NodeId(node))
    if plan_node is None:
        names = ", ".join(n.node_id for n in view.plan.nodes[:20])
        raise NotFound(f"run {view.run.run_id} has no node `{node}`; it has {names}")
    row = view.node(plan_node.node_no)
    if row.state is not NodeState.COMPLETED:
        raise Refused(f"node `{node}` is {row.state.value} and has no output", code="no_output")
    content = read_output(row, tools.open_artifacts(settings))
    value = decode(content)
    raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else content + b"\n"
    if sys.stdout.isatty():
        click.echo(clean(raw.decode("utf-8", "replace")))
    else:
        sys.stdout.buffer.write(raw)


for _command in operate.COMMANDS:
    runs.add_command(_command)
