"""The only place that picks concrete adapters."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from tandem.adapters.local.artifacts import FileArtifacts
from tandem.adapters.local.by_kind import ByKind
from tandem.adapters.local.clock import SystemClock
from tandem.adapters.local.executor import LocalExecutor
from tandem.adapters.local.files import LocalFiles
from tandem.adapters.local.host import LocalHost
from tandem.adapters.local.ids import RandomIds
from tandem.adapters.local.secrets import RandomSecrets
from tandem.adapters.local.status import StatusFiles
from tandem.adapters.local.vault import FileVault
from tandem.adapters.sqlite.store import SqliteStore
from tandem.adapters.traces.executor import TracedExecutor
from tandem.adapters.traces.sdk import TracesUnavailable, open_tracing
from tandem.domain.command import LossPolicy
from tandem.domain.execution import ExecutionProfile
from tandem.domain.gate_policy import GatePolicy
from tandem.domain.learning import LearningPolicy
from tandem.domain.redaction import Redactor
from tandem.domain.run import RuntimeClock
from tandem.engine.automations import Automations
from tandem.engine.engine import Engine
from tandem.engine.event_feed import EventFeed, FeedLimits
from tandem.engine.limits import Limits
from tandem.engine.recovery import RecoveryLimits
from tandem.engine.tokens import Tokens
from tandem.engine.waiting import Waiters
from tandem.engine.webhooks import WebhookPolicy, Webhooks
from tandem.ports.executor import Executor
from tandem.settings import Settings

if TYPE_CHECKING:
    from tandem.adapters.traces.runs import RunTraces

DAY_MS = 86_400_000


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """An engine and what stands around it."""

    settings: Settings
    engine: Engine
    store: SqliteStore
    artifacts: FileArtifacts
    waiters: Waiters
    status: StatusFiles
    automations: Automations
    feed: EventFeed
    """The live events of the store."""
    tokens: Tokens
    webhooks: Webhooks
    loop: asyncio.AbstractEventLoop
    """On which all of it lives."""


def open_store(
    settings: Settings, *, is_called_off: Callable[[], bool] | None = None
) -> SqliteStore:
    """Open the store of these settings.

    Args:
        settings: of this process.
        is_called_off: ends the waiting for another process that has the store's turn.

    Raises:
        StoreUnavailable: it cannot be opened; the message says what to do.
        StoreTooNew: a newer version made it.
    """
    return SqliteStore(
        settings.store_path,
        synchronous=settings.synchronous,
        writer=settings.writer,
        is_called_off=is_called_off,
    )


async def open_store_beside(
    settings: Settings, *, is_called_off: Callable[[], bool]
) -> SqliteStore:
    """Open the store while the loop goes on; see `open_store`.

    It may take long: another process has the turn, or tables are brought to this version. The one
    place for a thread: nothing else runs yet that it could take the processor from.
    """
    return await asyncio.to_thread(open_store, settings, is_called_off=is_called_off)


@asynccontextmanager
async def open_engine(
    settings: Settings,
    *,
    store: SqliteStore | None = None,
    drives: bool = True,
    own_only: bool = False,
    lingers: bool = False,
    registered: Mapping[str, Callable[..., object]] | None = None,
    in_process: bool = False,
    agents: Executor | None = None,
    on_problem: Callable[[str], None] | None = None,
    prepare: Callable[[Parts], None] | None = None,
) -> AsyncIterator[Parts]:
    """Open an engine with everything it needs; leaving hands its runs back and closes the store.

    Args:
        settings: of this process.
        store: of these settings, if it is open already; it is closed on leaving.
        drives: start it. Without, it only creates runs and executes commands.
        own_only: claim only runs that it created or was asked to resume.
        lingers: on leaving, let attempts finish within the shutdown timeout, as a server does.
            Without, that happens only when the environment sets the timeout.
        registered: functions of the host program that nodes may call by name, in this process.
        in_process: call all Python functions in this process.
        agents: runs the sessions of agent nodes; without, automations with such are not run.
        on_problem: hears what went wrong beside the runs, such as an unwritable status file.
        prepare: is given the parts before the engine starts, so that what listens misses nothing.
    """
    store = open_store(settings) if store is None else store
    clock = SystemClock()
    executor = LocalExecutor(
        isolation=settings.isolation,  # type: ignore[arg-type] # `read_settings` allows no other
        registered=registered,
        in_process=in_process,
        stop_grace_ms=settings.stop_grace_ms,
    )
    artifacts = FileArtifacts(settings.state_dir / "artifacts")
    status = StatusFiles(
        settings.state_dir,
        on_problem or _ignore,
        writer=settings.status_writer,  # type: ignore[arg-type] # as above
    )
    bodies: Executor = executor if agents is None else ByKind(executor, agents)
    stack = ExitStack()
    traces = stack.enter_context(_open_traces(settings, on_problem or _ignore))
    if traces is not None:
        bodies = TracedExecutor(bodies, traces.traceparent)
    try:
        async with status, executor:
            engine = Engine(
                store=store,
                executor=bodies,
                artifacts=artifacts,
                files=LocalFiles(),
                host=LocalHost(settings.state_dir),
                clock=clock,
                ids=RandomIds(),
                scratch_root=str(settings.state_dir / "scratch"),
                limits=_limits(settings, own_only=own_only, lingers=lingers),
                default_profile=ExecutionProfile(settings.default_profile),
                has_agents=agents is not None,
                on_problem=on_problem,
            )
            engine.listen(status.changed, caught_up=status.caught_up, learned=status.learned)
            if traces is not None:
                traces.listen_to(engine)
            feed = EventFeed(
                store,
                clock,
                FeedLimits(
                    events_max=settings.event_buffer_events_max,
                    bytes_max=settings.event_buffer_bytes_max,
                ),
            )
            engine.watch(feed.wake)
            parts = Parts(
                loop=asyncio.get_running_loop(),
                settings=settings,
                engine=engine,
                store=store,
                artifacts=artifacts,
                waiters=Waiters(engine, clock),
                status=status,
                automations=Automations(engine),
                feed=feed,
                tokens=Tokens(store=store, clock=clock, secrets=RandomSecrets()),
                webhooks=Webhooks(
                    engine,
                    FileVault(settings.state_dir),
                    clock=clock,
                    ids=RandomIds(),
                    policy=WebhookPolicy(
                        tolerance_ms=settings.webhook_tolerance_ms,
                        unsigned_allowed=settings.is_unsigned_webhook_allowed,
                    ),
                ),
            )
            if prepare is not None:
                prepare(parts)
            async with feed:
                if drives:
                    async with engine:
                        yield parts
                else:
                    yield parts
    finally:
        store.close()
        stack.close()


@contextmanager
def _open_traces(
    settings: Settings, complain: Callable[[str], None]
) -> "Iterator[RunTraces | None]":
    """Yield what makes spans of runs; None when nobody wants any or nothing can send them."""
    with ExitStack() as stack:
        tracing = None
        if settings.traces == "auto":
            try:
                tracing = stack.enter_context(open_tracing(os.environ))
            except TracesUnavailable as error:
                complain(f"no spans are sent: {error}")
        if tracing is None:
            yield None
            return
        from tandem.adapters.traces.runs import RunTraces

        yield RunTraces(
            tracing.tracer,
            ids=tracing.ids,
            redactor=Redactor(settings.secret_values()),
            now_ms=SystemClock().now_ms,
        )


def _limits(settings: Settings, *, own_only: bool, lingers: bool) -> Limits:
    """Return how an engine of these settings behaves."""
    return Limits(
        runs_max=settings.runs_at_once,
        runs_total_max=settings.runs_total_max,
        labels=settings.labels,
        lease_ms=settings.lease_ms,
        inline_bytes_max=settings.inline_bytes_max,
        output_bytes_max=settings.output_bytes_max,
        retention_ms=settings.retention_days * DAY_MS,
        gate_policy=GatePolicy(
            expires_after_ms=settings.gate_expires_after_ms,
            on_expiry=settings.gate_on_expiry,
            stale_after_ms=settings.gate_stale_after_ms,
            four_eyes=settings.gate_four_eyes,
        ),
        signal_retention_ms=settings.signal_retention_ms,
        schedule_grace_ms=settings.schedule_grace_ms,
        relaxation_denylist=settings.relaxation_denylist,
        runtime_clock=RuntimeClock(settings.runtime_budget_clock),
        usd_per_1k_tokens=settings.token_cost_per_1k_usd,
        own_only=own_only,
        shutdown_policy=LossPolicy(settings.shutdown_policy),
        shutdown_grace_ms=_grace_ms(settings, lingers=lingers),
        shutdown_timeout_ms=settings.shutdown_timeout_s * 1_000,
        recovery=RecoveryLimits(
            restart_policy=LossPolicy(settings.restart_policy),
            stale_after_ms=settings.stale_after_ms,
            auto_resume=not settings.auto_resume_disabled,
            auto_resume_window_ms=settings.auto_resume_window_ms,
            auto_resumes_max=settings.auto_resumes_max,
        ),
        learning=LearningPolicy(
            auto_apply=settings.learning_auto_apply,
            min_confidence=settings.learning_min_confidence,
            min_baseline_sample=settings.learning_min_baseline_sample,
            max_human_intervention_rate=settings.learning_max_intervention_rate,
            post_apply_min_sample=settings.learning_post_apply_min_sample,
            regression_margin=settings.learning_regression_margin,
        ),
    )


def _grace_ms(settings: Settings, *, lingers: bool) -> int:
    is_set = settings.sources.get("shutdown_timeout_s") == "environment"
    return settings.shutdown_timeout_s * 1_000 if lingers or is_set else 0


def _ignore(_: Any) -> None:
    """Nobody listens."""
