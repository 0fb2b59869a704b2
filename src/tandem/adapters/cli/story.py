"""What there is to say about a run: what happened, where, why, and what to do next."""

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from tandem.adapters.cli import text
from tandem.adapters.cli.references import short_id
from tandem.adapters.cli.tools import LocalStore, Tools
from tandem.domain.artifact import NodeArtifact
from tandem.domain.budget import Standing, standings, used_by
from tandem.domain.gate_record import decision_record, pending_gate
from tandem.domain.ids import LOCAL_TENANT, EngineId, RunId
from tandem.domain.json import JsonObject, JsonValue
from tandem.domain.lifecycle import TERMINAL, NodeState, RunState
from tandem.domain.overrun import allow_command, budget_for, is_raised
from tandem.domain.run import Attempt, Gate, Run
from tandem.domain.standing import Reason, ReasonKind
from tandem.domain.verdict import verdict_of
from tandem.domain.view import RunView
from tandem.engine import reasons
from tandem.engine.run_rows import ForkRow, RunRows, last_outputs, list_forks
from tandem.ports.host import Host
from tandem.settings import Settings

_DETAIL_LINES_MAX: Final = 12

S, N = RunState, NodeState
_RESUMABLE: Final = frozenset(
    {ReasonKind.NO_ENGINE, ReasonKind.NOTHING, ReasonKind.RETRY_BACKOFF, ReasonKind.CAPACITY}
)
"""Reasons for which another engine would help: the one that `tandem resume` is."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Four answers; `next` are commands to type, or sentences when there is none."""

    what: str
    where: str = ""
    why: str = ""
    next: tuple[str, ...] = ()


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """One consistent picture of a run. `holder` is `alive`, `dead`, or empty when none has it.

    `status_file` is empty where the run is on a server, and `beside` is what commands need at their
    end to be asked of that server.
    """

    view: RunView
    attempts: Sequence[Attempt]
    artifacts: Sequence[NodeArtifact]
    gates: Sequence[Gate]
    """Every asking of the run, open or over, oldest first."""
    holder: str
    now_ms: int
    reason: Reason
    forks: Sequence[ForkRow]
    outputs: Mapping[str, JsonValue]
    """What the last nodes left."""
    status_file: str = ""
    is_remote: bool = False
    beside: str = ""

    @property
    def run(self) -> Run:
        """The row of the run."""
        return self.view.run

    @property
    def duration_ms(self) -> int:
        """How long the run took, or has taken until now."""
        run = self.run
        return (run.finished_at_ms or self.now_ms) - (run.started_at_ms or run.created_at_ms)


def read_story(
    tools: Tools, settings: Settings, store: LocalStore, run_id: RunId, *, self_id: str = ""
) -> Story:
    """Read everything about a run; `self_id` is an engine of this process, which leaves soon.

    Raises:
        NotFound: there is no such run.
    """
    now_ms = time.time_ns() // 1_000_000
    host = tools.open_host(settings)
    view = store.read(run_id, tenant=LOCAL_TENANT)
    return Story(
        view=view,
        attempts=store.list_attempts(run_id, tenant=LOCAL_TENANT),
        artifacts=_files(store.list_artifacts(run_id, tenant=LOCAL_TENANT)),
        gates=store.list_gates_of_run(run_id, tenant=LOCAL_TENANT),
        holder=holder_state(store, host, view.run, self_id=self_id),
        now_ms=now_ms,
        reason=reasons.why(
            store, host, run_id, tenant=LOCAL_TENANT, now_ms=now_ms, leaving=self_id
        ),
        forks=list_forks(store, run_id, tenant=LOCAL_TENANT),
        outputs=last_outputs(view, tools.open_artifacts(settings), tenant=LOCAL_TENANT),
        status_file=str(status_file(view.run, settings)),
    )


def story_of_rows(rows: RunRows, *, beside: str) -> Story:
    """Return the story of a run on a server, whose engines look after their dead by themselves."""
    is_dead = rows.reason.kind is ReasonKind.ENGINE_DEAD
    return Story(
        view=rows.view(),
        attempts=rows.attempts,
        artifacts=_files(rows.artifacts),
        gates=rows.gates,
        holder="" if holder_of(rows.run) is None else "dead" if is_dead else "alive",
        now_ms=rows.now_ms,
        reason=rows.reason,
        forks=rows.forks,
        outputs=rows.outputs,
        is_remote=True,
        beside=beside,
    )


def _files(found: Sequence[NodeArtifact]) -> list[NodeArtifact]:
    """Return what is no output that was put aside: that is shown as an output."""
    return [left for left in found if left.ref.path]


def holder_state(store: LocalStore, host: Host, run: Run, *, self_id: str = "") -> str:
    """Say whether the engine that drives the run, or has it for itself, lives."""
    holder = holder_of(run)
    if holder is None:
        return ""
    if holder == self_id:
        return "dead"  # it is about to leave
    now_ms = time.time_ns() // 1_000_000
    row = next((e for e in store.list_engines() if e.engine_id == holder), None)
    return "dead" if row is None or host.is_dead(row, now_ms=now_ms) else "alive"


