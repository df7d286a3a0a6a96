from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaka.errors import MappingFailed
from vaka.mapping.manifests import (
    check_columns,
    destination,
    key_columns,
    merge,
    sanitised,
    with_sanitised_columns,
)
from vaka.models.mapping import TABLE_MANIFEST, OutputTable


def merged(manifest: dict[str, Any] | None, item: dict[str, Any] | None) -> dict[str, Any]:
    return merge(
        "t.csv",
        None if manifest is None else TABLE_MANIFEST.parse(manifest, "table"),
        None if item is None else OutputTable.parse({"source": "t.csv", **item}).data,
    )


# -- names of columns ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("_~dlažební  %_kostky_~", "dlazebni__kostky"),
        ("test-vn-đá cuội", "test_vn_da_cuoi"),
        ("    webalize spaces  ", "webalize_spaces"),
        ("__test__", "test"),
        ("test@domain.com", "test_domain_com"),
        ("_", ""),
        ("   ", ""),
        ("123", "123"),
        ("0", "0"),
        ("OID", "OID_"),
        ("xMin", "xMin_"),
        ("emoji 😀 name", "emoji_name"),
        ("ěščřžýáíéúů", "escrzyaieuu"),
        ("Straße Ægir łódź ﬁn ½", "Strasse_AEgir_lodz_fin_1_2"),
        ("_timestamp", "_timestamp"),
        ("_TimeStamp", "_TimeStamp"),
        ("日本", ""),
    ],
)
def test_column_names_become_what_tables_can_have(name: str, expected: str) -> None:
    assert sanitised(name) == expected


@given(st.text())
def test_a_sanitised_name_has_plain_letters_and_stays_as_it_is(name: str) -> None:
    once = sanitised(name)
    assert once.isascii()
    assert all(letter.isalnum() or letter == "_" for letter in once)
    assert sanitised(once) == once


def test_names_are_sanitised_wherever_columns_are_named() -> None:
    data = merged(
        {
            "columns": ["a b", "c"],
            "primary_key": ["a b", "", "c "],
            "column_metadata": {"a b": [{"key": "k", "value": "1"}], "a-b": [{"key": "l"}]},
            "delete_where_column": "a b",
            "delete_where_values": ["x"],
        },
        None,
    )
    changes: dict[str, str] = {}
    result = with_sanitised_columns(data, changes)
    assert result["columns"] == ["a_b", "c"]
    assert result["primary_key"] == ["a_b", "", "c"]
    assert list(result["column_metadata"]) == ["a_b"]
    assert [entry["key"] for entry in result["column_metadata"]["a_b"]] == ["k", "l"]
    assert result["delete_where_column"] == "a b"
    assert changes == {"a b": "a_b", "a-b": "a_b", "c ": "c"}
    schema = with_sanitised_columns(merged({"schema": [{"name": "ž"}]}, None), changes)
    assert [column["name"] for column in schema["schema"]] == ["z"]


# -- merging ---------------------------------------------------------------------------------------


def test_without_manifest_and_mapping_everything_is_the_default() -> None:
    assert merged(None, None) == merged({}, None) == merged(None, {}) == merged({}, {})
    assert merged(None, None)["incremental"] is False


@pytest.mark.scenario("mapping", 189)
@pytest.mark.parametrize(
    ("key", "manifest", "item", "expected"),
    [
        ("delimiter", ":", ",", ":"),
        ("delimiter", ":", "|", "|"),
        ("delimiter", ",", "|", "|"),
        ("enclosure", "'", '"', "'"),
        ("incremental", True, False, True),
        ("incremental", False, True, True),
        ("delete_where_operator", "ne", "eq", "ne"),
    ],
)
def test_a_default_in_the_mapping_does_not_override(
    key: str, manifest: object, item: object, expected: object
) -> None:
    assert merged({key: manifest}, {key: item})[key] == expected


@pytest.mark.scenario("mapping", 190)
def test_the_mapping_cannot_switch_incremental_off() -> None:
    assert merged({"incremental": True}, {"incremental": False})["incremental"] is True


