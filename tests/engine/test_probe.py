"""An effects probe is a real command; its exit code answers."""

import pytest

from tandem.domain.command import Probed
from tandem.domain.ids import LOCAL_TENANT
from tandem.domain.json import decode
from tests.engine.conftest import Bench, command

KEY = 'test "$TANDEM_IDEMPOTENCY_KEY" = "$TANDEM_RUN_ID/a" && '


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo sent", Probed(node_no=0, is_done=True, output=b'"sent\\n"')),
        (KEY + "echo same key", Probed(node_no=0, is_done=True, output=b'"same key\\n"')),
        ("exit 1", Probed(node_no=0, is_done=False)),
        ("exit 3", None),
    ],
    ids=["done", "key", "not done", "cannot tell"],
)
async def test_exit_code_of_the_probe_answers(
    bench: Bench, script: str, expected: Probed | None
) -> None:
    assert await answer(bench, ["sh", "-c", script]) == expected


async def test_a_large_answer_of_the_probe_is_put_aside(bench: Bench) -> None:
    script = "head -c 20000 /dev/zero | tr '\\0' x"
    probed = await answer(bench, ["sh", "-c", script])
    assert probed is not None
    assert (probed.is_done, probed.output) == (True, None)
    assert probed.output_ref is not None
    kept = bench.engine.parts.artifacts.get(LOCAL_TENANT, probed.output_ref)
    assert decode(kept) == "x" * 20_000


@pytest.mark.parametrize("probe", [None, ["/nowhere/probe"]], ids=["none", "missing"])
async def test_probe_that_cannot_be_asked_says_nothing(
    bench: Bench, probe: list[str] | None
) -> None:
    assert await answer(bench, probe) is None


async def answer(bench: Bench, probe: list[str] | None) -> Probed | None:
    """Ask the probe of a node that ran once."""
    run = await bench.start(command("a", "true", effects="external", effects_probe=probe))
    assert await bench.end(run) == "completed"
    parts = bench.engine.parts
    view = parts.store.read(run.run_id, tenant=LOCAL_TENANT)
    return await parts.engine._runner.probe(view, view.plan.nodes[0])