def holder_of(run: Run) -> EngineId | None:
    """Return the engine that drives the run, has to clean it up, or has it for itself."""
    return run.engine_id or run.cleanup or (None if run.status in TERMINAL else run.owner)


def explain(story: Story) -> Explanation:
    """Return the four answers for the state that the run is in."""
    run = story.run
    name = short_id(run.run_id)
    resume = _go_on(story)
    done = f"{run.nodes_completed} of {text.count(run.nodes_total, 'node')} completed"
    # A server's engines take up what nobody has.
    alone = story.holder != "alive" and not story.is_remote
    match run.status:
        case S.COMPLETED:
            return Explanation(what=f"completed in {text.span(story.duration_ms)}; {done}")
        case S.FAILED | S.BLOCKED:
            return _explain_halted(story, done, resume)
        case S.CANCELLED:
            pending = "; processes of it are still being ended" if run.cleanup else ""
            return Explanation(
                what=f"cancelled; {done}{pending}",
                why=run.stop_reason,
                next=(resume,) if run.cleanup and alone else (),
            )
        case S.RUNNING | S.PAUSING:
            return _explain_driven(story, done, resume)
        case S.QUEUED if story.reason.kind is ReasonKind.AUTOMATION_PAUSED:
            return _explain_held(story, done)
        case S.QUEUED:
            return Explanation(
                what=f"queued; {done}",
                why=f"{story.reason.kind.value}: {story.reason.sentence}",
                next=(resume,) if alone and story.reason.kind in _RESUMABLE else (),
            )
        case S.AWAITING_APPROVAL:
            return _explain_gates(story, done, resume)
        case S.PAUSED:
            if run.parked:
                waits = story.view.waits.values()
                signals = [w for w in waits if w.signal_key]
                due = f", due {text.moment(run.due_at_ms)}" if run.due_at_ms is not None else ""
                resolve = [
                    shlex.join(["tandem", "waits", "resolve", name, "--node", w.node_id])
                    + story.beside
                    for w in signals
                ]
                return Explanation(
                    what=f"waiting for {'a signal' if signals else 'time'}; {done}",
                    where=", ".join(f"node `{w.node_id}`" for w in waits),
                    why=f"{run.parked}{due}",
                    next=(*resolve, resume) if alone else tuple(resolve),
                )
            if story.reason.kind is ReasonKind.BUDGET:
                return _explain_budget(story, done, resume)
            return Explanation(
                what=f"paused; {done}",
                why=run.pause_reason,
                next=(resume, f"tandem runs cancel {name}{story.beside}"),
            )


def _go_on(story: Story) -> str:
    """Return the command that lets the run go on: driven here, or by an engine of the server."""
    name = short_id(story.run.run_id)
    if not story.is_remote:
        return f"tandem resume {name}"
    verb = "resume" if story.run.status is S.PAUSED else "recover"
    return f"tandem runs {verb} {name}{story.beside}"


def _explain_held(story: Story, done: str) -> Explanation:
    run, reason = story.run, story.reason
    return Explanation(
        what=f"queued and held; {done}",
        where=run.resource_key,
        why=f"{reason.kind.value}: {reason.sentence}",
        next=(shlex.join(["tandem", "automations", "resume", run.automation_id]) + story.beside,),
    )


def _explain_budget(story: Story, done: str, resume: str) -> Explanation:
    run, name = story.run, short_id(story.run.run_id)
    if is_raised(run, now_ms=story.now_ms):
        return Explanation(what=f"paused; {done}", why=story.reason.sentence, next=(resume,))
    allow = allow_command(run).strip("`").replace(run.run_id, name)
    return Explanation(
        what=f"stopped by its budget; {done}",
        why=run.stop_reason,
        next=(f"{allow}{story.beside}", f"tandem runs cancel {name}{story.beside}"),
    )


def _explain_driven(story: Story, done: str, resume: str) -> Explanation:
    run = story.run
    running = ", ".join(f"`{story.view.plan.nodes[n].node_id}`" for n in sorted(story.view.running))
    where = f"running: {running}" if running else ""
    if story.holder == "alive" or story.is_remote:
        why = run.detail if story.holder == "alive" else story.reason.sentence
        return Explanation(what=f"{run.status.value}; {done}", where=where, why=why)
    return Explanation(
        what=f"interrupted; {done}",
        where=where,
        why=f"engine {run.engine_id} drove it and is gone",
        next=(resume,),
    )


def _explain_gates(story: Story, done: str, resume: str) -> Explanation:
    run, name = story.run, short_id(story.run.run_id)
    gates = sorted(story.view.gates.values(), key=lambda gate: gate.requested_at_ms)
    decide = [_decide_command(name, gate, story.beside) for gate in gates]
    return Explanation(
        what=f"waiting for a decision; {done}",
        where=", ".join(f"gate `{gate.node_id}`" for gate in gates),
        why="; ".join(dict.fromkeys(text.one_line(g.instructions or g.title) for g in gates))
        or run.detail,
        next=tuple(decide) if story.holder == "alive" or story.is_remote else (*decide, resume),
    )


