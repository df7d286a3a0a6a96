"""The stored state, and the small files that a component leaves in its output folder."""

from __future__ import annotations

from typing import Any

import pytest

from vaka.errors import InvalidInput
from vaka.models.state import (
    FileState,
    JobState,
    TableState,
    file_key,
    parse_result,
    parse_state_file,
    parse_usage,
)

STORED: dict[str, Any] = {
    "component": {"last-Update": "today", "#token": "x"},
    "storage": {
        "input": {
            "tables": [{"source": "in.c-main.t", "lastImportDate": "2022-06-03T01:31:43+0200"}],
            "files": [{"tags": [{"name": "a", "match": "include"}], "lastImportId": "12"}],
        }
    },
    "data_app": {"any": ["thing"]},
}


def refusal(value: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        JobState.parse(value)
    return caught.value.message


@pytest.mark.parametrize("value", [None, {}, []])
def test_no_state_is_an_empty_state(value: Any) -> None:
    assert JobState.parse(value) == JobState()
    assert JobState.parse(value).component == {}


def test_a_state_is_stored_as_it_was_read_with_the_keys_of_others() -> None:
    state = JobState.parse(STORED)

    assert state.to_json() == STORED
    assert state.component == {"last-Update": "today", "#token": "x"}
    assert state.input_tables == (TableState("in.c-main.t", "2022-06-03T01:31:43+0200"),)
    assert state.input_files == (FileState(({"name": "a", "match": "include"},), "12"),)
    assert state.extra == {"data_app": {"any": ["thing"]}}


@pytest.mark.scenario("mapping", 53)
@pytest.mark.scenario("runner", 173)
def test_a_state_without_its_namespaces_is_refused() -> None:
    assert refusal({"lastUpdate": "today"}).startswith(
        'Invalid state: Unrecognized option "lastUpdate" under "state"'
    )


def test_entries_of_a_state_have_their_keys_and_no_others() -> None:
    table = {"source": "a", "lastImportDate": "b"}

    def tables(*items: Any) -> Any:
        return {"storage": {"input": {"tables": list(items)}}}

    assert refusal(tables(table, table | {"invalidKey": 1})).startswith(
        'Invalid state: Unrecognized option "invalidKey" under "state.storage.input.tables.1"'
    )
    assert refusal(tables({"source": "a"})) == (
        'Invalid state: The child config "lastImportDate" under "state.storage.input.tables.0" '
        "must be configured."
    )
    assert refusal({"storage": {"input": {"files": [{"tags": []}]}}}) == (
        'Invalid state: The child config "lastImportId" under "state.storage.input.files.0" '
        "must be configured."
    )


def test_a_component_state_that_is_no_object_is_refused() -> None:
    assert refusal({"component": 5}) == (
        'Invalid state: Invalid type for path "state.component". Expected "array", but got "int".'
    )


def test_the_last_import_is_found_by_source_and_the_first_entry_wins() -> None:
    state = JobState(input_tables=(TableState("a", "1"), TableState("a", "2"), TableState("b", "")))

    assert state.last_import_date("a") == "1"
    assert state.last_import_date("b") == ""
    assert state.last_import_date("c") is None


@pytest.mark.scenario("mapping", 127)
def test_the_last_file_is_found_by_exactly_its_tags() -> None:
    state = JobState(input_files=(FileState(({"name": "a"}, {"name": "b"}), "7"),))

    newest = state.newest_files
    assert newest[file_key([{"name": "a"}, {"name": "b"}])] == "7"
    assert file_key([{"name": "b"}, {"name": "a"}]) not in newest
    assert file_key([{"name": "a"}]) not in newest
    assert file_key([{"name": "a", "match": "include"}, {"name": "b"}]) not in newest


@pytest.mark.parametrize("data", [b"", b" \n", b"{}", b"[]", b"null"])
def test_an_empty_state_file_clears_the_state(data: bytes) -> None:
    assert parse_state_file(data, path="out/state.json") == {}


@pytest.mark.parametrize("data", [b"{", b"5", b'"x"', b"[1]", b"true", b"\xff"])
def test_a_state_file_that_is_no_object_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"out/state\.json"):
        parse_state_file(data, path="out/state.json")


def test_a_state_file_may_be_yaml() -> None:
    data = b"since: 2022-06-03\nseen: {  }\n"

    assert parse_state_file(data, format="yaml", path="out/state.yml") == {
        "since": "2022-06-03",
        "seen": {},
    }


def test_usage_is_a_list_of_metrics_with_values() -> None:
    data = b'[{"metric": "kiloBytes", "value": 150}, {"metric": "rows", "value": 0}]'

    assert parse_usage(data) == [
        {"metric": "kiloBytes", "value": 150},
        {"metric": "rows", "value": 0},
    ]
    assert parse_usage(b"[]") == []
    assert parse_usage(b"- metric: rows\n  value: 1\n", format="yaml") == [
        {"metric": "rows", "value": 1}
    ]


@pytest.mark.scenario("mapping", 66)
@pytest.mark.scenario("runner", 186)
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b'[{"metric": "a", "value": 1, "random": 2}]',
            'Unrecognized option "random" under "usage.0". '
            'Available options are "metric", "value".',
        ),
        (
            b'[{"metric": "", "value": 1}]',
            'The path "usage.0.metric" cannot contain an empty value, but got "".',
        ),
        (
            b'[{"metric": "a", "value": null}]',
            'The path "usage.0.value" cannot contain an empty value, but got null.',
        ),
        (b'[{"value": 1}]', 'The child config "metric" under "usage.0" must be configured.'),
        (b"[", "Expecting value: line 1, column 2."),
    ],
)
def test_a_bad_usage_file_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_usage(data)
    assert caught.value.message == f"Failed to store Job usage: {message}"


def test_result_variables_are_scalars() -> None:
    data = b'{"variables": {"my_var": "hello", "count": 42, "none": null, "list": [], "map": {}}}'

    assert parse_result(data, path="out/result.json") == {
        "my_var": "hello",
        "count": 42,
        "none": None,
    }
    for empty in (b"{}", b"[]", b'{"variables": []}'):
        assert parse_result(empty, path="out/result.json") == {}


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b'{"variables": [1]}', b'{"variables": null}'])
def test_a_bad_result_file_is_named(data: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_result(data, path="out/result.json")
    assert caught.value.message == 'Failed to parse result.json file "out/result.json".'
