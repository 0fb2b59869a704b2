"""Everything that writes has a test in which its process is killed before and after the commit.

What there is is read from the code: the parts of a turn, the commands of a run, the writes of the
store and the commands of the command line. What is new has to be named here, with its test.
"""

import ast
from functools import cache
from pathlib import Path
from typing import Final, get_args

import click
import pytest
from desk_stories import DESK
from program import OPERATIONS

from tandem.adapters.cli.app import cli
from tandem.adapters.sqlite.writes import AnyWrite
from tandem.domain.command import Command
from tandem.settings import Settings
from tandem.wiring import open_engine

HERE: Final = Path(__file__).parent
DRIVING: Final = "test_kill.py::test_killed_at_every_commit"
TURN: Final = (
    "test_turn_kill.py::test_turn_that_is_killed_around_each_of_its_commits_does_everything_once"
)
OPERATOR: Final = "test_operator_killed.py::test_operator_killed_around_the_commit_of_a_command"
DESKS: Final = "test_desk_kill.py::test_asked_for_by_somebody_who_is_killed"
STALE: Final = "test_recovery_kill.py::test_stopping_a_stale_run_that_goes_on_by_itself"
SCHEDULE: Final = "test_trigger_kill.py::test_schedule_whose_engine_is_killed_fires_once"
HANDOFF: Final = "test_trigger_kill.py::test_handoff_whose_engine_is_killed_has_one_run"
GIVEN: Final = (
    "test_trigger_kill.py::test_handoff_whose_deposit_or_approval_is_killed_is_there_once"
)
DELIVERY: Final = "test_webhook_kill.py::test_delivery_that_is_cut_off_anywhere_becomes_one_run"
CREATION: Final = "test_keyed_kill.py::test_creation_that_was_cut_off_is_not_done_twice"
IMPORT: Final = "test_archive_kill.py::test_import_that_is_killed_is_made_again"
ORIGINAL: Final = "test_archive_kill.py::test_import_of_the_original_that_is_killed_is_made_again"
PACKING: Final = "test_archive_kill.py::test_packing_that_is_killed_loses_nothing"
GARBAGE: Final = (
    "test_archive_kill.py::test_garbage_collection_that_is_killed_never_takes_what_is_named"
)
BACKUP: Final = "test_archive_kill.py::test_backup_that_is_killed_is_whole_or_not_there"


def asked(name: str) -> str:
    """Return the test of an operation on a run."""
    assert name in OPERATIONS, name
    return OPERATOR


def on_desk(name: str) -> str:
    """Return the test of what is asked beside the runs."""
    assert name in DESK, name
    return DESKS


