"""Packs, imports, backs up or removes garbage; kills itself around the n-th commit or file."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import msgspec

import tandem.garbage
import tandem.transfer
from tandem.adapters.sqlite.backup import back_up
from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.ids import LOCAL_TENANT
from tandem.settings import Settings

LATER_MS = 4_000_000_000_000


class Killer:
    """Ends this process at the n-th call: before the deed when n is even, else after it."""

    def __init__(self, kill_at: int) -> None:
        self._left = kill_at

    def around(self, deed: Callable[[], Any]) -> Any:
        self._step()
        result = deed()
        self._step()
        return result

    def _step(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def main(what: str, folder: str, source: str, kill_at: str) -> None:
    """Do one of these in this process, which is for nothing else."""
    settings = Settings(state_dir=Path(folder))
    killer = Killer(int(kill_at))

    def commit(connection: apsw.Connection) -> None:
        killer.around(lambda: connection.execute("COMMIT"))

    def open_store(_settings: Settings) -> SqliteStore:
        return SqliteStore(settings.store_path, synchronous="OFF", commit=commit)

    match what:
        case "archive":
            asyncio.run(archive(open_store(settings)))
        case "import":
            tandem.transfer.open_store = open_store
            tandem.transfer.RUNS_AT_ONCE = 2  # type: ignore[misc] # many small batches
            found = tandem.transfer.import_from(
                settings, Path(source), tenant=LOCAL_TENANT, progress=lambda _: None
            )
            print(msgspec.json.encode(asyncio.run(found)).decode())
        case "backup":
            link = os.link
            os.link = lambda *names: killer.around(lambda: link(*names))  # type: ignore[assignment] # the point of the test
            back_up(settings.store_path, Path(source))
        case _:
            unlink = Path.unlink

            def killing(self: Path, missing_ok: bool = False) -> None:
                killer.around(lambda: unlink(self, missing_ok=missing_ok))

            Path.unlink = killing  # type: ignore[method-assign] # the point of the test
            tandem.garbage.collect(settings, before_ms=LATER_MS, now_ms=LATER_MS, dry_run=False)


async def archive(store: SqliteStore) -> None:
    while await store.archive(before_ms=LATER_MS, rows_max=30, now_ms=LATER_MS):
        pass
    store.close()
