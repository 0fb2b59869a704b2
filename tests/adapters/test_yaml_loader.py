"""The readers of YAML and JSON: values, places, traps and bounds."""

import json
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tandem.adapters.files.json_loader import load_json
from tandem.adapters.files.tree import Position, path_text
from tandem.adapters.files.yaml_loader import load_yaml
from tandem.domain.errors import InvalidAutomation, Problem


def refusal(text: str) -> Problem:
    """The mistake that ends the reading of a YAML text."""
    with pytest.raises(InvalidAutomation) as caught:
        load_yaml(text, file="f.yaml")
    return caught.value.problems[-1]


def json_refusal(text: str) -> Problem:
    with pytest.raises(InvalidAutomation) as caught:
        load_json(text, file="f.json")
    return caught.value.problems[-1]


# Values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("+4", 4),
        ("0", 0),
        ("1.5", 1.5),
        ("-.5", -0.5),
        ("1e3", 1000.0),
        ("6.", 6.0),
        ("hello world", "hello world"),
        ("1.2.3", "1.2.3"),
        ("2024-01-01", "2024-01-01"),
        ("12 apples", "12 apples"),
        ("-x", "-x"),
        ("- x", ["x"]),
        ("y", "y"),
        ("NO WAY", "NO WAY"),
        ("'yes'", "yes"),
        ('"12:30"', "12:30"),
        ("'0755'", "0755"),
        ("|\n  yes\n  no\n", "yes\nno\n"),
        (">\n  a\n  b\n", "a b\n"),
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("a:b", "a:b"),
        ("'é \U0001f600'", "é \U0001f600"),
        ("1" * 500, "1" * 500),
    ],
)
def test_plain_values(text: str, value: object) -> None:
    prefix = "k: " if text != "- x" else "k:\n"
    loaded = load_yaml(f"{prefix}{text}")
    assert loaded.problems == ()
    assert loaded.value == {"k": value}
    assert type(loaded.value["k"]) is type(value)  # type: ignore[index]


@pytest.mark.parametrize(
    "text",
    [
        *("yes", "No", "ON", "off", "True", "FALSE"),
        *("12:30", "1:2:3", "-1:30.5", "0755", "007", "0x1F", "0o17", "0b11", "1_000", "-0_1"),
        *(".inf", "-.INF", ".NaN"),
    ],
)
def test_surprising_values_must_be_quoted(text: str) -> None:
    loaded = load_yaml(f"a: 1\nk: {text}", file="f.yaml")
    (problem,) = loaded.problems
    assert problem.code == "yaml_ambiguous"
    assert text in problem.message
    assert "quote it" in problem.hint
    assert (problem.file, problem.line, problem.column, problem.path) == ("f.yaml", 2, 4, "k")
    assert load_yaml(f"k: '{text}'").value == {"k": text}


def test_surprising_keys_must_be_quoted_too() -> None:
    loaded = load_yaml("on: 1\n2: x\n~: y\ntrue: z\n")
    assert [(p.code, p.line) for p in loaded.problems] == [
        ("yaml_ambiguous", 1),
        ("key_not_text", 2),
        ("key_not_text", 3),
        ("key_not_text", 4),
    ]
    assert load_yaml("'on': 1\n\"2\": x\n").value == {"on": 1, "2": "x"}


def test_all_traps_of_a_document_are_found_in_one_pass() -> None:
    loaded = load_yaml("a: yes\nb: [no, 1, 12:30]\nc: {d: off}\na: 2\n")
    assert [(p.line, p.path) for p in loaded.problems] == [
        (1, "a"),
        (2, "b[0]"),
        (2, "b[2]"),
        (3, "c.d"),
        (4, "a"),
    ]


def test_duplicate_keys_are_refused_and_name_the_first_line() -> None:
    loaded = load_yaml("a: 1\nb:\n  c: {x: 1}\n  d: 2\n  c: {y: 2}\n")
    (problem,) = loaded.problems
    assert (problem.code, problem.path) == ("duplicate_key", "b.c")
    assert (problem.line, problem.column) == (5, 3)
    assert "the first is in line 3" in problem.message
    assert loaded.value == {"a": 1, "b": {"c": {"x": 1}, "d": 2}}


# Places


def test_every_value_has_its_place() -> None:
    text = "a: 1\nb:\n  - x\n  - {c: [1, 2]}\n"
    positions = load_yaml(text).positions
    assert positions == {
        (): Position(1, 1),
        ("a",): Position(1, 1),
        ("b",): Position(2, 1),
        ("b", 0): Position(3, 5),
        ("b", 1): Position(4, 5),
        ("b", 1, "c"): Position(4, 6),
        ("b", 1, "c", 0): Position(4, 10),
        ("b", 1, "c", 1): Position(4, 13),
    }


