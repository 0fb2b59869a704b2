"""Takes one delivery and lets it become a run; kills itself with SIGKILL around the n-th commit."""

import asyncio
import os
import signal
import time
from pathlib import Path

import apsw

import tandem.wiring
from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.webhook_signature import Incoming, signature_of
from tandem.settings import Settings

BODY = b'{"issue": 1}'


class Killer:
    """Ends this process before the n-th commit when n is odd, else after it."""

    def __init__(self, kill_at: int) -> None:
        self._left = kill_at

    def commit(self, connection: apsw.Connection) -> None:
        changed = connection.total_changes() if connection.in_transaction else 0
        self._step(changed)
        connection.execute("COMMIT")
        self._step(changed)

    def _step(self, changed: int) -> None:
        self._left -= changed > 0
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def main(folder: str, token: str, secret: str, kill_at: str) -> None:
    """Take it in this process, which is for nothing else."""
    asyncio.run(take(folder, token, secret, kill_at))


async def take(folder: str, token: str, secret: str, kill_at: str) -> None:
    """Receive the delivery, and empty the inbox."""
    settings = Settings(state_dir=Path(folder))
    killer = Killer(int(kill_at) if int(kill_at) else 1 << 30)

    def open_store(_settings: Settings) -> SqliteStore:
        return SqliteStore(settings.store_path, synchronous="OFF", commit=killer.commit)

    tandem.wiring.open_store = open_store
    async with tandem.wiring.open_engine(settings, drives=False) as parts:
        signature = signature_of(secret, time.time_ns() // 1_000_000, BODY)
        headers = {"x-tandem-webhook-signature": signature, "x-event-id": "e1"}
        received = await parts.webhooks.receive(
            parts.webhooks.find_by_token(token), Incoming(headers=headers, body=BODY)
        )
        print(received.reception, flush=True)
        while await parts.engine.inbox.take():
            pass
