"""The story of a run, printed for a person."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from tandem.adapters.cli import text
from tandem.adapters.cli.story import Story, explain, holder_of, last_outputs, status_file
from tandem.domain.lifecycle import NodeState
from tandem.domain.run import NodeRun
from tandem.engine.dry_run import DryRun
from tandem.ports.artifacts import Artifacts
from tandem.settings import Settings

_ARTIFACTS_MAX: Final = 20
_NODES_MAX: Final = 40
NODES_SHOWN_MAX: Final = 500
"""How many nodes `runs show` prints."""


def print_summary(story: Story, artifacts: Artifacts, settings: Settings) -> None:
    """Print how a run was left: state, answers, outputs, files, where status.json lies."""
    run = story.run
    click.echo()
    print_nodes(story, nodes_max=_NODES_MAX)
    click.echo(f"\n{text.one_line(run.name or run.automation_id)}  {run.run_id}")
    print_explanation(story)
    print_outputs(story, artifacts)
    print_artifacts(story)
    print_status_file(story, settings)


def print_dry_run(told: DryRun) -> None:
    """Print what a real run would do: the nodes by stage, then what it would take and miss."""
    run = told.run
    text.print_table(
        [
            {
                "stage": str(node.stage),
                "node": text.one_line(node.node_id),
                "kind": node.kind,
                "after": text.one_line(", ".join(node.depends_on), width=40),
                "effects": node.effects,
                "attempts": str(node.attempts_max),
            }
            for node in told.nodes
        ]
    )
    click.echo(f"\n{text.one_line(run.name or run.automation_id)}  {run.run_id}")
    _print_field("what", "dry run: nothing was executed")
    _print_field("version", run.definition_version)
    _print_field("profile", run.effective_execution_profile.value)
    _print_field("where", run.workspace)
    for name, value in told.inputs.items():
        _print_field("input", f"{name}: {text.short(value)}")
    for obstacle in (*told.obstacles, *map(str, told.problems)):
        _print_field("missing", obstacle)


def print_status_file(story: Story, settings: Settings) -> None:
    """Print where the status file lies."""
    _print_field("status", _near(status_file(story.run, settings)))


def _near(path: Path) -> str:
    """Return the path as seen from the current directory when it lies below it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def print_times(story: Story) -> None:
    """Print when the run began and ended, and which engine has it."""
    run = story.run
    _print_field("created", text.moment(run.created_at_ms))
    if run.finished_at_ms is not None:
        _print_field("ended", text.moment(run.finished_at_ms))
    holder = holder_of(run)
    if holder is not None:
        _print_field("engine", f"{holder} ({story.holder})")


def print_explanation(story: Story) -> None:
    """Print what happened, where, why, and what to do next."""
    found = explain(story)
    _print_field("what", found.what)
    _print_field("where", found.where)
    _print_field("why", found.why)
    for command in found.next:
        _print_field("next", command)


def print_outputs(story: Story, artifacts: Artifacts) -> None:
    """Print the outputs of the last nodes, short."""
    for node_id, value in last_outputs(story, artifacts).items():
        _print_field("output", f"{node_id}: {text.short(value)}")


def print_artifacts(story: Story) -> None:
    """Print the files and large outputs that the run left."""
    latest = {(left.node_no, left.ref.path or left.ref.name): left for left in story.artifacts}
    for left in list(latest.values())[:_ARTIFACTS_MAX]:
        ref = left.ref
        _print_field("file", f"{ref.path or ref.name} ({text.size(ref.size_bytes)}, {ref.digest})")
    if len(latest) > _ARTIFACTS_MAX:
        _print_field("file", f"and {len(latest) - _ARTIFACTS_MAX} more")


def print_nodes(story: Story, *, nodes_max: int) -> None:
    """Print one line for each node: state, attempts, duration, error.

    Of more than `nodes_max` those are shown that did not complete, then the first others.
    """
    numbers = range(len(story.view.plan))
    done = [n for n in numbers if story.view.node(n).state is NodeState.COMPLETED]
    others = sorted(set(numbers) - set(done))
    chosen = sorted([*others, *done][:nodes_max])
    text.print_table([_row(story, number) for number in chosen])
    if len(chosen) < len(numbers):
        click.echo(f"and {len(numbers) - len(chosen)} more; `runs show --json` has them all")


def _row(story: Story, number: int) -> Mapping[str, str]:
    plan_node, node = story.view.plan.nodes[number], story.view.node(number)
    failure = node.failure.reason if node.failure is not None else ""
    return {
        "node": text.one_line(plan_node.node_id),
        "kind": plan_node.kind.value,
        "state": node.state.value,
        "attempts": str(node.attempts or ""),
        "duration": duration(node, story.now_ms),
        "error": text.one_line(failure or "; ".join(node.repair), width=80),
    }


def duration(node: NodeRun, now_ms: int) -> str:
    """Return how long the node took, or has taken until now."""
    if node.started_at_ms is None:
        return ""
    if node.finished_at_ms is None and node.state is NodeState.PENDING:
        return ""
    return text.span((node.finished_at_ms or now_ms) - node.started_at_ms)


def _print_field(name: str, value: str) -> None:
    for index, line in enumerate(text.clean(value).splitlines()):
        click.echo(f"  {name if index == 0 else '':<8}{line}".rstrip())
