"""What a handoff file says, which automation waits for it, and how its files are called."""

from typing import Any

import msgspec
import pytest
from tests.domain.test_validation import found, step

from tandem.domain.automation import HandoffConfig, WatchCondition
from tandem.domain.errors import InvalidRequest
from tandem.domain.handoff import (
    ConsumedHandoff,
    Handoff,
    HandoffFile,
    consumed,
    file_name,
    folders_of,
    is_same,
    name_beside,
    read_handoff,
    waiting_for,
    write_handoff,
)
from tandem.domain.ids import AutomationId, RunId


def made(**fields: Any) -> Handoff:
    given: dict[str, Any] = {
        "handoff_id": "h1",
        "source_automation_id": "leads-scan",
        "source_run_id": "r1",
        "source_node_id": "emit",
        "target_automation_id": "leads-enrich",
        "artifact_type": "lead_batch",
        "created_at_ms": 5,
    }
    return msgspec.convert({**given, **fields}, Handoff)


def file(**fields: Any) -> HandoffFile:
    handoff = made(**fields)
    return HandoffFile(file=file_name(handoff.handoff_id), handoff=handoff)


def ids(files: list[HandoffFile]) -> list[str]:
    return [each.handoff.handoff_id for each in files if each.handoff is not None]


def test_what_is_written_is_read_again() -> None:
    handoff = made(content_digest="a" * 64, metadata={"n": 1})
    assert read_handoff(write_handoff(handoff)) == handoff
    assert handoff.occurrence == f"handoff:h1:5:{handoff.fingerprint[:12]}"
    assert "`h1` of type `lead_batch` from automation `leads-scan`" in handoff.words


def test_handoff_is_known_by_what_it_says() -> None:
    one, other = made(metadata={"batch": 1}), made(metadata={"batch": 2})
    taken = ConsumedHandoff(
        tenant="local",
        automation_id=AutomationId("leads-enrich"),
        handoff_id="h1",
        handed_over_at_ms=5,
        fingerprint=one.fingerprint,
        run_id=RunId("r2"),
        consumed_at_ms=9,
        workspace="/w",
        file="f",
        archived_dir="archived",
    )
    assert one.occurrence != other.occurrence
    assert is_same(consumed(one, taken), taken)
    assert not is_same(other, taken)
    assert not is_same(made(metadata={"batch": 1}, created_at_ms=6), taken)
    long_ago = msgspec.structs.replace(taken, fingerprint="")
    assert is_same(other, long_ago)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "it is no handoff"),
        (b"{}", "missing required field"),
        (write_handoff(made(handoff_id=" ")), "`handoff_id` must have 1 to 128 characters"),
        (write_handoff(made(artifact_type="x" * 129)), "`artifact_type` must have"),
        (write_handoff(made(created_at_ms=-1)), "`created_at_ms` must be"),
        (write_handoff(made(content_digest="x")), "`content_digest` must be a SHA-256"),
    ],
)
def test_broken_file_is_told_with_a_sentence(content: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_handoff(content)


def test_automation_waits_for_the_oldest_that_is_for_it_and_that_a_filter_accepts() -> None:
    files = [
        file(handoff_id="new", created_at_ms=9),
        file(handoff_id="old", created_at_ms=3),
        file(handoff_id="other", target_automation_id="x"),
        file(handoff_id="type", artifact_type="x"),
        file(handoff_id="source", source_automation_id="x"),
        file(handoff_id="used", consumed_at_ms=4),
        HandoffFile(file="broken.json", problem="it is no handoff"),
    ]
    exact = WatchCondition(source_automation_id="leads-scan", artifact_type="lead_batch")
    assert ids(waiting_for(files, "leads-enrich", [exact])) == ["old", "new"]
    assert ids(waiting_for(files, "leads-enrich", [exact, WatchCondition()])) == [
        "old",
        "source",
        "type",
        "new",
    ]
    assert waiting_for(files, "leads-enrich", []) == []


def test_file_is_named_by_the_id_where_that_is_a_name() -> None:
    assert file_name("lead-batch") == "lead-batch.json"
    names = {file_name(name) for name in ("a/b", "a_b", "a b", "../a_b", ".a_b")}
    assert len(names) == 5
    assert all("/" not in name and not name.startswith(".") for name in names)


def test_archive_keeps_an_earlier_handoff_of_the_same_id() -> None:
    assert name_beside(made(), is_used=False) == "h1.json"
    assert name_beside(made(), is_used=True) == f"h1.5.{made().fingerprint[:12]}.json"


def test_archived_file_tells_who_took_it() -> None:
    taken = ConsumedHandoff(
        tenant="local",
        automation_id=AutomationId("leads-enrich"),
        handoff_id="h1",
        handed_over_at_ms=5,
        run_id=RunId("r2"),
        consumed_at_ms=9,
        workspace="/w",
        file="f",
        archived_dir="a",
    )
    after = consumed(made(), taken)
    assert (after.consumed_by_run_id, after.consumed_by_automation_id, after.consumed_at_ms) == (
        "r2",
        "leads-enrich",
        9,
    )


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"inbox_dir": "/etc"}, "`/etc` is no path below the workspace"),
        ({"inbox_dir": "a/../../b"}, "is no path below"),
        ({"inbox_dir": " "}, "is no path below"),
        ({"inbox_dir": "a", "approved_dir": "a/"}, "three different folders"),
    ],
)
def test_folders_are_three_below_the_workspace(config: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        folders_of(HandoffConfig.model_validate(config))
    assert found(step("a"), handoff_config=config) == [("handoff_folder_invalid", "handoff_config")]


def test_folders_have_defaults() -> None:
    assert folders_of(None).approved_dir == "shared/handoffs/approved"


def test_watching_needs_a_workspace() -> None:
    watching = {"watch_conditions": [{"kind": "handoff_available"}]}
    assert found(step("a"), **watching) == [("watch_without_workspace", "watch_conditions")]
    assert found(step("a"), workspace_root="/w", **watching) == []
