import json
from typing import Any

import duckdb
import pytest
from tests.engine.mapping.conftest import SCOPE, Desk

from vaka.errors import ApplicationError, InvalidInput, MappingFailed
from vaka.models.state import FileState, JobState, TableState
from vaka.models.storage import ColumnDefinition, FileUpload, StorageScope

TEST = "in.c-main.test"
OTHER = "in.c-main.other"
ROWS = [("id1", "a"), ("id2", "b"), ("id3", "c")]


def adaptive(result_state: tuple[TableState, ...]) -> JobState:
    return JobState(input_tables=result_state)


# -- tables ----------------------------------------------------------------------------------------


@pytest.mark.scenario("mapping", 74)
async def test_two_tables_arrive_with_their_manifests(desk: Desk) -> None:
    await desk.table(TEST, ROWS, key=["Id"])
    await desk.table(OTHER, [("x", 'say "hi"\nthere')])

    result = await desk.stage_tables(
        {"source": TEST, "destination": "test.csv"},
        {"source": OTHER, "destination": "test2.csv"},
    )

    assert desk.inputs == [
        *("tables/test.csv", "tables/test.csv.manifest"),
        *("tables/test2.csv", "tables/test2.csv.manifest"),
    ]
    lines = desk.read("tables/test.csv").splitlines()
    assert lines[0] == '"Id","Name"'
    assert sorted(lines[1:]) == ['"id1","a"', '"id2","b"', '"id3","c"']
    assert desk.read("tables/test2.csv") == '"Id","Name"\n"x","say ""hi""\nthere"\n'
    manifest = json.loads(desk.read("tables/test.csv.manifest"))
    assert manifest["id"] == TEST
    assert manifest["name"] == "test"
    assert manifest["primary_key"] == ["Id"]
    assert json.loads(desk.read("tables/test2.csv.manifest"))["id"] == OTHER
    assert desk.reports.lines[:3] == [
        "Downloading source tables.",
        'Using "local" table input staging.',
        "Processing 2 local table exports.",
    ]
    assert sorted(desk.reports.lines[3:5]) == [f"Fetched table {OTHER}.", f"Fetched table {TEST}."]
    assert desk.reports.lines[5:] == ["All tables were fetched."]
    assert [table.to_json() for table in result.tables] == [
        {
            "id": table_id,
            "name": table_id.rpartition(".")[2],
            "displayName": table_id.rpartition(".")[2],
            "lastImportDate": read["last_import_date"],
            "lastChangeDate": read["last_change_date"],
            "columns": [{"name": "Id"}, {"name": "Name"}],
        }
        for table_id, read in (
            (TEST, manifest),
            (OTHER, json.loads(desk.read("tables/test2.csv.manifest"))),
        )
    ]
    assert result.rows == 4
    sizes = [
        (desk.folder.data / "in/tables" / name).stat().st_size for name in ("test.csv", "test2.csv")
    ]
    assert result.bytes == sum(sizes)


async def test_no_tables_are_no_work(desk: Desk) -> None:
    assert (await desk.stage_tables()).tables == ()
    assert desk.reports.told == []


@pytest.mark.scenario("mapping", 75)
@pytest.mark.parametrize("destination", [None, ""])
async def test_a_table_without_destination_has_its_id_for_a_name(
    desk: Desk, destination: str | None
) -> None:
    await desk.table(TEST, ROWS)
    await desk.stage_tables({"source": TEST, "destination": destination})
    assert desk.inputs == [f"tables/{TEST}", f"tables/{TEST}.manifest"]


async def test_a_destination_may_be_in_a_subfolder(desk: Desk) -> None:
    await desk.table(TEST, ROWS)
    await desk.stage_tables({"source": TEST, "destination": "dir/deep/file.csv"})
    assert "tables/dir/deep/file.csv" in desk.inputs
    assert "tables/dir/deep/file.csv.manifest" in desk.inputs


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a\nb", "x" * 300, "..", "a//b"])
async def test_a_destination_cannot_leave_the_folder(desk: Desk, name: str) -> None:
    await desk.table(TEST, ROWS)
    with pytest.raises(MappingFailed):
        await desk.stage_tables({"source": TEST, "destination": name})
    assert desk.inputs == []


