"""One attempt from its inputs to its settled outcome: resolve, run within limits, judge, keep."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Final

import msgspec
from pydantic import ConfigDict, TypeAdapter

from tandem.domain.accounting import Facts
from tandem.domain.action import Action, AgentAction, CommandAction
from tandem.domain.artifact import (
    ArtifactRef,
    CandidateSource,
    FileStamp,
    Freshness,
    NodeArtifact,
    Provenance,
    may_reuse_output,
    reusable,
)
from tandem.domain.command import Probed
from tandem.domain.errors import BudgetReached, EngineError, Refused, StoreUnavailable
from tandem.domain.graph import PlanNode
from tandem.domain.ids import AttemptId, EngineId, NodeId, attempt_id, idempotency_key
from tandem.domain.json import JsonValue, canonical, decode, digest, encode
from tandem.domain.learning import lines_for
from tandem.domain.outcome import (
    Blocked,
    Failed,
    FailureClass,
    NeedsRepair,
    Outcome,
    Stopped,
    Succeeded,
    too_large,
)
from tandem.domain.output_contract import Verification
from tandem.domain.output_status import read_output
from tandem.domain.profile import relax, relax_blocker
from tandem.domain.reading import Reading, Relaxation
from tandem.domain.run import NodeRun
from tandem.domain.settling import Settled
from tandem.domain.start_check import Obstacle
from tandem.domain.template import find_references, resolve
from tandem.domain.time_limits import limits_of
from tandem.domain.view import RunView
from tandem.engine.contract import History, Judged, judge
from tandem.engine.facts import RunFacts
from tandem.engine.meter import AttemptMeter, outcome_of
from tandem.engine.start import find_obstacle
from tandem.ports.artifacts import Artifacts
from tandem.ports.clock import Clock
from tandem.ports.executor import AttemptSpec, Executor, Progress
from tandem.ports.workspace import WorkspaceFiles

_ACTION: TypeAdapter[Action] = TypeAdapter(Action, config=ConfigDict(defer_build=True))
_ANY_JSON: Final = frozenset({"arguments", "json_body"})
"""The fields of actions that hold any JSON; a reference keeps its type there."""
KEEP_RETRY_MS = 1_000
PROBE_MAX_MS = 20_000
"""How long an effects probe may take before a person is asked instead."""
NOT_DONE = 1
"""The exit code with which an effects probe says that the effects did not take place."""


class AttemptRunner:
    """Runs attempts for the drivers of one engine.

    `inline_bytes_max` bounds the output that stays in its row; a larger one becomes an artifact.
    `output_bytes_max` bounds any output. `relaxation_denylist` names what no profile may let pass.
    """

    def __init__(
        self,
        *,
        engine_id: EngineId,
        executor: Executor,
        artifacts: Artifacts,
        files: WorkspaceFiles,
        clock: Clock,
        scratch_root: str,
        list_artifacts: Callable[[int, int], Sequence[NodeArtifact]],
        inline_bytes_max: int,
        output_bytes_max: int,
        relaxation_denylist: Collection[str] = (),
    ) -> None:
        self._engine_id = engine_id
        self._executor = executor
        self._artifacts = artifacts
        self._files = files
        self._clock = clock
        self._scratch_root = scratch_root
        self._list_artifacts = list_artifacts
        self._inline_bytes_max = inline_bytes_max
        self._output_bytes_max = output_bytes_max
        self._relaxation_denylist = frozenset(relaxation_denylist)
        self._templates: dict[tuple[str, int], dict[str, Any] | None] = {}

    def obstacle_to(self, view: RunView) -> Obstacle | None:
        """Return why a claimed run cannot start (see `find_obstacle`)."""
        return find_obstacle(view, self._files)

    async def run(
        self,
        view: RunView,
        plan_node: PlanNode,
        *,
        number: int,
        report: Progress,
        meter: AttemptMeter,
    ) -> Settled:
        """Run one attempt of a node that was started in the store, and settle its outcome."""
        judged = Judged(Stopped(reason=""))
        inputs = ""
        try:
            spec = self._spec(view, plan_node, number, meter)
            contract = plan_node.node.output_contract
            history = await self._history(view, plan_node, number, report)
            if history.may_reuse:
                inputs = self._digest_of_inputs(spec)
                again = self._reuse(view, plan_node, number, history, inputs)
                if again is not None:
                    return again
            outcome = await self._within_limits(spec, plan_node, report, meter)
            judged = Judged(outcome)
            if isinstance(outcome, Succeeded) and contract is not None:
                judged = await judge(
                    outcome,
                    contract,
                    workspace=spec.workspace,
                    files=self._files,
                    verify=partial(self._verify, spec, report),
                    history=history,
                )
        except BudgetReached as refusal:
            judged = Judged(outcome_of(refusal))
        except EngineError as error:
            judged = Judged(Failed(failure_class=FailureClass.MISSING_CONFIG, message=str(error)))
        return await self._settled(view, plan_node, number, judged, report, inputs=inputs)

    # What was left before

    async def _history(
        self, view: RunView, plan_node: PlanNode, number: int, report: Progress
    ) -> History:
        """Return what is known of the node's files before the attempt; often that is nothing."""
        contract = plan_node.node.output_contract
        paths = contract.required_files if contract is not None else ()
        may_reuse = may_reuse_output(plan_node.node.metadata)
        if not paths and not may_reuse:
            return History()
        stamps: dict[str, FileStamp] = {}
        for path in paths:
            with suppress(Refused):  # the contract will say so
                stamp = self._files.stamp(view.run.workspace, path) if view.run.workspace else None
                if stamp is not None:
                    stamps[PurePosixPath(path).as_posix()] = stamp
        return History(
            stamps=stamps,
            # A first attempt has nothing before it, so the ordinary case reads nothing; but a fork
            # begins with what its source left.
            earlier=(
                await self._earlier(view, plan_node, report)
                if number > 1 or view.run.forked_from is not None
                else ()
            ),
            run_started_at_ms=view.run.started_at_ms,
            may_reuse=may_reuse,
        )

    async def _earlier(
        self, view: RunView, plan_node: PlanNode, report: Progress
    ) -> Sequence[NodeArtifact]:
        """Return the registry of a node; a store that is away is waited for."""
        while True:
            try:
                return self._list_artifacts(view.run.run_no, plan_node.node_no)
            except StoreUnavailable as error:
                report("event", f"{error}; trying again every second")
                await self._clock.sleep(KEEP_RETRY_MS)

    def _digest_of_inputs(self, spec: AttemptSpec) -> str:
        """Return the digest of what the node makes its output from.

        What it is told to mend is no part of it: what somebody sent back is never used again, and
        what came after that may be, although its node is told of the rework, too.
        """
        action = spec.action.model_dump(mode="json")
        return digest(canonical([action, spec.inputs]))

    def _reuse(
        self, view: RunView, plan_node: PlanNode, number: int, history: History, inputs: str
    ) -> Settled | None:
        """Return what an earlier attempt left as the outcome of this one, None to run the body.

        Only for nodes that allow it, and only when path, digest, contract and inputs all hold
        (run-lifecycle 5, "Used"; decision 14).
        """
        contract = _digest_of_contract(plan_node)
        chosen = reusable(history.earlier, contract=contract, inputs_digest=inputs)
        files = [left.ref for left in chosen if left.ref.path]
        kept = next((left.ref for left in chosen if not left.ref.path), None)
        if kept is None or plan_node.node.effective_effects == "external":
            return None
        if any(self._files.find_file(view.run.workspace, ref.path) != ref for ref in files):
            return None
        try:
            output = self._artifacts.get(view.run.tenant, kept)
        except EngineError:
            return None
        read = read_output(plan_node.node, Succeeded(output=decode(output)))
        if not isinstance(read.outcome, Succeeded):
            return None
        before = Freshness(current_attempt=False)
        provenance = Provenance(
            accepted_candidate_source=CandidateSource.PREEXISTING_OUTPUT,
            reuse_allowed=True,
            freshness=before,
        )
        return Settled(
            node_no=plan_node.node_no,
            number=number,
            outcome=Succeeded(output=None, artifacts=tuple(files)),
            output=output if len(output) <= self._inline_bytes_max else None,
            output_ref=kept,
            provenance=dict.fromkeys((ref.path for ref in (*files, kept)), provenance),
            contract=contract,
            inputs_digest=inputs,
            reused=True,
            reading=read.reading,
        )

    # What is left now

    async def probe(self, view: RunView, plan_node: PlanNode) -> Probed | None:
        """Ask the `effects_probe` of a node whether its interrupted attempt took place.

        The command gets the environment of the attempt; exit code 0 says done, and its output is
        that of the node; exit code 1 says not done. None when it says neither, says more than an
        output may hold, or cannot be asked.
        """
        argv = plan_node.node.effects_probe
        if argv is None:
            return None
        node = view.node(plan_node.node_no)
        try:
            spec = self._spec(view, plan_node, node.attempts)
            asked = msgspec.structs.replace(
                spec,
                action=CommandAction(argv=list(argv)),
                attempt_id=AttemptId(f"{spec.attempt_id}/probe"),
                scratch=f"{spec.scratch}/probe",
            )
            async with self._clock.deadline(PROBE_MAX_MS):
                outcome = await self._executor.run(asked, _hear_nothing)
        except (EngineError, TimeoutError):
            return None
        if isinstance(outcome, Succeeded):
            return await self._probed(view, plan_node, encode(outcome.output))
        if isinstance(outcome, Failed) and outcome.exit_code == NOT_DONE:
            return Probed(node_no=node.node_no, is_done=False)
        return None

    async def _probed(self, view: RunView, plan_node: PlanNode, output: bytes) -> Probed | None:
        number = plan_node.node_no
        if len(output) <= self._inline_bytes_max:
            return Probed(node_no=number, is_done=True, output=output)
        if len(output) > self._output_bytes_max:
            return None
        ref = await self._keep(view, plan_node, output, _hear_nothing)
        return Probed(node_no=number, is_done=True, output_ref=ref)

    async def _settled(
        self,
        view: RunView,
        plan_node: PlanNode,
        number: int,
        judged: Judged,
        report: Progress,
        *,
        inputs: str,
    ) -> Settled:
        outcome = judged.outcome
        output: bytes | None = None
        ref: ArtifactRef | None = None
        reading: Reading | None = None
        if isinstance(outcome, Succeeded) and plan_node.reads_output:
            read = read_output(plan_node.node, outcome)
            outcome, reading = read.outcome, read.reading
        relaxation = self._relaxation(view, outcome)
        if isinstance(outcome, Succeeded | NeedsRepair | Blocked):
            content = encode(outcome.output)
            if len(content) <= self._inline_bytes_max:
                output = content
                if inputs and isinstance(outcome, Succeeded):
                    ref = await self._keep(view, plan_node, content, report)
            elif len(content) > self._output_bytes_max:
                what = f"the output of node `{plan_node.node_id}`"
                outcome = too_large(what, len(content), self._output_bytes_max)
            else:
                ref = await self._keep(view, plan_node, content, report)
        return Settled(
            node_no=plan_node.node_no,
            number=number,
            outcome=outcome,
            output=output,
            output_ref=ref,
            provenance=judged.provenance,
            contract=_digest_of_contract(plan_node),
            inputs_digest=inputs,
            reading=reading,
            relaxation=relaxation,
        )

    def _relaxation(self, view: RunView, outcome: Outcome) -> Relaxation | None:
        """Return what the profile of the run would let pass of this outcome."""
        profile, denied = view.run.effective_execution_profile, self._relaxation_denylist
        match outcome:
            case NeedsRepair():
                kind = outcome.failure_class.value
                return relax(profile, outcome.unmet, denylist=denied, failure_kind=kind)
            case Blocked():
                return relax_blocker(profile, outcome, denylist=denied)
            case _:
                return None

    async def _keep(
        self, view: RunView, plan_node: PlanNode, content: bytes, report: Progress
    ) -> ArtifactRef:
        """Put a large output aside. A full disk is waited for: the body is not run twice for it."""
        while True:
            try:
                return self._artifacts.put(
                    view.run.tenant, plan_node.node_id, content, media_type="application/json"
                )
            except StoreUnavailable as error:
                report("event", f"{error}; trying again every second")
                await self._clock.sleep(KEEP_RETRY_MS)

    def facts(self, view: RunView) -> Facts:
        """Return what can be seen of a run from outside: its files and its outputs."""
        return RunFacts(self, view, self._files)

    def output_of(self, view: RunView, node: NodeRun) -> JsonValue:
        """Return the output of a node run, from its row or its artifact.

        Raises:
            NotFound: the artifact is gone.
        """
        if node.output is not None:
            return decode(node.output)
        if node.output_ref is not None:
            return self.read_large(view, node.output_ref)
        return None

    def read_large(self, view: RunView, ref: ArtifactRef) -> JsonValue:
        """Return an output that was put aside.

        Raises:
            NotFound: the artifact is gone.
        """
        return decode(self._artifacts.get(view.run.tenant, ref))

    def _spec(
        self, view: RunView, plan_node: PlanNode, number: int, meter: AttemptMeter | None = None
    ) -> AttemptSpec:
        run = view.run
        node = view.node(plan_node.node_no)
        outputs = _Outputs(self, view)
        return AttemptSpec(
            tenant=run.tenant,
            engine_id=self._engine_id,
            run_id=run.run_id,
            node_id=plan_node.node_id,
            attempt_id=attempt_id(run.run_id, plan_node.node_id, number),
            number=number,
            epoch=run.epoch,
            idempotency_key=idempotency_key(run.run_id, plan_node.node_id),
            action=self._action(view, plan_node, outputs),
            inputs=_inputs(plan_node, outputs),
            repair=node.repair,
            learnings=lines_for(run.learnings, plan_node.node_id),
            workspace=run.workspace,
            scratch=f"{self._scratch_root}/{run.run_id}/{plan_node.node_id}/{number}",
            output_bytes_max=self._output_bytes_max,
            runtime_context=view.runtime_context,
            meter=meter,
        )

    def _action(self, view: RunView, plan_node: PlanNode, outputs: "_Outputs") -> Action:
        action: Action = plan_node.node.action or AgentAction()
        key = (view.run.definition_digest, plan_node.node_no)
        if key not in self._templates:
            document = action.model_dump(mode="json")
            self._templates[key] = document if find_references(document) else None
        template = self._templates[key]
        if template is None:
            return action
        resolved = resolve(template, inputs=view.run.inputs, outputs=outputs)
        return _ACTION.validate_python(_with_texts(template, resolved))

    async def _within_limits(
        self, spec: AttemptSpec, plan_node: PlanNode, report: Progress, meter: AttemptMeter
    ) -> Outcome:
        idle_ms, absolute_ms = limits_of(plan_node)
        if idle_ms is None and absolute_ms is None and meter.tool_calls_max is None:
            return await self._executor.run(spec, report)
        idle, budget = self._clock.deadline(idle_ms), self._clock.deadline(None)
        try:
            async with self._clock.deadline(absolute_ms), idle, budget:
                meter.end = partial(budget.reschedule_in, 0)
                meter.held = partial(idle.reschedule_in, None)
                meter.released = partial(idle.reschedule_in, idle_ms)

                def progress(kind: str, text: str = "") -> None:
                    idle.reschedule_in(idle_ms)
                    report(kind, text)

                return await self._executor.run(spec, progress)
        except TimeoutError:
            if meter.ending is not None:
                return meter.ending
            which = (
                f"idle timed out after {idle_ms} ms without progress"
                if idle.has_expired
                else f"timed out after {absolute_ms} ms"
            )
            return Failed(
                failure_class=FailureClass.TIMED_OUT,
                message=f"automation node `{plan_node.node_id}` {which}",
            )

    async def _verify(
        self, spec: AttemptSpec, report: Progress, verification: Verification
    ) -> Outcome:
        action = CommandAction(argv=list(verification.argv))
        check = msgspec.structs.replace(spec, action=action, scratch=f"{spec.scratch}/verify")
        try:
            async with self._clock.deadline(verification.timeout_ms):
                return await self._executor.run(check, report)
        except TimeoutError:
            return Failed(
                failure_class=FailureClass.TIMED_OUT,
                message=f"it took longer than {verification.timeout_ms} ms",
            )


