"""The last look at a run: the files that it promised are there, or it is not completed."""

from typing import Any

import pytest

from tandem.domain.accounting import (
    TEXT_BYTES_MAX,
    TEXT_CHARS_MIN,
    UNSEEN,
    is_skipped,
    lacks_substance,
)
from tandem.domain.command import DecideGate
from tandem.domain.deliverable import Deliverable, deliverables_of
from tandem.domain.reading import Reading
from tandem.domain.run import Handling, NodeRun
from tandem.testing.builders import automation, gate_node, python_node
from tandem.testing.tale import Tale

LONG = "# Report\n\n" + "A sentence that says something. " * 8


def writes(node_id: str, *files: str, **fields: Any) -> dict[str, Any]:
    return python_node(node_id, output_contract={"required_files": list(files)}, **fields)


def agent(node_id: str, path: str) -> dict[str, Any]:
    return {"node_id": node_id, "metadata": {"builder": {"output_path": path}}}


def test_a_run_with_every_promised_file_completes() -> None:
    tale = Tale(writes("a", "out/a.txt"), python_node("b", "a")).claim()
    tale.facts.texts["out/a.txt"] = "done"

    tale.succeed("a")
    tale.succeed("b")

    assert tale.happened() == ["node_completed", "run_completed"]
    assert tale.run.detail == "automation run completed"


def test_a_file_that_is_gone_is_written_again_by_its_node() -> None:
    tale = Tale(writes("a", "out/a.txt", "out/b.txt"), python_node("b", "a")).claim()
    tale.succeed("a")

    tale.succeed("b")

    assert tale.happened() == ["node_completed", "run_completion_repair_requested", "node_started"]
    assert tale.states() == {"a": "running", "b": "completed"}
    assert tale.run.last_failure is not None
    assert tale.run.last_failure.failure_kind == "missing_required_artifact_path"
    assert tale.node("a").repair == (
        "required file `out/a.txt`: it was not written",
        "required file `out/b.txt`: it was not written",
    )
    tale.facts.texts |= {"out/a.txt": "x", "out/b.txt": "x"}
    tale.succeed("a")
    assert tale.happened() == ["node_completed", "node_recovered", "run_completed"]
    assert tale.events[-2].reason == "recovered: node `a` succeeded after execution error"
    assert tale.run.last_failure is None


def test_a_run_fails_when_the_node_that_owes_a_file_has_no_attempts_left() -> None:
    tale = Tale(writes("a", "a.txt", retry_policy={"max_attempts": 1})).claim()

    tale.succeed("a")

    assert tale.happened() == ["node_completed", "run_failed"]
    assert tale.run.detail == "required file `a.txt`: it was not written"
    assert tale.run.last_failure is None


def test_a_node_with_outside_effects_is_not_repeated_for_a_file() -> None:
    tale = Tale(writes("a", "a.txt", effects="external", retry_policy={"max_attempts": 5})).claim()

    tale.succeed("a")

    assert tale.run.status.value == "failed"


def test_a_skipped_node_owes_nothing() -> None:
    tale = Tale(writes("a", "a.txt")).claim()

    tale.succeed("a", reading=Reading(status="skipped"))

    assert tale.run.status.value == "completed"


def test_a_node_that_a_person_skipped_owes_nothing() -> None:
    assert is_skipped(NodeRun(node_no=0, handling=Handling(by_hand="skipped")))
    assert not is_skipped(NodeRun(node_no=0, handling=Handling(by_hand="output_set")))


def test_an_output_target_has_to_be_spoken_of_by_this_run() -> None:
    tale = Tale(python_node("a"), gate_node("g"), output_targets=["report.md"])
    tale.claim()
    tale.facts.texts["report.md"] = "left from another run"
    tale.succeed("a")
    tale.command(DecideGate(decision="approve"))
    tale.claim()

    assert tale.run.status.value == "failed"
    assert tale.run.detail == "output target `report.md`: no output of this run speaks of it"


def test_an_output_target_that_an_output_names_counts() -> None:
    tale = Tale(python_node("a"), output_targets=["file://report.md", "https://x/report"]).claim()
    tale.facts.texts["report.md"] = "fresh"

    tale.succeed("a", b'"wrote report.md"')

    assert tale.run.status.value == "completed"


def test_the_owner_of_an_output_target_writes_it_again() -> None:
    tale = Tale(writes("a", "./report.md"), output_targets=["report.md"]).claim()

    tale.succeed("a")

    assert tale.node("a").repair == ("output target `report.md`: it was not written",)


@pytest.mark.parametrize(
    ("path", "text", "strict", "reason"),
    [
        ("a.txt", " \n", False, "it is empty"),
        ("a.txt", "x", False, ""),
        ("a.json", "{", False, ""),
        ("a.json", "{", True, "it is not JSON"),
        ("a.json", "[]", True, "it holds nothing"),
        ("a.json", '{"a": 1}', True, ""),
        ("a.MD", "# Hi", True, f"it has less than {TEXT_CHARS_MIN} characters"),
        ("a.md", LONG, True, ""),
        (
            "a.html",
            "x " * 15 + "\n" + "\n".join(["y z"] * 60),
            True,
            "it has no heading, paragraph or list",
        ),
        ("a.csv", "x", True, ""),
        ("a.json", "{" + "x" * TEXT_BYTES_MAX, True, ""),
    ],
)
def test_what_counts_as_a_deliverable(path: str, text: str, strict: bool, reason: str) -> None:
    assert lacks_substance(path, text, strict=strict) == reason


def test_what_nobody_can_look_for_is_missing() -> None:
    assert UNSEEN.file("a.txt").problem == "nobody could look for a.txt"
    assert UNSEEN.output_text(NodeRun(node_no=0, output=b"1")) == ""


# What is promised


def test_deliverables_of_nodes_and_targets() -> None:
    made = automation(
        writes("a", "a.txt", metadata={"builder": {"must_write_files": ["b.txt", "", 3]}}),
        agent("b", ".tandem/artifacts/b.md"),
        python_node("c", metadata={"builder": {"output_path": "c", "output_path_mode": "none"}}),
        gate_node("g", metadata={"builder": {"output_path": "never"}}),
        output_targets=[" ", "s3://bucket/x", "FILE://a.txt", "d.txt"],
    )

    assert deliverables_of(made) == (
        Deliverable(path="a.txt", owner=0, is_target=True, is_template=True),
        Deliverable(path="b.txt", owner=0, is_template=True),
        Deliverable(path="3", owner=0, is_template=True),
        Deliverable(path=".tandem/artifacts/b.md", owner=1, is_template=True),
        Deliverable(path="d.txt", is_target=True, is_template=True),
    )


def test_paths_of_the_builder_belong_to_their_run_and_its_start() -> None:
    run = Tale(python_node("a")).claim().run
    run.started_at_ms = 86_400_000

    def path(text: str, **fields: Any) -> str:
        return Deliverable(path=text, **fields).path_in(run)

    assert path(".tandem/artifacts/a.md", is_template=True) == ".tandem/runs/run/artifacts/a.md"
    assert path("a-{current_date}-{current_time}.md", is_template=True) == "a-1970-01-02-0000.md"
    assert path("{date}", is_template=False) == "{date}"
    run.started_at_ms = None
    assert path("{date}", is_template=True) == "1970-01-01"