@pytest.mark.parametrize(
    ("key", "manifest", "item", "expected"),
    [
        ("columns", ["a"], [], ["a"]),
        ("columns", ["a"], ["b"], ["b"]),
        ("write_always", True, False, True),
        ("write_always", False, True, True),
        ("has_header", True, False, True),
        ("description", "mine", "", "mine"),
        ("description", "mine", "theirs", "theirs"),
        ("tags", ["a"], ["b"], ["b"]),
        ("deduplication_strategy", "insert", "upsert", "upsert"),
    ],
)
def test_other_keys_of_the_mapping_win_when_they_say_something(
    key: str, manifest: object, item: object, expected: object
) -> None:
    assert merged({key: manifest}, {key: item})[key] == expected


@pytest.mark.scenario("mapping", 163)
def test_the_key_of_a_mapping_item_replaces_the_manifests() -> None:
    assert merged({"primary_key": ["Id"]}, None)["primary_key"] == ["Id"]
    assert merged({"primary_key": ["Id"]}, {})["primary_key"] == []
    assert merged({"primary_key": ["Id", "Name"]}, {"primary_key": ["Id"]})["primary_key"] == ["Id"]


def pairs(**values: str) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


@pytest.mark.scenario("mapping", 206)
def test_metadata_of_both_are_joined_and_the_mapping_wins() -> None:
    result = merged(
        {
            "metadata": pairs(a="1", b="2"),
            "column_metadata": {"x": pairs(a="1"), "y": pairs(b="2")},
        },
        {
            "metadata": pairs(b="3", c="4"),
            "column_metadata": {"z": pairs(c="4"), "x": pairs(a="5", d="6")},
        },
    )
    assert result["metadata"] == pairs(a="1", b="3", c="4")
    assert result["column_metadata"] == {
        "x": pairs(a="5", d="6"),
        "y": pairs(b="2"),
        "z": pairs(c="4"),
    }
    tables = merged({"table_metadata": {"a": 1, "b": 2}}, {"table_metadata": {"b": 3}})
    assert tables["table_metadata"] == {"a": 1, "b": 3}


def test_a_schema_of_both_is_joined_by_name_in_the_manifests_order() -> None:
    base = {"base": {"type": "STRING"}}
    result = merged(
        {
            "schema": [
                {"name": "a", "data_type": base, "metadata": {"k": "1"}},
                {"name": "b"},
            ]
        },
        {
            "schema": [
                {"name": "c"},
                {
                    "name": "a",
                    "data_type": {"base": {"type": "DATE"}, "snowflake": {"type": "DATE"}},
                    "metadata": {"l": "2"},
                    "nullable": False,
                },
            ]
        },
    )["schema"]
    assert [column["name"] for column in result] == ["a", "b", "c"]
    assert result[0]["data_type"] == {"base": {"type": "DATE"}, "snowflake": {"type": "DATE"}}
    assert result[0]["metadata"] == {"k": "1", "l": "2"}
    assert result[0]["nullable"] is False


@pytest.mark.scenario("mapping", 215)
def test_a_key_in_the_mapping_marks_the_columns_of_a_schema() -> None:
    schema = [{"name": "Id"}, {"name": "Name", "primary_key": True}, {"name": "x"}]
    result = merged({"schema": schema}, {"primary_key": ["Id"]})
    assert [column["primary_key"] for column in result["schema"]] == [True, True, False]
    assert result["primary_key"] == []
    with pytest.raises(MappingFailed) as caught:
        merged({"schema": schema}, {"primary_key": ["Name2"]})
    assert caught.value.message == 'Primary key column "Name2" not found in manifest file.'


@pytest.mark.scenario("mapping", 214)
@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"columns": ["a"]}, 'Only one of "schema" or "columns" can be defined.'),
        ({"metadata": pairs(a="1")}, 'Only one of "schema" or "metadata" can be defined.'),
        (
            {"column_metadata": {"a": pairs(a="1")}},
            'Only one of "schema" or "column_metadata" can be defined.',
        ),
        (
            {"distribution_key": ["a"]},
            'Only one of "distribution_key" or "schema[].distribution_key" can be defined.',
        ),
    ],
)
def test_what_contradicts_only_together_is_refused(item: dict[str, Any], message: str) -> None:
    with pytest.raises(MappingFailed) as caught:
        merged({"schema": [{"name": "a"}]}, item)
    assert caught.value.message.startswith(
        "Failed to prepare mapping configuration for table t.csv: "
    )
    assert caught.value.message.endswith(message)


