"""A real `tandem serve` for tests of the command line, and the command line asked about it."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.forked import Forked

TOKEN = "tk-served"


class Served:
    """A server of its own state folder; it may be killed and started again at the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.work.mkdir(parents=True)
        self.url = ""
        self._process: Forked | None = None

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    def start(self) -> None:
        port = self.url.rpartition(":")[2] or "0"
        own = {name: value for name, value in os.environ.items() if not name.startswith("TANDEM_")}
        self._process = Forked(
            [sys.executable, "-m", "tandem", "serve", "--port", port],
            cwd=self.work,
            stderr=subprocess.PIPE,
            env={
                **own,
                "TANDEM_STATE_DIR": str(self.state_dir),
                "TANDEM_API_TOKEN": TOKEN,
                "TANDEM_PROCESS_ISOLATION": "subreaper",
                "TANDEM_SYNCHRONOUS": "OFF",
            },
        )
        assert self._process.stderr is not None
        # Whoever still asks is refused, and that is said, before it serves.
        lines = iter(self._process.stderr.readline, "")
        found = next(filter(None, (re.search(r"http://[^\s\"]+", line) for line in lines)), None)
        assert found is not None
        self.url = found[0]

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._end()

    def stop(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._end()

    def _end(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._process.wait()
