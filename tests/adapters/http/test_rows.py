"""What the command line asks beside the contract: rows, outputs, previews, whole definitions."""

from typing import Any

import msgspec

from tandem.domain.run import AttemptEnd
from tandem.engine.run_rows import OUTPUTS_BYTES_MAX, RunRows
from tests.adapters.http.conftest import GATE, Server, node, spec


async def rows_of(server: Server, run_id: str) -> RunRows:
    told = (await server.get(f"/automations/v2/runs/{run_id}/rows"))["rows"]
    return msgspec.convert(told, RunRows)


async def test_the_rows_of_a_run_are_told_whole(driving: Server) -> None:
    run_id = await driving.done(spec("rows", node("n1"), node("g", "n1", gate=GATE)))
    rows = await rows_of(driving, run_id)
    view = rows.view()
    assert (view.run.run_id, view.run.status) == (run_id, "awaiting_approval")
    assert [view.node(n).state for n in (0, 1)] == ["completed", "gated"]
    assert [attempt.outcome for attempt in rows.attempts] == [AttemptEnd.SUCCEEDED]
    assert [gate.node_id for gate in view.gates.values()] == ["g"]
    assert (rows.reason.kind, rows.forks, rows.waits) == ("gate", [], [])


async def test_only_the_last_nodes_tell_what_they_left(driving: Server) -> None:
    run_id = await driving.done(spec("outputs"))
    rows = await rows_of(driving, run_id)
    assert [row.output for row in rows.nodes] == [None, None]
    assert list(rows.outputs) == ["n2"]
    assert rows.outputs["n2"]["summary"] == "n2 is done"
    path = f"/automations/v2/runs/{run_id}/tasks"
    assert (await driving.get(f"{path}/n1/output"))["summary"] == "n1 is done"
    assert (await driving.ask("GET", f"{path}/n9/output")).status_code == 404


async def test_a_node_that_has_not_run_has_no_output(driving: Server) -> None:
    run_id = await driving.done(spec("none", node("g", gate=GATE), node("n2", "g")))
    answer = await driving.ask("GET", f"/automations/v2/runs/{run_id}/tasks/n2/output")
    assert (answer.status_code, answer.json()["code"]) == (409, "NO_OUTPUT")


async def test_outputs_that_are_too_large_together_are_counted(driving: Server) -> None:
    from tandem.domain.outcome import Succeeded

    text = "x" * 60_000
    nodes = [node(f"n{n}") for n in range(OUTPUTS_BYTES_MAX // 60_000 + 2)]
    for each in nodes:
        driving.agents.outcomes[each["node_id"]] = Succeeded(output={"summary": text})
    run_id = await driving.done(spec("large", *nodes, execution={"max_parallel_agents": 8}))
    outputs = (await rows_of(driving, run_id)).outputs
    left_out = [each for each in outputs.values() if "omitted" in each]
    assert 0 < len(left_out) < len(nodes)
    assert all(each["omitted"]["size_bytes"] > 60_000 for each in left_out)


async def test_a_summary_of_one_run_is_what_lists_show(driving: Server) -> None:
    run_id = await driving.done(spec("summary"))
    (listed,) = (await driving.get("/automations/v2/runs"))["runs"]
    path = f"/automations/v2/runs/{run_id}?view=summary"
    assert (await driving.get(path))["run"] == listed
    compat = await driving.get(f"/compat/0.7{path}")
    assert compat["run"]["status"] == "completed"


async def test_an_action_tells_what_it_would_undo(driving: Server) -> None:
    run_id = await driving.done(spec("undo"))
    path = f"/automations/v2/runs/{run_id}/preview"

    async def told(query: str) -> Any:
        return (await driving.get(f"{path}?{query}"))["preview"]

    assert (await told("action=retry&node_id=n1"))["reset_nodes"] == ["n1", "n2"]
    refusal = (await told("action=recover"))["refusal"]
    assert refusal["code"] == "AUTOMATION_V2_RUN_NOT_RECOVERABLE"
    for action in ("pause", "resume", "cancel", "redeliver"):
        assert (await told(f"action={action}"))["refusal"] is not None
    for action in ("requeue", "continue", "skip", "repair"):
        assert (await told(f"action={action}&node_id=n1"))["node_id"] == "n1"
    assert (await driving.ask("GET", f"{path}?action=retry&node_id=n9")).status_code == 404
    assert (await driving.ask("GET", f"{path}?action=dance")).json()["code"] == "QUERY_INVALID"
    assert (await rows_of(driving, run_id)).run.status == "completed"


def definition(**more: Any) -> dict[str, Any]:
    return {
        "name": "Whole",
        "flow": {"nodes": [node("n1")]},
        "agents": [{"agent_id": "a1"}],
        **more,
    }


async def test_a_whole_definition_is_created_replaced_and_left_alone(driving: Server) -> None:
    path = "/automations/v2/whole"
    first = await driving.ask("PUT", path, json=definition(description="one"))
    assert first.json()["event"] == "automation_created"
    again = await driving.ask("PUT", path, json=definition(description="one"))
    assert (again.json()["event"], again.json()["automation"]["version"]) == (None, 1)
    changed = await driving.ask("PUT", f"{path}?reason=shorter", json=definition())
    automation = changed.json()["automation"]
    assert (changed.json()["event"], automation["version"]) == ("automation_updated", 2)
    assert "description" not in automation
    (_, record) = (await driving.get(f"{path}/records"))["records"]
    assert record["reason"] == "shorter"


async def test_a_whole_definition_expects_the_version_that_its_author_saw(driving: Server) -> None:
    path = "/automations/v2/whole"
    assert (
        await driving.ask("PUT", f"{path}?expect_version=1", json=definition())
    ).status_code == 409
    assert (
        await driving.ask("PUT", f"{path}?expect_version=0", json=definition())
    ).status_code == 200
    late = await driving.ask("PUT", f"{path}?expect_version=0", json=definition(name="Other"))
    assert late.json()["code"] == "AUTOMATION_VERSION_CONFLICT"
    assert (await driving.get(path))["automation"]["name"] == "Whole"


async def test_a_whole_definition_lifts_no_pause_and_takes_no_key_of_the_server(
    driving: Server,
) -> None:
    path = "/automations/v2/whole"
    await driving.ask("PUT", path, json=definition())
    await driving.post(f"{path}/share", {"visibility": "org"})
    await driving.post(f"{path}/pause", {"reason": "hold"})
    forged = {"resource_access": {"visibility": "private"}, "own": 1}
    answer = await driving.ask("PUT", path, json=definition(metadata=forged))
    automation = answer.json()["automation"]
    assert automation["status"] == "paused"
    assert automation["metadata"]["resource_access"]["visibility"] == "org"
    assert automation["metadata"]["own"] == 1
    kept = (await driving.ask("PUT", path, json=definition())).json()["automation"]["metadata"]
    assert kept["resource_access"]["visibility"] == "org"


async def test_a_whole_definition_that_is_wrong_lists_every_mistake(driving: Server) -> None:
    path = "/automations/v2/whole"
    wrong = definition(flow={"nodes": [node("n1", "z"), node("n2", "y")]})
    answer = await driving.ask("PUT", path, json=wrong)
    assert (answer.status_code, len(answer.json()["problems"])) == (400, 2)
    other = await driving.ask("PUT", path, json=definition(automation_id="other"))
    assert other.status_code == 422
    unknown = definition(colour="red")
    assert (await driving.ask("PUT", f"{path}?strict=1", json=unknown)).status_code == 400
    assert (await driving.ask("PUT", path, json=unknown)).json()["warnings"]
