"""`tandem learning` and `tandem governance` on the command line."""

import json
from collections.abc import Callable
from pathlib import Path

from tandem.adapters.cli import learning
from tandem.domain.candidate import CandidateKind, CandidateStatus, ReviewAction

from .conftest import Call, sh

Write = Callable[[str, str], str]
TOLD = f"""\
nodes: [{{node_id: tell, action: {sh('echo "${TANDEM_LEARNINGS:-nothing}" > told')}}}]
"""


def test_words_are_those_of_the_domain() -> None:
    assert tuple(kind.value for kind in CandidateKind) == learning.KINDS
    assert tuple(status.value for status in CandidateStatus) == learning.STATUSES
    assert tuple(action.value for action in ReviewAction) == learning.ACTIONS


def test_what_was_learned_is_approved_and_told(call: Call, write: Write) -> None:
    file = write("told.yaml", TOLD)
    assert "nothing was learned yet" in call("learning", "list").err
    assert call("run", file).code == 0
    assert Path("told").read_text() == "nothing\n"
    found = call("learning", "list", "--json").json
    assert found["count"] == 1
    (candidate,) = found["candidates"]
    assert (candidate["kind"], candidate["status"]) == ("memory_fact", "proposed")
    shown = call("runs", "show", "latest", "--json").json
    name = candidate["candidate_id"]
    assert shown["learning_summary"]["generated_candidate_ids"] == [name]
    status = json.loads(Path(shown["status_file"]).read_text())
    assert status["learning_summary"]["post_run_metrics"]["sample_size"] == 1

    assert call("learning", "review", name, "approve", "--note", "true").out.endswith("approved\n")
    refused = call("learning", "review", name, "approve")
    assert refused.code == 5
    assert "is approved" in refused.err
    assert call("learning", "show", "wflearn-none").code == 4
    assert "approved" in call("learning", "show", name).out
    assert call("learning", "show", name, "--json").json["review_note"] == "true"
    assert name in call("learning", "list", "--status", "approved").out

    assert call("run", file).code == 0
    assert json.loads(Path("told").read_text()) == [f"memory_fact: {candidate['summary']}"]
    again = call("runs", "show", "latest", "--json").json
    assert again["learning_summary"]["injected_learning_ids"] == [name]


def test_reviewed_automation_runs_again_once_it_is_acknowledged(call: Call, write: Write) -> None:
    file = write("told.yaml", TOLD)
    assert call("governance", "show", "told").code == 4
    assert call("governance", "acknowledge", "told").code == 4
    assert "no automation is enrolled" in call("governance", "list").err
    enrolled = call("governance", "enrol", "told", "--json").json["governance"]
    assert enrolled["runs_max"] == 20
    assert "review after 1" in call("governance", "enrol", "told", "--runs", "1").out
    assert call("run", file).code == 0
    refused = call("run", file)
    assert refused.code == 5
    assert "tandem governance acknowledge told" in refused.err
    assert "to be reviewed" in call("governance", "show", "told").out
    shown = call("governance", "show", "told", "--json").json
    assert shown["governance"]["review_kind"] == "run_drift"
    assert shown["metrics"]["completion_rate"] == 1.0
    assert "required" in call("governance", "list").out
    assert len(call("governance", "list", "--json").json) == 1
    assert "automation_review_requested" in call("runs", "events", "latest").out
    done = call("governance", "acknowledge", "told", "--note", "fine", "--json").json["governance"]
    assert (done["review_required"], done["runs_since_review"]) == (False, 0)
    assert call("run", file).code == 0
