"""What this version does not keep it refuses at the start, with what to do."""

from typing import Any

import pytest

from tandem.domain.errors import InvalidAutomation
from tandem.domain.ids import LOCAL_TENANT
from tandem.ports.store import RunFilter
from tests.engine.conftest import Bench, call


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"agent_id": "a", "objective": "think"}, "agents_not_installed"),
        ({"sandbox": True, "action": {"kind": "command", "argv": ["ls"]}}, "sandbox_not_available"),
        (
            {"executor": "ray", "action": {"kind": "command", "argv": ["ls"]}},
            "executor_not_available",
        ),
    ],
)
async def test_a_promise_that_cannot_be_kept_is_refused(
    bench: Bench, fields: dict[str, Any], code: str
) -> None:
    node = {"node_id": "second", "depends_on": ["first"], **fields}
    with pytest.raises(InvalidAutomation) as refused:
        await bench.start(call("first"), node, agents=[{"agent_id": "a"}])
    (problem,) = refused.value.problems
    assert (problem.code, problem.node_id) == (code, "second")
    assert problem.hint
    assert bench.engine.parts.store.list_runs(RunFilter(tenant=LOCAL_TENANT)) == []
