"""Builders and waits for the executors of this host."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tandem.adapters.local.executor import LocalExecutor
from tandem.domain.action import Action, CommandAction, CommandOutput, HttpAction, PythonAction
from tandem.domain.ids import LOCAL_TENANT, AttemptId, EngineId, NodeId, RunId
from tandem.domain.outcome import Outcome
from tandem.ports.executor import AttemptSpec

WAIT_S = 10.0


class Bench:
    """Builds attempts below one temporary directory, and remembers what they reported."""

    def __init__(self, root: Path) -> None:
        self.workspace = root / "workspace"
        self.workspace.mkdir()
        self.scratch = root / "scratch"
        self.engine_id = EngineId(f"engine-{uuid4().hex}")
        self.progress_calls: list[tuple[str, str]] = []
        self._numbers = 0

    def progress(self, kind: str, text: str = "") -> None:
        self.progress_calls.append((kind, text))

    def spec(self, action: Action, **fields: Any) -> AttemptSpec:
        self._numbers += 1
        run = RunId(f"run-{uuid4().hex}")
        values: dict[str, Any] = {
            "tenant": LOCAL_TENANT,
            "engine_id": self.engine_id,
            "run_id": run,
            "node_id": NodeId("node"),
            "attempt_id": AttemptId(f"{run}/node/1"),
            "number": 1,
            "epoch": 7,
            "idempotency_key": f"{run}/node",
            "action": action,
            "inputs": {},
            "workspace": str(self.workspace),
            "scratch": str(self.scratch / str(self._numbers)),
        }
        return AttemptSpec(**(values | fields))

    def command(self, *argv: str, **fields: Any) -> AttemptSpec:
        action, rest = _split(fields, CommandAction)
        return self.spec(CommandAction(argv=list(argv), **_with_output(action)), **rest)

    def shell(self, script: str, **fields: Any) -> AttemptSpec:
        action, rest = _split(fields, CommandAction)
        return self.spec(CommandAction(shell=True, script=script, **_with_output(action)), **rest)

    def python(self, function: str, **fields: Any) -> AttemptSpec:
        action, rest = _split(fields, PythonAction)
        return self.spec(PythonAction(function=function, **action), **rest)

    def http(self, url: str, **fields: Any) -> AttemptSpec:
        action, rest = _split(fields, HttpAction)
        return self.spec(HttpAction(url=url, **action), **rest)

    def module(self, name: str, text: str) -> None:
        (self.workspace / f"{name}.py").write_text(text)


def _split(fields: dict[str, Any], model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    mine = {name: value for name, value in fields.items() if name in model.model_fields}
    return mine, {name: value for name, value in fields.items() if name not in mine}


def _with_output(fields: dict[str, Any]) -> dict[str, Any]:
    if "output" in fields:
        fields["output"] = CommandOutput(**fields["output"])
    return fields


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def can_isolate() -> bool:
    return os.geteuid() == 0 and os.system("unshare --pid --mount --fork true 2>/dev/null") == 0


@pytest.fixture(scope="session")
def host_can_isolate() -> bool:
    return can_isolate()


@pytest.fixture(params=["subreaper", "pid_namespace"])
def isolation(request: pytest.FixtureRequest, host_can_isolate: bool) -> str:
    """Each way of keeping programs together that this host allows."""
    if request.param == "pid_namespace" and not host_can_isolate:
        pytest.skip("PID namespaces need root with CAP_SYS_ADMIN")
    return str(request.param)


@pytest.fixture
async def executor(isolation: Any) -> AsyncIterator[LocalExecutor]:
    async with LocalExecutor(isolation=isolation, workers_max=2) as found:
        yield found


@pytest.fixture
async def plain() -> AsyncIterator[LocalExecutor]:
    """An executor without PID namespaces."""
    async with LocalExecutor(isolation="subreaper", workers_max=2) as found:
        yield found


@pytest.fixture
def run(bench: Bench) -> Callable[[LocalExecutor, AttemptSpec], Any]:
    async def run_attempt(executor: LocalExecutor, spec: AttemptSpec) -> Outcome:
        async with asyncio.timeout(WAIT_S):
            return await executor.run(spec, bench.progress)

    return run_attempt


async def eventually(condition: Callable[[], Any], what: str = "condition") -> Any:
    """Return the first true value of `condition`, or fail after WAIT_S."""
    deadline = time.monotonic() + WAIT_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"never: {what}"
        await asyncio.sleep(0.005)
    return value


@pytest.fixture
def until() -> Callable[..., Any]:
    return eventually


def pids_with(mark: str) -> set[int]:
    """Return the processes that have `mark` (`NAME=value`) in their environment."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                environ = Path(f"/proc/{name}/environ").read_bytes()
            except OSError:
                continue
            if mark.encode() in environ.split(b"\0"):
                found.add(int(name))
    return found


@pytest.fixture
def living() -> Callable[[str], set[int]]:
    return pids_with


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


@pytest.fixture
def alive() -> Callable[[int], bool]:
    return is_alive
