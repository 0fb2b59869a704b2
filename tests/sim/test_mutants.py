"""The simulation finds bugs: each of these breaks our own code and must be noticed soon."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import pytest

from tandem.adapters.sql.statements import load_statements
from tandem.adapters.sqlite import access, admitting, keys, triggering, webhooks, writes
from tandem.adapters.sqlite import store as store_module
from tandem.adapters.sqlite.committer import Committer
from tandem.adapters.sqlite.store import SqliteStore
from tandem.adapters.sqlite.tables import Tables
from tandem.domain import (
    admission,
    by_hand,
    claiming,
    driving,
    guardrail,
    operating,
    restart,
    reviving,
    selection,
    waits,
)
from tandem.domain.change import Change
from tandem.domain.command import Claim, Pause
from tandem.domain.completion import end_attempt
from tandem.domain.decision import decide
from tandem.domain.draft import Draft
from tandem.domain.errors import BudgetReached
from tandem.domain.firing import FiringPlan
from tandem.domain.graph import PlanNode
from tandem.domain.ids import ChangeId, NodeId, RunId, TenantId
from tandem.domain.lifecycle import DRIVEN, RunEvent
from tandem.domain.run import AttemptEnd, Wait
from tandem.domain.settling import interrupt
from tandem.engine.driver import Driver
from tandem.engine.engine import Engine
from tandem.engine.handoffs import Handoffs
from tandem.engine.inbox import Inbox
from tandem.engine.meter import Ledger
from tandem.testing import loop
from tandem.testing.executor import ScriptedExecutor
from tandem.testing.host import SimulatedHost
from tandem.testing.simulation import Broken, simulate
from tandem.testing.triggers import APPROVED, WORKSPACE
from tests.sim.witnesses import Witnesses

SEEDS_MAX = 1_200
CALLBACKS_MAX = 60_000
"""More than any world takes in which nothing is broken; `test_schedules.py` checks that."""

Patch = Callable[[pytest.MonkeyPatch], None]


def _without_fences(patch: pytest.MonkeyPatch, *, compares: bool) -> None:
    # The unique number of an event is the second fence: alone it refuses every late writer.
    changes = {"add_event": ("INSERT INTO", "INSERT OR REPLACE INTO")}
    if not compares:
        anything = "(last_change_id = :builds_on OR epoch = :epoch OR 1)"
        for name in ("advance_run", "move_run"):
            changes[name] = ("last_change_id = :builds_on AND epoch = :epoch", anything)
    statements = dict(load_statements())
    for name, (old, new) in changes.items():
        assert old in statements[name]
        statements[name] = statements[name].replace(old, new)
    patch.setattr(store_module, "load_statements", lambda: statements)


def no_compare_and_set(patch: pytest.MonkeyPatch) -> None:
    """A change counts whatever happened to the run since it was read."""
    _without_fences(patch, compares=False)


def driver_never_reloads(patch: pytest.MonkeyPatch) -> None:
    """A refused change is decided again on the same old state."""

    async def reload(driver: Driver) -> None:
        driver._is_stale = False
        await asyncio.sleep(0)

    patch.setattr(Driver, "_reload", reload)


def leftovers_live_on(patch: pytest.MonkeyPatch) -> None:
    """A takeover does not look for what the dead engine left."""

    async def end_leftovers(_self: ScriptedExecutor, **_what: object) -> int:
        return 0

    patch.setattr(ScriptedExecutor, "end_leftovers", end_leftovers)


def commands_act_on_what_they_once_read(patch: pytest.MonkeyPatch) -> None:
    """Read first, write later: a command is decided outside its transaction."""

    async def execute(
        self: SqliteStore,
        run_id: RunId,
        command: Any,
        *,
        tenant: TenantId,
        change_id: ChangeId,
        now_ms: int,
        **_more: object,
    ) -> Change:
        view = self.read(run_id, tenant=tenant)
        change = decide(view, command, change_id=change_id, now_ms=now_ms)
        await asyncio.sleep(0.005)
        tables = self._tables

        def write(connection: Any) -> Change:
            now = tables.load(connection, run_id, tenant).run
            forced = msgspec.structs.replace(
                change, builds_on=now.last_change_id, epoch_before=now.epoch
            )
            tables.write(connection, forced)
            return forced

        return await self.committer.submit(write, landed=lambda c: tables.landed(c, change))

    _without_fences(patch, compares=True)
    patch.setattr(SqliteStore, "execute", execute)


def _believe(patch: pytest.MonkeyPatch, *, landed: bool) -> None:
    original = Committer.submit

    def submit(committer: Committer, statements: Any, **_how: object) -> Any:
        return original(committer, statements, landed=lambda _connection: landed)

    patch.setattr(Committer, "submit", submit)


def failed_commits_are_believed_lost(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks whether a failed commit is on disk."""
    _believe(patch, landed=False)


