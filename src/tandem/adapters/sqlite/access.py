"""Tokens, used assertions, keys of requests and the audit on the tables of one SQLite file."""

from collections.abc import Mapping
from typing import Any

import apsw
import msgspec

from tandem.adapters.frames import unpack
from tandem.adapters.sqlite.tables import Tables, fetch, run_statement
from tandem.domain.assertion import AssertionUse, ReplayMode, replay_problem
from tandem.domain.audit import AuditEntry, AuditEvent, AuditRecord, seal
from tandem.domain.errors import NotFound, NothingToDo, Refused
from tandem.domain.ids import RunId, TenantId, TokenId
from tandem.domain.request_key import KEPT_MS, RequestKey, UsedKey, is_repeated
from tandem.domain.token import Token


def add_audit(tables: Tables, connection: apsw.Connection, entry: AuditEntry) -> AuditRecord:
    """Add a record to the audit, within the transaction that is open."""
    newest = fetch(connection, tables.sql["newest_audit"], ())
    record = seal(audit_of(newest[0]) if newest else None, entry)
    run_statement(
        connection,
        tables.sql["add_audit"],
        (
            record.audit_no,
            entry.tenant,
            entry.recorded_at_ms,
            entry.event.value,
            entry.actor,
            entry.peer,
            msgspec.json.encode(entry.detail).decode(),
            bytes.fromhex(record.record_hash),
        ),
    )
    return record


def has_audit(tables: Tables, connection: apsw.Connection, record: AuditRecord) -> bool:
    """Say whether a record is on disk."""
    found = fetch(connection, tables.sql["list_audit"], (record.audit_no - 1, 1))
    return bool(found) and audit_of(found[0]).record_hash == record.record_hash


def was_done(
    tables: Tables, connection: apsw.Connection, tenant: TenantId, key: RequestKey, *, now_ms: int
) -> RunId | None:
    """Return the run of the request that this key was used for, None for a new request.

    Raises:
        Refused: the key belongs to a request that said something else.
    """
    found = fetch(connection, tables.sql["find_request_key"], (tenant, key.operation, key.key))
    known = msgspec.convert(found[0], UsedKey) if found else None
    return known.run_id if is_repeated(known, key, now_ms=now_ms) and known is not None else None


def put_key(
    tables: Tables,
    connection: apsw.Connection,
    tenant: TenantId,
    key: RequestKey,
    run_id: RunId,
    *,
    now_ms: int,
) -> None:
    """Write the key of a request, within the transaction of what it does."""
    values = (tenant, key.operation, key.key, key.fingerprint, run_id, now_ms)
    run_statement(connection, tables.sql["put_request_key"], values)


class AddToken(msgspec.Struct, frozen=True, tag=True):
    """Keep a new token; the result is the record of the audit."""

    token: Token

    def perform(self, tables: Tables, connection: apsw.Connection) -> AuditRecord:
        """See `Write`."""
        token = self.token
        if not fetch(connection, tables.sql["add_token"], token_row(token)):
            raise Refused(f"there is a token {token.token_id} already")
        entry = AuditEntry(
            event=AuditEvent.TOKEN_CREATED,
            tenant=token.tenant,
            recorded_at_ms=token.created_at_ms,
            actor=token.created_by,
            detail={
                "token_id": token.token_id,
                "name": token.name,
                "scopes": sorted(token.scopes),
                "actor_id": token.actor_id,
                "kind": token.kind,
                "expires_at_ms": token.expires_at_ms,
            },
        )
        return add_audit(tables, connection, entry)

    def landed(
        self, tables: Tables, connection: apsw.Connection, result: AuditRecord | None
    ) -> bool:
        """See `Write`."""
        return result is not None and has_audit(tables, connection, result)

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> AuditRecord:
        """See `Write`."""
        return unpack(raw, AuditRecord)


class RevokedToken(msgspec.Struct, frozen=True, array_like=True):
    """A token that was revoked, and the record of it."""

    token: Token
    record: AuditRecord


class RevokeToken(msgspec.Struct, frozen=True, tag=True):
    """End a token; the result is what it is now, with the record of the audit."""

    token_id: TokenId
    tenant: TenantId | None
    by: str
    now_ms: int

    def perform(self, tables: Tables, connection: apsw.Connection) -> RevokedToken:
        """See `Write`."""
        found = fetch(connection, tables.sql["find_token"], (self.token_id,))
        token = token_of(found[0]) if found else None
        if token is None or self.tenant not in (None, token.tenant):
            raise NotFound(
                f"there is no token {self.token_id}; `tandem tokens list` shows the ones there are",
                code="token_not_found",
            )
        if token.revoked_at_ms is not None:
            raise NothingToDo(
                f"token {self.token_id} (`{token.name}`) was revoked before", code="token_revoked"
            )
        values = (self.now_ms, self.by, self.token_id)
        run_statement(connection, tables.sql["revoke_token"], values)
        entry = AuditEntry(
            event=AuditEvent.TOKEN_REVOKED,
            tenant=token.tenant,
            recorded_at_ms=self.now_ms,
            actor=self.by,
            detail={"token_id": token.token_id, "name": token.name},
        )
        revoked = msgspec.structs.replace(token, revoked_at_ms=self.now_ms, revoked_by=self.by)
        return RevokedToken(revoked, add_audit(tables, connection, entry))

    def landed(
        self, tables: Tables, connection: apsw.Connection, result: RevokedToken | None
    ) -> bool:
        """See `Write`."""
        return result is not None and has_audit(tables, connection, result.record)

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> RevokedToken:
        """See `Write`."""
        return unpack(raw, RevokedToken)