@pytest.mark.parametrize("names", [("x", "x/y"), ("x/y/z", "x")])
async def test_a_destination_in_another_table_is_refused(
    desk: Desk, names: tuple[str, str]
) -> None:
    await desk.table(TEST, ROWS)
    with pytest.raises(MappingFailed, match='lies in "x", which is a table itself'):
        await desk.stage_tables(*({"source": TEST, "destination": name} for name in names))
    assert desk.inputs == []


async def test_the_last_of_two_tables_with_one_name_counts(desk: Desk) -> None:
    await desk.table(TEST, ROWS)
    await desk.table(OTHER, [("x", "y")])
    result = await desk.stage_tables(
        {"source": TEST, "destination": "t"}, {"source": OTHER, "destination": "t"}
    )
    assert desk.read("tables/t") == '"Id","Name"\n"x","y"\n'
    assert json.loads(desk.read("tables/t.manifest"))["id"] == OTHER
    assert [entry.source for entry in result.state] == [TEST, OTHER]


@pytest.mark.scenario("mapping", 77)
async def test_columns_come_in_the_order_asked_for(desk: Desk) -> None:
    await desk.table(TEST, [("1", "f", "b", "x")], columns=["Id", "foo", "bar", "more"])
    await desk.backend.tables.write_metadata(
        SCOPE, TEST, "me", {}, {"foo": {"k": "v"}, "more": {"k": "w"}}
    )
    await desk.stage_tables({"source": TEST, "columns": ["bar", "foo", "Id"]})
    assert desk.read(f"tables/{TEST}") == '"bar","foo","Id"\n"b","f","1"\n'
    manifest = json.loads(desk.read(f"tables/{TEST}.manifest"))
    assert manifest["columns"] == ["bar", "foo", "Id"]
    assert list(manifest["column_metadata"]) == ["bar", "foo", "Id"]
    assert manifest["column_metadata"]["bar"] == []
    (entry,) = manifest["column_metadata"]["foo"]
    assert (entry["key"], entry["value"], entry["provider"]) == ("k", "v", "me")
    assert set(entry) == {"id", "key", "value", "provider", "timestamp"}


@pytest.mark.scenario("mapping", 79)
async def test_metadata_are_in_the_manifest(desk: Desk) -> None:
    await desk.table(TEST, ROWS)
    await desk.backend.tables.write_metadata(SCOPE, TEST, "system", {"KBC.name": "x"})
    await desk.stage_tables({"source": TEST})
    (entry,) = json.loads(desk.read(f"tables/{TEST}.manifest"))["metadata"]
    assert (entry["key"], entry["value"], entry["provider"]) == ("KBC.name", "x", "system")
    assert set(entry) == {"id", "key", "value", "provider", "timestamp"}


@pytest.mark.scenario("mapping", 80)
@pytest.mark.scenario("mapping", 81)
@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"where_column": "Id", "where_values": ["id2", "id3"]}, ["id2", "id3"]),
        ({"where_column": "Id", "where_values": ["id2"], "where_operator": "ne"}, ["id1", "id3"]),
        ({"where_column": "Id", "where_values": ["ID2"]}, []),
    ],
)
async def test_filters_choose_rows(desk: Desk, item: dict[str, Any], expected: list[str]) -> None:
    await desk.table(TEST, ROWS)
    await desk.stage_tables({"source": TEST, "columns": ["Id"], **item})
    assert sorted(desk.read(f"tables/{TEST}").splitlines()[1:]) == [
        f'"{each}"' for each in expected
    ]
    await desk.stage_tables({"source": TEST, "destination": "one", "limit": 1})
    assert len(desk.read("tables/one").splitlines()) == 2


