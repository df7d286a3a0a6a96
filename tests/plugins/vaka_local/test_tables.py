"""What the embedded tables do beyond the contract: messages, times, locks, files on the disk."""

# ruff: noqa: ASYNC240 - small files

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.plugins.vaka_local.conftest import SCOPE, Clock

from vaka.errors import ApplicationError, Conflict, InvalidInput, MappingFailed, NotFound
from vaka.models.storage import DeleteWhere, ExportOptions, Filter, LoadResult, OrderBy, TableLoad
from vaka_local.storage import LocalStorage

TABLE = "in.c-main.t"


async def load(
    storage: LocalStorage, path: Path, content: str, table: str = TABLE, **options: Any
) -> LoadResult:
    path.write_text(content, newline="")
    (result,) = await storage.tables.load(SCOPE, [TableLoad(table, (path,), **options)])
    return result


async def rows(storage: LocalStorage, table: str = TABLE, **options: Any) -> list[str]:
    """Rows as their values joined, sorted."""
    _, found = await storage.tables.preview(SCOPE, table, ExportOptions(**options))
    return sorted("".join(str(value) for value in row) for row in found)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (
            "Boing,Tschak\n1,2\n",
            {},
            "Some columns are missing in the csv file. Missing columns: id,name. Expected columns: "
            'id,name,Boing,Tschak. Please check if the expected delimiter "," is used in the csv '
            "file.",
        ),
        (
            "1;2\n",
            {"columns": ("id",), "delimiter": ";"},
            "Some columns are missing in the csv file. Missing columns: name. Expected columns: "
            'id,name. Please check if the expected delimiter ";" is used in the csv file.',
        ),
        ("foo,foo\n", {}, 'There are duplicate columns in CSV file: "foo"'),
        ("", {}, "There are no data in import file"),
        (f"{'x' * 68}\n", {}, f"'{'x' * 68}' is more than 64 characters long"),
        (
            "id,name,_timestamp\n",
            {},
            'System columns "_timestamp" cannot be imported to the table.',
        ),
    ],
)
@pytest.mark.scenario("mapping", 174)
@pytest.mark.scenario("mapping", 177)
@pytest.mark.scenario("mapping", 178)
async def test_data_that_does_not_fit_is_refused_in_the_words_of_storage(
    storage: LocalStorage, tmp_path: Path, content: str, options: dict[str, Any], message: str
) -> None:
    await load(storage, tmp_path / "csv", "id,name\n1,a\n")

    with pytest.raises(MappingFailed) as caught:
        await load(storage, tmp_path / "csv", content, **options)

    assert caught.value.message == message


async def test_what_is_not_there_is_named_in_the_words_of_storage(storage: LocalStorage) -> None:
    with pytest.raises(NotFound) as caught:
        await storage.tables.table(SCOPE, TABLE)
    assert caught.value.message == (
        'The table "t" was not found in the bucket "in.c-main" in the project "1"'
    )
    with pytest.raises(NotFound) as caught:
        await storage.tables.bucket(SCOPE, "in.c-main")
    assert caught.value.message == "Bucket in.c-main not found"


async def test_a_bucket_that_is_in_the_way_is_named_in_the_words_of_storage(
    storage: LocalStorage, tmp_path: Path
) -> None:
    await load(storage, tmp_path / "csv", "id\n1\n")

    with pytest.raises(Conflict) as caught:
        await storage.tables.create_bucket(SCOPE, "in", "main")
    assert caught.value.message == "The bucket main already exists"
    with pytest.raises(Conflict) as caught:
        await storage.tables.drop_bucket(SCOPE, "in.c-main")
    assert caught.value.message == (
        "Only empty buckets can be deleted. There are 1 tables in the bucket."
    )


async def test_of_several_tables_the_one_that_fails_is_named(
    storage: LocalStorage, tmp_path: Path
) -> None:
    (tmp_path / "good").write_text("id\n1\n")
    (tmp_path / "bad").write_text("")
    loads = [
        TableLoad("in.c-main.good", (tmp_path / "good",)),
        TableLoad("in.c-main.bad", (tmp_path / "bad",)),
    ]

    with pytest.raises(MappingFailed) as caught:
        await storage.tables.load(SCOPE, loads)

    assert caught.value.message == 'Table "in.c-main.bad": There are no data in import file'


