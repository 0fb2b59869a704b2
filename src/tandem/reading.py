"""The program of the process that reads large definitions for a server.

    python -m tandem.reading SOCKET

It answers one question after the other, and ends with its engine.
"""

import socket
import sys
from collections.abc import Sequence
from typing import Final

from tandem.adapters.child_end import leave_with_engine
from tandem.adapters.files.document import parse_automation
from tandem.adapters.frames import Frames, Reader, frame
from tandem.adapters.http.definition_reader import Question, Reply
from tandem.adapters.http.definition_reading import Answer, Asked, read

READER_PROGRAM: Final = (sys.executable, "-P", "-m", "tandem.reading")
_READ_BYTES: Final = 1 << 20


def serve(arguments: Sequence[str]) -> None:
    """Answer the engine at the other end of the socket until it is gone."""
    (fd,) = arguments
    leave_with_engine()
    frames, reader = Frames(), Reader[Question](Question)
    with socket.socket(fileno=int(fd)) as engine:
        while more := engine.recv(_READ_BYTES):
            for body in frames.feed(more):
                question = reader.read(body)
                engine.sendall(frame(Reply(question.number, _answer(question.asked))))


def _answer(asked: Asked) -> Answer | None:
    try:
        return read(asked, parse_automation)
    except Exception:  # noqa: BLE001 # the engine reads it again, and tells of what happens then
        return None


if __name__ == "__main__":
    serve(sys.argv[1:])
