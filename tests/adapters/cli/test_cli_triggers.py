"""`tandem schedule` and `handoffs`, and firings in `automations show`."""

from collections.abc import Callable
from pathlib import Path

from tests.adapters.cli.conftest import Call, sh

Write = Callable[[str, str], str]


def job(more: str = "", script: str = "echo one", node: str = "") -> str:
    action = f"action: {sh(script)}"
    return f"automation_id: job\n{more}nodes:\n  - {{node_id: a, {action}{node}}}\n"


CRON = 'schedule: {type: cron, cron_expression: "30 2 * * *", timezone: America/New_York}\n'


def test_schedule_is_shown_before_and_after_it_is_saved(call: Call, write: Write) -> None:
    file = write("job.yaml", job(CRON))
    before = call("schedule", "preview", file, "--limit", "400", "--json").json
    assert len(before) == 400
    assert len([row for row in before if row["note"]]) in (2, 3)
    assert call("schedule", "preview", file).out.count("\n") == 11
    call("automations", "apply", file)
    after = call("schedule", "preview", "job", "--json").json
    assert [row["at_ms"] for row in after] == [row["at_ms"] for row in before[:10]]
    shown = call("automations", "show", "job", "--firings", "--json").json
    assert [row["at_ms"] for row in shown["next_firings"]] == [row["at_ms"] for row in after]
    assert shown["next_fire_at_ms"] == after[0]["at_ms"]
    assert "fires next" in call("automations", "show", "job").out
    call("automations", "pause", "job")
    assert "does not fire by itself" in call("schedule", "preview", "job").err
    assert call("schedule", "preview", "none").code == 4


def test_wrong_schedule_is_told_with_its_line(call: Call, write: Write) -> None:
    wrong = CRON.replace("30 2", "61 2").replace("New_York", "New_Amsterdam")
    told = call("validate", write("job.yaml", job(wrong)))
    assert told.code == 3
    assert "there is no time zone `America/New_Amsterdam`" in told.err + told.out
    assert "job.yaml:2:" in told.err + told.out
    told = call("validate", write("job.yaml", job(CRON.replace("30 2", "61 2"))))
    assert "bad minute" in told.err + told.out


def test_handoff_is_deposited_approved_and_listed(call: Call, write: Write, tmp_path: Path) -> None:
    more = (
        f"workspace_root: {tmp_path}\nhandoff_config: {{auto_approve: false}}\n"
        "watch_conditions: [{kind: handoff_available}]\n"
    )
    call("automations", "apply", write("job.yaml", job(more)))
    made = call("handoffs", "deposit", "job", "--type", "batch", "--metadata", '{"n": 1}')
    handoff_id = made.out.partition(":")[0]
    assert made.out.strip().endswith(f"shared/handoffs/inbox/{handoff_id}.json")
    listed = call("handoffs", "list", "job", "--json").json
    assert listed["counts"] == {"inbox": 1, "approved": 0, "archived": 0, "total": 1}
    assert listed["inbox"][0]["metadata"] == {"n": 1}
    assert call("handoffs", "approve", "job", handoff_id).out == f"{handoff_id}: approved\n"
    assert call("handoffs", "approve", "job", handoff_id, "--json").json["handoff_id"] == handoff_id
    assert "approved" in call("handoffs", "list", "job").out
    assert call("handoffs", "approve", "job", "none").code == 4
    assert call("handoffs", "deposit", "job", "--type", "b", "--metadata", "{").code == 2
    assert call("handoffs", "deposit", "none", "--type", "b").code == 4
