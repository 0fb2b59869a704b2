"""Signals and the waits that they are for, matched in the transaction that brings either of them.

Whichever comes second finds the first: a signal looks for open waits when it is accepted, a wait
looks for kept signals when it is registered, or when its run goes on after an end. Both are in one
transaction with what they write, so no crash can come between.
"""

from contextlib import suppress
from typing import Any, Final

import apsw
import msgspec

from tandem.adapters.frames import unpack
from tandem.adapters.sqlite.tables import Tables, fetch, run_statement
from tandem.domain.change import Change
from tandem.domain.command import ResolveWait
from tandem.domain.decision import decide
from tandem.domain.errors import EngineError
from tandem.domain.ids import ChangeId, TenantId, WaitId
from tandem.domain.lifecycle import TERMINAL
from tandem.domain.run import OPEN_WAITS, Wait
from tandem.domain.signal import Signal, keys_of
from tandem.ports.store import Delivered

WAITS_AT_ONCE: Final = 100
"""How many waits one transaction wakes; a signal for more is taken up again by a sweep."""
SIGNALS_SEEN_MAX: Final = 20
"""How many kept signals a wait that is registered looks at."""


class Deliver(msgspec.Struct, frozen=True, tag=True):
    """Keep a signal and wake the waits that it is for; or go on with one that is kept already."""

    tenant: TenantId
    signal: Signal | None
    signal_no: int
    change_id: ChangeId
    now_ms: int
    received_at_ms: int | None = None
    """When it came, if that is not now."""

    def perform(self, tables: Tables, connection: apsw.Connection) -> Delivered:
        """See `Write`."""
        if self.signal is None:
            return self._go_on(tables, connection, self.signal_no, is_new=False)
        signal, tenant = self.signal, self.tenant
        named = (tenant, signal.kind.value, signal.subject, signal.idempotency_key)
        raw = msgspec.json.encode(signal)
        came_at_ms = self.now_ms if self.received_at_ms is None else self.received_at_ms
        added = fetch(connection, tables.sql["add_signal"], (*named, came_at_ms, raw))
        if not added:
            (known,) = fetch(connection, tables.sql["find_signal"], named)
            return Delivered(
                signal_no=known["signal_no"], received_at_ms=known["received_at_ms"], is_new=False
            )
        signal_no = added[0]["signal_no"]
        for key in keys_of(signal, tenant):
            run_statement(connection, tables.sql["add_signal_key"], (key, signal_no))
        return self._go_on(tables, connection, signal_no, is_new=True)

    def _go_on(
        self, tables: Tables, connection: apsw.Connection, signal_no: int, *, is_new: bool
    ) -> Delivered:
        found = fetch(connection, tables.sql["get_signal"], (signal_no,))
        if not found or found[0]["open_after"] is None:
            return Delivered(signal_no=signal_no, received_at_ms=self.now_ms, is_new=is_new)
        (row,) = found
        waits = self._waits(tables, connection, signal_no, row["open_after"])
        is_open = len(waits) == WAITS_AT_ONCE
        after = waits[-1]["wait_id"] if is_open else None
        woken: list[tuple[WaitId, Change]] = []
        refused: list[tuple[WaitId, str]] = []
        signal = msgspec.json.decode(row["signal"], type=Signal)
        for place, wait in enumerate(waits):
            change_id = ChangeId(f"{self.change_id}-{place}")
            try:
                change = wake_by(
                    tables,
                    connection,
                    signal,
                    run_no=wait["run_no"],
                    wait_id=wait["wait_id"],
                    change_id=change_id,
                    now_ms=self.now_ms,
                )
            except EngineError as error:
                # This wait does not want it, or its run cannot be read; the others go on.
                refused.append((wait["wait_id"], str(error)))
                continue
            if change.denial is not None:
                refused.append((wait["wait_id"], change.denial.message))
            else:
                woken.append((wait["wait_id"], change))
        run_statement(connection, tables.sql["mark_signal"], (after, signal_no))
        return Delivered(
            signal_no=signal_no,
            received_at_ms=row["received_at_ms"],
            is_new=is_new,
            is_open=is_open,
            woken=tuple(woken),
            refused=tuple(refused),
        )

    def _waits(
        self, tables: Tables, connection: apsw.Connection, signal_no: int, after: str
    ) -> list[dict[str, Any]]:
        """Return the next open waits of any of the signal's keys, in the order of their ids."""
        found: dict[str, dict[str, Any]] = {}
        for key in fetch(connection, tables.sql["list_signal_keys"], (signal_no,)):
            values = (key["signal_key"], after, WAITS_AT_ONCE)
            for wait in fetch(connection, tables.sql["list_waits_for_signal"], values):
                found[wait["wait_id"]] = wait
        return [found[wait_id] for wait_id in sorted(found)][:WAITS_AT_ONCE]

    def landed(self, tables: Tables, connection: apsw.Connection, result: Delivered | None) -> bool:
        """See `Write`."""
        if result is None:
            return False
        found = fetch(connection, tables.sql["get_signal"], (result.signal_no,))
        # A signal whose waits were not all looked at is taken up again; doing so twice is harmless.
        return bool(found)

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> Delivered:
        """See `Write`."""
        return unpack(raw, Delivered)


