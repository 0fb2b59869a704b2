"""Group commit: writes in order, one transaction for what waits, each hears of its own failure."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

import tandem.adapters.sqlite.committer as committer_module
from tandem.adapters.sqlite.committer import Committer
from tandem.adapters.sqlite.connection import open_connection
from tandem.adapters.sqlite.turnstile import Turnstile
from tandem.domain.errors import Refused, StoreUnavailable

LIMIT_S = 10


class Bench:
    """A committer on a table of words, whose commits and openings a test can break."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.commit_fails: list[Exception] = []
        self.after_effect = False
        self.open_fails = 0
        self.opened = 0
        connection = open_connection(path, synchronous="OFF")
        connection.execute("CREATE TABLE word (word TEXT UNIQUE)")
        self.committer = Committer(
            connection, Turnstile(path), reopen=self._reopen, commit=self._commit
        )

    def _reopen(self) -> apsw.Connection:
        self.opened += 1
        if self.open_fails:
            self.open_fails -= 1
            raise StoreUnavailable("the file is away")
        return open_connection(self.path, synchronous="OFF")

    def _commit(self, connection: apsw.Connection) -> None:
        if not self.commit_fails:
            connection.execute("COMMIT")
            return
        error = self.commit_fails.pop()
        if self.after_effect:
            connection.execute("COMMIT")
        raise error

    def write(self, word: str, then: Callable[[], None] = lambda: None) -> "asyncio.Future[str]":
        """Write a word; `then` is called after it within the transaction."""

        def statements(connection: apsw.Connection) -> str:
            connection.execute("INSERT INTO word VALUES (?)", (word,))
            then()
            return word.upper()

        return self.committer.submit(statements, landed=lambda c: word in self._words(c))

    def refuse(self) -> "asyncio.Future[None]":
        """Ask for something that is refused before it writes."""

        def statements(connection: apsw.Connection) -> None:
            raise Refused("no")

        return self.committer.submit(statements, landed=lambda c: False)

    def words(self) -> list[str]:
        """Return what is on disk, as another process sees it."""
        connection = apsw.Connection(str(self.path))
        try:
            return self._words(connection)
        finally:
            connection.close()

    @staticmethod
    def _words(connection: apsw.Connection) -> list[str]:
        return [str(word) for (word,) in connection.execute("SELECT word FROM word ORDER BY rowid")]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "words.db")
    yield made
    made.committer.close()


async def settle(*writes: "asyncio.Future[object]") -> list[object]:
    """Wait for all and return results and errors."""
    async with asyncio.timeout(LIMIT_S):
        return list(await asyncio.gather(*writes, return_exceptions=True))


def kinds(results: list[object]) -> list[object]:
    """Return the results, errors by their type."""
    return [type(result) if isinstance(result, Exception) else result for result in results]


async def test_what_waits_together_is_committed_together_in_order(bench: Bench) -> None:
    results = await settle(*[bench.write(word) for word in "abc"])
    assert results == ["A", "B", "C"]
    assert bench.words() == ["a", "b", "c"]
    assert (bench.committer.commits, bench.committer.writes) == (1, 3)


async def test_nobody_hears_of_a_write_before_it_is_on_disk(bench: Bench) -> None:
    seen: list[list[str]] = []
    write = bench.write("a")
    write.add_done_callback(lambda _: seen.append(bench.words()))
    assert bench.words() == []
    await write
    assert seen == [["a"]]


async def test_refusal_takes_no_neighbour_along(bench: Bench) -> None:
    results = await settle(bench.write("a"), bench.refuse(), bench.write("b"))
    assert kinds(results) == ["A", Refused, "B"]
    assert bench.words() == ["a", "b"]
    assert bench.committer.commits == 1


async def test_refusal_after_a_write_writes_nothing(bench: Bench) -> None:
    def refuse() -> None:
        raise Refused("too late")

    results = await settle(bench.write("a"), bench.write("b", refuse), bench.write("c"))
    assert kinds(results) == ["A", Refused, "C"]
    assert bench.words() == ["a", "c"]


