"""Admission on the tables: one pass over the queue, and the net under the keys that are freed.

What stands in a run's way is judged by `domain.admission`; here the facts are gathered and the
answer is written, in one transaction for all engines.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Final

import apsw
import msgspec

from tandem.adapters.sql import rows
from tandem.adapters.sqlite import keys, reviewing
from tandem.adapters.sqlite.learning import list_told, tell_run
from tandem.adapters.sqlite.tables import Tables, ViewParts, bare_view, fetch, run_statement
from tandem.domain import admission
from tandem.domain.admission import Claimant, Facts, Lane, Refusal, holds_keys
from tandem.domain.automation_keeping import hold_of
from tandem.domain.automation_review import Review, is_review_key, parse_review_key
from tandem.domain.candidate import Candidate
from tandem.domain.change import Change
from tandem.domain.claim_basis import ClaimBasis
from tandem.domain.command import Claim
from tandem.domain.decision import decide
from tandem.domain.errors import ROW_UNREADABLE, StoreError
from tandem.domain.hold import AUTOMATION_KEYS_END, Hold, is_automation_key
from tandem.domain.ids import AutomationId, ChangeId, DefinitionDigest, EngineId, TenantId
from tandem.domain.lifecycle import NodeState, RunState
from tandem.domain.provider import required_providers
from tandem.domain.run import Run
from tandem.domain.starting import can_be_claimed
from tandem.domain.view import RunView

EXAMINED_MAX: Final = 512
"""So many runs are looked at in one transaction; those refused are out of the way in the next."""
EXAMINED_PER_LANE: Final = 256
LOOKED_AT_MAX: Final = 64
"""Before a claim so many runs more are looked at than it may take: held ones and broken ones."""
THROTTLES_MAX: Final = 1_000
_LANE = msgspec.json.Decoder(tuple[str, str, str])
_LABELS = msgspec.json.Decoder(tuple[str, ...])


class ClaimedRun(msgspec.Struct, frozen=True, array_like=True):
    """The change of a claim, and what the rows say of the run besides.

    The change took the run, put it aside, or ended it.
    """

    change: Change
    parts: ViewParts

    @property
    def is_taken(self) -> bool:
        """Whether the run is to be driven."""
        return self.change.run.status is RunState.RUNNING


class KnownDefinition(msgspec.Struct, frozen=True, array_like=True):
    """A definition that was read before the claim began."""

    tenant: TenantId
    digest: DefinitionDigest
    basis: ClaimBasis


class DefinitionName(msgspec.Struct, frozen=True, array_like=True):
    """Names a definition."""

    tenant: TenantId
    digest: DefinitionDigest


class Admitted(msgspec.Struct, frozen=True, array_like=True):
    """What a pass did. `unread` are definitions that it would have needed to take more runs."""

    runs: list[ClaimedRun]
    unread: list[DefinitionName]


class Queue:
    """The due runs that an engine may have, in the order in which they are its turn."""

    def __init__(
        self, tables: Tables, connection: apsw.Connection, claimant: Claimant, *, now_ms: int
    ) -> None:
        self._tables = tables
        self._connection = connection
        self._claimant = claimant
        self._now_ms = now_ms

    def has_due(self) -> bool:
        """Say whether any run is due."""
        return bool(self._rows("has_due_run", self._now_ms))

    def turns(self, *, after: str) -> Iterator[tuple[TenantId, Iterator[int]]]:
        """Yield each tenant, beginning behind `after`, with the numbers of its due runs."""
        for tenant, lanes in admission.in_turn(self._lanes(), after=after):
            yield tenant, self._candidates(lanes)

    def _lanes(self) -> Iterator[Lane]:
        engines = fetch(self._connection, self._tables.sql["list_engines"], ())
        known = {EngineId(row["engine_id"]) for row in engines}
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

    def _rows(self, name: str, *values: object) -> list[Any]:
        return self._connection.execute(self._tables.sql[name], values).fetchall()


class Holds:
    """What holds the queued runs of automations; each automation is asked once."""

    def __init__(self, tables: Tables, connection: apsw.Connection) -> None:
        self._tables = tables
        self._connection = connection
        self._known: dict[tuple[TenantId, AutomationId], Hold | None] = {}

    def of(self, tenant: TenantId, automation_id: AutomationId) -> Hold | None:
        """Return what holds the runs of this automation, if anything."""
        key = (tenant, automation_id)
        if key not in self._known:
            self._known[key] = hold_of(self._tables.find_automation(self._connection, *key))
        return self._known[key]


def read_known(
    tables: Tables,
    connection: apsw.Connection,
    claimant: Claimant,
    *,
    limit: int,
    now_ms: int,
) -> list[KnownDefinition] | None:
    """Read the definitions of the runs that are next, before anybody has to wait for it.

    Of runs that will be held none is needed. None means that nothing is due.
    """
    queue = Queue(tables, connection, claimant, now_ms=now_ms)
    if not queue.has_due():
        return None
    (state,) = fetch(connection, tables.sql["get_admission"], ())
    holds = Holds(tables, connection)
    known: dict[DefinitionName, KnownDefinition] = {}
    waiting = deque(queue.turns(after=state["last_tenant"]))
    free = limit
    for _ in range(limit + LOOKED_AT_MAX):
        if not waiting or free <= 0:
            break
        tenant, candidates = waiting.popleft()
        run_no = next(candidates, None)
        if run_no is None:
            continue
        waiting.append((tenant, candidates))
        (row,) = fetch(connection, tables.sql["find_definition_of_run"], (run_no,))
        if holds.of(tenant, row["automation_id"]) is not None:
            continue
        name = DefinitionName(tenant, row["definition_digest"])
        if name not in known:
            known[name] = read_definition(tables, connection, name)
        free -= known[name].basis.can_start
    return list(known.values())


def read_definition(
    tables: Tables, connection: apsw.Connection, name: DefinitionName
) -> KnownDefinition:
    """Read one definition for claims of its runs; a fault of it is part of the answer."""
    basis = tables.basis(connection, name.tenant, name.digest)
    return KnownDefinition(name.tenant, name.digest, basis)


class AdmissionPass:
    """One pass over the queue for one engine, within the transaction that is open.

    `known` are the definitions that were read before it began: none is read while others wait for
    the writer, but for a tenant of which a provider is throttled.
    """

    def __init__(
        self,
        tables: Tables,
        connection: apsw.Connection,
        claimant: Claimant,
        known: Iterable[KnownDefinition],
        *,
        now_ms: int,
    ) -> None:
        self._tables = tables
        self._connection = connection
        self._claimant = claimant
        self._bases = {DefinitionName(one.tenant, one.digest): one.basis for one in known}
        self._now_ms = now_ms
        self._holds = Holds(tables, connection)
        self._throttles: dict[TenantId, Mapping[str, int]] = {}
        self._reviews: dict[TenantId, Mapping[AutomationId, Review]] = {}
        self._learned: dict[tuple[TenantId, AutomationId], Sequence[Candidate]] = {}
        self._examined = 0
        self._decided: list[ClaimedRun] = []
        self._taken = 0
        self._unread: dict[DefinitionName, None] = {}

    def run(self, *, limit: int, change_id: ChangeId, before: int) -> Admitted:
        """Claim up to `limit` runs; tenants take turns, and within one the oldest comes first.

        `before` is how many changes were made from this `change_id` already.
        """
        queue = Queue(self._tables, self._connection, self._claimant, now_ms=self._now_ms)
        if queue.has_due():
            self._admit(queue, limit=limit, change_ids=_change_ids(change_id, before))
        return Admitted(self._decided, list(self._unread))

    def _admit(self, queue: Queue, *, limit: int, change_ids: Iterator[ChangeId]) -> None:
        (state,) = self._find("get_admission")
        places = admission.free_places(
            limit, driven=self._driven(), runs_total_max=self._claimant.runs_total_max
        )
        if places == 0:
            return
        last_tenant: str = state["last_tenant"]
        waiting = deque(queue.turns(after=last_tenant))
        while waiting and self._taken < places and self._examined < EXAMINED_MAX:
            tenant, candidates = waiting.popleft()
            number = state["admitted_total"] + self._taken
            if self._claim_one(candidates, change_ids, number=number):
                last_tenant = tenant
                waiting.append((tenant, candidates))
        if self._taken:
            self._run("count_admitted", last_tenant, state["admitted_total"] + self._taken)

    def _driven(self) -> int:
        if self._claimant.runs_total_max is None:
            return 0
        return int(self._rows("count_driven")[0][0])

    def _claim_one(
        self, candidates: Iterator[int], change_ids: Iterator[ChangeId], *, number: int
    ) -> bool:
        """Claim the first of these that nothing stands in the way of.

        Those before it are put aside, ended or refused.
        """
        for run_no in candidates:
            if self._examined >= EXAMINED_MAX:
                return False
            self._examined += 1
            if run_no in self._tables.unreadable:
                continue  # whoever asks for it is told; it must hold up no other run
            try:
                if self._try_to_claim(run_no, change_ids, number=number):
                    return True
            except StoreError as error:
                if error.code == ROW_UNREADABLE:
                    # This pass is taken back, with what was written of the run; the next one is
                    # without it.
                    self._tables.unreadable.add(run_no)
                raise
        return False

    def _try_to_claim(self, run_no: int, change_ids: Iterator[ChangeId], *, number: int) -> bool:
        run = rows.run_of(self._find("find_run_by_no", run_no)[0])
        claim = self._command(run)
        if claim is None:
            return False
        refusal = self._refusal(run) if can_be_claimed(run, claim) else None
        if refusal is not None:
            self._refuse(run, refusal)
            return False
        decided = self._decide(run, claim, next(change_ids))
        if not decided.is_taken:
            return False
        taken = decided.change.run
        tell_run(self._tables, self._connection, taken, self._learned_of(taken))
        wait_ms = admission.wait_ms(run, now_ms=self._now_ms)
        self._run("put_wait_of_admission", number % admission.WAITS_KEPT, wait_ms)
        self._taken += 1
        return True

    def _command(self, run: Run) -> Claim | None:
        """Return what to decide on a run; None when its definition has not been read."""
        engine_id = self._claimant.engine_id
        hold = self._holds.of(run.tenant, run.automation_id)
        if hold is not None:
            return Claim(engine_id=engine_id, hold=hold)
        name = DefinitionName(run.tenant, run.definition_digest)
        basis = self._bases.get(name)
        if basis is None:
            self._unread[name] = None
            return None
        return Claim(engine_id=engine_id, basis=basis)

    def _refuse(self, run: Run, refusal: Refusal) -> None:
        self._run(
            "refuse_run",
            refusal.reason.value,
            refusal.resource_key,
            refusal.provider,
            refusal.due_at_ms,
            run.run_no,
            run.last_change_id,
        )

    def _refusal(self, run: Run) -> Refusal | None:
        connection, sql = self._connection, self._tables.sql
        key = run.concurrency_key
        facts = Facts(
            throttles=self._throttles_for(run),
            lock=keys.find_lock(connection, sql, run.lock_path) if run.lock_path else None,
            claims=keys.count_claims(connection, sql, key) if key else 0,
            review=self._reviews_of(run.tenant).get(run.automation_id),
        )
        return admission.refuse(run, facts)

    def _throttles_for(self, run: Run) -> Mapping[str, int]:
        """Return the throttles of providers that a node needs which is not completed."""
        throttles = self._throttles_of(run.tenant)
        if not throttles:
            return {}
        plan = self._tables.plan(self._connection, run.tenant, run.definition_digest)
        needed = required_providers(plan.automation, plan.automation.nodes, run.inputs)
        if not needed & throttles.keys():
            return {}
        view = self._tables.load_by_no(self._connection, run.run_no)
        return throttles_in_the_way(view, throttles)

    def _throttles_of(self, tenant: TenantId) -> Mapping[str, int]:
        if tenant not in self._throttles:
            found = self._rows("list_throttles", tenant, self._now_ms, THROTTLES_MAX)
            self._throttles[tenant] = dict(found)
        return self._throttles[tenant]

    def _decide(self, run: Run, claim: Claim, change_id: ChangeId) -> ClaimedRun:
        change = decide(bare_view(run), claim, change_id=change_id, now_ms=self._now_ms)
        self._tables.write(self._connection, change)
        decided = ClaimedRun(change, self._tables.parts(self._connection, change.run))
        self._decided.append(decided)
        return decided

    def _learned_of(self, run: Run) -> Sequence[Candidate]:
        key = (run.tenant, run.automation_id)
        if key not in self._learned:
            self._learned[key] = list_told(self._tables, self._connection, run)
        return self._learned[key]

    def _reviews_of(self, tenant: TenantId) -> Mapping[AutomationId, Review]:
        if tenant not in self._reviews:
            found = reviewing.list_open(self._connection, self._tables.sql, tenant)
            self._reviews[tenant] = found
        return self._reviews[tenant]

    def _find(self, name: str, *values: object) -> list[dict[str, Any]]:
        return fetch(self._connection, self._tables.sql[name], values)

    def _rows(self, name: str, *values: object) -> list[Any]:
        return self._connection.execute(self._tables.sql[name], values).fetchall()

    def _run(self, name: str, *values: object) -> None:
        run_statement(self._connection, self._tables.sql[name], values)


def _change_ids(change_id: ChangeId, before: int) -> Iterator[ChangeId]:
    for place in count(before):
        yield ChangeId(f"{change_id}-{place}") if place else change_id


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

    Looks at `limit` keys behind `after`; an empty place to go on at means the beginning. Keys of
    paused automations are left out, however many there are: those are released by their resume.
    """
    free: list[str] = []
    for _ in range(limit):
        found: list[Any] = connection.execute(tables.sql["next_blocking_key"], (after,)).fetchall()
        if not found:
            return free, ""
        after = found[0][0]
        if is_automation_key(after):
            after = AUTOMATION_KEYS_END
        elif is_free(tables, connection, after):
            free.append(after)
    return free, after


def is_free(tables: Tables, connection: apsw.Connection, key: str) -> bool:
    """Say whether a run that waits for this key could have it now."""
    sql = tables.sql
    if admission.is_workspace_key(key):
        return all(not holds_keys(run) for run in _holders(tables, connection, key))
    if is_automation_key(key):
        return False
    if is_review_key(key):
        review = reviewing.find_review(connection, sql, *parse_review_key(key))
        return review is None or not review.review_required
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
    counted = admission.is_counted_key(key)
    claims = keys.count_claims(connection, tables.sql, key) if counted else keys.ANY_NUMBER
    return keys.wake(connection, tables.sql, key, claims=claims, now_ms=now_ms, limit=limit)
