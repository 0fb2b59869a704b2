"""Is the record of a run whole, and is what it vouches for still there (run-lifecycle 5)?"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from tandem.domain.artifact import NodeArtifact, Validity
from tandem.domain.errors import NotFound, Refused
from tandem.domain.ids import NodeId, RunId, TenantId
from tandem.domain.json import JsonObject, digest
from tandem.domain.lifecycle import NodeState, RunEvent
from tandem.domain.receipts import ChainCheck
from tandem.domain.run import LifecycleEvent, Run
from tandem.domain.view import RunView
from tandem.ports.artifacts import Artifacts
from tandem.ports.store import Store
from tandem.ports.workspace import WorkspaceFiles

EVENTS_AT_ONCE = 1_000
COMPLETIONS: Final = frozenset(
    {
        RunEvent.NODE_COMPLETED,
        RunEvent.NODE_COMPLETED_WITH_WARNINGS,
        RunEvent.NODE_SKIPPED_NO_WORK,
        RunEvent.NODE_SKIPPED,
        RunEvent.NODE_OUTPUT_SET,
        RunEvent.NODE_REUSED,
    }
)
"""Events that give a node its output, and name the digests of it."""


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong. `code` is `chain`, `output` or `artifact`."""

    code: str
    message: str
    node_id: str = ""


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. `head` is the newest hash: whoever notes it elsewhere can compare later."""

    run_id: RunId
    events: int
    unsealed: int
    artifacts: int
    head: str
    faults: tuple[Fault, ...]


async def verify(
    run_id: RunId,
    *,
    tenant: TenantId,
    store: Store,
    artifacts: Artifacts,
    files: WorkspaceFiles,
) -> Verification:
    """Follow the chain of receipts and look at everything that it vouches for.

    Raises:
        NotFound: no such run for this tenant.
        StoreUnavailable: the store cannot be read.
    """
    view = await store.load(run_id, tenant=tenant)
    chain = ChainCheck()
    evidence: dict[tuple[NodeId, int], JsonObject] = {}
    for event in _events(store, view.run):
        chain.follow([event])
        if event.event in COMPLETIONS and event.node_id is not None:
            evidence[event.node_id, event.attempt or 0] = event.metadata
    chain.close(seq=view.run.event_seq, head=view.run.event_hash)
    found = store.list_artifacts(run_id, tenant=tenant)
    faults = [Fault("chain", problem) for problem in chain.problems]
    faults += _outputs(view, evidence)
    faults += _registry(view, found, evidence)
    newest = _newest_of_each_place(found)
    faults += _contents(view, newest, artifacts, files)
    return Verification(
        run_id=run_id,
        events=chain.seq,
        unsealed=chain.unsealed,
        artifacts=len(newest),
        head=view.run.event_hash,
        faults=tuple(faults),
    )


def _events(store: Store, run: Run) -> Iterator[LifecycleEvent]:
    """Yield the events that the row counts; later ones belong to what happened since."""
    after = 0
    while True:
        found = store.list_events(
            run.run_id,
            tenant=run.tenant,
            after_seq=after,
            limit=EVENTS_AT_ONCE,
            as_stored=True,
        )
        for event in found:
            after = event.seq
            if event.seq <= run.event_seq:
                yield event
        if len(found) < EVENTS_AT_ONCE or after >= run.event_seq:
            return


def _outputs(view: RunView, evidence: dict[tuple[NodeId, int], JsonObject]) -> Iterator[Fault]:
    """Compare the output of each completed node with the digest in its newest event."""
    for number, node in sorted(view.nodes.items()):
        name = view.plan.nodes[number].node_id
        proven = evidence.get((name, node.attempts), {}).get("output_digest")
        if node.state is not NodeState.COMPLETED or proven is None:
            continue
        stored = node.output_ref.digest if node.output_ref is not None else None
        if node.output is not None:
            stored = digest(node.output)
        if stored != proven:
            message = f"the output of node `{name}` is {stored or 'gone'}, recorded was {proven}"
            yield Fault("output", message, name)


def _registry(
    view: RunView,
    entries: Sequence[NodeArtifact],
    evidence: dict[tuple[NodeId, int], JsonObject],
) -> Iterator[Fault]:
    """Compare the registry with the digests in the events."""
    known = {
        (view.plan.nodes[left.node_no].node_id, left.attempt, left.ref.path): left.ref.digest
        for left in entries
        if left.ref.path
    }
    for (name, attempt), proof in evidence.items():
        files = proof.get("artifacts")
        for path, proven in files.items() if isinstance(files, dict) else ():
            stored = known.get((name, attempt, path))
            if stored != proven:
                message = (
                    f"`{path}` of node `{name}` attempt {attempt} is registered as "
                    f"{stored or 'nothing'}, recorded was {proven}"
                )
                yield Fault("artifact", message, name)


def _newest_of_each_place(found: Sequence[NodeArtifact]) -> list[NodeArtifact]:
    """Return what counts now: of several that were left at one place the last one."""
    places = {
        left.ref.path or f"{left.node_no}:{left.ref.name}": left
        for left in found
        if left.validity is Validity.VALID
    }
    return list(places.values())


def _contents(
    view: RunView,
    newest: list[NodeArtifact],
    artifacts: Artifacts,
    files: WorkspaceFiles,
) -> Iterator[Fault]:
    """Look for the bytes."""
    for left in newest:
        name = view.plan.nodes[left.node_no].node_id
        try:
            if left.ref.path:
                here = files.find_file(view.run.workspace, left.ref.path)
                what = "gone" if here is None else f"now {here.digest}"
                if here is not None and here.digest == left.ref.digest:
                    continue
                message = f"`{left.ref.path}` is {what}, recorded was {left.ref.digest}"
            else:
                artifacts.get(view.run.tenant, left.ref)
                continue
        except (NotFound, Refused) as error:
            message = str(error)
        yield Fault("artifact", f"node `{name}`: {message}", name)
