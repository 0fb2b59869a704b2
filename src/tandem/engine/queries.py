"""The read side for HTTP, CLI and UI: records, lists and summaries, each of one tenant."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from tandem.domain.approval_record import SOURCE, approval_record
from tandem.domain.automation import parse_document
from tandem.domain.automation_keeping import present
from tandem.domain.automation_record import (
    automation_record,
    automation_summary,
    emitted,
    spec_record,
)
from tandem.domain.checkpoint_record import history_record
from tandem.domain.command import RetryNode
from tandem.domain.definition import Definition
from tandem.domain.errors import DEFINITION_UNREADABLE, InvalidRequest, StoreError
from tandem.domain.graduation import graduation_counts
from tandem.domain.ids import AutomationId, DefinitionDigest, NodeId, RunId, TenantId
from tandem.domain.json import JsonObject, decode, encode, plain
from tandem.domain.preview import preview
from tandem.domain.run import GateStatus, Run
from tandem.domain.run_picture import RunPicture
from tandem.domain.run_record import compat_view, run_record, summary_record
from tandem.domain.stored_automation import StoredAutomation
from tandem.domain.visibility import ResourceAccess, read_access
from tandem.engine.paging import seen_of
from tandem.ports.store import Mark, OpenGate, RunPlace, RunSearch, Store

HOUR_MS: Final = 3_600_000
_SPECS_MAX: Final = 256
_ACCESSES_MAX: Final = 4_096

Sees = Callable[[AutomationId], bool]
"""Says whether whoever asks may know of an automation."""


class RunList(NamedTuple):
    """A page of summaries as JSON. `cursor` continues it; None when there are no more."""

    runs: Sequence[msgspec.Raw]
    cursor: str | None


class Kept(NamedTuple):
    """Whose a stored automation is. `access` is None when nothing says who may see it."""

    creator_id: str
    access: ResourceAccess | None


class Queries:
    """Reads for one process.

    It keeps the specs of definitions, which never change, and the newest encoded records and
    summaries, each for as long as the mark of its run stays the same: `records_bytes_max` bounds
    the records together, `summaries_bytes_max` the summaries.
    """

    def __init__(
        self,
        store: Store,
        *,
        records_bytes_max: int = 16 * 1024 * 1024,
        summaries_bytes_max: int = 4 * 1024 * 1024,
    ) -> None:
        self._store = store
        self._summaries = _Views(summaries_bytes_max)
        self._specs: OrderedDict[tuple[TenantId, DefinitionDigest], dict[str, Any]] = OrderedDict()
        self._accesses: OrderedDict[tuple[TenantId, DefinitionDigest], ResourceAccess | None]
        self._accesses = OrderedDict()
        self._records = _Views(records_bytes_max)

    # Runs

    def run_record(
        self, run_id: RunId, *, tenant: TenantId, as_of: Run | None = None
    ) -> dict[str, Any]:
        """Return the record of a run; `as_of` is its row after a command, which it may have left.

        Raises:
            NotFound: no such run for this tenant.
        """
        picture = self._store.read_picture(run_id, tenant=tenant)
        if as_of is not None:
            # An engine may have claimed it since: whoever asked is told what the command did.
            picture.view.run = as_of
        return run_record(picture, self._spec_of(picture))

    def run_json(
        self, run_id: RunId, *, tenant: TenantId, compat: bool = False, as_of: Run | None = None
    ) -> bytes:
        """Return the record of a run as JSON; for clients of version 0.7 with `compat`.

        `as_of` is as for `run_record`.

        Raises:
            NotFound: no such run for this tenant.
        """
        if as_of is not None:
            record = self.run_record(run_id, tenant=tenant, as_of=as_of)
            return encode(compat_view(record) if compat else record)
        # The mark is read first: what changes in between is noticed the next time.
        mark = self._store.read_mark(run_id, tenant=tenant)
        if mark is not None:
            known = self._records.find(tenant, run_id, compat, mark)
            if known is not None:
                return known
        record = self.run_record(run_id, tenant=tenant)
        content = encode(compat_view(record) if compat else record)
        if mark is not None:
            self._records.keep(content, tenant, run_id, compat, mark)
        return content

    def run_summaries(
        self, search: RunSearch, *, cursor: str | None = None, compat: bool = False
    ) -> RunList:
        """Return a page of summaries, newest first; `cursor` is that of the page before.

        Raises:
            InvalidRequest: the cursor is none of ours.
        """
        if cursor is not None:
            search = msgspec.structs.replace(search, after=_place_of(cursor))
        known: dict[Mark, bytes] = {}

        def is_known(mark: Mark) -> bool:
            content = self._summaries.find(compat, mark)
            if content is None:
                return False
            known[mark] = content
            return True

        page = self._store.search_runs(search, is_known=is_known)
        new = [mark for mark in page.marks if mark not in known]
        for mark, run in zip(new, page.runs, strict=True):
            record = summary_record(run)
            known[mark] = content = encode(compat_view(record) if compat else record)
            self._summaries.keep(content, compat, mark)
        return RunList(
            [msgspec.Raw(known[mark]) for mark in page.marks],
            _cursor_of(page.next) if page.next is not None else None,
        )

    def run_history(
        self, run_id: RunId, *, tenant: TenantId, after_seq: int = 0, limit: int = 1_000
    ) -> Sequence[JsonObject]:
        """Return lifecycle records in order, those after `after_seq`: also what a record left out.

        Raises:
            NotFound: no such run for this tenant.
        """
        found = self._store.list_events(run_id, tenant=tenant, after_seq=after_seq, limit=limit)
        return [history_record(event) for event in found]

    def reset_preview(
        self, run_id: RunId, node_id: NodeId, *, tenant: TenantId, now_ms: int
    ) -> JsonObject:
        """Return what a retry of a node would undo (http-api 3.4), also while it is refused.

        Raises:
            NotFound: no such run or node for this tenant.
            StoreError: its definition cannot be read.
        """
        picture = self._store.read_picture(run_id, tenant=tenant)
        if not picture.is_readable:
            raise StoreError(
                f"the definition of run {run_id} cannot be read", code=DEFINITION_UNREADABLE
            )
        artifacts = self._store.list_artifacts(run_id, tenant=tenant)
        command = RetryNode(node_id=node_id)
        found = preview(picture.view, command, now_ms=now_ms, artifacts=artifacts)
        shown: JsonObject = plain(found)
        return shown

    # Approvals and what was let pass

    def approvals(
        self, *, tenant: TenantId, source: str = SOURCE, limit: int = 100, sees: Sees | None = None
    ) -> Sequence[JsonObject]:
        """Return the approvals that people have to decide, newest first.

        Only this engine's runs ask; of the other sources of the contract there are none. `sees`
        lets some pass; they fill the page however many others there are (`paging.LOOKED_MAX`).
        """
        if source in _OTHER_SOURCES:
            return []

        def page(after: OpenGate | None, size: int) -> Sequence[OpenGate]:
            return self._store.list_gates(
                tenant=tenant,
                status=GateStatus.OPEN,
                run_id=None,
                limit=size,
                newest_first=True,
                after=after,
            )

        wanted = seen_of(page, lambda asked: sees is None or sees(asked.automation_id), limit=limit)
        return [
            approval_record(
                asked.gate,
                run_id=asked.run_id,
                automation_id=asked.automation_id,
                name=asked.name,
                tenant=tenant,
            )
            for asked in wanted
        ]

    def graduation_summary(
        self,
        *,
        tenant: TenantId,
        now_ms: int,
        window_hours: int = 168,
        automation_id: AutomationId | None = None,
        limit: int = 200,
        sees: Sees | None = None,
    ) -> JsonObject:
        """Return how often execution profiles let pass what, in the newest runs (http-api 3.7).

        Args:
            tenant: whose runs.
            now_ms: the end of the window.
            window_hours: runs count that were created within it; 1 to 720.
            automation_id: only its runs.
            limit: so many runs are looked at; 1 to 500.
            sees: only runs of automations that it lets pass count.
        """
        hours = min(max(window_hours, 1), 720)
        since_ms = now_ms - hours * HOUR_MS
        judged = self._store.list_judged(
            tenant=tenant,
            since_ms=since_ms,
            automation_id=automation_id,
            limit=min(max(limit, 1), 500),
        )
        judged = [run for run in judged if sees is None or sees(run.automation_id)]
        relaxed = [each for run in judged for each in run.relaxed]
        return {
            "window_hours": hours,
            "since_ms": since_ms,
            "scanned_runs": len(judged),
            "automation_id": automation_id,
            "summary": graduation_counts(sum(run.outputs for run in judged), relaxed),
        }

    # Automations

    def automation(self, automation_id: AutomationId, *, tenant: TenantId) -> JsonObject:
        """Return a stored automation as it is emitted.

        Raises:
            NotFound: it was never saved, or it was deleted.
            StoreError: what is stored cannot be read.
        """
        row = self._store.find_automation(automation_id, tenant=tenant)
        return self._automation(present(row, automation_id))

    def keep_saved(self, definition: Definition, *, tenant: TenantId) -> None:
        """Keep a definition that was saved just now: to be told it need not be read again."""
        key = (tenant, definition.digest)
        if key not in self._specs:
            document: Any = decode(definition.document)
            self._keep_spec(key, emitted(document))

    def automations(
        self, *, tenant: TenantId, summary: bool = False, after_id: str = "", limit: int = 1_000
    ) -> Sequence[JsonObject]:
        """Return the stored automations by id, those after `after_id`.

        Raises:
            StoreError: what is stored of one cannot be read.
        """
        found = self._store.list_automations(tenant=tenant, after_id=after_id, limit=limit)
        records = [self._automation(row) for row in found]
        return [automation_summary(record) for record in records] if summary else records

    def kept(self, automation_id: AutomationId, *, tenant: TenantId) -> Kept | None:
        """Return whose an automation is, also a deleted one; None when it was never saved.

        Raises:
            StoreUnavailable: the store cannot be read now.
        """
        row = self._store.find_automation(automation_id, tenant=tenant)
        if row is None:
            return None
        key = (row.tenant, row.definition_digest)
        if key not in self._accesses:
            self._accesses[key] = _access_in(self._store.automation_document(row, row.version))
            if len(self._accesses) > _ACCESSES_MAX:
                self._accesses.popitem(last=False)
        return Kept(row.creator_id, self._accesses[key])

    def _automation(self, row: StoredAutomation) -> dict[str, Any]:
        key = (row.tenant, row.definition_digest)
        spec = self._specs.get(key)
        if spec is None:
            document = self._store.automation_document(row, row.version)
            try:
                parsed = parse_document(document)
            except ValueError as error:  # what pydantic raises
                raise StoreError(
                    f"version {row.version} of automation {row.automation_id} cannot be read: "
                    f"{error}",
                    code=DEFINITION_UNREADABLE,
                ) from error
            spec = self._keep_spec(key, spec_record(parsed))
        return automation_record(spec, row)

    def _spec_of(self, picture: RunPicture) -> Mapping[str, Any] | None:
        run = picture.view.run
        if not picture.is_readable:
            return None
        key = (run.tenant, run.definition_digest)
        known = self._specs.get(key)
        if known is not None:
            return known
        return self._keep_spec(key, spec_record(picture.view.plan.automation))

    def _keep_spec(
        self, key: tuple[TenantId, DefinitionDigest], spec: dict[str, Any]
    ) -> dict[str, Any]:
        self._specs[key] = spec
        if len(self._specs) > _SPECS_MAX:
            self._specs.popitem(last=False)
        return spec


def _access_in(document: bytes) -> ResourceAccess | None:
    """Return what a definition says of who may see it; one that cannot be read is closed."""
    try:
        found = decode(document)
    except ValueError:  # what msgspec raises
        return ResourceAccess()
    return read_access(found.get("metadata")) if isinstance(found, dict) else ResourceAccess()


_OTHER_SOURCES: Final = frozenset({"coder", "workflow"})


class _Views:
    """Encoded views, the oldest of which give way; none is larger than an eighth of them all.

    A view is found by what it is of and by the mark that it had; one with an older mark is not
    looked for any more, and goes.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._known: OrderedDict[tuple[object, ...], bytes] = OrderedDict()

    def find(self, *key: object) -> bytes | None:
        content = self._known.get(key)
        if content is not None:
            self._known.move_to_end(key)
        return content

    def keep(self, content: bytes, *key: object) -> None:
        if len(content) > self._bytes_max // 8 or key in self._known:
            return
        self._known[key] = content
        self._bytes += len(content)
        while self._bytes > self._bytes_max:
            _, gone = self._known.popitem(last=False)
            self._bytes -= len(gone)


def _cursor_of(place: RunPlace) -> str:
    text = f"{place.run_no}.{place.created_at_ms}"
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _place_of(cursor: str) -> RunPlace:
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        run_no, created_at_ms = map(int, text.split("."))
    except (ValueError, binascii.Error) as error:
        raise InvalidRequest(
            f"`{cursor[:60]}` is no cursor of a list of runs; begin with the first page",
            code="invalid_cursor",
        ) from error
    return RunPlace(run_no=run_no, created_at_ms=created_at_ms)