@pytest.mark.scenario("storage-api", 73)
async def test_header_names_become_names_of_columns(storage: LocalStorage, tmp_path: Path) -> None:
    header = "_abc-def----ghi_,žluťoučký    kůň,lot__of_____underscores____,OID,test-vn-đá cuội"

    await load(storage, tmp_path / "csv", header + "\n1,2,3,4,5\n")
    await load(storage, tmp_path / "csv", header + "\n6,7,8,9,0\n", incremental=True)

    columns, _ = await storage.tables.preview(SCOPE, TABLE, ExportOptions())
    assert columns == (
        "abc_def_ghi",
        "zlutoucky_kun",
        "lot__of_____underscores",
        "OID_",
        "test_vn_da_cuoi",
    )
    assert await rows(storage) == ["12345", "67890"]


@pytest.mark.scenario("mapping", 168)
async def test_a_key_that_stored_rows_contradict_is_not_taken(
    storage: LocalStorage, tmp_path: Path
) -> None:
    await load(storage, tmp_path / "csv", "id,kind\n1,a\n2,a\n", primary_key=("id",))

    result = await load(storage, tmp_path / "csv", "id,kind\n1,b\n", primary_key=("kind",))

    assert result.warnings == (
        "Error changing primary key of table in.c-main.t: The new primary key cannot be created; "
        "duplicate values in primary key columns exist.",
    )
    assert (await storage.tables.table(SCOPE, TABLE)).primary_key == ("id",)
    assert await rows(storage) == ["1b"]
    result = await load(storage, tmp_path / "csv", "id,kind\n1,b\n", primary_key=("x",))
    assert result.warnings == (
        'Error changing primary key of table in.c-main.t: Primary key columns "x" not found in '
        '"id, kind"',
    )


async def test_a_new_column_alone_is_no_key_of_old_rows(
    storage: LocalStorage, tmp_path: Path
) -> None:
    await load(storage, tmp_path / "csv", "id\n1\n2\n")

    content = "id,new\n3,x\n"
    result = await load(storage, tmp_path / "csv", content, primary_key=("new",), incremental=True)
    assert len(result.warnings) == 1
    result = await load(
        storage, tmp_path / "csv", content, primary_key=("new", "id"), incremental=True
    )
    assert result.warnings == ()


async def test_a_key_of_all_columns_keeps_each_row_once(
    storage: LocalStorage, tmp_path: Path
) -> None:
    await load(storage, tmp_path / "csv", "a,b\n1,1\n1,1\n1,2\n", primary_key=("a", "b"))
    assert await rows(storage) == ["11", "12"]

    result = await load(storage, tmp_path / "csv", "a,b\n1,2\n2,2\n", incremental=True)

    assert (result.imported_rows, result.total_rows) == (2, 3)
    assert await rows(storage) == ["11", "12", "22"]


async def test_rows_with_one_key_become_one_when_it_comes_again(
    storage: LocalStorage, tmp_path: Path
) -> None:
    await load(storage, tmp_path / "csv", "id,v\n1,a\n", primary_key=("id",))
    await load(storage, tmp_path / "csv", "id,v\n1,b\n", incremental=True, deduplication="insert")

    await load(storage, tmp_path / "csv", "id,v\n1,c\n2,d\n", incremental=True)

    assert await rows(storage) == ["1c", "2d"]


async def test_one_transaction_can_load_a_table_twice(
    storage: LocalStorage, tmp_path: Path
) -> None:
    for name, content in (("a", "id,v\n1,a\n2,b\n"), ("b", "id,v,w\n2,c,x\n3,d,y\n")):
        (tmp_path / name).write_text(content)
    loads = [
        TableLoad(TABLE, (tmp_path / "a",), primary_key=("id",), incremental=True),
        TableLoad(TABLE, (tmp_path / "b",), incremental=True),
        TableLoad(TABLE, (tmp_path / "b",), columns=("id", "v", "w"), ignored_lines=1),
        TableLoad(TABLE, (tmp_path / "b",), incremental=True),
    ]

    results = await storage.tables.load(SCOPE, loads)

    assert [result.total_rows for result in results] == [2, 3, 2, 2]
    assert await rows(storage) == ["2cx", "3dy"]


# -- time ----------------------------------------------------------------------------------------


