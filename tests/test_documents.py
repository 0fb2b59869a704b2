"""What the documents say is true."""

import re
import subprocess
import sys
from pathlib import Path

import tandem
from tandem.domain.ids import EngineId
from tandem.domain.lifecycle import RunEvent
from tandem.domain.run_record import compat_view
from tandem.settings import SETTINGS
from tandem.testing.builders import gate_node, python_node
from tandem.testing.tale import Tale
from tests.domain.pictured import record_of

ROOT = Path(__file__).parent.parent


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("completed\n{'name': ")


def test_the_automation_of_the_readme_is_valid(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    path = tmp_path / "disk.yaml"
    path.write_text(text)
    automation = tandem.Automation.from_file(path)
    assert [node.node_id for node in automation.flow.nodes] == ["measure", "approve", "publish"]


def test_generated_documents_are_up_to_date() -> None:
    script = ROOT / "scripts" / "write_docs.py"
    done = subprocess.run(
        [sys.executable, script, "--check"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout


def test_every_event_and_setting_is_documented() -> None:
    lifecycle = (ROOT / "docs" / "lifecycle.md").read_text()
    settings = (ROOT / "docs" / "reference" / "settings.md").read_text()
    assert [event for event in RunEvent if f"`{event}`" not in lifecycle] == []
    assert [setting.name for setting in SETTINGS if setting.name not in settings] == []


def test_every_field_of_the_record_of_a_run_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "run-record.md").read_text()
    tale = Tale(python_node("a"), gate_node("g"), python_node("b", "a")).claim()
    run = tale.view.run
    run.automation_version, run.workspace, run.parked = 1, "/w", "timer"
    run.forked_from, run.cleanup, run.due_at_ms = run.run_id, EngineId("e"), 1
    tale.repair("a")
    record = record_of(tale)
    names = [*record, *record["checkpoint"], *compat_view({"status": "blocked"})]
    assert [name for name in names if f"`{name}`" not in page and name != "view"] == []


def test_links_between_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), ROOT / "CONTRIBUTING.md"]:
        for name in re.findall(
            r"`((?:docs|src|examples|tests|scripts)/[\w/.-]+)`", document.read_text()
        ):
            assert (ROOT / name).exists(), f"{document.name} names {name}"


def test_the_public_surface_is_pinned() -> None:
    assert tandem.__all__ == [
        "Automation",
        "Engine",
        "EngineError",
        "InvalidAutomation",
        "InvalidRequest",
        "NotFound",
        "Refused",
        "Run",
        "StoreUnavailable",
    ]
    assert all(hasattr(tandem, name) for name in tandem.__all__)
