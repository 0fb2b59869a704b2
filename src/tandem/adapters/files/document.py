"""Automation documents: from a file, or from data that somebody else has read."""

import re
from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from pathlib import Path as FilePath
from typing import Any, Final

from pydantic import ValidationError

from tandem.adapters.files.cutting import Cutting
from tandem.adapters.files.json_loader import load_json
from tandem.adapters.files.shape import Misshapen, shape_problems
from tandem.adapters.files.tree import (
    DEPTH_MAX,
    SIZE_BYTES_MAX,
    Loaded,
    Path,
    Position,
    path_steps,
    path_text,
    problem_at,
)
from tandem.adapters.files.yaml_loader import load_yaml
from tandem.domain.automation import Automation
from tandem.domain.doubts import find_doubts
from tandem.domain.errors import InvalidAutomation, NotFound, Problem
from tandem.domain.json import encode
from tandem.domain.retry_policy import BACKOFF_ALIASES, RETRY_ALIASES, Backoff
from tandem.domain.validation import check_automation

INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**64 - 1


def load_automation(
    path: FilePath,
    *,
    size_bytes_max: int = SIZE_BYTES_MAX,
    depth_max: int = DEPTH_MAX,
    warn: Callable[[Problem], None] | None = None,
) -> Automation:
    """Read an automation from a YAML file, or a JSON file when its name ends in `.json`.

    Without an `automation_id` the file's name gives it.

    Args:
        path: of the file.
        size_bytes_max: a larger file is refused.
        depth_max: values that are nested deeper are refused.
        warn: hears of what is allowed and hardly meant, with its place, once all is right.

    Raises:
        NotFound: there is no such file, or it cannot be read.
        InvalidAutomation: with every mistake that was found and its place.
    """
    source = str(path)
    text = _text(_content(path, size_bytes_max), source, size_bytes_max)
    load = load_json if path.suffix.lower() == ".json" else load_yaml
    loaded = load(text, file=source, depth_max=depth_max)
    if loaded.value is None and not loaded.problems:
        raise InvalidAutomation([_whole_file(source, "file_empty", "the file is empty")])
    automation = _parse(loaded, source=source, automation_id_default=_slug(path.stem))
    if warn is not None:
        places = _Places(source, loaded.positions)
        for doubt in find_doubts(automation):
            warn(places.find(doubt))
    return automation


def parse_automation(
    data: object,
    *,
    source: str = "",
    positions: Mapping[Path, Position] | None = None,
    automation_id_default: str | None = None,
) -> Automation:
    """Make an automation of JSON-like data (mappings, lists, texts, numbers, booleans, null).

    Args:
        data: the document; `nodes` at its top stands for `flow.nodes`.
        source: the name of the file that problems are to show.
        positions: where each value is written, as the loaders give it.
        automation_id_default: taken when the document has no `automation_id`.

    Raises:
        InvalidAutomation: with every mistake that was found.
    """
    loaded = Loaded(value=data, positions=positions or {})
    return _parse(loaded, source=source, automation_id_default=automation_id_default)