def failed_commits_are_believed_done(patch: pytest.MonkeyPatch) -> None:
    """A commit that failed is acknowledged."""
    _believe(patch, landed=True)


def everybody_else_is_dead(patch: pytest.MonkeyPatch) -> None:
    """An engine takes over from engines that are alive."""
    patch.setattr(SimulatedHost, "is_dead", lambda *_args, **_more: True)


def nobody_is_ever_dead(patch: pytest.MonkeyPatch) -> None:
    """The runs of a dead engine stay with it."""
    patch.setattr(SimulatedHost, "is_dead", lambda *_args, **_more: False)


def claims_do_not_raise_the_epoch(patch: pytest.MonkeyPatch) -> None:
    """Two claims cannot be told apart."""
    original = claiming.claim

    def claim(draft: Draft, command: Claim) -> None:
        original(draft, command)
        draft.run.epoch -= 1

    patch.setattr(claiming, "claim", claim)


def nodes_start_before_their_dependencies(patch: pytest.MonkeyPatch) -> None:
    """Every pending node counts as ready."""

    def candidates(draft: Draft, _fresh: object) -> list[int]:
        return [
            plan_node.node_no
            for plan_node in draft.plan.nodes
            if draft.node(plan_node.node_no).state is driving.N.PENDING and not plan_node.is_parked
        ]

    patch.setattr(driving, "candidates", candidates)


def bodies_start_before_the_disk_knows(patch: pytest.MonkeyPatch) -> None:
    """The driver does not wait for the commit of what it begins."""
    original = Driver._step

    async def step(driver: Driver) -> Change | None:
        store = driver._store
        applied = store.apply

        def apply_later(change: Change) -> Any:
            waiting = applied(change)
            waiting.add_done_callback(lambda done: done.cancelled() or done.exception())  # type: ignore[attr-defined]
            return asyncio.sleep(0)

        driver._store = _Overlay(store, apply_later)  # type: ignore[assignment]
        try:
            return await original(driver)
        finally:
            driver._store = store

    patch.setattr(Driver, "_step", step)


class _Overlay:
    def __init__(self, store: Any, apply: Any) -> None:
        self._store = store
        self.apply = apply

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def outcomes_are_dropped_on_refusal(patch: pytest.MonkeyPatch) -> None:
    """A driver that has to read again forgets what its bodies said."""
    original = Driver._reload

    async def reload(driver: Driver) -> None:
        driver._settled.clear()
        await original(driver)

    patch.setattr(Driver, "_reload", reload)


def claims_are_cut_off_at_the_stop(patch: pytest.MonkeyPatch) -> None:
    """An engine that stops does not wait for the claim that it is writing, and is forgotten."""
    original = Engine.__aexit__

    async def leave(engine: Engine, *why: Any) -> None:
        engine._dispatching.cancel()
        await original(engine, *why)

    def statements() -> Mapping[str, str]:
        forget = "DELETE FROM engine WHERE engine_id = :engine_id;"
        return {**load_statements(), "remove_engine": forget}

    patch.setattr(Engine, "__aexit__", leave)
    patch.setattr(store_module, "load_statements", statements)


