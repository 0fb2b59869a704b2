"""The example of the guide to webhooks, typed into a shell beside a server that runs."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIMIT_S = 60


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The address of a server on the state folder of the test."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tandem", "serve", "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert server.stdout is not None
    try:
        for line in server.stdout:
            found = re.search(r"http://[\w.:]+", line)
            if found:
                yield found.group()
                break
        else:
            pytest.fail("the server said no address")
    finally:
        server.terminate()
        server.communicate(timeout=LIMIT_S)


def test_the_example_of_the_guide_starts_a_run(address: str, tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "guides" / "webhooks.md").read_text("utf-8")
    (script,) = re.findall(r"```bash\n(.*?)```", guide, re.DOTALL)
    tandem = Path(sys.executable).parent
    environment = {**os.environ, "SERVER": address, "PATH": f"{tandem}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '{"ok":true,"status":"accepted"}' in done.stdout
    assert re.search(r"automation-webhook-delivery-\w+ .*(accepted|received)", done.stdout)
    told = subprocess.run(
        [sys.executable, "-m", "tandem", "runs", "list", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    assert "issue-triage" in told.stdout
