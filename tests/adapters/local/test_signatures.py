"""Signatures are verified with the keys of a file."""

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tandem.adapters.local.signatures import Ed25519Signatures
from tandem.domain.errors import InvalidRequest

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
RAW = base64.b64encode(KEY.public_key().public_bytes_raw()).decode()
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def file_of(folder: Path, content: object) -> Path:
    path = folder / "keys.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize("text", [RAW, PEM])
def test_the_key_that_is_named_has_to_have_signed_exactly_these_bytes(
    tmp_path: Path, text: str
) -> None:
    signatures = Ed25519Signatures.read(file_of(tmp_path, {"k1": text}))
    signature = KEY.sign(b"said")
    assert signatures.verify("k1", b"said", signature)
    assert not signatures.verify("k1", b"Said", signature)
    assert not signatures.verify("k2", b"said", signature)
    assert not signatures.verify("k1", b"said", signature[:-1])
    assert not signatures.verify("k1", b"said", b"")


def other_curve() -> str:
    key = generate_private_key(SECP256R1()).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        {"k1": 1},
        {"k1": "!"},
        {"k1": "AAAA"},
        {"k1": "-----BEGIN X"},
        {"k1": other_curve()},
    ],
)
def test_a_file_without_such_keys_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(InvalidRequest, match=r"keys\.json"):
        Ed25519Signatures.read(file_of(tmp_path, content))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        Ed25519Signatures.read(tmp_path / "nothing")
