"""A real `tandem serve` in a process of its own, for measurements."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

START_S = 60


class Server:
    """A server over the store in a folder, with the log that it has by default.

    Args:
        folder: its state.
        settings: more variables of its environment.
    """

    def __init__(self, folder: str, **settings: str) -> None:
        path = Path(folder) / "server.log"
        # To a file: a pipe that nobody empties would stop the server when it is full.
        with path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tandem", "serve", "--port", "0"],
                stderr=log,
                env={**os.environ, "TANDEM_STATE_DIR": folder, **settings},
            )
        self.port = self._port(path)

    def _port(self, path: Path) -> int:
        end = time.monotonic() + START_S
        while time.monotonic() < end and self._process.poll() is None:
            for line in path.read_text().splitlines(keepends=True):
                if line.endswith("\n") and (told := json.loads(line))["event"] == "serving":
                    return int(told["url"].rpartition(":")[2])
            time.sleep(0.02)
        raise RuntimeError(f"the server did not start: {path.read_text()}")

    def rss_mb(self, which: str = "VmRSS") -> float:
        """Return the memory of the server."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith(which):
                return int(line.split()[1]) / 1_024
        return 0.0

    def spent_s(self) -> float:
        """Return the processor time that it has spent."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> float:
        """End it as an operator does; return how long that took."""
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)
        return time.monotonic() - began
