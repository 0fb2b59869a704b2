"""What people see of nodes that were spared, warned or judged."""

from collections.abc import Callable

from .conftest import Call

Write = Callable[[str, str], str]

RULES = """\
nodes:
  - node_id: look
    metadata: {triage_gate: true}
    action: {kind: command, shell: true, script: 'echo "{\\"has_work\\": false}"'}
  - node_id: mend
    depends_on: [look]
    action: {kind: command, argv: ["true"]}
  - node_id: write
    output_contract: {required_sections: [Sources]}
    retry_policy: {max_attempts: 1}
    action: {kind: command, argv: [echo, "# Title"]}
"""


def test_warned_and_skipped_nodes_are_told_apart_from_plain_ones(call: Call, write: Write) -> None:
    done = call("run", write("rules.yaml", RULES))

    assert done.code == 0
    rows = {line.split()[0]: line for line in done.out.splitlines() if line.strip()}
    assert "skipped" in rows["mend"]
    assert "completed, with warnings" in rows["write"]
    assert "the section `Sources` is missing" in rows["write"]


def test_every_attempt_is_shown_with_its_verdict(call: Call, write: Write) -> None:
    call("run", write("rules.yaml", RULES))
    run_id = call("runs", "list", "--json").json[0]["run_id"]

    shown = call("runs", "show", run_id, "--json").json

    verdicts = {attempt["node_id"]: attempt["verdict"] for attempt in shown["attempts"]}
    assert verdicts["look"]["outcome"] == "succeeded"
    assert verdicts["write"]["unmet_requirements"] == ["missing_section"]
    assert verdicts["write"]["consumes_repair_budget"] is False
