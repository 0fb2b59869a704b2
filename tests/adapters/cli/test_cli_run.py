"""`tandem run`: what it shows, what it leaves, how it exits."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Call, Start, sh

Write = Callable[[str, str], str]
Read = Callable[["subprocess.Popen[str]", str], list[str]]

GATED = f"""\
nodes:
  - {{node_id: draft, action: {sh("echo text")}}}
  - node_id: review
    depends_on: [draft]
    stage_kind: approval
    objective: Is it good?
    gate: {{decisions: [approve, rework, cancel]}}
  - {{node_id: publish, depends_on: [review], action: {sh("echo out")}}}
"""


def one(script: str) -> str:
    return f"nodes:\n  - {{node_id: only, action: {sh(script)}}}\n"


def shaped(text: str) -> str:
    """Return the output with what differs from run to run replaced."""
    text = re.sub(r"\d\d:\d\d:\d\d", "TIME", text)
    text = re.sub(r"automation-v2-run-[0-9a-f]{32}", "RUN", text)
    text = re.sub(r"\b[0-9a-f]{8}\b", "SHORT", text)
    return re.sub(r"\d+(\.\d)? m?s\b *", "SPAN ", text)


def test_completed_run_prints_events_and_a_summary(call: Call, write: Write) -> None:
    answer = call("run", write("hello.yaml", one("echo hello")))
    assert answer.code == 0
    assert answer.err == ""
    assert shaped(answer.out) == (
        "TIME run_created\n"
        "TIME run_execution_claimed\n"
        "TIME node_started  only  attempt 1\n"
        "TIME node_completed  only  attempt 1\n"
        "TIME run_completed\n"
        "\n"
        "NODE  KIND     STATE      ATTEMPTS  DURATION  ERROR\n"
        "only  command  completed  1         SPAN \n"
        "\n"
        "hello  RUN\n"
        "  what    completed in SPAN ; 1 of 1 node completed\n"
        "  output  only: hello\n"
        "  status  .tandem/runs/RUN/status.json\n"
    )


def test_status_file_lies_where_the_summary_says(call: Call, write: Write, tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    file = write("hello.yaml", one("echo hello > made.txt"))
    answer = call("run", file, "--workspace", str(room), "--json")
    result = answer.lines[-1]
    assert Path(result["status_file"]).is_file()
    assert Path(result["status_file"]).is_relative_to(room)
    assert (room / "made.txt").read_text() == "hello\n"


def test_json_prints_every_event_and_the_result(call: Call, write: Write) -> None:
    answer = call("run", write("hello.yaml", one("echo hello")), "--json")
    *events, result = answer.lines
    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5]
    assert {event["type"] for event in events} == {"event"}
    assert (result["type"], result["status"], result["exit_code"]) == ("result", "completed", 0)
    assert result["outputs"] == {"only": "hello\n"}
    assert result["explanation"]["next"] == []


def test_quiet_prints_only_the_summary(call: Call, write: Write) -> None:
    answer = call("run", write("hello.yaml", one("echo hello")), "-q")
    assert answer.out.startswith("\nNODE")


def test_failed_run_says_what_where_why_and_what_next(call: Call, write: Write) -> None:
    script = "printf '\\033[31mred\\033[0m\\007\\n' >&2; exit 3"
    file = write("bad.yaml", one(script).replace("}}", "}, retry_policy: {max_attempts: 1}}"))
    answer = call("run", file)
    assert answer.code == 1
    assert "\x1b" not in answer.out
    assert "\x07" not in answer.out
    assert shaped(answer.out).split("\n\n")[-1] == (
        "bad  RUN\n"
        "  what    failed after SPAN ; 0 of 1 node completed\n"
        "  where   node `only`, attempt 1\n"
        "  why     exited with code 3: red\n"
        "            | red\n"
        "  next    tandem resume SHORT\n"
        "  next    tandem runs events SHORT\n"
        "  status  .tandem/runs/RUN/status.json\n"
    )


def test_command_that_does_not_exist_is_named(call: Call, write: Write) -> None:
    text = "nodes: [{node_id: a, action: {kind: command, argv: [no-such-command-here]}}]\n"
    answer = call("run", write("a.yaml", text))
    assert answer.code == 1
    assert "no-such-command-here" in answer.out.split("  why ")[1].splitlines()[0]


ECHO = """\
inputs:
  count: {type: integer, default: 3}
  word: {type: string}
  names: {type: array, items: {type: string}, default: []}
