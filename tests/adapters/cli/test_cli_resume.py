"""`tandem resume`: every state in which a run can be left."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tandem.__main__ import LocalTools

from .conftest import Call, Start, sh

Write = Callable[[str, str], str]
Read = Callable[["subprocess.Popen[str]", str], list[str]]

GATED = """\
nodes:
  - node_id: review
    stage_kind: approval
    objective: Is it good?
    gate: {decisions: [approve, cancel]}
"""
TWO = f"""\
nodes:
  - {{node_id: first, action: {sh("echo first >> log")}}}
  - {{node_id: second, depends_on: [first], action: {sh("echo second >> log; cat go")}}}
"""


def test_killed_run_goes_on_at_once_without_repeating_what_is_done(
    start: Start, call: Call, write: Write, lines_until: Read
) -> None:
    os.mkfifo("go")
    process = start("run", write("two.yaml", TWO))
    lines_until(process, "node_started  second")
    process.kill()
    process.wait()
    shown = call("runs", "show", "latest", "--json").json
    assert (shown["holder"], shown["status"]) == ("dead", "running")
    assert shown["explanation"]["next"] == [f"tandem resume {shown['run_id'][18:26]}"]

    again = start("resume")
    lines_until(again, "node_started  second")
    Path("go").write_text("ok\n")
    out, _ = again.communicate(timeout=20)
    assert again.returncode == 0, out
    log = Path("log").read_text().split()
    assert log.count("first") == 1
    assert call("runs", "output", "latest", "second").out == "ok\n"


def test_run_of_a_living_engine_is_refused(
    start: Start, call: Call, write: Write, lines_until: Read
) -> None:
    os.mkfifo("go")
    process = start("run", write("two.yaml", TWO))
    lines_until(process, "node_started  second")
    refused = call("resume", "latest", "--json")
    assert refused.code == 5
    assert '"driven_elsewhere"' in refused.err
    assert call("resume").err == "there is no unfinished run\n"
    Path("go").write_text("ok\n")
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_gate_that_expired_meanwhile_is_closed_before_the_run_counts_as_at_rest(
    call: Call, write: Write
) -> None:
    """The sweep comes to it late: it has to remind others of gates that are due before."""
    gate = "{required: true, expiry_policy: {expires_after_ms: 1s, on_expiry: resume}}"
    due = "{required: true, expiry_policy: {on_expiry: remind, remind_every_ms: 1}}"
    reminding = write("reminding.yaml", f"nodes: [{{node_id: ask, gate: {due}}}]\n")
    assert [call("run", reminding).code for _ in range(3)] == [9, 9, 9]
    after = f"{{node_id: after, depends_on: [ask], action: {sh('echo on')}}}"
    file = write("expiring.yaml", f"nodes:\n  - {{node_id: ask, gate: {gate}}}\n  - {after}\n")
    assert call("run", file).code == 9
    while call("runs", "why", "latest", "--json").json["until_ms"] > time.time() * 1_000:
        pass

    answer = call("resume", "latest", "--json")

    assert (answer.code, answer.lines[-1]["status"]) == (0, "completed")
    assert call("runs", "output", "latest", "after").out == "on\n"


def test_queued_run_whose_owner_is_gone_is_taken(call: Call, write: Write) -> None:
    file = write("hi.yaml", f"nodes: [{{node_id: a, action: {sh('echo hi')}}}]\n")
    run_id = create_owned(file)
    shown = call("runs", "show", run_id, "--json").json
    assert (shown["status"], shown["holder"]) == ("queued", "dead")
    answer = call("resume", run_id, "--json")
    assert (answer.code, answer.lines[-1]["status"]) == (0, "completed")
    assert call("db", "check").code == 0


def create_owned(file: str) -> str:
    """Create a run for an engine that goes away before it claims it."""
    import asyncio

    async def create() -> str:
        tools = LocalTools()
        async with tools.open_engine(tools.read_settings(), drives=False) as parts:
            run = await parts.engine.start(
                tools.load_automation(Path(file)), workspace=str(Path.cwd()), owned=True
            )
            return run.run_id

    return asyncio.run(create())


def test_detached_run_is_taken(call: Call, write: Write) -> None:
    file = write("hi.yaml", f"nodes: [{{node_id: a, action: {sh('echo hi')}}}]\n")
    run_id = call("run", file, "--detach").out.strip()
    assert call("resume", run_id).code == 0


def test_waiting_run_is_decided_and_goes_on(call: Call, write: Write) -> None:
    assert call("run", write("gated.yaml", GATED)).code == 9
    assert call("resume").code == 9
    answer = call("resume", "--approve", "review", "--json")
    assert (answer.code, answer.lines[-1]["status"]) == (0, "completed")


def test_run_decided_by_somebody_else_goes_on(call: Call, write: Write) -> None:
    call("run", write("gated.yaml", GATED))
    call("gates", "decide", "latest", "approve")
    assert call("resume").code == 0


def test_paused_run_goes_on(call: Call, write: Write) -> None:
    file = write("hi.yaml", f"nodes: [{{node_id: a, action: {sh('echo hi')}}}]\n")
    run_id = call("run", file, "--detach").out.strip()
    assert call("runs", "pause", run_id, "--reason", "lunch").code == 0
    shown = call("runs", "show", run_id, "--json").json
    assert shown["explanation"]["why"] == "lunch"
    answer = call("resume", run_id, "--json")
    assert (answer.code, answer.lines[-1]["status"]) == (0, "completed")


def test_run_killed_while_it_waits_for_time_is_woken_later(
    start: Start, call: Call, write: Write, lines_until: Read
) -> None:
    file = write("nap.yaml", "nodes: [{node_id: nap, wait: {kind: timer, delay_ms: 1000}}]\n")
    process = start("run", file)
    lines_until(process, "run_parked_on_wait")
    process.kill()
    process.wait()
    shown = call("runs", "show", "latest").out
    assert "  what    waiting for time; 0 of 1 node completed\n  where   node `nap`\n" in shown
    answer = call("resume", "--json")
    *events, result = answer.lines
    assert (answer.code, result["status"]) == (0, "completed")
    assert "wait_woken" in [event["event"] for event in events]


def test_failed_run_tries_again_from_where_it_failed(call: Call, write: Write) -> None:
    script = "echo x >> log; test -e fixed"
    text = f"nodes: [{{node_id: a, retry_policy: {{max_attempts: 1}}, action: {sh(script)}}}]\n"
    assert call("run", write("a.yaml", text)).code == 1
    assert call("resume").code == 0  # nothing is unfinished: a failed run is resumed by name only
    Path("fixed").touch()
    answer = call("resume", "latest", "--json")
    assert (answer.code, answer.lines[-1]["status"]) == (0, "completed")
    assert Path("log").read_text().split() == ["x", "x"]


def test_completed_run_has_nothing_to_resume(call: Call, write: Write) -> None:
    call("run", write("hi.yaml", f"nodes: [{{node_id: a, action: {sh('echo hi')}}}]\n"))
    answer = call("resume", "latest")
    assert answer.code == 5
    assert "is completed; there is nothing to resume" in answer.err


def test_several_unfinished_runs_are_listed_or_all_resumed(call: Call, write: Write) -> None:
    file = write("hi.yaml", f"nodes: [{{node_id: a, action: {sh('echo hi')}}}]\n")
    ids = [call("run", file, "--detach").out.strip() for _ in range(2)]
    refused = call("resume")
    assert refused.code == 2
    assert all(f"  {run_id[18:26]}  queued  hi" in refused.err for run_id in ids)
    answer = call("resume", "--all")
    assert answer.code == 0
    assert all(f"{run_id[18:26]}  " in answer.out for run_id in ids)
    listed = call("runs", "list", "--json").json
    assert [run["status"] for run in listed] == ["completed", "completed"]


def test_worst_of_all_runs_is_the_exit_code(call: Call, write: Write) -> None:
    good = write("hi.yaml", f"nodes: [{{node_id: a, action: {sh('echo hi')}}}]\n")
    call("run", write("gated.yaml", GATED), "--detach")
    call("run", good, "--detach")
    assert call("resume", "--all", "-q").code == 9


def test_name_and_all_exclude_each_other(call: Call) -> None:
    assert call("resume", "latest", "--all").code == 2


def test_unknown_run_is_not_found(call: Call) -> None:
    assert call("resume", "latest").code == 4
    assert call("resume", "abc").code == 4
