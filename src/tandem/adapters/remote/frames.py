"""Server-sent events as they are read from the bytes of a stream."""

from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from tandem.domain.errors import StoreUnavailable

FRAME_BYTES_MAX: Final = 16 * 1024 * 1024


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One event: its id, empty when it has none, and its document; None for a sign of life."""

    id: str = ""
    document: Any = None


async def frames_of(chunks: AsyncIterator[bytes]) -> AsyncIterator[Frame]:
    """Yield the frames of a stream; a comment comes as a frame without a document.

    Raises:
        StoreUnavailable: a frame is larger than its bound, or no JSON.
    """
    left, frame_id, data = b"", "", []
    async for chunk in chunks:
        left += chunk
        if len(left) > FRAME_BYTES_MAX:
            raise _broken(f"a frame has more than {FRAME_BYTES_MAX} bytes")
        *lines, left = left.split(b"\n")
        for line in (line.rstrip(b"\r") for line in lines):
            if line.startswith(b":"):
                yield Frame()
            elif line:
                name, _, value = line.partition(b":")
                value = value.removeprefix(b" ")
                if name == b"id":
                    frame_id = value.decode("utf-8", "replace")
                elif name == b"data":
                    data.append(value)
            elif data:
                yield Frame(id=frame_id, document=_document(b"\n".join(data)))
                frame_id, data = "", []


def _document(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _broken(str(error)) from error


def _broken(why: str) -> StoreUnavailable:
    return StoreUnavailable(f"the stream cannot be read: {why}", code="stream_unreadable")
