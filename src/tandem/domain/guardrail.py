"""What a budget does to a run: stops it when it is reached, lets it go on when it is raised.

Sources: run-lifecycle 4.9, T30 and T92. Nothing of it happens twice for one cause (W-11): a run
that was stopped is not resumed while its budget is reached.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from tandem.domain.budget import OPTIONS, BudgetKind, allowed, kind_of
from tandem.domain.command import Account, Allow
from tandem.domain.draft import Draft
from tandem.domain.errors import InvalidRequest, NothingToDo
from tandem.domain.json import JsonObject
from tandem.domain.lifecycle import NodeState, RunEvent, RunState, StopKind
from tandem.domain.operating import PAUSE_NOW
from tandem.domain.overrun import find_reached, refuse_exceeded
from tandem.domain.reviving import queue, refuse_cleanup
from tandem.domain.run import Allowance, Run
from tandem.domain.usage import LIMIT_MAX, LIMIT_USD_MAX, NOTHING, Spent, Usage

E, N, S = RunEvent, NodeState, RunState

AUTO_RESUMED: Final = "auto_resume_after_guardrail_override"


def account(draft: Draft, spent: Sequence[Spent]) -> None:
    """Count what attempts have spent; the row of the run is always the sum of theirs."""
    run = draft.run
    for item in spent:
        total = run.usage.plus(item.added)
        run.prompt_tokens = total.prompt_tokens
        run.completion_tokens = total.completion_tokens
        run.total_tokens = total.total_tokens
        run.cost_nano_usd = total.cost_nano_usd
        run.tool_calls = total.tool_calls
        draft.spent.append(item)
        draft.moved = True


def note_usage(draft: Draft) -> None:
    """Record that usage was counted, in a change in which nothing else happens."""
    usage = draft.run.usage
    told: JsonObject = {
        "attempts": [_told(draft, item) for item in draft.spent],
        "total_tokens": usage.total_tokens,
        "estimated_cost_usd": usage.cost_usd,
        "tool_calls": usage.tool_calls,
    }
    draft.happen(E.USAGE_RECORDED, metadata=told)


def _told(draft: Draft, item: Spent) -> JsonObject:
    return {
        "node_id": draft.plan.nodes[item.node_no].node_id,
        "attempt": item.number,
        "total_tokens": item.added.total_tokens,
        "cost_usd": item.added.cost_usd,
        "tool_calls": item.added.tool_calls,
    }


def not_counted(command: Account, stored: Mapping[tuple[int, int], Usage]) -> Account:
    """Return what of a late account is not counted yet.

    Whoever asks may not know what came of an earlier change, or asks again; `stored` is what the
    attempts, by node and number, are known to have spent.

    Raises:
        NothingToDo: all of it is counted.
    """
    left = [
        msgspec.structs.replace(
            item, added=item.usage.minus(stored.get((item.node_no, item.number), NOTHING))
        )
        for item in command.spent
    ]
    spent = tuple(item for item in left if item.added != NOTHING)
    if not spent:
        raise NothingToDo("what the attempts had spent is counted already")
    return Account(spent=spent)


def account_late(draft: Draft, command: Account) -> None:
    """Count what attempts had spent when their run was taken from their engine (W-21)."""
    account(draft, command.spent)
    note_usage(draft)


def trip(draft: Draft, text: str) -> None:
    """Stop a run whose budget is reached (T30); `text` says which.

    It pauses once nothing of it runs. A reached runtime ends what runs at once; otherwise what
    spends is ended by the meter, and the rest is let to its end.
    """
    run = draft.run
    ends_all = kind_of(text) is BudgetKind.RUNTIME and bool(draft.in_state(N.RUNNING))
    draft.happen(
        E.RUN_PAUSE_REQUESTED,
        reason=text,
        stop_kind=StopKind.GUARDRAIL_STOPPED,
        metadata={"now": ends_all},
    )
    run.stop_kind = StopKind.GUARDRAIL_STOPPED
    run.stop_reason = run.pause_reason = run.detail = text
    if ends_all:
        run.pause_mode = PAUSE_NOW


def is_stopped(run: Run) -> bool:
    """Say whether the run rests, or comes to rest, because of its budget."""
    return (
        run.status in (S.PAUSED, S.PAUSING)
        and run.stop_kind is StopKind.GUARDRAIL_STOPPED
        and not run.parked
    )


def allow(draft: Draft, command: Allow) -> None:
    """Give a run other limits; one that stopped at its budget goes on if it may (T92).

    Raises:
        InvalidRequest: nothing is allowed, or nobody says why.
        Refused: it would go on and be stopped again at once.
    """
    run = draft.run
    given = {kind.value: getattr(command, kind.value) for kind in BudgetKind}
    changed = {name: value for name, value in given.items() if value is not None}
    if not changed:
        options = ", ".join(OPTIONS.values())
        raise InvalidRequest(f"no limit is given; give one of {options}", code="limit_required")
    if any(value < 0 for value in changed.values()):
        raise InvalidRequest("a limit cannot be below 0", code="limit_invalid")
    for name, value in changed.items():
        highest = LIMIT_USD_MAX if name == BudgetKind.COST else LIMIT_MAX
        if value > highest:
            raise InvalidRequest(f"`{name}` can be at most {highest}", code="limit_invalid")
    if not command.reason.strip():
        raise InvalidRequest("say why the run may spend more", code="reason_required")
    before = allowed(draft.plan.budget, run.allowance)
    run.allowance = msgspec.structs.replace(
        run.allowance or Allowance(), **changed, resumes=command.resume
    )
    draft.happen(
        E.RUN_BUDGET_CHANGED,
        reason=command.reason,
        metadata={
            "allowed": changed,
            "before": msgspec.to_builtins(before),
            "resume": command.resume,
            "actor": command.decided_by,
        },
    )
    if run.status is S.PAUSED and is_stopped(run) and command.resume:
        refuse_cleanup(draft, "resume")
        refuse_exceeded(draft, "resume")
        go_on(draft)
        run.owner = command.owner


def go_on(draft: Draft) -> None:
    """Let a run go on by itself that had stopped at its budget (T92).

    It is not counted as one that was found stale and resumed (W-11).
    """
    run = draft.run
    draft.happen(
        E.RUN_AUTO_RESUMED,
        reason=AUTO_RESUMED,
        metadata={"stop_kind": StopKind.GUARDRAIL_STOPPED.value, "agent_ids": []},
    )
    queue(draft)
    run.detail = ""
    run.resume_reason = AUTO_RESUMED


def come_to_rest(draft: Draft) -> None:
    """Pause a run of which nothing runs any more; go on if it was allowed more meanwhile."""
    run = draft.run
    kind = run.stop_kind if is_stopped(run) else None
    draft.happen(E.RUN_PAUSED, reason=run.pause_reason, stop_kind=kind)
    run.detail = run.pause_reason
    go_on_if_allowed(draft)


def go_on_if_allowed(draft: Draft) -> None:
    """Let a run go on that was allowed more on its way to rest, whatever brought it there."""
    if may_go_on(draft):
        go_on(draft)


def may_go_on(draft: Draft) -> bool:
    """Say whether a run that stopped at its budget was allowed enough more to go on."""
    run = draft.run
    allowance = run.allowance
    is_allowed = is_stopped(run) and allowance is not None and allowance.resumes
    return is_allowed and not find_reached(draft)
