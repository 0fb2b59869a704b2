"""Admission on the tables: one pass over the queue, and the net under the keys that are freed.

What stands in a run's way is judged by `domain.admission`; here the facts are gathered and the
answer is written, in one transaction for all engines.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import apsw
import msgspec

from tandem.adapters.sql import rows
from tandem.adapters.sqlite import keys
from tandem.adapters.sqlite.tables import Tables, fetch, run_statement
from tandem.domain import admission
from tandem.domain.admission import Claimant, Facts, Lane, Refusal, holds_keys
from tandem.domain.change import Change
from tandem.domain.command import Claim
from tandem.domain.decision import decide
from tandem.domain.errors import EngineError
from tandem.domain.ids import ChangeId, DefinitionDigest, EngineId, TenantId
from tandem.domain.lifecycle import NodeState
from tandem.domain.provider import required_providers
from tandem.domain.run import Run
from tandem.domain.view import RunView

EXAMINED_MAX: Final = 512
"""So many runs are looked at in one transaction; those refused are out of the way in the next."""
EXAMINED_PER_LANE: Final = 256
THROTTLES_MAX: Final = 1_000
_LANE = msgspec.json.Decoder(tuple[str, str, str])
_LABELS = msgspec.json.Decoder(tuple[str, ...])


class Claimed(NamedTuple):
    """A run that was claimed, ready to be driven, and the change that claimed it."""

    view: RunView
    change: Change


class AdmissionPass:
    """One pass over the queue for one engine, within the transaction that is open."""

    def __init__(
        self, tables: Tables, connection: apsw.Connection, claimant: Claimant, *, now_ms: int
    ) -> None:
        self._tables = tables
        self._connection = connection
        self._claimant = claimant
        self._now_ms = now_ms
        self._throttles: dict[TenantId, Mapping[str, int]] = {}
        self._examined = 0
        self._claimed: list[Claimed] = []

    def run(self, *, limit: int, change_id: ChangeId) -> list[Claimed]:
        """Claim up to `limit` runs; tenants take turns, and within one the oldest comes first."""
        if not self._rows("has_due_run", self._now_ms):
            return []
        (state,) = self._find("get_admission")
        places = admission.free_places(
            limit, driven=self._driven(), runs_total_max=self._claimant.runs_total_max
        )
        if places == 0:
            return []
        waiting = deque(
            (tenant, self._candidates(lanes))
            for tenant, lanes in admission.in_turn(self._lanes(), after=state["last_tenant"])
        )
        last_tenant: str = state["last_tenant"]
        while waiting and len(self._claimed) < places and self._examined < EXAMINED_MAX:
            tenant, candidates = waiting.popleft()
            place = len(self._claimed)
            own_id = ChangeId(f"{change_id}-{place}") if place else change_id
            if self._claim_one(candidates, own_id, number=state["admitted_total"] + place):
                last_tenant = tenant
                waiting.append((tenant, candidates))
        if self._claimed:
            admitted = state["admitted_total"] + len(self._claimed)
            self._run("count_admitted", last_tenant, admitted)
        return self._claimed

    def _driven(self) -> int:
        if self._claimant.runs_total_max is None:
            return 0
        return int(self._rows("count_driven")[0][0])

    def _lanes(self) -> Iterator[Lane]:
        known = {EngineId(row["engine_id"]) for row in self._find("list_engines")}
        for (key,) in self._rows("list_due_lanes", self._now_ms):
            lane = lane_of(key)
            if self._claimant.takes(lane, known=known):
                yield lane

    def _candidates(self, lanes: Sequence[Lane]) -> Iterator[int]:
        """Yield the due runs of a tenant, oldest first; nothing is read before it is its turn."""
        due = [
            (due_at_ms, run_no)
            for lane in lanes
            for run_no, due_at_ms in self._rows(
                "list_due_of_lane", lane.key, self._now_ms, EXAMINED_PER_LANE
            )
        ]
        yield from (run_no for _, run_no in sorted(due))

    def _claim_one(self, candidates: Iterator[int], change_id: ChangeId, *, number: int) -> bool:
        """Claim the first of these that nothing stands in the way of; refuse those before it."""
        for run_no in candidates:
            self._examined += 1
            run = rows.run_of(self._find("find_run_by_no", run_no)[0])
            refusal = self._refusal(run)
            if refusal is None:
                self._claim(run, change_id, number=number)
                return True
            self._run(
                "refuse_run",
                refusal.reason.value,
                refusal.resource_key,
                refusal.provider,
                refusal.due_at_ms,
                run.run_no,
                run.last_change_id,
            )
            if self._examined >= EXAMINED_MAX:
                return False
        return False

    def _refusal(self, run: Run) -> Refusal | None:
        try:
            plan = self._tables.plan(self._connection, run.tenant, run.definition_digest)
            throttles = self._throttles_of(run.tenant)
            if throttles:
                needed = required_providers(plan.automation, plan.automation.nodes, run.inputs)
                concerned = needed & throttles.keys()
                throttles = self._still_needed(run, throttles) if concerned else {}
        except EngineError:
            return admission.refuse_unreadable(run.tenant, run.definition_digest)
        return admission.refuse(run, self._facts(run, throttles))

    def _facts(self, run: Run, throttles: Mapping[str, int]) -> Facts:
        connection, sql = self._connection, self._tables.sql
        key = run.concurrency_key
        return Facts(
            throttles=throttles,
            lock=keys.find_lock(connection, sql, run.lock_path) if run.lock_path else None,
            claims=keys.count_claims(connection, sql, key) if key else 0,
        )

    def _throttles_of(self, tenant: TenantId) -> Mapping[str, int]:
        if tenant not in self._throttles:
            found = self._rows("list_throttles", tenant, self._now_ms, THROTTLES_MAX)
            self._throttles[tenant] = dict(found)
        return self._throttles[tenant]

    def _still_needed(self, run: Run, throttles: Mapping[str, int]) -> Mapping[str, int]:
        """Keep the throttles of providers that a node needs which is not completed."""
        view = self._tables.load_by_no(self._connection, run.run_no)
        return throttles_in_the_way(view, throttles)

    def _claim(self, run: Run, change_id: ChangeId, *, number: int) -> None:
        view = self._tables.load_by_no(self._connection, run.run_no)
        claim = Claim(engine_id=self._claimant.engine_id)
        change = decide(view, claim, change_id=change_id, now_ms=self._now_ms)
        self._tables.write(self._connection, change)
        wait_ms = admission.wait_ms(run, now_ms=self._now_ms)
        self._run("put_wait_of_admission", number % admission.WAITS_KEPT, wait_ms)
        view.apply(change)
        self._claimed.append(Claimed(view, change))

    def _find(self, name: str, *values: object) -> list[dict[str, Any]]:
        return fetch(self._connection, self._tables.sql[name], values)

    def _rows(self, name: str, *values: object) -> list[Any]:
        return self._connection.execute(self._tables.sql[name], values).fetchall()

    def _run(self, name: str, *values: object) -> None:
        run_statement(self._connection, self._tables.sql[name], values)


def throttles_in_the_way(view: RunView, throttles: Mapping[str, int]) -> Mapping[str, int]:
    """Return those of these throttles that a node needs which is not completed."""
    left = [
        plan_node.node
        for plan_node in view.plan.nodes
        if view.node(plan_node.node_no).state is not NodeState.COMPLETED
    ]
    needed = required_providers(view.plan.automation, left, view.run.inputs)
    return {name: until_ms for name, until_ms in throttles.items() if name in needed}


def lane_of(key: str) -> Lane:
    """Read the key of a lane."""
    tenant, labels, owner = _LANE.decode(key)
    return Lane(key, TenantId(tenant), _LABELS.decode(labels), EngineId(owner) if owner else None)


# The net


def list_free_keys(
    tables: Tables, connection: apsw.Connection, *, after: str, limit: int
) -> tuple[list[str], str]:
    """Return keys that runs wait for though they are free, and where to go on next time.

    Looks at `limit` keys behind `after`; an empty place to go on at means the beginning.
    """
    free: list[str] = []
    for _ in range(limit):
        found: list[Any] = connection.execute(tables.sql["next_blocking_key"], (after,)).fetchall()
        if not found:
            return free, ""
        after = found[0][0]
        if is_free(tables, connection, after):
            free.append(after)
    return free, after


def is_free(tables: Tables, connection: apsw.Connection, key: str) -> bool:
    """Say whether a run that waits for this key could have it now."""
    sql = tables.sql
    if admission.is_workspace_key(key):
        return all(not holds_keys(run) for run in _holders(tables, connection, key))
    if admission.is_definition_key(key):
        (row,) = fetch(connection, sql["find_blocked"], (key,)) or ({},)
        if not row:
            return False
        try:
            tables.plan(connection, row["tenant"], DefinitionDigest(row["definition_digest"]))
        except EngineError:
            return False
        return True
    claims = keys.count_claims(connection, sql, key)
    return bool(connection.execute(sql["has_waker_for"], (key, claims)).fetchall())


def _holders(tables: Tables, connection: apsw.Connection, path: str) -> list[Run]:
    return [rows.run_of(row) for row in fetch(connection, tables.sql["find_lock_of_path"], (path,))]


def wake_free(
    tables: Tables, connection: apsw.Connection, key: str, *, now_ms: int, limit: int
) -> int:
    """Put up to `limit` runs that wait for a key back into the queue, if it is free.

    A lock whose run does not need it any more is dropped. Returns how many runs were woken.
    """
    if not is_free(tables, connection, key):
        return 0
    for run in _holders(tables, connection, key):
        run_statement(connection, tables.sql["release_workspace"], (run.run_no,))
    counted = not (admission.is_workspace_key(key) or admission.is_definition_key(key))
    claims = keys.count_claims(connection, tables.sql, key) if counted else keys.ANY_NUMBER
    return keys.wake(connection, tables.sql, key, claims=claims, now_ms=now_ms, limit=limit)