def test_json_has_the_same_places() -> None:
    text = '{\n\t"a": 1,\n\t"b": ["x", {"c": [true, null]}]\r\n}'
    loaded = load_json(text)
    assert loaded.value == {"a": 1, "b": ["x", {"c": [True, None]}]}
    assert loaded.positions[("a",)] == Position(2, 2)
    assert loaded.positions[("b", 0)] == Position(3, 8)
    assert loaded.positions[("b", 1, "c", 1)] == Position(3, 26)


def test_path_text() -> None:
    assert path_text(()) == ""
    assert path_text(("nodes", 2, "a", 0, 1)) == "nodes[2].a[0][1]"


# What ends the reading


@pytest.mark.parametrize(
    ("text", "code", "place"),
    [
        ("a:\n\tb: 1", "yaml_tab", (2, 1)),
        ("\ta: 1", "yaml_tab", (1, 1)),
        ("a: |\n  x\n\ty", "yaml_tab", (3, 1)),
        ("a: b: c", "yaml_syntax", (1, 5)),
        ("a: @x", "yaml_syntax", (1, 4)),
        ("a: [1, 2", "yaml_syntax", (2, 1)),
        ("a: 'x", "yaml_syntax", (1, 6)),
        ('a: "\\q"', "yaml_syntax", (1, 5)),
        ("%YAML 3.0\n---\na", "yaml_syntax", (1, 1)),
        ("a: 1\n---\nb: 2", "several_documents", (2, 1)),
        ("a: !!python/object/apply:os.system [x]", "yaml_tag", (1, 4)),
        ("a: !x {b: 1}", "yaml_tag", (1, 4)),
        ("a: !!str 5", "yaml_tag", (1, 4)),
        ("<<: {a: 1}", "yaml_merge_key", (1, 1)),
        ("? [a]\n: b", "key_not_text", (1, 3)),
        ("? {a: 1}\n: b", "key_not_text", (1, 3)),
        ("a: &k x\n*k : y", "key_not_text", (2, 1)),
        ("a: *k", "yaml_alias", (1, 4)),
        ("a: &k [1, *k]", "yaml_alias", (1, 11)),
        ("a: 1\nb: x\x07y", "not_text", (2, 5)),
        ("a: \ufffe", "not_text", (1, 4)),
    ],
)
def test_text_that_cannot_be_read(text: str, code: str, place: tuple[int, int]) -> None:
    problem = refusal(text)
    assert (problem.code, (problem.line, problem.column)) == (code, place)
    assert problem.file == "f.yaml"


def test_tab_says_to_use_spaces() -> None:
    assert refusal("a:\n\tb: 1").hint == "indent with spaces"


def test_mistakes_noted_before_are_kept_when_the_reading_ends() -> None:
    with pytest.raises(InvalidAutomation) as caught:
        load_yaml("a: yes\nb: [")
    assert [problem.code for problem in caught.value.problems] == ["yaml_ambiguous", "yaml_syntax"]


def test_alias_that_refers_to_itself_says_so() -> None:
    assert "what it is part of" in refusal("a: &k {b: *k}").message
    assert "no anchor `&z`" in refusal("a: *z").message


# Aliases


def test_aliases_stand_for_their_anchors() -> None:
    loaded = load_yaml("a: &k {x: [1]}\nb: *k\nc: &t hello\nd: [*t, *k]\n")
    assert loaded.value == {
        "a": {"x": [1]},
        "b": {"x": [1]},
        "c": "hello",
        "d": ["hello", {"x": [1]}],
    }
    assert loaded.positions[("d", 1)] == Position(4, 9)


def test_anchor_may_be_set_again() -> None:
    assert load_yaml("a: &k 1\nb: &k 2\nc: *k").value == {"a": 1, "b": 2, "c": 2}
    assert load_yaml("a: &k 1\nb: &k [2]\nc: *k").value == {"a": 1, "b": [2], "c": [2]}


