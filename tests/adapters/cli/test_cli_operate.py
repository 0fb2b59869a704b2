"""What operators ask of runs on the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Call, sh

Write = Callable[[str, str], str]

FAILING = f"""\
nodes:
  - {{node_id: a, action: {sh("printf hi")}}}
  - node_id: b
    depends_on: [a]
    retry_policy: {{max_attempts: 1}}
    output_contract: {{kind: report, schema: {{type: integer}}}}
    action: {sh("exit 3")}
  - {{node_id: c, depends_on: [b], action: {sh("printf end")}}}
"""
GOOD = json.dumps({"kind": "command", "shell": True, "script": "echo 5"})


@pytest.fixture
def failed(call: Call, write: Write) -> str:
    """Return the id of a failed run."""
    call("run", write("failing.yaml", FAILING), "--quiet")
    return latest(call)


def latest(call: Call) -> str:
    return str(call("runs", "list", "--json").json[0]["run_id"])


def status(call: Call, run: str) -> str:
    return str(call("runs", "show", run, "--json").json["status"])


def names(call: Call, run: str, *kinds: str) -> list[str]:
    events = call("runs", "events", run, "--json").lines
    return [event["event"] for event in events if not kinds or event["event"] in kinds]


def test_recovered_run_is_queued_and_says_how_to_go_on(call: Call, failed: str) -> None:
    answer = call("runs", "recover", failed)
    assert answer.code == 0
    assert answer.out == f"run {failed} is queued\n"
    assert "to go on here: tandem resume " in answer.err
    again = call("runs", "recover", failed, "--json")
    assert again.code == 5
    assert json.loads(again.err)["error"]["code"] == "AUTOMATION_V2_RUN_NOT_RECOVERABLE"


def test_repair_changes_one_run_and_the_run_completes(call: Call, failed: str) -> None:
    before = call("runs", "show", failed, "--json").json["definition_digest"]
    row = call("runs", "repair", failed, "b", "--action", GOOD, "--reason", "mended", "--json").json
    assert row["definition_digest"] != before
    assert row["resume_reason"] == "mended"
    assert call("resume", failed, "--quiet").code == 0
    assert call("runs", "output", failed, "b").out == "5\n"


def test_repair_takes_inputs_models_and_files_and_refuses_what_has_no_effect(
    call: Call, failed: str, write: Write
) -> None:
    write("prompt.txt", "Be brief.")
    for options, code in (
        (["--prompt", "@prompt.txt"], 2),
        (["--model", "p/m", "--template", "t"], 2),
        (["--model", "none"], 2),
        (["--action", "[]"], 2),
        (["--action", "{"], 2),
        (["--input", "x"], 2),
        (["--input", "x=1"], 3),
        (["--input", "x=word"], 3),
        (["--action", GOOD, "--save"], 5),
    ):
        assert call("runs", "repair", failed, "b", *options).code == code, options
    assert status(call, failed) == "failed"


def test_node_is_retried_requeued_or_skipped(call: Call, failed: str) -> None:
    assert call("runs", "retry", failed, "b", "--reason", "again").code == 0
    assert call("resume", failed, "--quiet").code == 1
    assert call("runs", "requeue", failed, "b").code == 0
    assert call("resume", failed, "--quiet").code == 1
    assert call("runs", "skip", failed, "b").code == 2
    assert call("runs", "skip", failed, "b", "--reason", "not today").code == 0
    assert call("resume", failed, "--quiet").code == 0
    assert "completed (skipped)" in call("runs", "show", failed).out
    kinds = ("run_task_retried", "run_task_requeued", "node_skipped")
    assert names(call, failed, *kinds) == list(kinds)


def test_blocked_node_is_continued(call: Call, write: Write, tmp_path: Path) -> None:
    text = f"""\
nodes:
  - node_id: a
    retry_policy: {{max_attempts: 1}}
    output_contract: {{kind: report, required_files: [report.md]}}
    action: {sh("printf draft")}
