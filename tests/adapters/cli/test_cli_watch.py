"""`tandem runs watch`: events as they happen, for people and for programs."""

import subprocess
from collections.abc import Callable

from .conftest import Call, Start, sh

Write = Callable[[str, str], str]
Read = Callable[["subprocess.Popen[str]", str], list[str]]


def hello(word: str = "hello") -> str:
    return f"nodes: [{{node_id: say, action: {sh(f'printf {word}')}}}]\n"


def test_a_run_is_watched_from_its_beginning_to_its_end(call: Call, write: Write) -> None:
    call("run", write("hello.yaml", hello()))
    answer = call("runs", "watch", "latest")
    assert answer.code == 0
    kinds = [line.split()[1] for line in answer.out.splitlines()]
    assert kinds[0] == "run.created"
    assert kinds[-1] == "run.completed"
    assert "node.started  say  attempt 1  running" in answer.out


def test_a_program_gets_whole_events_and_goes_on_behind_one(call: Call, write: Write) -> None:
    call("run", write("hello.yaml", hello()))
    events = call("runs", "watch", "latest", "--json").lines
    assert [event["envelope"]["seq"] for event in events] == list(range(1, len(events) + 1))
    again = call("runs", "watch", "latest", "--json", "--after", events[1]["id"]).lines
    assert again == events[2:]


def test_a_cursor_of_another_store_is_told(call: Call, write: Write) -> None:
    call("run", write("hello.yaml", hello()))
    answer = call("runs", "watch", "latest", "--after", "0123-1")
    assert (answer.code, answer.out) == (0, "")
    assert "events were missed" in answer.err


def test_either_a_run_or_all_of_them(call: Call) -> None:
    assert call("runs", "watch").code == 2
    assert call("runs", "watch", "latest", "--all").code == 2
    assert call("runs", "watch", "nobody").code == 4


def test_all_runs_are_watched_while_other_processes_drive_them(
    call: Call, start: Start, write: Write, lines_until: Read
) -> None:
    call("run", write("hello.yaml", hello()))
    watching = start("runs", "watch", "--all")
    assert watching.stderr is not None
    assert "from now on" in watching.stderr.readline()
    first = start("run", "hello.yaml")
    second = start("run", "hello.yaml")
    seen = [*lines_until(watching, "run.completed"), *lines_until(watching, "run.completed")]
    assert len([line for line in seen if "run.created" in line]) == 2
    assert len({line.split()[0] for line in seen}) == 2, "the runs are named"
    assert first.wait(30) == 0
    assert second.wait(30) == 0
    watching.terminate()
