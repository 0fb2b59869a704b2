"""Reads JSON strictly, with the place of every value."""

import json
import re
from bisect import bisect_right
from typing import NoReturn

from tandem.adapters.files.tree import DEPTH_MAX, Loaded, Position, TreeBuilder

_TOKEN = re.compile(r'[\s,:]*+(?:([\[{\]}])|("(?:[^"\\]++|\\.)*+")|([^\s,:\[\]{}"]++))')


def load_json(text: str, *, file: str = "", depth_max: int = DEPTH_MAX) -> Loaded:
    """Read a JSON text.

    Raises:
        InvalidAutomation: the text is not JSON; with the place.
    """
    tree = TreeBuilder(file, depth_max=depth_max)
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        at = Position(error.lineno, error.colno)
        raise tree.failure(at, "json_syntax", _lower_first(error.msg)) from error
    except RecursionError as error:
        raise tree.failure(
            Position(1, 1),
            "document_too_deep",
            f"values are nested more than {depth_max} levels deep",
        ) from error
    except ValueError as error:
        raise tree.failure(Position(1, 1), "json_syntax", _lower_first(str(error))) from error
    _build(text, tree)
    return tree.loaded()


def _build(text: str, tree: TreeBuilder) -> None:
    """Walk through a text that is known to be JSON."""
    line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
    for match in _TOKEN.finditer(text):
        start = match.start(match.lastindex or 0)
        line = bisect_right(line_starts, start)
        at = Position(line, start - line_starts[line - 1] + 1)
        bracket, string, other = match.groups()
        if bracket in ("{", "["):
            tree.open({} if bracket == "{" else [], at)
        elif bracket:
            tree.close()
        elif string and tree.expects_key:
            tree.key(json.loads(string), at)
        else:
            token = string or other
            tree.scalar(json.loads(token), at, size_chars=len(token))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
