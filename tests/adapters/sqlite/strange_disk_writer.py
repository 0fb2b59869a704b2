"""A writer process on a disk that a test holds in its hands.

It is started with a folder before the usual arguments. Each commit obeys the files in it:

    fault    `before 2` or `after 2`: the next two commits fail before or after they took effect
    hold     `before` or `after`: the commit stops there until the test lets `disk` go
"""

import fcntl
import sys
from pathlib import Path

import apsw

from tandem.adapters.sqlite.writer_main import serve

folder = Path(sys.argv[1])


def read(name: str) -> list[str]:
    """Return the words of a file that may not be there."""
    try:
        return (folder / name).read_text().split()
    except FileNotFoundError:
        return []


def take_fault() -> str:
    """Return at which moment this commit fails, empty when it does not."""
    match read("fault"):
        case [moment, times] if int(times) > 0:
            (folder / "fault").write_text(f"{moment} {int(times) - 1}")
            return moment
    return ""


def stop_at(moment: str) -> None:
    """Stand still while the test holds the disk."""
    if read("hold") == [moment]:
        with (folder / "disk").open("a") as disk:
            (folder / "stopped").touch()
            fcntl.flock(disk, fcntl.LOCK_EX)


def commit(connection: apsw.Connection) -> None:
    """End the transaction as the test wants it."""
    moment = take_fault()
    stop_at("before")
    if moment == "before":
        raise apsw.IOError("disk I/O error")
    connection.execute("COMMIT")
    stop_at("after")
    if moment == "after":
        raise apsw.IOError("disk I/O error")


if __name__ == "__main__":
    serve(sys.argv[2:], commit)
