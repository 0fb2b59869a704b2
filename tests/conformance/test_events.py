"""Rows 16 and 53 of the conformance script: events of runs, live and as a list."""

import asyncio

from .conftest import Conformance

DONE = "automation.v2.run.completed"
LIST_MAX_S = 10.0


async def test_row_16_the_stream_tells_of_the_runs_of_its_automation(c: Conformance) -> None:
    await c.active("row-16")
    await c.active("row-16-other")
    events = c.api.events(automation_id="row-16")
    assert (await anext(events)).type == "message"
    other = await c.started("row-16-other")
    await c.until(other, "completed")
    run_id = await c.started("row-16")
    heard = [await anext(events)]
    while heard[-1].type != DONE:
        heard.append(await anext(events))
    await events.aclose()
    created = heard[0]
    assert created.type == "automation.v2.run.created"
    assert created.properties["runID"] == run_id
    assert created.properties["triggerType"] == "manual"
    assert created.properties["dryRun"] is False
    assert {event.run_id for event in heard} == {run_id}


async def test_row_53_the_events_of_a_run_are_a_list_that_comes_to_its_end(c: Conformance) -> None:
    await c.active("row-53")
    run_id = await c.started("row-53")
    await c.until(run_id, "completed")
    async with asyncio.timeout(LIST_MAX_S):
        events = await c.client.run_events(run_id, since_seq=0)
    assert events[0].type == "automation.v2.run.created"
    assert events[-1].type == DONE
    async with asyncio.timeout(LIST_MAX_S):
        behind = await c.client.run_events(run_id, since_seq=len(events) - 1)
    assert [event.type for event in behind] == [DONE]
