"""The files in which the original engine kept its runs. All data is made up."""

import json
from pathlib import Path
from typing import Any

import pytest

from tandem.adapters.files.original_runs import list_files, read_file, read_text
from tandem.domain.errors import NotFound, Refused

RUN = {"run_id": "automation-v2-run-1", "automation_id": "a"}


def keys(document: Any) -> list[str]:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return [stored.key for stored in read_text(text, source="runs.json")]


@pytest.mark.parametrize("text", [b"", b" \n", b"{}"])
def test_blank_file_holds_no_runs(text: bytes) -> None:
    assert keys(text) == []


@pytest.mark.parametrize(
    "document",
    [
        {"automation-v2-run-1": RUN},
        {"schema_version": 0, "runs": {"automation-v2-run-1": RUN}},
        {"schema_version": 1, "runs": {"automation-v2-run-1": RUN}},
        {"schema_version": 1, "run": RUN},
    ],
)
def test_every_form_is_read(document: dict[str, Any]) -> None:
    assert keys(document) == ["automation-v2-run-1"]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"schema_version": 2, "runs": {}}, "newer engine"),
        ({"schema_version": "one", "runs": {}}, "no version"),
        ({"schema_version": True, "runs": {}}, "no version"),
        ({"schema_version": 1}, "neither"),
        ([], "no JSON object"),
        (b"{", "not JSON"),
        (b'{"a": "\xff"}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_what_is_none_of_these_is_refused(document: Any, said: str) -> None:
    with pytest.raises(Refused, match=said):
        keys(document)


def test_folder_of_shards_is_read_file_by_file(tmp_path: Path) -> None:
    for month, number in (("01", 1), ("02", 2)):
        folder = tmp_path / "automation-runs" / "automation_v2_runs" / "2026" / month
        folder.mkdir(parents=True)
        run = {**RUN, "run_id": f"automation-v2-run-{number}"}
        (folder / f"{number}.json").write_text(json.dumps({"schema_version": 1, "run": run}))
    found = [stored for file in list_files(tmp_path) for stored in read_file(file)]
    assert [stored.key for stored in found] == ["automation-v2-run-1", "automation-v2-run-2"]
    with pytest.raises(NotFound):
        read_file(*list_files(tmp_path / "none.json"))
