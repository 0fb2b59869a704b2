"""`tandem backlog`: tasks that nodes put up for agents, here or on a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tandem.adapters.cli.server_options import ask, on_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tandem.adapters.cli.desk import Desk
    from tandem.adapters.cli.tools import Tools
    from tandem.domain.ids import RunId

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_reason = click.option("--reason", default="", help="Why; kept with what happened.")
_run = click.argument("run", metavar="RUN")
_task = click.argument("task", metavar="TASK")


@click.group()
def backlog() -> None:
    """Claim, give back and complete tasks that nodes of a run put up."""


@backlog.command("list")
@_run
@_json
@on_server
@click.pass_obj
def list_(tools: Tools, run: str, as_json: bool) -> None:
    """Show the tasks of RUN."""
    from tandem.adapters.cli import text

    async def read(desk: Desk) -> tuple[Mapping[str, Any], list[str]]:
        return await desk.backlog(await desk.find_run_id(run))

    board, problems = ask(tools, read, acts=True)
    for problem in problems:
        text.note(problem)
    if as_json:
        text.print_json(board)
    elif board["tasks"]:
        text.print_table(
            [
                {
                    "task": text.one_line(task["id"], width=60),
                    "status": task["status"],
                    "agent": text.one_line(task["lease_owner"] or "", width=20),
                    "title": text.one_line(task["payload"]["title"], width=40),
                }
                for task in board["tasks"]
            ]
        )
    else:
        text.note("the run has no tasks")


@backlog.command()
@_run
@_task
@click.option("--agent", default="", help="Who has it; else the task says it.")
@click.option("--lease-ms", type=int, default=30_000, show_default=True, metavar="MS")
@_reason
@_json
@on_server
@click.pass_obj
def claim(
    tools: Tools, run: str, task: str, agent: str, lease_ms: int, reason: str, as_json: bool
) -> None:
    """Have TASK for a span of 5 to 300 seconds."""
    _ask(
        tools,
        run,
        lambda desk, run_id: desk.claim_task(
            run_id, task, agent_id=agent, lease_ms=lease_ms, reason=reason
        ),
        as_json=as_json,
    )


@backlog.command()
@_run
@_task
@_reason
@_json
@on_server
@click.pass_obj
def requeue(tools: Tools, run: str, task: str, reason: str, as_json: bool) -> None:
    """Give TASK back, whoever has it."""
    _ask(
        tools,
        run,
        lambda desk, run_id: desk.requeue_task(run_id, task, reason=reason),
        as_json=as_json,
    )


@backlog.command()
@_run
@_task
@click.option("--agent", default="", help="Who has it.")
@click.option("--lease-token", default="", help="What the claim returned.")
@_reason
@_json
@on_server
@click.pass_obj
def complete(
    tools: Tools, run: str, task: str, agent: str, lease_token: str, reason: str, as_json: bool
) -> None:
    """Say that TASK, which is claimed, is done."""
    _ask(
        tools,
        run,
        lambda desk, run_id: desk.complete_task(
            run_id, task, agent_id=agent, lease_token=lease_token, reason=reason
        ),
        as_json=as_json,
    )


def _ask(
    tools: Tools,
    run: str,
    do: Callable[[Desk, RunId], Awaitable[Mapping[str, Any]]],
    *,
    as_json: bool,
) -> None:
    from tandem.adapters.cli import text

    async def asked(desk: Desk) -> Mapping[str, Any]:
        return await do(desk, await desk.find_run_id(run))

    task = ask(tools, asked, acts=True)
    if as_json:
        text.print_json(task)
        return
    whom = f" by {text.one_line(task['lease_owner'])}" if task["lease_owner"] else ""
    token = f", token {text.one_line(task['lease_token'])}" if task["lease_token"] else ""
    click.echo(f"{text.one_line(task['id'])}: {text.one_line(task['status'])}{whom}{token}")