PARTS: Final = {
    "claim_some": DRIVING,
    "wake_some": TURN,
    "fire_due": TURN,
    "take_deliveries": TURN,
    "recover": TURN,
    "reap": TURN,
    "auto_resume": TURN,
    "tend_signals": TURN,
    "forget_signals": TURN,
    "forget_access": TURN,
    "tend_inbox": TURN,
    "wake_freed": TURN,
    "learn": TURN,
    "archive": TURN,
    "tend_handoffs": TURN,
}
COMMANDS: Final = {
    "Claim": DRIVING,
    "Pause": asked("pause"),
    "Resume": asked("resume"),
    "Recover": asked("recover"),
    "Allow": asked("allow"),
    "Cancel": asked("cancel"),
    "Repair": asked("repair"),
    "RetryNode": asked("retry"),
    "ContinueNode": asked("continue"),
    "Skip": asked("skip"),
    "SetOutput": asked("set-output"),
    "Dispose": asked("dispose"),
    "Redeliver": asked("redeliver"),
    "NoteFork": asked("fork"),
    "DecideGate": asked("decide"),
    "Wake": TURN,
    "ResolveWait": asked("resolve"),
    "Adopt": TURN,
    "Own": asked("own"),
    "HandBack": asked("hand-back"),
    "ProcessesEnded": STALE,
    "Panic": asked("panic"),
    "Account": asked("account"),
    "Reap": TURN,
    "AutoResume": TURN,
    "NoteEnd": TURN,
}
WRITES: Final = {
    "Create": CREATION,
    "Apply": DRIVING,
    "Execute": OPERATOR,
    "ClaimRuns": DRIVING,
    "ExecuteOnAutomation": on_desk("automations pause"),
    "ArchiveRuns": PACKING,
    "ImportRuns": IMPORT,
    "ImportHistories": ORIGINAL,
    "WakeFreed": TURN,
    "FailUnreadable": TURN,
    "Deliver": asked("signal"),
    "ForgetSignals": TURN,
    "ForkRun": asked("fork"),
    "DeleteRun": asked("delete"),
    "PutEngine": DRIVING,
    "RemoveEngine": DRIVING,
    "ReadVersion": "",
    "Learn": TURN,
    "DecideCandidate": on_desk("learning review"),
    "Enrol": on_desk("governance enrol"),
    "AcknowledgeReview": on_desk("governance acknowledge"),
    "TendSession": on_desk("session opened"),
    "AddToken": on_desk("tokens create"),
    "RevokeToken": on_desk("tokens revoke"),
    "NoteTokenUse": on_desk("token used"),
    "UseAssertion": on_desk("assertion used"),
    "AddAudit": on_desk("denied"),
    "ForgetAccess": TURN,
    "FireSchedule": SCHEDULE,
    "TakeHandoff": HANDOFF,
    "MarkArchived": HANDOFF,
    "TendBacklog": on_desk("backlog claim"),
    "CreateTrigger": on_desk("webhooks create"),
    "ExecuteOnTrigger": on_desk("webhooks rotate"),
    "DeleteTrigger": on_desk("webhooks delete"),
    "Receive": DELIVERY,
    "SettleDelivery": DELIVERY,
    "ForgetDeliveries": TURN,
}
"""The writes of the store; without a test is the one that only looks."""
ASKED: Final = {
    "run": DRIVING,
    "resume": DRIVING,
    "serve": DELIVERY,
    **{name: on_desk(name) for name in DESK if name.split()[0] in cli.list_commands(None)},  # type: ignore[arg-type] # it needs no context
    **{
        f"runs {name}": asked(name)
        for name in OPERATIONS
        if name in cli.get_command(None, "runs").commands  # type: ignore[arg-type, union-attr] # as above, and a group
    },
    "handoffs approve": GIVEN,
    "handoffs deposit": GIVEN,
    "gates decide": asked("decide"),
    "waits resolve": asked("resolve"),
    "db archive": PACKING,
    "db backup": BACKUP,
    "db gc": GARBAGE,
    "db import": IMPORT,
}
READING: Final = {"list", "show", "preview", "deliveries", "events", "output", "verify", "watch"}
READING_ALONE: Final = {
    "validate", "schema", "doctor", "runs why", "scheduler metrics",
    "db audit", "db check", "db export",
    "login", "logout",  # what they write is a file of their own
}  # fmt: skip


async def test_every_part_of_a_turn_has_a_kill_test(tmp_path: Path) -> None:
    async with open_engine(Settings(state_dir=tmp_path), drives=False) as parts:
        assert set(PARTS) == {*parts.engine.steps, *parts.engine.sweeps.parts}


def test_every_command_of_a_run_has_a_kill_test() -> None:
    assert set(COMMANDS) == {command.__name__ for command in get_args(Command)}


def test_every_write_of_the_store_has_a_kill_test() -> None:
    assert set(WRITES) == {write.__name__ for write in get_args(AnyWrite)}
    assert [name for name, test in WRITES.items() if not test] == ["ReadVersion"]


def test_every_command_of_the_command_line_that_writes_has_a_kill_test() -> None:
    there = {name for name in names_of(cli, "") if name.split()[-1] not in READING}
    # A name of the desk may stand for what has no command of its own.
    named = {name for name in ASKED if name in there or name not in DESK}
    assert named | READING_ALONE == there


def names_of(command: click.Command, name: str) -> list[str]:
    if not isinstance(command, click.Group):
        return [name]
    context = click.Context(command)
    return [
        found
        for below in command.list_commands(context)
        for found in names_of(command.get_command(context, below), f"{name} {below}".strip())  # type: ignore[arg-type] # it is there
    ]


@pytest.mark.parametrize(
    "test", sorted({*PARTS.values(), *COMMANDS.values(), *WRITES.values(), *ASKED.values()} - {""})
)
def test_kill_tests_exist(test: str) -> None:
    file, _, name = test.partition("::")
    assert name in functions(HERE / file)


@cache
def functions(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text("utf-8"))
    found = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in tree.body if isinstance(node, found))
