"""The command line in this process (fast) and as a program of its own (for signals and pipes)."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tandem.__main__ import LocalTools
from tandem.adapters.cli.app import main


class Answer(msgspec.Struct, frozen=True):
    """What a call of the command line left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


Call = Callable[..., Answer]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory and a current directory of the test's own."""
    folder = tmp_path / "state"
    for name in [name for name in os.environ if name.startswith("TANDEM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TANDEM_STATE_DIR", str(folder))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return folder


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Call the command line in this process."""

    def run(*arguments: str) -> Answer:
        capsys.readouterr()
        code = main(LocalTools(), list(arguments))
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return run


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the command line as a program; what still runs at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, env: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "tandem", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], str]:
    """Write a file into the current directory and return its name."""

    def put(name: str, content: str) -> str:
        (tmp_path / "work" / name).write_text(content, "utf-8")
        return name

    return put


@pytest.fixture
def lines_until() -> Callable[["subprocess.Popen[str]", str], list[str]]:
    """Read the standard output of a program up to the first line that has a word."""

    def read(process: "subprocess.Popen[str]", word: str) -> list[str]:
        assert process.stdout is not None
        seen: list[str] = []
        for line in process.stdout:
            seen.append(line.rstrip("\n"))
            if word in line:
                return seen
        raise AssertionError(f"no {word!r} in {seen}")

    return read


def sh(script: str) -> str:
    """Return a command action that runs a script."""
    return json.dumps({"kind": "command", "shell": True, "script": script})
