"""How often something may be done: a counter over fixed windows of a minute.

The counts live in one process: each server of a store allows the rate for itself.
"""

from typing import Final

from tandem.domain.errors import RateLimited

WINDOW_MS: Final = 60_000
KEYS_MAX: Final = 10_000


class Rate:
    """Counts what each key does within a minute that begins with its first deed.

    `per_min` of 0 allows everything. At most `KEYS_MAX` keys are counted; beyond that those whose
    minute is over are forgotten, and without any such the oldest one.
    """

    def __init__(self, what: str, *, per_min: int) -> None:
        self._what = what
        self._per_min = per_min
        self._windows: dict[str, tuple[int, int]] = {}

    def spend(self, key: str, *, now_ms: int) -> None:
        """Count one deed of this key.

        Raises:
            RateLimited: it has had as many as it may in this minute; this one is not counted.
        """
        if not self._per_min:
            return
        began_ms, count = self._windows.get(key, (now_ms, 0))
        if now_ms - began_ms >= WINDOW_MS:
            began_ms, count = now_ms, 0
        if count >= self._per_min:
            wait_s = max(-(-(began_ms + WINDOW_MS - now_ms) // 1_000), 1)
            raise RateLimited(
                f"at most {self._per_min} {self._what} in a minute; try again in {wait_s} s",
                retry_after_s=wait_s,
            )
        # Written at its end: the oldest window stands first.
        if count == 0:
            self._windows.pop(key, None)
            if len(self._windows) >= KEYS_MAX:
                self._forget(now_ms)
        self._windows[key] = began_ms, count + 1

    def _forget(self, now_ms: int) -> None:
        oldest = next(iter(self._windows))
        over = [key for key, (began, _) in self._windows.items() if now_ms - began >= WINDOW_MS]
        for key in over or [oldest]:
            del self._windows[key]


class Places:
    """Counts what each key has open at once, such as event streams of a client."""

    def __init__(self, what: str, *, at_once: int) -> None:
        self._what = what
        self._at_once = at_once
        self._open: dict[str, int] = {}

    def take(self, key: str) -> None:
        """Take a place; `leave` gives it back. 0 places at once allow any number.

        Raises:
            RateLimited: all places of this key are taken.
        """
        taken = self._open.get(key, 0)
        if self._at_once and taken >= self._at_once:
            raise RateLimited(
                f"at most {self._at_once} {self._what} at once; close one first", retry_after_s=1
            )
        self._open[key] = taken + 1

    def leave(self, key: str) -> None:
        """Give a place back."""
        left = self._open[key] - 1
        if left:
            self._open[key] = left
        else:
            del self._open[key]