@pytest.mark.scenario("mapping", 82)
async def test_an_empty_table_is_a_header(desk: Desk) -> None:
    await desk.table(TEST, [])
    await desk.stage_tables({"source": TEST})
    assert desk.read(f"tables/{TEST}") == '"Id","Name"\n'


@pytest.mark.scenario("mapping", 83)
async def test_a_missing_table_fails_before_anything_is_exported(desk: Desk) -> None:
    await desk.table(TEST, ROWS)
    with pytest.raises(MappingFailed, match=r"^Cannot import data from Storage API: "):
        await desk.stage_tables({"source": TEST}, {"source": "in.c-main.missing"})
    assert desk.inputs == []
    with pytest.raises(MappingFailed, match=r"^Cannot import data from Storage API: "):
        await desk.stage_tables({"source": "no table id"})


async def test_a_column_that_is_not_there_is_told(desk: Desk) -> None:
    await desk.table(TEST, ROWS)
    with pytest.raises(MappingFailed, match=r"^Cannot import data from Storage API: .*nope"):
        await desk.stage_tables({"source": TEST, "columns": ["nope"]})
    with pytest.raises(MappingFailed, match=r"^Cannot import data from Storage API: .*nope"):
        await desk.stage_tables({"source": TEST, "where_column": "nope", "where_values": ["x"]})


@pytest.mark.scenario("mapping", 84)
async def test_a_table_above_the_projects_limit_is_refused(desk: Desk) -> None:
    await desk.table(TEST, ROWS)
    size = (await desk.backend.tables.table(SCOPE, TEST)).data_size_bytes
    assert size is not None
    with pytest.raises(MappingFailed) as caught:
        await desk.stage_tables({"source": TEST, "limit": 1}, max_bytes=size - 1)
    assert caught.value.message == (
        f'Table "{TEST}" with size {size} bytes exceeds the input mapping limit of {size - 1} bytes. '
        "Please contact support to raise this limit"
    )
    await desk.stage_tables({"source": TEST}, max_bytes=size)


@pytest.mark.scenario("mapping", 85)
async def test_buckets_of_development_branches_are_refused(desk: Desk) -> None:
    await desk.table(TEST, ROWS)
    await desk.table("in.c-other.t", ROWS)
    await desk.backend.tables.write_metadata(
        SCOPE, "in.c-main", "system", {"KBC.lastUpdatedBy.branch.id": "123"}
    )
    items = [{"source": TEST}, {"source": "in.c-other.t"}]
    with pytest.raises(MappingFailed) as caught:
        await desk.stage_tables(*items)
    assert caught.value.message == (
        'The buckets "in.c-main" come from a development branch and must not be used directly in '
        "input mapping."
    )
    assert len((await desk.stage_tables(*items, dev_mapping_allowed=True)).tables) == 2


async def test_manifests_come_in_the_components_format(desk: Desk) -> None:
    await desk.table(TEST, ROWS)
    await desk.stage_tables({"source": TEST}, format="yaml")
    manifest = desk.read(f"tables/{TEST}.manifest")
    assert manifest.startswith(f"id: {TEST}\n")
    assert "distribution_key: {  }" in manifest


async def test_the_manifest_of_a_table_without_description_has_none(desk: Desk) -> None:
    await desk.table(TEST, ROWS)
    await desk.stage_tables({"source": TEST})
    assert "description" not in json.loads(desk.read(f"tables/{TEST}.manifest"))


