"""Mapping items: their rules with the texts of the contract, and what they come to mean."""

from __future__ import annotations

from typing import Any

import pytest

from vaka.errors import InvalidInput
from vaka.models.mapping import (
    INPUT_FILE,
    INPUT_TABLE,
    OUTPUT_TABLE,
    TABLE_MANIFEST_DEFAULTS,
    ColumnType,
    FileOptions,
    InputFile,
    InputTable,
    OutputFile,
    OutputTable,
    TagRule,
    table_files_options,
)

TABLE: dict[str, Any] = {"source": "in.c-main.t"}


def refusal(parse: Any, item: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        parse(item)
    return caught.value.message


@pytest.mark.scenario("mapping", 5)
def test_an_input_table_needs_a_source() -> None:
    assert refusal(InputTable.parse, {}) == 'The "source" must be configured.'
    assert refusal(InputTable.parse, {"source": ""}) == (
        'The path "table.source" cannot contain an empty value, but got "".'
    )


@pytest.mark.scenario("mapping", 6)
def test_where_operator_is_eq_or_ne() -> None:
    assert refusal(InputTable.parse, TABLE | {"where_operator": "abc"}) == (
        'Invalid configuration for path "table.where_operator": '
        'Invalid operator in where_operator "abc".'
    )
    for given, meant in (("", "eq"), (None, "eq"), ("eq", "eq"), ("ne", "ne")):
        assert InputTable.parse(TABLE | {"where_operator": given}).where_operator == meant


@pytest.mark.scenario("mapping", 7)
@pytest.mark.parametrize("column", [{}, {"where_column": ""}, {"where_column": "  "}])
def test_where_values_need_a_column(column: dict[str, str]) -> None:
    assert refusal(InputTable.parse, TABLE | {"where_values": ["v"]} | column) == (
        'When "where_values" is set, non-empty string in "where_column" must be provided.'
    )


@pytest.mark.scenario("mapping", 8)
@pytest.mark.parametrize("values", [{}, {"where_values": []}])
def test_a_where_column_needs_values(values: dict[str, Any]) -> None:
    assert refusal(InputTable.parse, TABLE | {"where_column": "col"} | values) == (
        'When "where_column" is set, "where_values" must be provided.'
    )


@pytest.mark.scenario("mapping", 9)
def test_an_empty_filter_is_no_filter() -> None:
    table = InputTable.parse(TABLE | {"where_column": "", "where_values": []})

    assert table.where_column is None
    assert table.where_values == ()


@pytest.mark.scenario("mapping", 10)
def test_days_and_changed_since_exclude_each_other() -> None:
    assert refusal(InputTable.parse, TABLE | {"days": 1, "changed_since": "-2 days"}) == (
        'Cannot set both parameters "days" and "changed_since".'
    )
    table = InputTable.parse(TABLE | {"days": 0, "changed_since": "-2 days"})
    assert (table.days, table.changed_since) == (0, "-2 days")


@pytest.mark.scenario("mapping", 11)
def test_null_days_and_changed_since_are_no_filter() -> None:
    table = InputTable.parse(TABLE | {"days": None, "changed_since": None})

    assert (table.days, table.changed_since, table.is_adaptive) == (0, "", False)


@pytest.mark.scenario("mapping", 12)
def test_columns_without_a_type_are_surplus() -> None:
    item = TABLE | {"columns": ["col2", "col1"], "column_types": [{"source": "col2"}]}

    assert refusal(InputTable.parse, item) == (
        'Both "columns" and "column_types" are specified, "columns" field contains surplus '
        'columns: "col1".'
    )


@pytest.mark.scenario("mapping", 13)
def test_column_types_without_a_column_are_surplus() -> None:
    types = [{"source": "col1"}, {"source": "col3"}, {"source": "col2"}]

    assert refusal(InputTable.parse, TABLE | {"columns": ["col1"], "column_types": types}) == (
        'Both "columns" and "column_types" are specified, "column_types" field contains surplus '
        'columns: "col3, col2".'
    )


@pytest.mark.scenario("mapping", 14)
def test_column_types_select_columns_in_their_order() -> None:
    item = TABLE | {"column_types": [{"source": "a", "length": 5}, {"source": "b", "length": ""}]}

    table = InputTable.parse(item)

    assert table.columns == ("a", "b")
    assert table.column_types[0] == ColumnType(source="a", length="5")
    assert table.column_types[1].length == ""


def test_columns_alone_have_a_type_each() -> None:
    table = InputTable.parse(TABLE | {"columns": ["b", 1]})

    assert table.columns == ("b", "1")
    assert table.column_types == (ColumnType("b"), ColumnType("1"))


@pytest.mark.scenario("mapping", 15)
def test_load_type_is_one_of_four_in_any_case() -> None:
    assert INPUT_TABLE.parse(TABLE | {"load_type": "view"}, "table")["load_type"] == "VIEW"
    assert refusal(InputTable.parse, TABLE | {"load_type": "INVALID"}) == (
        'The value "INVALID" is not allowed for path "table.load_type". '
        'Permissible values: "COPY", "CLONE", "VIEW", "AUTO".'
    )


@pytest.mark.scenario("mapping", 16)
def test_use_view_becomes_a_load_type_unless_there_is_one() -> None:
    view = INPUT_TABLE.parse(TABLE | {"use_view": True}, "table")
    copy = INPUT_TABLE.parse(TABLE | {"use_view": True, "load_type": "COPY"}, "table")
    neither = INPUT_TABLE.parse(TABLE | {"use_view": False}, "table")

    assert view["load_type"] == "VIEW"
    assert copy["load_type"] == "COPY"
    assert "load_type" not in neither
    assert all("use_view" not in item for item in (view, copy, neither))


@pytest.mark.scenario("mapping", 17)
def test_an_empty_file_type_is_none() -> None:
    assert "file_type" not in INPUT_TABLE.parse(TABLE | {"file_type": ""}, "table")
    assert InputTable.parse(TABLE | {"file_type": "parquet"}).file_type == "parquet"


def test_an_input_table_has_the_defaults_of_the_contract() -> None:
    assert INPUT_TABLE.parse(TABLE, "table") == {
        "source": "in.c-main.t",
        "columns": [],
        "column_types": [],
        "where_operator": "eq",
        "where_values": [],
        "overwrite": False,
        "keep_internal_timestamp_column": True,
    }
    assert InputTable.parse(TABLE) == InputTable(source="in.c-main.t")


def test_an_empty_destination_is_the_table_id() -> None:
    assert InputTable.parse(TABLE | {"destination": ""}).name == "in.c-main.t"
    assert InputTable.parse(TABLE | {"destination": "t.csv"}).name == "t.csv"
    assert InputTable.parse(TABLE | {"source_branch_id": None}).source_branch_id is None


@pytest.mark.parametrize("field", ["limit", "columns", "column_types", "days", "where_values"])
def test_a_number_and_a_list_are_not_mistaken_for_each_other(field: str) -> None:
    wrong = "5" if field in {"limit", "days"} else 5

    assert f'Invalid type for path "table.{field}".' in refusal(
        InputTable.parse, TABLE | {field: wrong}
    )


def test_a_null_limit_is_a_type_error() -> None:
    assert 'Expected "int", but got "null".' in refusal(InputTable.parse, TABLE | {"limit": None})


@pytest.mark.scenario("mapping", 18)
def test_an_input_file_needs_a_selector() -> None:
    assert refusal(InputFile.parse, {}) == (
        'Invalid configuration for path "file": At least one of "tags", "source.tags", "query" or '
        '"file_ids" parameters must be defined.'
    )


@pytest.mark.scenario("mapping", 19)
def test_empty_selectors_disappear() -> None:
    item = {"tags": [], "query": "name: x", "processed_tags": [], "file_ids": []}

    assert INPUT_FILE.parse(item, "file") == {"query": "name: x", "overwrite": True}
    assert "query" not in INPUT_FILE.parse({"tags": ["a"], "query": ""}, "file")


@pytest.mark.scenario("mapping", 20)
def test_tags_are_given_once() -> None:
    assert refusal(InputFile.parse, {"tags": ["a"], "source": {"tags": [{"name": "b"}]}}) == (
        'Invalid configuration for path "file": Both "tags" and "source.tags" cannot be defined.'
    )


@pytest.mark.scenario("mapping", 21)
def test_a_query_has_no_changed_since() -> None:
    assert refusal(InputFile.parse, {"query": "x", "changed_since": "-1 day"}) == (
        'Invalid configuration for path "file": '
        "The changed_since parameter is not supported for query configurations"
    )


@pytest.mark.scenario("mapping", 22)
def test_changed_since_of_files_is_a_moment_or_adaptive() -> None:
    assert refusal(InputFile.parse, {"tags": ["a"], "changed_since": "-1 light year"}) == (
        'Invalid configuration for path "file": '
        "The value provided for changed_since could not be converted to a timestamp"
    )
    assert InputFile.parse({"tags": ["a"], "changed_since": "adaptive"}).is_adaptive
    assert InputFile.parse({"tags": ["a"], "changed_since": 1700000000}).changed_since


@pytest.mark.scenario("mapping", 23)
@pytest.mark.parametrize(
    "other",
    [
        {"tags": ["a"]},
        {"query": "x"},
        {"limit": 5},
        {"changed_since": "-1 day"},
        {"source": {"tags": [{"name": "a"}]}},
    ],
)
def test_file_ids_stand_alone(other: dict[str, Any]) -> None:
    assert refusal(InputFile.parse, {"file_ids": ["1"]} | other) == (
        'Invalid configuration for path "file": '
        "The file_ids filter can be combined only with overwrite flag and processed_tags"
    )


@pytest.mark.scenario("mapping", 24)
def test_file_ids_go_with_overwrite_and_processed_tags() -> None:
    item = {"file_ids": ["123", 456], "overwrite": False, "processed_tags": ["done"]}

    assert INPUT_FILE.parse(item, "file") == item
    assert InputFile.parse(item).file_ids == ("123", "456")


@pytest.mark.scenario("mapping", 25)
def test_files_are_overwritten_by_default_and_tables_are_not() -> None:
    assert INPUT_FILE.parse({"tags": ["a"]}, "file")["overwrite"] is True
    assert INPUT_TABLE.parse(TABLE, "table")["overwrite"] is False


@pytest.mark.scenario("mapping", 26)
def test_a_source_tag_is_included_unless_it_says_otherwise() -> None:
    item = INPUT_FILE.parse({"source": {"tags": [{"name": "a"}]}}, "file")

    assert item["source"]["tags"] == [{"name": "a", "match": "include"}]
    assert refusal(InputFile.parse, {"source": {"tags": [{"name": "a", "match": "x"}]}}) == (
        'Invalid configuration for path "file.source.tags.0.match": '
        'Invalid match type ""x"", allowed values are: "include", "exclude".'
    )
    assert refusal(InputFile.parse, {"source": {"tags": [{"match": "include"}]}}) == (
        'The child config "name" under "file.source.tags.0" must be configured.'
    )


@pytest.mark.scenario("mapping", 27)
def test_filter_by_run_id_is_not_written_in_camel_case() -> None:
    assert refusal(InputFile.parse, {"tags": ["a"], "filterByRunId": True}).startswith(
        'Unrecognized option "filterByRunId" under "file".'
    )
    assert InputFile.parse({"tags": ["a"], "filter_by_run_id": True}).filter_by_run_id


def test_the_state_of_files_is_found_by_their_tags() -> None:
    plain = InputFile.parse({"tags": ["a", "b"]})
    matched = InputFile.parse({"source": {"tags": [{"name": "a", "match": "exclude"}]}})
    queried = InputFile.parse({"query": "x"})

    assert plain.state_tags == [{"name": "a"}, {"name": "b"}]
    assert matched.state_tags == [{"name": "a", "match": "exclude"}]
    assert matched.source_tags == (TagRule("a", "exclude"),)
    assert queried.state_tags == []


@pytest.mark.scenario("mapping", 28)
def test_an_output_table_needs_a_source_unless_access_is_granted_directly() -> None:
    assert refusal(OutputTable.parse, {"destination": "out.c-main.t"}) == (
        'The child config "source" under "table" must be configured.'
    )
    assert OutputTable.parse({"unload_strategy": "direct-grant"}).is_direct_grant


def out(**keys: Any) -> str:
    return refusal(OutputTable.parse, {"source": "t.csv"} | keys)


@pytest.mark.scenario("mapping", 29)
def test_delete_where_operator_is_eq_or_ne() -> None:
    assert out(delete_where_operator="abc") == (
        'Invalid configuration for path "table.delete_where_operator": '
        'Invalid operator in delete_where_operator "abc".'
    )


@pytest.mark.scenario("mapping", 30)
def test_a_delete_column_needs_values() -> None:
    assert out(delete_where_column="a") == (
        'Invalid configuration for path "table": When "delete_where_column" option is set, then '
        'the "delete_where_values" is required.'
    )


DELETE = [{"changed_since": "-1 day"}]


@pytest.mark.scenario("mapping", 31)
def test_rows_are_deleted_in_one_of_two_styles() -> None:
    assert out(delete_where_column="a", delete_where_values=["x"], delete_where=DELETE) == (
        'Invalid configuration for path "table": '
        'Only one of "delete_where_column" or "delete_where" can be defined.'
    )


@pytest.mark.scenario("mapping", 32)
def test_a_delete_condition_says_something() -> None:
    assert out(delete_where=[{}]) == (
        'Invalid configuration for path "table.delete_where.0": At least one of "changed_since", '
        '"changed_until", or "where_filters" must be defined.'
    )
    item = {"source": "t.csv", "delete_where": []}
    assert "delete_where" not in OUTPUT_TABLE.parse(item, "table")


FILTER = 'under "table.delete_where.0.where_filters.0'
IN_FILTER = 'Invalid configuration for path "table.delete_where.0.where_filters.0'
SOURCES = '"values_from_set", "values_from_workspace", or "values_from_storage"'


@pytest.mark.scenario("mapping", 33)
@pytest.mark.parametrize(
    ("filter_", "message"),
    [
        ({"values_from_set": ["a"]}, f'The child config "column" {FILTER}" must be configured.'),
        (
            {"column": "", "values_from_set": ["a"]},
            'The path "table.delete_where.0.where_filters.0.column" cannot contain an empty value, '
            'but got "".',
        ),
        (
            {"column": "c", "operator": "invalid", "values_from_set": ["a"]},
            f'{IN_FILTER}.operator": Invalid operator "invalid". Valid values are "eq" or "ne".',
        ),
        (
            {"column": "c", "values_from_set": ["a"], "values_from_workspace": {"table": "t"}},
            f'{IN_FILTER}": Only one of {SOURCES} can be defined.',
        ),
        ({"column": "c"}, f'{IN_FILTER}": One of {SOURCES} must be defined.'),
        (
            {"column": "c", "values_from_set": []},
            f'{IN_FILTER}": One of {SOURCES} must be defined.',
        ),
        (
            {"column": "c", "values_from_workspace": {}},
            f'The child config "table" {FILTER}.values_from_workspace" must be configured.',
        ),
        (
            {"column": "c", "values_from_storage": {"table": "t"}},
            f'The child config "bucket_id" {FILTER}.values_from_storage" must be configured.',
        ),
    ],
)
def test_a_delete_filter_has_a_column_an_operator_and_one_source_of_values(
    filter_: dict[str, Any], message: str
) -> None:
    assert out(delete_where=[{"where_filters": [filter_]}]) == message


def test_a_delete_filter_may_take_its_values_from_a_storage_table_as_far_as_the_schema_goes() -> (
    None
):
    values = {"bucket_id": "in.c-main", "table": "t", "column": "c"}
    item = {
        "source": "t",
        "delete_where": [{"where_filters": [{"column": "c", "values_from_storage": values}]}],
    }

    parsed = OUTPUT_TABLE.parse(item, "table")["delete_where"][0]["where_filters"][0]

    assert parsed == {"column": "c", "values_from_storage": values, "operator": "eq"}


@pytest.mark.scenario("mapping", 34)
def test_deduplication_strategy_is_insert_or_upsert() -> None:
    assert out(deduplication_strategy="explode") == (
        'The value "explode" is not allowed for path "table.deduplication_strategy". '
        'Permissible values: "insert", "upsert".'
    )


SCHEMA = [{"name": "id"}]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"columns": ["id"]},
            'Invalid configuration for path "table": '
            'Only one of "schema" or "columns" can be defined.',
        ),
        (
            {"metadata": [{"key": "a", "value": "b"}]},
            'Invalid configuration for path "table": '
            'Only one of "schema" or "metadata" can be defined.',
        ),
        (
            {"column_metadata": {"id": []}},
            'Invalid configuration for path "table": '
            'Only one of "schema" or "column_metadata" can be defined.',
        ),
        (
            {"primary_key": ["id"]},
            'Only one of "primary_key" or "schema[].primary_key" can be defined.',
        ),
        (
            {"distribution_key": ["id"]},
            'Only one of "distribution_key" or "schema[].distribution_key" can be defined.',
        ),
    ],
)
def test_a_schema_stands_for_the_keys_it_replaces(keys: dict[str, Any], message: str) -> None:
    assert out(schema=SCHEMA, **keys) == message


