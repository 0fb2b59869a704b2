"""`tandem gates`: what waits for a person, and what the person says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tandem.adapters.cli.server_options import ask, on_server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tandem.adapters.cli.desk import Desk
    from tandem.adapters.cli.tools import Tools
    from tandem.domain.run import Gate, Run
    from tandem.domain.view import RunView


@click.group()
def gates() -> None:
    """See and decide the gates at which runs wait."""


@gates.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@on_server
@click.pass_obj
def list_(tools: Tools, as_json: bool) -> None:
    """List the open gates, oldest first, with what follows when nobody decides."""
    from tandem.adapters.cli import text
    from tandem.adapters.cli.references import short_id
    from tandem.domain.gate_record import on_expiry_words

    found = ask(tools, lambda desk: desk.list_gates())
    if as_json:
        text.print_json([text.plain(gate) for gate in found])
        return
    text.print_table(
        [
            {
                "run": short_id(item.run_id),
                "automation": text.one_line(item.automation_id, width=30),
                "node": text.one_line(item.gate.node_id, width=30),
                "decisions": text.one_line(", ".join(item.gate.decisions)),
                "by": text.one_line(item.started_by, width=20),
                "since": text.moment(item.gate.requested_at_ms),
                "due": text.moment(item.gate.expires_at_ms),
                "then": text.one_line(on_expiry_words(item.gate), width=30),
                "note": _note(item.gate),
                "asks": text.one_line(item.gate.instructions or item.gate.title, width=60),
            }
            for item in found
        ]
    )
    if not found:
        text.note("no gate is open")


def _note(gate: Gate) -> str:
    """Return what time has done to the gate so far."""
    state = gate.policy_state
    words = ["stale"] if state.stale_at_ms is not None else []
    words += [f"escalated to {state.escalated_to}"] if state.escalated_at_ms is not None else []
    words += [f"reminded {state.reminder_count}x"] if state.reminder_count else []
    return ", ".join(words)


@gates.command("show")
@click.argument("run")
@click.option("--node", metavar="NODE", help="Only the gates of this node.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@on_server
@click.pass_obj
def show(tools: Tools, run: str, node: str | None, as_json: bool) -> None:
    """Show the gates of RUN: what each asks, who asked, what follows, and what was decided."""
    from tandem.adapters.cli import text
    from tandem.adapters.cli.summary import print_gate
    from tandem.domain.gate_record import decision_record, pending_gate
    from tandem.domain.run import GateStatus

    async def read(desk: Desk) -> tuple[RunView, Sequence[Gate]]:
        return await desk.list_gates_of_run(await desk.find_run_id(run))

    view, found = ask(tools, read)
    tenant = view.run.tenant
    chosen = [gate for gate in found if node in (None, gate.node_id)]
    pending = [
        pending_gate(gate, run_id=view.run.run_id, tenant=tenant, plan=view.plan)
        for gate in chosen
        if gate.status is GateStatus.OPEN
    ]
    if as_json:
        history = [record for gate in chosen if (record := decision_record(gate)) is not None]
        text.print_json({"pending": pending, "gate_history": history})
        return
    for gate in chosen:
        print_gate(gate)
    if not chosen:
        text.note("this run has asked nothing yet")


@gates.command("decide")
@click.argument("run")
@click.argument("decision")
@click.option("--node", metavar="NODE", help="The gate of this node; else the oldest open one.")
@click.option("--gate", metavar="ID", help="The approval request: this asking and no other.")
@click.option("--reason", default="", help="Why; kept with the decision.")
@click.option("--output", metavar="JSON", help="For `done`: the output that the node left.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@on_server
@click.pass_obj
def decide(
    tools: Tools,
    run: str,
    decision: str,
    node: str | None,
    gate: str | None,
    reason: str,
    output: str | None,
    as_json: bool,
) -> None:
    """Decide a gate of RUN: DECISION is one of those that the gate offers."""
    from tandem.adapters.cli import text
    from tandem.adapters.cli.references import short_id
    from tandem.adapters.cli.session import person
    from tandem.domain.command import DecideGate
    from tandem.domain.ids import GateId, NodeId
    from tandem.domain.lifecycle import TERMINAL

    command = DecideGate(
        decision=decision,
        node_id=NodeId(node) if node else None,
        gate_id=GateId(gate) if gate else None,
        reason=reason,
        decided_by=person(),
        output=_checked(output),
    )

    async def act(desk: Desk) -> tuple[Run, bool]:
        return await desk.decide(await desk.find_run_id(run), command)

    row, goes_on = ask(tools, act, acts=True)
    if as_json:
        text.print_json({**text.plain(row), "goes_on": goes_on})
        return
    click.echo(f"decided: {text.one_line(decision)}; run {row.run_id} is {row.status.value}")
    if row.status not in TERMINAL and not goes_on:
        click.echo(f"no engine drives it on; continue with: tandem resume {short_id(row.run_id)}")


def _checked(output: str | None) -> bytes | None:
    if output is None:
        return None
    import json

    try:
        return json.dumps(json.loads(output)).encode()
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"--output is not JSON: {error}") from None
