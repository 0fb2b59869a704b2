"""A writer process on a disk that a test holds in its hands.

It is started with a folder before the usual arguments. Each commit obeys the files in it:

    fault    `before 2` or `after 2`: the next two commits fail before or after they took effect
    hold     `before` or `after`: the commit stops there until the test lets `disk` go
"""

import fcntl
import sys
from collections.abc import Sequence
from pathlib import Path

import apsw

from tandem.adapters.sqlite.writer_main import serve


class StrangeDisk:
    """What the test wants of the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _read(self, name: str) -> list[str]:
        """Return the words of a file that may not be there."""
        try:
            return (self._folder / name).read_text().split()
        except FileNotFoundError:
            return []

    def _take_fault(self) -> str:
        """Return at which moment this commit fails, empty when it does not."""
        match self._read("fault"):
            case [moment, times] if int(times) > 0:
                (self._folder / "fault").write_text(f"{moment} {int(times) - 1}")
                return moment
        return ""

    def _stop_at(self, moment: str) -> None:
        """Stand still while the test holds the disk."""
        if self._read("hold") == [moment]:
            with (self._folder / "disk").open("a") as disk:
                (self._folder / "stopped").touch()
                fcntl.flock(disk, fcntl.LOCK_EX)

    def commit(self, connection: apsw.Connection) -> None:
        """End the transaction as the test wants it."""
        moment = self._take_fault()
        self._stop_at("before")
        if moment == "before":
            raise apsw.IOError("disk I/O error")
        connection.execute("COMMIT")
        self._stop_at("after")
        if moment == "after":
            raise apsw.IOError("disk I/O error")


def main(arguments: Sequence[str]) -> None:
    """Serve the engine at the other end of the socket."""
    folder, *rest = arguments
    serve(rest, StrangeDisk(Path(folder)).commit)


if __name__ == "__main__":
    main(sys.argv[1:])