def test_rules_of_an_output_table_are_told_in_their_order() -> None:
    everything = {
        "delete_where_column": "a",
        "schema": SCHEMA,
        "columns": ["id"],
        "primary_key": ["id"],
        "delete_where": DELETE,
    }

    assert '"delete_where_values" is required' in out(**everything)
    everything["delete_where_values"] = ["x"]
    assert '"schema" or "columns"' in out(**everything)
    del everything["columns"]
    assert '"schema[].primary_key"' in out(**everything)
    del everything["primary_key"]
    assert '"delete_where_column" or "delete_where"' in out(**everything)


def test_a_description_is_given_once() -> None:
    assert out(description="d", table_metadata={"KBC.description": "e"}) == (
        'Invalid configuration for path "table": '
        'Only one of "description" or "table_metadata.KBC.description" can be defined.'
    )
    assert out(
        schema=[{"name": "a", "description": "d", "metadata": {"KBC.description": "e"}}]
    ) == (
        'Invalid configuration for path "table.schema.0": '
        'Only one of "description" or "metadata.KBC.description" can be defined.'
    )


@pytest.mark.parametrize(
    ("data_type", "message"),
    [
        (
            {},
            'The child config "base" under "table.schema.0.data_type" must be configured.',
        ),
        (
            {"base": {}},
            'The child config "type" under "table.schema.0.data_type.base" must be configured.',
        ),
        (
            {"base": {"type": "STRING"}, "unknown": {}},
            'Invalid configuration for path "table.schema.0.data_type": '
            'The "unknown" data type is not supported.',
        ),
        (
            {"base": {"type": "STRING"}, "snowflake": {"length": "1"}},
            'Invalid configuration for path "table.schema.0.data_type": '
            'The "type" is required for the "snowflake" data type.',
        ),
    ],
)
def test_a_data_type_is_complete_and_known(data_type: dict[str, Any], message: str) -> None:
    assert out(schema=[{"name": "id", "data_type": data_type}]) == message


