"""A node whose output still holds is not run again, where it allows that."""

from pathlib import Path
from typing import Any

import pytest

from tandem.domain.ids import LOCAL_TENANT
from tests.engine.conftest import Bench, call

GATE = {
    "node_id": "ask",
    "depends_on": ["render"],
    "gate": {"required": True, "rework_targets": ["outline"]},
}


@pytest.mark.parametrize(
    ("allowed", "same_outline", "touched", "renders"),
    [
        (True, True, False, 1),
        (False, True, False, 2),
        (True, False, False, 2),
        (True, True, True, 2),
    ],
)
async def test_rework_runs_again_only_what_has_changed(
    bench: Bench, tmp_path: Path, allowed: bool, same_outline: bool, touched: bool, renders: int
) -> None:
    outlines: list[int] = []
    rendered: list[int] = []
    film = tmp_path / "film.txt"

    def outline(**_: Any) -> str:
        outlines.append(1)
        if touched and len(outlines) == 2:
            film.write_text("somebody else was here")
        return "the same" if same_outline else f"outline {len(outlines)}"

    def render(**_: Any) -> str:
        rendered.append(1)
        film.write_text("a film")
        return f"rendered {len(rendered)}"

    bench.body("outline", outline)
    bench.body("render", render)
    run = await bench.start(
        call("outline", "outline"),
        call(
            "render",
            "render",
            "outline",
            effects="workspace",
            output_contract={"required_files": ["film.txt"]},
            metadata={"builder": {"allow_preexisting_output_reuse": allowed}},
        ),
        GATE,
        workspace=tmp_path,
    )
    await bench.rest(run)
    await run.decide("rework")
    await bench.rest(run)
    await run.decide("approve")

    assert await bench.end(run) == "completed"
    assert (len(outlines), len(rendered)) == (2, renders)
    assert (await run.outputs())["render"] == f"rendered {renders}"
    done = [e for e in run.events() if e.event == "node_completed" and e.node_id == "render"]
    assert [e.metadata.get("status") == "reused_valid" for e in done] == [False, renders == 1]
    left = bench.engine.parts.store.list_artifacts(run.run_id, tenant=LOCAL_TENANT)
    assert [one.validity.value for one in left if one.ref.path] == ["superseded", "valid"]
