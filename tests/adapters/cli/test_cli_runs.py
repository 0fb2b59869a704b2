"""`tandem runs` and `tandem gates`."""

import getpass
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tandem.__main__ import LocalTools
from tandem.adapters.cli.app import main
from tandem.adapters.cli.runs import STATES
from tandem.adapters.local.host import LocalHost
from tandem.domain.lifecycle import RunState
from tandem.settings import Settings

from .conftest import Call, Start, sh

Write = Callable[[str, str], str]
Read = Callable[["subprocess.Popen[str]", str], list[str]]

GATED = """\
nodes:
  - node_id: review
    stage_kind: approval
    objective: Is it good?
    gate: {decisions: [approve, cancel], instructions: Look twice.}
"""


def hello(word: str = "hello") -> str:
    return f"nodes: [{{node_id: say, action: {sh(f'printf {word}')}}}]\n"


def test_states_of_the_filter_are_those_of_the_table() -> None:
    assert set(STATES) == {state.value for state in RunState}


def test_list_shows_the_newest_first_and_filters(call: Call, write: Write) -> None:
    assert call("runs", "list").err == "no runs\n"
    call("run", write("hello.yaml", hello()))
    call("run", write("gated.yaml", GATED))
    assert [run["automation_id"] for run in call("runs", "list", "--json").json] == [
        "gated",
        "hello",
    ]
    completed = call("runs", "list", "--status", "completed").out.splitlines()
    assert completed[0].split() == [
        "RUN", "AUTOMATION", "STATUS", "CREATED", "DURATION", "NODES", "DETAIL",
    ]  # fmt: skip
    assert len(completed) == 2
    assert "hello" in completed[1]
    assert len(call("runs", "list", "--automation", "gated", "--json").json) == 1
    assert len(call("runs", "list", "--limit", "1", "--json").json) == 1
    assert call("runs", "list", "--status", "done").code == 2


def test_run_is_named_by_its_beginning(call: Call, write: Write) -> None:
    call("run", write("hello.yaml", hello()))
    run_id = call("runs", "list", "--json").json[0]["run_id"]
    for name in (run_id, run_id[:30], run_id.rsplit("-", 1)[1][:6], "latest"):
        assert call("runs", "show", name, "--json").json["run_id"] == run_id


def test_beginning_of_several_ids_is_a_usage_error(call: Call, write: Write) -> None:
    file = write("hello.yaml", hello())
    for _ in range(2):
        call("run", file, "--detach")
    answer = call("runs", "show", "automation")
    assert answer.code == 2
    assert "names several runs" in answer.err


@pytest.mark.parametrize("command", [["show"], ["events"], ["pause"], ["cancel"], ["output"]])
def test_unknown_run_is_not_found(call: Call, command: list[str]) -> None:
    rest = ["node"] if command == ["output"] else []
    for name in ("ffffffff", ""):
        answer = call("runs", *command, name, *rest)
        assert answer.code == 4
        assert answer.err == (
            f"error: there is no run {name!r}; `tandem runs list` shows the ones there are\n"
        )


def test_error_is_json_when_json_is_asked_for(call: Call) -> None:
    answer = call("runs", "show", "nope", "--json")
    import json

    error = json.loads(answer.err)["error"]
    assert (answer.code, answer.out, error["code"]) == (4, "", "not_found")


def test_show_explains_a_failure(call: Call, write: Write) -> None:
    text = hello().replace("printf hello", "echo why >&2; exit 4")
    call("run", write("bad.yaml", text))
    out = call("runs", "show", "latest").out
    assert "  what    failed after " in out
    assert "  where   node `say`, attempt 3\n" in out
    assert "  why     exited with code 4: why\n" in out
    assert "say   command  failed  3 " in out


def test_events_are_printed_from_a_number_on(call: Call, write: Write) -> None:
    call("run", write("hello.yaml", hello()))
    every = call("runs", "events", "latest").out.splitlines()
    assert [line.split()[1] for line in every] == [
        "run_created",
        "run_execution_claimed",
        "node_started",
        "node_completed",
        "run_completed",
    ]
    assert call("runs", "events", "latest", "--after", "3").out.splitlines() == every[3:]
    assert [e["seq"] for e in call("runs", "events", "latest", "--json").lines] == [1, 2, 3, 4, 5]