async def test_dates_of_imports_are_whole_seconds_after_their_rows(
    storage: LocalStorage, tmp_path: Path, clock: Clock
) -> None:
    """However quickly loads follow each other: dates are kept with seconds, and come back so."""
    dates: list[datetime] = []
    for number in range(5):
        await load(storage, tmp_path / "csv", f"id\n{number}\n", incremental=True)
        date = (await storage.tables.table(SCOPE, TABLE)).last_import_date
        assert date is not None
        assert date.microsecond == 0
        if dates:
            assert date > dates[-1]
            assert await rows(storage, changed_since=dates[-1]) == [str(number)]
        assert await rows(storage, changed_since=date) == []
        dates.append(date)
        clock.advance(milliseconds=100)
    assert dates[0] == datetime(2024, 2, 28, 23, 59, 59, tzinfo=UTC)
    assert await rows(storage, changed_until=dates[1]) == ["0", "1"]


async def test_a_row_that_is_the_same_keeps_its_time(
    storage: LocalStorage, tmp_path: Path, clock: Clock
) -> None:
    await load(storage, tmp_path / "csv", "id,v\n1,a\n2,b\n3,c\n", primary_key=("id",))
    clock.advance(hours=1)

    await load(storage, tmp_path / "csv", "id,v\n1,a\n2,new\n4,d\n", incremental=True)

    assert await rows(storage, changed_since=clock.now) == ["2new", "4d"]
    clock.advance(hours=1)
    await load(storage, tmp_path / "csv", "id,v\n1,a\n")  # a full load makes all rows new
    assert await rows(storage, changed_since=clock.now) == ["1a"]


async def test_the_hidden_column_is_shown_when_asked_for(
    storage: LocalStorage, tmp_path: Path
) -> None:
    await load(storage, tmp_path / "csv", "id\n1\n")

    found = await storage.tables.preview(
        SCOPE, TABLE, ExportOptions(include_internal_timestamp=True)
    )

    assert found == (("id", "_timestamp"), [("1", "2024-02-28 23:59:58.250000")])


async def test_a_change_of_rows_or_columns_is_a_change_and_no_import(
    storage: LocalStorage, tmp_path: Path, clock: Clock
) -> None:
    await load(storage, tmp_path / "csv", "id,v\n1,a\n2,b\n")
    before = await storage.tables.table(SCOPE, TABLE)

    for change in (
        storage.tables.delete_rows(SCOPE, TABLE, DeleteWhere((Filter("id", ("1",)),))),
        storage.tables.add_columns(SCOPE, TABLE, ["x"]),
        storage.tables.drop_column(SCOPE, TABLE, "x"),
        storage.tables.set_primary_key(SCOPE, TABLE, ["id"]),
    ):
        clock.advance(hours=1)
        await change
        after = await storage.tables.table(SCOPE, TABLE)
        assert after.last_change_date == clock.now
        assert after.last_import_date == before.last_import_date
    bucket = await storage.tables.bucket(SCOPE, "in.c-main")
    assert bucket.last_change_date == clock.now


async def test_rows_can_be_chosen_by_time_and_date(storage: LocalStorage, tmp_path: Path) -> None:
    content = "id,at\n1,2024-01-31\n2,2024-02-01 10:00:00\n3,nonsense\n"
    await load(storage, tmp_path / "csv", content)

    def after(value: str, kind: str) -> dict[str, Any]:
        return {"filters": (Filter("at", (value,), "gt", kind),), "columns": ("id",)}

    assert await rows(storage, **after("2024-01-31", "DATE")) == ["2"]
    assert await rows(storage, **after("2024-02-01T10:00:00+02:00", "TIMESTAMP")) == ["2"]
    with pytest.raises(InvalidInput):
        await rows(storage, **after("yesterday", "DATE"))
    ordered = ExportOptions(order_by=(OrderBy("at", descending=True, data_type="DATE"),))
    _, found = await storage.tables.preview(SCOPE, TABLE, ordered)
    assert [row[0] for row in found] == ["2", "1", "3"]


async def test_old_import_keys_are_forgotten(
    storage: LocalStorage, tmp_path: Path, clock: Clock
) -> None:
    async def again(key: str) -> bool:
        return (await load(storage, tmp_path / "csv", "id\n1\n", import_key=key)).repeated

    assert [await again("a"), await again("a")] == [False, True]
    clock.advance(days=29)
    assert [await again("b"), await again("a")] == [False, True]
    clock.advance(days=2)
    assert [await again("c"), await again("b"), await again("a")] == [False, True, False]


