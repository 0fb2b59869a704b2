"""Which of the files that nodes leave counts, and what becomes of it when nodes are reset."""

import pytest

from tandem.domain.artifact import (
    ArtifactRef,
    FileStamp,
    Freshness,
    NodeArtifact,
    Provenance,
    Validity,
    freshness,
    may_reuse_output,
    refusal_of_file,
    reusable,
)
from tandem.domain.draft import Draft
from tandem.domain.ids import ChangeId, Digest
from tandem.domain.lifecycle import NodeState
from tandem.domain.outcome import NeedsRepair, Succeeded
from tandem.domain.review import roll_back
from tandem.domain.run import NodeRun
from tandem.domain.settling import Settled
from tandem.testing.tale import Tale

OLD = FileStamp(changed_at_ms=50, mark="a")
NEW = FileStamp(changed_at_ms=200, mark="b")
FROM_BEFORE = Freshness(current_run=False, current_attempt=False)
OF_RUN = Freshness(current_run=True, current_attempt=False)


def ref(content: str = "x", path: str = "out.txt") -> ArtifactRef:
    return ArtifactRef(
        name="out.txt",
        digest=Digest(f"sha256:{content}"),
        size_bytes=1,
        media_type="text/plain",
        path=path,
    )


def entry(
    validity: Validity = Validity.VALID,
    *,
    attempt: int = 1,
    content: str = "x",
    contract: str = "c",
    inputs: str = "i",
) -> NodeArtifact:
    return NodeArtifact(
        node_no=0,
        attempt=attempt,
        ref=ref(content),
        contract=contract,
        inputs_digest=inputs,
        validity=validity,
    )


def test_file_is_fresh_when_the_attempt_wrote_it() -> None:
    assert freshness(NEW, None, run_started_at_ms=1_000) == Freshness()
    assert freshness(NEW, OLD, run_started_at_ms=1_000) == Freshness()
    assert freshness(OLD, OLD, run_started_at_ms=40) == OF_RUN
    assert freshness(OLD, OLD, run_started_at_ms=100) == FROM_BEFORE
    assert freshness(OLD, OLD, run_started_at_ms=None) == OF_RUN


@pytest.mark.parametrize(
    ("fresh", "earlier", "may_reuse", "said"),
    [
        (Freshness(), [entry(Validity.REJECTED)], False, ""),
        (OF_RUN, [], False, ""),
        (OF_RUN, [entry()], False, ""),
        (FROM_BEFORE, [], False, "before this run"),
        (FROM_BEFORE, [], True, ""),
        (OF_RUN, [entry(Validity.REJECTED)], False, "which was rejected"),
        (OF_RUN, [entry(Validity.REJECTED)], True, "which was rejected"),
        (OF_RUN, [entry(Validity.SUPERSEDED)], False, "inputs that have changed"),
        (OF_RUN, [entry(Validity.SUPERSEDED)], True, ""),
        (OF_RUN, [entry(Validity.REJECTED, content="other")], False, ""),
        (OF_RUN, [entry(Validity.REJECTED), entry(attempt=2)], False, ""),
    ],
)
def test_file_that_the_attempt_did_not_write_is_judged_by_its_past(
    fresh: Freshness, earlier: list[NodeArtifact], may_reuse: bool, said: str
) -> None:
    found = refusal_of_file(ref(), fresh, earlier=earlier, may_reuse=may_reuse)
    assert bool(found) is bool(said)
    assert said in found


@pytest.mark.parametrize(
    ("metadata", "may"),
    [
        (None, False),
        ({"builder": None}, False),
        ({"builder": {"allow_preexisting_output_reuse": "yes"}}, False),
        ({"builder": {"allow_preexisting_output_reuse": True}}, True),
    ],
)
def test_reuse_is_asked_for_in_the_metadata(metadata: object, may: bool) -> None:
    assert may_reuse_output(metadata) is may


def test_newest_attempt_is_reusable_while_contract_and_inputs_hold() -> None:
    superseded = entry(Validity.SUPERSEDED, attempt=2)
    assert reusable([entry(), superseded], contract="c", inputs_digest="i") == (superseded,)
    assert reusable([superseded], contract="other", inputs_digest="i") == ()
    assert reusable([superseded], contract="c", inputs_digest="other") == ()
    assert reusable([entry(inputs="")], contract="c", inputs_digest="") == ()
    rejected = entry(Validity.REJECTED, attempt=3)
    assert reusable([superseded, rejected], contract="c", inputs_digest="i") == ()
    assert reusable([], contract="c", inputs_digest="i") == ()


def kept() -> ArtifactRef:
    return ref("big", path="")


def test_completion_registers_what_was_judged_and_proves_it_in_its_event() -> None:
    tale = Tale({"node_id": "a"}, {"node_id": "b", "depends_on": ["a"]}).claim()
    fresh = Provenance(freshness=OF_RUN)
    change = tale.advance(
        Settled(
            node_no=0,
            number=1,
            outcome=Succeeded(output=1, artifacts=(ref(),)),
            output_ref=kept(),
            provenance={"out.txt": fresh},
            contract="c",
        )
    )
    assert change is not None
    assert [left.ref.path for left in change.artifacts] == ["out.txt", ""]
    assert {left.validity for left in change.artifacts} == {Validity.VALID}
    assert change.artifacts[0].provenance.freshness == OF_RUN
    assert change.artifacts[0].contract == "c"
    done = change.events[0]
    assert done.metadata == {"output_digest": "sha256:big", "artifacts": {"out.txt": "sha256:x"}}
    assert tale.node("a").output_ref == kept()


def test_output_that_missed_its_contract_for_good_is_kept_as_rejected() -> None:
    tale = Tale({"node_id": "a", "retry_policy": {"max_attempts": 1}}).claim()
    change = tale.advance(
        Settled(node_no=0, number=1, outcome=NeedsRepair(reasons=("short",)), output_ref=kept())
    )
    assert change is not None
    (left,) = change.artifacts
    assert (left.validity, left.provenance.validation_outcome) == (Validity.REJECTED, "failed")


def test_reused_completion_says_so() -> None:
    tale = Tale({"node_id": "a"}).claim()
    change = tale.advance(
        Settled(
            node_no=0,
            number=1,
            outcome=Succeeded(output=None),
            output=b"1",
            output_ref=kept(),
            reused=True,
        )
    )
    assert change is not None
    assert change.events[0].metadata["status"] == "reused_valid"
    assert (tale.node("a").output, tale.node("a").output_ref) == (b"1", None)


def test_review_that_does_not_approve_rejects_what_it_looked_at() -> None:
    tale = Tale({"node_id": "a"}, {"node_id": "b", "depends_on": ["a"]})
    draft = Draft(tale.claim().view, change_id=ChangeId("c"), now_ms=9)
    first, second = draft.plan.nodes
    for number in (0, 1):
        draft.nodes[number] = NodeRun(node_no=number, state=NodeState.COMPLETED, attempts=1)

    roll_back(draft, second, [first.node_no], reason="no")

    assert {gone.node_no: gone.validity for gone in draft.invalidated} == {
        0: Validity.REJECTED,
        1: Validity.SUPERSEDED,
    }
