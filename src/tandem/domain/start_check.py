"""What must hold before the first node of a claimed run starts (run-lifecycle T22 to T24).

Each check that fails ends the run through the table, with its event. What has to be looked up in
the world (directories, files) is looked up by the engine; what it means is said here.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Final

import msgspec

from tandem.domain.automation import Automation
from tandem.domain.free_json import list_at, object_at, text_of
from tandem.domain.ids import RunId
from tandem.domain.json import JsonObject
from tandem.domain.node import Node
from tandem.domain.view import RunView

ARTIFACTS: Final = ".tandem/artifacts/"
"""Where a document declares the artifacts of its runs."""


class FailedCheck(StrEnum):
    """Which check failed."""

    ACTIVATION = "activation"
    WORKSPACE = "workspace"
    CLEANUP = "cleanup"


class Obstacle(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run cannot start, in words that are shown as they are."""

    check: FailedCheck
    detail: str


class WorkspaceState(StrEnum):
    """What is found where a workspace should be."""

    READY = "ready"
    MISSING = "missing"
    NOT_A_DIRECTORY = "not_a_directory"


def check_activation(automation: Automation) -> Obstacle | None:
    """Return why the plan package of the definition is not ready, if its report says so (T22)."""
    report = object_at(automation.metadata, "plan_package_validation")
    if not report or report.get("ready_for_activation") is True:
        return None
    issues = [object_at(issue) for issue in list_at(report, "issues")]
    blocking = [issue for issue in issues if issue.get("blocking") is True]
    message, code = "it has not been validated", "not_ready"
    for issue in (*blocking, *issues)[:1]:
        message, code = text_of(issue.get("message")), text_of(issue.get("code"))
    return Obstacle(
        check=FailedCheck.ACTIVATION,
        detail=f"plan package not ready for activation: {message} ({code})",
    )


def check_workspace(workspace: str, automation_id: str, found: WorkspaceState) -> Obstacle | None:
    """Return what is wrong with the workspace of a run (T23)."""
    where = f"workspace_root `{workspace}` for automation `{automation_id}`"
    match found:
        case WorkspaceState.MISSING:
            return Obstacle(check=FailedCheck.WORKSPACE, detail=f"{where} does not exist")
        case WorkspaceState.NOT_A_DIRECTORY:
            return Obstacle(check=FailedCheck.WORKSPACE, detail=f"{where} is not a directory")
        case _:
            return None


def cleanup_failed(reason: str) -> Obstacle:
    """Return the obstacle of leftovers that could not be removed (T24)."""
    return Obstacle(check=FailedCheck.CLEANUP, detail=reason)


def is_first_start(view: RunView) -> bool:
    """Say whether nothing of the run has happened yet: no attempt, no output, no decision."""
    return not view.nodes and not view.gates and not view.waits


def own_leftovers(automation: Automation, run_id: RunId) -> tuple[str, ...]:
    """Return the declared outputs that can only be this run's, as paths in its workspace.

    `.tandem/artifacts/X` means `X` in the folder of the run. Every other path may hold what another
    run has just produced, so it is none of this run's to remove (W-38).
    """
    own = f".tandem/runs/{run_id}/"
    found: list[str] = []
    for path in _declared(automation):
        plain = path.replace("{run_id}", run_id).removeprefix("./")
        if plain.startswith(ARTIFACTS):
            plain = f"{own}artifacts/{plain.removeprefix(ARTIFACTS)}"
        if plain.startswith(own) and ".." not in plain.split("/"):
            found.append(plain)
    return tuple(dict.fromkeys(found))


def _declared(automation: Automation) -> Iterator[str]:
    yield from automation.output_targets
    for node in automation.nodes:
        if node.output_contract is not None:
            yield from node.output_contract.required_files
        yield from _declared_in_metadata(node)


def _declared_in_metadata(node: Node) -> Iterator[str]:
    metadata = object_at(node.metadata)
    builder = object_at(metadata, "builder")
    artifacts: list[JsonObject] = [object_at(metadata, "artifact")]
    artifacts += [object_at(item) for item in list_at(metadata, "artifacts")]
    named = [artifact.get("path") for artifact in artifacts]
    named += [builder.get("output_path")]
    named += [*list_at(builder, "output_files"), *list_at(builder, "must_write_files")]
    for path in named:
        if isinstance(path, str) and path.strip():
            yield path.strip()
