"""Every command of the guide, as it stands there, against a real server."""

import os
import re
import subprocess
from pathlib import Path

from .test_server import serve, url_of

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "server.md"


def test_every_command_of_the_guide_works(tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(blocks) >= 5
    with serve("--port", "0") as process:
        done = subprocess.run(
            ["sh", "-euc", "\n".join(blocks)],
            env={**os.environ, "URL": url_of(process)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    assert '"status":"awaiting_approval"' in done.stdout or '"status":"queued"' in done.stdout