"""
    assert call("run", write("blocked.yaml", text), "--quiet").code == 7
    run = latest(call)
    (tmp_path / "work" / "report.md").write_text("# Report")
    assert call("runs", "continue", run, "a").code == 0
    assert call("resume", run, "--quiet").code == 0
    assert call("runs", "continue", run, "a").code == 5


def test_output_by_hand_has_to_match_the_contract(call: Call, failed: str, write: Write) -> None:
    reason = ["--reason", "known"]
    refused = call("runs", "set-output", failed, "b", "--output", '"x"', *reason, "--json")
    assert refused.code == 2
    assert json.loads(refused.err)["error"]["code"] == "output_schema_invalid"
    write("five.json", "5")
    assert call("runs", "set-output", failed, "b", "--output", "@five.json", *reason).code == 0
    assert call("resume", failed, "--quiet").code == 0


def test_disposition_is_kept_and_its_repetition_is_no_error(call: Call, failed: str) -> None:
    first = call("runs", "dispose", failed, "a", "--as", "ok", "--json")
    assert (first.code, first.json["status"]) == (0, "failed")
    again = call("runs", "dispose", failed, "a", "--as", "accepted", "--json")
    assert (again.code, again.json["done"], again.json["unchanged"]) == (0, False, True)
    assert call("runs", "dispose", failed, "a", "--as", "meh").code == 2
    assert call("runs", "dispose", failed, "b", "--as", "ok").code == 4


def test_only_outside_effects_are_redelivered(call: Call, failed: str) -> None:
    answer = call("runs", "redeliver", failed)
    assert answer.code == 5
    assert "no node with `effects: external` failed" in answer.err


def test_preview_says_what_would_be_undone(call: Call, failed: str) -> None:
    found = call("runs", "preview", failed, "recover", "--json").json
    assert (found["reset_nodes"], found["refusal"]) == (["b", "c"], None)
    text = call("runs", "preview", failed, "retry", "a").out
    assert "the run would be queued\nrun again: a, b, c\noutputs superseded: a\n" in text
    assert call("runs", "retry", failed, "a", "--dry-run").out == text
    assert call("runs", "preview", failed, "repair", "z").code == 4
    assert call("runs", "preview", failed, "rework").out.startswith("now refused: ")
    assert status(call, failed) == "failed"


def test_paused_run_is_resumed_for_whoever_takes_it(call: Call, write: Write) -> None:
    file = write("hello.yaml", f"nodes: [{{node_id: say, action: {sh('printf hello')}}}]\n")
    call("run", file, "--detach")
    assert call("runs", "pause", "latest", "--now").out.endswith(" is paused\n")
    assert call("runs", "resume", "latest").code == 0
    assert call("runs", "resume", "latest").code == 5
    assert status(call, "latest") == "queued"


# Forking and deleting


def test_fork_prints_the_new_run(call: Call, failed: str) -> None:
    answer = call("runs", "fork", failed, "b", "--reason", "what if", "--ask-again")
    made = answer.out.strip()
    assert answer.err == f"forked from {failed} at node `b`\n"
    assert call("runs", "repair", made, "b", "--action", GOOD).code == 5
    row = call("runs", "show", made, "--json").json
    assert (row["forked_from"], row["forked_from_node"]) == (failed, "b")
    assert row["nodes"][0]["state"] == "completed"
    assert f"from    {failed} at node `b`" in call("runs", "show", made).out
    assert f"fork    {made} at node `b`" in call("runs", "show", failed).out
    assert call("runs", "show", failed, "--json").json["forks"] == [made]
    as_json = call("runs", "fork", failed, "b", "--json").json
    assert as_json["forked_from"] == failed
    assert call("runs", "fork", failed, "b", "--dry-run").out == f"run {failed}: it would be done\n"
    assert call("runs", "fork", failed, "z").code == 4


def test_delete_asks_for_yes(call: Call, failed: str) -> None:
    assert call("runs", "delete", failed).code == 2
    assert call("runs", "delete", failed, "--dry-run").out == f"run {failed}: it would be done\n"
    gone = call("runs", "delete", failed, "--yes", "--json")
    assert gone.json == {"deleted": True, "artifacts_removed": 0}
    assert call("runs", "show", failed).code == 4
    assert call("runs", "delete", failed, "--yes").code == 4


# Many


def test_many_runs_are_counted_first_and_then_done(call: Call, write: Write) -> None:
    file = write("failing.yaml", FAILING)
    for _ in range(2):
        call("run", file, "--quiet")
    hello = write("hello.yaml", f"nodes: [{{node_id: b, action: {sh('printf hello')}}}]\n")
    call("run", hello, "--quiet")

    counted = call("runs", "skip", "b", "--status", "failed", "--dry-run", "--reason", "x")
    assert counted.out == "2 runs: 2 would be done, 0 refused\n"
    assert call("runs", "skip", "b", "--status", "failed", "--reason", "x").code == 2
    both = ("--status", "failed", "--status", "completed")
    done = call("runs", "skip", "b", *both, "--all", "--reason", "x", "--json")
    assert done.code == 5
    assert done.lines[-1] == {"type": "result", "dry_run": False, "done": 2, "refused": 1}
    assert [line.get("code") for line in done.lines[:-1]] == [
        "AUTOMATION_V2_RUN_TASK_NOT_MUTABLE",
        "",
        "",
    ]
    cursor = str(done.lines[0]["cursor"])
    rest = call("runs", "cancel", "--all", "--cursor", cursor)
    assert "2 runs: 2 done, 0 refused\n" in rest.out
    old = call("runs", "delete", "--all", "--older-than", "2d", "--yes")
    assert old.out == "0 runs: 0 done, 0 refused\n"
    gone = call("runs", "delete", "--all", "--automation", "failing", "--yes")
    assert gone.out.endswith("2 runs: 2 done, 0 refused\n")
    assert len(call("runs", "list", "--json").json) == 1
    again = call("runs", "cancel", "--all", "--status", "completed")
    assert "has ended already" in again.out
    refused = call("runs", "pause", "--all", "--status", "completed")
    assert (refused.code, "[AUTOMATION_V2_RUN_NOT_PAUSABLE]" in refused.out) == (5, True)


@pytest.mark.parametrize(
    "words",
    [
        ["pause"],
        ["pause", "a", "b"],
        ["pause", "a", "--all"],
        ["retry", "run", "node", "--status", "failed"],
        ["retry"],
        ["retry", "a", "b", "c"],
        ["cancel", "--all", "--older-than", "soon"],
    ],
)
def test_what_is_meant_has_to_be_clear(call: Call, words: list[str]) -> None:
    assert call("runs", *words).code == 2