nodes:
  - node_id: show
    action:
      kind: command
      argv: [echo, "${inputs.count}", "${inputs.word}", "${inputs.names}"]
"""


def test_inputs_are_read_by_their_declared_types(call: Call, write: Write, tmp_path: Path) -> None:
    write("word.txt", "12")
    answer = call(
        "run",
        write("echo.yaml", ECHO),
        "--input=count=7",
        "--input=word=@word.txt",
        '--input=names=["a"]',
        "--json",
    )
    result = answer.lines[-1]
    assert result["inputs"] == {"count": 7, "word": "12", "names": ["a"]}
    assert result["outputs"] == {"show": '7 12 ["a"]\n'}


def test_pairs_win_over_the_file_of_inputs(call: Call, write: Write) -> None:
    inputs = write("inputs.json", '{"word": "file", "count": 1}')
    file = write("echo.yaml", ECHO)
    answer = call("run", file, "--inputs-json", inputs, "--input=word=@@pair", "--json")
    assert answer.lines[-1]["inputs"] == {"word": "@pair", "count": 1, "names": []}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--input=word=x", "--input=count=many"], 3, "inputs.count"),
        (["--input=wrd=x"], 3, "did you mean `word`?"),
        (["--input=word"], 2, "is not name=value"),
        (["--input=word=@gone.txt"], 4, "cannot read gone.txt"),
        (["--inputs-json=echo.yaml"], 2, "not JSON"),
        (["--inputs-json=nan.json"], 2, "not JSON"),
        (["--input=word=x", "--workspace=gone"], 4, "is not a directory"),
        (["--input=word=x", "--approve=gone"], 2, "there is no node 'gone'"),
        (["--input=word=x", "--decide=show"], 2, "is not NODE=DECISION"),
        (["--input=word=x", "--json", "--quiet"], 2, "exclude each other"),
    ],
)
def test_wrong_arguments_are_explained_before_anything_runs(
    call: Call, write: Write, state_dir: Path, arguments: list[str], code: int, said: str
) -> None:
    write("nan.json", '{"count": NaN}')
    answer = call("run", write("echo.yaml", ECHO), *arguments)
    assert answer.code == code
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert call("runs", "list", "--json").json == []


def test_undecided_gate_leaves_the_run_waiting(call: Call, write: Write) -> None:
    answer = call("run", write("gated.yaml", GATED))
    assert answer.code == 9
    last = shaped(answer.out).split("\n\n")[-1]
    assert "  what    waiting for a decision; 1 of 3 nodes completed\n" in last
    assert (
        "  next    tandem gates decide SHORT approve --node review  # or rework, cancel\n"
        "  next    tandem resume SHORT\n"
    ) in last


def test_decisions_in_advance_answer_one_asking_each(call: Call, write: Write) -> None:
    file = write("gated.yaml", GATED)
    answer = call("run", file, "--decide=review=rework", "--approve=review", "--json")
    *events, result = answer.lines
    decisions = [e["metadata"]["decision"] for e in events if e["event"] == "gate_decided"]
    assert decisions == ["rework", "approve"]
    assert (answer.code, result["status"]) == (0, "completed")


def test_gate_cancelled_in_advance_cancels_the_run(call: Call, write: Write) -> None:
    answer = call("run", write("gated.yaml", GATED), "--decide", "review=reject")
    assert answer.code == 8


def test_decision_that_the_gate_does_not_offer_is_refused(call: Call, write: Write) -> None:
    answer = call("run", write("gated.yaml", GATED), "--decide=review=maybe")
    assert answer.code == 2
    assert "it offers approve, rework, cancel" in answer.err


def test_timer_is_waited_for(call: Call, write: Write) -> None:
    text = "nodes: [{node_id: nap, wait: {kind: timer, delay_ms: 300}}]\n"
    answer = call("run", write("nap.yaml", text), "--json")
    *events, result = answer.lines
    assert answer.code == 0
    assert "run_parked_on_wait" in [event["event"] for event in events]
    assert result["duration_ms"] >= 300


def test_detached_run_is_left_to_others(call: Call, write: Write) -> None:
    answer = call("run", write("gated.yaml", GATED), "--detach")
    assert answer.code == 0
    run_id = answer.out.strip()
    shown = call("runs", "show", run_id, "--json").json
    assert (shown["status"], shown["owner"]) == ("queued", None)


def test_detach_and_decisions_exclude_each_other(call: Call, write: Write) -> None:
    assert call("run", write("gated.yaml", GATED), "--detach", "--approve=review").code == 2


def test_first_signal_pauses_once_what_runs_has_ended(
    start: Start, call: Call, write: Write, lines_until: Read
) -> None:
    os.mkfifo("go")
    file = write(
        "slow.yaml",
        one("cat go").replace(
            "}}", f"}}}}\n  - {{node_id: next, depends_on: [only], action: {sh('echo next')}}}"
        ),
    )
    process = start("run", file)
    lines_until(process, "node_started")
    process.send_signal(2)
    lines_until(process, "run_pause_requested")
    Path("go").write_text("late\n")
    out, err = process.communicate(timeout=20)
    assert process.returncode == 9
    assert "once more (Ctrl-C) cancels the run" in err
    assert "node_completed  only" in out
    assert "node_started  next" not in out
    shown = call("runs", "show", "latest", "--json").json
    assert (shown["status"], shown["pause_reason"]) == ("paused", "paused from the keyboard")


def test_second_signal_cancels_and_leaves_nothing(
    start: Start, call: Call, write: Write, lines_until: Read
) -> None:
    os.mkfifo("deaf")
    process = start(
        "run",
        write("slow.yaml", one("trap '' TERM; echo > deaf; sleep 600")),
        env={"TANDEM_STOP_GRACE_MS": "100"},
    )
    lines_until(process, "node_started")
    Path("deaf").read_text()
    process.terminate()
    lines_until(process, "run_pause_requested")
    process.terminate()
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 8
    assert "run_processes_ended" in out
    shown = call("runs", "show", "latest", "--json").json
    assert (shown["status"], shown["stop_reason"]) == ("cancelled", "cancelled by SIGTERM")


def test_third_signal_leaves_at_once_and_takes_the_body_along(
    start: Start, call: Call, write: Write, lines_until: Read
) -> None:
    os.mkfifo("deaf")
    process = start(
        "run",
        write("slow.yaml", one("trap '' TERM; echo > deaf; while :; do sleep 1; done")),
        env={"TANDEM_STOP_GRACE_MS": "600000"},
    )
    lines_until(process, "node_started")
    Path("deaf").read_text()  # from here on the body outlives SIGTERM
    for event in ("run_pause_requested", "run_stopped"):
        process.send_signal(2)
        lines_until(process, event)
    process.send_signal(2)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "left at once; go on later with: tandem resume " in err
    answer = call("resume", "latest", "--json")
    assert (answer.code, answer.lines[-1]["cleanup"]) == (8, None)


def test_closed_pipe_ends_quietly_and_hands_the_run_back(call: Call, write: Write) -> None:
    file = write("many.yaml", one("sleep 600"))
    command = f"{sys.executable} -m tandem run {file} | head -n 1; echo ${{PIPESTATUS[0]}}"
    # Its first line closes the pipe, one of the next ones meets that.
    done = subprocess.run(
        ["bash", "-c", command.replace("head -n 1", "true")],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.split() == ["141"]
    assert "Traceback" not in done.stderr
    assert "was handed back" in done.stderr
    assert call("runs", "list", "--json").json[0]["status"] == "queued"
