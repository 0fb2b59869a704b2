"""The same stories told to the store here and to a server: what is printed is the same."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import httpx2
import msgspec
import pytest

from tandem.domain.token import read_token_id
from tandem.domain.webhook_signature import signature_of
from tests.adapters.cli.conftest import Answer, Call, sh
from tests.adapters.cli.served import TOKEN, Served

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
GATED = f"""\
nodes:
  - {{node_id: a, action: {sh("printf hi")}}}
  - {{node_id: g, objective: Ship it?, depends_on: [a], gate: {{required: true}}}}
  - {{node_id: b, depends_on: [g], action: {sh("printf end")}}}
"""
GOOD = json.dumps({"kind": "command", "shell": True, "script": "echo 5"})


class Place(msgspec.Struct, frozen=True):
    """Where the commands of a story go."""

    name: str
    call: Call
    write: Write

    def apply(self, content: str) -> str:
        """Save an automation under an id of its own."""
        automation_id = f"job-{uuid4().hex[:8]}"
        file = self.write("job.yaml", f"automation_id: {automation_id}\n{content}")
        assert self.call("automations", "apply", file).code == 0
        return automation_id

    def run(self, content: str) -> tuple[str, Answer]:
        """Run an automation to its rest; return the id of the run and what was told."""
        answer = self.call("automations", "run", self.apply(content), "--json")
        return str(answer.lines[-1]["run_id"]), answer

    def go_on(self, run: str) -> int:
        """Let a run that is queued come to its end, and return how that was told."""
        if self.name == "here":
            return self.call("resume", run, "--quiet").code
        assert self.call("runs", "watch", run).code == 0
        return {"completed": 0, "failed": 1}[self.status(run)]

    def status(self, run: str) -> str:
        return str(self.call("runs", "show", run, "--json").json["status"])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = Served(tmp_path_factory.mktemp("served"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["here", "server"])
def place(
    request: pytest.FixtureRequest, call: Call, write: Write, monkeypatch: pytest.MonkeyPatch
) -> Place:
    if request.param == "server":
        served: Served = request.getfixturevalue("served")
        monkeypatch.setenv("TANDEM_URL", served.url)
        monkeypatch.setenv("TANDEM_TOKEN", TOKEN)
    return Place(request.param, call, write)


def test_an_automation_is_saved_listed_shown_held_and_deleted(place: Place) -> None:
    call = place.call
    name = place.apply(FAILING)
    file = place.write("job.yaml", f"automation_id: {name}\n{FAILING}")
    assert call("automations", "apply", file).out == f"{name}: unchanged, version 1, active\n"
    place.write("job.yaml", f"automation_id: {name}\nname: Better\n{FAILING}")
    (row,) = call("automations", "apply", file, "--reason", "better", "--json").json
    assert (row["version"], row["event"], row["name"]) == (2, "automation_updated", "Better")
    again = call("automations", "apply", file, "--expect-version", "1", "--json")
    assert (again.code, json.loads(again.err)["error"]["code"]) == (
        5,
        "automation_version_conflict",
    )
    listed = call("automations", "list", "--json").json
    assert [each["version"] for each in listed if each["automation_id"] == name] == [2]
    shown = call("automations", "show", name, "--version", "1", "--json").json
    assert shown["shown_version"] == 1
    assert [node["node_id"] for node in shown["definition"]["flow"]["nodes"]] == ["a", "b", "c"]
    assert [record["reason"] for record in shown["records"]] == ["", "better"]
    paused = call("automations", "pause", name, "--reason", "hold it").out
    assert re.fullmatch(rf"{name}: paused by \S+: hold it\n", paused)
    assert call("automations", "resume", name).out == f"{name}: active\n"
    assert call("automations", "delete", name).out == f"{name}: deleted\n"
    assert call("automations", "show", name).code == 4
    assert call("automations", "delete", name).code == 4


def test_a_run_is_followed_and_told_to_its_end(place: Place) -> None:
    run, answer = place.run(FAILING)
    events = [line["event"] for line in answer.lines if line["type"] == "event"]
    assert answer.code == 1
    assert events[0] == "run_created"
    assert events[-1] == "run_failed"
    assert "node_completed" in events
    result = answer.lines[-1]
    assert (result["type"], result["exit_code"], result["status"]) == ("result", 1, "failed")
    stored = place.call("runs", "events", run, "--json").lines
    assert [event["event"] for event in stored] == events
    assert [event["seq"] for event in stored] == list(range(1, len(stored) + 1))


def test_a_run_is_explained_with_the_same_words(place: Place) -> None:
    run, _ = place.run(FAILING)
    shown = place.call("runs", "show", run[:40])
    assert shown.code == 0
    assert re.search(r"what    failed after .*; 1 of 3 nodes completed", shown.out)
    assert "where   node `b`, attempt 1" in shown.out
    assert re.search(r"b +command +failed +1", shown.out)
    data = place.call("runs", "show", run, "--json").json
    assert [node["state"] for node in data["nodes"]] == ["completed", "failed", "pending"]
    assert [attempt["outcome"] for attempt in data["attempts"]] == ["succeeded", "failed"]
    assert data["explanation"]["where"] == "node `b`, attempt 1"
    assert data["reason"]["kind"] == "ended"
    assert place.call("runs", "why", run, "--json").json["kind"] == "ended"
    assert place.call("runs", "output", run, "a").out == "hi"
    assert place.call("runs", "output", run, "a", "--json").out == '"hi"\n'
    assert place.call("runs", "output", run, "b").code == 5
    assert place.call("runs", "output", run, "z").code == 4
    assert place.call("runs", "verify", run, "--json").json["ok"] is True


def test_the_rows_of_a_run_have_the_same_keys_in_both_places(
    call: Call, write: Write, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Place("here", call, write)
    run, _ = here.run(FAILING)
    documents = [call("runs", *words, "--json").json for words in (["list"], ["show", run])]
    monkeypatch.setenv("TANDEM_URL", served.url)
    monkeypatch.setenv("TANDEM_TOKEN", TOKEN)
    run, _ = Place("server", call, write).run(FAILING)
    others = [call("runs", *words, "--json").json for words in (["list"], ["show", run])]
    assert set(documents[0][0]) == set(others[0][0])
    assert set(documents[1]) == set(others[1])


def test_a_node_is_repaired_and_the_run_completes(place: Place) -> None:
    run, _ = place.run(FAILING)
    row = place.call("runs", "repair", run, "b", "--action", GOOD, "--reason", "mended", "--json")
    assert row.json["resume_reason"] == "mended"
    assert place.go_on(run) == 0
    assert place.call("runs", "output", run, "b").out == "5\n"


def test_nodes_are_skipped_set_retried_and_judged(place: Place) -> None:
    call = place.call
    run, _ = place.run(FAILING)
    assert call("runs", "skip", run, "b", "--reason", "not today").code == 0
    assert place.go_on(run) == 0
    run, _ = place.run(FAILING)
    wrong = call("runs", "set-output", run, "b", "--output", '"x"', "--reason", "r")
    assert wrong.code == 2
    assert call("runs", "set-output", run, "b", "--output", "7", "--reason", "r").code == 0
    assert place.go_on(run) == 0
    assert call("runs", "output", run, "b").out == "7\n"
    assert call("runs", "dispose", run, "a", "--as", "accepted").code == 0
    same = call("runs", "dispose", run, "a", "--as", "accepted", "--json")
    assert (same.code, same.json["unchanged"]) == (0, True)
    assert "run again: a, b, c" in call("runs", "preview", run, "retry", "a").out
    assert call("runs", "retry", run, "c").code == 0
    assert place.go_on(run) == 0
    assert call("runs", "continue", run, "c").code == 5


def test_a_run_is_forked_and_deleted(place: Place) -> None:
    call = place.call
    run, _ = place.run(FAILING)
    forked = call("runs", "fork", run, "b", "--json").json["run_id"]
    assert call("runs", "show", run, "--json").json["forks"] == [forked]
    assert place.go_on(forked) == 1
    assert call("runs", "delete", run, "--yes").out == "deleted, with 0 artifacts\n"
    assert call("runs", "show", run).code == 4


def test_a_gate_is_seen_and_decided(place: Place) -> None:
    call = place.call
    run, answer = place.run(GATED)
    assert answer.code == 9
    listed = [each for each in call("gates", "list", "--json").json if each["run_id"] == run]
    assert [each["gate"]["node_id"] for each in listed] == ["g"]
    assert "Ship it?" in call("gates", "list").out
    assert call("gates", "show", run, "--json").json["pending"][0]["node_id"] == "g"
    assert call("gates", "decide", run, "dance").code == 5
    decided = call("gates", "decide", run, "approve", "--reason", "fine", "--json")
    assert decided.code == 0
    assert place.go_on(run) == 0
    late = call("gates", "decide", run, "approve", "--json")
    code = json.loads(late.err)["error"]["code"]
    assert (late.code, code) == (5, "AUTOMATION_V2_RUN_NOT_AWAITING_APPROVAL")
    history = call("gates", "show", run, "--json").json["gate_history"]
    assert [record["decision"] for record in history] == ["approve"]


def test_many_runs_are_chosen_by_a_filter_and_refusals_do_not_stop_the_rest(place: Place) -> None:
    call = place.call
    name = place.apply(FAILING)
    runs = [call("automations", "run", name, "--json").lines[-1]["run_id"] for _ in range(3)]
    counted = call("runs", "recover", "--automation", name, "--dry-run")
    assert counted.out == "3 runs: 3 would be done, 0 refused\n"
    assert call("runs", "skip", runs[0], "b", "--reason", "r").code == 0
    assert place.go_on(runs[0]) == 0
    chosen = ["--automation", name, "--status", "failed", "--status", "completed"]
    answer = call("runs", "recover", *chosen, "--all", "--json")
    *each, result = answer.lines
    assert answer.code == 5
    assert (result["done"], result["refused"]) == (2, 1)
    assert [line["run_id"] for line in each if not line["done"]] == [runs[0]]


def test_what_ended_is_paused_cancelled_and_resumed_with_the_same_codes(place: Place) -> None:
    call = place.call
    run, _ = place.run(FAILING)
    paused = call("runs", "pause", run, "--json")
    code = json.loads(paused.err)["error"]["code"]
    assert (paused.code, code) == (5, "AUTOMATION_V2_RUN_NOT_PAUSABLE")
    ended = call("runs", "cancel", run, "--json")
    assert (ended.code, ended.json["already_terminal"]) == (0, True)
    resumed = json.loads(call("runs", "resume", run, "--json").err)["error"]["code"]
    assert resumed == "AUTOMATION_V2_RUN_NOT_PAUSED"


def test_what_is_not_there_and_what_is_wrong_have_the_same_exit_codes(place: Place) -> None:
    call = place.call
    for words in (["show", "nope"], ["why", "nope"], ["cancel", "nope"], ["events", "nope"]):
        assert call("runs", *words).code == 4, words
    whole = "automation-v2-run-" + "0" * 32
    for words in (["show", whole], ["why", whole], ["cancel", whole], ["output", whole, "a"]):
        assert call("runs", *words).code == 4, words
    assert call("automations", "run", "nope").code == 4
    bad = place.write("bad.yaml", "automation_id: bad\nnodes: [{node_id: a, depends_on: [z]}]\n")
    assert call("automations", "apply", bad).code == 3
    name = place.apply(f"inputs: {{n: {{type: integer}}}}\n{FAILING}")
    wrong = call("automations", "run", name, "--input", "n=many", "--input", "m=1", "--json")
    problems = json.loads(wrong.err.splitlines()[-1])["error"]["problems"]
    assert wrong.code == 3
    assert {problem["code"] for problem in problems} >= {"input_unknown"}
    assert len(problems) == 2


def test_a_run_is_watched_from_its_beginning_to_its_end(place: Place) -> None:
    run, _ = place.run(FAILING)
    events = place.call("runs", "watch", run, "--json").lines
    seqs = [event["envelope"]["seq"] for event in events]
    assert seqs == sorted(seqs)
    assert events[-1]["type"] == "automation.v2.run.failed"
    assert "run.failed" in place.call("runs", "watch", run).out


def test_a_dry_run_executes_nothing_and_tells_what_would_run(place: Place, tmp_path: Path) -> None:
    call = place.call
    name = place.apply(
        f"workspace_root: {tmp_path}\ninputs: {{n: {{type: integer, default: 3}}}}\n{FAILING}"
    )
    answer = call("automations", "run", name, "--dry-run", "--json")
    result = answer.lines[-1]
    assert answer.code == 0
    assert (result["dry_run"], result["can_run"], result["inputs"]) == (True, True, {"n": 3})
    assert [node["stage"] for node in result["nodes"]] == [1, 2, 3]
    assert list(result) == [
        *("type", "dry_run", "can_run", "run", "nodes", "inputs", "problems", "obstacles"),
        "run_id",
    ]
    assert call("runs", "show", result["run_id"], "--json").json["attempts"] == []
    told = call("automations", "run", name, "--dry-run").out
    assert re.search(r"2 +b +command +a +\S+ +1\n", told)
    assert "what    dry run: nothing was executed" in told
    assert "input   n: 3" in told
    assert re.search(r"version \S+\n +profile \S+\n +where   \S+\n", told)
    agents = "agents: [{agent_id: bot}]\nnodes: [{node_id: a, agent_id: bot, objective: Think}]\n"
    missing = call("automations", "run", place.apply(agents), "--dry-run", "--json")
    (problem,) = missing.lines[-1]["problems"]
    assert (missing.code, missing.lines[-1]["can_run"]) == (0, False)
    assert problem["node_id"] == "a"


def test_a_token_is_made_shown_once_listed_and_revoked(place: Place) -> None:
    call = place.call
    made = call("tokens", "create", "--name", "ci", "--scope", "operator", "--expires-in", "90d")
    (text,) = made.out.split()
    token_id = read_token_id(text)
    assert made.code == 0
    assert f"token {token_id} (`ci`) for local/local: operator, until " in made.err
    assert "only time that it is shown" in made.err
    listed = call("tokens", "list")
    assert re.search(rf"{token_id} +ci +local/local +operator +active +", listed.out)
    assert text not in listed.out + listed.err
    assert "is revoked; servers refuse it" in call("tokens", "revoke", str(token_id)).out
    (row,) = [row for row in call("tokens", "list", "--json").json if row["token_id"] == token_id]
    assert (row["state"], bool(row["revoked_by"])) == ("revoked", True)
    again = call("tokens", "revoke", str(token_id), "--json")
    assert (again.code, json.loads(again.err)["error"]["code"]) == (5, "token_revoked")
    none = call("tokens", "revoke", "nothing", "--json")
    assert (none.code, json.loads(none.err)["error"]["code"]) == (4, "token_not_found")
    assert call("tokens", "create", "--name", " ", "--scope", "viewer").code == 2
    assert call("tokens", "list", "--tenant", "acme").code == 2


def test_a_program_is_told_the_same_of_tokens_in_both_places(place: Place) -> None:
    made = place.call(
        *("tokens", "create", "--name", "panel", "--scope", "viewer", "--scope", "approver"),
        *("--actor", "ada", "--kind", "agent", "--tenant", "local/local", "--json"),
    ).json
    token = made["token"]
    assert set(made) == {"token", "secret"}
    assert list(token) == [
        *("token_id", "tenant", "name", "scopes", "actor_id", "kind", "created_at_ms"),
        *("created_by", "expires_at_ms", "revoked_at_ms", "revoked_by", "last_used_at_ms"),
    ]
    assert read_token_id(made["secret"]) == token["token_id"]
    assert (token["scopes"], token["tenant"]) == (["approver", "viewer"], "local")
    assert (token["actor_id"], token["kind"], token["expires_at_ms"]) == ("ada", "agent", None)
    listed = place.call("tokens", "list", "--tenant", "local/local", "--json").json
    (row,) = [row for row in listed if row["token_id"] == token["token_id"]]
    assert row == {**token, "state": "active"}
    revoked = place.call("tokens", "revoke", token["token_id"], "--json").json["token"]
    assert list(revoked) == list(token)


def test_a_server_makes_and_tells_tokens_of_the_own_tenant_alone(
    call: Call, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_TOKEN", TOKEN)
    other = ("--tenant", "acme/web", "--url", served.url)
    for words in (("list",), ("create", "--name", "x", "--scope", "viewer")):
        refused = call("tokens", *words, *other, "--json")
        code = json.loads(refused.err)["error"]["code"]
        assert (refused.code, code) == (5, "tenant_scope_denied")
    made = call("tokens", "create", "--name", "x", "--scope", "viewer", "--url", served.url)
    monkeypatch.setenv("TANDEM_TOKEN", made.out.strip())
    assert call("automations", "list", "--url", served.url).code == 0
    assert call("tokens", "list", "--url", served.url).code == 5


def test_why_an_automation_was_held_is_kept(place: Place) -> None:
    name = place.apply(FAILING)
    for what in ("pause", "resume"):
        assert place.call("automations", what, name, "--reason", f"{what} & see").code == 0
    shown = place.call("automations", "show", name, "--json").json
    told = [record["reason"] for record in shown["records"]]
    assert told == ["", "pause & see", "resume & see"]
    assert place.call("automations", "delete", name, "--reason", "no use").code == 0
    place.write("job.yaml", f"automation_id: {name}\n{FAILING}")
    assert place.call("automations", "apply", "job.yaml").code == 0
    shown = place.call("automations", "show", name, "--json").json
    assert [record["reason"] for record in shown["records"]][3] == "no use"


def test_when_an_automation_fires_is_told(place: Place) -> None:
    name = place.apply(f'schedule: {{type: cron, cron_expression: "30 2 * * *"}}\n{FAILING}')
    shown = place.call("automations", "show", name, "--firings", "--json").json
    assert len(shown["next_firings"]) == 10
    assert shown["next_firings"][0]["at_ms"] == shown["next_fire_at_ms"] > shown["fired_until_ms"]
    assert shown["firings"] == []
    assert "fires next:" in place.call("automations", "show", name).out
    assert len(place.call("automations", "show", name, "--json").json["next_firings"]) == 1


def test_tasks_are_listed_claimed_given_back_and_completed(place: Place) -> None:
    call = place.call
    planned = sh("""echo '[{"title": "One"}]'""")
    builder = "metadata: {builder: {task_kind: repo_plan}}"
    run, _ = place.run(f"nodes:\n  - {{node_id: a, action: {planned}, {builder}}}\n")
    board = call("backlog", "list", run, "--json").json
    assert [task["id"] for task in board["tasks"]] == ["backlog-a-one"]
    assert "runnable" in call("backlog", "list", run).out
    claimed = call("backlog", "claim", run, "backlog-a-one", "--agent", "ann")
    assert claimed.out.startswith("backlog-a-one: in_progress by ann, token ")
    refused = call("backlog", "claim", run, "backlog-a-one", "--json")
    assert (refused.code, "task_not_claimable" in refused.err.lower()) == (5, True)
    assert call("backlog", "requeue", run, "backlog-a-one").out.endswith("runnable\n")
    task = call("backlog", "claim", run, "backlog-a-one", "--json").json
    token = task["lease_token"]
    done = call("backlog", "complete", run, "backlog-a-one", "--lease-token", token)
    assert done.out == "backlog-a-one: done\n"
    assert call("backlog", "claim", run, "nothing").code == 4


def test_tasks_that_cannot_be_read_are_told(place: Place) -> None:
    builder = "metadata: {builder: {task_kind: repo_plan}}"
    run, _ = place.run(f"nodes:\n  - {{node_id: a, action: {sh('echo one')}, {builder}}}\n")
    listed = place.call("backlog", "list", run)
    assert listed.code == 0
    assert "the run has no tasks" in listed.err
    assert "`a`" in listed.err


def test_a_trigger_is_made_shown_rotated_and_deleted(place: Place) -> None:
    call, job = place.call, place.apply(FAILING)
    made = call("webhooks", "create", job, "--provider", "github.com", "--name", "Issues")
    assert made.code == 0, made.err
    assert "secret: whsec_" in made.out
    assert "shown this once" in made.err
    (listed,) = call("webhooks", "list", job, "--json").json
    trigger = listed["trigger_id"]
    shown = call("webhooks", "show", job, trigger)
    assert "whsec_" not in shown.out
    assert "takes deliveries" in shown.out
    rotated = call("webhooks", "rotate", job, trigger, "--overlap", "60", "--json").json
    assert rotated["trigger"]["secret_status"]["secret_version"] == 2
    assert rotated["new_secret"].startswith("whsec_")
    assert "is disabled" in call("webhooks", "disable", job, trigger).out
    assert "takes deliveries" in call("webhooks", "enable", job, trigger).out
    assert "Issues" in call("webhooks", "list", job).out
    assert call("webhooks", "delete", job, trigger).out == f"trigger {trigger} is deleted\n"
    assert call("webhooks", "show", job, trigger).code == 4
    assert call("webhooks", "delete", job, trigger).code == 4
    assert "no trigger" in call("webhooks", "list", job).err
    assert call("webhooks", "list", "none").code == 4


def test_a_provider_that_hands_over_a_token_is_told_where(place: Place) -> None:
    job = place.apply(FAILING)
    made = place.call("webhooks", "create", job, "--provider", "notion")
    assert "set up at: /webhooks/automations/whpub_" in made.out
    assert "secret:" not in made.out
    assert place.call("webhooks", "create", job, "--scheme", "md5").code == 2


def test_deliveries_at_a_server_are_listed_and_sent_through_again(
    served: Served, call: Call, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_URL", served.url)
    monkeypatch.setenv("TANDEM_TOKEN", TOKEN)
    job = Place("server", call, write).apply(f"nodes: [{{node_id: a, action: {sh('true')}}}]\n")
    made = call("webhooks", "create", job, "--json").json
    trigger = made["trigger"]["trigger_id"]
    assert "nothing was delivered" in call("webhooks", "deliveries", job, trigger).err
    for secret, status in ((made["new_secret"], 202), ("other", 401)):
        signature = signature_of(secret, time.time_ns() // 1_000_000, b"[1]")
        headers = {
            "content-type": "application/json",
            "x-tandem-webhook-signature": signature,
        }
        url = made["trigger"]["callback_url"]
        assert httpx2.post(url, content=b"[1]", headers=headers).status_code == status
    deadline = time.monotonic() + 20
    while True:
        found = call("webhooks", "deliveries", job, trigger, "--json").json
        if sorted(each["status"] for each in found) == ["accepted", "rejected"]:
            break
        assert time.monotonic() < deadline, found
    (good,) = [each for each in found if each["status"] == "accepted"]
    table = call("webhooks", "deliveries", job, trigger).out
    assert "bad_signature" in table
    assert good["queued_run_id"] in table
    again = call("webhooks", "redeliver", job, trigger, good["delivery_id"], "--json").json
    assert again["redelivery_of_delivery_id"] == good["delivery_id"]
    assert call("webhooks", "redeliver", job, trigger, "none").code == 4


def test_a_stored_schedule_is_shown(place: Place) -> None:
    cron = 'schedule: {type: cron, cron_expression: "30 2 * * *", timezone: America/New_York}\n'
    job = place.apply(cron + FAILING)
    shown = place.call("schedule", "preview", job, "--limit", "3", "--json").json
    assert [row["local"][11:16] for row in shown] == ["02:30"] * 3
    assert shown[0]["at_ms"] < shown[1]["at_ms"] < shown[2]["at_ms"]
    place.call("automations", "pause", job)
    assert "does not fire by itself" in place.call("schedule", "preview", job).err
    assert place.call("schedule", "preview", "none").code == 4
