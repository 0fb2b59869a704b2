"""A run whose disk fails in the middle and recovers: the engine waits, and runs no body twice.

Started as a program it meets a limit on the size of files: `argv` is the folder; it says in JSON
what happened.
"""

import asyncio
import json
import resource
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from tandem import Automation, Engine
from tandem.domain.change import Change
from tandem.domain.errors import StoreUnavailable
from tandem.domain.lifecycle import RunEvent
from tandem.domain.view import RunView
from tandem.wiring import Parts

LIMIT_S = 30
NODES = 4
FAILURES = 3
"""The disk is mended after so many writes were refused."""


class Outage(msgspec.Struct, frozen=True):
    """What the run was like."""

    end: str
    ran: dict[str, int]
    refusals: list[str]
    integrity: list[str]
    seqs: list[int]
    events: list[str]


def automation() -> Any:
    """Return a chain whose outputs need room."""
    return Automation.from_dict(
        {
            "automation_id": "outage",
            "nodes": [
                {
                    "node_id": f"n{number}",
                    "depends_on": [f"n{number - 1}"] if number else [],
                    "action": {
                        "kind": "python",
                        "function": "host:work",
                        "arguments": {"name": f"n{number}"},
                    },
                }
                for number in range(NODES)
            ],
        }
    )


async def ride_out(
    folder: Path, *, breaks: Callable[[Parts], None], mends: Callable[[Parts], None]
) -> Outage:
    """Break the disk while the second node runs, mend it after a few refused writes."""
    ran: dict[str, int] = {}
    refusals: list[str] = []

    def work(name: str) -> str:
        ran[name] = ran.get(name, 0) + 1
        return "x" * 12_000

    url = f"sqlite:///{folder}/store.db"
    async with asyncio.timeout(LIMIT_S), Engine.open(url, functions={"host:work": work}) as engine:
        parts = engine.parts
        apply = parts.store.apply

        def listen(view: RunView, change: Change) -> None:
            for event in change.events:
                if event.event is RunEvent.NODE_STARTED and event.node_id == "n1":
                    breaks(parts)

        async def watched(change: Change) -> None:
            try:
                await apply(change)
            except StoreUnavailable as error:
                refusals.append(str(error))
                if len(refusals) == FAILURES:
                    mends(parts)
                raise

        watch: Callable[[Change], Awaitable[None]] = watched
        parts.store.apply = watch  # type: ignore[method-assign]
        parts.engine.listen(listen)
        run = await engine.run(automation())
        end = await run.wait()
        events = run.events()
        return Outage(
            end=end.value,
            ran=ran,
            refusals=refusals,
            integrity=parts.store.check(),
            seqs=[event.seq for event in events],
            events=[event.event.value for event in events],
        )


def limit_files(parts: Parts) -> None:
    """Let no file of this process grow."""
    wal = Path(f"{parts.store.path}-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (wal, resource.RLIM_INFINITY))


def lift_limit(parts: Parts) -> None:
    """Let files grow again."""
    unlimited = resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))


if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    seen = asyncio.run(ride_out(Path(sys.argv[1]), breaks=limit_files, mends=lift_limit))
    print(json.dumps(msgspec.to_builtins(seen)))
