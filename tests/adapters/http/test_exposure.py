"""Where a server may listen, and what it says of who may ask."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tandem.adapters.local.clock import SystemClock
from tandem.adapters.local.secrets import RandomSecrets
from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.caller import Scope
from tandem.domain.errors import InvalidRequest
from tandem.domain.ids import LOCAL_TENANT
from tandem.engine.tokens import Tokens
from tandem.serving import check_exposure, check_keys
from tandem.settings import Settings


def make_token(settings: Settings) -> None:
    store = SqliteStore(settings.store_path, synchronous="OFF")
    tokens = Tokens(store=store, clock=SystemClock(), secrets=RandomSecrets())
    made = tokens.create(tenant=LOCAL_TENANT, name="t", scopes={Scope.VIEWER})
    asyncio.run(made)
    store.close()


@contextmanager
def opened(settings: Settings) -> Iterator[SqliteStore]:
    store = SqliteStore(settings.store_path, synchronous="OFF")
    try:
        yield store
    finally:
        store.close()


def test_without_a_token_only_this_machine_may_be_listened_on(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    with opened(settings) as store:
        for host in ("127.0.0.1", "::1", "localhost"):
            assert check_exposure(settings, host, store) is False
        for host in ("0.0.0.0", "::", "192.168.0.2", "example.org"):
            with pytest.raises(InvalidRequest, match="without a token") as refused:
                check_exposure(settings, host, store)
            assert refused.value.code == "token_required"


def test_a_token_of_the_environment_or_of_the_store_opens_the_address(tmp_path: Path) -> None:
    keyed, stored = Settings(state_dir=tmp_path, api_token="x"), Settings(state_dir=tmp_path)
    with opened(stored) as store:
        assert check_exposure(keyed, "0.0.0.0", store)
    make_token(stored)
    with opened(stored) as store:
        assert check_exposure(stored, "0.0.0.0", store)
        assert check_exposure(stored, "127.0.0.1", store)


def test_hosted_modes_need_the_keys_of_those_who_sign(tmp_path: Path) -> None:
    hosted = Settings(state_dir=tmp_path, auth_mode="hosted_single_tenant")
    with pytest.raises(InvalidRequest, match="TANDEM_CONTEXT_ASSERTION_KEYS_FILE"):
        check_keys(hosted)
    keyed = Settings(
        state_dir=tmp_path, auth_mode="enterprise_required", assertion_keys_file=tmp_path / "k"
    )
    check_keys(keyed)
    with opened(keyed) as store:
        assert check_exposure(keyed, "0.0.0.0", store)
