"""What of the state folder nothing needs any more."""

from tandem.adapters.local.cleaning import Swept, sweep_artifacts, sweep_scratch
from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.errors import NotFound, StoreError
from tandem.domain.ids import NodeId, RunId
from tandem.domain.lifecycle import TERMINAL, NodeState
from tandem.engine.engine import ARTIFACT_REST_MS
from tandem.settings import Settings
from tandem.wiring import open_store


def collect(settings: Settings, *, before_ms: int, now_ms: int, dry_run: bool) -> Swept:
    """Remove scratch folders of ended attempts, and large outputs that no run names.

    Nothing that was written to since `before_ms` is touched, and no file of a workspace ever. A
    large output is there before its run, or an import, names it: it stays for an hour in any case.

    Raises:
        StoreUnavailable: the store cannot be read; what was removed by then was garbage.
    """
    swept = Swept()
    store = open_store(settings)
    try:
        sweep_scratch(
            settings.state_dir / "scratch",
            lambda run_id, node_id, number: _is_ended(store, run_id, node_id, number),
            before_ms=before_ms,
            dry_run=dry_run,
            swept=swept,
        )
        folder = settings.state_dir / "artifacts"
        if folder.is_dir():
            sweep_artifacts(
                folder,
                store.is_referenced,
                before_ms=min(before_ms, now_ms - ARTIFACT_REST_MS),
                dry_run=dry_run,
                swept=swept,
            )
    finally:
        store.close()
    return swept


def _is_ended(store: SqliteStore, run_id: str, node_id: str, number: int) -> bool:
    """Say whether an attempt is over for good; one of a run that is not in the store is."""
    tenant = store.find_tenant(RunId(run_id))
    if tenant is None:
        return True
    try:
        view = store.read(RunId(run_id), tenant=tenant)
    except NotFound:
        return True
    except StoreError as error:
        if error.code == "definition_unreadable":
            return False
        raise
    if view.run.status in TERMINAL:
        return view.run.cleanup is None
    plan_node = view.plan.node(NodeId(node_id))
    if plan_node is None:
        return False
    node = view.node(plan_node.node_no)
    return node.attempts != number or node.state is not NodeState.RUNNING
