"""`tandem backlog`: tasks that nodes put up for agents."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tandem.adapters.cli.tools import Tools
    from tandem.domain.backlog import Backlog
    from tandem.domain.ids import RunId
    from tandem.domain.run import Run
    from tandem.engine.backlog import Backlogs, TaskResult

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
@click.pass_obj
def list_(tools: Tools, run: str, as_json: bool) -> None:
    """Show the tasks of RUN."""
    import asyncio

    from tandem.adapters.cli import text
    from tandem.adapters.cli.references import find_run_id
    from tandem.domain.backlog import blackboard
    from tandem.domain.ids import LOCAL_TENANT

    async def read() -> tuple[Backlog, Run]:
        async with tools.open_engine(
            tools.read_settings(), drives=False, on_problem=text.note
        ) as parts:
            run_id = find_run_id(parts.store, run)
            found = await parts.engine.backlogs.read(run_id)
            row = (await parts.store.load(run_id, tenant=LOCAL_TENANT)).run
            return found, row

    found, row = asyncio.run(read())
    for problem in found.problems:
        text.note(problem)
    if as_json:
        shown = blackboard(found, automation_id=row.automation_id)
        text.print_json(shown)
    elif found.tasks:
        text.print_table(
            [
                {
                    "task": text.one_line(task.task_id, width=60),
                    "status": task.status.value,
                    "agent": text.one_line(task.lease_owner, width=20),
                    "title": text.one_line(task.task.title, width=40),
                }
                for task in found.tasks
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
@click.pass_obj
def claim(
    tools: Tools, run: str, task: str, agent: str, lease_ms: int, reason: str, as_json: bool
) -> None:
    """Have TASK for a span of 5 to 300 seconds."""
    _ask(
        tools,
        run,
        lambda kept, run_id: kept.claim(
            run_id, task, agent_id=agent, lease_ms=lease_ms, reason=reason
        ),
        as_json=as_json,
    )


@backlog.command()
@_run
@_task
@_reason
@_json
@click.pass_obj
def requeue(tools: Tools, run: str, task: str, reason: str, as_json: bool) -> None:
    """Give TASK back, whoever has it."""
    _ask(
        tools,
        run,
        lambda kept, run_id: kept.requeue(run_id, task, reason=reason),
        as_json=as_json,
    )


@backlog.command()
@_run
@_task
@click.option("--agent", default="", help="Who has it.")
@click.option("--token", default="", help="What the claim returned.")
@_reason
@_json
@click.pass_obj
def complete(
    tools: Tools, run: str, task: str, agent: str, token: str, reason: str, as_json: bool
) -> None:
    """Say that TASK, which is claimed, is done."""
    _ask(
        tools,
        run,
        lambda kept, run_id: kept.complete(
            run_id, task, agent_id=agent, lease_token=token, reason=reason
        ),
        as_json=as_json,
    )


def _ask(
    tools: Tools,
    run: str,
    ask: Callable[[Backlogs, RunId], Awaitable[TaskResult]],
    *,
    as_json: bool,
) -> None:
    import asyncio

    from tandem.adapters.cli import text
    from tandem.adapters.cli.references import find_run_id
    from tandem.domain.backlog import task_document

    async def asked() -> TaskResult:
        async with tools.open_engine(
            tools.read_settings(), drives=False, on_problem=text.note
        ) as parts:
            return await ask(parts.engine.backlogs, find_run_id(parts.store, run))

    result = asyncio.run(asked())
    if as_json:
        text.print_json(
            task_document(
                result.task,
                automation_id=result.run.automation_id,
            )
        )
        return
    task = result.task
    whom = f" by {text.one_line(task.lease_owner)}" if task.lease_owner else ""
    token = f", token {task.lease_token}" if task.lease_token else ""
    click.echo(f"{task.task_id}: {task.status.value}{whom}{token}")