def test_billion_laughs_are_refused_quickly() -> None:
    lines = ["l0: &l0 [lol, lol]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 12)]
    started = time.process_time()
    problem = refusal("\n".join(lines))
    assert problem.code == "yaml_alias"
    assert "stand for more than" in problem.message
    assert time.process_time() - started < 1


def test_long_text_repeated_by_aliases_is_refused() -> None:
    text = f"a: &k {'x' * 100_000}\nb: [{', '.join(['*k'] * 20)}]"
    assert refusal(text).code == "yaml_alias"


# Depth


@pytest.mark.parametrize("text", ["[" * 10_000, "[" * 10_000 + "]" * 10_000, '{"a":' * 10_000])
def test_deep_nesting_is_a_clear_mistake(text: str) -> None:
    for load in (load_yaml, load_json):
        if load is load_json and not text.endswith("]"):
            continue
        with pytest.raises(InvalidAutomation) as caught:
            load(text)
        assert caught.value.problems[0].code == "document_too_deep"


def test_unfinished_deep_json_is_a_clear_mistake() -> None:
    assert json_refusal("[" * 100_000).code in ("document_too_deep", "json_syntax")


@pytest.mark.parametrize("load", [load_yaml, load_json])
def test_depth_just_allowed(load: object) -> None:
    text = "[" * 100 + "]" * 100
    assert load(text).value  # type: ignore[operator]
    with pytest.raises(InvalidAutomation, match="more than 100 levels"):
        load(f"[{text}]")  # type: ignore[operator]


def test_depth_counts_through_aliases() -> None:
    deep = "[" * 60 + "]" * 60
    assert refusal(f"a: &k {deep}\nb: {'[' * 60}*k{']' * 60}").code == "document_too_deep"
    assert load_yaml(f"a: &k {deep}\nb: [*k]").value


def test_block_nesting_is_bounded_too() -> None:
    assert refusal("- " * 5_000 + "x").code == "document_too_deep"


# JSON


@pytest.mark.parametrize(
    ("text", "code", "place"),
    [
        ("{", "json_syntax", (1, 2)),
        ('{"a": 1,}', "json_syntax", None),
        ("{'a': 1}", "json_syntax", (1, 2)),
        ('{"a": tru}', "json_syntax", (1, 7)),
        ("a: 1", "json_syntax", (1, 1)),
        ('{"a": 1}\n{"b": 2}', "json_syntax", (2, 1)),
        ('{"a": NaN}', "json_syntax", (1, 1)),
        ('{"a": "x\ty"}', "json_syntax", (1, 9)),
        (f'{{"a": {"1" * 10_000}}}', "json_syntax", (1, 1)),
    ],
)
def test_text_that_is_no_json(text: str, code: str, place: tuple[int, int] | None) -> None:
    problem = json_refusal(text)
    assert problem.code == code
    assert place is None or (problem.line, problem.column) == place


def test_json_means_what_json_means() -> None:
    text = '{"a": "\\ud83d\\ude00\\/\\u0000", "b": 1e3, "c": "yes", "' + "k" * 3_000 + '": "\x7f"}'
    loaded = load_json(text)
    assert loaded.value == json.loads(text)
    assert loaded.problems == ()


def test_duplicate_keys_in_json_are_refused() -> None:
    (problem,) = load_json('{"a": 1,\n "a": 2}', file="f.json").problems
    assert (problem.code, problem.line, problem.column) == ("duplicate_key", 2, 2)


# Anything at all

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(
                st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff")
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(plain)
def test_what_json_writes_is_read_back(value: object) -> None:
    loaded = load_json(json.dumps(value))
    assert loaded.value == value
    assert loaded.problems == ()


@given(plain, st.booleans())
def test_what_yaml_writes_is_read_back(value: object, flow: bool) -> None:
    text = yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True, default_style='"')
    if "!!" not in text and "? " not in text:
        assert load_yaml(text).problems == ()
        assert load_yaml(text).value == value


@given(st.text() | st.text(alphabet="{}[]:,-&*!|>'\"#%@`? \n\tab1<~."))
def test_reading_any_text_ends_in_a_value_or_a_refusal(text: str) -> None:
    for load in (load_yaml, load_json):
        problems: tuple[Problem, ...] = ()
        try:
            loaded = load(text, file="f")
        except InvalidAutomation as error:
            problems = error.problems
        else:
            problems = loaded.problems
        assert all(problem.line >= 1 and problem.column >= 1 for problem in problems)


def test_unfinished_quote_says_where_it_begins() -> None:
    assert "which begins in line 2" in refusal("a: 1\nb: 'x\nc: 2\n").message


def test_reading_a_large_file_takes_seconds_at_most() -> None:
    text = "\n".join(f"- {{a: {n}, b: [x, 'y']}}" for n in range(30_000))
    started = time.process_time()
    loaded = load_yaml(text)
    assert isinstance(loaded.value, list)
    assert len(loaded.value) == 30_000
    assert time.process_time() - started < 10
