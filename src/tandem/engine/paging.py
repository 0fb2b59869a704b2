"""Filling a page from rows of which the reader may see only some."""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

T = TypeVar("T")

PAGE: Final = 500
LOOKED_MAX: Final = 5_000
"""So many rows are looked at for one page; behind as many hidden ones it is short."""


def seen_of(
    page: Callable[[T | None, int], Sequence[T]],
    sees: Callable[[T], bool],
    *,
    limit: int,
) -> list[T]:
    """Return up to `limit` rows that are seen, in their order.

    Args:
        page: returns so many rows behind one, or the first ones.
        sees: says whether the reader may see a row.
        limit: so many at most; so many are asked for the first time.
    """
    found: list[T] = []
    last: T | None = None
    looked, size = 0, min(limit, PAGE)
    while looked < LOOKED_MAX:
        rows = page(last, size)
        found += [row for row in rows if sees(row)]
        looked += len(rows)
        if len(rows) < size or len(found) >= limit:
            break
        last, size = rows[-1], PAGE
    return found[:limit]