@pytest.mark.scenario("mapping", 89)
async def test_the_manifest_of_a_typed_table_has_the_types_of_its_columns(desk: Desk) -> None:
    await desk.backend.tables.create_bucket(SCOPE, "in", "main")
    await desk.backend.tables.create_table(
        SCOPE,
        TEST,
        ["Id", "price", "note", "left_out"],
        primary_key=["Id"],
        definitions=[
            ColumnDefinition("Id", "INTEGER", nullable=False),
            ColumnDefinition("price", "NUMERIC", "NUMBER", "10,2", default="0.50"),
            ColumnDefinition("note"),
            ColumnDefinition("left_out", "BOOLEAN"),
        ],
        distribution_key=["Id"],
    )
    await desk.table(OTHER, ROWS)

    await desk.stage_tables(
        {"source": TEST, "destination": "t", "columns": ["price", "Id", "note"]},
        {"source": OTHER, "destination": "o"},
    )

    manifest = json.loads(desk.read("tables/t.manifest"))
    assert manifest["distribution_key"] == ["Id"]
    price, key, note = manifest["schema"]
    assert list(price.items()) == [
        ("name", "price"),
        (
            "data_type",
            {
                "base": {"type": "NUMERIC"},
                "snowflake": {"type": "NUMBER", "length": "10,2", "default": "0.50"},
            },
        ),
        ("nullable", True),
        ("primary_key", False),
    ]
    assert (key["name"], key["nullable"], key["primary_key"]) == ("Id", False, True)
    assert key["data_type"]["base"] == {"type": "INTEGER"}
    assert key["data_type"]["snowflake"]["type"] == "NUMBER"
    assert (note["name"], note["nullable"], note["primary_key"]) == ("note", True, False)
    # a table without types has no definitions of its columns
    assert json.loads(desk.read("tables/o.manifest"))["schema"] == []


@pytest.mark.scenario("mapping", 94)
async def test_an_alias_is_read_as_a_table_is(desk: Desk) -> None:
    await desk.table(TEST, ROWS, key=["Id"])
    await desk.table("in.c-shown.other", [])
    alias = "in.c-shown.alias"
    await desk.backend.tables.create_alias(SCOPE, alias, TEST)
    await desk.backend.tables.write_metadata(SCOPE, TEST, "me", {}, {"Name": {"k": "source"}})
    item = {"source": alias, "destination": "t", "changed_since": "adaptive"}

    first = await desk.stage_tables(item)

    assert len(desk.read("tables/t").splitlines()) == 4
    assert json.loads(desk.read("tables/t.manifest"))["id"] == alias
    (told,) = (table.to_json() for table in first.tables)
    assert (told["id"], told["sourceTableId"]) == (alias, TEST)
    of_source = {"name": "Name", "metadata": [{"key": "k", "value": "source", "provider": "me"}]}
    assert told["columns"] == [{"name": "Id"}, of_source]
    # what it shows is new when the table behind it has something new
    await desk.table(TEST, [("id9", "z")], key=["Id"], incremental=True)
    await desk.backend.tables.write_metadata(SCOPE, alias, "me", {}, {"Id": {"k": "own"}})
    second = await desk.stage_tables(item, state=adaptive(first.state))
    assert desk.read("tables/t") == '"Id","Name"\n"id9","z"\n'
    (told,) = (table.to_json() for table in second.tables)
    own = {"name": "Id", "metadata": [{"key": "k", "value": "own", "provider": "me"}]}
    assert told["columns"] == [own, {"name": "Name"}]
    # and it is not written to
    desk.write("tables/x.csv", '"Id","Name"\n"1","x"\n')
    with pytest.raises(MappingFailed, match=f'is an alias of "{TEST}" and can only be read'):
        await desk.store({"source": "x.csv", "destination": alias})


@pytest.mark.scenario("mapping", 91)
async def test_parquet_is_a_folder_of_slices(desk: Desk) -> None:
    await desk.table(TEST, ROWS)
    result = await desk.stage_tables(
        {"source": TEST, "destination": "t.parquet", "file_type": "parquet", "columns": ["Name"]}
    )
    folder, manifest, *slices = desk.inputs
    assert (folder, manifest) == ("tables/t.parquet", "tables/t.parquet.manifest")
    assert slices
    paths = [desk.folder.data / "in" / name for name in slices]
    found = duckdb.read_parquet([str(path) for path in paths])
    assert found.columns == ["Name"]
    assert sorted(found.fetchall()) == [("a",), ("b",), ("c",)]
    assert result.bytes == sum(path.stat().st_size for path in paths)