class NoteTokenUse(msgspec.Struct, frozen=True, tag=True):
    """Note when a token was last used."""

    token_id: TokenId
    now_ms: int

    def perform(self, tables: Tables, connection: apsw.Connection) -> None:
        """See `Write`."""
        values = (self.now_ms, self.token_id, self.now_ms)
        run_statement(connection, tables.sql["note_token_use"], values)

    def landed(self, tables: Tables, connection: apsw.Connection, result: None) -> bool:
        """See `Write`. It may be noted again, so nobody has to know."""
        return False

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> None:
        """See `Write`; there is nothing to read."""


class UseAssertion(msgspec.Struct, frozen=True, tag=True):
    """Note that an assertion came, unless it may not."""

    use: AssertionUse
    mode: ReplayMode
    now_ms: int

    def perform(self, tables: Tables, connection: apsw.Connection) -> None:
        """See `Write`."""
        use = self.use
        known = self._known(tables, connection)
        problem = replay_problem(known, use, self.mode)
        if problem:
            raise Refused(problem, code="assertion_replayed")
        if known == use.digest:
            return
        values = (use.issuer, use.assertion_id, use.digest, use.expires_at_ms)
        run_statement(connection, tables.sql["put_assertion_use"], values)

    def _known(self, tables: Tables, connection: apsw.Connection) -> bytes | None:
        use = self.use
        values = (use.issuer, use.assertion_id)
        found = fetch(connection, tables.sql["find_assertion_use"], values)
        # One whose time is over cannot come again; its id is free.
        is_known = bool(found) and found[0]["expires_at_ms"] >= self.now_ms
        return bytes(found[0]["digest"]) if is_known else None

    def landed(self, tables: Tables, connection: apsw.Connection, result: None) -> bool:
        """See `Write`."""
        return self._known(tables, connection) == self.use.digest

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> None:
        """See `Write`; there is nothing to read."""


class AddAudit(msgspec.Struct, frozen=True, tag=True):
    """Add a record to the audit."""

    entry: AuditEntry

    def perform(self, tables: Tables, connection: apsw.Connection) -> AuditRecord:
        """See `Write`."""
        return add_audit(tables, connection, self.entry)

    def landed(
        self, tables: Tables, connection: apsw.Connection, result: AuditRecord | None
    ) -> bool:
        """See `Write`."""
        return result is not None and has_audit(tables, connection, result)

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> AuditRecord:
        """See `Write`."""
        return unpack(raw, AuditRecord)


class ForgetAccess(msgspec.Struct, frozen=True, tag=True):
    """Forget what is over; how many rows."""

    now_ms: int
    limit: int

    def perform(self, tables: Tables, connection: apsw.Connection) -> int:
        """See `Write`."""
        before = connection.total_changes()
        values = (self.now_ms, self.limit)
        run_statement(connection, tables.sql["forget_assertion_uses"], values)
        values = (self.now_ms - KEPT_MS, self.limit)
        run_statement(connection, tables.sql["forget_request_keys"], values)
        return connection.total_changes() - before

    def landed(self, tables: Tables, connection: apsw.Connection, result: int | None) -> bool:
        """See `Write`. What was not forgotten is found by the next look."""
        return False

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> int:
        """See `Write`."""
        return unpack(raw, int)


AccessWrite = AddToken | RevokeToken | NoteTokenUse | UseAssertion | AddAudit | ForgetAccess


def token_row(token: Token) -> tuple[Any, ...]:
    """Return the values of `add_token`."""
    values = msgspec.structs.asdict(token)
    return tuple({**values, "scopes": ",".join(sorted(token.scopes))}.values())


def token_of(row: Mapping[str, Any]) -> Token:
    """Read the row of a token."""
    values = {**row, "scopes": row["scopes"].split(",")}
    return msgspec.convert(values, Token, builtin_types=(bytes,))


def audit_of(row: Mapping[str, Any]) -> AuditRecord:
    """Read a record of the audit."""
    values = {**row, "detail": msgspec.json.decode(row["detail"])}
    return AuditRecord(
        audit_no=row["audit_no"],
        entry=msgspec.convert(values, AuditEntry),
        record_hash=bytes(row["record_hash"]).hex(),
    )
