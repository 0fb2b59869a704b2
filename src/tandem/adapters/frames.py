"""What an engine and a child of it say to each other: a length, then msgpack.

What people and programs hand us is JSON, whose whole numbers may have any size; those of msgpack
have 64 bits. A message with a larger one is JSON, too.
"""

from collections.abc import Iterator
from typing import Any, Final, Generic, TypeVar, overload

import msgspec

T = TypeVar("T")

_LENGTH_BYTES: Final = 4
_JSON: Final = frozenset(b"[{")
"""How JSON begins. In msgpack that is a small number, which is one byte long."""
_encoder: Final = msgspec.msgpack.Encoder()
_json_encoder: Final = msgspec.json.Encoder()


def frame(message: object) -> bytes:
    """Return the bytes of a message, with their length."""
    body = pack(message)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def pack(message: object) -> bytes:
    """Return the bytes of a message."""
    try:
        return _encoder.encode(message)
    except OverflowError:
        return _json_encoder.encode(message)


@overload
def unpack(body: bytes, kind: type[T]) -> T: ...


@overload
def unpack(body: bytes, kind: Any) -> Any: ...


def unpack(body: bytes, kind: Any) -> Any:
    """Return the message of some bytes; whoever reads many of a type has a `Reader`."""
    if _is_json(body):
        return msgspec.json.decode(body, type=kind)
    return msgspec.msgpack.decode(body, type=kind)


class Reader(Generic[T]):
    """Reads messages of one type, which may be a union."""

    def __init__(self, kind: Any) -> None:
        self._packed = msgspec.msgpack.Decoder(kind)
        self._json = msgspec.json.Decoder(kind)

    def read(self, body: bytes) -> T:
        """Return the message of some bytes."""
        message: T = (self._json if _is_json(body) else self._packed).decode(body)
        return message


def _is_json(body: bytes) -> bool:
    return len(body) > 1 and body[0] in _JSON


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