async def test_failing_statement_takes_no_neighbour_along(bench: Bench) -> None:
    results = await settle(bench.write("a"), bench.write("a"), bench.write("b"))
    assert kinds(results) == ["A", StoreUnavailable, "B"]
    assert bench.words() == ["a", "b"]


async def test_surprise_in_a_statement_is_told_as_it_is(bench: Bench) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    results = await settle(bench.write("a", fail), bench.write("b"))
    assert kinds(results) == [ZeroDivisionError, "B"]
    assert bench.words() == ["b"]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (apsw.FullError("full"), "is full; free some space"),
        (apsw.ReadOnlyError("no"), "read-only; check the permissions"),
        (apsw.IOError("fsync"), "check the disk"),
        (OSError("bad"), "bad"),
    ],
)
async def test_failed_commit_says_what_to_do(bench: Bench, error: Exception, says: str) -> None:
    bench.commit_fails = [error]
    (result,) = await settle(bench.write("a"))
    assert isinstance(result, StoreUnavailable)
    assert says in str(result)
    assert "nothing was written" in str(result)
    assert bench.words() == []
    assert await settle(bench.write("a")) == ["A"]


async def test_surprise_in_a_commit_is_heard_and_the_next_write_goes_on(bench: Bench) -> None:
    bench.commit_fails = [OverflowError("int too big to convert")]
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(StoreUnavailable, match="int too big"):
            await bench.write("lost")
        await bench.write("kept")
    assert bench.words() == ["kept"]


async def test_commit_that_failed_after_its_effect_is_looked_up(bench: Bench) -> None:
    bench.commit_fails, bench.after_effect = [apsw.IOError("?")], True
    results = await settle(bench.write("a"), bench.refuse(), bench.write("b"))
    assert kinds(results) == ["A", Refused, "B"]
    assert bench.words() == ["a", "b"]
    assert bench.opened == 1


async def test_file_that_is_away_after_a_failed_commit_is_waited_for(bench: Bench) -> None:
    """What was written is not guessed: the answer comes when the file can be read again."""
    bench.commit_fails, bench.after_effect = [apsw.IOError("?")], True
    bench.open_fails = 2
    first, second = bench.write("a"), bench.write("b")
    await settle(first, second)
    later = await settle(bench.write("c"))
    assert (first.result(), second.result(), later) == ("A", "B", ["C"])
    assert bench.words() == ["a", "b", "c"]


async def test_writes_go_on_after_the_connection_was_lost(bench: Bench) -> None:
    """A connection that cannot even roll back is given up and made anew."""
    bench.committer.connection.close()
    bench.open_fails = 1
    results = [kinds(await settle(bench.write(word)))[0] for word in "abc"]
    assert results[0] is StoreUnavailable
    assert results[-1] == "C"
    written = [result.lower() for result in results if isinstance(result, str)]
    assert bench.words() == written


async def test_turn_that_never_comes_is_told_and_the_place_is_let_go(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer_module, "TURN_WAIT_MAX_S", 0.02)
    holder, third = Turnstile(bench.path), Turnstile(bench.path)
    assert holder.try_enter()

    (result,) = await settle(bench.write("a"))

    assert isinstance(result, StoreUnavailable)
    assert "safe to try again" in str(result)
    holder.leave()
    assert third.try_enter()
    third.leave()
    assert await settle(bench.write("a")) == ["A"]
    holder.close()
    third.close()


async def test_waiting_write_goes_on_when_the_turn_is_free(bench: Bench) -> None:
    holder = Turnstile(bench.path)
    assert holder.try_enter()
    write = bench.write("a")
    asyncio.get_running_loop().call_later(0.005, holder.leave)
    assert await settle(write) == ["A"]
    holder.close()


async def test_one_who_went_away_does_not_disturb_the_others(bench: Bench) -> None:
    gone, stays = bench.write("a"), bench.write("b")
    gone.cancel()
    assert await settle(stays) == ["B"]
    assert bench.words() == ["a", "b"]


async def test_closing_refuses_what_waits(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "words.db")
    write = bench.write("a")
    bench.committer.close()
    assert kinds(await settle(write)) == [StoreUnavailable]
    assert bench.words() == []
