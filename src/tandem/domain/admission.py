"""Admission: whether a due run may be claimed now, and what stands in its way if not.

Checks in the order of design section 5, behind the review of the automation: not due, throttled
provider, workspace, concurrency, capacity. The store gathers the facts and writes the answer in the
transaction of the claim, so that no two claims are decided on the same facts.
Sources: run-lifecycle 3.2 to 3.4.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from posixpath import normpath
from typing import Final
from urllib.parse import quote

import msgspec

from tandem.domain.automation import Automation
from tandem.domain.automation_review import Review, holds, is_review_key, review_key
from tandem.domain.execution import WorkspaceUse
from tandem.domain.ids import EngineId, RunId, TenantId
from tandem.domain.json import JsonObject, encode
from tandem.domain.lifecycle import DRIVEN
from tandem.domain.node import ExecutorKind
from tandem.domain.run import QueueReason, Run
from tandem.domain.template import resolve

WAITS_KEPT: Final = 1_000
"""Of so many newest waits the metrics tell the mean and the 95th percentile."""


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace that a run has to itself. `run_no` is the holder, known by `run_id`."""

    path: str
    run_no: int
    run_id: RunId
    tenant: TenantId
    epoch: int
    engine_id: EngineId
    since_ms: int


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What decides about one due run.

    `throttles` are moments until which providers that the run still needs want to be left alone.
    `lock` is the lock of this workspace, of one around it or of one inside it. `claims` counts the
    other runs with the same concurrency key that are driven, or whose processes still live.
    """

    throttles: Mapping[str, int] = {}
    lock: Lock | None = None
    claims: int = 0
    review: Review | None = None


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run is not claimed. Without `due_at_ms` it waits until `resource_key` is free."""

    reason: QueueReason
    resource_key: str
    provider: str = ""
    due_at_ms: int | None = None


def refuse(run: Run, facts: Facts) -> Refusal | None:
    """Return what stands in the way of a due run, or None when it may be claimed.

    Of several throttled providers the one counts that lasts longest: before that there is no use
    in looking again.
    """
    if holds(facts.review, run):
        return Refusal(
            reason=QueueReason.REVIEW_REQUIRED,
            resource_key=review_key(run.tenant, run.automation_id),
        )
    if facts.throttles:
        provider = max(facts.throttles, key=lambda name: (facts.throttles[name], name))
        return Refusal(
            reason=QueueReason.RATE_LIMIT,
            resource_key=f"provider://{quote(run.tenant, safe='')}/{provider}",
            provider=provider,
            due_at_ms=facts.throttles[provider],
        )
    if facts.lock is not None:
        return Refusal(reason=QueueReason.WORKSPACE_LOCK, resource_key=facts.lock.path)
    if run.concurrency_key and facts.claims >= run.concurrency_limit:
        return Refusal(reason=QueueReason.CONCURRENCY, resource_key=run.concurrency_key)
    return None


def is_counted_key(key: str) -> bool:
    """Say whether this is a concurrency key, under which runs are counted."""
    return not (is_workspace_key(key) or is_review_key(key))


def is_workspace_key(key: str) -> bool:
    """Say whether this key names a workspace: those are absolute paths, others have a scheme."""
    return key.startswith("/")


def holds_keys(run: Run) -> bool:
    """Say whether a run keeps its workspace and its place under its concurrency key.

    It does while an engine drives it, paused or not, and while processes of it may still live: the
    next run must not meet the bodies of this one (W-14).
    """
    return run.status in DRIVEN or run.cleanup is not None


