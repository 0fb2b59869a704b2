"""One command for many runs: chosen by a filter, page by page, one result for each."""

from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from tandem.domain.errors import EngineError, NothingToDo, StoreError
from tandem.domain.ids import RunId
from tandem.domain.run import Run
from tandem.engine.queries import Sees
from tandem.ports.store import RunFilter, Store

PAGE = 100


class BulkResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one run. `code` is empty when it was done.

    `cursor` continues after this run: it is the `before_no` of a later filter.
    """

    run_id: RunId
    done: bool
    code: str = ""
    message: str = ""
    cursor: int


async def each(
    store: Store,
    chosen: RunFilter,
    act: Callable[[Run], Awaitable[None]],
    *,
    created_before_ms: int | None = None,
    sees: Sees | None = None,
) -> AsyncIterator[BulkResult]:
    """Do something to every run that a filter finds, newest first, and tell how it went.

    A refusal does not stop the rest. `chosen.limit` bounds how many runs are looked at; they are
    read a page at a time, and a run that changes meanwhile is met once at most.

    Args:
        store: where the runs are.
        chosen: which runs.
        act: what is done to each; an error of ours says that it was not done.
        created_before_ms: only runs that were created before this moment.
        sees: only runs of automations that it lets pass.

    Raises:
        StoreError: the store failed; what was told before is done, the cursor goes on after it.
    """
    cursor, left = chosen.before_no, chosen.limit
    while left > 0:
        size = min(PAGE, left)
        page = store.list_runs(msgspec.structs.replace(chosen, before_no=cursor, limit=size))
        for run in page:
            cursor = run.run_no
            is_early = created_before_ms is None or run.created_at_ms < created_before_ms
            if is_early and (sees is None or sees(run.automation_id)):
                yield await _one(run, act)
        if len(page) < size:
            return
        left -= size


async def _one(run: Run, act: Callable[[Run], Awaitable[None]]) -> BulkResult:
    try:
        await act(run)
    except StoreError:
        raise
    except EngineError as error:
        return BulkResult(
            run_id=run.run_id,
            done=isinstance(error, NothingToDo),
            code=error.code,
            message=str(error),
            cursor=run.run_no,
        )
    return BulkResult(run_id=run.run_id, done=True, cursor=run.run_no)
