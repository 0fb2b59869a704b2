"""Bodies of every kind that are stopped at any moment of their start: all die, and nobody waits."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tandem import Automation, Engine, Run

LIMIT_S = 20
RUNS = 20
"""Of each kind of stop."""
MOMENTS_S = (0, 0.001, 0.003, 0.006, 0.01, 0.02, 0.05)


@pytest.fixture
def silent() -> Iterator[str]:
    """Return the URL of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    """Return an engine whose functions run in worker processes."""
    (tmp_path / "endless.py").write_text("import time\n\ndef body():\n    time.sleep(1000)\n")
    url = f"sqlite:///{tmp_path}/store/tandem.db"
    async with Engine.open(url, in_process=False) as found:
        yield found


async def cancelled(run: Run, _: Random) -> None:
    await run.cancel()


async def paused_and_cancelled(run: Run, random: Random) -> None:
    await run.pause()
    await asyncio.sleep(random.choice(MOMENTS_S))
    await run.cancel()


async def stopped_and_resumed(run: Run, random: Random) -> None:
    await run.pause(now=True)
    await run.wait_at_rest()
    await run.resume()
    await asyncio.sleep(random.choice(MOMENTS_S))
    await run.cancel()


@pytest.mark.parametrize("stopped", [cancelled, paused_and_cancelled, stopped_and_resumed])
async def test_whatever_has_just_begun_ends_at_once(
    engine: Engine, silent: str, tmp_path: Path, stopped: Any
) -> None:
    actions = {
        "command": {"kind": "command", "argv": ["sleep", "1000"]},
        "python": {"kind": "python", "function": "endless:body"},
        "http": {"kind": "http", "method": "GET", "url": silent},
        "quick": {"kind": "command", "argv": ["true"]},
    }
    random = Random(0)
    for _ in range(RUNS):
        chosen = random.sample(list(actions), random.choice((1, 2, 4)))
        nodes: list[Any] = [{"node_id": name, "action": actions[name]} for name in chosen]
        # It keeps a run from its end whose bodies are all quick.
        nodes.append({"node_id": "gate", "gate": {"required": True}})
        document = {"automation_id": "endless", "nodes": nodes}
        run = await engine.run(Automation.from_dict(document), workspace=tmp_path)
        await asyncio.sleep(random.choice(MOMENTS_S))
        async with asyncio.timeout(LIMIT_S):
            await stopped(run, random)
            assert await run.wait() == "cancelled"