def _digest_of_contract(plan_node: PlanNode) -> str:
    contract = plan_node.node.output_contract
    if contract is None:
        return ""
    return digest(canonical(contract.model_dump(mode="json", by_alias=True, exclude_none=True)))


def _hear_nothing(kind: str, text: str = "") -> None:  # the names are the port's
    """What a probe says on its way is of no interest."""


class _Outputs(Mapping[str, JsonValue]):
    """The outputs of completed nodes by name, read when somebody asks."""

    def __init__(self, runner: AttemptRunner, view: RunView) -> None:
        self._runner = runner
        self._view = view

    def __getitem__(self, name: str) -> JsonValue:
        plan_node = self._view.plan.node(NodeId(name))
        if plan_node is None:
            raise KeyError(name)
        return self._runner.output_of(self._view, self._view.node(plan_node.node_no))

    def __iter__(self) -> Iterator[str]:
        return iter(self._view.plan.by_id)

    def __len__(self) -> int:
        return len(self._view.plan)


def _with_texts(template: JsonValue, resolved: JsonValue) -> JsonValue:
    """Return what was resolved, with texts where the action has room for texts only.

    `argv: ["${inputs.count}"]` gets the number as it is written in JSON.
    """
    if isinstance(template, str):
        return resolved if isinstance(resolved, str) else encode(resolved).decode()
    if isinstance(template, Mapping) and isinstance(resolved, Mapping):
        return {
            key: value if key in _ANY_JSON else _with_texts(template[key], value)
            for key, value in resolved.items()
        }
    if isinstance(template, Sequence) and isinstance(resolved, Sequence):
        return [_with_texts(*pair) for pair in zip(template, resolved, strict=True)]
    return resolved


def _inputs(plan_node: PlanNode, outputs: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the declared inputs by alias; without any, the output of each dependency."""
    node = plan_node.node
    if node.input_refs:
        return {ref.alias: outputs[ref.from_step_id] for ref in node.input_refs}
    return {name: outputs[name] for name in node.depends_on}
