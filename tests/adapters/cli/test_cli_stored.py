"""`tandem automations` and dry runs."""

from collections.abc import Callable

from tandem.adapters.cli.runner import PROFILES
from tandem.domain.execution import ExecutionProfile
from tests.adapters.cli.conftest import Call, sh

Write = Callable[[str, str], str]


def job(script: str = "echo one", *, more: str = "") -> str:
    return (
        f"automation_id: job\nname: Job\n{more}nodes:\n  - {{node_id: a, action: {sh(script)}}}\n"
    )


def test_an_automation_is_saved_listed_shown_and_run(call: Call, write: Write) -> None:
    file = write("job.yaml", job())
    assert call("automations", "apply", file).out == "job: created, version 1, active\n"
    assert call("automations", "apply", file).out == "job: unchanged, version 1, active\n"
    write("job.yaml", job("echo two"))
    (row,) = call("automations", "apply", file, "--reason", "better", "--json").json
    assert (row["version"], row["event"]) == (2, "automation_updated")
    listed = call("automations", "list")
    assert listed.out.split()[:4] == ["AUTOMATION", "VERSION", "STATUS", "UPDATED"]
    assert "job" in listed.out
    shown = call("automations", "show", "job", "--version", "1", "--json").json
    assert shown["shown_version"] == 1
    assert shown["definition"]["flow"]["nodes"][0]["action"]["script"] == "echo one"
    assert [record["reason"] for record in shown["records"]] == ["", "better"]
    assert "updated" in call("automations", "show", "job").out
    result = call("automations", "run", "job", "--json").lines[-1]
    assert (result["status"], result["automation_version"]) == ("completed", 2)
    old = call("automations", "run", "job", "--version", "1", "--json").lines[-1]
    assert old["automation_version"] == 1


def test_the_mistakes_of_all_files_are_told_and_nothing_is_saved(call: Call, write: Write) -> None:
    files = [
        write("good.yaml", job()),
        write("one.yaml", "nodes: [{node_id: a, depends_on: [x], action: {kind: python}}]\n"),
        write("two.yaml", "nodes: []\n"),
    ]

    refused = call("automations", "apply", *files)

    assert refused.code == 3
    assert all(said in refused.err for said in ("`x`", "`function` is missing", "two.yaml:1:1"))
    assert call("automations", "list", "--json").json == []


def test_a_paused_automation_holds_its_runs_and_says_so(call: Call, write: Write) -> None:
    call("automations", "apply", write("job.yaml", job()))
    paused = call("automations", "pause", "job", "--reason", "maintenance")
    assert paused.out.startswith("job: paused by ")
    assert call("automations", "pause", "job").code == 5
    held = call("automations", "run", "job", "--json")
    result = held.lines[-1]
    assert (held.code, result["status"]) == (9, "queued")
    assert (result["queue_reason"], result["resource_key"]) == (
        "automation_paused",
        "automation:job",
    )
    assert "maintenance" in result["explanation"]["why"]
    assert result["explanation"]["next"] == ["tandem automations resume job"]
    # A file with the same id is the same automation.
    assert call("run", "job.yaml", "-q").code == 9
    assert call("automations", "resume", "job", "--json").json["status"] == "active"
    assert call("resume", "--all", "-q").code == 0


def test_a_dry_run_tells_what_would_run_and_runs_nothing(call: Call, write: Write) -> None:
    file = write("job.yaml", job("touch made"))
    told = call("run", file, "--dry-run", "--profile", "strict")
    assert told.code == 0
    assert "dry run: nothing was executed" in told.out
    assert "strict" in told.out
    found = call("run", file, "--dry-run", "--json").json
    assert (found["can_run"], [node["node_id"] for node in found["nodes"]]) == (True, ["a"])
    shown = call("runs", "show", found["run_id"], "--json").json
    assert (shown["status"], shown["detail"], shown["trigger_type"]) == (
        "completed",
        "dry_run",
        "manual_dry_run",
    )
    assert shown["attempts"] == []


def test_a_draft_runs_dry_only(call: Call, write: Write) -> None:
    call("automations", "apply", write("job.yaml", job(more="status: draft\n")))
    refused = call("automations", "run", "job", "--json")
    assert refused.code == 5
    assert "automation_draft" in refused.err
    assert call("automations", "run", "job", "--dry-run").code == 0


def test_a_deleted_automation_is_not_found(call: Call, write: Write) -> None:
    call("automations", "apply", write("job.yaml", job()))
    assert call("automations", "delete", "job").out == "job: deleted\n"
    for arguments in (("show", "job"), ("run", "job"), ("pause", "job"), ("delete", "job")):
        assert call("automations", *arguments).code == 4
    assert call("automations", "list", "--json").json == []
    assert "no automation is saved" in call("automations", "list").err
    restored = call("automations", "apply", "job.yaml").out
    assert restored == "job: restored, version 1, active\n"


def test_a_save_compares_versions_and_files_of_one_id_are_refused(call: Call, write: Write) -> None:
    one, two = write("one.yaml", job()), write("two.yaml", job("echo two"))
    assert call("automations", "apply", one, two).code == 2
    assert call("automations", "apply", one, "--expect-version", "0").code == 0
    conflict = call("automations", "apply", two, "--expect-version", "0")
    assert conflict.code == 5
    assert "its version is 1, not 0" in conflict.err


def test_ways_that_exclude_each_other_are_refused(call: Call, write: Write) -> None:
    file = write("job.yaml", job())
    call("automations", "apply", file)
    assert call("run", file, "--detach", "--dry-run").code == 2
    assert call("automations", "run", "job", "--detach", "--dry-run").code == 2
    detached = call("automations", "run", "job", "--detach")
    assert detached.out.startswith("automation-v2-run-")


def test_the_profiles_of_the_options_are_those_of_the_engine() -> None:
    assert list(PROFILES) == [profile.value for profile in ExecutionProfile]
