"""What each command does to a run: the one door for everything that is not the driver's."""

from typing import assert_never

from tandem.domain import (
    aftermath,
    attention,
    by_hand,
    claiming,
    disposition,
    forking,
    gates,
    guardrail,
    operating,
    reception,
    recovering,
    repairing,
    restart,
    staleness,
    tasks,
)
from tandem.domain.change import Change
from tandem.domain.command import (
    Account,
    Adopt,
    Allow,
    AutoResume,
    Cancel,
    Claim,
    Command,
    ContinueNode,
    DecideGate,
    Dispose,
    HandBack,
    NoteEnd,
    NoteFork,
    Own,
    Panic,
    Pause,
    ProcessesEnded,
    Reap,
    Recover,
    Redeliver,
    Repair,
    ResolveWait,
    Resume,
    RetryNode,
    SetOutput,
    Skip,
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
        InvalidRequest: the command is wrong whatever the state of the run is.
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
            recovering.recover(draft, command)
        case Allow():
            guardrail.allow(draft, command)
        case Cancel():
            operating.cancel(draft, command)
        case Repair():
            repairing.repair(draft, command)
        case RetryNode():
            tasks.retry(draft, command)
        case ContinueNode():
            tasks.continue_blocked(draft, command)
        case Skip():
            by_hand.skip(draft, command)
        case SetOutput():
            by_hand.set_output(draft, command)
        case Dispose():
            disposition.dispose(draft, command)
        case Redeliver():
            recovering.redeliver(draft, command)
        case NoteFork():
            forking.note_fork(draft, command)
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
        case Account():
            guardrail.account_late(draft, command)
        case Reap():
            staleness.reap(draft, command)
        case AutoResume():
            staleness.auto_resume(draft, command)
        case NoteEnd():
            aftermath.note_end(draft, command)
        case _:
            assert_never(command)
    draft.moved = True
    return draft.close()