async def test_an_import_key_outlives_its_table(storage: LocalStorage, tmp_path: Path) -> None:
    await load(storage, tmp_path / "csv", "id\n1\n", import_key="job-1")
    await storage.tables.drop_table(SCOPE, TABLE)

    result = await load(storage, tmp_path / "csv", "id\n1\n", import_key="job-1")

    assert result == LoadResult(TABLE, 1, 1, repeated=True)
    with pytest.raises(NotFound):
        await storage.tables.table(SCOPE, TABLE)


# -- the file ------------------------------------------------------------------------------------


async def test_nothing_is_opened_before_it_is_used(
    storage: LocalStorage, home: Path, tmp_path: Path
) -> None:
    assert not (home / "tables").exists()

    await load(storage, tmp_path / "csv", "id\n1\n")

    assert (home / "tables/1.duckdb").is_file()
    assert not (home / "tables/2.duckdb").exists()


async def test_what_is_stored_is_there_after_closing(
    home: Path, clock: Clock, tmp_path: Path
) -> None:
    for number in range(3):
        storage = LocalStorage(home, clock=clock)
        await storage.open()
        await load(storage, tmp_path / "csv", f"id\n{number}\n", incremental=True)
        await storage.aclose()

    names = sorted(path.name for path in (home / "tables").iterdir())
    assert names == ["1.duckdb", "1.duckdb.lock"]
    assert list((home / "tmp").iterdir()) == []
    storage = LocalStorage(home, clock=clock)
    await storage.open()
    assert await rows(storage) == ["0", "1", "2"]
    await storage.aclose()


async def test_names_that_differ_in_case_are_different_tables(
    storage: LocalStorage, tmp_path: Path
) -> None:
    for name in ("users", "Users", "USERS"):
        await load(storage, tmp_path / "csv", f"{name}\n1\n", f"in.c-main.{name}")
    await load(storage, tmp_path / "csv", "x\n2\n", "in.c-MAIN.users")
    await storage.tables.drop_table(SCOPE, "in.c-main.users")
    await load(storage, tmp_path / "csv", "users\n3\n", "in.c-main.users")

    for name, value in (("users", "3"), ("Users", "1"), ("USERS", "1")):
        found = await storage.tables.preview(SCOPE, f"in.c-main.{name}", ExportOptions())
        assert found == ((name,), [(value,)])
    assert await rows(storage, "in.c-MAIN.users") == ["2"]


async def test_a_second_storage_on_the_folder_says_what_to_do(
    storage: LocalStorage, home: Path, clock: Clock, tmp_path: Path
) -> None:
    await load(storage, tmp_path / "csv", "id\n1\n")
    second = LocalStorage(home, clock=clock)
    await second.open()

    with pytest.raises(ApplicationError) as caught:
        await second.tables.list_buckets(SCOPE)

    assert str(home / "tables/1.duckdb") in caught.value.message
    assert "stop that one" in caught.value.message
    assert await rows(storage) == ["1"]
    await storage.aclose()
    assert await rows(second) == ["1"]  # and it can go on when the first has ended
    await second.aclose()


async def test_a_file_that_another_program_has_is_named(
    storage: LocalStorage, home: Path, tmp_path: Path
) -> None:
    (home / "tables").mkdir(parents=True)
    (home / "tables/1.duckdb").write_bytes(b"this is not a database, and long enough " * 500)

    with pytest.raises(ApplicationError) as caught:
        await storage.tables.list_buckets(SCOPE)

    assert str(home / "tables/1.duckdb") in caught.value.message


async def test_a_file_of_a_newer_version_is_left_alone(
    storage: LocalStorage, home: Path, clock: Clock, tmp_path: Path
) -> None:
    await load(storage, tmp_path / "csv", "id\n1\n")
    await storage.aclose()
    with duckdb.connect(home / "tables/1.duckdb") as connection:
        connection.execute("INSERT INTO vaka_schema VALUES (1000)")
    later = LocalStorage(home, clock=clock)
    await later.open()

    with pytest.raises(ApplicationError, match="newer version"):
        await later.tables.list_buckets(SCOPE)

    await later.aclose()


