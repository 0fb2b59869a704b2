"""Which route a path leads to, found step by step instead of by trying every route."""

from typing import Generic, TypeVar

T = TypeVar("T")
Found = tuple[T, dict[str, str]]


class Paths(Generic[T]):
    """Templates such as `/runs/{run_id}/pause`, each with what it leads to.

    A name stands for one step that is not empty. At each step a fixed word comes before a name.
    """

    def __init__(self) -> None:
        self._root: _Step[T] = _Step()

    def add(self, template: str, target: T) -> None:
        """Let a template lead to `target`."""
        step = self._root
        names: dict[str, int] = {}
        for place, word in enumerate(template.split("/")):
            if word.startswith("{"):
                names[word[1:-1]] = place
                step.named = step.named or _Step()
                step = step.named
            else:
                step = step.words.setdefault(word, _Step())
        step.end = target, names

    def find(self, path: str) -> Found[T] | None:
        """Return where a path leads, and what stands in the place of the names."""
        words = path.split("/")
        end = _find(self._root, words, 0)
        if end is None:
            return None
        target, names = end
        return target, {name: words[place] for name, place in names.items()}


class _Step(Generic[T]):
    __slots__ = ("end", "named", "words")

    def __init__(self) -> None:
        self.words: dict[str, _Step[T]] = {}
        self.named: _Step[T] | None = None
        self.end: tuple[T, dict[str, int]] | None = None


def _find(step: _Step[T], words: list[str], place: int) -> tuple[T, dict[str, int]] | None:
    if place == len(words):
        return step.end
    word = words[place]
    fixed = step.words.get(word)
    found = _find(fixed, words, place + 1) if fixed is not None else None
    if found is None and step.named is not None and word:
        found = _find(step.named, words, place + 1)
    return found
