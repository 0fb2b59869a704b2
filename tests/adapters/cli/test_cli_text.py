"""Texts for a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.adapters.cli.text import clean, clock, count, moment, one_line, short, size, span


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq#0\x1b\\sixel", "sixel"),
        ("\x9b2Jgone", "gone"),
        ("a\rb\x08c\x00", "abc"),
        ("\x1bc", ""),
        ("\u202ereversed", "reversed"),
        ("straße — ✓", "straße — ✓"),
    ],
)
def test_what_steers_a_terminal_is_removed(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@given(st.text(alphabet=st.sampled_from("\x1b[]0;m\x07\\\x9b\x90a\n\t?P"), max_size=40))
def test_nothing_that_steers_is_ever_left(text: str) -> None:
    left = clean(text)
    assert not set(left) & {"\x1b", "\x07", "\x9b", "\x90"}


def test_line_is_shortened() -> None:
    assert one_line("a\nb   c\td") == "a b c d"
    assert one_line("abcdefgh", width=5) == "abcd…"
    assert short({"a": [1, 2]}) == '{"a":[1,2]}'


@pytest.mark.parametrize(
    ("span_ms", "said"),
    [
        (None, ""),
        (0, "0 ms"),
        (999, "999 ms"),
        (1_000, "1.0 s"),
        (61_000, "1 min 1 s"),
        (3_660_000, "1 h 1 min"),
        (90_000_000, "1 d 1 h"),
    ],
)
def test_spans_are_said_as_people_do(span_ms: int | None, said: str) -> None:
    assert span(span_ms) == said


def test_moment_that_no_calendar_reaches_is_said_as_its_number() -> None:
    """Microseconds where milliseconds are meant are a moment of the year 58846."""
    assert moment(1_795_000_000_000_000) == "1795000000000000 ms after 1970"
    assert clock(1_795_000_000_000_000) == "1795000000000000 ms after 1970"
    assert moment(None) == ""


def test_sizes_and_counts_are_said_as_people_do() -> None:
    assert [size(n) for n in (0, 999, 1_500, 2_000_000, 3_000_000_000)] == [
        "0 B",
        "999 B",
        "1.5 KB",
        "2.0 MB",
        "3.0 GB",
    ]
    assert (count(1, "node"), count(2, "node")) == ("1 node", "2 nodes")