def test_followed_events_go_on_to_the_end(start: Start, write: Write, lines_until: Read) -> None:
    os.mkfifo("go")
    runner = start("run", write("slow.yaml", hello().replace("printf hello", "cat go")))
    lines_until(runner, "node_started")
    follower = start("runs", "events", "latest", "--follow")
    lines_until(follower, "node_started")
    Path("go").write_text("ok")
    out, _ = follower.communicate(timeout=20)
    assert out.splitlines()[-1].split()[1] == "run_completed"
    assert follower.returncode == 0


def test_output_is_printed_as_it_is(call: Call, write: Write) -> None:
    call("run", write("hello.yaml", hello("'a\\033[31mb'")))
    assert call("runs", "output", "latest", "say").out == "a\x1b[31mb"
    missing = call("runs", "output", "latest", "gone")
    assert (missing.code, "it has say" in missing.err) == (4, True)


def test_large_output_comes_from_its_artifact(
    call: Call, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_OUTPUT_INLINE_MAX_BYTES", "10")
    call("run", write("big.yaml", hello("0123456789abcdef")))
    assert call("runs", "output", "latest", "say").out == "0123456789abcdef"


def test_node_without_output_is_refused(call: Call, write: Write) -> None:
    call("run", write("hello.yaml", hello()), "--detach")
    answer = call("runs", "output", "latest", "say")
    assert answer.code == 5
    assert "node `say` is pending and has no output" in answer.err


def test_run_is_cancelled_once(call: Call, write: Write) -> None:
    call("run", write("hello.yaml", hello()), "--detach")
    first = call("runs", "cancel", "latest", "--reason", "no need", "--json")
    assert (first.code, first.json["status"], first.json["stop_reason"]) == (
        0,
        "cancelled",
        "no need",
    )
    again = call("runs", "cancel", "latest")
    assert again.code == 0
    assert "has ended already: it is cancelled" in again.out


def test_cancel_of_a_run_driven_elsewhere_waits_for_its_processes(
    start: Start, call: Call, write: Write, lines_until: Read
) -> None:
    runner = start("run", write("slow.yaml", hello().replace("printf hello", "sleep 600")))
    lines_until(runner, "node_started")
    answer = call("runs", "cancel", "latest", "--json")
    assert (answer.code, answer.json["cleanup"]) == (0, None)
    runner.communicate(timeout=20)
    assert runner.returncode == 8


def test_cancel_of_an_interrupted_run_ends_what_is_left(
    start: Start, call: Call, write: Write, lines_until: Read
) -> None:
    runner = start("run", write("slow.yaml", hello().replace("printf hello", "sleep 600")))
    lines_until(runner, "node_started")
    runner.kill()
    runner.wait()
    answer = call("runs", "cancel", "latest", "--json")
    assert (answer.code, answer.json["status"], answer.json["cleanup"]) == (0, "cancelled", None)


def test_cancel_ends_what_is_left_when_the_engine_dies_meanwhile(
    start: Start, call: Call, write: Write, lines_until: Read
) -> None:
    os.mkfifo("deaf")
    script = "trap '' TERM; echo > deaf; while :; do sleep 1; done"
    file = write("deaf.yaml", f"nodes: [{{node_id: only, action: {sh(script)}}}]\n")
    runner = start("run", file, env={"TANDEM_STOP_GRACE_MS": "600000"})
    lines_until(runner, "node_started")
    Path("deaf").read_text()
    canceller = start("runs", "cancel", "latest", "--json")
    lines_until(runner, "run_stopped")
    runner.kill()
    out, _ = canceller.communicate(timeout=20)
    row = json.loads(out)
    assert (canceller.returncode, row["status"], row["cleanup"]) == (0, "cancelled", None)


def test_gate_is_listed_and_decided_once(call: Call, write: Write) -> None:
    assert call("gates", "list").err == "no gate is open\n"
    call("run", write("gated.yaml", GATED))
    listed = call("gates", "list").out.splitlines()
    assert len(listed) == 2
    assert "approve, cancel" in listed[1]
    assert "Look twice." in listed[1]

    wrong = call("gates", "decide", "latest", "maybe")
    assert (wrong.code, "it offers approve, cancel" in wrong.err) == (5, True)
    elsewhere = call("gates", "decide", "latest", "approve", "--node", "other")
    assert elsewhere.code == 4

    decided = call("gates", "decide", "latest", "approve", "--reason", "fine")
    assert decided.code == 0
    assert "no engine drives it on; continue with: tandem resume " in decided.out
    event = call("runs", "events", "latest", "--json").lines[4]
    assert (event["event"], event["reason"]) == ("gate_decided", "fine")
    assert event["metadata"]["decided_by"] == getpass.getuser()

    again = call("gates", "decide", "latest", "approve")
    assert again.code == 5
    assert "gate `review` was decided already: approve by" in again.err


def test_gate_of_a_run_that_an_engine_drives_goes_on_there(
    start: Start, call: Call, write: Write, lines_until: Read
) -> None:
    os.mkfifo("go")
    text = GATED + f"  - {{node_id: beside, action: {sh('cat go')}}}\n"
    runner = start("run", write("gated.yaml", text))
    lines_until(runner, "node_started  beside")
    decided = call("gates", "decide", "latest", "approve", "--json").json
    assert decided["goes_on"] is True
    Path("go").write_text("ok")
    runner.communicate(timeout=20)
    assert runner.returncode == 0


def test_gate_of_a_run_that_has_ended_before_anybody_looks_went_on(
    start: Start,
    call: Call,
    write: Write,
    lines_until: Read,
    capsys: pytest.CaptureFixture[str],
) -> None:
    os.mkfifo("go")
    text = GATED + f"  - {{node_id: beside, action: {sh('cat go')}}}\n"
    runner = start("run", write("gated.yaml", text))
    lines_until(runner, "node_started  beside")

    class Late(LocalTools):
        """Looks at who has the run only once it has ended."""

        def open_host(self, settings: Settings) -> LocalHost:
            Path("go").write_text("ok")
            runner.communicate(timeout=20)
            return super().open_host(settings)

    capsys.readouterr()
    assert main(Late(), ["gates", "decide", "latest", "approve", "--json"]) == 0
    decided = json.loads(capsys.readouterr().out)
    assert (decided["status"], decided["goes_on"]) == ("completed", True)


def test_run_that_a_decision_cancels_does_not_go_on(call: Call, write: Write) -> None:
    call("run", write("gated.yaml", GATED))
    decided = call("gates", "decide", "latest", "cancel", "--json").json
    assert (decided["status"], decided["goes_on"]) == ("cancelled", False)


def test_output_of_a_decision_must_be_json(call: Call, write: Write) -> None:
    call("run", write("gated.yaml", GATED))
    assert call("gates", "decide", "latest", "approve", "--output", "{").code == 2


WAITING = """
nodes:
  - node_id: ready
    wait:
      kind: external_condition
      condition_key: {source: literal, value: go}
      timeout: {expires_after_ms: 1h, on_timeout: escalate, escalate_to: lead}
"""


def test_gates_say_when_they_are_due_and_what_follows(call: Call, write: Write) -> None:
    call("run", write("gated.yaml", GATED))

    listed = call("gates", "list").out
    assert "ends the run" in listed
    (gate,) = call("gates", "show", "latest", "--json").json["pending"]
    assert gate["metadata"]["transition_guard"]["transition_id"] == gate["transition_id"]
    shown = call("gates", "show", "latest").out
    assert "then it ends the run" in shown
    stale = call("gates", "decide", "latest", "approve", "--gate", "another")
    assert stale.code == 5
    assert "look at the gate again" in stale.err
    request = gate["approval_request_id"]
    assert call("gates", "decide", "latest", "approve", "--gate", request).code == 0
    late = call("gates", "decide", "latest", "cancel", "--gate", request)
    assert late.code == 5
    assert "was decided already: approve by" in late.err
    assert "approve by" in call("runs", "show", "latest").out
    (decided,) = call("runs", "show", "latest", "--json").json["gate_history"]
    assert decided["decision"] == "approve"
    assert "approve by" in call("gates", "show", "latest").out


def test_wait_is_listed_and_resolved_once(
    call: Call, start: Start, write: Write, lines_until: Read
) -> None:
    assert "no run waits" in call("waits", "list").err
    runner = start("run", write("waiting.yaml", WAITING))
    lines_until(runner, "run_parked_on_wait")
    listed = call("waits", "list").out
    assert "external_condition" in listed
    assert "escalate" in listed
    assert "waits resolve" in call("runs", "show", "latest").out
    assert call("waits", "resolve", "latest", "--payload", "{").code == 2

    resolved = call("waits", "resolve", "latest", "--key", "k1", "--payload", '{"ok":1}')

    assert resolved.code == 0
    assert "wait of node `ready` is woken" in resolved.out
    assert runner.wait(20) == 0
    again = call("waits", "resolve", "latest", "--node", "ready", "--key", "k1", "--json").json
    assert again["wait"]["status"] == "woken"
    late = call("waits", "resolve", "latest", "--node", "ready", "--key", "k2")
    assert late.code == 5
    assert "is over" in late.out
    output = call("runs", "output", "latest", "ready").out
    assert '"ok":1' in output