def automation_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the file form, for editors."""
    schema = Automation.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    properties = schema["properties"]
    properties["nodes"] = {
        **definitions["Flow"]["properties"]["nodes"],
        "description": "The nodes; short for `flow.nodes`.",
    }
    schema["required"] = []
    schema["oneOf"] = [{"required": ["nodes"]}, {"required": ["flow"]}]
    backoff = definitions["Backoff"]["properties"]
    _add_aliases(backoff, BACKOFF_ALIASES)
    retry = definitions["RetryPolicy"]["properties"]
    _add_aliases(retry, RETRY_ALIASES)
    for name in (*Backoff.model_fields, *BACKOFF_ALIASES):
        retry[name] = backoff[name]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _add_aliases(properties: dict[str, Any], aliases: Mapping[str, str]) -> None:
    for alias, name in aliases.items():
        properties[alias] = properties[name]


def _content(path: FilePath, size_bytes_max: int) -> bytes:
    try:
        with path.open("rb") as file:
            # One byte more than allowed tells a file that is too large from one that just fits.
            return file.read(size_bytes_max + 1)
    except IsADirectoryError as error:
        raise NotFound(f"{path} is a directory; name the file with the automation") from error
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NotFound(f"the file {path} cannot be read: {reason}") from error


def _text(content: bytes, source: str, size_bytes_max: int) -> str:
    if len(content) > size_bytes_max:
        message = f"the file is larger than {size_bytes_max} bytes"
        raise InvalidAutomation([_whole_file(source, "file_too_large", message)])
    if b"\0" in content:
        raise InvalidAutomation([_whole_file(source, "not_text", "this is no text file")])
    try:
        text = content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        at = Position(before.count(b"\n") + 1, error.start - before.rfind(b"\n"))
        message = "the file is not UTF-8"
        raise InvalidAutomation([problem_at(source, at, "not_text", message, ())]) from error
    if not text.strip():
        raise InvalidAutomation([_whole_file(source, "file_empty", "the file is empty")])
    return text


def _whole_file(source: str, code: str, message: str) -> Problem:
    return problem_at(source, Position(1, 1), code, message, ())


def _slug(stem: str) -> str:
    words = re.sub(r"[^a-z0-9._-]+", "-", stem.lower())
    return re.sub(r"\.{2,}", ".", words).strip("-.")[:100] or "automation"


def _parse(loaded: Loaded, *, source: str, automation_id_default: str | None) -> Automation:
    places = _Places(source, loaded.positions)
    document, problems = _file_form(loaded.value, automation_id_default)
    found: list[Problem] = [places.put(problem, path) for path, problem in problems]
    if document is None:
        raise _invalid(loaded.problems, found)
    cutting = Cutting(document)
    automation = None
    wrong = [] if _is_json(document) else list(_json_problems(document))
    while automation is None:
        found += [
            places.put(each.problem, each.path) for each in wrong if not cutting.hides(each.path)
        ]
        if wrong and not cutting.cut({each.path: each.meant for each in wrong}):
            raise _invalid(loaded.problems, found)
        try:
            automation = Automation.model_validate_json(encode(cutting.document), strict=True)
        except ValidationError as error:
            wrong = list(shape_problems(error))
            if not wrong:
                raise _invalid(loaded.problems, found) from None
    rules = (problem for problem in check_automation(automation) if not cutting.causes(problem))
    found += map(places.find, rules)
    if found or loaded.problems:
        raise _invalid(loaded.problems, found)
    return automation


def _invalid(noted: Iterable[Problem], found: Iterable[Problem]) -> InvalidAutomation:
    """Return the error with all problems, in the order of the file.

    What a reader noted stands for all that follows from it at the same place.
    """
    first = tuple(noted)
    places = {(problem.path, problem.line) for problem in first}
    rest = [problem for problem in found if (problem.path, problem.line) not in places]
    return InvalidAutomation(sorted((*first, *rest), key=lambda p: (p.line, p.column)))


def _file_form(
    value: object, automation_id_default: str | None
) -> tuple[dict[str, Any] | None, list[tuple[Path, Problem]]]:
    """Return the document with `flow` and an id, and what is wrong with its form."""
    if not isinstance(value, dict):
        message = "an automation is a mapping with `nodes`"
        return None, [((), Problem(code="field_type", message=message))]
    document = dict(value)
    if automation_id_default is not None:
        document.setdefault("automation_id", automation_id_default)
    if "nodes" not in document:
        # That there are no nodes is said with everything else about the graph.
        return {"flow": {"nodes": []}} | document, []
    nodes = document.pop("nodes")
    problems: list[tuple[Path, Problem]] = []
    if "flow" in document:
        message = "`nodes` is short for `flow.nodes`; give one of them"
        problems.append((("nodes",), Problem(code="nodes_twice", message=message, path="nodes")))
    document["flow"] = {"nodes": nodes}
    return document, problems


class _Places:
    """Adds the place in the file to problems."""

    def __init__(self, source: str, positions: Mapping[Path, Position]) -> None:
        self._source = source
        self._positions = positions
        self._is_long_form = ("nodes",) not in positions

    def find(self, problem: Problem) -> Problem:
        """Add the place that the problem's own path names."""
        return self.put(problem, path_steps(problem.path))

    def put(self, problem: Problem, path: Path) -> Problem:
        """Add the place of `path`, or of the nearest part of the document around it."""
        path = path[1:] if path[:2] == ("flow", "nodes") else path
        text = problem.path.removeprefix("flow.") if path[:1] == ("nodes",) else problem.path
        at = self._position(path)
        return Problem(
            code=problem.code,
            message=problem.message,
            path=text,
            hint=problem.hint,
            file=self._source,
            line=at.line,
            column=at.column,
            node_id=problem.node_id,
        )

    def _position(self, path: Path) -> Position:
        if self._is_long_form and path[:1] == ("nodes",):
            path = ("flow", *path)
        while path and path not in self._positions:
            path = path[:-1]
        return self._positions.get(path, Position(0, 0))


def _json_problems(value: object) -> Iterable[Misshapen]:
    """Yield the parts of `value` that JSON, or the store's reading of it, cannot keep."""
    stack: list[tuple[Path, object]] = [((), value)]
    while stack:
        path, item = stack.pop()
        message = ""
        match item:
            case None | bool():
                pass
            case str():
                if _has_surrogate(item):
                    message = "half of a surrogate pair is no character"
            case int():
                if not INTEGER_MIN <= item <= INTEGER_MAX:
                    message = "whole numbers have at most 64 bits; quote it to keep it as text"
            case float():
                if not isfinite(item):
                    message = "JSON has no such number"
            case dict() | list() | tuple() if len(path) >= DEPTH_MAX:
                message = f"values are nested more than {DEPTH_MAX} levels deep"
            case dict():
                if _has_text_keys(item):
                    stack.extend(((*path, key), inner) for key, inner in item.items())
                else:
                    message = "keys must be texts"
            case list() | tuple():
                stack.extend(((*path, index), inner) for index, inner in enumerate(item))
            case _:
                message = f"{type(item).__name__} is no JSON value"
        if message:
            problem = Problem(code="not_json", message=message, path=path_text(path))
            yield Misshapen(path, problem)


def _is_json(value: object) -> bool:
    """Say that nothing is wrong with a value; where it says no, `_json_problems` looks for it.

    Level by level and without the places: that is a fifth of the work.
    """
    level: list[Any] = [value]
    for _ in range(DEPTH_MAX):
        below: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is str:
                is_right = not _has_surrogate(item)
            elif kind is dict:
                is_right = _has_text_keys(item)
                below.extend(item.values())
            elif kind is list or kind is tuple:
                is_right = True
                below.extend(item)
            elif kind is int:
                is_right = INTEGER_MIN <= item <= INTEGER_MAX
            else:
                is_right = item is None or kind is bool or (kind is float and isfinite(item))
            if not is_right:
                return False
        if not below:
            return True
        level = below
    return False


def _has_text_keys(mapping: Mapping[Any, object]) -> bool:
    try:
        return not _has_surrogate("".join(mapping))
    except TypeError:  # a key is no text
        return False


def _has_surrogate(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)
