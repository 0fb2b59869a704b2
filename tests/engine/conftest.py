"""An engine on a real store, with functions of the test as bodies."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tandem import Automation, Engine, Run

WAIT_S = 20


class Bench:
    """An engine in this process; `functions` are the bodies, by name."""

    def __init__(self, engine: Engine, functions: dict[str, Callable[..., Any]]) -> None:
        self.engine = engine
        self._functions = functions

    def body(self, name: str, function: Callable[..., Any]) -> None:
        """Make `function` the body of the nodes that call `test:name`."""
        self._functions[f"test:{name}"] = function

    async def start(self, *nodes: dict[str, Any], **fields: Any) -> Run:
        """Start a run of these nodes."""
        workspace = fields.pop("workspace", None)
        inputs = fields.pop("given", None)
        document = {"automation_id": "test", **fields, "nodes": list(nodes)}
        return await self.engine.run(Automation.from_dict(document), inputs, workspace=workspace)

    async def end(self, run: Run) -> str:
        """Wait for the end of a run."""
        async with asyncio.timeout(WAIT_S):
            state = await run.wait()
        print(run.row)  # shown by pytest when the test fails
        return state

    async def rest(self, run: Run) -> str:
        """Wait until a run ends or needs a person."""
        async with asyncio.timeout(WAIT_S):
            return await run.wait_at_rest()


def call(node_id: str, name: str = "ok", /, *after: str, **fields: Any) -> dict[str, Any]:
    """Describe a node that calls a function of the test."""
    arguments = fields.pop("arguments", {})
    action = {"kind": "python", "function": f"test:{name}", "arguments": arguments}
    return {"node_id": node_id, "depends_on": list(after), "action": action, **fields}


def command(node_id: str, script: str, /, *after: str, **fields: Any) -> dict[str, Any]:
    """Describe a node that runs a shell script."""
    action = {"kind": "command", "shell": True, "script": script, **fields.pop("action", {})}
    return {"node_id": node_id, "depends_on": list(after), "action": action, **fields}


def events(run: Run, *kinds: str) -> list[tuple[str, str | None]]:
    """Return kind and node of the events of a run, of all kinds or of these."""
    return [(e.event.value, e.node_id) for e in run.events() if not kinds or e.event in kinds]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    functions: dict[str, Callable[..., Any]] = {"test:ok": lambda **_: "ok"}
    store = tmp_path / "store" / "tandem.db"
    async with Engine.open(f"sqlite:///{store}", functions=functions) as engine:
        yield Bench(engine, functions)
