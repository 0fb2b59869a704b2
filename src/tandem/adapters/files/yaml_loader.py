"""Reads YAML strictly, with the place of every value.

The notation is YAML 1.2 as far as plain values go: only `true` and `false` are booleans. What older
readers turn into something surprising (`no`, `12:30`, `0755`, `1_000`) is a mistake here, for
the writer to quote. Repeated keys, own tags, merge keys and several documents are refused.
"""

import re
from typing import Any, Final

import yaml

from tandem.adapters.files.tree import DEPTH_MAX, Loaded, Position, TreeBuilder

_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_WORDS: Final = frozenset({"yes", "no", "on", "off", "true", "false"})
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_ODD_NUMBER = re.compile(
    r"[-+]?(?:0[0-9_]+|0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|[0-9][0-9_]*_[0-9_]*)"
)
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_DIGITS_MAX: Final = 400
_CLEARER: Final = {
    "found character that cannot start any token": "this character cannot begin a value",
    "mapping values are not allowed in this context": "a `:` is not expected here",
}


def load_yaml(text: str, *, file: str = "", depth_max: int = DEPTH_MAX) -> Loaded:
    """Read one YAML document; an empty one has the value `None`.

    Raises:
        InvalidAutomation: the text cannot be read to its end; with the place.
    """
    reader = _Reader(text, file, depth_max)
    forbidden = _FORBIDDEN.search(text)
    if forbidden:
        before = text[: forbidden.start()]
        at = Position(before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise reader.tree.failure(
            at, "not_text", f"the character U+{ord(forbidden.group()):04X} is not allowed"
        )
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            reader.take(event)
    except yaml.MarkedYAMLError as error:
        raise reader.syntax_failure(error) from error
    return reader.tree.loaded()


class _Reader:
    """Turns the parser's events into those of a tree."""

    def __init__(self, text: str, file: str, depth_max: int) -> None:
        self.tree = TreeBuilder(file, depth_max=depth_max)
        self._text = text
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        at = _position(event.start_mark)
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise self.tree.failure(
                        at, "several_documents", "a file holds one document, a second begins here"
                    )
            case yaml.ScalarEvent():
                self._take_scalar(event, at)
            case yaml.MappingStartEvent():
                self._begin_collection({}, event, at)
            case yaml.SequenceStartEvent():
                self._begin_collection([], event, at)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self.tree.close()
            case yaml.AliasEvent():
                self._refuse_as_key(at)
                self.tree.alias(event.anchor or "", at)
            case _:
                pass

    def syntax_failure(self, error: yaml.MarkedYAMLError) -> Exception:
        at = _position(error.problem_mark)
        line = self._text.split("\n")[at.line - 1 : at.line]
        message = str(error.problem or error.context)
        if "tab character" in message or (line and line[0][at.column - 1 : at.column] == "\t"):
            return self.tree.failure(
                at, "yaml_tab", "a tab indents this line", hint="indent with spaces"
            )
        context = f" ({error.context}{_begun(error)})" if error.context and error.problem else ""
        return self.tree.failure(
            at,
            "yaml_syntax",
            _CLEARER.get(message, message) + context,
            hint="quote texts that hold special characters" if message in _CLEARER else "",
        )

    def _begin_collection(
        self,
        container: dict[str, object] | list[object],
        event: yaml.CollectionStartEvent,
        at: Position,
    ) -> None:
        self._refuse_as_key(at)
        self._check_tag(event.tag, at)
        self.tree.open(container, at, anchor=event.anchor or "")

    def _refuse_as_key(self, at: Position) -> None:
        if self.tree.expects_key:
            raise self.tree.failure(at, "key_not_text", "a key must be a text")

    def _check_tag(self, tag: str | None, at: Position) -> None:
        if tag is not None:
            raise self.tree.failure(
                at, "yaml_tag", f"tags such as `{tag[:80]}` are not allowed", hint="remove it"
            )

    def _take_scalar(self, event: yaml.ScalarEvent, at: Position) -> None:
        self._check_tag(event.tag, at)
        text = event.value
        is_plain = event.implicit[0]
        if self.tree.expects_key:
            self._take_key(text, at, is_plain=is_plain)
            return
        value = self._plain_value(text, at) if is_plain else text
        self.tree.scalar(value, at, size_chars=len(text), anchor=event.anchor or "")

    def _take_key(self, text: str, at: Position, *, is_plain: bool) -> None:
        if is_plain and text == "<<":
            raise self.tree.failure(
                at, "yaml_merge_key", "merge keys are not supported", hint="repeat the entries"
            )
        self.tree.key(text, at)
        if is_plain and not isinstance(self._plain_value(text, at), str):
            self.tree.note(
                at, "key_not_text", f"the key `{text[:80]}` is not a text", hint="quote it"
            )

    def _plain_value(self, text: str, at: Position) -> object:
        """Return the value of an unquoted text; surprising ones are noted and kept as text."""
        if text in _NULLS:
            return None
        if text == "true":
            return True
        if text == "false":
            return False
        if text.lower() in _WORDS:
            self._note_ambiguous(text, at, "older readers take it for a boolean")
        elif text[0] not in "+-.0123456789":
            return text
        elif _SEXAGESIMAL.fullmatch(text):
            self._note_ambiguous(text, at, "older readers take it for a number of base 60")
        elif _ODD_NUMBER.fullmatch(text):
            self._note_ambiguous(text, at, "readers disagree about the number it stands for")
        elif _NOT_FINITE.fullmatch(text):
            self._note_ambiguous(text, at, "JSON has no such number")
        elif len(text) <= _DIGITS_MAX:
            return _number(text)
        return text

    def _note_ambiguous(self, text: str, at: Position, why: str) -> None:
        hint = "quote it, or write true or false" if text.lower() in _WORDS else "quote it"
        self.tree.note(at, "yaml_ambiguous", f"`{text[:80]}` is ambiguous: {why}", hint=hint)


def _number(text: str) -> object:
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _begun(error: yaml.MarkedYAMLError) -> str:
    begun, ended = _position(error.context_mark), _position(error.problem_mark)
    return f", which begins in line {begun.line}" if begun.line != ended.line else ""


def _position(mark: Any) -> Position:
    return Position(1, 1) if mark is None else Position(mark.line + 1, mark.column + 1)
