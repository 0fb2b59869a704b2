"""The last look at a run before it counts as completed (run-lifecycle 4.7, T31, T32).

Every node is completed by then; what is left to prove is that the files that the version promises
are there. Facts about files come from outside, through `Facts`; what follows is decided here.
"""

import re
from collections.abc import Iterator
from typing import Final, Protocol

import msgspec

from tandem.domain.artifact import Invalidated, Validity
from tandem.domain.deliverable import Deliverable
from tandem.domain.draft import Draft
from tandem.domain.graph import PlanNode
from tandem.domain.json import decode
from tandem.domain.lifecycle import NodeState, RunEvent
from tandem.domain.node import Effects, NodeKind
from tandem.domain.reading import SKIPPED
from tandem.domain.run import Failure, NodeRun

E, N = RunEvent, NodeState

MISSING: Final = "missing_required_artifact_path"
TEXT_CHARS_MIN: Final = 180
TEXT_BYTES_MAX: Final = 4 * 1024 * 1024
_TEXTS: Final = (".md", ".html", ".htm", ".txt")
_STRUCTURE: Final = re.compile(
    r"^\s*(?:#{1,6}\s|[-*+]\s|\d+[.)]\s)|<(?:h[1-6]|p|li)\b|\S[^\n]{39,}", re.MULTILINE | re.I
)


class FileFact(msgspec.Struct, frozen=True):
    """A file as it was found: its text, or why it could not be read."""

    text: str = ""
    problem: str = ""


class Facts(Protocol):
    """What can be seen of a run only from outside."""

    def file(self, path: str) -> FileFact:
        """Return the first `TEXT_BYTES_MAX` bytes of a file of the workspace, or what is wrong."""
        ...

    def output_text(self, node: NodeRun) -> str:
        """Return the output of a node as JSON text, wherever it is kept."""
        ...


class Unseen:
    """Nobody looks: what is promised counts as missing."""

    def file(self, path: str) -> FileFact:
        """See `Facts.file`."""
        return FileFact(problem=f"nobody could look for {path}")

    def output_text(self, node: NodeRun) -> str:
        """See `Facts.output_text`."""
        return ""


UNSEEN: Final = Unseen()


class Miss(msgspec.Struct, frozen=True):
    """A deliverable that is not there as it should be; `owner` is the node that can mend it."""

    deliverable: Deliverable
    reason: str
    owner: PlanNode | None


def account(draft: Draft, facts: Facts) -> None:
    """Complete a run whose nodes are all completed, or have what is missing written again.

    The node that owes a missing file gets it back while it has attempts left (T32), and the run
    goes on; otherwise the run fails with what is missing as its detail.
    """
    run = draft.run
    misses = list(_misses(draft, facts))
    if not misses:
        run.detail = "automation run completed"
        draft.happen(E.RUN_COMPLETED)
    elif all(_can_mend(draft, miss) for miss in misses):
        for miss in misses:
            _ask_again(draft, miss, [m.reason for m in misses if m.owner is miss.owner])
    else:
        run.detail = "; ".join(dict.fromkeys(miss.reason for miss in misses))
        draft.happen(E.RUN_FAILED, reason=run.detail)


def _misses(draft: Draft, facts: Facts) -> Iterator[Miss]:
    for item in draft.plan.deliverables:
        owner = draft.plan.nodes[item.owner] if item.owner is not None else None
        if owner is not None and is_skipped(draft.node(owner.node_no)):
            continue
        path = item.path_in(draft.run)
        fact = facts.file(path)
        strict = owner is not None and owner.kind is NodeKind.AGENT
        reason = fact.problem or lacks_substance(path, fact.text, strict=strict)
        if (
            not reason
            and item.is_target
            and owner is None
            and not _is_spoken_of(draft, facts, path)
        ):
            reason = "no output of this run speaks of it"
        if reason:
            what = "output target" if item.is_target else "required file"
            yield Miss(item, f"{what} `{path}`: {reason}", owner)


def is_skipped(node: NodeRun) -> bool:
    """Say whether a node counts as completed without having run: by triage or by a person."""
    if node.handling is not None and node.handling.by_hand == SKIPPED:
        return True
    return node.reading is not None and node.reading.status == SKIPPED


def lacks_substance(path: str, text: str, *, strict: bool) -> str:
    """Return what makes a file no deliverable, nothing when it is one.

    `strict` is for files that a model writes: placeholders do not count. What a command or a
    function writes must only not be blank.
    """
    if not text.strip():
        return "it is empty"
    if not strict or len(text) >= TEXT_BYTES_MAX:
        return ""
    name = path.lower()
    if name.endswith(".json"):
        try:
            value = decode(text)
        except msgspec.DecodeError:
            return "it is not JSON"
        return "it holds nothing" if value in ({}, [], "", None) else ""
    if name.endswith(_TEXTS):
        if len(text.strip()) < TEXT_CHARS_MIN:
            return f"it has less than {TEXT_CHARS_MIN} characters"
        return "" if _STRUCTURE.search(text) else "it has no heading, paragraph or list"
    return ""


def _is_spoken_of(draft: Draft, facts: Facts, path: str) -> bool:
    return any(
        path in facts.output_text(draft.node(n.node_no))
        for n in draft.plan.nodes
        if not n.is_parked
    )


def _can_mend(draft: Draft, miss: Miss) -> bool:
    owner = miss.owner
    if owner is None or owner.node.effective_effects is Effects.EXTERNAL:
        return False
    return draft.node(owner.node_no).attempts_used < owner.max_attempts


def _ask_again(draft: Draft, miss: Miss, reasons: list[str]) -> None:
    if miss.owner is None or draft.node(miss.owner.node_no).state is not N.COMPLETED:
        return  # asked already, for another file
    owner, reason = miss.owner, "; ".join(reasons)
    failure = Failure(
        node_id=owner.node_id, reason=reason, failed_at_ms=draft.now_ms, failure_kind=MISSING
    )
    again = msgspec.structs.replace(
        draft.node(owner.node_no),
        state=N.PENDING,
        finished_at_ms=None,
        output=None,
        output_ref=None,
        repair=tuple(reasons),
        reading=None,
        failure=failure,
    )
    draft.move(
        owner,
        E.RUN_COMPLETION_REPAIR_REQUESTED,
        again,
        reason=reason,
        metadata={"failure_kind": MISSING},
    )
    # Taken over once more it would miss the same file; its body has to run.
    gone = Invalidated(node_no=owner.node_no, validity=Validity.REJECTED)
    draft.invalidated.append(gone)
    draft.run.last_failure = failure
    draft.run.detail = f"completion of node `{owner.node_id}` has to be repaired: {reason}"
    draft.moved = True
