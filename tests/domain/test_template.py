"""References in texts: what is one, what is not, and what becomes of them."""

import time
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.domain.json import decode
from tandem.domain.template import (
    MissingReference,
    Reference,
    escape,
    find_malformed,
    find_references,
    resolve,
)

INPUTS = {"topic": "bees", "n": 3, "list": [{"a": 1}, {"a": 2}], "odd key": {"x": None}, "": "e"}
OUTPUTS = {"collect": {"rows": [1, 2], "text": "hi"}, "s-1": "plain", "a b": True}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${inputs.topic}", "bees"),
        ("${inputs.n}", 3),
        ("${inputs}", INPUTS),
        ("${inputs.list[1].a}", 2),
        ("${inputs.list}", [{"a": 1}, {"a": 2}]),
        ('${inputs["odd key"].x}', None),
        ('${inputs["odd key"]}', {"x": None}),
        ('${inputs[""]}', "e"),
        ("${nodes.collect.output}", {"rows": [1, 2], "text": "hi"}),
        ("${nodes.collect.output.rows[0]}", 1),
        ("${nodes.s-1.output}", "plain"),
        ('${nodes["a b"].output}', True),
    ],
)
def test_text_that_is_one_reference_becomes_the_value_with_its_type(
    text: str, value: object
) -> None:
    assert resolve(text, inputs=INPUTS, outputs=OUTPUTS) == value


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("about ${inputs.topic}!", "about bees!"),
        ("${inputs.topic}${inputs.n}", "bees3"),
        ("${inputs.topic} ", "bees "),
        ("x ${inputs.list}", 'x [{"a":1},{"a":2}]'),
        ('x ${inputs["odd key"].x}', "x null"),
        ('x ${nodes["a b"].output}', "x true"),
        ("$${inputs.topic}", "${inputs.topic}"),
        ("$$${inputs.topic}", "$${inputs.topic}"),
        ("$$${", "$${"),
        ("$$ and $1", "$$ and $1"),
        ("${HOME} ${x:-y} ${f%.txt} ${#a[@]} ${", "${HOME} ${x:-y} ${f%.txt} ${#a[@]} ${"),
        ("$${HOME}", "${HOME}"),
        ("", ""),
    ],
)
def test_references_inside_a_longer_text_are_rendered(text: str, rendered: str) -> None:
    assert resolve(text, inputs=INPUTS, outputs=OUTPUTS) == rendered


def test_values_are_resolved_at_any_depth_and_keys_are_left_alone() -> None:
    value = {"${inputs.n}": ["${inputs.n}", {"k": "n=${inputs.n}"}, 4, None, False]}
    assert resolve(value, inputs=INPUTS, outputs={}) == {
        "${inputs.n}": [3, {"k": "n=3"}, 4, None, False]
    }


def test_resolved_text_is_not_resolved_again() -> None:
    assert resolve("${inputs.a}", inputs={"a": "${inputs.b}"}, outputs={}) == "${inputs.b}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${inputs.topik}", "there is no `topik` in the inputs, which has: `topic`, `n`, `list`"),
        ("${inputs.topic.x}", "the inputs.topic is a text and has no field `x`"),
        ("${inputs.n[0]}", "the inputs.n is a number and has no item `0`"),
        ("${inputs.list.a}", "the inputs.list is a list and has no field `a`"),
        ("${inputs.list[2]}", "there is no item 2 in the inputs.list, which has 2"),
        ('${inputs["odd key"].x.y}', "is null and has no field `y`"),
        ("${nodes.collect.output[0]}", "the output of node `collect` is an object and has no item"),
        ('${nodes["a b"].output.x}', "is a boolean and has no field `x`"),
        ("${nodes.gone.output}", "there is no output of node `gone`; outputs: `collect`, `s-1`"),
    ],
)
def test_missing_reference_names_itself_and_what_exists(text: str, message: str) -> None:
    for template in (text, f"x {text}"):
        with pytest.raises(MissingReference) as caught:
            resolve(template, inputs=INPUTS, outputs=OUTPUTS)
        assert caught.value.reference == text
        assert caught.value.code == "missing_reference"
        assert str(caught.value).startswith(f"`{text}`: ")
        assert message in str(caught.value)


