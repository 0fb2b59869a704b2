"""A page is filled from rows of which some are hidden."""

import pytest

from tandem.engine import paging
from tandem.engine.paging import seen_of


class Rows:
    """Numbers from 1 on; remembers how many were asked for."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.asked: list[int] = []

    def page(self, last: int | None, size: int) -> list[int]:
        self.asked.append(size)
        first = (last or 0) + 1
        return list(range(first, min(first + size, self.count + 1)))


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "PAGE", 10)
    monkeypatch.setattr(paging, "LOOKED_MAX", 50)


def test_where_all_is_seen_one_page_is_asked_for() -> None:
    rows = Rows(100)
    assert seen_of(rows.page, lambda _: True, limit=3) == [1, 2, 3]
    assert rows.asked == [3]


def test_a_page_is_filled_behind_what_is_hidden() -> None:
    rows = Rows(100)
    assert seen_of(rows.page, lambda n: n > 25, limit=4) == [26, 27, 28, 29]
    assert rows.asked == [4, 10, 10, 10]


def test_the_end_of_the_rows_is_the_end_of_the_page() -> None:
    assert seen_of(Rows(12).page, lambda n: n % 2 == 0, limit=8) == [2, 4, 6, 8, 10, 12]
    assert seen_of(Rows(0).page, lambda _: True, limit=8) == []


def test_behind_too_many_hidden_rows_the_page_is_short() -> None:
    rows = Rows(1_000)
    assert seen_of(rows.page, lambda n: n == 45 or n > 900, limit=2) == [45]
    assert sum(rows.asked) < 70