def failed_commits_are_never_looked_up(patch: pytest.MonkeyPatch) -> None:
    """The disk is given up after a failed commit, and nobody asks it again."""

    def give_up(committer: Committer) -> bool:
        if committer._is_connected:
            committer._disconnect()
        return False

    patch.setattr(Committer, "_ask_the_disk", give_up)


def runs_of_a_paused_automation_are_claimed(patch: pytest.MonkeyPatch) -> None:
    """A claim does not look at the automation."""
    patch.setattr(admitting, "hold_of", lambda _row: None)


def waits_do_not_look_for_signals_that_came_before(patch: pytest.MonkeyPatch) -> None:
    """Only a signal looks for waits; one that came first is never found."""
    patch.setattr(writes, "catch_up", lambda *_what: None)


def woken_waits_leave_their_run_parked(patch: pytest.MonkeyPatch) -> None:
    """A wait that is over completes its node, and nobody queues the run."""
    original = waits.wake

    def wake(draft: Draft, wait: Wait, **how: Any) -> None:
        parked, draft.run.parked = draft.run.parked, ""
        original(draft, wait, **how)
        draft.run.parked = parked

    patch.setattr(waits, "wake", wake)


def freed_keys_wake_nobody(patch: pytest.MonkeyPatch) -> None:
    """Whoever frees a workspace or a place leaves those who wait for it to the net."""
    patch.setattr(keys, "wake", lambda *_args, **_how: 0)


def cancelled_runs_let_go_of_their_workspace(patch: pytest.MonkeyPatch) -> None:
    """A run that is being ended holds nothing, though its processes live."""
    patch.setattr(keys, "holds_keys", lambda run: run.status in DRIVEN)


def nested_workspaces_do_not_meet(patch: pytest.MonkeyPatch) -> None:
    """Only the very same path is in the way."""
    patch.setattr(keys, "paths_around", lambda path: (path,))
    patch.setattr(keys, "range_inside", lambda _path: ("", ""))


def claims_do_not_count_each_other(patch: pytest.MonkeyPatch) -> None:
    """Every run believes to be the only one under its concurrency key."""
    patch.setattr(keys, "count_claims", lambda *_args: 0)


def places_are_those_of_the_engine_alone(patch: pytest.MonkeyPatch) -> None:
    """What other engines drive is not counted."""
    patch.setattr(admission, "free_places", lambda limit, **_facts: limit)


def silent_bodies_show_no_life(patch: pytest.MonkeyPatch) -> None:
    """Nobody says that a body is alive, so a healthy silent one counts as stale."""
    patch.setattr(Driver, "is_active", property(lambda _driver: False))


def revived_runs_do_not_ask_anew(patch: pytest.MonkeyPatch) -> None:
    """What the end of a run withdrew is not asked again when the run is taken up."""
    patch.setattr(reviving, "_ask_anew", lambda *_args, **_more: None)


def pauses_let_go_of_what_runs(patch: pytest.MonkeyPatch) -> None:
    """A run that pauses at once counts as paused while its bodies are still being ended."""
    original = operating.pause

    def pause(draft: Draft, command: Pause) -> None:
        original(draft, command)
        running = sorted(draft.in_state(operating.N.RUNNING))
        if not command.now or not running:
            return
        for number in running:
            node = draft.node(number)
            end_attempt(draft, node, AttemptEnd.STOPPED)
            interrupt(draft, draft.plan.nodes[number], node, reason="", counts=False)
        draft.happen(RunEvent.RUN_PAUSED)

    patch.setattr(operating, "pause", pause)