def test_missing_reference_shows_a_bounded_number_of_names() -> None:
    inputs = {f"i{number}": 1 for number in range(30)}
    with pytest.raises(MissingReference, match=r"`i9` and 20 more$"):
        resolve("${inputs.x}", inputs=inputs, outputs={})
    with pytest.raises(MissingReference, match=r"outputs: nothing$"):
        resolve("${nodes.a.output}", inputs={}, outputs={})


def test_mappings_and_sequences_of_any_class_are_read() -> None:
    inputs = MappingProxyType({"a": (1, MappingProxyType({"b": 2}))})
    assert resolve("${inputs.a[1].b}", inputs=inputs, outputs={}) == 2


def test_references_are_found_in_the_order_of_the_document() -> None:
    value = {
        "a": "x ${inputs.topic} $${inputs.no}",
        "b": ["${nodes.s-1.output}", {"c": "${inputs}"}],
        "d": 3,
    }
    assert find_references(value) == [
        Reference("${inputs.topic}", "inputs", "", ("topic",)),
        Reference("${nodes.s-1.output}", "nodes", "s-1", ()),
        Reference("${inputs}", "inputs", "", ()),
    ]
    assert find_references("${nodes.a.output.b[2]}") == [
        Reference("${nodes.a.output.b[2]}", "nodes", "a", ("b", 2))
    ]


@pytest.mark.parametrize(
    "text",
    [
        "${input.x}",
        "${node.x.output}",
        "${nodes.a}",
        "${nodes}",
        "${nodes[0].output}",
        "${nodes.a.result}",
        "${inputs.}",
        "${inputs.a b}",
        "${inputs.x",
        "${inputs[x]}",
        "${inputs",
        "${env.HOME}",
    ],
)
def test_near_misses_are_malformed_and_stay_as_they_are(text: str) -> None:
    assert len(find_malformed({"k": [text]})) == 1
    assert find_references(text) == []
    assert resolve(text, inputs=INPUTS, outputs=OUTPUTS) == text


@pytest.mark.parametrize(
    "text", ["${HOME}", "${inputs_dir}", "$${input.x}", "${inputs.x}", "${#a}", "plain", "$"]
)
def test_shell_variables_escapes_and_references_are_not_malformed(text: str) -> None:
    assert find_malformed(text) == []


@given(st.text(alphabet='${}inputs.nodes[]"x0 '))
def test_escaped_text_resolves_to_itself(text: str) -> None:
    assert resolve(escape(text), inputs={}, outputs={}) == text


@given(json_values)
def test_any_value_passes_through_a_reference_unchanged(value: object) -> None:
    assert resolve("${inputs.v}", inputs={"v": value}, outputs={}) is value  # type: ignore[dict-item]
    assert resolve(["${nodes.n.output}"], inputs={}, outputs={"n": value}) == [value]  # type: ignore[dict-item]


@given(json_values)
def test_rendered_value_reads_back_as_json(value: object) -> None:
    rendered = resolve(" ${inputs.v}", inputs={"v": value}, outputs={})  # type: ignore[dict-item]
    assert isinstance(rendered, str)
    if isinstance(value, str):
        assert rendered == f" {value}"
    elif not _has_big_number(value):
        assert decode(rendered) == value


def _has_big_number(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_has_big_number, value.values()))
    if isinstance(value, list):
        return any(map(_has_big_number, value))
    return isinstance(value, int) and not -(2**63) <= value < 2**64


@given(st.text(alphabet='${}inputs.nodes[]"\\x0 output'))
def test_any_text_can_be_scanned(text: str) -> None:
    for reference in find_references(text):
        assert reference.text in text
    assert all(slip in text for slip in find_malformed(text))


@pytest.mark.parametrize(
    "piece", ["${inputs", "${inputs.a", '${inputs["', "${inputs.a.", "${a", "$", "${nodes[1]", "a."]
)
def test_scanning_takes_linear_time(piece: str) -> None:
    text = piece * 200_000
    started = time.process_time()
    find_references(text)
    find_malformed(text)
    assert time.process_time() - started < 4