def test_lengths_and_defaults_of_types_are_text() -> None:
    data_type = {"base": {"type": "NUMERIC", "length": 38, "default": 1.5},
                 "bigquery": {"type": "BOOL", "default": True}}  # fmt: skip

    item = OUTPUT_TABLE.parse(
        {"source": "t", "schema": [{"name": "id", "data_type": data_type}]}, "table"
    )["schema"][0]

    assert item == {
        "name": "id",
        "data_type": {
            "base": {"type": "NUMERIC", "length": "38", "default": "1.5"},
            "bigquery": {"type": "BOOL", "default": "true"},
        },
        "nullable": True,
        "primary_key": False,
        "distribution_key": False,
    }


def test_an_output_table_has_the_defaults_of_the_contract() -> None:
    table = OutputTable.parse({"source": "t.csv"})

    assert table.data == {"source": "t.csv", **TABLE_MANIFEST_DEFAULTS}
    assert (table.source, table.destination, table.write_always) == ("t.csv", None, False)
    assert TABLE_MANIFEST_DEFAULTS == {
        "incremental": False,
        "primary_key": [],
        "columns": [],
        "distribution_key": [],
        "delete_where_values": [],
        "delete_where_operator": "eq",
        "delimiter": ",",
        "enclosure": '"',
        "metadata": [],
        "column_metadata": {},
        "write_always": False,
        "tags": [],
        "schema": [],
    }


