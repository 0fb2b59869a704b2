"""50 MB out of one node: told or kept, and never in the memory of the engine."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from .conftest import Call, Start, sh

Write = Callable[[str, str], str]
Read = Callable[["subprocess.Popen[str]", str], list[str]]

SIZE = 50_000_000
PEAK_KB_MAX = 90_000
"""The engine alone has about 52 MB here; one copy of the output would be over this."""
XS = f"head -c {SIZE} /dev/zero | tr '\\0' x"
TEXT = sh(XS)
JSON = json.dumps(
    {
        "kind": "command",
        "shell": True,
        "script": f"printf '\"'; {XS}; printf '\"'",
        "output": {"format": "json"},
    }
)
PYTHON = json.dumps({"kind": "python", "function": "big:large"})
FILE = json.dumps(
    {
        "kind": "command",
        "shell": True,
        "script": f"{XS} > big.txt",
        "output": {"format": "file", "path": "big.txt"},
    }
)
BIG = f"def large():\n    return 'x' * {SIZE}\n"


def document(action: str, more: str = "") -> str:
    """Return an automation whose node `beside` keeps the engine alive until somebody writes."""
    return f"""\
nodes:
  - {{node_id: loud, action: {action}{more}}}
  - {{node_id: beside, action: {sh("cat go")}}}
"""


class Ran:
    """A run, and the most memory that its engine had taken once the node was settled."""

    def __init__(self, process: "subprocess.Popen[str]", seen: list[str]) -> None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
        assert found is not None
        self.peak_kb = int(found[1])
        Path("go").write_text("")
        out, self.err = process.communicate(timeout=20)
        self.out = "\n".join(seen) + "\n" + out
        self.code = process.returncode

    @property
    def result(self) -> Any:
        return json.loads(self.out.splitlines()[-1])


@pytest.fixture(autouse=True)
def _nothing_is_kept(tmp_path: Path) -> Iterator[None]:
    """Keep the temporary folder of the machine from filling up with what these tests leave."""
    yield
    for path in [*tmp_path.rglob("*.log"), *tmp_path.rglob("big.txt")]:
        path.unlink()
    shutil.rmtree(tmp_path / "state" / "artifacts", ignore_errors=True)


@pytest.fixture
def run(start: Start, write: Write, lines_until: Read) -> Callable[..., Ran]:
    os.mkfifo("go")
    write("big.py", BIG)

    def begin(text: str, *options: str, until: str) -> Ran:
        process = start("run", write("large.yaml", text), *options)
        return Ran(process, lines_until(process, until))

    return begin


@pytest.mark.parametrize(
    ("action", "what", "size", "instead"),
    [
        (TEXT, "stdout of node `loud`", "50,000,000", "`output: {format: file, path: …}`"),
        (JSON, "stdout of node `loud`", "50,000,002", "`output: {format: file, path: …}`"),
        (
            PYTHON,
            "what the function of node `loud` returned",
            "50,000,002",
            "`output_contract.required_files`",
        ),
    ],
    ids=["text", "json", "python"],
)
def test_output_over_the_bound_fails_its_node_and_says_what_to_do(
    run: Callable[..., Ran], action: str, what: str, size: str, instead: str
) -> None:
    ran = run(document(action), until="node_failed  loud")
    assert ran.code == 1
    assert ran.err == ""
    assert "Traceback" not in ran.out
    assert (
        f"  why     {what} has {size} bytes, more than the 16,777,216 allowed; raise "
        f"TANDEM_OUTPUT_MAX_BYTES, or write a file and name it in {instead}"
    ) in ran.out
    assert "  where   node `loud`, attempt 1\n" in ran.out
    assert ran.peak_kb < PEAK_KB_MAX


def test_programs_read_the_same(run: Callable[..., Ran], state_dir: Path) -> None:
    ran = run(document(TEXT), "--json", until='"node_failed"')
    failure = ran.result["last_failure"]
    assert (ran.code, ran.result["exit_code"]) == (1, 1)
    assert (failure["node_id"], failure["failure_kind"]) == ("loud", "output_too_large")
    kept_at = Path(failure["reason"].rpartition("; it is kept at ")[2])
    assert kept_at.is_relative_to(state_dir)
    assert kept_at.stat().st_size == SIZE


@pytest.mark.parametrize(
    "text",
    [
        document(FILE),
        document(
            sh(f"{XS} > big.txt; echo done"), ", output_contract: {required_files: [big.txt]}"
        ),
    ],
    ids=["output", "required_file"],
)
def test_file_may_be_as_large_as_it_wants(run: Callable[..., Ran], text: str) -> None:
    ran = run(text, "--json", until='"node_completed"')
    assert ran.code == 0
    (artifact,) = ran.result["artifacts"]
    assert (artifact["node_id"], artifact["path"], artifact["size_bytes"]) == (
        "loud",
        "big.txt",
        SIZE,
    )
    assert artifact["digest"] == f"sha256:{sha256(b'x' * SIZE).hexdigest()}"
    assert Path("big.txt").stat().st_size == SIZE
    assert ran.peak_kb < PEAK_KB_MAX


def test_raised_bound_keeps_the_output_as_an_artifact(
    call: Call, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_OUTPUT_MAX_BYTES", "60000000")
    text = f"nodes: [{{node_id: loud, action: {TEXT}}}]\n"
    answer = call("run", write("large.yaml", text), "--json")
    assert answer.code == 0
    assert answer.lines[-1]["outputs"]["loud"]["artifact"]["size_bytes"] == SIZE + 2
    assert len(answer.out) < 10_000


def test_log_that_does_not_have_all_of_it_says_so(call: Call, write: Write) -> None:
    script = f"{XS}; head -c 20000000 /dev/zero"
    text = f"nodes: [{{node_id: loud, action: {sh(script)}}}]\n"
    answer = call("run", write("large.yaml", text))
    assert answer.code == 1
    assert "has 70,000,000 bytes" in answer.out
    assert "; its first 67,108,864 bytes are kept at " in answer.out
