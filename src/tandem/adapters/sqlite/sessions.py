"""Sessions and instances of runs on the tables; beside the changes, which they never touch."""

from collections.abc import Mapping
from typing import Any, Final, assert_never

import apsw
import msgspec

from tandem.adapters.sqlite.tables import Tables, run_statement
from tandem.domain.ids import TenantId
from tandem.domain.session import (
    AddInstance,
    AddSession,
    ClearInstance,
    ClearSession,
    ForgetSessions,
    SessionRow,
    SessionStep,
    SetMcpServers,
)

SESSIONS_MAX: Final = 1_000
"""Of so many newest sessions, and so many instances, of a run the record tells."""


class TendSession(msgspec.Struct, frozen=True, tag=True):
    """Write one step of the bookkeeping of sessions. Doing it again changes nothing."""

    tenant: TenantId
    step: SessionStep

    def perform(self, tables: Tables, connection: apsw.Connection) -> None:
        """See `Write`."""
        step, tenant = self.step, self.tenant
        values: tuple[object, ...]
        match step:
            case AddSession():
                name, values = "add_session", (tenant, step.session_id, step.run_id, step.node_id)
            case SetMcpServers():
                servers = msgspec.json.encode(step.servers).decode() if step.servers else None
                name, values = "set_mcp_servers", (tenant, step.session_id, servers)
            case ClearSession():
                name, values = "clear_session", (tenant, step.session_id)
            case ForgetSessions():
                ids = msgspec.json.encode(step.session_ids).decode()
                name, values = "forget_sessions", (tenant, ids)
            case AddInstance():
                name, values = "add_instance", (tenant, step.run_id, step.instance_id)
            case ClearInstance():
                name, values = "clear_instance", (tenant, step.run_id, step.instance_id)
            case _:
                assert_never(step)
        run_statement(connection, tables.sql[name], values)

    def landed(self, tables: Tables, connection: apsw.Connection, result: None) -> bool:
        """See `Write`. Each step may be done again, so nobody has to know."""
        return False

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> None:
        """See `Write`; there is nothing to read."""


def session_of(row: Mapping[str, Any]) -> SessionRow:
    """Read the row of a session."""
    servers = row["mcp_servers"]
    values = {**row, "mcp_servers": msgspec.json.decode(servers) if servers else ()}
    return msgspec.convert(values, SessionRow, strict=False)
