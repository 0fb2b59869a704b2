"""The turnstile: turns alternate, and whoever dies or gives up stands in nobody's way."""

import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

import tandem.adapters.sqlite.turnstile as turnstile_module
from tandem.adapters.sqlite.turnstile import Turnstile
from tandem.domain.errors import StoreUnavailable


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def pair(path: Path) -> Iterator[tuple[Turnstile, Turnstile]]:
    one, other = Turnstile(path), Turnstile(path)
    yield one, other
    one.close()
    other.close()


def test_only_one_has_the_turn(pair: tuple[Turnstile, Turnstile]) -> None:
    one, other = pair
    assert one.try_enter()
    assert not other.try_enter()
    one.leave()
    assert other.try_enter()
    other.leave()


def test_who_waits_goes_before_who_comes_again(pair: tuple[Turnstile, Turnstile]) -> None:
    """A process that commits back to back cannot enter again while another waits."""
    busy, waiting = pair
    assert busy.try_enter()
    assert not waiting.try_enter()
    busy.leave()
    assert not busy.try_enter()
    assert waiting.try_enter()
    assert not busy.try_enter()
    waiting.leave()
    assert busy.try_enter()
    busy.leave()


def test_who_gives_up_lets_the_place_in_the_queue_go(path: Path) -> None:
    one, other, third = Turnstile(path), Turnstile(path), Turnstile(path)
    assert one.try_enter()
    assert not other.try_enter()
    other.give_up()
    one.leave()
    assert third.try_enter()
    third.leave()
    for turnstile in (one, other, third):
        turnstile.close()


def test_closing_frees_the_turn(path: Path) -> None:
    one, other = Turnstile(path), Turnstile(path)
    assert one.try_enter()
    one.close()
    assert other.try_enter()
    other.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_dead_process_frees_the_turn(path: Path) -> None:
    """The kernel does it, so nothing is left that somebody would have to clean up."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        Turnstile(path).try_enter()
        os.write(told, b"x")
        os.close(told)
        select.select([], [], [])
    assert os.read(ready, 1) == b"x"
    mine = Turnstile(path)
    assert not mine.try_enter()

    os.kill(pid, 9)
    os.waitpid(pid, 0)

    assert mine.try_enter()
    mine.close()
    os.close(ready)
    os.close(told)


def test_turn_that_is_never_let_go_is_an_error_and_blocks_nobody(
    pair: tuple[Turnstile, Turnstile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turnstile_module, "TURN_WAIT_MAX_S", 0.01)
    one, other = pair
    assert one.try_enter()
    with pytest.raises(StoreUnavailable, match="safe to try again"), other.turn():
        raise AssertionError("it had the turn")
    one.leave()
    assert one.try_enter()
    one.leave()
    with other.turn():
        assert not one.try_enter()
    one.give_up()


def test_whoever_calls_the_waiting_off_lets_the_place_in_the_queue_go(
    pair: tuple[Turnstile, Turnstile],
) -> None:
    first, other = pair
    assert first.try_enter()
    with (
        pytest.raises(StoreUnavailable, match="nothing was written"),
        other.turn(is_called_off=lambda: True),
    ):
        raise AssertionError("somebody has the turn")
    first.leave()
    assert first.try_enter()
