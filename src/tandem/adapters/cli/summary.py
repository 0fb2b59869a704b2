"""The story of a run, printed for a person."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from tandem.adapters.cli import text
from tandem.adapters.cli.story import Story, budget_of, explain, holder_of
from tandem.domain.budget import BudgetKind
from tandem.domain.gate_record import decision_record, on_expiry_words
from tandem.domain.lifecycle import NodeState
from tandem.domain.reading import SKIPPED
from tandem.domain.run import Gate, GateStatus, NodeRun, Run
from tandem.domain.standing import Reason
from tandem.domain.view import RunView
from tandem.engine.dry_run import DryRun
from tandem.engine.run_rows import ForkRow

_ARTIFACTS_MAX: Final = 20
_NODES_MAX: Final = 40
NODES_SHOWN_MAX: Final = 500
"""How many nodes `runs show` prints."""


def print_summary(story: Story) -> None:
    """Print how a run was left: state, answers, outputs, files, where status.json lies."""
    run = story.run
    click.echo()
    print_nodes(story, nodes_max=_NODES_MAX)
    click.echo(f"\n{text.one_line(run.name or run.automation_id)}  {run.run_id}")
    print_explanation(story)
    print_usage(story.view, story.now_ms)
    print_outputs(story)
    print_artifacts(story)
    print_status_file(story)


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


def print_status_file(story: Story) -> None:
    """Print where the status file lies, when it lies here."""
    if story.status_file:
        _print_field("status", _near(Path(story.status_file)))


def _near(path: Path) -> str:
    """Return the path as seen from the current directory when it lies below it."""
    try:
        here = Path.cwd()
    except FileNotFoundError:  # whoever started this process stands in a folder that is gone
        return str(path)
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


def print_usage(view: RunView, now_ms: int) -> None:
    """Print what a run has used, and of each budget what is left."""
    usage = view.run.usage
    said = [
        f"{usage.total_tokens:,} tokens" if usage.total_tokens else "",
        f"{usage.cost_usd:.4f} USD" if usage.cost_nano_usd else "",
        text.count(usage.tool_calls, "tool call") if usage.tool_calls else "",
    ]
    _print_field("used", ", ".join(filter(None, said)))
    for one in budget_of(view, now_ms):
        used, limit, left = map(_amount_of(one.budget), (one.used, one.limit, one.left))
        _print_field("budget", f"{one.budget}: {used} of {limit}, {left} left")


def _amount_of(budget: BudgetKind) -> Callable[[float], str]:
    """Return how amounts of a budget are written."""
    match budget:
        case BudgetKind.RUNTIME:
            return lambda amount: text.span(int(amount))
        case BudgetKind.COST:
            return lambda amount: f"{amount:.4f} USD"
        case _:
            return lambda amount: f"{int(amount):,}"


def print_lineage(run: Run, forks: Sequence[ForkRow]) -> None:
    """Print where a fork comes from, and what was forked from this run."""
    if run.forked_from is not None:
        _print_field("from", f"{run.forked_from} at node `{run.forked_from_node}`")
    for fork in forks:
        _print_field("fork", f"{fork.run_id} at node `{fork.node_id}`")


def print_explanation(story: Story) -> None:
    """Print what happened, where, why, and what to do next."""
    found = explain(story)
    _print_field("what", found.what)
    _print_field("where", found.where)
    _print_field("why", found.why)
    for command in found.next:
        _print_field("next", command)


def print_reason(reason: Reason) -> None:
    """Print since when a run waits, and what would free it."""
    _print_field("reason", reason.kind.value)
    _print_field("since", text.moment(reason.since_ms))
    _print_field("until", text.moment(reason.until_ms) if reason.until_ms is not None else "")
    _print_field("freed", reason.freed_by)


def print_outputs(story: Story) -> None:
    """Print the outputs of the last nodes, short."""
    for node_id, value in story.outputs.items():
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


def _state(node: NodeRun) -> str:
    """Return the state, and how a node was completed that did not simply complete itself."""
    by_hand = node.handling.by_hand if node.handling is not None else ""
    if by_hand:
        return f"{node.state.value} ({by_hand.replace('_', ' ')})"
    reading = node.reading
    if node.state is not NodeState.COMPLETED or reading is None:
        return node.state.value
    if reading.status == SKIPPED:
        return SKIPPED
    return "completed, with warnings" if reading.warnings else node.state.value


def _row(story: Story, number: int) -> Mapping[str, str]:
    plan_node, node = story.view.plan.nodes[number], story.view.node(number)
    failure = node.failure.reason if node.failure is not None else ""
    warnings = node.reading.warnings if node.reading is not None else ()
    return {
        "node": text.one_line(plan_node.node_id),
        "kind": plan_node.kind.value,
        "state": _state(node),
        "attempts": str(node.attempts or ""),
        "duration": duration(node, story.now_ms),
        "error": text.one_line(failure or "; ".join(node.repair or warnings), width=80),
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


def print_gate(gate: Gate) -> None:
    """Print one asking: what it asks, who asked, what follows, or what was decided."""
    click.echo(f"{text.one_line(gate.node_id)}  {gate.gate_id}  ({gate.status.value})")
    _print_field("asks", gate.instructions or gate.title)
    _print_field("offers", ", ".join(gate.decisions))
    by = f" by {gate.requested_by}" if gate.requested_by else ""
    _print_field("asked", text.moment(gate.requested_at_ms) + by)
    if gate.reviewed_artifact is not None:
        shown = gate.reviewed_artifact
        _print_field("about", f"{shown['source_node_id']} {shown['path']} {shown['digest']}")
    if gate.status is GateStatus.OPEN:
        due = text.moment(gate.expires_at_ms)
        _print_field("due", f"{due}, then it {on_expiry_words(gate)}" if due else "never")
        return
    who = f" by {gate.decided_by}" if gate.decided_by else ""
    words = gate.decision or "taken back"
    why = f": {gate.reason}" if gate.reason else ""
    _print_field("decided", f"{text.moment(gate.decided_at_ms)} {words}{who}{why}")


def print_decisions(story: Story) -> None:
    """Print what was decided at the gates of the run, oldest first."""
    for gate in story.gates:
        record = decision_record(gate)
        if record is None:
            continue
        who = f" by {record['decided_by']}" if record["decided_by"] else ""
        why = f": {record['reason']}" if record["reason"] else ""
        when = text.moment(record["decided_at_ms"])
        _print_field("decided", f"{when} gate `{gate.node_id}` {gate.decision}{who}{why}")


def waits_for(view: RunView, node_no: int, now_ms: int) -> str:
    """Return what a waiting node waits for, and for how long at most."""
    for wait in view.waits.values():
        if wait.node_no != node_no:
            continue
        if wait.due_at_ms is not None:
            return f"wakes in {text.span(max(wait.due_at_ms - now_ms, 0))}"
        late = wait.timeout_at_ms
        until = f", {text.span(max(late - now_ms, 0))} left" if late is not None else ""
        return f"waits for the {wait.kind.replace('_', ' ')}{until}"
    return ""
