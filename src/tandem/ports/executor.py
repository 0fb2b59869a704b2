"""The port that runs one attempt somewhere."""

from collections.abc import Collection, Mapping
from typing import Protocol

import msgspec

from tandem.domain.action import Action
from tandem.domain.ids import AttemptId, EngineId, NodeId, RunId, TenantId
from tandem.domain.json import JsonObject, JsonValue
from tandem.domain.outcome import Outcome
from tandem.ports.meter import Meter


class AttemptSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one attempt needs to run.

    `action` has its references resolved. `inputs` maps the aliases of the node's inputs to the
    outputs of the nodes they name. `repair` says why the output of the attempt before was not
    accepted. `workspace` is an absolute directory, or empty when the run has none; `scratch` is
    an absolute directory of the engine that belongs to this attempt alone and may not exist yet.
    `runtime_context` is what the run may see of the context that was approved for it.
    """

    tenant: TenantId
    engine_id: EngineId
    run_id: RunId
    node_id: NodeId
    attempt_id: AttemptId
    number: int
    epoch: int
    idempotency_key: str
    action: Action
    inputs: Mapping[str, JsonValue]
    repair: tuple[str, ...] = ()
    learnings: tuple[str, ...] = ()
    """What was learned from earlier runs and approved, one line each."""
    workspace: str = ""
    scratch: str = ""
    output_bytes_max: int = 16 * 1024 * 1024
    runtime_context: JsonObject | None = None
    meter: Meter | None = None
    """Where the body says what it spends; None where nobody counts, as in a probe."""
    traceparent: str = ""
    """The span of the attempt (W3C Trace Context), empty when it has none."""


class Progress(Protocol):
    """Called by an executor whenever the body shows life; this resets the idle timeout."""

    def __call__(self, kind: str, text: str = "") -> None:
        """Report activity: `kind` is `stdout`, `stderr` or `event`; `text` what it said."""
        ...


class Executor(Protocol):
    """Runs bodies. Timeouts are the caller's: it cancels the task that awaits `run`."""

    async def run(self, attempt: AttemptSpec, progress: Progress) -> Outcome:
        """Run one attempt to its end and say how it ended.

        A failure of the body is an outcome. When the awaiting task is cancelled, everything that
        the body started is dead before the cancellation leaves this call.
        """
        ...

    async def end_leftovers(
        self, *, engine_ids: Collection[EngineId], attempt_ids: Collection[AttemptId]
    ) -> int:
        """Kill every process on this host that these left behind, and wait until it is gone.

        Returns the number of processes that had to be killed.
        """
        ...
