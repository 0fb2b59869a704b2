"""References in a document's texts: `${inputs.topic}` and `${nodes.collect.output.rows[0]}`.

There are no expressions. A text that is wholly one reference becomes the value with its type;
inside a longer text strings are put in as they are and everything else as compact JSON. A key
with unusual characters is written in brackets: `${inputs["my key"]}`. `$${` stands for `${`.

A `${` that is followed by anything but `inputs` or `nodes` is plain text, so that shell variables
such as `${HOME}` need no escape; `find_malformed` names those that look like a slip.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, TypeGuard

import msgspec

from tandem.domain.errors import EngineError
from tandem.domain.json import JsonValue, decode, encode

NAMES_SHOWN_MAX: Final = 10

_QUOTED = r'\["(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*+"\]'
_STEP = rf"""\.[^\s.\[\]{{}}$"'`]++|\[[0-9]{{1,9}}+\]|{_QUOTED}"""
# Three alternatives, tried in this order at each `$`: an escape, a reference, a slip. The
# quantifiers are possessive, so that a text of any length is read in linear time.
_TOKEN = re.compile(
    rf"\$\$\{{"
    rf"|\$\{{(?P<root>inputs|nodes)(?P<steps>(?:{_STEP})*+)\}}"
    r"|(?P<slip>\$\{(?:(?:inputs|nodes)(?=[.\[}\s]|$)|[A-Za-z_][A-Za-z0-9_]{0,63}\.)[^\s}]{0,80}\}?)"
)
_STEP_TOKEN = re.compile(_STEP)


class Reference(msgspec.Struct, frozen=True):
    """One well-formed reference.

    `text` is how it is written, braces included. For `inputs`, `path` leads from the inputs to the
    value. For `nodes`, `node_id` names the node and `path` leads from its output to the value.
    """

    text: str
    root: Literal["inputs", "nodes"]
    node_id: str
    path: tuple[str | int, ...]


class MissingReference(EngineError):
    """A reference names something that is not there."""

    code = "missing_reference"

    def __init__(self, reference: str, message: str) -> None:
        self.reference = reference
        super().__init__(f"`{reference}`: {message}")


def find_references(value: JsonValue) -> list[Reference]:
    """Return every reference in the texts of `value`, in order, each as often as it occurs."""
    found = []
    for text in _texts(value):
        for match in _TOKEN.finditer(text):
            reference = _reference(match)
            if reference is not None:
                found.append(reference)
    return found


def find_malformed(value: JsonValue) -> list[str]:
    """Return what looks like a reference but is none, such as `${input.x}` or `${nodes.a}`."""
    return [
        match.group()
        for text in _texts(value)
        for match in _TOKEN.finditer(text)
        if match.group() != "$${" and _reference(match) is None
    ]


def resolve(
    value: JsonValue, *, inputs: Mapping[str, JsonValue], outputs: Mapping[str, JsonValue]
) -> JsonValue:
    """Return `value` with every reference in its texts replaced; keys are left alone.

    Args:
        value: what the document says.
        inputs: the run's inputs.
        outputs: the outputs of the nodes that have one, by node id.

    Raises:
        MissingReference: a reference names something that is not there.
    """
    if isinstance(value, str):
        return _resolve_text(value, inputs, outputs)
    if isinstance(value, Mapping):
        return {k: resolve(v, inputs=inputs, outputs=outputs) for k, v in value.items()}
    if isinstance(value, Sequence):
        return [resolve(v, inputs=inputs, outputs=outputs) for v in value]
    return value


def escape(text: str) -> str:
    """Return a text that resolves to exactly `text`."""
    return text.replace("${", "$${")


def _resolve_text(
    text: str, inputs: Mapping[str, JsonValue], outputs: Mapping[str, JsonValue]
) -> JsonValue:
    if "${" not in text:
        return text
    whole = _TOKEN.fullmatch(text)
    reference = _reference(whole) if whole else None
    if reference is not None:
        return _look_up(reference, inputs, outputs)

    def rendered(match: re.Match[str]) -> str:
        if match.group() == "$${":
            return "${"
        inner = _reference(match)
        if inner is None:
            return match.group()
        found = _look_up(inner, inputs, outputs)
        return found if isinstance(found, str) else encode(found).decode()

    return _TOKEN.sub(rendered, text)


def _reference(match: re.Match[str]) -> Reference | None:
    root, steps = match["root"], match["steps"]
    if root is None:
        return None
    path = tuple(_step(m.group()) for m in _STEP_TOKEN.finditer(steps))
    if root == "inputs":
        return Reference(match.group(), "inputs", "", path)
    if len(path) < 2 or not isinstance(path[0], str) or path[1] != "output":
        return None
    return Reference(match.group(), "nodes", path[0], path[2:])


def _step(text: str) -> str | int:
    if text.startswith("."):
        return text[1:]
    inner = text[1:-1]
    return str(decode(inner)) if inner.startswith('"') else int(inner)


def _look_up(
    reference: Reference, inputs: Mapping[str, JsonValue], outputs: Mapping[str, JsonValue]
) -> JsonValue:
    if reference.root == "inputs":
        return _descend(reference, inputs, "the inputs")
    if reference.node_id not in outputs:
        raise MissingReference(
            reference.text,
            f"there is no output of node `{reference.node_id}`; outputs: {_names(outputs)}",
        )
    return _descend(
        reference, outputs[reference.node_id], f"the output of node `{reference.node_id}`"
    )


def _descend(reference: Reference, value: JsonValue, start: str) -> JsonValue:
    at = start
    for step in reference.path:
        if isinstance(step, str) and isinstance(value, Mapping):
            if step not in value:
                raise MissingReference(
                    reference.text, f"there is no `{step}` in {at}, which has: {_names(value)}"
                )
            value = value[step]
            at = f"{at}.{step}"
        elif isinstance(step, int) and _is_list(value):
            if step >= len(value):
                raise MissingReference(
                    reference.text, f"there is no item {step} in {at}, which has {len(value)}"
                )
            value = value[step]
            at = f"{at}[{step}]"
        else:
            wanted = "item" if isinstance(step, int) else "field"
            raise MissingReference(
                reference.text, f"{at} is {_noun(value)} and has no {wanted} `{step}`"
            )
    return value


def _is_list(value: JsonValue) -> TypeGuard[Sequence[JsonValue]]:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _names(value: Mapping[str, JsonValue]) -> str:
    names = [f"`{name}`" for name in list(value)[:NAMES_SHOWN_MAX]]
    more = len(value) - len(names)
    return ", ".join(names) + (f" and {more} more" if more > 0 else "") if names else "nothing"


def _noun(value: JsonValue) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case Mapping():
            return "an object"
        case _:
            return "a list"


def _texts(value: JsonValue) -> Iterator[str]:
    # A stack instead of recursion: the order of a document, whatever its depth.
    stack: list[JsonValue] = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if "${" in item:
                yield item
        elif isinstance(item, Mapping):
            stack.extend(reversed(list(item.values())))
        elif isinstance(item, Sequence):
            stack.extend(reversed(item))
