"""Whether a run may go on as far as its budget is concerned, and what to do if not."""

from typing import Final

from tandem.domain.budget import (
    OPTIONS,
    UNLIMITED,
    Budget,
    BudgetKind,
    allowed,
    kind_of,
    reached,
    used_by,
)
from tandem.domain.draft import Draft
from tandem.domain.run import Run
from tandem.domain.view import RunView

BUDGET_EXCEEDED: Final = "run_budget_exceeded"


def budget_for(view: RunView) -> Budget:
    """Return the budget of a run: that of its definition, with what an operator allowed it."""
    return allowed(view.plan.budget, view.run.allowance)


def find_reached(draft: Draft) -> str:
    """Say which budget the run has reached as this draft leaves it; empty when none is."""
    budget = allowed(draft.plan.budget, draft.run.allowance)
    if budget.is_unlimited:
        return ""
    used = used_by(draft.run, now_ms=draft.now_ms, active_ms=draft.driven_ms)
    return reached(used, budget)


def refuse_exceeded(draft: Draft, verb: str) -> None:
    """Refuse to let a run go on that would be stopped again at once (W-11).

    Raises:
        Refused: its budget is reached; the text says how to raise it.
    """
    text = find_reached(draft)
    if text:
        command = _allow_command(draft.run, text)
        raise draft.refusal(
            verb, f"{text}; raise that limit first: {command}", code=BUDGET_EXCEEDED
        )


def allow_command(run: Run) -> str:
    """Return the command that raises the budget at which a run was stopped."""
    return _allow_command(run, run.stop_reason)


def is_raised(run: Run, *, now_ms: int) -> bool:
    """Say whether the budget at which a run was stopped was raised above what is used since."""
    kind, allowance = kind_of(run.stop_reason), run.allowance
    if kind is None or allowance is None or getattr(allowance, kind.value) is None:
        return False
    return not reached(used_by(run, now_ms=now_ms), allowed(UNLIMITED, allowance))


def _allow_command(run: Run, text: str) -> str:
    kind = kind_of(text)
    option = OPTIONS[kind] if kind is not None else OPTIONS[BudgetKind.TOKENS]
    return f"`tandem runs allow {run.run_id} {option} N --reason …`"