@pytest.mark.scenario("mapping", 155)
def test_a_key_that_is_no_list_and_a_flag_that_is_a_number_are_type_errors() -> None:
    assert out(primary_key="col1") == (
        'Invalid type for path "table.primary_key". Expected "array", but got "string".'
    )
    assert out(incremental=1) == (
        'Invalid type for path "table.incremental". Expected "bool", but got "int".'
    )


def test_empty_keys_and_tags_are_told_apart() -> None:
    assert OutputTable.parse({"source": "t", "primary_key": [""]}).data["primary_key"] == [""]
    assert 'path "table.distribution_key.0" cannot contain' in out(distribution_key=[""])
    assert 'path "table.tags.0" cannot contain' in out(tags=[""])


def test_column_metadata_may_come_as_a_list_when_columns_are_numbers() -> None:
    metadata = [[{"key": "a", "value": "b"}], []]

    data = OutputTable.parse({"source": "t", "column_metadata": metadata}).data

    assert data["column_metadata"] == {"0": [{"key": "a", "value": "b"}], "1": []}


def test_names_of_columns_keep_their_hyphens() -> None:
    data = OutputTable.parse({"source": "t", "column_metadata": {"a-b": []}}).data

    assert data["column_metadata"] == {"a-b": []}


def test_an_output_file_has_options_and_a_source() -> None:
    file = OutputFile.parse({"source": "a.png", "tags": ["x", "y", "x", 1], "is_permanent": True})

    assert file == OutputFile("a.png", FileOptions(tags=("x", "y", "1"), is_permanent=True))
    assert OutputFile.parse({"source": "a"}).options == FileOptions()
    assert refusal(OutputFile.parse, {}) == (
        'The child config "source" under "file" must be configured.'
    )
    assert refusal(OutputFile.parse, {"source": "a", "is_sliced": True}).startswith(
        'Unrecognized option "is_sliced" under "file".'
    )


def test_tables_that_are_stored_as_files_are_permanent_by_default() -> None:
    assert table_files_options(None) == FileOptions(is_permanent=True)
    with pytest.raises(InvalidInput, match=r'path "tableFile\.is_permanent"'):
        table_files_options({"is_permanent": "yes"})


@pytest.mark.parametrize("parse", [InputTable.parse, InputFile.parse, OutputTable.parse])
@pytest.mark.parametrize("item", ["x", 5, True, ["a"]])
def test_an_item_that_is_no_object_is_refused(parse: Any, item: Any) -> None:
    assert refusal(parse, item)