@pytest.mark.scenario("mapping", 96)
@pytest.mark.scenario("mapping", 97)
@pytest.mark.scenario("mapping", 98)
@pytest.mark.scenario("mapping", 107)
async def test_an_adaptive_read_brings_what_is_new(desk: Desk) -> None:
    item = {"source": TEST, "destination": "t", "changed_since": "adaptive"}
    await desk.table(TEST, ROWS, key=["Id"])

    first = await desk.stage_tables(item)
    assert len(desk.read("tables/t").splitlines()) == 4

    unchanged = await desk.stage_tables(item, state=adaptive(first.state))
    assert desk.read("tables/t") == '"Id","Name"\n'
    assert unchanged.state == first.state

    await desk.table(TEST, [("id4", "d")], key=["Id"], incremental=True)
    third = await desk.stage_tables(item, state=adaptive(first.state))
    assert desk.read("tables/t") == '"Id","Name"\n"id4","d"\n'
    assert third.state != first.state

    await desk.table(TEST, ROWS, key=["Id"])
    await desk.stage_tables(item, state=adaptive(third.state))
    assert len(desk.read("tables/t").splitlines()) == 4


@pytest.mark.scenario("mapping", 99)
async def test_an_adaptive_state_that_is_no_date_is_told(desk: Desk) -> None:
    await desk.table(TEST, ROWS)
    with pytest.raises(MappingFailed) as caught:
        await desk.stage_tables(
            {"source": TEST, "changed_since": "adaptive"},
            state=adaptive((TableState(TEST, "nonsense"),)),
        )
    assert caught.value.message == (
        "Cannot import data from Storage API: changedSince has to be compatible with strtotime() "
        "or to be a unix timestamp."
    )


@pytest.mark.scenario("mapping", 102)
@pytest.mark.scenario("mapping", 103)
async def test_the_new_state_has_every_mapped_table_and_no_other(desk: Desk) -> None:
    await desk.table(TEST, ROWS)
    await desk.backend.tables.create_table(SCOPE, OTHER, ["a"])
    result = await desk.stage_tables(
        {"source": OTHER},
        {"source": TEST, "changed_since": "-1 day"},
        state=adaptive((TableState("in.c-main.gone", "2024-01-01"),)),
    )
    assert [entry.source for entry in result.state] == [OTHER, TEST]
    assert result.state[0].last_import_date == ""
    assert result.state[1].last_import_date.startswith("20")


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.scenario("mapping", 108)
async def test_files_arrive_with_their_manifests(desk: Desk) -> None:
    first = await desk.file("upload", "one", "t", "more")
    second = await desk.file("upload_second", "two", "t")
    await desk.file("other", "three", "x")

    result = await desk.stage_files({"tags": ["t"]})

    names = [f"files/{first}_upload", f"files/{second}_upload_second"]
    assert desk.inputs == sorted([*names, *(f"{name}.manifest" for name in names)])
    assert [desk.read(name) for name in names] == ["one", "two"]
    manifest = json.loads(desk.read(f"{names[0]}.manifest"))
    assert list(manifest) == [
        *("id", "name", "created", "is_public", "is_encrypted", "is_sliced", "tags"),
        *("max_age_days", "size_bytes"),
    ]
    assert manifest["id"] == first
    assert sorted(manifest["tags"]) == ["more", "t"]
    assert manifest["size_bytes"] == 3
    assert desk.reports.lines[:2] == [
        "Downloading source files.",
        'Using "local" file input staging.',
    ]
    assert sorted(desk.reports.lines[2:4]) == sorted(
        [f'Fetched file "{first}_upload".', f'Fetched file "{second}_upload_second".']
    )
    assert desk.reports.lines[4:] == ["All files were fetched."]
    assert (result.files, result.bytes) == (2, 6)


@pytest.mark.scenario("mapping", 116)
async def test_no_files_are_no_work(desk: Desk) -> None:
    assert (await desk.stage_files()).state == ()
    assert desk.reports.told == []
    with pytest.raises(InvalidInput, match="At least one of"):
        await desk.stage_files({})


