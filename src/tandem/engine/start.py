"""The checks before the first node of a claimed run, with what they look up in the world."""

from tandem.domain.errors import EngineError
from tandem.domain.start_check import (
    Obstacle,
    check_activation,
    check_workspace,
    cleanup_failed,
    is_first_start,
    own_leftovers,
)
from tandem.domain.view import RunView
from tandem.ports.workspace import WorkspaceFiles


def find_obstacle(view: RunView, files: WorkspaceFiles) -> Obstacle | None:
    """Return why the run cannot start, in the order of run-lifecycle T22 to T24.

    At the first start of a run, declared outputs in the run's own folder are removed.
    """
    run, automation = view.run, view.plan.automation
    obstacle = check_activation(automation)
    if obstacle is not None or not run.workspace:
        return obstacle
    obstacle = check_workspace(run.workspace, run.automation_id, files.state_of(run.workspace))
    if obstacle is not None or not is_first_start(view):
        return obstacle
    try:
        for path in own_leftovers(automation, run.run_id):
            files.remove_file(run.workspace, path)
    except EngineError as error:
        return cleanup_failed(str(error))
    return None
