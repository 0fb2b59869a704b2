"""A dry run: it is recorded, nothing is executed, and it says what would have happened (T02)."""

from collections.abc import Sequence

import msgspec

from tandem.domain.errors import Problem
from tandem.domain.graph import Plan
from tandem.domain.json import JsonObject
from tandem.domain.outline import OutlinedNode, outline
from tandem.domain.run import Run
from tandem.domain.start_check import check_activation, check_workspace
from tandem.engine.runnable import unrunnable
from tandem.ports.workspace import WorkspaceFiles


class DryRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a real run would do, and what would keep it from starting.

    `inputs` have their defaults filled in. `problems` are what this engine cannot run,
    `obstacles` what the start checks would end the run with.
    """

    run: Run
    nodes: Sequence[OutlinedNode]
    inputs: JsonObject
    problems: Sequence[Problem]
    obstacles: Sequence[str]

    @property
    def can_run(self) -> bool:
        """Whether nothing that is known now stands in the way."""
        return not self.problems and not self.obstacles


def tell(run: Run, plan: Plan, files: WorkspaceFiles, *, has_agents: bool = False) -> DryRun:
    """Say what a real run like this dry one would do."""
    automation = plan.automation
    found = [check_activation(automation)]
    if run.workspace:
        state = files.state_of(run.workspace)
        found.append(check_workspace(run.workspace, run.automation_id, state))
    return DryRun(
        run=run,
        nodes=outline(plan),
        inputs=run.inputs,
        problems=unrunnable(automation, has_agents=has_agents),
        obstacles=[obstacle.detail for obstacle in found if obstacle is not None],
    )
