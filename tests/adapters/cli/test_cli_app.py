"""The root of the commands: start, help, errors, exit codes."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import click
import pytest

from tandem.__main__ import LocalTools
from tandem.adapters.cli import exits
from tandem.adapters.cli.app import cli, main
from tandem.domain import errors
from tandem.domain.lifecycle import RunState

from .conftest import Call


def test_version_is_that_of_the_package(call: Call) -> None:
    assert call("--version").out == f"tandem {version('tandem-engine')}\n"


def test_help_starts_without_the_engine() -> None:
    heavy = ["apsw", "asyncio", "httpx2", "msgspec", "pydantic", "rich", "tandem.engine", "yaml"]
    script = (
        "import sys; from tandem.__main__ import LocalTools; "
        "from tandem.adapters.cli.app import main; main(LocalTools(), ['--help']); "
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stderr.strip() == "[]"
    assert "doctor" in done.stdout


def test_an_interrupt_while_the_program_is_being_read_is_no_traceback() -> None:
    script = (
        "import sys, tandem.__main__\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'click': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "sys.exit(tandem.__main__.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (exits.INTERRUPTED, "", "")


def test_every_command_has_help(call: Call) -> None:
    def paths(command: click.Command, names: list[str]) -> list[list[str]]:
        if not isinstance(command, click.Group):
            return [names]
        context = click.Context(command)
        found = [names]
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            found += paths(below, [*names, name])
        return found

    every = paths(cli, [])
    assert len(every) > 30
    assert all(["runs", name] in every for name in ("why", "pause", "repair", "fork", "delete"))
    for names in every:
        answer = call(*names, "--help")
        assert answer.code == 0, names
        assert answer.out.startswith(f"Usage: {' '.join(['tandem', *names])} "), names


def test_nothing_asked_shows_the_help(call: Call) -> None:
    answer = call()
    assert answer.code == 2
    assert "Commands:" in answer.err


def test_near_miss_of_a_command_is_named(call: Call) -> None:
    answer = call("rnus", "list")
    assert answer.code == 2
    assert "Did you mean 'runs'?" in answer.err


def test_usage_error_is_json_when_json_is_asked_for(call: Call) -> None:
    answer = call("run", "--json")
    assert answer.code == 2
    assert json.loads(answer.err)["error"]["code"] == "usage"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidAutomation([]), 3),
        (errors.NotFound("gone"), 4),
        (errors.Refused("no"), 5),
        (errors.LeaseLost("no"), 5),
        (errors.IllegalTransition("a", "b"), 5),
        (errors.StoreUnavailable("away"), 6),
        (errors.StoreTooNew("new"), 6),
    ],
)
def test_every_error_has_its_exit_code(
    error: errors.EngineError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    class Failing(LocalTools):
        def read_settings(self) -> None:  # type: ignore[override]
            raise error

    assert main(Failing(), ["runs", "list"]) == code
    said = capsys.readouterr().err
    assert said == f"error: {error}\n"


def test_what_was_not_expected_is_kept_for_a_report(
    state_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(LocalTools):
        def read_settings(self) -> None:  # type: ignore[override]
            raise ZeroDivisionError("half a thing")

    state_dir.mkdir()
    assert main(Broken(), ["runs", "list"]) == 70
    said = capsys.readouterr().err
    [kept] = state_dir.glob("tandem-error-*.txt")
    assert said == (
        "error: this should not have happened: ZeroDivisionError: half a thing; "
        f"the traceback is in {kept}, please report it\n"
    )
    assert "Traceback (most recent call last)" in kept.read_text()


def test_closed_pipe_of_a_list_is_quiet() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m tandem schema | : ; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["141"]


@pytest.mark.parametrize("command", ["schema", "runs output latest a"])
def test_output_that_does_not_fit_on_the_disk_is_no_mistake_of_ours(
    call: Call, command: str
) -> None:
    printing = "import sys; print('x' * 100_000)"
    action = {"kind": "command", "argv": [sys.executable, "-c", printing]}
    document = {"nodes": [{"node_id": "a", "action": action}]}
    Path("big.yaml").write_text(json.dumps(document))
    assert call("run", "big.yaml").code == 0

    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "tandem", *command.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    assert ended.returncode == 74
    assert ended.stderr == (
        "error: the output could not be written: No space left on device; "
        "what was asked for may have been done\n"
    )


def test_run_without_standard_streams_is_run_and_told_to_nobody(call: Call) -> None:
    Path("hi.yaml").write_text("nodes: [{node_id: a, action: {kind: command, argv: [echo, hi]}}]\n")
    started = f"exec {sys.executable} -m tandem run hi.yaml <&- >&-"

    ended = subprocess.run(["sh", "-c", started], stderr=subprocess.PIPE, check=False)

    assert (ended.returncode, b"Traceback" in ended.stderr) == (0, False)
    assert call("runs", "output", "latest", "a").out == "hi\n"
    assert call("db", "check").code == 0


def test_name_of_a_file_that_is_no_text_is_told_as_far_as_it_goes(call: Call) -> None:
    name = "bad\udcff.yaml"
    Path(name).write_text("nodes: [{node_id: a, action: {kind: command, argv: [echo, hi]}}]\n")
    Path("w\udcff").mkdir()

    assert call("validate", name, "--json").json[0]["file"] == "bad?.yaml"
    refused = call("run", name, "--workspace", "w\udcff")
    assert (refused.code, "is no UTF-8 text" in refused.err) == (4, True)


def test_current_directory_that_is_gone_is_told(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "hi.yaml"
    file.write_text("nodes: [{node_id: a, action: {kind: command, argv: [echo, hi]}}]\n")
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()

    refused = call("run", str(file))
    assert (refused.code, "the current directory is gone" in refused.err) == (4, True)
    assert call("run", str(file), "--workspace", str(tmp_path)).code == 0


def test_every_state_has_its_exit_code() -> None:
    codes = {state.value: exits.code_of_state(state) for state in RunState}
    assert codes == {
        "completed": 0,
        "failed": 1,
        "blocked": 7,
        "cancelled": 8,
        "queued": 9,
        "running": 9,
        "pausing": 9,
        "paused": 9,
        "awaiting_approval": 9,
    }


def test_worst_of_several_codes_wins() -> None:
    assert exits.worst([0, 9, 1, 8]) == 1
    assert exits.worst([0, 9]) == 9
    assert exits.worst([0, 0]) == 0
