"""What comes in as JSON or YAML is plain values or a clear refusal, whatever the bytes are."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vaka.errors import InvalidInput
from vaka.models.document import (
    MAX_DEPTH,
    MAX_VALUES,
    MAX_YAML_BYTES,
    MAX_YAML_NODES,
    check_json,
    dump_document,
    load_document,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda item: st.lists(item, max_size=4) | st.dictionaries(TEXT, item, max_size=4),
    max_leaves=30,
)  # fmt: skip

ANY_TIME = settings(deadline=None)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def without_empties(value: Any) -> Any:
    """What is left of a value in YAML, where empty lists and objects look alike."""
    if isinstance(value, list):
        return [without_empties(item) for item in value] or {}
    if isinstance(value, dict):
        return {key: without_empties(item) for key, item in value.items()}
    return value


@ANY_TIME
@given(JSON)
def test_what_is_dumped_as_json_loads_as_it_was(value: Any) -> None:
    assert load_document(dump_document(value)) == value


@ANY_TIME
@given(JSON)
def test_what_is_dumped_as_yaml_loads_as_it_was_in_our_reader_and_in_others(value: Any) -> None:
    data = dump_document(value, "yaml")

    expected = {} if value is None else without_empties(value)
    assert load_document(data, "yaml") == expected
    assert yaml.safe_load(data) == expected


@ANY_TIME
@given(st.binary(max_size=200) | TEXT.map(str.encode), st.sampled_from(["json", "yaml"]))
def test_any_bytes_load_or_are_refused(data: bytes, kind: Any) -> None:
    with suppress(InvalidInput):
        check_json(load_document(data, kind))


YAML_PIECES = st.sampled_from(
    ["a", "b: ", "- ", "? ", ": ", "[", "]", "{", "}", ",", "&x ", "*x", "<<: ", "\n", "  ", "'"]
    + ['"', "|", ">", "#", "%", "---", "...", "1", ".inf", "~", "\\", "!x "]
    + [f"!!{tag} " for tag in ("int", "bool", "set", "str", "null", "float", "map", "seq")]
)


@ANY_TIME
@given(st.lists(YAML_PIECES, max_size=25))
def test_anything_like_yaml_loads_or_is_refused(pieces: list[str]) -> None:
    with suppress(InvalidInput):
        check_json(load_document("".join(pieces).encode(), "yaml"))


def test_json_is_written_with_four_spaces_and_escaped_slashes() -> None:
    document: Any = {"a": ["x/y", {}, []], "č": 1.5}

    assert dump_document(document) == (
        b'{\n    "a": [\n        "x\\/y",\n        {},\n        []\n    ],\n    "\\u010d": 1.5\n}'
    )


def test_yaml_is_written_in_blocks_with_braces_for_what_is_empty() -> None:
    document: Any = {
        "id": "in.c-main.t",
        "tags": ["a", "1"],
        "none": None,
        "empty": [],
        "list": [{"b": {}}],
    }

    assert dump_document(document, "yaml").decode() == (
        'id: in.c-main.t\ntags:\n    - a\n    - "1"\nnone: null\nempty: {  }\n'
        "list:\n    -\n        b: {  }\n"
    )


def test_yaml_goes_inline_after_ten_levels() -> None:
    assert dump_document(nested(12), "yaml").decode().splitlines()[-1] == "    " * 9 + "- [[1]]"


def test_a_null_document_in_yaml_is_an_empty_one() -> None:
    assert dump_document(None, "yaml") == b"{  }"


@pytest.mark.parametrize("data", [b"[" * 1_000_000, b'{"a":' * (MAX_DEPTH + 1)])
def test_deep_json_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        load_document(data)


@pytest.mark.parametrize("kind", ["json", "yaml"])
def test_depth_is_bounded_where_recursion_is_not_yet_in_danger(kind: Any) -> None:
    allowed = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert load_document(allowed, kind)

    with pytest.raises(InvalidInput, match=f"nested deeper than {MAX_DEPTH} levels"):
        load_document(b"[" + allowed + b"]", kind)


def test_deep_yaml_is_refused() -> None:
    with pytest.raises(InvalidInput, match="nested deeper"):
        load_document(b"[" * 100_000, "yaml")


def test_a_document_that_contains_itself_is_refused() -> None:
    with pytest.raises(InvalidInput, match="nested deeper"):
        load_document(b"&a [*a]", "yaml")


def test_aliases_that_multiply_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]

    with pytest.raises(InvalidInput, match=f"more than {MAX_VALUES} values"):
        load_document("\n".join(lines).encode(), "yaml")


def test_an_alias_stands_for_what_it_names() -> None:
    assert load_document(b"columns: &c [id]\nprimary_key: *c", "yaml") == {
        "columns": ["id"],
        "primary_key": ["id"],
    }


def test_merge_keys_are_keys_like_any_other() -> None:
    assert load_document(b"<<: {a: 1}", "yaml") == {"<<": {"a": 1}}


def test_yaml_has_the_scalars_of_json_and_no_others() -> None:
    text = b"[yes, 2022-06-03, 12:30, 0x10, 0o17, 010, 1e3, ~, '', True, '1']"

    assert load_document(text, "yaml") == [
        "yes", "2022-06-03", "12:30", 16, 15, 10, 1000.0, None, "", True, "1",
    ]  # fmt: skip


def test_keys_of_yaml_are_text_as_written() -> None:
    assert load_document(b"1: a\ntrue: b\n~: c", "yaml") == {"1": "a", "true": "b", "~": "c"}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "Expecting value: line 1, column 1."),
        (b'{"a": 1,}', ": line 1, column"),
        (b"\xff\xfe", "not UTF-8: byte 0"),
        (b"NaN", "NaN is not a JSON value."),
        (b"[1e999]", "not finite or too large"),
        (b"1" * 5000, "too large"),
        (b'"\\ud800"', "not Unicode"),
        (b'{"\\ud800": 1}', "not Unicode"),
    ],
)
def test_bad_json_is_refused_with_its_fault(data: bytes, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_document(data)
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"a: b: c", "mapping values are not allowed here: line 1, column 5."),
        (b"!!python/object/apply:os.system [true]", "could not determine a constructor"),
        (b"!!binary aGk=", "could not determine a constructor"),
        (b"!!set {a}", "could not determine a constructor"),
        (b"!!int abc", "a number that cannot be read"),
        (b"!!int [1]", "expected a scalar node"),
        (b"? [a]\n: b", "a key must be text"),
        (b".inf", "not finite"),
        (b"--- 1\n--- 2", "expected a single document"),
        (b"\x00", "unacceptable character"),
        (b"!" + b"x" * 5000 + b" 1", "could not determine a constructor"),
    ],
)
def test_bad_yaml_is_refused_with_its_fault(data: bytes, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_document(data, "yaml")
    assert said in caught.value.message
    assert len(caught.value.message) < 1000


def test_large_documents_are_refused_before_they_are_read() -> None:
    with pytest.raises(InvalidInput, match=f"at most {MAX_YAML_BYTES} are allowed"):
        load_document(b" " * (MAX_YAML_BYTES + 1), "yaml")
    with pytest.raises(InvalidInput, match="has 3 bytes; at most 2"):
        load_document(b"[1]", max_bytes=2)


def test_a_byte_order_mark_is_no_part_of_a_document() -> None:
    assert load_document(b"\xef\xbb\xbf{}") == {}


@pytest.mark.parametrize("value", [math.nan, {1: 2}, {"a": object()}, b"x", (1,), 1 << 5000])
def test_values_that_json_does_not_know_are_refused(value: object) -> None:
    with pytest.raises(InvalidInput):
        check_json(value)


def test_many_values_are_refused() -> None:
    with pytest.raises(InvalidInput, match=f"more than {MAX_VALUES} values"):
        load_document(b"[" + b"{}," * MAX_VALUES + b"{}]")
    with pytest.raises(InvalidInput, match=f"more than {MAX_VALUES} values"):
        check_json([0] * (MAX_VALUES + 1))
    with pytest.raises(InvalidInput, match=f"more than {MAX_YAML_NODES} values and keys"):
        load_document(b"[" + b"{}," * MAX_YAML_NODES + b"{}]", "yaml")


@pytest.mark.parametrize("text", ["," * (MAX_VALUES + 1), '\\",[{' * MAX_VALUES])
def test_what_stands_in_strings_is_no_value(text: str) -> None:
    assert load_document(json.dumps({"a": text}).encode()) == {"a": text}
