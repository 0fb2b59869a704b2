"""Every command of the guide, as it stands there, against a real server."""

import os
import re
import signal
import subprocess
from pathlib import Path

from .test_server import serve, url_of

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "server.md"


def test_every_command_of_the_guide_works(tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(blocks) >= 5
    process = serve("--port", "0")
    try:
        env = {**os.environ, "URL": url_of(process)}
        done = subprocess.run(
            ["sh", "-euc", "\n".join(blocks)],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert done.returncode == 0, done.stderr
    assert '"status":"awaiting_approval"' in done.stdout or '"status":"queued"' in done.stdout
