"""Artifacts are kept once, by tenant, and never come back changed."""

from pathlib import Path

import pytest

from tandem.adapters.local.artifacts import FileArtifacts
from tandem.domain.errors import NotFound, StoreUnavailable
from tandem.domain.ids import TenantId

ADA, BOB = TenantId("ada"), TenantId("../bob")


def test_the_same_bytes_are_kept_once_for_each_tenant(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    artifacts = FileArtifacts(folder)
    ref = artifacts.put(ADA, "n", b"bytes", media_type="text/plain")
    again = artifacts.put(ADA, "m", b"bytes", media_type="text/plain")
    assert ref.digest == again.digest
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1
    assert artifacts.get(ADA, ref) == b"bytes"
    with pytest.raises(NotFound):
        artifacts.get(BOB, ref)
    artifacts.put(BOB, "n", b"bytes", media_type="text/plain")
    assert artifacts.get(BOB, ref) == b"bytes"
    assert list(tmp_path.iterdir()) == [folder]


def test_damaged_bytes_are_not_given_out(tmp_path: Path) -> None:
    artifacts = FileArtifacts(tmp_path)
    ref = artifacts.put(ADA, "n", b"bytes", media_type="text/plain")
    (path,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    path.write_bytes(b"other")
    with pytest.raises(NotFound, match="damaged"):
        artifacts.get(ADA, ref)


def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="cannot keep the output of `n`"):
        FileArtifacts(tmp_path / "file").put(ADA, "n", b"bytes", media_type="text/plain")


@pytest.mark.parametrize("damage", [b"other", b"byte", b""])
def test_bytes_that_were_damaged_are_written_again(tmp_path: Path, damage: bytes) -> None:
    artifacts = FileArtifacts(tmp_path)
    ref = artifacts.put(ADA, "n", b"bytes", media_type="text/plain")
    (path,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    path.write_bytes(damage)

    artifacts.put(ADA, "n", b"bytes", media_type="text/plain")

    assert artifacts.get(ADA, ref) == b"bytes"