@pytest.mark.scenario("mapping", 109)
async def test_a_query_finds_a_file_by_its_name(desk: Desk) -> None:
    wanted = await desk.file("testfile.png", "x")
    await desk.file("another.png", "y")
    await desk.stage_files({"query": "name: testfile.png"})
    assert desk.inputs == [f"files/{wanted}_testfile.png", f"files/{wanted}_testfile.png.manifest"]


def source_tags(*include: str, exclude: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "source": {
            "tags": [
                *({"name": name} for name in include),
                *({"name": name, "match": "exclude"} for name in exclude),
            ]
        }
    }


@pytest.mark.scenario("mapping", 110)
@pytest.mark.scenario("mapping", 111)
@pytest.mark.scenario("mapping", 114)
async def test_source_tags_are_all_of_and_none_of(desk: Desk) -> None:
    ids = {
        name: await desk.file(name, name, *tags)
        for name, tags in {
            "a": ("tag-1",),
            "b": ("tag-1", "tag-2"),
            "c": ("tag-1", "tag-2", "tag-3"),
            "d": ("tag-1", "tag-3", "table-export"),
        }.items()
    }

    async def found(item: dict[str, Any]) -> list[str]:
        desk.clear()
        await desk.stage_files(item)
        return [name for name in ids if f"files/{ids[name]}_{name}" in desk.inputs]

    assert await found(source_tags("tag-1", "tag-2")) == ["b", "c"]
    assert await found(source_tags("tag-1", "tag-3", exclude=("tag-2",))) == ["d"]
    assert await found({"tags": ["tag-2", "tag-3"]}) == ["b", "c", "d"]
    assert await found({"query": "id:>0 AND (NOT tags:table-export)"}) == ["a", "b", "c"]


@pytest.mark.scenario("mapping", 112)
@pytest.mark.scenario("mapping", 115)
async def test_a_limit_takes_the_newest_and_ids_take_exactly_those(desk: Desk) -> None:
    ids = [await desk.file("f", str(number), "t") for number in range(3)]
    await desk.stage_files({"tags": ["t"], "limit": 1})
    assert desk.inputs[0] == f"files/{ids[2]}_f"
    desk.clear()
    await desk.stage_files({"file_ids": [ids[0], str(ids[1])]})
    assert desk.inputs[::2] == [f"files/{ids[0]}_f", f"files/{ids[1]}_f"]


@pytest.mark.scenario("mapping", 113)
async def test_a_hundred_files_come_unless_more_are_asked_for(desk: Desk) -> None:
    for _ in range(103):
        await desk.file("f", "", "t")
    assert (await desk.stage_files({"tags": ["t"]})).files == 100
    assert (await desk.stage_files({"tags": ["t"], "limit": 102})).files == 102


@pytest.mark.scenario("mapping", 117)
async def test_overwriting_cannot_be_turned_off(desk: Desk) -> None:
    file_id = await desk.file("f", "x", "t")
    with pytest.raises(ApplicationError) as caught:
        await desk.stage_files({"tags": ["t"], "overwrite": False})
    assert caught.value.message == (
        f"Failed to download file f ({file_id}): Overwrite cannot be turned off for local mapping."
    )


@pytest.mark.scenario("mapping", 118)
async def test_a_second_download_restores_the_content(desk: Desk) -> None:
    file_id = await desk.file("f", "stored", "t")
    await desk.stage_files({"tags": ["t"]})
    (desk.folder.data / f"in/files/{file_id}_f").write_text("changed")
    await desk.stage_files({"tags": ["t"]}, {"tags": ["t"]})
    assert desk.read(f"files/{file_id}_f") == "stored"


