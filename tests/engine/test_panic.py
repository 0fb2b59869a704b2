"""A mistake of ours in one run fails that run and no other."""

import asyncio

import pytest

from tandem.engine import driver as driver_module
from tests.engine.conftest import Bench, call, events


async def test_a_panic_of_one_driver_fails_its_run_and_spares_the_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = asyncio.Event()
    bench.body("slow", release.wait)
    healthy = await bench.start(call("slow", "slow"), call("after", "ok", "slow"))
    async with asyncio.timeout(10):
        while not events(healthy, "node_started"):
            await asyncio.sleep(0)

    real = driver_module.advance

    def advance(view: object, **rest: object) -> object:
        if view.plan.automation.automation_id == "broken":  # type: ignore[attr-defined]
            raise ZeroDivisionError("a mistake of ours")
        return real(view, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(driver_module, "advance", advance)
    broken = await bench.start(call("n"), automation_id="broken")
    assert await bench.end(broken) == "failed"
    assert broken.row.stop_kind == "panic"
    assert "ZeroDivisionError: a mistake of ours" in broken.detail

    monkeypatch.undo()
    release.set()
    assert await bench.end(healthy) == "completed"
    await broken.resume()
    assert await bench.end(broken) == "completed"
