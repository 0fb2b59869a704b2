"""A delivery whose engine is killed at any commit becomes one run, and is never lost."""

import asyncio
import signal
from pathlib import Path

import pytest
import webhook_program
from tests.forked import Done, run_forked

from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.automation import Automation
from tandem.domain.ids import LOCAL_TENANT, AutomationId
from tandem.domain.webhook import TriggerSpec
from tandem.engine.webhooks import Made
from tandem.ports.store import RunFilter
from tandem.ports.webhooks import DeliveryFilter
from tandem.settings import Settings
from tandem.wiring import open_engine


def take(folder: Path, made: Made, kill_at: int) -> Done:
    token = made.trigger.public_path_token
    return run_forked(webhook_program.main, str(folder), token, made.secret, str(kill_at))


async def prepare(folder: Path) -> Made:
    settings = Settings(state_dir=folder, synchronous="OFF")
    node = {"node_id": "n1", "action": {"kind": "command", "argv": ["true"]}}
    async with open_engine(settings, drives=False) as parts:
        automation = Automation.model_validate({"automation_id": "job", "flow": {"nodes": [node]}})
        await parts.automations.save(automation, by="ann")
        return await parts.webhooks.create(
            AutomationId("job"), TriggerSpec(provider="generic"), tenant=LOCAL_TENANT
        )


@pytest.mark.parametrize(
    ("kill_at", "was_told", "sends_again"),
    [
        (1, False, True),  # before it is stored: only its sender knows of it
        (2, False, True),  # stored, but nobody was told: its sender sends it again
        (2, False, False),
        (3, True, False),  # told, before its run is there
        (3, True, True),
        (4, True, False),  # its run is there
        (4, True, True),
    ],
)
def test_delivery_that_is_cut_off_anywhere_becomes_one_run(
    tmp_path: Path, kill_at: int, was_told: bool, sends_again: bool
) -> None:
    folder = tmp_path / "state"
    made = asyncio.run(prepare(folder))
    killed = take(folder, made, kill_at)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert ("accepted" in killed.stdout) is was_told

    if sends_again:
        again = take(folder, made, 0)
        assert again.returncode == 0, again.stderr
        assert again.stdout.strip() == "accepted"
    else:
        asyncio.run(sweep(folder))

    store = SqliteStore(folder / "tandem.db", synchronous="OFF")
    try:
        assert store.check() == []
        (run,) = store.list_runs(RunFilter(tenant=LOCAL_TENANT))
        found = store.list_deliveries(DeliveryFilter(tenant=LOCAL_TENANT))
        accepted = [delivery for delivery in found if delivery.status == "accepted"]
        assert [delivery.queued_run_id for delivery in accepted] == [run.run_id]
        assert {delivery.status for delivery in found} <= {"accepted", "duplicate"}
    finally:
        store.close()


async def sweep(folder: Path) -> None:
    """Do what any engine does that comes later."""
    async with open_engine(Settings(state_dir=folder), drives=False) as parts:
        while await parts.engine.inbox.take():
            pass