# -- destinations ----------------------------------------------------------------------------------

BUCKET = "out.c-b"


@pytest.mark.parametrize(
    ("source", "item", "manifest", "bucket", "expected"),
    [
        pytest.param("table.csv", "out.c-b.tableA", None, None, "out.c-b.tableA", id="134"),
        pytest.param("table.csv", None, "out.c-b.tableA", None, "out.c-b.tableA", id="135"),
        pytest.param("table.csv", None, "tableA", BUCKET, "out.c-b.tableA", id="136"),
        pytest.param("table.csv", None, None, BUCKET, "out.c-b.table", id="138"),
        pytest.param(
            "table.csv", "out.c-b.mine", "out.c-b.other", BUCKET, "out.c-b.mine", id="139"
        ),
        pytest.param("table43.csv", None, None, BUCKET, "out.c-b.table43", id="143"),
        pytest.param("table", None, "", BUCKET, "out.c-b.table", id="no suffix"),
        pytest.param("table.CSV", None, None, "out.c-b", "", id="upper case suffix"),
        pytest.param("a.gz", None, None, BUCKET, "", id="another suffix"),
    ],
)
def test_destinations(
    source: str, item: str | None, manifest: str | None, bucket: str | None, expected: str
) -> None:
    if expected:
        assert destination(source, item, manifest, bucket) == (expected, None)
        return
    with pytest.raises(MappingFailed) as caught:
        destination(source, item, manifest, bucket)
    assert caught.value.message == (
        f'Failed to resolve valid destination. "{bucket}.{source}" is not a valid table ID.'
    )


@pytest.mark.scenario("mapping", 140)
@pytest.mark.scenario("mapping", 141)
@pytest.mark.scenario("mapping", 143)
@pytest.mark.scenario("mapping", 144)
@pytest.mark.parametrize(
    ("source", "item", "manifest", "bucket"),
    [
        ("table.csv", "table", None, None),
        ("table.csv", "table", None, BUCKET),
        ("table.csv", None, "table", None),
        ("table51.csv", None, None, None),
        ("table.csv", "out.c-b.a.b", None, BUCKET),
    ],
)
def test_destinations_that_cannot_be_resolved(
    source: str, item: str | None, manifest: str | None, bucket: str | None
) -> None:
    with pytest.raises(MappingFailed) as caught:
        destination(source, item, manifest, bucket)
    assert caught.value.message == f'Failed to resolve destination for output table "{source}".'


@pytest.mark.scenario("mapping", 142)
@pytest.mark.parametrize("bucket", [None, BUCKET])
def test_a_file_named_like_a_table_is_taken_for_it_with_a_warning(bucket: str | None) -> None:
    target, warning = destination("out.c-b.table41.csv", None, None, bucket)
    assert target == "out.c-b.table41"
    assert warning == (
        'Source table "out.c-b.table41.csv" has neither manifest file nor mapping set, falling back '
        "to the source name as a destination.This behaviour was DEPRECATED and will be removed in "
        "the future."
    )


# -- keys and columns ------------------------------------------------------------------------------


def test_keys_lose_empty_and_repeated_names() -> None:
    warnings: list[str] = []
    assert key_columns(["Id ", "Name", "Id", "Name"], warnings) == ("Id", "Name")
    assert warnings == []
    assert key_columns(["", ""], warnings) == ()
    assert warnings == ["Found empty column name in key array."]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"columns": ["Id", "_timestamp"]}, 'System columns "_timestamp"'),
        ({"columns": ["_TIMESTAMP"]}, 'System columns "_TIMESTAMP"'),
        ({"column_metadata": {"_timestamp": []}}, 'Metadata for system columns "_timestamp"'),
        ({"schema": [{"name": "_timestamp"}]}, 'Schema for system columns "_timestamp"'),
    ],
)
def test_columns_that_every_table_has_are_refused(data: dict[str, Any], expected: str) -> None:
    with pytest.raises(MappingFailed) as caught:
        check_columns("table1a.csv", merged(data, None))
    assert caught.value.message == (
        f"Failed to process mapping for table table1a.csv: {expected} cannot be imported to the "
        "table."
    )
