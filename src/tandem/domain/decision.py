"""What each command does to a run: the one door for everything that is not the driver's."""

from typing import assert_never

from tandem.domain import (
    attention,
    claiming,
    gates,
    operating,
    reception,
    restart,
    staleness,
)
from tandem.domain.change import Change
from tandem.domain.command import (
    Adopt,
    AutoResume,
    Cancel,
    Claim,
    Command,
    DecideGate,
    HandBack,
    Own,
    Panic,
    Pause,
    ProcessesEnded,
    Reap,
    Recover,
    ResolveWait,
    Resume,
    Wake,
)
from tandem.domain.draft import Draft
from tandem.domain.ids import ChangeId
from tandem.domain.view import RunView


def decide(view: RunView, command: Command, *, change_id: ChangeId, now_ms: int) -> Change:
    """Decide what `command` does to the run.

    Raises:
        Refused: the state of the run does not allow it; nothing is to be written.
        NotFound: the command names a node or gate that the run does not have.
    """
    draft = Draft(view, change_id=change_id, now_ms=now_ms)
    match command:
        case Claim():
            claiming.claim(draft, command)
        case Pause():
            operating.pause(draft, command)
        case Resume():
            operating.resume(draft, command)
        case Recover():
            operating.recover(draft, command)
        case Cancel():
            operating.cancel(draft, command)
        case DecideGate():
            gates.decide(draft, command)
        case Wake():
            attention.attend(draft)
        case ResolveWait():
            reception.resolve(draft, command)
        case Adopt():
            restart.adopt(draft, command)
        case Own():
            claiming.own(draft, command)
        case HandBack():
            claiming.hand_back(draft, command)
        case ProcessesEnded():
            claiming.confirm_processes_ended(draft, command)
        case Panic():
            claiming.fail_panicked(draft, command)
        case Reap():
            staleness.reap(draft, command)
        case AutoResume():
            staleness.auto_resume(draft, command)
        case _:
            assert_never(command)
    draft.moved = True
    return draft.close()