@pytest.mark.scenario("mapping", 119)
@pytest.mark.scenario("mapping", 120)
@pytest.mark.parametrize("slices", [["1\n", "2\n", "3\n"], []])
async def test_a_sliced_file_is_a_folder(desk: Desk, slices: list[str]) -> None:
    paths = []
    for number, content in enumerate(slices):
        paths.append(desk.scratch / f"part{number}")
        paths[-1].write_text(content)
    upload = FileUpload(name="sliced", tags=("t",), is_sliced=True)
    file_id = (await desk.backend.files.upload(SCOPE, upload, paths)).id
    await desk.stage_files({"tags": ["t"]})
    folder = desk.folder.data / f"in/files/{file_id}_sliced"
    assert folder.is_dir()
    assert "".join(path.read_text() for path in sorted(folder.iterdir())) == "".join(slices)
    assert json.loads(desk.read(f"files/{file_id}_sliced.manifest"))["is_sliced"] is True


@pytest.mark.scenario("mapping", 121)
@pytest.mark.scenario("mapping", 122)
async def test_a_permanent_file_has_no_age_and_yaml_is_yaml(desk: Desk) -> None:
    file_id = await desk.file("f", "x", "t", is_permanent=True)
    await desk.stage_files({"tags": ["t"]}, format="yaml")
    manifest = desk.read(f"files/{file_id}_f.manifest")
    assert "\nmax_age_days: 0\n" in manifest
    assert manifest.startswith(f"id: {file_id}\n")


@pytest.mark.scenario("mapping", 123)
@pytest.mark.scenario("mapping", 125)
@pytest.mark.scenario("mapping", 127)
async def test_adaptive_files_by_tags(desk: Desk) -> None:
    item = {"tags": ["t"], "changed_since": "adaptive"}
    assert (await desk.stage_files(item)).state == ()

    ids = [await desk.file("f", str(number), "t") for number in range(2)]
    first = await desk.stage_files(item)
    assert first.state == (FileState(({"name": "t"},), str(ids[1])),)

    ids += [await desk.file("f", str(number), "t") for number in range(2)]
    desk.clear()
    second = await desk.stage_files(item, state=JobState(input_files=first.state))
    assert desk.inputs[::2] == [f"files/{ids[2]}_f", f"files/{ids[3]}_f"]
    assert second.state == (FileState(({"name": "t"},), str(ids[3])),)

    nothing = await desk.stage_files(item, state=JobState(input_files=second.state))
    assert (nothing.files, nothing.state) == (0, second.state)

    other = JobState(input_files=(FileState(({"name": "u"},), str(ids[3])),))
    assert (await desk.stage_files(item, state=other)).files == 4


@pytest.mark.scenario("mapping", 124)
async def test_an_excluded_newer_file_does_not_move_the_state(desk: Desk) -> None:
    wanted = await desk.file("a", "", "t")
    await desk.file("b", "", "t", "no")
    item = source_tags("t", exclude=("no",)) | {"changed_since": "adaptive"}
    result = await desk.stage_files(item)
    (entry,) = result.state
    assert entry.last_import_id == str(wanted)
    assert list(entry.tags) == [
        {"name": "t", "match": "include"},
        {"name": "no", "match": "exclude"},
    ]


@pytest.mark.scenario("mapping", 126)
async def test_files_can_be_asked_for_by_age(desk: Desk) -> None:
    await desk.file("f", "", "t")
    assert (await desk.stage_files({"tags": ["t"], "changed_since": "-5 minutes"})).files == 1
    assert (await desk.stage_files({"tags": ["t"], "changed_since": "tomorrow"})).files == 0


async def test_a_query_that_cannot_be_parsed_is_told(desk: Desk) -> None:
    with pytest.raises(MappingFailed, match=r"^Cannot import data from Storage API: "):
        await desk.stage_files({"query": "tags:("})


async def test_files_of_the_parent_run_can_be_asked_for(desk: Desk) -> None:
    path = desk.scratch / "x"
    path.write_text("x")
    ids = {}
    for run_id in ("7", "7.8", "9"):
        scope = StorageScope(project="1", run_id=run_id)
        upload = FileUpload(name="f", tags=("t",))
        ids[run_id] = (await desk.backend.files.upload(scope, upload, path)).id
    await desk.stage_files({"tags": ["t"], "filter_by_run_id": True})
    assert f"files/{ids['7']}_f" in desk.inputs
    assert f"files/{ids['9']}_f" not in desk.inputs
