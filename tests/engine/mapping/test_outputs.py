import gzip
import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import trio
from tests.engine.mapping.conftest import CONTEXT, SCOPE, Desk, Watched, csv_of, values

from vaka.errors import ApplicationError, Conflict, InvalidInput, MappingFailed, UserError
from vaka.mapping import OutputContext, preparing
from vaka.models.component import ComponentDefinition
from vaka.models.configuration import JobConfiguration
from vaka.models.mapping import InputFile
from vaka.models.storage import FileQuery, LoadResult, TableLoad

TABLE = "out.c-b.table"
ROWS = [("aabb", "test"), ("test", "test")]
HEADER = ("Id", "Name")
CSV = csv_of([HEADER, *ROWS])
IN_BUCKET = replace(CONTEXT, default_bucket="out.c-b")


def manifest(**data: Any) -> str:
    return json.dumps(data)


# -- from folder to table --------------------------------------------------------------------------


@pytest.mark.scenario("mapping", 134)
@pytest.mark.scenario("mapping", 159)
async def test_a_mapped_file_becomes_a_table_and_replaces_it_next_time(desk: Desk) -> None:
    desk.write("tables/table.csv", CSV)
    item = {"source": "table.csv", "destination": TABLE}

    outputs = await desk.store(item)

    assert await desk.rows(TABLE) == sorted(ROWS)
    assert outputs.errors == ()
    assert [table.to_json() for table in outputs.tables] == [
        {
            "id": TABLE,
            "name": "table",
            "displayName": "table",
            "columns": [{"name": "Id"}, {"name": "Name"}],
            "metrics": [{"name": "importedRowsCount", "value": 2}],
        }
    ]
    assert (outputs.rows, outputs.bytes) == (2, len(CSV))
    assert 'Loading table "table.csv"' in desk.reports.lines
    (event,) = desk.reports.events("output.table")
    assert (event["table"], event["rows"], event["created"]) == (TABLE, 2, True)

    desk.write("tables/table.csv", csv_of([HEADER, ("x", "y")]))
    await desk.store(item, key="job-2-0")
    assert await desk.rows(TABLE) == [("x", "y")]


