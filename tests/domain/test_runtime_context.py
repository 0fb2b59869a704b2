"""Which context a definition gives its runs, and when they may not start without one."""

from typing import Any

import pytest

from tandem.domain.automation import Automation
from tandem.domain.claim_basis import ClaimBasis, basis_of
from tandem.domain.graph import Plan
from tandem.domain.ids import DefinitionDigest
from tandem.domain.runtime_context import (
    requires_runtime_context,
    runtime_context_of,
    shared_context_pack_ids,
)
from tandem.domain.view import RunView
from tandem.testing.builders import fresh_view, python_node

EXPLICIT = {"routines": [{"routine_id": "r", "visible_context_objects": []}]}
APPROVED = {
    "approved_plan_materialization": {
        "routines": [
            {
                "routine_id": "r",
                "visible_context_object_ids": ["one"],
                "visible_context_objects": [{"id": "two"}],
                "step_context_bindings": [{"step_id": "a"}],
            }
        ]
    },
    "plan_package_bundle": {
        "scope_snapshot": {"context_objects": [{"context_object_id": "one", "x": 1}, {"id": "two"}]}
    },
}


def automation(metadata: Any) -> Automation:
    return Automation.model_validate(
        {"automation_id": "job", "flow": {"nodes": [python_node("a")]}, "metadata": metadata}
    )


@pytest.mark.parametrize(
    "metadata", [None, {}, {"other": 1}, "text", {"shared_context_pack_ids": []}]
)
def test_most_definitions_need_no_context(metadata: Any) -> None:
    assert not requires_runtime_context(automation(metadata))
    assert runtime_context_of(automation(metadata)) is None
    assert basis_of(automation(metadata)) == ClaimBasis()


@pytest.mark.parametrize("key", ["context_materialization", "contextMaterialization"])
def test_an_explicit_context_is_taken_as_it_is(key: str) -> None:
    given = automation({key: EXPLICIT})
    assert requires_runtime_context(given)
    assert runtime_context_of(given) == EXPLICIT
    assert not basis_of(given).lacks_context


def test_an_approved_plan_is_joined_with_the_objects_of_its_bundle() -> None:
    given = automation(APPROVED)
    assert requires_runtime_context(given)
    assert runtime_context_of(given) == {
        "routines": [
            {
                "routine_id": "r",
                "visible_context_objects": [{"context_object_id": "one", "x": 1}, {"id": "two"}],
                "step_context_bindings": [{"step_id": "a"}],
            }
        ]
    }


@pytest.mark.parametrize(
    "metadata",
    [
        {"context_materialization": {}},
        {"approved_plan_materialization": {"routines": []}},
        {**APPROVED, "plan_package_bundle": {}},
        {"shared_context_bindings": ["pack"], "context_materialization": EXPLICIT},
        {"sharedContextPackIds": [{"packId": "pack"}]},
        {"plan_package": {"shared_context_pack_ids": ["pack"]}},
        {"planPackage": {"sharedContextBindings": [{"context_pack_id": "pack"}]}},
    ],
)
def test_a_context_that_is_needed_and_not_there_is_missed(metadata: Any) -> None:
    given = automation(metadata)
    assert requires_runtime_context(given)
    assert runtime_context_of(given) is None
    assert basis_of(given).lacks_context
    assert basis_of(given).can_start


def test_packs_are_named_once_and_in_order() -> None:
    given = automation(
        {
            "shared_context_bindings": [{"id": "b"}, "a", " ", 7, {}],
            "plan_package": {"shared_context_pack_ids": ["a", "c"]},
        }
    )
    assert shared_context_pack_ids(given) == ("b", "a", "c")


def test_a_run_sees_the_context_of_its_definition_before_the_one_it_was_given() -> None:
    stored = {"routines": [{"routine_id": "given"}]}
    run = fresh_view(python_node("a")).run
    run.runtime_context = stored
    digest = DefinitionDigest("sha256:1")
    assert RunView(run, Plan(automation(None), digest)).runtime_context == stored
    own = automation({"context_materialization": EXPLICIT})
    assert RunView(run, Plan(own, digest)).runtime_context == EXPLICIT
