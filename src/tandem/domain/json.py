"""JSON values as Python values, and the one canonical way to write them."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, TypeAlias

import msgspec

from tandem.domain.ids import Digest

JsonValue: TypeAlias = (
    "str | int | float | bool | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
)
JsonObject: TypeAlias = Mapping[str, "JsonValue"]

_canonical = msgspec.json.Encoder(order="sorted")
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


def encode(value: object) -> bytes:
    """Write `value` as compact UTF-8 JSON."""
    return _encoder.encode(value)


def decode(text: bytes | str) -> JsonValue:
    """Read JSON text.

    Raises:
        msgspec.DecodeError: the text is not JSON.
    """
    value: JsonValue = _decoder.decode(text)
    return value


def plain(value: object) -> Any:
    """Return a record as the JSON value that it is written as."""
    return _decoder.decode(_encoder.encode(value))


def canonical(value: object) -> bytes:
    """Write `value` as JSON with sorted keys, so that equal values have equal bytes."""
    return _canonical.encode(value)


def digest(content: bytes) -> Digest:
    """Return `sha256:` and the hex digest of exactly these bytes."""
    return Digest(f"sha256:{sha256(content).hexdigest()}")
