"""Asks for a run with a key, and kills itself with SIGKILL before or after a commit, or answers.

The answer is the id of the run. The commit is the one of the creation: of the kind that a server
does before it answers `run_now`.
"""

import asyncio
import os
import signal
from pathlib import Path

import apsw

from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.creation import NewRun
from tandem.domain.ids import LOCAL_TENANT, ChangeId, RunId
from tandem.domain.request_key import request_key
from tandem.testing.store_suite import NOW_MS, chain, plan_of


async def ask(folder: Path, run_id: str, moment: str) -> str:
    """Create the run, and die where the moment says."""

    def commit(connection: apsw.Connection) -> None:
        if moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        connection.execute("COMMIT")
        if moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)

    store = SqliteStore(folder / "tandem.db", commit=commit)
    plan, document = plan_of(chain(1))
    run = await store.create_run(
        NewRun(
            run_id=RunId(run_id),
            tenant=LOCAL_TENANT,
            change_id=ChangeId(f"{run_id}-1"),
            plan=plan,
            document=document,
            inputs={},
            workspace="",
            key=request_key("run_now:job", "k-1", {"inputs": {}}),
        ),
        now_ms=NOW_MS,
    )
    store.close()
    return run.run_id


def main(folder: str, run_id: str, moment: str) -> None:
    """Ask in this process; `moment` is `before`, `after` or `never`."""
    print(asyncio.run(ask(Path(folder), run_id, moment)))