def results_by_hand_skip_approvals(patch: pytest.MonkeyPatch) -> None:
    """A person can complete an approval without deciding it."""

    def target(draft: Draft, _verb: str, node_id: NodeId, _reason: str) -> PlanNode:
        plan_node = draft.plan.nodes[draft.plan.by_id[node_id]]
        if draft.node(plan_node.node_no).state is operating.N.RUNNING:
            raise draft.refusal("complete", "it runs")
        return plan_node

    patch.setattr(by_hand, "_target", target)


def barriers_hold_nobody(patch: pytest.MonkeyPatch) -> None:
    """A phase that is a barrier only orders."""
    patch.setattr(selection, "is_held", lambda _rank, _limit: False)
    patch.setattr(driving, "is_held", lambda _rank, _limit: False)


def claims_collide_with_nothing(patch: pytest.MonkeyPatch) -> None:
    """Two nodes that change the same files run at once."""
    patch.setattr(selection, "_is_free", lambda _draft, _lane: True)


def stopped_bodies_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A rollback lets the bodies run on that it took back."""
    patch.setattr(Driver, "_end_forgotten", lambda _driver: None)


def _with_statements(patch: pytest.MonkeyPatch, **changes: tuple[str, str]) -> None:
    statements = dict(load_statements())
    for name, (old, new) in changes.items():
        assert old in statements[name]
        statements[name] = statements[name].replace(old, new)
    patch.setattr(store_module, "load_statements", lambda: statements)


def missed_instants_are_not_told(patch: pytest.MonkeyPatch) -> None:
    """The record of a firing says nothing of the older ones that were left out."""
    original = triggering.firings_of

    def firings_of(plan: FiringPlan, *args: Any, **how: Any) -> Any:
        alone = 0 if plan.due_at_ms else min(plan.missed, 1)
        return original(msgspec.structs.replace(plan, missed=alone), *args, **how)

    patch.setattr(triggering, "firings_of", firings_of)


def ends_release_no_firing(patch: pytest.MonkeyPatch) -> None:
    """A firing that was put off is never looked at again."""
    patch.setattr(Tables, "_release_firing", lambda *_what: None)


def firings_do_not_wait_for_runs(patch: pytest.MonkeyPatch) -> None:
    """A schedule fires although its last run has not ended."""
    patch.setattr(triggering, "find_open_run", lambda *_what: None)


def handoffs_that_were_taken_start_again(patch: pytest.MonkeyPatch) -> None:
    """Whatever lies in the folder starts a run."""
    patch.setattr(triggering, "find_consumed", lambda *_what: None)
    again = "DO UPDATE SET run_id = excluded.run_id"
    _with_statements(
        patch,
        take_handoff=("DO NOTHING", again),
        refuse_firing=("WHERE outcome = 'refused'", ""),
    )


def handoffs_are_moved_before_they_are_taken(patch: pytest.MonkeyPatch) -> None:
    """The file goes first, then its run is created."""
    original = Handoffs._take

    async def take(self: Handoffs, row: Any, made: Any, file: Any, handoff: Any) -> Any:
        self._files.remove_file(WORKSPACE, f"{APPROVED}/{file.file}")
        return await original(self, row, made, file, handoff)

    patch.setattr(Handoffs, "_take", take)


def same_deliveries_are_taken_again(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks whether an event or a body was there before."""
    patch.setattr(webhooks, "_known_claims", lambda *_what: {})
    _with_statements(patch, add_webhook_claim=("INSERT INTO", "INSERT OR REPLACE INTO"))


def deliveries_are_left_by_the_engine_that_dies(patch: pytest.MonkeyPatch) -> None:
    """Only the engine that took a delivery looks into the inbox, and only once."""

    async def take(self: Inbox) -> int:
        return 0

    patch.setattr(Inbox, "take", take)


def keys_are_not_looked_up(patch: pytest.MonkeyPatch) -> None:
    """A request that comes again creates its run again."""
    patch.setattr(access, "was_done", lambda *_what, **_how: None)
    patch.setattr(access, "put_key", lambda *_what, **_how: None)