@pytest.mark.parametrize("project", ["../1", "", "a/b", ".", "x" * 65])
async def test_a_project_is_no_path(storage: LocalStorage, home: Path, project: str) -> None:
    scope = type(SCOPE)(project)

    with pytest.raises(NotFound):
        await storage.tables.list_buckets(scope)

    assert not (home / "tables").exists()


async def test_an_export_is_consistent_and_takes_the_newest(
    storage: LocalStorage, tmp_path: Path
) -> None:
    await load(storage, tmp_path / "csv", "id\n1\n")
    await load(storage, tmp_path / "csv", "id\n2\n")

    result = await storage.tables.export(SCOPE, TABLE, ExportOptions(), tmp_path / "out")

    assert (tmp_path / "out").read_bytes() == b'"id"\n"2"\n'
    assert result.bytes == 9


async def test_a_target_without_a_folder_is_a_fault_of_the_application(
    storage: LocalStorage, tmp_path: Path
) -> None:
    await load(storage, tmp_path / "csv", "id\n1\n")

    with pytest.raises(ApplicationError, match="No such file"):
        await storage.tables.export(SCOPE, TABLE, ExportOptions(), tmp_path / "none" / "out")


async def test_columns_that_look_like_sql_are_only_names(
    storage: LocalStorage, tmp_path: Path
) -> None:
    columns = ["select", "group", "rowid", "c0", "order", "table"]
    key = ("rowid", "select")
    await load(storage, tmp_path / "csv", ",".join(columns) + "\n1,2,3,4,5,6\n", primary_key=key)

    await load(
        storage, tmp_path / "csv", ",".join(columns) + "\n1,x,3,y,5,z\n2,x,3,y,5,z\n",
        incremental=True,
    )  # fmt: skip

    assert await rows(storage) == ["1x3y5z", "2x3y5z"]
    assert await rows(storage, filters=(Filter("select", ("2",)),), columns=("rowid",)) == ["3"]


async def test_many_slices_need_few_descriptors(storage: LocalStorage, tmp_path: Path) -> None:
    paths = []
    for number in range(300):
        paths.append(tmp_path / f"slice-{number}")
        paths[-1].write_text(f"{number % 100},{number}\n", newline="")
    load_all = TableLoad(TABLE, tuple(paths), columns=("id", "v"), primary_key=("id",))

    (result,) = await storage.tables.load(SCOPE, [load_all])

    assert result.imported_rows == 100
    _, found = await storage.tables.preview(SCOPE, TABLE, ExportOptions())
    assert sorted(int(str(row[1])) for row in found) == list(range(200, 300))


async def test_sizes_are_told(storage: LocalStorage, tmp_path: Path) -> None:
    content = "id,v\n" + "".join(f"{number:04},{'x' * 96}\n" for number in range(1_000))
    await load(storage, tmp_path / "csv", content)

    detail = await storage.tables.table(SCOPE, TABLE)

    assert detail.rows_count == 1_000
    assert detail.data_size_bytes == 1_000 * (100 + 8)
    await storage.tables.delete_rows(SCOPE, TABLE, None)
    detail = await storage.tables.table(SCOPE, TABLE)
    assert (detail.rows_count, detail.data_size_bytes) == (0, 0)


async def test_a_moment_of_any_zone_is_understood(
    storage: LocalStorage, tmp_path: Path, clock: Clock
) -> None:
    await load(storage, tmp_path / "csv", "id\n1\n")
    east = datetime.fromisoformat("2024-02-29T01:59:58.25+02:00")

    assert await rows(storage, changed_since=east) == ["1"]
    assert await rows(storage, changed_since=east + timedelta(microseconds=1)) == []
    assert await rows(storage, changed_until=east) == []


async def test_a_table_has_a_bounded_number_of_columns(
    storage: LocalStorage, tmp_path: Path
) -> None:
    file = tmp_path / "wide.csv"
    file.write_text(",".join(["1"] * 10_001) + "\n")
    columns = tuple(f"c{number}" for number in range(10_001))
    with pytest.raises(InvalidInput, match="at most 10000 columns"):
        await storage.tables.load(SCOPE, [TableLoad("in.c-wide.t", (file,), columns=columns)])
    with pytest.raises(InvalidInput, match="at most 10000 columns"):
        await storage.tables.create_table(SCOPE, "in.c-wide.t", columns)