async def test_manifests_are_checked_in_a_thread_so_that_nobody_else_waits(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    where: list[bool] = []
    for kind in ("table", "file"):
        parse = getattr(preparing, f"parse_{kind}_manifest")

        def seen(*given: Any, parse: Any = parse, **options: Any) -> Any:
            where.append(threading.current_thread() is threading.main_thread())
            return parse(*given, **options)

        monkeypatch.setattr(preparing, f"parse_{kind}_manifest", seen)
    desk.write("tables/table.csv", CSV)
    desk.write("tables/table.csv.manifest", manifest(destination=TABLE))
    desk.write("files/a", "a")
    desk.write("files/a.manifest", manifest(is_permanent=True))

    await desk.store()

    assert where == [False, False]


@pytest.mark.scenario("mapping", 135)
@pytest.mark.scenario("mapping", 136)
@pytest.mark.scenario("mapping", 137)
@pytest.mark.scenario("mapping", 138)
@pytest.mark.scenario("mapping", 139)
@pytest.mark.scenario("mapping", 142)
@pytest.mark.scenario("mapping", 151)
@pytest.mark.parametrize(
    ("name", "manifest_", "item", "context", "expected"),
    [
        ("table.csv", {"destination": "out.c-b.tableA"}, None, CONTEXT, "out.c-b.tableA"),
        ("table.csv", {"destination": "tableA"}, None, IN_BUCKET, "out.c-b.tableA"),
        ("table.csv", {"columns": ["x", "y"]}, None, IN_BUCKET, TABLE),
        ("table.csv", {}, None, IN_BUCKET, TABLE),
        (
            "table.csv",
            {"destination": "out.c-b.theirs"},
            {"destination": "out.c-b.mine"},
            CONTEXT,
            "out.c-b.mine",
        ),
        ("out.c-b.table41.csv", None, None, CONTEXT, "out.c-b.table41"),
        ("table31", None, {"destination": "out.c-b.t31"}, CONTEXT, "out.c-b.t31"),
    ],
)
async def test_where_a_table_goes(
    desk: Desk,
    name: str,
    manifest_: dict[str, Any] | None,
    item: dict[str, Any] | None,
    context: OutputContext,
    expected: str,
) -> None:
    desk.write(f"tables/{name}", CSV)
    if manifest_ is not None:
        desk.write(f"tables/{name}.manifest", manifest(**manifest_))
    items = [] if item is None else [{"source": name, **item}]
    outputs = await desk.store(*items, context=context)
    assert [table.id for table in outputs.tables] == [expected]
    assert await desk.has_table(expected)


@pytest.mark.scenario("mapping", 145)
@pytest.mark.parametrize(("stage", "name"), [("in", "sliced"), ("out", "sliced.csv")])
async def test_the_default_bucket_is_named_after_component_and_configuration(
    desk: Desk, stage: Any, name: str
) -> None:
    component = ComponentDefinition(
        id="keboola.docker-demo-sync", uri="x", default_bucket=True, default_bucket_stage=stage
    )
    bucket = component.default_bucket_id("runner-configuration")
    desk.write(f"tables/{name}", CSV)
    outputs = await desk.store(context=replace(CONTEXT, default_bucket=bucket))
    assert [table.id for table in outputs.tables] == [
        f"{stage}.c-keboola-docker-demo-sync-runner-configuration.sliced"
    ]
    assert f"Default bucket {bucket}" in desk.reports.lines


@pytest.mark.scenario("mapping", 147)
async def test_a_configuration_has_a_default_bucket_of_its_own(desk: Desk) -> None:
    configuration = JobConfiguration.parse(
        {"storage": {"output": {"default_bucket": "in.c-custom-bucket"}}}
    )
    desk.write("tables/t.csv", CSV)
    context = replace(CONTEXT, default_bucket=configuration.default_bucket)
    outputs = await desk.store(context=context)
    assert [table.id for table in outputs.tables] == ["in.c-custom-bucket.t"]


@pytest.mark.scenario("mapping", 148)
@pytest.mark.scenario("mapping", 149)
@pytest.mark.scenario("mapping", 152)
@pytest.mark.scenario("mapping", 153)
@pytest.mark.scenario("mapping", 154)
@pytest.mark.scenario("mapping", 180)
@pytest.mark.scenario("mapping", 194)
@pytest.mark.parametrize(
    ("files", "items", "message"),
    [
        (
            {},
            [{"source": "table81.csv", "destination": TABLE}],
            'Table sources not found: "table81.csv"',
        ),
        (
            {},
            [{"source": "a.csv", "destination": TABLE}, {"source": "b.csv", "destination": TABLE}],
            'Table sources not found: "a.csv", "b.csv"',
        ),
        (
            {"table.csv.manifest": "{}", "other.manifest": "{}"},
            [],
            'Found orphaned table manifest: "other.manifest", "table.csv.manifest"',
        ),
        (
            {"extra.csv": CSV},
            [],
            'Failed to resolve destination for output table "extra.csv".',
        ),
        (
            {"t.csv": CSV, "t.csv.manifest": "{nonsense"},
            [],
            'Failed to parse manifest file "/data/out/tables/t.csv.manifest" as "json": ',
        ),
        (
            {"t.csv": CSV, "t.csv.manifest": '{"primary_key": "Id"}'},
            [],
            'Failed to parse manifest file "/data/out/tables/t.csv.manifest" as "json": '
            'Invalid type for path "table.primary_key"',
        ),
        (
            {"t.csv": CSV, "t.csv.manifest": '{"wrongParam": 1}'},
            [],
            'Failed to parse manifest file "/data/out/tables/t.csv.manifest" as "json": '
            'Unrecognized option "wrongParam" under "table"',
        ),
        (
            {"table1a.csv": CSV, "table1a.csv.manifest": '{"columns": ["Id", "_timestamp"]}'},
            [{"source": "table1a.csv", "destination": TABLE}],
            'Failed to process mapping for table table1a.csv: System columns "_timestamp" cannot be '
            "imported to the table.",
        ),
        (
            {"sliced/part": ""},
            [{"source": "sliced", "destination": TABLE}],
            'Sliced file "sliced" columns specification missing.',
        ),
    ],
)
async def test_outputs_that_cannot_be_stored_fail_before_anything_is(
    desk: Desk, files: dict[str, str], items: list[dict[str, Any]], message: str
) -> None:
    desk.write("tables/good.csv", CSV)
    desk.write("files/good", "content")
    for name, content in files.items():
        desk.write(f"tables/{name}", content)
    with pytest.raises((MappingFailed, InvalidInput)) as caught:
        await desk.store({"source": "good.csv", "destination": "out.c-b.good"}, *items)
    assert caught.value.message.startswith(message)
    assert not await desk.has_table("out.c-b.good")
    assert await desk.backend.files.list_files(SCOPE, FileQuery()) == []


async def test_one_source_goes_to_several_destinations(desk: Desk) -> None:
    desk.write("tables/t.csv", CSV)
    await desk.store(
        {"source": "t.csv", "destination": "out.c-b.one"},
        {"source": "t.csv", "destination": "out.c-b.two"},
    )
    assert await desk.rows("out.c-b.one") == await desk.rows("out.c-b.two") == sorted(ROWS)


async def test_hidden_files_are_not_outputs(desk: Desk) -> None:
    desk.write("tables/.DS_Store", "x")
    desk.write("files/.DS_Store", "x")
    outputs = await desk.store()
    assert (outputs.tables, outputs.files) == ((), ())


@pytest.mark.scenario("mapping", 238)
async def test_a_load_that_storage_does_not_begin_is_told_with_its_table(desk: Desk) -> None:
    desk.write("tables/a b?.csv", CSV)
    desk.write("tables/bad.csv", "")
    desk.write("tables/good.csv", CSV)
    with pytest.raises(MappingFailed) as caught:
        await desk.store(context=IN_BUCKET)
    refused, failed = caught.value.message.split("\n")
    assert refused.startswith('Invalid table name "a b?": ')
    assert refused.endswith(" [out.c-b.a b?]")
    assert failed.startswith('Failed to load table "out.c-b.bad": ')
    assert await desk.has_table("out.c-b.good")


# -- content ---------------------------------------------------------------------------------------


@pytest.mark.scenario("mapping", 160)
async def test_delimiter_and_enclosure_are_those_of_the_manifest(desk: Desk) -> None:
    desk.write("tables/t.csv", "'Id'\t'Name'\n'1'\t'test''s'\n")
    for delimiter in ("\t", "\\t"):
        desk.write("tables/t.csv.manifest", manifest(delimiter=delimiter, enclosure="'"))
        await desk.store({"source": "t.csv", "destination": TABLE}, key=f"job-{len(delimiter)}")
        assert await desk.rows(TABLE) == [("1", "test's")]


@pytest.mark.scenario("mapping", 161)
async def test_rows_are_deleted_before_an_incremental_load(desk: Desk) -> None:
    desk.write("tables/t.csv", CSV)
    item = {
        "source": "t.csv",
        "destination": TABLE,
        "incremental": True,
        "delete_where_column": "Id",
        "delete_where_values": ["aabb"],
    }
    await desk.store(item, key="job-1")
    await desk.store(item, key="job-2")
    assert [row[0] for row in await desk.rows(TABLE)] == ["aabb", "test", "test"]


@pytest.mark.scenario("mapping", 184)
@pytest.mark.scenario("mapping", 185)
async def test_elements_of_delete_where_delete_by_themselves(desk: Desk) -> None:
    desk.write("tables/t.csv", csv_of([HEADER, ("new", "new")]))
    item = {
        "source": "t.csv",
        "destination": TABLE,
        "incremental": True,
        "delete_where": [
            {
                "where_filters": [
                    {"column": "Id", "values_from_set": ["1", "2"]},
                    {"column": "Name", "operator": "ne", "values_from_set": ["keep"]},
                ]
            },
            {"where_filters": [{"column": "Id", "values_from_set": ["3"]}]},
        ],
    }
    await desk.store(item, key="job-1")
    assert await desk.rows(TABLE) == [("new", "new")]

    await desk.table(TABLE, [("1", "keep"), ("1", "go"), ("2", "go"), ("3", "keep"), ("4", "go")])
    await desk.store(item, key="job-2")
    assert await desk.rows(TABLE) == [("1", "keep"), ("4", "go"), ("new", "new")]


@pytest.mark.scenario("mapping", 186)
@pytest.mark.parametrize(
    "deletion",
    [
        {"delete_where": [{"where_filters": [{"column": "Nope", "values_from_set": ["1"]}]}]},
        {"delete_where_column": "Nope", "delete_where_values": ["1"]},
    ],
)
async def test_a_deletion_that_storage_refuses_is_told_as_one(
    desk: Desk, deletion: dict[str, Any]
) -> None:
    await desk.table(TABLE, ROWS)
    desk.write("tables/t.csv", csv_of([HEADER, ("new", "new")]))
    item = {"source": "t.csv", "destination": TABLE, "incremental": True, **deletion}
    with pytest.raises(MappingFailed) as caught:
        await desk.store(item)
    assert caught.value.message.startswith(f'Cannot delete rows from table "{TABLE}" in Storage: ')
    assert "Nope" in caught.value.message
    assert await desk.rows(TABLE) == sorted(ROWS)


async def test_a_deletion_with_a_date_that_is_none_stores_nothing(desk: Desk) -> None:
    await desk.table(TABLE, ROWS)
    desk.write("tables/t.csv", CSV)
    with pytest.raises(MappingFailed) as caught:
        await desk.store(
            {"source": "t.csv", "destination": TABLE, "delete_where": [{"changed_since": "soon"}]}
        )
    assert caught.value.message.startswith(f'Cannot delete rows from table "{TABLE}" in Storage: ')
    assert len(await desk.rows(TABLE)) == 2


@pytest.mark.scenario("mapping", 169)
@pytest.mark.scenario("mapping", 171)
async def test_columns_name_the_fields_of_a_file_without_header(desk: Desk) -> None:
    desk.write("tables/t.csv", csv_of(ROWS))
    await desk.store({"source": "t.csv", "destination": TABLE, "columns": ["Id", "Name"]}, key="1")
    desk.write("tables/t.csv", csv_of([("n", "i")]))
    desk.write("tables/t.csv.manifest", manifest(columns=["Name", "Id"], incremental=True))
    await desk.store({"source": "t.csv", "destination": TABLE}, key="2")
    assert await desk.rows(TABLE) == sorted([*ROWS, ("i", "n")])


@pytest.mark.scenario("mapping", 172)
async def test_a_header_beside_columns_is_skipped_when_it_is_said(desk: Desk) -> None:
    desk.write("tables/t.csv", CSV)
    await desk.store(
        {"source": "t.csv", "destination": TABLE, "columns": ["a", "b"], "has_header": True}
    )
    assert await desk.rows(TABLE) == sorted(ROWS)
    assert (await desk.backend.tables.table(SCOPE, TABLE)).columns == ("a", "b")


async def test_has_header_says_nothing_new_without_columns(desk: Desk) -> None:
    desk.write("tables/t.csv", CSV)
    await desk.store({"source": "t.csv", "destination": TABLE, "has_header": True})
    assert await desk.rows(TABLE) == sorted(ROWS)


@pytest.mark.scenario("mapping", 170)
async def test_an_empty_file_needs_columns(desk: Desk) -> None:
    desk.write("tables/t.csv", "")
    failed = await desk.store({"source": "t.csv", "destination": TABLE}, key="1")
    assert failed.errors == (f'Failed to load table "{TABLE}": There are no data in import file',)
    assert not await desk.has_table(TABLE)
    await desk.store({"source": "t.csv", "destination": TABLE, "columns": ["a"]}, key="2")
    assert await desk.rows(TABLE) == []


async def test_a_new_column_is_added(desk: Desk) -> None:
    await desk.table(TABLE, ROWS)
    desk.write("tables/t/part", csv_of([("1", "n", "Praha")]))
    await desk.store({"source": "t", "destination": TABLE, "columns": ["Id", "Name", "City"]})
    assert (await desk.backend.tables.table(SCOPE, TABLE)).columns == ("Id", "Name", "City")


@pytest.mark.scenario("mapping", 173)
async def test_new_columns_of_slices_are_added_before_the_load(desk: Desk) -> None:
    await desk.table(TABLE, [("1", "one")])
    desk.write("tables/t/part1", csv_of([("2", "two", "Brno")]))
    desk.write("tables/t/part2", csv_of([("3", "three", "Praha")]))
    item = {
        "source": "t",
        "destination": TABLE,
        "columns": ["Id", "Name", "City"],
        "incremental": True,
    }
    await desk.store(item)
    assert (await desk.backend.tables.table(SCOPE, TABLE)).columns == ("Id", "Name", "City")
    assert await desk.rows(TABLE) == [
        ("1", "one", ""),
        ("2", "two", "Brno"),
        ("3", "three", "Praha"),
    ]


async def test_failures_of_several_tables_come_together(desk: Desk) -> None:
    for name in ("a", "b", "good"):
        await desk.table(f"out.c-b.{name}", ROWS)
        desk.write(f"tables/{name}.csv", CSV if name == "good" else csv_of([("Boing",), ("x",)]))
    outputs = await desk.store(context=IN_BUCKET)
    assert len(outputs.errors) == 2
    for error, name in zip(outputs.errors, ("a", "b"), strict=True):
        assert error.startswith(f'Failed to load table "out.c-b.{name}": ')
        assert "Id" in error
        assert len(await desk.rows(f"out.c-b.{name}")) == 2
    assert [table.id for table in outputs.tables] == ["out.c-b.good"]


@pytest.mark.scenario("mapping", 177)
async def test_a_column_that_comes_twice_is_refused(desk: Desk) -> None:
    desk.write("tables/t.csv", csv_of([("foo", "foo"), ("1", "2")]))
    outputs = await desk.store({"source": "t.csv", "destination": TABLE})
    assert outputs.errors == (
        f'Failed to load table "{TABLE}": There are duplicate columns in CSV file: "foo"',
    )


@pytest.mark.scenario("mapping", 176)
async def test_a_row_with_too_many_fields_leaves_no_new_table(desk: Desk) -> None:
    desk.write("tables/t.csv", csv_of([HEADER, ("1", "2"), ("1", "2", "3")]))
    item = {"source": "t.csv", "destination": TABLE}
    outputs = await desk.store(item)
    (error,) = outputs.errors
    assert error.startswith(f'Failed to load table "{TABLE}": ')
    assert not await desk.has_table(TABLE)
    assert desk.reports.warnings == [f'Failed to load table "{TABLE}". Dropping table.']

    desk.reports.told.clear()
    await desk.table(TABLE, ROWS)
    outputs = await desk.store(item, key="job-2-0")
    assert len(outputs.errors) == 1
    assert await desk.rows(TABLE) == sorted(ROWS)
    assert desk.reports.warnings == []


@pytest.mark.scenario("mapping", 179)
@pytest.mark.scenario("mapping", 181)
async def test_odd_column_names_are_made_plain(desk: Desk) -> None:
    desk.write("tables/t.csv", csv_of([("1", "2", "3")]))
    desk.write(
        "tables/t.csv.manifest",
        manifest(
            columns=["ěščřžýáíéúů", "0", "2"],
            column_metadata={"0": [{"key": "k", "value": "zero"}], "2": [{"key": "k", "value": 2}]},
        ),
    )
    await desk.store({"source": "t.csv", "destination": TABLE})
    table = await desk.backend.tables.table(SCOPE, TABLE)
    assert table.columns == ("escrzyaieuu", "0", "2")
    assert values(table.column_metadata["0"], "keboola.demo") == {"k": "zero"}
    assert values(table.column_metadata["2"], "keboola.demo") == {"k": "2"}
    assert desk.reports.warnings == ['Column name "ěščřžýáíéúů" was webalized to "escrzyaieuu"']


async def test_values_as_null_are_skipped_with_a_warning_for_a_table_made_from_its_data(
    desk: Desk,
) -> None:
    context = replace(CONTEXT, treat_values_as_null=("aabb",))
    desk.write("tables/t.csv", CSV)
    item = {"source": "t.csv", "destination": TABLE}
    await desk.store(item, context=context, key="1")
    assert desk.reports.warnings == ['Treating values as null for table "table" was skipped.']
    assert ("aabb", "test") in await desk.rows(TABLE)

    desk.reports.told.clear()
    await desk.store(item, context=context, key="2")
    assert desk.reports.warnings == []
    assert [row for row in await desk.rows(TABLE) if row[0] == "aabb"] == []


@pytest.mark.scenario("mapping", 207)
async def test_a_schema_names_columns_key_and_descriptions(desk: Desk) -> None:
    desk.write("tables/t.csv", csv_of(ROWS))
    desk.write(
        "tables/t.csv.manifest",
        manifest(
            schema=[
                {"name": "Id", "primary_key": True, "description": "the id"},
                {"name": "Name", "metadata": {"k": "v"}},
            ],
            description="a table",
            table_metadata={"a": 1},
        ),
    )
    await desk.store({"source": "t.csv", "destination": TABLE})
    table = await desk.backend.tables.table(SCOPE, TABLE)
    assert (table.columns, table.primary_key) == (("Id", "Name"), ("Id",))
    assert await desk.rows(TABLE) == sorted(ROWS)
    assert values(table.metadata, "keboola.demo") == {"KBC.description": "a table", "a": "1"}
    assert values(table.column_metadata["Id"], "keboola.demo") == {"KBC.description": "the id"}
    assert values(table.column_metadata["Name"], "keboola.demo") == {"k": "v"}


# -- keys ------------------------------------------------------------------------------------------


@pytest.mark.scenario("mapping", 165)
@pytest.mark.scenario("mapping", 166)
@pytest.mark.scenario("mapping", 167)
async def test_the_key_of_a_table_follows_the_mapping(desk: Desk) -> None:
    desk.write("tables/t.csv", CSV)

    async def stored(key: list[str], number: int) -> tuple[set[str], list[str]]:
        """The key that the table then has, and what was said about changing it."""
        desk.reports.told.clear()
        item = {"source": "t.csv", "destination": TABLE, "primary_key": key}
        await desk.store(item, key=f"job-{number}")
        table = await desk.backend.tables.table(SCOPE, TABLE)
        said = [line for line in desk.reports.warnings if line.startswith("Modifying")]
        return set(table.primary_key), said

    def modified(old: str, new: str) -> list[str]:
        return [f'Modifying primary key of table "{TABLE}" from "{old}" to "{new}".']

    both = {"Id", "Name"}
    assert await stored(["Id "], 1) == ({"Id"}, [])
    assert await stored(["Id"], 2) == ({"Id"}, [])
    assert await stored(["Id ", "Name "], 3) == (both, modified("Id", "Id, Name"))
    assert await stored(["Name", "Id"], 4) == (both, [])
    assert await stored(["Id"], 5) == ({"Id"}, modified("Id, Name", "Id"))
    assert await stored([], 6) == (set(), modified("Id", ""))


@pytest.mark.scenario("mapping", 164)
async def test_an_empty_name_in_a_key_is_no_key(desk: Desk) -> None:
    await desk.table(TABLE, ROWS)
    desk.write("tables/t.csv", CSV)
    await desk.store({"source": "t.csv", "destination": TABLE, "primary_key": [""]})
    assert desk.reports.warnings == ["Found empty column name in key array."]
    assert (await desk.backend.tables.table(SCOPE, TABLE)).primary_key == ()


@pytest.mark.scenario("mapping", 168)
async def test_a_key_that_the_data_do_not_keep_is_told_and_the_load_goes_on(desk: Desk) -> None:
    await desk.table(TABLE, [("1", "a"), ("1", "b")], key=["Id", "Name"])
    desk.write("tables/t.csv", csv_of([HEADER, ("2", "c")]))
    outputs = await desk.store(
        {"source": "t.csv", "destination": TABLE, "primary_key": ["Id"], "incremental": True}
    )
    assert outputs.errors == ()
    assert f'Modifying primary key of table "{TABLE}" from "Id, Name" to "Id".' in (
        desk.reports.warnings
    )
    assert any(
        line.startswith(f"Error changing primary key of table {TABLE}: ")
        for line in desk.reports.warnings
    )
    assert (await desk.backend.tables.table(SCOPE, TABLE)).primary_key == ("Id", "Name")
    assert len(await desk.rows(TABLE)) == 3


async def test_rows_with_a_known_key_are_replaced(desk: Desk) -> None:
    await desk.table(TABLE, [("1", "old"), ("2", "old")], key=["Id"])
    desk.write("tables/t.csv", csv_of([HEADER, ("2", "new"), ("3", "new")]))
    item = {"source": "t.csv", "destination": TABLE, "primary_key": ["Id"], "incremental": True}
    await desk.store(item)
    assert await desk.rows(TABLE) == [("1", "old"), ("2", "new"), ("3", "new")]


# -- slices ----------------------------------------------------------------------------------------


@pytest.mark.scenario("mapping", 193)
@pytest.mark.scenario("mapping", 196)
@pytest.mark.scenario("mapping", 197)
@pytest.mark.scenario("mapping", 198)
@pytest.mark.parametrize(
    ("name", "slices", "item", "expected"),
    [
        ("t.csv", [csv_of([("1", "a")]), csv_of([("2", "b")])], {}, [("1", "a"), ("2", "b")]),
        (
            "t",
            [gzip.compress(b'"1","a"\n'), gzip.compress(b'"2","b"\n')],
            {},
            [("1", "a"), ("2", "b")],
        ),
        ("t.csv.gz", ["value1", "value2"], {"columns": ["col1"]}, [("value1",), ("value2",)]),
        (
            "t",
            ["'1'|'a''s'\n", "2|b\n"],
            {"delimiter": "|", "enclosure": "'"},
            [("1", "a's"), ("2", "b")],
        ),
    ],
)
async def test_slices_become_one_table(
    desk: Desk,
    name: str,
    slices: Sequence[str | bytes],
    item: dict[str, Any],
    expected: list[tuple[str, ...]],
) -> None:
    for number, content in enumerate(slices, 1):
        desk.write(f"tables/{name}/part{number}", content)
    await desk.store({"source": name, "destination": TABLE, "columns": ["Id", "Name"], **item})
    assert await desk.rows(TABLE) == expected


@pytest.mark.scenario("mapping", 195)
@pytest.mark.parametrize("slices", [[], [""]])
async def test_slices_without_rows_empty_the_table(desk: Desk, slices: list[str]) -> None:
    (desk.folder.data / "out/tables/t").mkdir()
    for number, content in enumerate(slices):
        desk.write(f"tables/t/{number}", content)
    item = {"source": "t", "destination": TABLE, "columns": ["Id", "Name"]}
    await desk.store(item, key="1")
    assert await desk.rows(TABLE) == []
    await desk.table(TABLE, ROWS)
    await desk.store(item, key="2")
    assert await desk.rows(TABLE) == []


@pytest.mark.scenario("mapping", 199)
async def test_sliced_and_plain_tables_with_keys_of_the_mapping(desk: Desk) -> None:
    desk.write("tables/plain.csv", CSV)
    desk.write("tables/plain.csv.manifest", manifest(primary_key=["Id", "Name"]))
    desk.write("tables/sliced/part", csv_of(ROWS))
    desk.write(
        "tables/sliced.manifest", manifest(primary_key=["Id", "Name"], columns=["Id", "Name"])
    )
    await desk.store(
        {"source": "plain.csv", "destination": "out.c-b.plain", "primary_key": ["Id"]},
        {"source": "sliced", "destination": "out.c-b.sliced", "primary_key": ["Id"]},
    )
    for table_id in ("out.c-b.plain", "out.c-b.sliced"):
        assert (await desk.backend.tables.table(SCOPE, table_id)).primary_key == ("Id",)
        assert await desk.rows(table_id) == sorted(ROWS)


# -- metadata --------------------------------------------------------------------------------------


async def system(desk: Desk) -> tuple[dict[str, str], dict[str, str]]:
    bucket = await desk.backend.tables.bucket(SCOPE, "out.c-b")
    table = await desk.backend.tables.table(SCOPE, TABLE)
    return values(bucket.metadata, "system"), values(table.metadata, "system")


@pytest.mark.scenario("mapping", 201)
@pytest.mark.scenario("mapping", 202)
async def test_objects_say_who_made_and_changed_them(desk: Desk) -> None:
    desk.write("tables/table.csv", CSV)
    await desk.store(context=replace(IN_BUCKET, row_id="r1"), key="1")
    created = {
        "KBC.createdBy.component.id": "keboola.demo",
        "KBC.createdBy.configuration.id": "42",
        "KBC.createdBy.configurationRow.id": "r1",
    }
    updated = {key.replace("createdBy", "lastUpdatedBy"): value for key, value in created.items()}
    assert await system(desk) == (created, {**created, **updated})

    await desk.store(context=replace(IN_BUCKET, config_id="43", row_id="r2"), key="2")
    updated["KBC.lastUpdatedBy.configuration.id"] = "43"
    updated["KBC.lastUpdatedBy.configurationRow.id"] = "r2"
    assert await system(desk) == (created, {**created, **updated})


@pytest.mark.scenario("mapping", 158)
async def test_a_bucket_is_made_unless_somebody_else_is_faster(desk: Desk) -> None:
    desk.write("tables/table.csv", CSV)
    await desk.store(context=IN_BUCKET, key="1")
    bucket = await desk.backend.tables.bucket(SCOPE, "out.c-b")
    assert (bucket.stage, bucket.name) == ("out", "c-b")
    assert "KBC.createdBy.component.id" in values(bucket.metadata, "system")

    watched = Watched(desk.backend)

    async def be_faster(*_: object) -> None:
        await desk.backend.tables.create_bucket(SCOPE, "out", "d")

    watched.before["load"] = be_faster
    outputs = await desk.store(
        context=replace(CONTEXT, default_bucket="out.c-d"), backend=watched, key="2"
    )
    assert outputs.errors == ()
    assert await desk.rows("out.c-d.table") == sorted(ROWS)


@pytest.mark.scenario("mapping", 203)
async def test_without_configuration_only_the_component_is_named(desk: Desk) -> None:
    desk.write("tables/table.csv", CSV)
    await desk.store(context=OutputContext("c", default_bucket="out.c-b"))
    assert await system(desk) == (
        {"KBC.createdBy.component.id": "c"},
        {"KBC.createdBy.component.id": "c", "KBC.lastUpdatedBy.component.id": "c"},
    )


async def test_a_bucket_and_table_of_somebody_else_keep_their_maker(desk: Desk) -> None:
    await desk.table(TABLE, ROWS)
    desk.write("tables/table.csv", CSV)
    await desk.store(context=OutputContext("c", default_bucket="out.c-b"))
    assert await system(desk) == ({}, {"KBC.lastUpdatedBy.component.id": "c"})


@pytest.mark.scenario("mapping", 205)
async def test_metadata_of_the_author_are_the_components(desk: Desk) -> None:
    desk.write("tables/t.csv", CSV)
    await desk.store(
        {
            "source": "t.csv",
            "destination": TABLE,
            "metadata": [{"key": "a", "value": "b"}],
            "column_metadata": {"Id": [{"key": "c", "value": "d"}]},
        }
    )
    table = await desk.backend.tables.table(SCOPE, TABLE)
    assert values(table.metadata, "keboola.demo") == {"a": "b"}
    assert values(table.column_metadata["Id"], "keboola.demo") == {"c": "d"}


@pytest.mark.scenario("mapping", 209)
async def test_metadata_of_many_columns_are_all_there(desk: Desk) -> None:
    columns = [f"c{number}" for number in range(205)]
    desk.write("tables/t.csv", csv_of([columns]))
    metadata = {name: [{"key": "k", "value": name}] for name in columns}
    watched = Watched(desk.backend)
    await desk.store(
        {"source": "t.csv", "destination": TABLE, "column_metadata": metadata}, backend=watched
    )
    table = await desk.backend.tables.table(SCOPE, TABLE)
    assert all(
        values(table.column_metadata[name], "keboola.demo") == {"k": name} for name in columns
    )
    written = [args for name, args, _ in watched.calls if name == "write_metadata" and args[-1]]
    assert [len(args[-1]) for args in written] == [100, 100, 5]


@pytest.mark.scenario("mapping", 208)
async def test_refused_metadata_are_told_and_the_data_stay(desk: Desk) -> None:
    desk.write("tables/t.csv", CSV)
    outputs = await desk.store(
        {
            "source": "t.csv",
            "destination": TABLE,
            "metadata": [{"key": "k" * 300, "value": "too long"}],
            "column_metadata": {"Nope": [{"key": "c", "value": "d"}]},
        }
    )
    (error,) = outputs.errors
    message, _, details = error.rpartition(" (")
    assert message.startswith(f'Failed to update metadata for table "{TABLE}": ')
    assert "is not a metadata key" in message
    assert 'The column "Nope" was not found' in message
    assert json.loads(details.removesuffix(")")) == [
        {"id": TABLE, "provider": "keboola.demo"},
        {"id": TABLE, "provider": "keboola.demo", "columns": ["Nope"]},
    ]
    assert await desk.rows(TABLE) == sorted(ROWS)


async def test_outputs_without_a_component_are_our_own_mistake(desk: Desk) -> None:
    desk.write("tables/table.csv", CSV)
    with pytest.raises(ApplicationError, match="Component Id must be set"):
        await desk.store(context=OutputContext("", default_bucket="out.c-b"))


# -- files -----------------------------------------------------------------------------------------


async def stored_files(desk: Desk) -> dict[str, Any]:
    return {file.name: file for file in await desk.backend.files.list_files(SCOPE, FileQuery())}


@pytest.mark.scenario("mapping", 220)
@pytest.mark.scenario("mapping", 221)
@pytest.mark.scenario("mapping", 224)
@pytest.mark.scenario("mapping", 225)
async def test_options_of_a_file_come_from_mapping_else_manifest_else_nowhere(desk: Desk) -> None:
    for name in ("file1", "file2", "file3", "file4", "folder/inner"):
        desk.write(f"files/{name}", name)
    desk.write("files/file2.manifest", manifest(tags=["a", "xxx"], is_public=True))
    desk.write("files/file3.manifest", manifest(tags=["m", "m"], is_public=True, is_permanent=True))
    outputs = await desk.store(
        files=[
            {"source": "file1", "tags": ["one"]},
            {"source": "file2", "tags": ["lost"]},
            {"source": "file2", "tags": ["a", "yyy"], "is_public": False},
        ],
    )
    files = await stored_files(desk)
    own = ["componentId: keboola.demo", "configurationId: 42", "runId: 7.8"]
    assert {name: sorted(file.tags) for name, file in files.items()} == {
        "file1": sorted(["one", *own]),
        "file2": sorted(["a", "yyy", *own]),
        "file3": sorted(["m", *own]),
        "file4": sorted(own),
    }
    assert {name: file.is_public for name, file in files.items()} == {
        "file1": False,
        "file2": False,
        "file3": True,
        "file4": False,
    }
    assert all(file.is_encrypted for file in files.values())
    assert files["file3"].max_age_days is None
    assert files["file4"].max_age_days is not None
    assert sorted(outputs.files) == sorted(file.id for file in files.values())


@pytest.mark.scenario("mapping", 222)
@pytest.mark.scenario("mapping", 223)
@pytest.mark.parametrize(
    ("files", "items", "message"),
    [
        ({}, [{"source": "file2"}], "File 'file2' not found."),
        (
            {"file1.manifest": "{}"},
            [],
            "Found orphaned file manifest: 'file1.manifest'",
        ),
        (
            {"folder/x": "", "folder.manifest": "{}"},
            [],
            "Found orphaned file manifest: 'folder.manifest'",
        ),
        (
            {"f": "", "f.manifest": '{"is_sliced": true}'},
            [],
            'Failed to parse manifest file "/data/out/files/f.manifest" as "json": ',
        ),
    ],
)
async def test_files_that_cannot_be_stored_stop_everything(
    desk: Desk, files: dict[str, str], items: list[dict[str, Any]], message: str
) -> None:
    desk.write("tables/table.csv", CSV)
    desk.write("files/good", "x")
    for name, content in files.items():
        desk.write(f"files/{name}", content)
    with pytest.raises((MappingFailed, InvalidInput)) as caught:
        await desk.store(files=items, context=IN_BUCKET)
    assert caught.value.message.startswith(message)
    assert await stored_files(desk) == {}
    assert not await desk.has_table(TABLE)


@pytest.mark.scenario("mapping", 226)
async def test_storage_has_the_last_word_on_a_files_name(desk: Desk) -> None:
    desk.write("files/my-file.dat", "x")
    await desk.store()
    assert list(await stored_files(desk)) == ["my_file.dat"]


@pytest.mark.scenario("mapping", 230)
async def test_processed_files_are_tagged_after_success_only(desk: Desk) -> None:
    item = {
        "query": "tags: toprocess AND NOT tags: downloaded",
        "processed_tags": ["downloaded"],
    }
    await desk.file("f", "x", "toprocess")
    inputs = [InputFile.parse(item)]
    desk.write("tables/bad.csv", "")
    failed = await desk.store(
        {"source": "bad.csv", "destination": TABLE}, input_files=inputs, key="1"
    )
    assert failed.errors
    assert (await desk.stage_files(item)).files == 1

    desk.clear()
    await desk.store(input_files=inputs, key="2")
    assert (await desk.stage_files(item)).files == 0


# -- failed jobs -----------------------------------------------------------------------------------


@pytest.mark.scenario("mapping", 228)
@pytest.mark.scenario("mapping", 233)
@pytest.mark.scenario("mapping", 234)
async def test_a_failed_job_stores_only_what_is_always_written(desk: Desk) -> None:
    for name in ("mapped.csv", "manifested.csv", "not.csv", "unknown"):
        desk.write(f"tables/{name}", CSV)
    desk.write("tables/manifested.csv.manifest", manifest(write_always=True))
    desk.write("files/f", "x")
    await desk.file("in", "x", "t")
    outputs = await desk.store(
        {"source": "mapped.csv", "destination": "out.c-b.mapped", "write_always": True},
        {"source": "manifested.csv", "destination": "out.c-b.manifested"},
        {"source": "not.csv", "destination": "out.c-b.not"},
        {"source": "missing.csv", "destination": "out.c-b.missing"},
        failed=True,
        input_files=[InputFile.parse({"tags": ["t"], "processed_tags": ["done"]})],
    )
    assert [table.id for table in outputs.tables] == ["out.c-b.manifested", "out.c-b.mapped"]
    assert not await desk.has_table("out.c-b.not")
    assert list(await stored_files(desk)) == ["in"]
    assert (await stored_files(desk))["in"].tags == ("t",)


async def test_a_failed_job_with_a_broken_manifest_stores_nothing(desk: Desk) -> None:
    for trouble in ("broken.csv.manifest", "orphan.manifest"):
        desk.clear()
        desk.write("tables/good.csv", CSV)
        desk.write("tables/broken.csv", CSV)
        desk.write(f"tables/{trouble}", "{" if "broken" in trouble else "{}")
        with pytest.raises((MappingFailed, InvalidInput)):
            await desk.store(
                {"source": "good.csv", "destination": TABLE, "write_always": True}, failed=True
            )
        assert not await desk.has_table(TABLE)


# -- once, together, in order ----------------------------------------------------------------------


class Crash(BaseException):
    """The end of the process, as far as the code under test can tell."""


@pytest.mark.parametrize("call", ["upload", "load", "write_metadata", "bucket", "table"])
@pytest.mark.parametrize("atomic", [False, True])
async def test_a_crash_after_any_call_and_a_repetition_store_everything_once(
    desk: Desk, call: str, *, atomic: bool
) -> None:
    desk.write("files/f", "x")
    desk.write("tables/a.csv", CSV)
    desk.write("tables/b.csv", CSV)
    items = [
        {"source": "a.csv", "destination": "out.c-b.a", "incremental": True},
        {"source": "b.csv", "destination": "out.c-c.b", "incremental": True},
        {"source": "a.csv", "destination": "out.c-b.a", "incremental": True},
    ]
    if atomic:
        items = items[:2]

    async def run(nth: int) -> int:
        count = 0

        async def crash(*_: object) -> None:
            nonlocal count
            count += 1
            if count == nth:
                raise Crash

        watched = Watched(desk.backend)
        watched.after[call] = crash
        try:
            await desk.store(*items, backend=watched, key="job-1", atomic=atomic, parallel=1)
        except BaseException as error:
            if not _is_crash(error):
                raise
        return count

    nth = 1
    while await run(nth) >= nth:
        nth += 1
    assert nth > 1
    assert [file.name for file in (await stored_files(desk)).values()] == ["f"]
    assert len(await desk.rows("out.c-b.a")) == (2 if atomic else 4)
    assert len(await desk.rows("out.c-c.b")) == 2
    for table_id in ("out.c-b.a", "out.c-c.b"):
        table = await desk.backend.tables.table(SCOPE, table_id)
        bucket = await desk.backend.tables.bucket(SCOPE, table.bucket)
        for found in (table, bucket):
            assert "KBC.createdBy.component.id" in values(found.metadata, "system")


def _is_crash(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_crash(each) for each in error.exceptions)
    return isinstance(error, Crash)


async def test_another_job_stores_again(desk: Desk) -> None:
    desk.write("files/f", "x")
    desk.write("tables/table.csv", CSV)
    desk.write("tables/table.csv.manifest", manifest(incremental=True))
    for key in ("job-1", "job-1", "job-2"):
        await desk.store(context=IN_BUCKET, key=key)
    assert len(await desk.rows(TABLE)) == 4
    assert len(await desk.backend.files.list_files(SCOPE, FileQuery())) == 2


async def test_atomic_outputs_land_together_or_not_at_all(desk: Desk) -> None:
    desk.write("tables/good.csv", CSV)
    desk.write("tables/bad.csv", "")
    outputs = await desk.store(context=IN_BUCKET, atomic=True, key="1")
    (error,) = outputs.errors
    assert error == (
        'Failed to load tables "out.c-b.bad", "out.c-b.good", of which none was changed because '
        'atomic_output is set: Table "out.c-b.bad": There are no data in import file'
    )
    assert not await desk.has_table("out.c-b.good")
    assert outputs.tables == ()

    desk.write("tables/bad.csv", CSV)
    outputs = await desk.store(context=IN_BUCKET, atomic=True, key="2")
    assert [table.id for table in outputs.tables] == ["out.c-b.bad", "out.c-b.good"]


async def test_atomic_outputs_may_be_none(desk: Desk) -> None:
    assert (await desk.store(atomic=True)).tables == ()


async def test_loads_of_one_table_keep_the_order_of_the_mapping(desk: Desk) -> None:
    for name in ("a", "b", "c"):
        desk.write(f"tables/{name}", csv_of([HEADER, (name, name)]))
    items = [{"source": name, "destination": TABLE} for name in ("c", "a", "b")]
    await desk.store(*items, parallel=3)
    assert await desk.rows(TABLE) == [("c", "c")]


async def test_tables_are_loaded_in_parallel_within_the_limit(desk: Desk) -> None:
    for number in range(6):
        desk.write(f"tables/t{number}", CSV)
    watched = Watched(desk.backend)
    gate = trio.Event()
    waiting = 0

    async def arrive(*_: object) -> None:
        nonlocal waiting
        waiting += 1
        if waiting == 3:
            gate.set()
        await gate.wait()

    watched.before["load"] = arrive
    with trio.fail_after(60):
        outputs = await desk.store(context=IN_BUCKET, backend=watched, parallel=3)
    assert len(outputs.tables) == 6
    assert watched.most <= 3


async def test_our_own_failure_of_one_load_is_raised_bare(desk: Desk) -> None:
    for number in range(3):
        desk.write(f"tables/t{number}", CSV)
    watched = Watched(desk.backend)

    async def fail(*_: object) -> None:
        raise ApplicationError("the disk is gone")

    watched.before["load"] = fail
    with pytest.raises(ApplicationError, match="the disk is gone"):
        await desk.store(context=IN_BUCKET, backend=watched)


async def test_a_file_that_storage_refuses_stops_the_tables(desk: Desk) -> None:
    desk.write("files/f", "x")
    desk.write("tables/table.csv", CSV)
    watched = Watched(desk.backend)

    async def refuse(*_: object) -> None:
        raise Conflict("No more space.")

    watched.before["upload"] = refuse
    with pytest.raises(UserError) as caught:
        await desk.store(context=IN_BUCKET, backend=watched)
    assert caught.value.message == "Cannot upload file 'f' to Storage API: No more space."
    assert not await desk.has_table(TABLE)


async def test_a_load_gets_its_import_key_and_paths_that_still_lead_to_the_data(
    desk: Desk,
) -> None:
    desk.write("tables/table.csv", CSV)
    watched = Watched(desk.backend)
    seen: list[TableLoad] = []

    async def look(_: object, loads: list[TableLoad]) -> None:
        (desk.folder.data / "out/tables/table.csv").unlink()
        seen.extend(loads)

    watched.before["load"] = look
    await desk.store(context=IN_BUCKET, backend=watched, key="job-9-0")
    (load,) = seen
    assert load.import_key is not None
    assert load.import_key.startswith("job-9-0-")
    assert len(load.import_key) < 60
    assert await desk.rows(TABLE) == sorted(ROWS)
    results: list[LoadResult] = next(result for name, _, result in watched.calls if name == "load")
    assert results[0].imported_rows == 2


async def test_outputs_with_traps_are_refused_before_anything_is_stored(desk: Desk) -> None:
    desk.write("tables/table.csv", CSV)
    (desk.folder.data / "out/files/passwd").symlink_to("/etc/passwd")
    with pytest.raises(InvalidInput, match="/data/out/files/passwd is a symbolic link"):
        await desk.store(context=IN_BUCKET)
    assert not await desk.has_table(TABLE)