def calls_do_not_wait_for_each_other(patch: pytest.MonkeyPatch) -> None:
    """Each call looks at what was spent, and at no call that is under way."""

    async def enter(self: Ledger, call: Any) -> None:
        if text := self.reached():
            raise BudgetReached(text)
        self._calls.add(call)

    patch.setattr(Ledger, "enter", enter)


def runs_do_not_count_what_attempts_spend(patch: pytest.MonkeyPatch) -> None:
    """The attempt knows what it has spent, its run does not."""

    def account(draft: Draft, spent: Any) -> None:
        draft.spent += spent
        draft.moved |= bool(spent)

    patch.setattr(guardrail, "account", account)


def dead_engines_forget_what_was_allowed(patch: pytest.MonkeyPatch) -> None:
    """A run that was allowed more while it paused rests when its engine dies."""
    patch.setattr(restart, "go_on_if_allowed", lambda _draft: None)


MUTANTS: dict[Patch, int] = {
    missed_instants_are_not_told: 4,
    ends_release_no_firing: 4,
    firings_do_not_wait_for_runs: 4,
    handoffs_that_were_taken_start_again: 9,
    handoffs_are_moved_before_they_are_taken: 0,
    same_deliveries_are_taken_again: 35,
    deliveries_are_left_by_the_engine_that_dies: 0,
    keys_are_not_looked_up: 0,
    calls_do_not_wait_for_each_other: 2,
    runs_do_not_count_what_attempts_spend: 1,
    dead_engines_forget_what_was_allowed: 30,
    runs_of_a_paused_automation_are_claimed: 84,
    waits_do_not_look_for_signals_that_came_before: 13,
    woken_waits_leave_their_run_parked: 0,
    revived_runs_do_not_ask_anew: 98,
    pauses_let_go_of_what_runs: 789,
    results_by_hand_skip_approvals: 159,
    no_compare_and_set: 6,
    driver_never_reloads: 6,
    leftovers_live_on: 11,
    commands_act_on_what_they_once_read: 6,
    failed_commits_are_believed_lost: 14,
    failed_commits_are_believed_done: 5,
    everybody_else_is_dead: 2,
    nobody_is_ever_dead: 5,
    claims_do_not_raise_the_epoch: 0,
    nodes_start_before_their_dependencies: 0,
    bodies_start_before_the_disk_knows: 5,
    outcomes_are_dropped_on_refusal: 5,
    claims_are_cut_off_at_the_stop: 23,
    failed_commits_are_never_looked_up: 5,
    freed_keys_wake_nobody: 2,
    cancelled_runs_let_go_of_their_workspace: 237,
    nested_workspaces_do_not_meet: 38,
    claims_do_not_count_each_other: 21,
    places_are_those_of_the_engine_alone: 15,
    silent_bodies_show_no_life: 45,
    barriers_hold_nobody: 14,
    claims_collide_with_nothing: 20,
    stopped_bodies_are_forgotten: 931,
}
"""Each with a world that notices it. Worlds change with their rules: then others are tried."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_mutant_is_caught(
    mutant: Patch, monkeypatch: pytest.MonkeyPatch, witnesses: Witnesses
) -> None:
    monkeypatch.setattr(loop, "CALLBACKS_MAX", CALLBACKS_MAX)
    mutant(monkeypatch)

    seed, broken = _first_broken([MUTANTS[mutant], *range(SEEDS_MAX)])

    # What was noticed must be a broken promise, not a mutant that does not fit the code any more.
    assert not isinstance(broken.__cause__, AttributeError | TypeError | NameError)
    witnesses.note(mutant.__name__, MUTANTS[mutant], seed)


def _first_broken(seeds: Iterable[int]) -> tuple[int, Broken]:
    for seed in seeds:
        try:
            simulate(seed)
        except Broken as broken:
            return seed, broken
    pytest.fail(f"none of {SEEDS_MAX} worlds noticed it")