def _decide_command(name: str, gate: Gate, beside: str) -> str:
    """Return a command that can be pasted; what else could be decided follows as a comment."""
    first, *others = gate.decisions
    command = ["tandem", "gates", "decide", name, first, "--node", gate.node_id]
    said = shlex.join(command) + beside
    return said + (f"  # or {', '.join(others)}" if others else "")


def _explain_halted(story: Story, done: str, resume: str) -> Explanation:
    run, view = story.run, story.view
    halted = sorted(view.halted, key=lambda n: (view.node(n).failure is None, n))
    roots = [n for n in halted if view.node(n).failure is not None] or halted
    where = ", ".join(
        f"node `{view.plan.nodes[n].node_id}`, attempt {view.node(n).attempts}"
        if view.node(n).attempts
        else f"node `{view.plan.nodes[n].node_id}`"
        for n in roots
    )
    reasons = [failure_of(story, n) for n in roots]
    return Explanation(
        what=f"{run.status.value} after {text.span(story.duration_ms)}; {done}",
        where=where,
        why="\n".join(filter(None, reasons)) or run.detail,
        next=(resume, f"tandem runs events {short_id(run.run_id)}{story.beside}"),
    )


def failure_of(story: Story, node_no: int) -> str:
    """Return why a node failed: its newest message, and the last lines that the body said."""
    node = story.view.node(node_no)
    newest = [a for a in story.attempts if a.node_no == node_no and a.number == node.attempts]
    message = node.failure.reason if node.failure is not None else ""
    detail = ""
    if newest:
        message = message or newest[0].message
        detail = newest[0].detail
    lines = text.clean(detail).strip().splitlines()[-_DETAIL_LINES_MAX:]
    return "\n".join((text.one_line(message), *(f"  | {line}" for line in lines))).strip()


def status_file(run: Run, settings: Settings) -> Path:
    """Return where the status file of the run lies."""
    folder = Path(run.workspace) if run.workspace else settings.state_dir
    return folder / ".tandem" / "runs" / run.run_id / "status.json"


def document(story: Story) -> dict[str, Any]:
    """Return the whole story as data, for programs."""
    run, view = story.run, story.view
    ids = [node.node_id for node in view.plan.nodes]
    return {
        **text.plain(run),
        "duration_ms": story.duration_ms,
        **budget_document(view, story.now_ms),
        "holder": story.holder or None,
        "explanation": text.plain(explain(story)),
        "reason": text.plain(story.reason),
        "nodes": [
            {
                "node_id": ids[number],
                **{k: v for k, v in text.plain(view.node(number)).items() if k != "output"},
            }
            for number in range(len(ids))
        ],
        "attempts": [
            {"node_id": ids[a.node_no], **text.plain(a), "verdict": _verdict(view, a)}
            for a in story.attempts
        ],
        "gates": [text.plain(gate) for gate in view.gates.values()],
        "awaiting_gate": _awaiting_gate(story),
        "gate_history": [r for gate in story.gates if (r := decision_record(gate)) is not None],
        "waits": [text.plain(wait) for wait in view.waits.values()],
        "artifacts": [
            {"node_id": ids[a.node_no], "attempt": a.attempt, **text.plain(a.ref)}
            for a in story.artifacts
        ],
        "outputs": dict(story.outputs),
        "status_file": story.status_file or None,
    }


def budget_of(view: RunView, now_ms: int) -> tuple[Standing, ...]:
    """Return what a run may use, and what is left of it."""
    return standings(used_by(view.run, now_ms=now_ms), budget_for(view))


def budget_document(view: RunView, now_ms: int) -> dict[str, Any]:
    """Return what a run has used and may use, for programs."""
    used = used_by(view.run, now_ms=now_ms)
    return {
        "prompt_tokens": used.usage.prompt_tokens,
        "completion_tokens": used.usage.completion_tokens,
        "total_tokens": used.usage.total_tokens,
        "estimated_cost_usd": used.usage.cost_usd,
        "tool_calls": used.usage.tool_calls,
        "runtime_ms": used.runtime_ms,
        "budget": [text.plain(standing) for standing in budget_of(view, now_ms)],
    }


def _awaiting_gate(story: Story) -> dict[str, Any] | None:
    """Return the oldest open gate as the wire contract shows it."""
    gates = sorted(story.view.gates.values(), key=lambda g: (g.requested_at_ms, g.gate_id))
    if not gates:
        return None
    run = story.run
    return pending_gate(gates[0], run_id=run.run_id, tenant=run.tenant, plan=story.view.plan)


def _verdict(view: RunView, attempt: Attempt) -> JsonObject | None:
    """Return the verdict on an attempt, None while it runs."""
    if attempt.outcome is None:
        return None
    return verdict_of(view.plan.nodes[attempt.node_no], attempt)


def is_unfinished(run: Run) -> bool:
    """Say whether a `resume` without a name may mean this run."""
    return run.status not in TERMINAL or run.cleanup is not None
