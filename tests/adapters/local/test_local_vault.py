"""Secrets sealed with a key in a file that only its owner may read."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tandem.adapters.local.vault import KEY_FILE, FileVault
from tandem.domain.errors import StoreUnavailable


def test_a_sealed_secret_opens_again_in_another_process(tmp_path: Path) -> None:
    sealed = FileVault(tmp_path / "state").seal("whsec_ä", context="whtr_1")
    assert b"whsec" not in sealed
    assert FileVault(tmp_path / "state").unseal(sealed, context="whtr_1") == "whsec_ä"
    path = tmp_path / "state" / KEY_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert [found.name for found in path.parent.iterdir()] == [KEY_FILE]


def test_the_same_secret_is_never_sealed_alike(tmp_path: Path) -> None:
    vault = FileVault(tmp_path)
    assert vault.seal("x", context="a") != vault.seal("x", context="a")
    assert len({vault.draw(16) for _ in range(100)}) == 100


def test_a_sealed_secret_opens_for_what_it_belongs_to_only(tmp_path: Path) -> None:
    vault = FileVault(tmp_path)
    sealed = vault.seal("x", context="whtr_1")
    with pytest.raises(StoreUnavailable, match="damaged"):
        vault.unseal(sealed, context="whtr_2")
    for changed in (sealed[:-1], sealed[:-1] + bytes([sealed[-1] ^ 1]), sealed[:6]):
        with pytest.raises(StoreUnavailable):
            vault.unseal(changed, context="whtr_1")


def test_another_key_is_told_from_damage(tmp_path: Path) -> None:
    sealed = FileVault(tmp_path / "one").seal("x", context="a")
    FileVault(tmp_path / "two").seal("x", context="a")
    with pytest.raises(StoreUnavailable, match="another key"):
        FileVault(tmp_path / "two").unseal(sealed, context="a")
    with pytest.raises(StoreUnavailable, match="is gone"):
        FileVault(tmp_path / "three").unseal(sealed, context="a")


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    FileVault(tmp_path).seal("x", context="a")
    (tmp_path / KEY_FILE).chmod(0o640)
    with pytest.raises(StoreUnavailable, match="chmod 600"):
        FileVault(tmp_path).seal("x", context="a")


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / KEY_FILE
    path.write_bytes(b"short")
    path.chmod(0o600)
    with pytest.raises(StoreUnavailable, match="not a key"):
        FileVault(tmp_path).seal("x", context="a")
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        FileVault(tmp_path).seal("x", context="a")
    assert not os.path.exists(tmp_path / "elsewhere")


def test_many_that_make_the_key_at_once_have_the_same(tmp_path: Path) -> None:
    vaults = [FileVault(tmp_path) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        sealed = list(pool.map(lambda vault: vault.seal("x", context="a"), vaults))
    assert {FileVault(tmp_path).unseal(one, context="a") for one in sealed} == {"x"}
