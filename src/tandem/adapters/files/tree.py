"""Builds the value of a document from events, with the place of everything in it.

Readers of several notations share this: it keeps the bounds, refuses repeated keys and records
where each value is written. It needs no recursion, so no document can exhaust the stack.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from tandem.domain.errors import InvalidAutomation, Problem

DEPTH_MAX: Final = 100
SIZE_BYTES_MAX: Final = 5_000_000
ALIAS_CHARS_MAX: Final = 1_000_000
"""What aliases may add to a document, in characters of the text they stand for."""

Path = tuple[str | int, ...]

_STEP: Final = re.compile(r"\[(\d+)\]|[^.\[\]]+")


class Position(NamedTuple):
    """A place in a file; both count from 1."""

    line: int
    column: int


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A document that could be read.

    `positions` says where each value is written, by its path from the root (an entry of a mapping
    is where its key is). `problems` are mistakes that leave the rest readable.
    """

    value: object
    positions: Mapping[Path, Position]
    problems: tuple[Problem, ...] = ()


class _Frame:
    """A mapping or list that is being read."""

    def __init__(
        self, container: dict[str, object] | list[object], path: Path, anchor: str
    ) -> None:
        self.container = container
        self.path = path
        self.anchor = anchor
        self.key: str | None = None
        self.size_chars = 1
        self.height = 1


class _Anchored(NamedTuple):
    value: object
    size_chars: int
    height: int


class TreeBuilder:
    """Receives what a reader finds, in order, and builds the value."""

    def __init__(self, file: str, *, depth_max: int = DEPTH_MAX) -> None:
        self._file = file
        self._depth_max = depth_max
        self._stack: list[_Frame] = []
        self._positions: dict[Path, Position] = {}
        self._problems: list[Problem] = []
        self._anchors: dict[str, _Anchored] = {}
        self._alias_chars = 0
        self._root: object = None

    @property
    def expects_key(self) -> bool:
        """Whether what comes next is the key of a mapping's entry."""
        frame = self._stack[-1] if self._stack else None
        return frame is not None and isinstance(frame.container, dict) and frame.key is None

    def loaded(self) -> Loaded:
        """Return what was built."""
        return Loaded(value=self._root, positions=self._positions, problems=tuple(self._problems))

    def key(self, name: str, at: Position) -> None:
        """Take the key of the next entry."""
        frame = self._stack[-1]
        assert isinstance(frame.container, dict)
        frame.key = name
        frame.size_chars += 1 + len(name)
        path = (*frame.path, name)
        if name in frame.container:
            first = self._positions[path]
            self._problems.append(
                problem_at(
                    self._file,
                    at,
                    "duplicate_key",
                    f"the key `{name[:80]}` is here twice; the first is in line {first.line}",
                    path,
                )
            )
        else:
            self._positions[path] = at

    def scalar(self, value: object, at: Position, *, size_chars: int = 0, anchor: str = "") -> None:
        """Take a text, number, boolean or null."""
        self._place(value, at, size_chars=1 + size_chars, height=0)
        self._remember(anchor, _Anchored(value, 1 + size_chars, 0))

    def open(
        self, container: dict[str, object] | list[object], at: Position, *, anchor: str = ""
    ) -> None:
        """Begin a mapping or list, which is empty."""
        self._check_depth(1, at)
        path = self._next_path()
        self._positions.setdefault(path, at)
        # A name is known again only when its value is complete.
        self._anchors.pop(anchor, None)
        self._stack.append(_Frame(container, path, anchor))

    def close(self) -> None:
        """End the mapping or list that was begun last."""
        frame = self._stack.pop()
        at = self._positions[frame.path]
        self._place(frame.container, at, size_chars=frame.size_chars, height=frame.height)
        self._remember(frame.anchor, _Anchored(frame.container, frame.size_chars, frame.height))

    def alias(self, name: str, at: Position) -> None:
        """Take the value that was named before."""
        known = self._anchors.get(name)
        if known is None:
            inside = any(frame.anchor == name for frame in self._stack)
            raise self.failure(
                at,
                "yaml_alias",
                f"`*{name}` refers to what it is part of"
                if inside
                else f"there is no anchor `&{name}` before this",
            )
        self._alias_chars += known.size_chars
        if self._alias_chars > ALIAS_CHARS_MAX:
            raise self.failure(
                at, "yaml_alias", f"the aliases stand for more than {ALIAS_CHARS_MAX} characters"
            )
        self._check_depth(known.height, at)
        self._place(known.value, at, size_chars=known.size_chars, height=known.height)

    def note(self, at: Position, code: str, message: str, *, hint: str = "") -> None:
        """Record a mistake in what comes next; reading goes on."""
        self._problems.append(
            problem_at(self._file, at, code, message, self._next_path(), hint=hint)
        )

    def failure(
        self, at: Position, code: str, message: str, *, hint: str = ""
    ) -> InvalidAutomation:
        """Return the error for a mistake that ends the reading, with those noted before."""
        last = problem_at(self._file, at, code, message, (), hint=hint)
        return InvalidAutomation([*self._problems, last])

    def _check_depth(self, levels: int, at: Position) -> None:
        if len(self._stack) + levels > self._depth_max:
            raise self.failure(
                at,
                "document_too_deep",
                f"values are nested more than {self._depth_max} levels deep",
            )

    def _next_path(self) -> Path:
        if not self._stack:
            return ()
        frame = self._stack[-1]
        if isinstance(frame.container, list):
            return (*frame.path, len(frame.container))
        return frame.path if frame.key is None else (*frame.path, frame.key)

    def _place(self, value: object, at: Position, *, size_chars: int, height: int) -> None:
        self._positions.setdefault(self._next_path(), at)
        if not self._stack:
            self._root = value
            return
        frame = self._stack[-1]
        frame.size_chars += size_chars
        frame.height = max(frame.height, height + 1)
        if isinstance(frame.container, list):
            frame.container.append(value)
            return
        assert frame.key is not None
        frame.container.setdefault(frame.key, value)
        frame.key = None

    def _remember(self, anchor: str, known: _Anchored) -> None:
        if anchor:
            self._anchors[anchor] = known


def problem_at(
    file: str, at: Position, code: str, message: str, path: Path, *, hint: str = ""
) -> Problem:
    """Return a problem at a place in a file."""
    return Problem(
        code=code,
        message=message,
        path=path_text(path),
        hint=hint,
        file=file,
        line=at.line,
        column=at.column,
    )


def path_steps(text: str) -> Path:
    """Return the path that `path_text` has written; no key may hold a dot or a bracket."""
    return tuple(int(m[1]) if m[1] else m.group() for m in _STEP.finditer(text))


def path_text(path: Path) -> str:
    """Write a path the way problems do: `nodes[2].depends_on[0]`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
