"""Manifests: read from components with the contract's texts, written for them key by key."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from vaka.errors import InvalidInput
from vaka.models.manifest import (
    dumps_manifest,
    input_file_manifest,
    input_table_manifest,
    parse_file_manifest,
    parse_table_manifest,
)
from vaka.models.mapping import TABLE_MANIFEST_DEFAULTS, FileOptions
from vaka.models.storage import FileDetail, MetadataEntry, TableDetail

PATH = "/data/out/tables/t.csv.manifest"
WHEN = datetime(2022, 6, 3, 1, 31, 43, 999, timezone(timedelta(hours=2)))
ENTRY = MetadataEntry("7", "KBC.x", "y", "system", WHEN)
ENTRY_JSON = {
    "id": "7",
    "key": "KBC.x",
    "value": "y",
    "provider": "system",
    "timestamp": "2022-06-03T01:31:43+0200",
}
TABLE = TableDetail(
    id="in.c-main.t",
    bucket="in.c-main",
    name="t",
    columns=("Id", "foo", "bar"),
    primary_key=("Id",),
    created=WHEN,
    uri="https://storage.example/v2/storage/tables/in.c-main.t",
    last_import_date=WHEN,
    metadata=(ENTRY,),
    column_metadata={"foo": (ENTRY,)},
)


def refusal(data: bytes, kind: Any = "json") -> str:
    with pytest.raises(InvalidInput) as caught:
        parse_table_manifest(data, format=kind, path=PATH)
    return caught.value.message


@pytest.mark.parametrize(("data", "kind"), [(b"{}", "json"), (b"[]", "json"), (b"{  }", "yaml")])
def test_an_empty_manifest_is_all_defaults(data: bytes, kind: Any) -> None:
    assert parse_table_manifest(data, format=kind, path=PATH) == TABLE_MANIFEST_DEFAULTS


@pytest.mark.scenario("mapping", 153)
def test_a_broken_manifest_is_named_with_its_fault() -> None:
    assert refusal(b"{") == (
        f'Failed to parse manifest file "{PATH}" as "json": '
        "Expecting property name enclosed in double quotes: line 1, column 2."
    )
    assert refusal(b"a: b: c", "yaml").startswith(
        f'Failed to parse manifest file "{PATH}" as "yaml": mapping values are not allowed'
    )
    assert refusal(b'{"primary_key": "Id"}') == (
        f'Failed to parse manifest file "{PATH}" as "json": '
        'Invalid type for path "table.primary_key". Expected "array", but got "string".'
    )


@pytest.mark.scenario("mapping", 154)
def test_a_manifest_has_no_unknown_key() -> None:
    assert 'Unrecognized option "wrongParam" under "table".' in refusal(b'{"wrongParam": 1}')
    assert 'Unrecognized option "source" under "table".' in refusal(b'{"source": "t.csv"}')


def test_a_manifest_in_yaml_says_the_same() -> None:
    data = b"destination: out.c-main.t\nincremental: true\ncolumns:\n    - Id\n    - '2'\n"

    manifest = parse_table_manifest(data, format="yaml", path=PATH)

    assert manifest["destination"] == "out.c-main.t"
    assert manifest["incremental"] is True
    assert manifest["columns"] == ["Id", "2"]


def test_what_component_libraries_write_is_accepted() -> None:
    legacy = {
        "destination": "out.c-main.t", "columns": ["id"], "primary_key": ["id"], "incremental": True,
        "delimiter": ",", "enclosure": '"', "metadata": [{"key": "a", "value": "b"}],
        "column_metadata": {"id": [{"key": "KBC.datatype.basetype", "value": "STRING"}]},
        "write_always": False, "delete_where_column": "", "delete_where_values": [],
        "delete_where_operator": "eq", "manifest_type": "out", "has_header": True,
    }  # fmt: skip
    native = {
        "destination": "out.c-main.t", "manifest_type": "out", "has_header": True,
        "description": "d", "table_metadata": {"a": "b"}, "delete_where_values": [],
        "schema": [{"name": "id", "data_type": {"base": {"type": "STRING", "length": "5"}},
                    "nullable": False, "primary_key": True, "metadata": {"x": "y"}}],
    }  # fmt: skip

    for document in (legacy, native):
        assert parse_table_manifest(json.dumps(document).encode(), path=PATH)["has_header"] is True


def test_a_file_manifest_gives_options() -> None:
    data = b'{"tags": ["a", "b"], "is_public": true, "is_permanent": true, "notify": true}'

    assert parse_file_manifest(data, path=PATH) == FileOptions(
        tags=("a", "b"), is_public=True, is_permanent=True, is_encrypted=True, notify=True
    )
    with pytest.raises(InvalidInput, match='"is_sliced" under "file"'):
        parse_file_manifest(b'{"is_sliced": true}', path=PATH)


def test_an_input_table_manifest_has_its_keys_in_order() -> None:
    assert list(input_table_manifest(TABLE).items()) == [
        ("id", "in.c-main.t"),
        ("uri", "https://storage.example/v2/storage/tables/in.c-main.t"),
        ("name", "t"),
        ("primary_key", ["Id"]),
        ("distribution_key", []),
        ("created", "2022-06-03T01:31:43+0200"),
        ("last_change_date", None),
        ("last_import_date", "2022-06-03T01:31:43+0200"),
        ("columns", ["Id", "foo", "bar"]),
        ("metadata", [ENTRY_JSON]),
        ("column_metadata", {"Id": [], "foo": [ENTRY_JSON], "bar": []}),
        ("schema", []),
    ]


def test_an_input_table_manifest_speaks_of_the_selected_columns_only() -> None:
    manifest = input_table_manifest(TABLE, columns=["bar", "Id"])

    assert manifest["columns"] == ["bar", "Id"]
    assert manifest["column_metadata"] == {"bar": [], "Id": []}


@pytest.mark.scenario("mapping", 90)
def test_a_description_is_written_when_there_is_one() -> None:
    described = TableDetail(
        id="in.c-main.t", bucket="in.c-main", name="t", columns=(), primary_key=(), created=WHEN,
        description="what it is",
    )  # fmt: skip

    manifest = input_table_manifest(described, staging={"s3": {"isSliced": False}})

    assert "description" not in input_table_manifest(TABLE)
    assert list(manifest)[7:11] == ["last_import_date", "description", "s3", "columns"]
    assert manifest["column_metadata"] == []


@pytest.mark.scenario("mapping", 121)
def test_an_input_file_manifest_has_its_nine_keys_in_order() -> None:
    file = FileDetail(id=12, name="a.png", created=WHEN.astimezone(UTC), size_bytes=3, tags=("t",))

    assert list(input_file_manifest(file).items()) == [
        ("id", 12),
        ("name", "a.png"),
        ("created", "2022-06-02T23:31:43+0000"),
        ("is_public", False),
        ("is_encrypted", False),
        ("is_sliced", False),
        ("tags", ["t"]),
        ("max_age_days", 0),
        ("size_bytes", 3),
    ]


@pytest.mark.scenario("mapping", 88)
def test_manifests_are_written_in_both_formats() -> None:
    manifest = input_table_manifest(TABLE, columns=["Id"])

    assert dumps_manifest(manifest).startswith(
        b'{\n    "id": "in.c-main.t",\n    "uri": "https:\\/\\/'
    )
    assert b"distribution_key: {  }\n" in dumps_manifest(manifest, "yaml")
