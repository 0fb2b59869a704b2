"""Schemas are compiled once, fetch nothing and say readably what is wrong."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tandem.domain.schema_check import InvalidSchema, compile_schema, json_path

SCHEMA = {
    "type": "object",
    "required": ["name"],
    "properties": {"rows": {"type": "array", "items": {"type": "integer"}}},
}


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        yield server


def test_value_that_fits_has_no_errors() -> None:
    assert compile_schema(SCHEMA).errors({"name": "x", "rows": [1, 2]}) == []


def test_errors_name_place_and_mistake() -> None:
    errors = compile_schema(SCHEMA).errors({"rows": [1, "x"]})
    assert sorted(errors) == [
        'at $.rows[1]: "x" is not of type "integer"',
        'at $: "name" is a required property',
    ]


def test_number_of_errors_is_bounded() -> None:
    checker = compile_schema(SCHEMA)
    value = {"name": "x", "rows": ["a"] * 100}
    assert len(checker.errors(value)) == 20
    assert len(checker.errors(value, limit=3)) == 3


def test_long_values_are_cut_in_messages() -> None:
    (error,) = compile_schema({"type": "integer"}).errors("x" * 10_000)
    assert len(error) < 350
    assert error.startswith('at $: "xxx')
    assert error.endswith('is not of type "integer"')


def test_tuples_count_as_lists() -> None:
    assert compile_schema({"type": "array"}).errors((1, 2)) == []


def test_value_that_is_no_json_is_an_error_not_a_crash() -> None:
    checker = compile_schema({"type": "object"})
    (error,) = checker.errors({"a": {1, 2}, "b": object()})  # type: ignore[dict-item]
    assert "cannot be written as JSON" in error
    deep: dict[str, object] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    (error,) = checker.errors(deep)  # type: ignore[arg-type]
    assert "cannot be written as JSON" in error


def test_equal_schemas_are_compiled_once() -> None:
    assert compile_schema({"type": "object", "title": "t"}) is compile_schema(
        {"title": "t", "type": "object"}
    )


def test_boolean_schemas_are_schemas() -> None:
    assert compile_schema(True).errors(3) == []
    assert len(compile_schema(False).errors(3)) == 1


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("text", "a schema is an object or a boolean"),
        (None, "a schema is an object or a boolean"),
        ([], "a schema is an object or a boolean"),
        ({"type": "strin"}, r'at \$\.type: "strin" is no type of JSON Schema'),
        ({"properties": {"a": {"pattern": "("}}}, r"at \$\.properties\.a\.pattern: "),
        ({"required": "x"}, r"at \$\.required: "),
        ({"$ref": "#/$defs/none"}, "does not exist"),
        ({"$schema": "http://example.invalid/x"}, "Unknown meta-schema"),
        ({"a": {1, 2}, "b": object()}, "cannot be written as JSON"),
    ],
)
def test_wrong_schema_is_refused(schema: object, message: str) -> None:
    with pytest.raises(InvalidSchema, match=message):
        compile_schema(schema)  # type: ignore[arg-type]


def test_invalid_schema_knows_its_place() -> None:
    with pytest.raises(InvalidSchema) as caught:
        compile_schema({"properties": {"a": {"type": "nope"}}})
    assert caught.value.path == ("properties", "a", "type")


def test_remote_references_are_never_fetched(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    for uri in (f"http://127.0.0.1:{port}/s.json", "file:///etc/passwd", "other.json"):
        with pytest.raises(InvalidSchema):
            compile_schema({"$ref": uri})
    with pytest.raises(TimeoutError):
        listener.accept()


def test_checkers_can_be_used_by_several_threads() -> None:
    checker = compile_schema(SCHEMA)
    results: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: results.append(checker.errors({"name": 1})))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert results == [[], [], [], []]


def test_paths_quote_odd_keys() -> None:
    assert json_path(()) == "$"
    assert json_path(("a", 0, "b-c", "d e", "1")) == '$.a[0].b-c["d e"]["1"]'
