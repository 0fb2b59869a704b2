"""The commands of `tandem runs` that change a run, or many of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from tandem.adapters.cli import exits
from tandem.adapters.cli.selection import selects
from tandem.adapters.cli.server_options import ask, on_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tandem.adapters.cli.desk import Desk
    from tandem.adapters.cli.selection import Selection
    from tandem.adapters.cli.tools import Tools
    from tandem.domain.command import Command
    from tandem.domain.ids import NodeId, RunId
    from tandem.domain.preview import ResetPreview
    from tandem.domain.run import Run
    from tandem.engine.bulk import BulkResult

    Act = Callable[[Desk, RunId], Awaitable[None]]
    Usual = tuple[str, ...]

_HALTED: Final = ("failed", "blocked")
_LIVE: Final = ("queued", "running", "pausing", "paused", "awaiting_approval")
_ENDED: Final = ("completed", "failed", "blocked", "cancelled")

_reason = click.option("--reason", default="", help="Why; kept with the run.")
_needed_reason = click.option("--reason", required=True, help="Why; kept with the run.")


@click.command()
@selects()
@click.option("--now", is_flag=True, help="Stop what runs instead of letting it end.")
@_reason
@click.pass_obj
def pause(tools: Tools, selection: Selection, now: bool, reason: str) -> int:
    """Hold a run; what runs is let to its end."""
    from tandem.domain.command import Pause

    command = Pause(reason=reason or "paused by operator", now=now)
    return _obey(tools, selection, command, usual=("queued", "running", "awaiting_approval"))


@click.command("resume")
@selects()
@_reason
@click.pass_obj
def unpause(tools: Tools, selection: Selection, reason: str) -> int:
    """Let a paused run go on: an engine takes it up. `tandem resume` drives it here."""
    from tandem.domain.command import Resume

    command = Resume(reason=reason or "resumed by operator")
    return _obey(tools, selection, command, usual=("paused",))


@click.command()
@selects()
@click.option("--tokens", type=click.IntRange(min=0), help="The limit of tokens, all in all.")
@click.option("--cost-usd", type=click.FloatRange(min=0), help="The limit of cost, all in all.")
@click.option("--tool-calls", type=click.IntRange(min=0), help="The limit of calls of tools.")
@click.option("--runtime", metavar="SPAN", help="The limit of runtime: `90m`, or milliseconds.")
@click.option("--no-resume", is_flag=True, help="Leave a run that stopped at its budget paused.")
@_needed_reason
@click.pass_obj
def allow(
    tools: Tools,
    selection: Selection,
    tokens: int | None,
    cost_usd: float | None,
    tool_calls: int | None,
    runtime: str | None,
    no_resume: bool,
    reason: str,
) -> int:
    """Give a run other limits than its automation; one that stopped at its budget goes on."""
    from tandem.adapters.cli.session import person
    from tandem.domain.command import Allow

    command = Allow(
        reason=reason,
        max_total_tokens=tokens,
        max_total_cost_usd=cost_usd,
        max_total_tool_calls=tool_calls,
        max_total_runtime_ms=None if runtime is None else _span_ms("--runtime", runtime),
        resume=not no_resume,
        decided_by=person(),
    )
    return _obey(tools, selection, command, usual=("paused",))


@click.command()
@selects()
@_reason
@click.pass_obj
def cancel(tools: Tools, selection: Selection, reason: str) -> int:
    """End a run for good, and wait until everything that it started is dead."""
    from tandem.domain.command import Cancel

    command = Cancel(reason=reason or "cancelled by operator")
    return _obey(tools, selection, command, usual=(*_LIVE, "blocked"))


@click.command()
@selects()
@_reason
@click.pass_obj
def recover(tools: Tools, selection: Selection, reason: str) -> int:
    """Let a failed or blocked run try again what stopped it."""
    from tandem.domain.command import Recover

    command = Recover(reason=reason or "recovered by operator")
    return _obey(tools, selection, command, usual=_HALTED)


@click.command()
@selects()
@_reason
@click.pass_obj
def redeliver(tools: Tools, selection: Selection, reason: str) -> int:
    """Send out again what a node with outside effects could not deliver; 5 times at most."""
    from tandem.domain.command import Redeliver

    command = Redeliver(reason=reason or "dead letter retried by operator")
    return _obey(tools, selection, command, usual=_HALTED)


@click.command()
@selects(node=True)
@_reason
@click.pass_obj
def retry(tools: Tools, selection: Selection, reason: str) -> int:
    """Let a node and everything after it run again, with new attempts."""
    from tandem.domain.command import RetryNode

    command = RetryNode(node_id=_node(selection), reason=reason)
    return _obey(tools, selection, command, usual=_HALTED)


@click.command()
@selects(node=True)
@_reason
@click.pass_obj
def requeue(tools: Tools, selection: Selection, reason: str) -> int:
    """The same as retry, recorded as a requeueing."""
    from tandem.domain.command import RetryNode

    command = RetryNode(node_id=_node(selection), requeue=True, reason=reason)
    return _obey(tools, selection, command, usual=_HALTED)


@click.command("continue")
@selects(node=True)
@_reason
@click.pass_obj
def continue_(tools: Tools, selection: Selection, reason: str) -> int:
    """Let a blocked node try again, told what its last output missed."""
    from tandem.domain.command import ContinueNode

    command = ContinueNode(node_id=_node(selection), reason=reason or "continued by operator")
    return _obey(tools, selection, command, usual=("blocked",))


@click.command()
@selects(node=True)
@_needed_reason
@click.pass_obj
def skip(tools: Tools, selection: Selection, reason: str) -> int:
    """Count a node as completed without running it; what follows goes on."""
    from tandem.adapters.cli.session import person
    from tandem.domain.command import Skip

    command = Skip(node_id=_node(selection), reason=reason, decided_by=person())
    return _obey(tools, selection, command, usual=(*_HALTED, "paused"))


@click.command("set-output")
@selects(node=True)
@click.option("--output", required=True, metavar="JSON", help="The output; @FILE reads a file.")
@_needed_reason
@click.pass_obj
def set_output(tools: Tools, selection: Selection, output: str, reason: str) -> int:
    """Complete a node with this output; what was made from an earlier one runs again."""
    from tandem.adapters.cli.session import person
    from tandem.domain.command import SetOutput
    from tandem.domain.json import encode

    value = _json_of("--output", output)
    command = SetOutput(
        node_id=_node(selection), output=encode(value), reason=reason, decided_by=person()
    )

    async def act(desk: Desk, run_id: RunId) -> None:
        await desk.set_output(run_id, command.node_id, value, reason=reason)

    return _obey(tools, selection, command, act, usual=(*_HALTED, "paused"))


@click.command()
@selects(node=True)
@_reason
@click.option(
    "--as", "disposition", required=True, help="accepted, rejected, re_ran_strict, unmarked."
)
@click.pass_obj
def dispose(tools: Tools, selection: Selection, disposition: str, reason: str) -> int:
    """Keep what you think of the output of a node; nothing moves."""
    from tandem.adapters.cli.session import person
    from tandem.domain.command import Dispose

    command = Dispose(
        node_id=_node(selection), disposition=disposition, reason=reason, decided_by=person()
    )
    return _obey(tools, selection, command, usual=_ENDED)


@click.command()
@selects(node=True)
@click.option("--prompt", help="What the agent is told; @FILE reads a file.")
@click.option("--template", "template_id", metavar="ID", help="The template of the node's agent.")
@click.option("--model", metavar="PROVIDER/MODEL", help="The model of the node's agent.")
@click.option(
    "--input", "pairs", multiple=True, metavar="NAME=JSON", help="Another value for an input."
)
@click.option("--action", metavar="JSON", help="The whole action; @FILE reads a file.")
@click.option(
    "--save", is_flag=True, help="Make the edit the stored automation's next version, too."
)
@_reason
@click.pass_obj
def repair(
    tools: Tools,
    selection: Selection,
    prompt: str | None,
    template_id: str | None,
    model: str | None,
    pairs: tuple[str, ...],
    action: str | None,
    save: bool,
    reason: str,
) -> int:
    """Change a node for this run, or with --save for good; it and what follows run again."""
    from tandem.adapters.cli.session import person
    from tandem.domain.command import Repair

    command = Repair(
        node_id=_node(selection),
        prompt=None if prompt is None else _text_of(prompt),
        template_id=template_id,
        model_policy=None if model is None else _model_policy(model),
        inputs=dict(map(_pair, pairs)) if pairs else None,
        action=None if action is None else _object_of("--action", action),
        save=save,
        reason=reason or "repaired by operator",
        decided_by=person(),
    )
    return _obey(tools, selection, command, usual=_HALTED)


@click.command()
@selects(node=True)
@click.option(
    "--input", "pairs", multiple=True, metavar="NAME=JSON", help="Another value for an input."
)
@click.option("--ask-again", is_flag=True, help="Ask for approvals again that were given.")
@_reason
@click.pass_obj
def fork(
    tools: Tools, selection: Selection, pairs: tuple[str, ...], ask_again: bool, reason: str
) -> int:
    """Start a run that takes over what a run has done and goes its own way from NODE on."""
    from tandem.adapters.cli import text

    inputs = dict(map(_pair, pairs))
    forks: list[dict[str, Any]] = []

    async def act(desk: Desk, run_id: RunId) -> None:
        made = await desk.fork(
            run_id, _node(selection), inputs=inputs, asks_again=ask_again, reason=reason
        )
        forks.append(text.plain(made))

    async def judge(desk: Desk, run_id: RunId) -> None:
        from tandem.domain.command import NoteFork
        from tandem.domain.ids import RunId

        await desk.judge(run_id, NoteFork(fork=RunId("dry-run"), node_id=_node(selection)))

    def tell(_row: Run | None) -> int:
        made = forks[0]
        if selection.as_json:
            text.print_json(made)
        else:
            click.echo(made["run_id"])
            text.note(f"forked from {made['forked_from']} at node `{made['forked_from_node']}`")
        return exits.COMPLETED

    return _operate(tools, selection, act, judge, tell, usual=_ENDED)


@click.command()
@selects()
@click.option("--yes", is_flag=True, help="Really delete.")
@click.pass_obj
def delete(tools: Tools, selection: Selection, yes: bool) -> int:
    """Delete ended runs, and the artifacts that only they had."""
    from tandem.adapters.cli import text

    if not yes and not selection.dry_run:
        raise click.UsageError("what is deleted is gone; say --yes (--dry-run only counts)")
    removed: list[int] = []

    async def act(desk: Desk, run_id: RunId) -> None:
        removed.append(await desk.delete(run_id))

    async def judge(desk: Desk, run_id: RunId) -> None:
        from tandem.domain.deletion import refuse_deletion

        row = await desk.find_run(run_id)
        if row is not None:
            refuse_deletion(row)

    def tell(_row: Run | None) -> int:
        if selection.as_json:
            text.print_json({"deleted": True, "artifacts_removed": sum(removed)})
        else:
            click.echo(f"deleted, with {text.count(sum(removed), 'artifact')}")
        return exits.COMPLETED

    return _operate(tools, selection, act, judge, tell, usual=_ENDED)


@click.command()
@click.argument("run")
@click.argument("action", type=click.Choice(["recover", "repair", "retry", "rework"]))
@click.argument("node", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@on_server
@click.pass_obj
def preview(tools: Tools, run: str, action: str, node: str | None, as_json: bool) -> None:
    """Say what an action on RUN would undo; nothing is written. NODE is for all but recover."""
    from tandem.domain.command import DecideGate, Recover, Repair, RetryNode
    from tandem.domain.ids import NodeId

    node_id = NodeId(node or "")
    commands: dict[str, Command] = {
        "recover": Recover(),
        "repair": Repair(node_id=node_id),
        "retry": RetryNode(node_id=node_id),
        "rework": DecideGate(decision="rework", node_id=node_id or None),
    }
    _preview(tools, run, commands[action], as_json=as_json)


# How it is done


def _obey(
    tools: Tools, selection: Selection, command: Command, act: Act | None = None, *, usual: Usual
) -> int:
    """Execute a command on what was selected; return the exit code. `act` does it instead."""

    async def execute(desk: Desk, run_id: RunId) -> None:
        await desk.execute(run_id, command)

    async def judge(desk: Desk, run_id: RunId) -> None:
        await desk.judge(run_id, command)

    if selection.dry_run and selection.run is not None:
        _preview(tools, selection.run, command, as_json=selection.as_json)
        return exits.COMPLETED
    return _operate(tools, selection, act or execute, judge, _teller(selection), usual=usual)


def _teller(selection: Selection) -> Callable[[Run | None], int]:
    from tandem.adapters.cli import text

    def tell(row: Run | None) -> int:
        if row is None:
            return exits.COMPLETED
        if selection.as_json:
            text.print_json(text.plain(row))
        else:
            pending = "; processes of it are still being ended" if row.cleanup else ""
            click.echo(f"run {row.run_id} is {row.status.value}{pending}")
        return exits.WAITING if row.cleanup else exits.COMPLETED

    return tell


def _operate(
    tools: Tools,
    selection: Selection,
    act: Act,
    judge: Act,
    tell: Callable[[Run | None], int],
    *,
    usual: Usual,
) -> int:
    if selection.run is not None:
        return ask(tools, lambda desk: _one(desk, selection, act, judge, tell), acts=True)
    return ask(tools, lambda desk: _many(desk, selection, act, judge, usual=usual), acts=True)


async def _one(
    desk: Desk,
    selection: Selection,
    act: Act,
    judge: Act,
    tell: Callable[[Run | None], int],
) -> int:
    from tandem.adapters.cli import text
    from tandem.adapters.cli.references import short_id
    from tandem.domain.errors import NothingToDo

    run_id = await desk.find_run_id(selection.run or "")
    if selection.dry_run:
        await judge(desk, run_id)
        click.echo(f"run {run_id}: it would be done")
        return exits.COMPLETED
    try:
        await act(desk, run_id)
    except NothingToDo as nothing:
        row = await desk.find_run(run_id)
        if selection.as_json:
            text.print_json({**text.plain(row), "done": False, nothing.code: True})
        else:
            click.echo(str(nothing))
        return exits.COMPLETED
    row = await desk.cleaned(run_id)
    code = tell(row)
    is_queued = row is not None and row.status.value == "queued"
    if is_queued and not selection.as_json and not desk.is_remote:
        text.note(f"an engine takes it up; to go on here: tandem resume {short_id(run_id)}")
    return code


async def _many(desk: Desk, selection: Selection, act: Act, judge: Act, *, usual: Usual) -> int:
    import time

    from tandem.adapters.cli import text

    before_ms = None
    if selection.older_than_ms is not None:
        before_ms = time.time_ns() // 1_000_000 - selection.older_than_ms
    done = refused = 0

    async def on_run(run: Run) -> None:
        await (judge if selection.dry_run else act)(desk, run.run_id)

    results = desk.each(selection.filter(usual), on_run, created_before_ms=before_ms)
    async for result in results:
        done, refused = done + result.done, refused + (not result.done)
        _tell_result(result, selection)
    if selection.as_json:
        summary = {"type": "result", "dry_run": selection.dry_run, "done": done, "refused": refused}
        text.print_json(summary, indent=0)
    else:
        word = "would be done" if selection.dry_run else "done"
        click.echo(f"{text.count(done + refused, 'run')}: {done} {word}, {refused} refused")
    return exits.REFUSED if refused else exits.COMPLETED


def _tell_result(result: BulkResult, selection: Selection) -> None:
    from tandem.adapters.cli import text

    if selection.as_json:
        text.print_json({"type": "run", **text.plain(result)}, indent=0)
    elif not result.done:
        click.echo(f"{result.run_id}: {text.one_line(result.message)} [{result.code}]")
    elif not selection.dry_run:
        click.echo(f"{result.run_id}: {text.one_line(result.message) or 'done'}")


def _preview(tools: Tools, name: str, command: Command, *, as_json: bool) -> None:
    from tandem.adapters.cli import text

    async def read(desk: Desk) -> ResetPreview:
        return await desk.preview(await desk.find_run_id(name), command)

    found = ask(tools, read, acts=True)
    if as_json:
        text.print_json(text.plain(found))
        return
    if found.refusal is not None:
        click.echo(f"now refused: {found.refusal.message} [{found.refusal.code}]")
    else:
        click.echo(f"the run would be {found.status_after}")
    lines = {
        "run again": found.reset_nodes,
        "outputs superseded": found.superseded_outputs,
        "files superseded": found.cleared_outputs,
        "artifacts superseded": found.artifacts,
        "outside effects that may repeat": found.effects,
        "effects on the workspace that may repeat": found.effects_in_workspace,
        "gates asked again": found.gates_asked_again,
        "waits that begin anew": found.waits_again,
    }
    for title, names in lines.items():
        if names:
            click.echo(f"{title}: {', '.join(map(text.one_line, names))}")


def _node(selection: Selection) -> NodeId:
    from tandem.domain.ids import NodeId

    return NodeId(selection.node)


def _text_of(given: str) -> str:
    from tandem.adapters.cli.given import read_value

    return read_value(given)


def _json_of(option: str, given: str) -> Any:
    import json

    try:
        return json.loads(_text_of(given))
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{option} is not JSON: {error}") from None


def _object_of(option: str, given: str) -> dict[str, Any]:
    value = _json_of(option, given)
    if not isinstance(value, dict):
        raise click.UsageError(f"{option} must be an object")
    return value


def _span_ms(option: str, given: str) -> int:
    from pydantic_core import PydanticCustomError

    from tandem.domain.duration import parse_duration_ms

    if given.strip().isdecimal():
        return int(given)
    try:
        return int(str(parse_duration_ms(given)))
    except PydanticCustomError as error:
        raise click.UsageError(f"{option}: {error.message()}") from None


def _pair(pair: str) -> tuple[str, Any]:
    """Return name and value of `NAME=VALUE`; what is no JSON is a text."""
    import json

    name, equals, given = pair.partition("=")
    if not equals or not name.strip():
        raise click.UsageError(f"--input {pair!r} is not name=value")
    content = _text_of(given)
    try:
        return name.strip(), json.loads(content)
    except (ValueError, RecursionError):
        return name.strip(), content


def _model_policy(model: str) -> dict[str, Any]:
    provider, slash, name = model.partition("/")
    if not slash or not provider or not name:
        raise click.UsageError(f"--model {model!r} is not PROVIDER/MODEL")
    return {"default_model": {"provider_id": provider, "model_id": name}}


COMMANDS: Final = (
    pause,
    unpause,
    allow,
    cancel,
    recover,
    redeliver,
    retry,
    requeue,
    continue_,
    skip,
    set_output,
    dispose,
    repair,
    fork,
    delete,
    preview,
)
