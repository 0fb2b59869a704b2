"""`tandem automations run` on a server: start a run there, and follow it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import click

from tandem.adapters.cli import exits, given, text
from tandem.adapters.cli.drive import Look, tell_dry_run
from tandem.adapters.cli.following import follow
from tandem.adapters.cli.given import Decisions
from tandem.adapters.cli.remote_desk import RemoteDesk
from tandem.adapters.cli.server_options import ask
from tandem.adapters.cli.tools import Tools
from tandem.domain.execution import ExecutionProfile
from tandem.domain.json import JsonValue


class Order(NamedTuple):
    """A run that is asked for."""

    automation_id: str
    pairs: Sequence[str]
    inputs_json: str | None
    profile: ExecutionProfile | None


def run(tools: Tools, order: Order, look: Look, *, detach: bool, dry_run: bool) -> int:
    """Start a run, and follow it to its rest unless it is to be left alone."""

    async def start(desk: object) -> int:
        assert isinstance(desk, RemoteDesk)
        inputs: Mapping[str, JsonValue] = {}
        if order.pairs or order.inputs_json:
            _, definition = await desk.automation(order.automation_id)
            inputs = given.read_inputs(definition, order.pairs, order.inputs_json)
        if dry_run:
            told = await desk.dry_run(order.automation_id, inputs, profile=order.profile)
            return tell_dry_run(told, look)
        started = await desk.run_now(order.automation_id, inputs, profile=order.profile)
        if not detach:
            return await follow(desk, started.run_id, look, Decisions())
        if look is Look.JSON:
            row = {"run_id": started.run_id, "status": started.status}
            text.print_json({"type": "result", **row, "detached": True}, indent=0)
        else:
            click.echo(started.run_id)
        return exits.COMPLETED

    return ask(tools, start)
