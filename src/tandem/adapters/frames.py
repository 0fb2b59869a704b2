"""What an engine and a child of it say to each other: a length, then msgpack."""

from collections.abc import Iterator

import msgspec

_LENGTH_BYTES = 4
_encoder = msgspec.msgpack.Encoder()


def frame(message: object) -> bytes:
    """Return the bytes of a message."""
    body = _encoder.encode(message)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


class Frames:
    """Cuts a stream of bytes into the bodies of messages."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, more: bytes) -> Iterator[bytes]:
        """Take bytes and yield every body that is complete."""
        self._bytes += more
        start = 0
        while len(self._bytes) - start >= _LENGTH_BYTES:
            body = start + _LENGTH_BYTES
            end = body + int.from_bytes(self._bytes[start:body], "big")
            if end > len(self._bytes):
                break
            yield bytes(self._bytes[body:end])
            start = end
        del self._bytes[:start]