class ForgetSignals(msgspec.Struct, frozen=True, tag=True):
    """Forget signals that were accepted before a moment, the oldest first."""

    before_ms: int
    limit: int

    def perform(self, tables: Tables, connection: apsw.Connection) -> int:
        """See `Write`."""
        values = (self.before_ms, self.limit)
        old = fetch(connection, tables.sql["list_old_signals"], values)
        for row in old:
            run_statement(connection, tables.sql["remove_signal_keys"], (row["signal_no"],))
            run_statement(connection, tables.sql["remove_signal"], (row["signal_no"],))
        return len(old)

    def landed(self, tables: Tables, connection: apsw.Connection, result: int | None) -> bool:
        """See `Write`; forgetting again does no harm."""
        return False

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> int:
        """See `Write`."""
        return unpack(raw, int)


def wake_by(
    tables: Tables,
    connection: apsw.Connection,
    signal: Signal,
    *,
    run_no: int,
    wait_id: WaitId,
    change_id: ChangeId,
    now_ms: int,
) -> Change:
    """Resolve a wait with a kept signal, within the transaction that is open.

    Raises:
        EngineError: the wait does not want it, or its run cannot be read; nothing was written.
    """
    view = tables.load_by_no(connection, run_no)
    command = ResolveWait(
        wait_id=wait_id,
        idempotency_key=signal.idempotency_key,
        payload=signal.payload,
        source=signal.source,
        signal=signal,
    )
    change = decide(view, command, change_id=change_id, now_ms=now_ms)
    tables.write(connection, change)
    return change


def catch_up(tables: Tables, connection: apsw.Connection, change: Change, now_ms: int) -> None:
    """Wake the waits that this change registers, or brings back, by signals that came before."""
    returns = change.status_before in TERMINAL and change.run.status not in TERMINAL
    waits = [wait for wait in change.waits if wait.status in OPEN_WAITS and wait.signal_key]
    if returns:
        view = tables.load_by_no(connection, change.run.run_no)
        waits = [wait for wait in view.waits.values() if wait.signal_key]
    for wait in waits:
        _match(tables, connection, change, wait, now_ms)


def _match(
    tables: Tables, connection: apsw.Connection, change: Change, wait: Wait, now_ms: int
) -> None:
    values = (wait.signal_key, wait.accepts_since_ms, SIGNALS_SEEN_MAX)
    for row in fetch(connection, tables.sql["list_signals_for_wait"], values):
        with suppress(EngineError):
            wake_by(
                tables,
                connection,
                msgspec.json.decode(row["signal"], type=Signal),
                run_no=change.run.run_no,
                wait_id=wait.wait_id,
                change_id=ChangeId(f"{change.change_id}-{wait.node_no}"),
                now_ms=now_ms,
            )
            return
