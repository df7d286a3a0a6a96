"""What features and options of project, component and configuration change about outputs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.engine.mapping.conftest import CONTEXT, SCOPE, Desk, Watched, csv_of

from vaka.errors import InvalidInput, MappingFailed
from vaka.mapping.manifests import merge
from vaka.models.manifest import parse_table_manifest
from vaka.models.mapping import FileOptions, InputFile, table_files_options
from vaka.models.storage import FileDetail, FileQuery, TableLoad

TABLE = "out.c-b.table"
HEADER = ("Id", "Name")
CSV = csv_of([HEADER, ("1", "one")])
IN_BUCKET = replace(CONTEXT, default_bucket="out.c-b")
SLICED = replace(IN_BUCKET, slices=True)
OWN = ("componentId: keboola.demo", "configurationId: 42", "runId: 7.8")


async def loads(desk: Desk, *items: Mapping[str, Any], **options: Any) -> list[TableLoad]:
    """What a backend is asked to load."""
    watched = Watched(desk.backend)
    await desk.store(*items, backend=watched, **options)
    return [load for name, args, _ in watched.calls if name == "load" for load in args[0]]


async def files(desk: Desk) -> dict[str, FileDetail]:
    found = await desk.backend.files.list_files(SCOPE, FileQuery())
    return {file.name: file for file in found}


# -- keys ------------------------------------------------------------------------------------------


@pytest.mark.scenario("mapping", 162)
def test_only_an_item_that_has_a_key_takes_the_manifests_away() -> None:
    manifest = parse_table_manifest(b'{"primary_key": ["Id"]}', format="json", path="m")
    raw = {"source": "t.csv", "destination": TABLE}
    assert merge("t.csv", manifest, raw)["primary_key"] == ["Id"]
    assert merge("t.csv", manifest, {**raw, "primary_key": []})["primary_key"] == []


@pytest.mark.scenario("mapping", 162)
async def test_a_configured_item_without_a_key_removes_the_manifests(desk: Desk) -> None:
    desk.write("tables/table.csv", CSV)
    desk.write("tables/table.csv.manifest", '{"primary_key": ["Id"]}')
    await desk.store(context=IN_BUCKET)
    assert (await desk.backend.tables.table(SCOPE, TABLE)).primary_key == ("Id",)
    await desk.store({"source": "table.csv", "destination": TABLE}, key="job-2-0")
    assert (await desk.backend.tables.table(SCOPE, TABLE)).primary_key == ()


@pytest.mark.scenario("mapping", 191)
async def test_a_distribution_key_is_for_new_tables(desk: Desk) -> None:
    desk.write("tables/table.csv", CSV)
    item = {"source": "table.csv", "destination": TABLE, "distribution_key": ["Id", "Id "]}
    (load,) = await loads(desk, item)
    assert load.distribution_key == ("Id",)
    assert (await desk.backend.tables.table(SCOPE, TABLE)).distribution_key == ("Id",)

    (load,) = await loads(desk, {**item, "distribution_key": ["Name"]}, key="job-2-0")
    assert load.distribution_key == ()
    assert (await desk.backend.tables.table(SCOPE, TABLE)).distribution_key == ("Id",)


# -- tags of what tables travel in -----------------------------------------------------------------


async def test_a_backend_is_told_the_tags_of_its_staging_files(desk: Desk) -> None:
    desk.write("tables/table.csv", CSV)
    item = {"source": "table.csv", "destination": TABLE, "tags": ["mine"]}
    (load,) = await loads(desk, {"source": "table.csv", "destination": TABLE}, key="1")
    assert load.staging_tags == ()
    (load,) = await loads(desk, item, key="2")
    assert load.staging_tags == ("mine",)
    (load,) = await loads(desk, item, key="3", context=replace(CONTEXT, tags_staging=True))
    assert load.staging_tags == ("mine", *OWN)
    assert await files(desk) == {}  # the embedded Storage makes none


# -- slicing ---------------------------------------------------------------------------------------


@pytest.mark.scenario("mapping", 150)
async def test_one_source_has_several_destinations_unless_it_is_sliced(desk: Desk) -> None:
    desk.write("tables/table.csv", CSV)
    items = [{"source": "table.csv", "destination": f"out.c-b.{name}"} for name in ("x", "y")]
    with pytest.raises(MappingFailed) as caught:
        await desk.store(*items, context=SLICED)
    assert caught.value.message == 'Source "table.csv" has multiple destinations set.'
    assert not await desk.has_table("out.c-b.x")

    outputs = await desk.store(*items)
    assert [table.id for table in outputs.tables] == ["out.c-b.x", "out.c-b.y"]
    assert await desk.rows("out.c-b.x") == await desk.rows("out.c-b.y") == [("1", "one")]


@pytest.mark.parametrize(
    "option", [{"delimiter": ";"}, {"enclosure": "'"}, {"columns": ["Id", "Name"]}]
)
async def test_the_format_of_a_sliced_table_is_its_manifests(
    desk: Desk, option: dict[str, Any]
) -> None:
    desk.write("tables/table.csv", CSV)
    with pytest.raises(MappingFailed) as caught:
        await desk.store({"source": "table.csv", "destination": TABLE, **option}, context=SLICED)
    assert caught.value.message == (
        'Params "delimiter", "enclosure" or "columns" specified in mapping are not longer '
        'supported. Skipping file "table.csv".'
    )
    plain = {"source": "table.csv", "destination": TABLE, "delimiter": ",", "enclosure": '"'}
    assert (await desk.store(plain, context=SLICED)).errors == ()


async def test_what_cannot_be_sliced_is_loaded_as_it_is(desk: Desk) -> None:
    desk.write("tables/folder/part", csv_of([("1", "one")]))
    desk.write("tables/folder.manifest", '{"columns": ["Id", "Name"]}')
    desk.write("tables/empty.csv", "")
    desk.write("tables/empty.csv.manifest", '{"columns": ["Id", "Name"]}')
    outputs = await desk.store(context=SLICED)
    assert outputs.errors == ()
    assert desk.reports.warnings == ['Empty files cannot be sliced. Skipping file "empty.csv".']
    assert await desk.rows("out.c-b.folder") == [("1", "one")]

    desk.clear()
    desk.write("tables/bare/part", csv_of([("1", "one")]))
    schema = [{"name": "Id"}, {"name": "Name"}]
    item = {"source": "bare", "destination": "out.c-b.bare", "schema": schema}
    assert (await desk.store(item, context=SLICED)).errors == ()
    assert desk.reports.warnings == [
        'Sliced files without manifest are not supported. Skipping file "bare"'
    ]


# -- tables as files -------------------------------------------------------------------------------


@pytest.mark.scenario("mapping", 231)
async def test_tables_may_be_stored_as_files(desk: Desk) -> None:
    desk.write("tables/my-table.csv", CSV)
    desk.write("tables/my-table.csv.manifest", '{"destination": "out.c-b.table"}')
    desk.write("tables/folder/part", CSV)
    desk.write("files/my-table.csv", "a file of the same name")
    options = table_files_options({"tags": ["a", "b"], "is_permanent": False})
    outputs = await desk.store(
        {"source": "nowhere.csv", "destination": TABLE},
        files=[{"source": "my-table.csv", "tags": ["f"]}],
        table_files=options,
        context=IN_BUCKET,
    )
    assert outputs.tables == ()
    assert await desk.backend.tables.list_buckets(SCOPE) == []
    found = await desk.backend.files.list_files(SCOPE, FileQuery())
    assert sorted((file.name, tuple(sorted(file.tags))) for file in found) == [
        ("my_table.csv", tuple(sorted(("a", "b", *OWN)))),
        ("my_table.csv", tuple(sorted(("f", *OWN)))),
    ]
    assert all(file.max_age_days is not None for file in found)
    assert sorted(file.size_bytes for file in found) == sorted((len(CSV), 23))


@pytest.mark.scenario("mapping", 231)
async def test_tables_that_are_files_are_permanent_by_default(desk: Desk) -> None:
    desk.write("tables/t.csv", CSV)
    await desk.store(table_files=table_files_options(None))
    (file,) = (await files(desk)).values()
    assert (sorted(file.tags), file.max_age_days) == (sorted(OWN), None)


@pytest.mark.parametrize(
    ("written", "named"),
    [(("tables/t.manifest",), "t.manifest"), (("tables/d/x", "tables/d.manifest"), "d.manifest")],
)
async def test_manifests_of_tables_that_are_no_files_are_orphans(
    desk: Desk, written: tuple[str, ...], named: str
) -> None:
    for name in written:
        desk.write(name, "{}")
    with pytest.raises(MappingFailed) as caught:
        await desk.store(table_files=FileOptions())
    assert caught.value.message == f'Found orphaned table manifest: "{named}"'


async def test_a_failed_job_stores_no_tables_as_files(desk: Desk) -> None:
    desk.write("tables/t.csv", CSV)
    await desk.file("in", "x", "t")
    inputs = [InputFile.parse({"tags": ["t"], "processed_tags": ["seen"]})]
    item = {"source": "t.csv", "destination": TABLE, "write_always": True}
    await desk.store(item, table_files=FileOptions(), input_files=inputs, failed=True)
    assert {name: file.tags for name, file in (await files(desk)).items()} == {"in": ("t",)}
    assert not await desk.has_table(TABLE)


# -- all or nothing --------------------------------------------------------------------------------


async def test_atomic_outputs_need_a_backend_that_can(desk: Desk) -> None:
    desk.write("tables/table.csv", CSV)
    desk.write("files/f", "x")
    watched = Watched(desk.backend)
    watched.together = False
    with pytest.raises(InvalidInput) as caught:
        await desk.store(context=IN_BUCKET, backend=watched, atomic=True)
    assert caught.value.path == "runtime.atomic_output"
    assert 'The Storage "snowflake" cannot load several tables in one transaction' in str(
        caught.value
    )
    assert watched.calls == []
    assert (await desk.store(context=IN_BUCKET, backend=watched)).errors == ()


async def test_atomic_outputs_that_are_refused_leave_nothing(desk: Desk) -> None:
    await desk.table("out.c-b.old", [("1", "one")])
    desk.write("tables/old.csv", csv_of([HEADER, ("2", "two")]))
    desk.write("tables/new.csv", CSV)
    item = {
        "source": "old.csv",
        "destination": "out.c-b.old",
        "delete_where_column": "Nope",
        "delete_where_values": ["1"],
    }
    outputs = await desk.store(item, context=IN_BUCKET, atomic=True)
    (error,) = outputs.errors
    assert error.startswith('Failed to load tables "out.c-b.new", "out.c-b.old", of which none')
    assert 'Table "out.c-b.old": ' in error
    assert await desk.rows("out.c-b.old") == [("1", "one")]
    assert not await desk.has_table("out.c-b.new")
    assert desk.reports.warnings == ['Failed to load table "out.c-b.new". Dropping table.']