# What a run needs


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What a run must have to itself, or have at all; fixed when it is created."""

    lock_path: str = ""
    concurrency_key: str = ""
    concurrency_limit: int = 0
    labels: tuple[str, ...] = ()


class Demand(msgspec.Struct, frozen=True):
    """What all runs of a definition need alike; made once for each of its plans."""

    has_own_workspace: bool
    labels: tuple[str, ...]


def demand_of(automation: Automation) -> Demand:
    """Return what all runs of this definition need alike."""
    exclusive = automation.workspace_use is WorkspaceUse.EXCLUSIVE
    return Demand(exclusive, _labels(automation))


def needs_of(
    automation: Automation,
    demand: Demand,
    *,
    tenant: TenantId,
    inputs: JsonObject,
    real_path: str,
) -> Needs:
    """Return what a run of this automation needs.

    Args:
        automation: the definition.
        demand: what its runs need alike.
        tenant: whose run it is; a concurrency key counts within one tenant.
        inputs: the inputs, defaults filled in.
        real_path: the workspace with all links followed, empty for a run without one.

    Raises:
        MissingReference: the concurrency key names an input that is not given.
    """
    key, limit = "", 0
    if automation.concurrency is not None:
        value = resolve(automation.concurrency.key, inputs=inputs, outputs={})
        text = value if isinstance(value, str) else encode(value).decode()
        key = f"concurrency://{quote(tenant, safe='')}/{text}"
        limit = automation.concurrency.limit
    return Needs(
        lock_path=normal_path(real_path) if demand.has_own_workspace and real_path else "",
        concurrency_key=key,
        concurrency_limit=limit,
        labels=demand.labels,
    )


def _labels(automation: Automation) -> tuple[str, ...]:
    """Collect what this engine must have; labels of a cluster's nodes are the cluster's matter."""
    found = {
        label
        for node in automation.nodes
        if automation.executor_of(node) is ExecutorKind.LOCAL
        for label in automation.resources_of(node).labels
    }
    return tuple(sorted(found))


def normal_path(path: str) -> str:
    """Return an absolute path in the one form in which locks are compared."""
    return "/" + normpath(path).lstrip("/") if path else ""


def paths_around(path: str) -> tuple[str, ...]:
    """Return the path itself and every folder that it lies in, the root last."""
    parts = path.strip("/").split("/") if path.strip("/") else []
    return tuple("/" + "/".join(parts[:count]) for count in range(len(parts), -1, -1))


def range_inside(path: str) -> tuple[str, str]:
    """Return the bounds between which the paths inside of this one lie: first, and past the last.

    A path inside begins with the path and a slash; `0` is the character after the slash.
    """
    stem = path.rstrip("/")
    return f"{stem}/", f"{stem}0"


def overlap(one: str, other: str) -> bool:
    """Say whether two workspaces are the same, or one lies in the other."""
    return one in paths_around(other) or other in paths_around(one)


# Turns


class Lane(msgspec.Struct, frozen=True):
    """Queued runs that are equal for admission: same tenant, same labels, same owner."""

    key: str
    tenant: TenantId
    labels: tuple[str, ...]
    owner: EngineId | None


class Claimant(msgspec.Struct, frozen=True, kw_only=True):
    """An engine that wants runs: its labels, and how many all engines together may drive."""

    engine_id: EngineId
    own_only: bool = False
    labels: tuple[str, ...] = ()
    runs_total_max: int | None = None

    def takes(self, lane: Lane, *, known: Iterable[EngineId]) -> bool:
        """Say whether runs of this lane are for this engine.

        Runs of an owner are for that engine as long as it is `known` to the store; the owner too
        must have what the run needs.
        """
        if not set(lane.labels) <= set(self.labels):
            return False
        if lane.owner == self.engine_id:
            return True
        return not self.own_only and (lane.owner is None or lane.owner not in known)


def in_turn(lanes: Iterable[Lane], *, after: str) -> Iterator[tuple[TenantId, Sequence[Lane]]]:
    """Yield each tenant with its lanes, beginning behind the tenant whose turn was last.

    So a tenant with a thousand runs waits no less and no more for its next one than a tenant with
    one run.
    """
    of_tenant: dict[TenantId, list[Lane]] = {}
    for lane in lanes:
        of_tenant.setdefault(lane.tenant, []).append(lane)
    for tenant in sorted(of_tenant, key=lambda name: (name <= after, name)):
        yield tenant, of_tenant[tenant]


def free_places(limit: int, *, driven: int, runs_total_max: int | None) -> int:
    """Return how many runs may be claimed: the engine's own places within those of the store."""
    return max(limit if runs_total_max is None else min(limit, runs_total_max - driven), 0)


# What is told of it


def wait_ms(run: Run, *, now_ms: int) -> int:
    """Return how long a run that is claimed now has waited; a backoff is no wait for admission."""
    since_ms = run.queued_at_ms if run.queued_at_ms is not None else run.created_at_ms
    if run.queue_reason is QueueReason.RETRY_BACKOFF and run.due_at_ms is not None:
        since_ms = max(since_ms, run.due_at_ms)
    return max(now_ms - since_ms, 0)


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """What the scheduler has done and has to do (run-lifecycle 3.5); spans in milliseconds."""

    active_runs: int
    queued_runs_by_reason: Mapping[str, int]
    admitted_total: int
    completed_total: int
    avg_wait_ms: int
    p95_wait_ms: int


def mean_and_p95(waits_ms: Sequence[int]) -> tuple[int, int]:
    """Return the integer mean and the 95th percentile; index round(n * 0.95), at most n - 1."""
    if not waits_ms:
        return 0, 0
    ordered = sorted(waits_ms)
    count = len(ordered)
    # Half rounds up, in whole numbers: floats would round 9.5 to 10 and 8.5 to 8.
    index = min((count * 95 + 50) // 100, count - 1)
    return sum(ordered) // count, ordered[index]
