"""The suite that every mapping backend passes."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trio

from vaka.errors import Conflict, InvalidInput, MappingFailed, NotFound, UserError
from vaka.hooks import MappingBackend
from vaka.models.storage import (
    BlockRef,
    ColumnDefinition,
    DeleteWhere,
    ExportOptions,
    ExportResult,
    FileDetail,
    FileQuery,
    FileUpload,
    Filter,
    LoadResult,
    MetadataChange,
    OrderBy,
    StorageScope,
    TableDetail,
    TableLoad,
)

Rows = list[list[str]]

TABLE = "in.c-contract.users"
USERS = 'id,name\n1,"Anna"\n2,"Bert"\n3,"Cleo"\n'
AWKWARD: Rows = [
    ["1", 'quotes " and "" and """'],
    ["2", "line\nbreaks\r\nof\rall kinds\n"],
    ["3", "delimiters , ; \t |"],
    ["4", " blanks around "],
    ["5", ""],
    ["6", "NULL"],
    ["7", "\\N \\ \\\\ \\n"],
    ["8", "žluťoučký kůň 😀 \u2028 \u00a0"],
    ["9", "000123"],
    ["10", "1e400"],
    ["11", "2024-01-31T10:20:30+00:00"],
    ["12", "'"],
    ["13", "x" * 1_000_000],
]
"""Values that must come out as they went in."""


class MappingBackendContract:
    """What every mapping backend does. Inherit, and give the fixture `backend`.

    ```python
    class TestMyBackend(MappingBackendContract):
        @pytest.fixture
        async def backend(self) -> AsyncIterator[MappingBackend]:
            backend = MyBackend()
            await backend.open()
            yield backend
            await backend.aclose()
    ```

    The backend must be empty. Needs pytest-trio with `trio_mode`. What a backend need not have it says
    itself (`has_types`, `loads_together`, `says_with_loads`, `keeps_branches_apart`,
    `files.takes_uploads`), or the class that
    inherits does.
    """

    has_aliases: ClassVar[bool] = True
    """Whether there can be aliases of tables; when False, making one must be refused."""
    has_parquet: ClassVar[bool] = True
    """Whether tables can be exported as Parquet; when False, it must be refused."""

    @pytest.fixture
    async def backend(self) -> AsyncIterator[MappingBackend]:
        """The backend, opened, with nothing in it."""
        raise NotImplementedError("inherit from the contract and give it a fixture `backend`")
        yield  # noqa: PT022 - who inherits closes it after this

    @pytest.fixture
    def scope(self) -> StorageScope:
        """Whose storage the tests use; projects `1` and `2` must be usable."""
        return StorageScope("1", run_id="10.20", token_id="5", token_description="contract")

    @pytest.fixture
    def storage(self, backend: MappingBackend, scope: StorageScope, tmp_path: Path) -> Storage:
        """The backend with what tests do again and again."""
        return Storage(backend, scope, tmp_path)

    # -- buckets ---------------------------------------------------------------------------------

    async def test_a_new_bucket_is_found_and_listed(
        self, backend: MappingBackend, scope: StorageScope
    ) -> None:
        before = datetime.now(UTC) - timedelta(seconds=2)

        made = await backend.tables.create_bucket(scope, "out", "b_1-x", description="about it")

        assert made == await backend.tables.bucket(scope, "out.c-b_1-x")
        assert (made.id, made.name, made.stage) == ("out.c-b_1-x", "c-b_1-x", "out")
        assert made.description == "about it"
        assert made.created > before
        await backend.tables.create_bucket(scope, "in", "z")
        await backend.tables.create_bucket(scope, "in", "a")
        buckets = await backend.tables.list_buckets(scope)
        assert [bucket.id for bucket in buckets] == ["in.c-a", "in.c-z", "out.c-b_1-x"]

    async def test_a_bucket_that_is_there_is_a_conflict(
        self, backend: MappingBackend, scope: StorageScope
    ) -> None:
        await backend.tables.create_bucket(scope, "in", "main")

        with pytest.raises(Conflict):
            await backend.tables.create_bucket(scope, "in", "main")

    @pytest.mark.parametrize(
        ("stage", "name"), [("sys", "main"), ("in", ""), ("in", "a.b"), ("in", 'x"y'), ("in", "ž")]
    )
    async def test_a_bucket_that_cannot_be_is_refused(
        self, backend: MappingBackend, scope: StorageScope, stage: str, name: str
    ) -> None:
        with pytest.raises(InvalidInput):
            await backend.tables.create_bucket(scope, stage, name)

        assert await backend.tables.list_buckets(scope) == []

    @pytest.mark.parametrize("bucket", ["in.c-none", "nonsense", "in.c-a.b", 'in.c-"', ""])
    async def test_a_bucket_that_is_not_there_is_not_found(
        self, backend: MappingBackend, scope: StorageScope, bucket: str
    ) -> None:
        for call in (
            backend.tables.bucket(scope, bucket),
            backend.tables.drop_bucket(scope, bucket),
            backend.tables.list_tables(scope, bucket),
        ):
            with pytest.raises(NotFound) as caught:
                await call
            assert (caught.value.kind, caught.value.id) == ("bucket", bucket)

    async def test_a_bucket_with_tables_is_dropped_by_force_only(self, storage: Storage) -> None:
        tables, scope = storage.tables, storage.scope
        await storage.load(USERS)

        with pytest.raises(Conflict):
            await tables.drop_bucket(scope, "in.c-contract")
        assert await storage.rows() == _parsed(USERS)

        await tables.drop_bucket(scope, "in.c-contract", force=True)
        with pytest.raises(NotFound):
            await tables.bucket(scope, "in.c-contract")
        with pytest.raises(NotFound):
            await tables.table(scope, TABLE)
        await storage.load(USERS)  # and all of it can be made again
        assert await storage.rows() == _parsed(USERS)

    # -- tables ----------------------------------------------------------------------------------

    async def test_a_new_table_is_empty(self, storage: Storage) -> None:
        tables, scope = storage.tables, storage.scope
        await tables.create_bucket(scope, "in", "contract")

        made = await tables.create_table(scope, TABLE, ["Id", "Name", "0"], primary_key=["Id"])

        assert made == await tables.table(scope, TABLE)
        assert (made.id, made.bucket, made.name) == (TABLE, "in.c-contract", "users")
        assert made.columns == ("Id", "Name", "0")
        assert made.primary_key == ("Id",)
        assert made.rows_count in {0, None}
        assert made.last_import_date is None
        assert not made.is_alias
        assert await storage.rows() == [["Id", "Name", "0"]]

    async def test_tables_are_listed_by_bucket(self, storage: Storage) -> None:
        for table in ("out.c-b.z", "in.c-a.y", "in.c-a.x"):
            await storage.load("id\n1\n", table_id=table)

        everything = await storage.tables.list_tables(storage.scope)
        of_one = await storage.tables.list_tables(storage.scope, "in.c-a")

        assert [table.id for table in everything] == ["in.c-a.x", "in.c-a.y", "out.c-b.z"]
        assert [table.id for table in of_one] == ["in.c-a.x", "in.c-a.y"]

    async def test_a_table_that_is_there_is_a_conflict(self, storage: Storage) -> None:
        await storage.load(USERS)

        with pytest.raises(Conflict):
            await storage.tables.create_table(storage.scope, TABLE, ["id"])

        assert await storage.rows() == _parsed(USERS)

    async def test_a_table_that_cannot_be_is_refused(self, storage: Storage) -> None:
        create, scope = storage.tables.create_table, storage.scope
        await storage.tables.create_bucket(scope, "in", "contract")

        for table_id in ("nonsense", "in.c-contract", "in.c-contract.a.b", 'in.c-contract.a"b'):
            with pytest.raises(InvalidInput):
                await create(scope, table_id, ["id"])
        for columns in ([], ["a", "a"], ["a", "A"], [""], ["_timestamp"], ["x" * 65]):
            with pytest.raises(InvalidInput):
                await create(scope, TABLE, columns)
        with pytest.raises(InvalidInput):
            await create(scope, TABLE, ["a"], primary_key=["b"])
        with pytest.raises(NotFound):
            await create(scope, "in.c-other.users", ["id"])

        assert await storage.tables.list_tables(scope) == []

    async def test_a_dropped_table_is_gone(self, storage: Storage) -> None:
        await storage.load(USERS)

        await storage.tables.drop_table(storage.scope, TABLE)

        assert await storage.tables.list_tables(storage.scope) == []
        await storage.load("other\nx\n")
        assert await storage.rows() == [["other"], ["x"]]

    @pytest.mark.parametrize("table", [TABLE, "nonsense", 'in.c-contract."', "in.c-a.b.c"])
    async def test_a_table_that_is_not_there_is_not_found(
        self, storage: Storage, table: str
    ) -> None:
        tables, scope = storage.tables, storage.scope
        target = storage.folder / "never"
        for call in (
            tables.table(scope, table),
            tables.drop_table(scope, table),
            tables.export(scope, table, ExportOptions(), target),
            tables.preview(scope, table, ExportOptions()),
            tables.delete_rows(scope, table, None),
            tables.add_columns(scope, table, ["a"]),
            tables.drop_column(scope, table, "a"),
            tables.set_primary_key(scope, table, ["a"]),
            tables.write_metadata(scope, table, "test", {"key": "value"}),
        ):
            with pytest.raises(NotFound) as caught:
                await call
            assert (caught.value.kind, caught.value.id) == ("table", table)
        assert not target.exists()

    async def test_columns_are_added_and_dropped(self, storage: Storage) -> None:
        tables, scope = storage.tables, storage.scope
        await storage.load("id,name\n1,a\n", primary_key=("id",))

        added = await tables.add_columns(scope, TABLE, ["x", "y"])
        assert added.columns == ("id", "name", "x", "y")
        assert await storage.rows() == [["id", "name", "x", "y"], ["1", "a", "", ""]]
        with pytest.raises(UserError):
            await tables.add_columns(scope, TABLE, ["name"])
        with pytest.raises(InvalidInput):
            await tables.add_columns(scope, TABLE, [" "])

        dropped = await tables.drop_column(scope, TABLE, "name")
        assert dropped.columns == ("id", "x", "y")
        assert await storage.rows() == [["id", "x", "y"], ["1", "", ""]]
        with pytest.raises(NotFound):
            await tables.drop_column(scope, TABLE, "name")
        with pytest.raises(InvalidInput):
            await tables.drop_column(scope, TABLE, "id")

    async def test_the_primary_key_can_be_changed(self, storage: Storage) -> None:
        change, scope = storage.tables.set_primary_key, storage.scope
        await storage.load("id,kind\n1,a\n2,a\n")

        assert (await change(scope, TABLE, ["id"])).primary_key == ("id",)
        assert set((await change(scope, TABLE, ["id", "kind"])).primary_key) == {"id", "kind"}
        with pytest.raises(MappingFailed):
            await change(scope, TABLE, ["kind"])
        with pytest.raises(InvalidInput):
            await change(scope, TABLE, ["nothing"])
        assert set((await storage.detail()).primary_key) == {"id", "kind"}
        assert (await change(scope, TABLE, [])).primary_key == ()

    # -- loading ---------------------------------------------------------------------------------

    async def test_a_load_makes_bucket_and_table(self, storage: Storage) -> None:
        result = await storage.load(USERS, primary_key=("id",))

        assert result == LoadResult(TABLE, imported_rows=3, total_rows=3, created=True)
        detail = await storage.detail()
        assert detail.columns == ("id", "name")
        assert detail.primary_key == ("id",)
        assert detail.rows_count in {3, None}
        assert detail.data_size_bytes is None or detail.data_size_bytes > 0
        assert detail.last_import_date is not None
        assert detail.last_change_date is not None
        assert (await storage.tables.bucket(storage.scope, "in.c-contract")).stage == "in"
        assert await storage.rows() == _parsed(USERS)

    async def test_a_full_load_replaces_all_rows(self, storage: Storage) -> None:
        await storage.load(USERS)

        result = await storage.load("id,name\n9,Zoe\n")

        assert result == LoadResult(TABLE, imported_rows=1, total_rows=1)
        assert await storage.rows() == [["id", "name"], ["9", "Zoe"]]

    async def test_an_incremental_load_without_a_key_appends(self, storage: Storage) -> None:
        await storage.load("id,name\n1,a\n1,a\n", incremental=True)

        result = await storage.load("id,name\n1,a\n2,b\n", incremental=True)

        assert (result.imported_rows, result.total_rows) == (2, 4)
        expected = [["id", "name"], ["1", "a"], ["1", "a"], ["1", "a"], ["2", "b"]]
        assert await storage.rows() == expected

    async def test_an_incremental_load_with_a_key_updates(self, storage: Storage) -> None:
        await storage.load("a,b,v\n1,1,x\n1,2,y\n2,1,z\n", primary_key=("a", "b"))

        result = await storage.load(
            "v,b,a\nnew,2,1\nadded,2,2\n", primary_key=("a", "b"), incremental=True
        )

        assert (result.imported_rows, result.total_rows) == (2, 4)
        expected = [
            ["a", "b", "v"],
            *(["1", "1", "x"], ["1", "2", "new"], ["2", "1", "z"], ["2", "2", "added"]),
        ]
        assert await storage.rows() == expected

    async def test_the_insert_strategy_keeps_rows_with_the_same_key(self, storage: Storage) -> None:
        await storage.load("id,v\n1,x\n", primary_key=("id",))

        await storage.load("id,v\n1,y\n", incremental=True, deduplication="insert")

        assert await storage.rows() == [["id", "v"], ["1", "x"], ["1", "y"]]

    @pytest.mark.parametrize("incremental", [False, True])
    async def test_of_rows_with_one_key_the_last_survives(
        self, storage: Storage, incremental: bool
    ) -> None:
        await storage.load("id,v\n0,old\n1,old\n", primary_key=("id",))
        rows = "".join(f"{number % 3},{number}\n" for number in range(1_000))

        result = await storage.load(f"id,v\n{rows}", incremental=incremental)

        assert (result.imported_rows, result.total_rows) == (3, 3)
        assert await storage.rows() == [["id", "v"], ["0", "999"], ["1", "997"], ["2", "998"]]

    async def test_columns_can_be_named_apart_from_the_data(self, storage: Storage) -> None:
        await storage.load("1,a\n", columns=("id", "name"))

        await storage.load("b,2\n", columns=("name", "id"), incremental=True)
        assert await storage.rows() == [["id", "name"], ["1", "a"], ["2", "b"]]
        await storage.load("header,line\n3,c\n", columns=("id", "name"), ignored_lines=1)
        assert await storage.rows() == [["id", "name"], ["3", "c"]]

    async def test_new_columns_are_added(self, storage: Storage) -> None:
        await storage.load("id\n1\n")

        result = await storage.load("x,id,y\na,2,b\n", incremental=True)

        assert result.new_columns == ("x", "y")
        assert await storage.rows() == [["id", "x", "y"], ["1", "", ""], ["2", "a", "b"]]

    async def test_new_columns_and_tables_can_be_refused(self, storage: Storage) -> None:
        with pytest.raises(NotFound):
            await storage.load(USERS, create=False)
        assert await storage.tables.list_buckets(storage.scope) == []
        await storage.load(USERS)

        with pytest.raises(MappingFailed):
            await storage.load("id,name,x\n1,a,b\n", add_columns=False)

        assert await storage.rows() == _parsed(USERS)

    async def test_a_load_for_a_new_table_refuses_one_that_is_there(self, storage: Storage) -> None:
        first = await storage.load(USERS, only_new=True, import_key="first")

        assert first.created
        with pytest.raises(Conflict):
            await storage.load("id,name\n9,z\n", only_new=True, import_key="second")
        assert (await storage.load(USERS, only_new=True, import_key="first")).repeated
        assert await storage.rows() == _parsed(USERS)

    @pytest.mark.parametrize("incremental", [False, True])
    @pytest.mark.parametrize(
        ("text", "options"),
        [
            ("id\n1\n", {}),  # a column is missing
            ("1\n", {"columns": ("id",)}),
            ("id,name,id\n1,a,2\n", {}),
            ("id,name,ID\n1,a,2\n", {}),
            ("id,name,\n1,a,2\n", {}),
            ("id,name,_timestamp\n1,a,2\n", {}),
            (f"id,name,{'x' * 65}\n1,a,2\n", {}),
            ("", {}),
            ("id,name\n1,a\n2\n", {}),
            ("id,name\n1,a\n2,b,c\n", {}),
            ('id,name\n1,"a\n', {}),
            ('id,name\n1,"a"b\n', {}),
            (b"id,name\n1,\xff\xfe\n", {}),
            (gzip.compress(USERS.encode(), mtime=0)[:-9], {}),
            (b"\x1f\x8bnonsense", {}),
        ],
    )
    async def test_data_that_does_not_fit_changes_nothing(
        self, storage: Storage, text: str | bytes, options: dict[str, Any], incremental: bool
    ) -> None:
        await storage.load(USERS, primary_key=("id",))
        before = await storage.detail()

        with pytest.raises(MappingFailed) as caught:
            await storage.load(text, incremental=incremental, **options)

        assert caught.value.message
        assert await storage.detail() == before
        assert await storage.rows() == _parsed(USERS)

    async def test_a_load_that_fails_makes_no_table(self, storage: Storage) -> None:
        for text in ("", "id,name\n1\n", "id,id\n1,2\n"):
            with pytest.raises(MappingFailed):
                await storage.load(text)

        assert await storage.tables.list_buckets(storage.scope) == []

    @pytest.mark.parametrize(
        "options",
        [
            {"delimiter": ""},
            {"delimiter": ",,"},
            {"delimiter": "/t"},
            {"delimiter": "\n"},
            {"delimiter": "ž"},
            {"delimiter": '"'},
            {"enclosure": "''"},
            {"escaped_by": "\\", "enclosure": '"'},
            {"ignored_lines": -1},
            {"columns": ("id", "_timestamp")},
            {"columns": ("id", "x" * 65)},
        ],
    )
    async def test_options_that_cannot_be_are_refused(
        self, storage: Storage, options: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidInput):
            await storage.load(USERS, **options)

        assert await storage.tables.list_buckets(storage.scope) == []

    async def test_values_come_out_as_they_went_in(self, storage: Storage) -> None:
        await storage.load(_written([["id", "value"], *AWKWARD]))

        assert await storage.rows() == [["id", "value"], *sorted(AWKWARD)]

    @pytest.mark.parametrize(
        ("text", "options"),
        [
            (b"\xef\xbb\xbf" + USERS.encode(), {}),
            (b'\xef\xbb\xbf"id",name\r\n1,Anna\r\n2,Bert\r\n3,Cleo', {}),
            (USERS.replace("\n", "\r\n"), {}),
            (USERS.replace("\n", "\r"), {}),
            (USERS.rstrip("\n"), {}),
            (USERS + "\n\n", {}),
            (gzip.compress(USERS.encode(), mtime=0), {}),
            (
                gzip.compress(USERS[:9].encode(), mtime=0)
                + gzip.compress(USERS[9:].encode(), mtime=0),
                {},
            ),
            (USERS.replace(",", ";"), {"delimiter": ";"}),
            (USERS.replace(",", "\t"), {"delimiter": "\t"}),
            (USERS.replace(",", "\t"), {"delimiter": "\\t"}),
            (USERS.replace('"', "'"), {"enclosure": "'"}),
            (USERS.replace('"', ""), {"enclosure": ""}),
            ("id,na\\me\n1,Anna\n2,Bert\n\\3,Cleo\n", {"escaped_by": "\\", "enclosure": ""}),
            ("id,name\n1,Anna\r\n2,Bert\r3,Cleo\n", {}),
        ],
    )
    async def test_dialects_are_read(
        self, storage: Storage, text: str | bytes, options: dict[str, Any]
    ) -> None:
        await storage.load(text, **options)

        assert await storage.rows() == _parsed(USERS)

    async def test_slices_are_read_together(self, storage: Storage) -> None:
        slices = (
            storage.write("1,a\n2,b"),  # the last line of a slice need not end
            storage.write(gzip.compress(b'3,"c\nd"\n')),
            storage.write(""),
            storage.write("4,e\r\n5,f\r\n"),
        )

        result = await storage.load_files(slices, columns=("id", "name"))

        assert result.imported_rows == 5
        rows = [["1", "a"], ["2", "b"], ["3", "c\nd"], ["4", "e"], ["5", "f"]]
        assert await storage.rows() == [["id", "name"], *rows]

    async def test_no_file_or_an_empty_one_empties_a_table(self, storage: Storage) -> None:
        result = await storage.load_files((), columns=("id", "name"))
        assert (result.created, result.total_rows) == (True, 0)
        assert await storage.rows() == [["id", "name"]]
        await storage.load(USERS)

        await storage.load_files((), columns=("id", "name"))
        assert await storage.rows() == [["id", "name"]]
        await storage.load(USERS)
        await storage.load("", columns=("id", "name"))
        assert await storage.rows() == [["id", "name"]]
        await storage.load(USERS)
        await storage.load("id,name")
        assert await storage.rows() == [["id", "name"]]

    async def test_several_files_without_names_are_refused(self, storage: Storage) -> None:
        one = storage.write(USERS)

        for paths in ((), (one, one)):
            with pytest.raises(InvalidInput):
                await storage.load_files(paths)

    async def test_a_path_may_be_an_open_descriptor(self, storage: Storage) -> None:
        with storage.write(gzip.compress(USERS.encode())).open("rb") as file:
            await storage.load_files((Path(f"/proc/self/fd/{file.fileno()}"),))

        assert await storage.rows() == _parsed(USERS)

    async def test_links_and_other_things_are_not_read(self, storage: Storage) -> None:
        link = storage.folder / "link"
        link.symlink_to(storage.write(USERS))

        for path in (link, storage.folder, storage.folder / "missing"):
            with pytest.raises(MappingFailed):
                await storage.load_files((path,))

    async def test_values_that_mean_null_become_empty(self, storage: Storage) -> None:
        text = "id,name\n1,nil\n2,\n3,x\n"

        await storage.load(text, treat_values_as_null=("nil",))
        assert await storage.rows() == [["id", "name"], ["1", ""], ["2", ""], ["3", "x"]]
        await storage.load(text, treat_values_as_null=())
        assert await storage.rows() == [["id", "name"], ["1", "nil"], ["2", ""], ["3", "x"]]

    async def test_a_load_sets_the_primary_key(self, storage: Storage) -> None:
        await storage.load("id,kind\n1,a\n2,a\n")

        await storage.load("id,kind\n1,a\n2,a\n", primary_key=("id",))
        assert (await storage.detail()).primary_key == ("id",)
        await storage.load("id,kind\n1,b\n", incremental=True)  # None keeps it
        assert await storage.rows() == [["id", "kind"], ["1", "b"], ["2", "a"]]
        await storage.load("id,kind\n1,b\n", primary_key=(), incremental=True)
        assert (await storage.detail()).primary_key == ()

    async def test_a_key_that_rows_contradict_is_a_warning(self, storage: Storage) -> None:
        await storage.load("id,kind\n1,a\n2,a\n", primary_key=("id",))

        result = await storage.load("id,kind\n3,a\n", primary_key=("kind",), incremental=True)

        assert len(result.warnings) == 1
        assert (await storage.detail()).primary_key == ("id",)
        assert await storage.rows() == [["id", "kind"], ["1", "a"], ["2", "a"], ["3", "a"]]

    async def test_rows_are_deleted_before_a_load(self, storage: Storage) -> None:
        where = (
            DeleteWhere((Filter("id", ("1", "2")), Filter("name", ("Bert",), "ne"))),
            DeleteWhere((Filter("name", ("Cleo",)),)),
        )
        await storage.load(USERS, delete_where=where)  # the table is new: nothing to delete
        assert await storage.rows() == _parsed(USERS)

        await storage.load("id,name\n1,again\n", incremental=True, delete_where=where)

        assert await storage.rows() == [["id", "name"], ["1", "again"], ["2", "Bert"]]

    async def test_a_deletion_that_cannot_be_is_told_from_a_load_that_cannot(
        self, storage: Storage
    ) -> None:
        await storage.load(USERS)
        where = (DeleteWhere((Filter("nope", ("1",)),)),)

        with pytest.raises(InvalidInput) as caught:
            await storage.load(USERS, incremental=True, delete_where=where)

        assert caught.value.path.startswith("delete_where")
        assert await storage.rows() == _parsed(USERS)

    async def test_an_import_key_works_once(self, storage: Storage) -> None:
        first = await storage.load(USERS, incremental=True, import_key="job-1")

        second = await storage.load("id,name\n9,Zoe\n", incremental=True, import_key="job-1")

        assert not first.repeated
        assert second.repeated
        assert await storage.rows() == _parsed(USERS)
        other = await storage.load("id,name\n9,Zoe\n", incremental=True, import_key="job-2")
        assert not other.repeated
        elsewhere = await storage.load(USERS, table_id="in.c-contract.b", import_key="job-1")
        assert not elsewhere.repeated

    async def test_a_failed_load_does_not_use_its_import_key_up(self, storage: Storage) -> None:
        with pytest.raises(MappingFailed):
            await storage.load("id,name\n1\n", import_key="job-1")

        result = await storage.load(USERS, import_key="job-1")

        assert not result.repeated
        assert await storage.rows() == _parsed(USERS)

    # -- typed tables ----------------------------------------------------------------------------

    async def test_types_are_kept_or_refused(self, storage: Storage) -> None:
        defined = (ColumnDefinition("id", "INTEGER", nullable=False), ColumnDefinition("x", "DATE"))
        tables, scope = storage.tables, storage.scope
        await tables.create_bucket(scope, "in", "contract")
        if not storage.has_types:
            with pytest.raises(InvalidInput):
                await tables.create_table(scope, TABLE, ["id", "x"], definitions=defined)
            with pytest.raises(InvalidInput):
                await storage.load("1,2024-01-31\n", columns=("id", "x"), definitions=defined)
            with pytest.raises(NotFound):
                await storage.detail()
            return

        made = await tables.create_table(
            scope, TABLE, ["id", "x", "free"], primary_key=["id"], definitions=defined
        )

        assert made.is_typed
        assert [each.name for each in made.definitions] == ["id", "x", "free"]
        assert [each.base_type for each in made.definitions[:2]] == ["INTEGER", "DATE"]
        assert [each.nullable for each in made.definitions] == [False, True, True]
        assert tables.typed(defined[1]).type == made.definitions[1].type
        with pytest.raises(InvalidInput):
            tables.typed(ColumnDefinition("id", "NONSENSE"))
        await tables.add_columns(scope, TABLE, ["y"], definitions=[ColumnDefinition("y", "FLOAT")])
        assert (await tables.drop_column(scope, TABLE, "x")).definitions[-1].base_type == "FLOAT"
        assert not (await storage.load(USERS, table_id="in.c-contract.plain")).new_columns
        assert not (await storage.detail("in.c-contract.plain")).is_typed

    async def test_a_load_can_make_a_typed_table(self, storage: Storage) -> None:
        if not storage.has_types:
            return
        defined = (ColumnDefinition("id", "INTEGER"), ColumnDefinition("x", "NUMERIC"))
        options: dict[str, Any] = {"columns": ("id", "x"), "definitions": defined}

        await storage.load('1,1.5\n2,""\n', primary_key=("id",), **options)

        detail = await storage.detail()
        assert (detail.is_typed, detail.primary_key) == (True, ("id",))
        _, rows = await storage.tables.preview(storage.scope, TABLE, ExportOptions())
        assert sorted((row[0], row[1] is None) for row in rows) == [("1", False), ("2", True)]
        assert [row[0] for row in (await storage.rows())[1:]] == ["1", "2"]
        one = Filter("id", ("2.0",))
        assert len(await storage.exported(ExportOptions(filters=(one,)))) == 2
        no_value = Filter("x", ("1.5",), "ne")
        assert len(await storage.exported(ExportOptions(filters=(no_value,)))) == 1

        before = await storage.rows()
        for bad in ("3,x\n", '"",1\n', "1.5,1\n"):
            with pytest.raises(MappingFailed):
                await storage.load(bad, incremental=True, **options)
        assert await storage.rows() == before

    # -- aliases ---------------------------------------------------------------------------------

    async def test_an_alias_shows_another_table(self, storage: Storage) -> None:
        """Unless `has_aliases` says that there are none."""
        await storage.load(USERS, primary_key=("id",))
        await storage.tables.create_bucket(storage.scope, "out", "shown")
        alias = "out.c-shown.users"
        create = storage.tables.create_alias(storage.scope, alias, TABLE)
        if not self.has_aliases:
            with pytest.raises(InvalidInput):
                await create
            return

        made = await create

        assert made == await storage.detail(alias)
        source = await storage.detail()
        assert (made.id, made.bucket, made.name) == (alias, "out.c-shown", "users")
        assert (made.is_alias, made.source, source.is_alias) == (True, source, False)
        assert (made.columns, made.primary_key) == (("id", "name"), ("id",))
        assert await storage.rows(alias) == _parsed(USERS)
        _, preview = await storage.tables.preview(storage.scope, alias, ExportOptions(limit=1))
        assert len(preview) == 1
        listed = await storage.tables.list_tables(storage.scope, "out.c-shown")
        assert listed == [made]

        await storage.tables.write_metadata(
            storage.scope, alias, "me", {"k": "alias"}, {"name": {"k": "of the alias"}}
        )
        await storage.load("id,name\n4,Dora\n", incremental=True, primary_key=("id",))
        await storage.tables.add_columns(storage.scope, TABLE, ["more"])
        after, source = await storage.detail(alias), await storage.detail()
        assert (after.columns, after.rows_count) == (("id", "name", "more"), 4)
        assert after.last_import_date == source.last_import_date
        assert [entry.value for entry in after.metadata] == ["alias"]
        assert [entry.value for entry in after.column_metadata["name"]] == ["of the alias"]
        assert (source.metadata, source.column_metadata) == ((), {})

    async def test_an_alias_can_only_be_read(self, storage: Storage) -> None:
        if not self.has_aliases:
            return
        await storage.load(USERS)
        tables, scope, alias = storage.tables, storage.scope, "in.c-contract.alias"
        await tables.create_alias(scope, alias, TABLE)

        with pytest.raises(UserError):
            await storage.load(USERS, table_id=alias)
        for change in (
            tables.delete_rows(scope, alias, None),
            tables.add_columns(scope, alias, ["x"]),
            tables.drop_column(scope, alias, "name"),
            tables.set_primary_key(scope, alias, ["id"]),
            tables.create_alias(scope, "in.c-contract.second", alias),
        ):
            with pytest.raises(UserError):
                await change
        for table_id in (TABLE, alias):
            with pytest.raises(Conflict):
                await tables.create_alias(scope, table_id, TABLE)
        with pytest.raises(NotFound):
            await tables.create_alias(scope, "in.c-contract.x", "in.c-contract.none")
        with pytest.raises(NotFound):
            await tables.create_alias(scope, "in.c-none.x", TABLE)
        assert await storage.rows(alias) == await storage.rows() == _parsed(USERS)

        with pytest.raises(Conflict):
            await tables.drop_table(scope, TABLE)
        await tables.drop_table(scope, alias)
        assert await storage.rows() == _parsed(USERS)
        await tables.create_alias(scope, alias, TABLE)
        await tables.drop_bucket(scope, "in.c-contract", force=True)
        assert await tables.list_tables(scope) == []

    # -- branches --------------------------------------------------------------------------------

    async def test_branches_are_kept_apart(self, storage: Storage) -> None:
        """Or no scope has a branch: `keeps_branches_apart` says which."""
        if not storage.backend.keeps_branches_apart:
            return
        backend, main = storage.backend, storage.scope
        one, two = (replace(main, branch=branch) for branch in ("101", "102"))
        await storage.load(USERS)
        file = await storage.upload("main.txt", b"main", tags=["t"])

        for scope in (one, two):
            assert await backend.tables.list_buckets(scope) == []
            with pytest.raises(NotFound):
                await backend.tables.table(scope, TABLE)
            with pytest.raises(NotFound):
                await backend.files.file(scope, file.id)
            assert await backend.files.list_files(scope, FileQuery(tags=("t",))) == []
        path = storage.write("id,name\n9,Zoe\n")
        await backend.tables.load(one, [TableLoad(TABLE, (path,))])
        await backend.tables.write_metadata(one, TABLE, "me", {"of": "one"})
        own = await backend.files.upload(one, FileUpload("one.txt", tags=("t",)), path)

        _, rows = await backend.tables.preview(one, TABLE, ExportOptions())
        assert rows == [("9", "Zoe")]
        assert [file.id for file in await backend.files.list_files(one, FileQuery())] == [own.id]
        assert await backend.files.list_files(two, FileQuery()) == []
        assert await storage.rows() == _parsed(USERS)
        assert (await storage.detail()).metadata == ()
        assert await storage.found(FileQuery()) == [file.id]

        await backend.drop_branch(main.project, "101")
        await backend.drop_branch(main.project, "101")
        assert await backend.tables.list_buckets(one) == []
        assert await backend.files.list_files(one, FileQuery()) == []
        assert await storage.rows() == _parsed(USERS)
        assert await storage.found(FileQuery()) == [file.id]

    # -- loads of several tables -----------------------------------------------------------------

    async def test_several_tables_land_together_or_not_at_all(self, storage: Storage) -> None:
        if not storage.loads_together:
            return
        good, bad = storage.write(USERS), storage.write("id,name\n1\n")
        other = "out.c-more.orders"

        with pytest.raises(MappingFailed):
            await storage.tables.load(
                storage.scope, [TableLoad(other, (good,)), TableLoad(TABLE, (bad,))]
            )
        assert await storage.tables.list_buckets(storage.scope) == []

        results = await storage.tables.load(
            storage.scope, [TableLoad(other, (good,)), TableLoad(TABLE, (good,))]
        )
        assert [result.table_id for result in results] == [other, TABLE]
        assert await storage.rows(other) == await storage.rows() == _parsed(USERS)

    async def test_a_load_can_say_what_a_table_is(self, storage: Storage) -> None:
        if not storage.says_with_loads:
            return
        said = (
            MetadataChange("system", {"made": "1"}, only_when_created=True),
            MetadataChange("author", {"a": "1"}, {"name": {"b": "2"}}),
            MetadataChange("author", {"": "no key"}),
            MetadataChange("author", {"c": "3"}, {"nothing": {"b": "2"}}),
        )

        first = await storage.load(USERS, metadata=said, import_key="1")
        before = await storage.detail()
        assert [index for index, _ in first.refused_metadata] == [2, 3]
        assert {entry.key: entry.value for entry in before.metadata} == {"made": "1", "a": "1"}
        assert [entry.key for entry in before.column_metadata["name"]] == ["b"]
        assert await storage.rows() == _parsed(USERS)

        again = MetadataChange("system", {"made": "2"}, only_when_created=True)
        changed = MetadataChange("author", {"a": "2"})
        await storage.load(USERS, metadata=(changed,), import_key="1")  # repeated: nothing is done
        assert await storage.detail() == before
        await storage.load(USERS, metadata=(again, changed), import_key="2")
        after = await storage.detail()
        assert {entry.key: entry.value for entry in after.metadata} == {"made": "1", "a": "2"}

    async def test_a_cancelled_load_changes_nothing(self, storage: Storage) -> None:
        await storage.load(USERS)

        with trio.CancelScope() as cancelled:
            cancelled.cancel()
            await storage.load("id,name\n9,Zoe\n")

        assert cancelled.cancelled_caught
        assert await storage.rows() == _parsed(USERS)

    async def test_loads_of_many_tables_at_once_all_land(self, storage: Storage) -> None:
        paths = [storage.write(f"id,name\n{number},x\n") for number in range(8)]

        async with trio.open_nursery() as nursery:
            for number, path in enumerate(paths):
                for table in (f"in.c-new.t{number}", "in.c-new.shared"):
                    load = TableLoad(table, (path,), incremental=True)
                    nursery.start_soon(storage.tables.load, storage.scope, [load])

        for number in range(8):
            assert await storage.rows(f"in.c-new.t{number}") == [["id", "name"], [str(number), "x"]]
        shared = await storage.rows("in.c-new.shared")
        assert shared == [["id", "name"], *([str(number), "x"] for number in range(8))]
        buckets = await storage.tables.list_buckets(storage.scope)
        assert [bucket.id for bucket in buckets] == ["in.c-new"]

    # -- reading ---------------------------------------------------------------------------------

    async def test_an_export_is_rfc_4180_with_every_field_quoted(self, storage: Storage) -> None:
        await storage.load('id,v\n1,"a ""b"" ,\n\r\nc"\n')

        result, content = await storage.export(ExportOptions())

        assert content == b'"id","v"\n"1","a ""b"" ,\n\r\nc"\n'
        assert (result.rows, result.bytes) == (1, len(content))

    async def test_an_export_can_leave_the_header_out_or_be_packed(self, storage: Storage) -> None:
        await storage.load(USERS)
        one = ExportOptions(filters=(Filter("id", ("1",)),), header=False)

        assert (await storage.export(one))[1] == b'"1","Anna"\n'
        none = ExportOptions(filters=(Filter("id", ("x",)),), header=False)
        assert (await storage.export(none))[1] == b""
        result, packed = await storage.export(ExportOptions(gzip=True, columns=("id",), limit=0))
        assert gzip.decompress(packed) == b'"id"\n'
        assert (result.rows, result.bytes) == (0, len(packed))

    async def test_an_export_can_be_parquet(self, storage: Storage) -> None:
        """In slices, unless `has_parquet` says that there is none."""
        await storage.load(USERS)
        target, options = storage.folder / "exported", ExportOptions(file_type="parquet")
        export = storage.tables.export(storage.scope, TABLE, options, target)
        if not self.has_parquet:
            with pytest.raises(InvalidInput):
                await export
            assert not target.exists()
            return

        result = await export

        slices = [path.read_bytes() for path in target.iterdir()]
        assert {(each[:4], each[-4:]) for each in slices} == {(b"PAR1", b"PAR1")}
        assert (result.rows, result.bytes) == (3, sum(map(len, slices)))

    async def test_an_export_overwrites_nothing(self, storage: Storage) -> None:
        await storage.load(USERS)
        aim = storage.write("mine")
        link, dangling = storage.folder / "link", storage.folder / "dangling"
        link.symlink_to(aim)
        dangling.symlink_to(storage.folder / "nowhere")

        for target in (aim, link, dangling):
            with pytest.raises(UserError):
                await storage.tables.export(storage.scope, TABLE, ExportOptions(), target)

        assert aim.read_text() == "mine"
        assert not (storage.folder / "nowhere").exists()

    @pytest.mark.parametrize(
        ("options", "ids"),
        [
            (ExportOptions(filters=(Filter("v", ("b",)),)), "2"),
            (ExportOptions(filters=(Filter("v", ("B",)),)), ""),
            (
                ExportOptions(
                    filters=(
                        Filter(
                            "v",
                            ("b", "10"),
                        ),
                    )
                ),
                "24",
            ),
            (ExportOptions(filters=(Filter("v", ("b",), "ne"),)), "1345"),
            (ExportOptions(filters=(Filter("v", ("b", "10", ""), "ne"),)), "15"),
            (ExportOptions(filters=(Filter("v", ("",)),)), "3"),
            (ExportOptions(filters=(Filter("v", ("9",), "gt", "INTEGER"),)), "4"),
            (ExportOptions(filters=(Filter("v", ("9.0",), "ge", "DOUBLE"),)), "45"),
            (ExportOptions(filters=(Filter("v", ("10",), "lt", "INTEGER"),)), "5"),
            (ExportOptions(filters=(Filter("v", ("a",), "le"),)), "1345"),
            (ExportOptions(filters=(Filter("v", ("10.00",), "eq", "NUMERIC"),)), "4"),
            (ExportOptions(filters=(Filter("v", ("9", "1e1"), "eq", "INTEGER"),)), "45"),
            (ExportOptions(filters=(Filter("v", ("b",)), Filter("id", ("1",)))), ""),
            (ExportOptions(filters=(Filter("v", ("' OR '1'='1",)),)), ""),
            (ExportOptions(order_by=(OrderBy("v"),), limit=2), "34"),
            (ExportOptions(order_by=(OrderBy("v", descending=True),), limit=2), "21"),
            (ExportOptions(order_by=(OrderBy("v", data_type="INTEGER"),), limit=2), "54"),
        ],
    )
    async def test_rows_are_chosen(
        self, storage: Storage, options: ExportOptions, ids: str
    ) -> None:
        await storage.load("id,v\n1,a\n2,b\n3,\n4,10\n5,9\n")

        rows = (await storage.exported(options))[1:]
        if not options.order_by:
            rows.sort()

        assert "".join(row[0] for row in rows) == ids

    async def test_columns_are_chosen_and_ordered(self, storage: Storage) -> None:
        await storage.load("a,b,c\n1,2,3\n")

        assert await storage.exported(ExportOptions(columns=("c", "a"))) == [["c", "a"], ["3", "1"]]
        extra = ExportOptions(columns=("a",), include_internal_timestamp=True)
        header, row = await storage.exported(extra)
        assert header == ["a", "_timestamp"]
        assert row[0] == "1"
        assert row[1]

    @pytest.mark.parametrize(
        "options",
        [
            ExportOptions(columns=("nothing",)),
            ExportOptions(columns=("ID",)),
            ExportOptions(columns=("_timestamp",)),
            ExportOptions(filters=(Filter("nothing", ("x",)),)),
            ExportOptions(filters=(Filter("id", ()),)),
            ExportOptions(filters=(Filter("id", ("1", "2"), "gt"),)),
            ExportOptions(filters=(Filter("id", ("x",), "gt", "INTEGER"),)),
            ExportOptions(filters=(Filter("id", ("1",), "gt", "NONSENSE"),)),
            ExportOptions(order_by=(OrderBy("nothing"),)),
            ExportOptions(limit=-1),
        ],
    )
    async def test_options_that_do_not_fit_the_table_are_refused(
        self, storage: Storage, options: ExportOptions
    ) -> None:
        await storage.load(USERS)
        target = storage.folder / "never"

        with pytest.raises(InvalidInput):
            await storage.tables.export(storage.scope, TABLE, options, target)

        assert not target.exists()

    async def test_a_preview_shows_rows(self, storage: Storage) -> None:
        await storage.load("id,v\n" + "".join(f"{number:03d},x\n" for number in range(200)))
        preview, scope = storage.tables.preview, storage.scope

        columns, rows = await preview(scope, TABLE, ExportOptions())
        assert columns == ("id", "v")
        assert len(rows) == 100
        options = ExportOptions(columns=("id",), limit=2, order_by=(OrderBy("id"),))
        assert await preview(scope, TABLE, options) == (("id",), [("000",), ("001",)])

    async def test_who_reads_what_changed_sees_every_row_once(self, storage: Storage) -> None:
        await storage.load(USERS, primary_key=("id",))
        first = (await storage.detail()).last_import_date
        assert first is not None
        assert await storage.changed(since=first) == []

        await storage.load("id,name\n3,Cleo\n4,Dora\n", incremental=True)
        second = (await storage.detail()).last_import_date
        assert second is not None
        assert second > first
        # Cleo came again and is the same: a backend may say that she has changed
        assert await storage.changed(since=first) in (
            [["4", "Dora"]],
            [["3", "Cleo"], ["4", "Dora"]],
        )
        assert await storage.changed(since=second) == []

        await storage.load("id,name\n2,Berta\n", incremental=True)
        assert await storage.changed(since=second) == [["2", "Berta"]]
        assert ["1", "Anna"] in await storage.changed(until=first)
        await storage.load(USERS)
        third = await storage.changed(since=second)
        assert third == _parsed(USERS)[1:]

    async def test_rows_are_deleted(self, storage: Storage) -> None:
        delete, scope = storage.tables.delete_rows, storage.scope
        await storage.load(USERS)

        assert await delete(scope, TABLE, DeleteWhere((Filter("id", ("1", "x")),))) == 1
        assert await storage.rows() == [["id", "name"], ["2", "Bert"], ["3", "Cleo"]]
        now = datetime.now(UTC)
        assert await delete(scope, TABLE, DeleteWhere(changed_until=now - timedelta(days=1))) == 0
        with pytest.raises(InvalidInput):
            await delete(scope, TABLE, DeleteWhere((Filter("nothing", ("1",)),)))
        assert await delete(scope, TABLE, None) == 2
        assert await storage.rows() == [["id", "name"]]
        assert (await storage.detail()).rows_count in {0, None}

    # -- metadata --------------------------------------------------------------------------------

    async def test_metadata_are_written_and_replaced(self, storage: Storage) -> None:
        write, scope = storage.tables.write_metadata, storage.scope
        await storage.load(USERS)

        await write(scope, TABLE, "system", {"a": "1", "b": ""}, {"id": {"type": "INT"}})
        before = (await storage.detail()).metadata
        await write(scope, TABLE, "system", {"a": "2"})
        await write(scope, TABLE, "user", {"a": "3"}, {"id": {"type": "TEXT"}})
        await write(scope, "in.c-contract", "user", {"bucket": "yes"})

        detail = await storage.detail()
        found = {(entry.provider, entry.key): entry.value for entry in detail.metadata}
        assert found == {("system", "a"): "2", ("system", "b"): "", ("user", "a"): "3"}
        ids = {(entry.provider, entry.key): entry.id for entry in detail.metadata}
        assert all(ids[entry.provider, entry.key] == entry.id for entry in before)
        column = {entry.provider: entry.value for entry in detail.column_metadata["id"]}
        assert column == {"system": "INT", "user": "TEXT"}
        (entry,) = (await storage.tables.bucket(scope, "in.c-contract")).metadata
        assert (entry.key, entry.value, entry.provider) == ("bucket", "yes", "user")
        assert entry.timestamp.tzinfo is not None

    async def test_metadata_that_cannot_be_are_refused(self, storage: Storage) -> None:
        write, scope = storage.tables.write_metadata, storage.scope
        await storage.load(USERS)

        with pytest.raises(InvalidInput):
            await write(scope, TABLE, "", {"a": "1"})
        with pytest.raises(InvalidInput):
            await write(scope, TABLE, "user", {"": "1"})
        with pytest.raises(NotFound):
            await write(scope, TABLE, "user", {"a": "1"}, {"nothing": {"x": "y"}})
        with pytest.raises(NotFound):
            await write(scope, "in.c-none", "user", {"a": "1"})

        assert (await storage.detail()).metadata == ()

    async def test_metadata_go_with_what_they_are_about(self, storage: Storage) -> None:
        tables, scope = storage.tables, storage.scope
        await storage.load(USERS)
        await tables.write_metadata(scope, TABLE, "user", {"a": "1"}, {"name": {"b": "2"}})

        await tables.drop_column(scope, TABLE, "name")
        await tables.add_columns(scope, TABLE, ["name"])
        assert (await storage.detail()).column_metadata.get("name", ()) == ()
        await tables.drop_table(scope, TABLE)
        await storage.load(USERS)
        assert (await storage.detail()).metadata == ()

    async def test_an_entry_of_metadata_is_deleted_or_that_is_refused(
        self, storage: Storage
    ) -> None:
        tables, scope = storage.tables, storage.scope
        await storage.load(USERS)
        await tables.write_metadata(scope, TABLE, "user", {"a": "1", "b": "2"}, {"id": {"c": "3"}})
        await tables.write_metadata(scope, "in.c-contract", "user", {"d": "4"})
        detail = await storage.detail()
        first, second = detail.metadata
        (of_column,) = detail.column_metadata["id"]
        (of_bucket,) = (await tables.bucket(scope, "in.c-contract")).metadata
        try:
            await tables.delete_metadata(scope, TABLE, first.id)
        except InvalidInput:
            assert (await storage.detail()).metadata == (first, second)
            return

        foreign = [
            (TABLE, first.id, None),
            (TABLE, of_column.id, None),
            (TABLE, second.id, "id"),
            (TABLE, of_column.id, "name"),
            ("in.c-contract", second.id, None),
            (TABLE, "x", None),
            (TABLE, "9" * 30, None),
        ]
        for object_id, entry_id, column in foreign:
            with pytest.raises(NotFound) as caught:
                await tables.delete_metadata(scope, object_id, entry_id, column=column)
            assert caught.value.kind == "metadata"
        assert (await storage.detail()).metadata == (second,)

        await tables.delete_metadata(scope, TABLE, of_column.id, column="id")
        await tables.delete_metadata(scope, "in.c-contract", of_bucket.id)

        assert not (await storage.detail()).column_metadata.get("id")
        assert (await tables.bucket(scope, "in.c-contract")).metadata == ()

    # -- how things are shown --------------------------------------------------------------------

    async def test_a_bucket_is_shown_as_wanted_or_that_is_refused(self, storage: Storage) -> None:
        tables, scope = storage.tables, storage.scope
        first = await tables.create_bucket(scope, "in", "first")
        assert first.color is None
        if not storage.backend.has_display_names:
            with pytest.raises(InvalidInput):
                await tables.update_bucket(scope, first.id, display_name="One")
            return

        second = await tables.create_bucket(
            scope, "in", "second", display_name="Two", color="#ff0000"
        )
        assert (first.display_name, second.display_name, second.color) == (
            "first",
            "Two",
            "#ff0000",
        )
        with pytest.raises(Conflict):
            await tables.create_bucket(scope, "in", "third", display_name="Two")
        with pytest.raises(Conflict):
            await tables.update_bucket(scope, first.id, display_name="Two")
        with pytest.raises(InvalidInput):
            await tables.update_bucket(scope, first.id, display_name="$$$")
        same = await tables.create_bucket(scope, "out", "x", display_name="Two")  # of another stage
        assert same.display_name == "Two"

        renamed = await tables.update_bucket(scope, second.id, display_name="Deux")
        assert (renamed.display_name, renamed.color) == ("Deux", "#ff0000")
        again = await tables.update_bucket(scope, second.id, display_name="Deux", color="")

        assert again == await tables.bucket(scope, second.id)
        assert (again.display_name, again.color, again.id) == ("Deux", None, "in.c-second")
        assert (await tables.update_bucket(scope, first.id, display_name="Two")).id == first.id

    async def test_a_table_is_shown_as_wanted_or_that_is_refused(self, storage: Storage) -> None:
        tables, scope = storage.tables, storage.scope
        if not storage.backend.has_display_names:
            await storage.load(USERS)
            with pytest.raises(InvalidInput):
                await tables.update_table(scope, TABLE, display_name="People")
            return

        await storage.load(USERS, display_name="People")
        other = f"{TABLE}2"
        with pytest.raises(Conflict):
            await storage.load(USERS, table_id=other, display_name="People")
        with pytest.raises(Conflict):
            await tables.create_table(scope, other, ["id"], display_name="People")
        made = await tables.create_table(scope, other, ["id"], display_name="Others")
        assert ((await storage.detail()).display_name, made.display_name) == ("People", "Others")
        with pytest.raises(Conflict):
            await tables.update_table(scope, other, display_name="People")

        await tables.update_table(scope, TABLE, display_name="People")  # the name it has
        renamed = await tables.update_table(scope, TABLE, display_name="Folk")

        assert renamed == await storage.detail()
        assert (renamed.display_name, renamed.name, renamed.rows_count) == ("Folk", "users", 3)
        await storage.load(USERS, display_name="ignored for a table that is there")
        assert (await storage.detail()).display_name == "Folk"

    # -- tables as a whole -----------------------------------------------------------------------

    async def test_tables_are_swapped_or_that_is_refused(self, storage: Storage) -> None:
        tables, scope = storage.tables, storage.scope
        other = "out.c-other.Numbers"
        await storage.load(USERS, primary_key=("id",))
        await storage.load("n\n7\n", table_id=other)
        await tables.write_metadata(scope, TABLE, "user", {"of": "users"}, {"name": {"k": "v"}})
        users, numbers = await storage.detail(), await storage.detail(other)
        try:
            await tables.swap_tables(scope, TABLE, other, import_key="once")
        except InvalidInput:
            assert (await storage.detail(), await storage.detail(other)) == (users, numbers)
            return
        await tables.swap_tables(scope, TABLE, other, import_key="once")

        now, then = await storage.detail(), await storage.detail(other)
        assert (now.id, now.name, now.bucket) == (TABLE, "users", "in.c-contract")
        assert (now.columns, now.primary_key, now.metadata) == (("n",), (), ())
        assert (then.columns, then.primary_key) == (("id", "name"), ("id",))
        assert (then.metadata, then.column_metadata) == (users.metadata, users.column_metadata)
        assert (now.rows_count, now.created) == (numbers.rows_count, numbers.created)
        assert await storage.rows() == [["n"], ["7"]]
        assert await storage.rows(other) == _parsed(USERS)
        await storage.load("n\n8\n", incremental=True)
        await tables.drop_table(scope, other)
        await storage.load("x\n1\n", table_id=other)
        assert await storage.rows() == [["n"], ["7"], ["8"]]
        assert await storage.rows(other) == [["x"], ["1"]]
        with pytest.raises(NotFound):
            await tables.swap_tables(scope, TABLE, "in.c-contract.none")
        with pytest.raises(InvalidInput):
            await tables.swap_tables(scope, TABLE, TABLE)

    async def test_a_snapshot_keeps_a_table_or_is_refused(self, storage: Storage) -> None:
        tables, scope = storage.tables, storage.scope
        await storage.load(USERS, primary_key=("id",))
        await tables.write_metadata(scope, TABLE, "user", {"a": "1"}, {"name": {"b": "2"}})
        before = await storage.detail()
        if not storage.backend.has_snapshots:
            with pytest.raises(InvalidInput):
                await tables.create_snapshot(scope, TABLE)
            assert await tables.list_snapshots(scope, TABLE) == []
            return

        made = await tables.create_snapshot(scope, TABLE, description="about it", import_key="k")
        again = await tables.create_snapshot(scope, TABLE, import_key="k")
        assert again == made == await tables.snapshot(scope, made.id)
        assert (made.description, made.creator_token_id) == ("about it", scope.token_id)
        assert (made.table.columns, made.table.primary_key) == (before.columns, ("id",))
        assert made.table.rows_count in {3, None}
        await storage.load("id,name,new\n9,x,y\n")
        later = await tables.create_snapshot(scope, TABLE)
        assert await tables.list_snapshots(scope, TABLE) == [later, made]
        assert await tables.list_snapshots(scope, TABLE, limit=1, offset=1) == [made]

        await tables.drop_table(scope, TABLE)
        restored = await tables.restore_snapshot(scope, made.id, TABLE)
        assert await storage.rows() == _parsed(USERS)
        assert (restored.primary_key, restored.rows_count) == (("id",), 3)
        assert [(each.key, each.value) for each in restored.metadata] == [("a", "1")]
        assert [each.value for each in restored.column_metadata["name"]] == ["2"]
        with pytest.raises(Conflict):
            await tables.restore_snapshot(scope, made.id, TABLE)
        with pytest.raises(NotFound):
            await tables.restore_snapshot(scope, made.id, "in.c-none.users")
        await tables.restore_snapshot(scope, later.id, f"{TABLE}2")
        assert await storage.rows(f"{TABLE}2") == [["id", "name", "new"], ["9", "x", "y"]]

        await tables.delete_snapshot(scope, made.id)

        for call in (
            tables.snapshot(scope, made.id),
            tables.delete_snapshot(scope, made.id),
            tables.restore_snapshot(scope, made.id, f"{TABLE}3"),
        ):
            with pytest.raises(NotFound) as caught:
                await call
            assert (caught.value.kind, caught.value.id) == ("snapshot", made.id)
        assert await storage.rows() == _parsed(USERS)  # what was made from it stays

    @pytest.mark.parametrize("snapshot", ["0", "x", "9" * 40, ""])
    async def test_a_snapshot_that_is_not_there_is_not_found(
        self, storage: Storage, snapshot: str
    ) -> None:
        for call in (
            storage.tables.snapshot(storage.scope, snapshot),
            storage.tables.delete_snapshot(storage.scope, snapshot),
        ):
            with pytest.raises(NotFound) as caught:
                await call
            assert (caught.value.kind, caught.value.id) == ("snapshot", snapshot)

    async def test_a_column_of_a_typed_table_can_be_changed(self, storage: Storage) -> None:
        tables, scope = storage.tables, storage.scope
        await storage.load(USERS)
        with pytest.raises(InvalidInput):
            await tables.update_column(scope, TABLE, ColumnDefinition("name", length="5"))
        if not storage.has_types:
            return
        other = f"{TABLE}2"
        short = (ColumnDefinition("name", base_type="STRING", length="5"),)
        await storage.load("id,name\n1,Anna\n", table_id=other, definitions=short)

        longer = ColumnDefinition("name", base_type="STRING", length="9", nullable=False)
        changed = await tables.update_column(scope, other, longer)

        assert (changed.definitions[1].length, changed.definitions[1].nullable) == ("9", False)
        await storage.load("id,name\n2,Berthold\n", table_id=other, incremental=True)
        with pytest.raises(MappingFailed):
            await tables.update_column(
                scope, other, ColumnDefinition("name", base_type="STRING", length="7")
            )
        with pytest.raises(NotFound):
            await tables.update_column(
                scope, other, ColumnDefinition("nothing", base_type="STRING")
            )

    async def test_projects_are_apart(self, storage: Storage, backend: MappingBackend) -> None:
        await storage.load(USERS)
        file = await storage.upload("a.txt", b"a")
        other = StorageScope("2")

        assert await backend.tables.list_buckets(other) == []
        assert await backend.files.list_files(other, FileQuery(show_expired=True)) == []
        with pytest.raises(NotFound):
            await backend.tables.table(other, TABLE)
        with pytest.raises(NotFound):
            await backend.files.file(other, file.id)
        with pytest.raises(NotFound):
            await backend.files.delete(other, file.id)

    # -- files -----------------------------------------------------------------------------------

    async def test_a_file_is_stored_and_fetched(self, storage: Storage) -> None:
        content = bytes(range(256)) * 20_000

        stored = await storage.upload("my-file.dat", content, tags=("b", "a", "b"))

        assert stored == await storage.files.file(storage.scope, stored.id)
        assert stored.id > 0
        assert stored.name == "my_file.dat"
        assert stored.size_bytes == len(content)
        assert stored.tags == ("b", "a")
        assert stored.max_age_days == 15
        assert stored.run_id == "10.20"
        assert stored.creator_token_id == "5"
        assert (stored.is_sliced, stored.is_public, stored.is_encrypted) == (False, False, True)
        assert abs(stored.created - datetime.now(UTC)) < timedelta(minutes=5)
        target = storage.folder / "fetched"
        assert await storage.files.download(storage.scope, stored.id, target) == stored
        assert target.read_bytes() == content

    async def test_a_file_may_be_empty_public_and_permanent(self, storage: Storage) -> None:
        upload = FileUpload("empty", is_public=True, is_permanent=True, is_encrypted=False)

        stored = await storage.files.upload(storage.scope, upload, storage.write(""))

        assert (stored.size_bytes, stored.max_age_days, stored.tags) == (0, None, ())
        assert (stored.is_public, stored.is_encrypted) == (True, False)
        target = storage.folder / "fetched"
        await storage.files.download(storage.scope, stored.id, target)
        assert target.read_bytes() == b""

    @pytest.mark.parametrize("parts", [[b"1\n", gzip.compress(b"2\n"), b""], []])
    async def test_a_sliced_file_is_stored_and_fetched(
        self, storage: Storage, parts: list[bytes]
    ) -> None:
        upload = FileUpload("t.csv", is_sliced=True)

        stored = await storage.files.upload(
            storage.scope, upload, [storage.write(part) for part in parts]
        )

        assert stored.is_sliced
        assert stored.size_bytes == sum(map(len, parts))
        assert len(stored.slices) == len(parts)
        assert stored == await storage.files.file(storage.scope, stored.id)
        target = storage.folder / "fetched"
        await storage.files.download(storage.scope, stored.id, target)
        assert [(target / name).read_bytes() for name in stored.slices] == parts
        assert sorted(path.name for path in target.iterdir()) == sorted(stored.slices)

    async def test_what_is_no_file_is_not_stored(self, storage: Storage) -> None:
        link = storage.folder / "link"
        link.symlink_to(storage.write("secret"))
        upload, scope = storage.files.upload, storage.scope

        for source in (link, storage.folder, storage.folder / "missing"):
            with pytest.raises(UserError):
                await upload(scope, FileUpload("a"), source)
            with pytest.raises(UserError):
                await upload(scope, FileUpload("a", is_sliced=True), [storage.write("x"), source])
        with pytest.raises(UserError):
            await upload(scope, FileUpload("a"), [link, link])
        with pytest.raises(InvalidInput):
            await upload(scope, FileUpload("-- /"), storage.write("x"))

        assert await storage.found(FileQuery()) == []

    async def test_a_download_overwrites_nothing(self, storage: Storage) -> None:
        plain = await storage.upload("a", b"a")
        sliced = await storage.files.upload(
            storage.scope, FileUpload("b", is_sliced=True), [storage.write("b")]
        )
        aim, folder = storage.write("mine"), storage.folder / "folder"
        folder.mkdir()
        link = storage.folder / "link"
        link.symlink_to(storage.folder / "nowhere")

        for file in (plain, sliced):
            for target in (aim, link, folder):
                with pytest.raises(UserError):
                    await storage.files.download(storage.scope, file.id, target)

        assert aim.read_text() == "mine"
        assert list(folder.iterdir()) == []
        assert not (storage.folder / "nowhere").exists()

    async def test_a_file_is_stored_once_for_an_import_key(self, storage: Storage) -> None:
        async def upload(content: str, key: str) -> FileDetail:
            return await storage.files.upload(
                storage.scope, FileUpload("a"), storage.write(content), import_key=key
            )

        first = await upload("one", "key-1")

        assert await upload("two", "key-1") == first
        assert (await upload("three", "key-2")).id > first.id
        assert len(await storage.found(FileQuery())) == 2

    async def test_files_are_listed_newest_first(self, storage: Storage) -> None:
        ids = [(await storage.upload(f"f{number}", b"")).id for number in range(5)]
        newest = ids[::-1]

        assert await storage.found(FileQuery()) == newest
        assert await storage.found(FileQuery(limit=2)) == newest[:2]
        assert await storage.found(FileQuery(limit=2, offset=3)) == newest[3:]
        assert await storage.found(FileQuery(since_id=ids[1])) == newest[:3]
        assert await storage.found(FileQuery(max_id=ids[1])) == newest[4:]
        assert await storage.found(FileQuery(since_id=ids[0], max_id=ids[2])) == [ids[1]]
        assert await storage.found(FileQuery(run_id="10.20")) == newest
        assert await storage.found(FileQuery(run_id="other")) == []
        for _ in range(100):
            await storage.upload("more", b"")
        assert len(await storage.found(FileQuery())) == 100

    @pytest.mark.parametrize(
        ("query", "names"),
        [
            (FileQuery(), "abc"),
            (FileQuery(tags=("x",)), "ab"),
            (FileQuery(tags=("y", "z")), "bc"),
            (FileQuery(tags=("none",)), ""),
            (FileQuery(query='tags:"x"'), "ab"),
            (FileQuery(query="tags: x"), "ab"),
            (FileQuery(query="tags:X"), ""),
            (FileQuery(query='tags:"componentId: keboola.x"'), "c"),
            (FileQuery(query='tags:"x" AND NOT tags:"y"'), "a"),
            (FileQuery(query="tags:x tags:z"), "abc"),
            (FileQuery(query="tags:(x OR z) AND id:>0"), "abc"),
            (FileQuery(query="tags:(x AND y)"), "b"),
            (FileQuery(query="NOT tags:x"), "c"),
            (FileQuery(query="-tags:x"), "c"),
            (FileQuery(query="id:>0 AND (NOT tags:y)"), "ac"),
            (FileQuery(query="tags:(x NOT y)"), "a"),
            (FileQuery(query="name: first.csv"), "a"),
            (FileQuery(query="FIRST"), "a"),
            (FileQuery(query=".csv"), "ac"),
            (FileQuery(query="name:*.csv"), "ac"),
            (FileQuery(query="name:*.cs?"), "ac"),
            (FileQuery(query="name:second"), "b"),
            (FileQuery(query="name:sec"), ""),
            (FileQuery(query="sizeBytes:>1"), "bc"),
            (FileQuery(query="sizeBytes:[2 TO *]"), "bc"),
            (FileQuery(query="sizeBytes:2"), "b"),
            (FileQuery(query='runId:"10.20"'), "abc"),
            (FileQuery(query="isPublic:true"), ""),
            (FileQuery(query='created:["2020-01-01T00:00:00+00:00" TO *]'), "abc"),
            (FileQuery(query='created:["2020-01-01T00:00:00+0000" TO "2020-01-02"]'), ""),
            (FileQuery(tags=("x",), query="tags:y"), "b"),
            (FileQuery(creator_token_id="5"), "abc"),
            (FileQuery(creator_token_id="6"), ""),
        ],
    )
    async def test_files_are_searched(self, storage: Storage, query: FileQuery, names: str) -> None:
        stored = {
            (await storage.upload("first.csv", b"1", tags=("x",))).id: "a",
            (await storage.upload("second", b"22", tags=("x", "y"))).id: "b",
            (
                await storage.upload("a third.csv", b"333", tags=("z", "componentId: keboola.x"))
            ).id: "c",
        }

        found = await storage.found(query)

        assert "".join(sorted(stored[each] for each in found)) == names

    @pytest.mark.parametrize(
        "query",
        ["tags[]:sd", "tags:", "(tags:x", "tags:x)", '"open', "AND x", "x OR", "nofield:x", "id:x",
         "created:yesterday", "NOT", "id:[1 TO", "()"],
    )  # fmt: skip
    async def test_a_query_that_means_nothing_is_refused(
        self, storage: Storage, query: str
    ) -> None:
        with pytest.raises(InvalidInput):
            await storage.found(FileQuery(query=query))

    async def test_tags_are_added_and_removed(self, storage: Storage) -> None:
        files, scope = storage.files, storage.scope
        stored = await storage.upload("a", b"", tags=("a",))

        await files.add_tags(scope, stored.id, ["b", "a", "c", "b"])
        assert (await files.file(scope, stored.id)).tags == ("a", "b", "c")
        await files.remove_tags(scope, stored.id, ["a", "none"])
        assert (await files.file(scope, stored.id)).tags == ("b", "c")
        assert await storage.found(FileQuery(tags=("c",))) == [stored.id]

    async def test_a_deleted_file_is_gone(self, storage: Storage) -> None:
        stored = await storage.upload("a", b"a", tags=("a",))

        await storage.files.delete(storage.scope, stored.id)

        assert await storage.found(FileQuery(show_expired=True)) == []
        newer = await storage.upload("b", b"")
        assert newer.id > stored.id

    @pytest.mark.parametrize("file_id", [0, -1, 999_999, 10**30])
    async def test_a_file_that_is_not_there_is_not_found(
        self, storage: Storage, file_id: int
    ) -> None:
        files, scope = storage.files, storage.scope
        target = storage.folder / "never"
        for call in (
            files.file(scope, file_id),
            files.download(scope, file_id, target),
            files.reading(scope, file_id).__aenter__(),
            files.blobs.list_blobs(scope, file_id),
            files.blobs.blob(scope, file_id, ""),
            files.blobs.open(scope, file_id, ""),
            files.delete(scope, file_id),
            files.add_tags(scope, file_id, ["a"]),
            files.remove_tags(scope, file_id, ["a"]),
        ):
            with pytest.raises(NotFound) as caught:
                await call
            assert (caught.value.kind, caught.value.id) == ("file", str(file_id))
        assert not target.exists()

    async def test_a_file_is_read_in_place(self, storage: Storage) -> None:
        files, scope = storage.files, storage.scope
        plain = await storage.upload("a", b"plain")
        parts = [b"1\n", gzip.compress(b"2\n"), b""]
        sliced = await files.upload(
            scope, FileUpload("b.csv", is_sliced=True), [storage.write(part) for part in parts]
        )

        async with files.reading(scope, plain.id) as paths:
            await files.delete(scope, plain.id)
            assert [path.read_bytes() for path in paths] == [b"plain"]
        assert not any(path.exists() for path in paths)
        async with files.reading(scope, sliced.id) as paths:
            assert [path.read_bytes() for path in paths] == parts
        assert not any(path.exists() for path in paths)

    async def test_sources_that_may_be_moved_are_stored_as_well(self, storage: Storage) -> None:
        sources = [storage.write(b"1"), storage.write(b"")]
        link = storage.folder / "link"
        link.symlink_to(storage.write("secret"))
        upload, scope = storage.files.upload, storage.scope

        sliced = await upload(scope, FileUpload("b", is_sliced=True), sources, move=True)
        plain = await upload(scope, FileUpload("a"), storage.write("plain"), move=True)
        for source in (link, storage.folder, storage.folder / "missing"):
            with pytest.raises(UserError):
                await upload(scope, FileUpload("c"), source, move=True)

        assert storage.folder.is_dir()
        async with storage.files.reading(scope, sliced.id) as paths:
            assert [path.read_bytes() for path in paths] == [b"1", b""]
        async with storage.files.reading(scope, plain.id) as paths:
            assert [path.read_bytes() for path in paths] == [b"plain"]
        assert await storage.found(FileQuery()) == [plain.id, sliced.id]

    # -- blobs -----------------------------------------------------------------------------------

    async def test_what_is_stored_as_a_whole_can_be_read_in_blobs(self, storage: Storage) -> None:
        plain = await storage.upload("a", b"plain")
        parts = [gzip.compress(b"2\n"), b"1\n", b""]
        sliced = await storage.files.upload(
            storage.scope,
            FileUpload("b.csv", is_sliced=True),
            [storage.write(part) for part in parts],
        )

        assert await storage.blobs(plain.id) == {"": b"plain"}
        assert await storage.blobs(sliced.id) == dict(zip(sliced.slices, parts, strict=True))
        for blob in await storage.files.blobs.list_blobs(storage.scope, sliced.id):
            assert blob == await storage.files.blobs.blob(storage.scope, sliced.id, blob.name)
        for name in ("none", "/", "../a"):
            with pytest.raises(NotFound) as caught:
                await storage.files.blobs.open(storage.scope, sliced.id, name)
            assert (caught.value.kind, caught.value.id) == ("blob", name)

    async def test_what_takes_no_blobs_says_so(self, storage: Storage) -> None:
        if storage.files.takes_uploads:
            return
        stored = await storage.upload("a", b"a")
        blobs, scope = storage.files.blobs, storage.scope
        for call in (
            storage.files.prepare(scope, FileUpload("b")),
            blobs.put(scope, stored.id, "", storage.write("b")),
            blobs.stage(scope, stored.id, "", "1", storage.write("b")),
            blobs.commit(scope, stored.id, "", [BlockRef("1")]),
            blobs.remove(scope, stored.id, ""),
            blobs.arrange(scope, stored.id, []),
        ):
            with pytest.raises(InvalidInput):
                await call
        assert await storage.blobs(stored.id) == {"": b"a"}
        assert await storage.found(FileQuery()) == [stored.id]

    async def test_a_prepared_file_has_no_content_until_it_comes(self, storage: Storage) -> None:
        if not storage.files.takes_uploads:
            return
        files, scope = storage.files, storage.scope
        upload = FileUpload("my-file.csv", tags=("b", "a", "b"), size_bytes=77)
        prepared = await files.prepare(scope, upload)

        assert prepared == await files.file(scope, prepared.id)
        assert (prepared.name, prepared.tags) == ("my_file.csv", ("b", "a"))
        assert (prepared.size_bytes, prepared.is_uploaded) == (77, False)
        assert (prepared.run_id, prepared.creator_token_id) == ("10.20", "5")
        assert await storage.found(FileQuery()) == [prepared.id]
        assert await storage.blobs(prepared.id) == {}
        for call in (
            files.download(scope, prepared.id, storage.folder / "never"),
            files.reading(scope, prepared.id).__aenter__(),
        ):
            with pytest.raises(InvalidInput) as refused:
                await call
            assert refused.value.code == "storage.fileNotUploaded"
        for absent in (
            files.blobs.blob(scope, prepared.id, ""),
            files.blobs.open(scope, prepared.id, ""),
            files.blobs.remove(scope, prepared.id, ""),
        ):
            with pytest.raises(NotFound) as missing:
                await absent
            assert missing.value.kind == "blob"

        source = storage.write("id\n1\n")
        blob = await files.blobs.put(scope, prepared.id, "", source)

        stored = await files.file(scope, prepared.id)
        assert stored == replace(prepared, size_bytes=5, is_uploaded=True)
        assert blob == await files.blobs.blob(scope, prepared.id, "")
        assert blob.size_bytes == 5
        async with files.reading(scope, prepared.id) as paths:
            assert [path.read_bytes() for path in paths] == [b"id\n1\n"]

    async def test_a_blob_is_replaced_as_a_whole_or_not_at_all(self, storage: Storage) -> None:
        if not storage.files.takes_uploads:
            return
        blobs, scope = storage.files.blobs, storage.scope
        file = await storage.files.prepare(scope, FileUpload("a"))
        first = await blobs.put(scope, file.id, "", storage.write("first"), overwrite=False)
        _, opened = await blobs.open(scope, file.id, "")

        with pytest.raises(Conflict):
            await blobs.put(scope, file.id, "", storage.write("second"), overwrite=False)
        assert await storage.blobs(file.id) == {"": b"first"}
        async with storage.files.reading(scope, file.id) as paths:
            third = await blobs.put(scope, file.id, "", storage.write("third!"))
            assert paths[0].read_bytes() == b"first"
        with opened:
            assert opened.read() == b"first"

        assert third.etag != first.etag
        assert await storage.blobs(file.id) == {"": b"third!"}
        assert (await storage.files.file(scope, file.id)).size_bytes == 6
        await blobs.remove(scope, file.id, "")
        assert await storage.blobs(file.id) == {}
        assert not (await storage.files.file(scope, file.id)).is_uploaded

    async def test_a_blob_is_made_of_blocks_in_the_order_of_the_list(
        self, storage: Storage
    ) -> None:
        if not storage.files.takes_uploads:
            return
        blobs, scope = storage.files.blobs, storage.scope
        file = await storage.files.prepare(scope, FileUpload("a"))
        for block, content in (("b", "two,"), ("a", "never"), ("a", "one,"), ("c/+=", "three,")):
            await blobs.stage(scope, file.id, "", block, storage.write(content))
        assert not (await storage.files.file(scope, file.id)).is_uploaded

        listed = [BlockRef("a"), BlockRef("b", "staged"), BlockRef("c/+="), BlockRef("b")]
        made = await blobs.commit(scope, file.id, "", listed)

        assert await storage.blobs(file.id) == {"": b"one,two,three,two,"}
        assert (await storage.files.file(scope, file.id)).size_bytes == made.size_bytes == 18
        with pytest.raises(InvalidInput):
            await blobs.commit(scope, file.id, "", [BlockRef("b", "staged")])

        await blobs.stage(scope, file.id, "", "b", storage.write("2,"))
        again = [BlockRef("b", "committed"), BlockRef("a"), BlockRef("b")]
        changed = await blobs.commit(scope, file.id, "", again)
        assert changed.etag != made.etag
        assert await storage.blobs(file.id) == {"": b"two,one,2,"}
        await blobs.commit(scope, file.id, "", [])
        assert await storage.blobs(file.id) == {"": b""}

    async def test_the_same_list_can_be_committed_again(self, storage: Storage) -> None:
        if not storage.files.takes_uploads:
            return
        blobs, scope = storage.files.blobs, storage.scope
        file = await storage.files.prepare(scope, FileUpload("a"))
        await blobs.stage(scope, file.id, "", "a", storage.write("one"))
        made = await blobs.commit(scope, file.id, "", [BlockRef("a")])

        assert await blobs.commit(scope, file.id, "", [BlockRef("a")]) == made
        with pytest.raises(Conflict):
            await blobs.commit(scope, file.id, "", [BlockRef("a")], overwrite=False)
        assert await storage.blobs(file.id) == {"": b"one"}

    async def test_a_block_that_is_not_there_changes_nothing(self, storage: Storage) -> None:
        if not storage.files.takes_uploads:
            return
        blobs, scope = storage.files.blobs, storage.scope
        file = await storage.files.prepare(scope, FileUpload("a"))
        other = await storage.files.prepare(scope, FileUpload("b"))
        await blobs.put(scope, file.id, "", storage.write("before"))
        await blobs.stage(scope, file.id, "", "a", storage.write("a"))
        await blobs.stage(scope, other.id, "", "b", storage.write("b"))

        for among in (BlockRef("b"), BlockRef("b", "staged"), BlockRef("a", "committed")):
            with pytest.raises(InvalidInput) as caught:
                await blobs.commit(scope, file.id, "", [BlockRef("a"), among])
            assert caught.value.path == "blocks"

        assert await storage.blobs(file.id) == {"": b"before"}
        await blobs.commit(scope, file.id, "", [BlockRef("a")])
        assert await storage.blobs(file.id) == {"": b"a"}

    async def test_slices_are_those_of_the_arrangement(self, storage: Storage) -> None:
        if not storage.files.takes_uploads:
            return
        files, scope = storage.files, storage.scope
        file = await files.prepare(scope, FileUpload("t.csv", is_sliced=True))
        await files.blobs.put(scope, file.id, "_2.csv", storage.write("22"))
        await files.blobs.stage(scope, file.id, "_1 ž.csv", "x", storage.write("1"))
        await files.blobs.commit(scope, file.id, "_1 ž.csv", [BlockRef("x")])
        await files.blobs.put(scope, file.id, "extra", storage.write("333"))
        assert not (await files.file(scope, file.id)).is_uploaded
        with pytest.raises(InvalidInput):
            await files.download(scope, file.id, storage.folder / "never")

        stored = await files.blobs.arrange(scope, file.id, ["_2.csv", "_1 ž.csv"])

        assert stored == await files.file(scope, file.id)
        assert (stored.slices, stored.size_bytes) == (("_2.csv", "_1 ž.csv"), 3)
        assert stored.is_uploaded
        async with files.reading(scope, file.id) as paths:
            assert [path.read_bytes() for path in paths] == [b"22", b"1"]
        target = storage.folder / "fetched"
        await files.download(scope, file.id, target)
        assert {path.name: path.read_bytes() for path in target.iterdir()} == {
            "_2.csv": b"22",
            "_1 ž.csv": b"1",
        }
        assert (await files.blobs.arrange(scope, file.id, [])).size_bytes == 0

    async def test_slices_that_are_not_the_files_own_are_not_read(self, storage: Storage) -> None:
        if not storage.files.takes_uploads:
            return
        files, scope = storage.files, storage.scope
        other = await files.prepare(scope, FileUpload("other", is_sliced=True))
        await files.blobs.put(scope, other.id, "theirs", storage.write("secret"))
        file = await files.prepare(scope, FileUpload("t.csv", is_sliced=True))
        await files.blobs.put(scope, file.id, "mine", storage.write("1"))
        for name in ("theirs", "", "..", "../mine", "/etc/passwd", "azure://host/other/theirs"):
            await files.blobs.arrange(scope, file.id, ["mine", name])
            target = storage.folder / "never"
            for call in (
                files.download(scope, file.id, target),
                files.reading(scope, file.id).__aenter__(),
            ):
                with pytest.raises(InvalidInput):
                    await call
            assert not target.exists()

    @pytest.mark.parametrize("name", ["a/b", "/", ".", "..", "x\n", "x" * 300])
    async def test_a_name_that_no_slice_can_have_is_refused(
        self, storage: Storage, name: str
    ) -> None:
        if not storage.files.takes_uploads:
            return
        blobs, scope = storage.files.blobs, storage.scope
        sliced = await storage.files.prepare(scope, FileUpload("a", is_sliced=True))
        plain = await storage.files.prepare(scope, FileUpload("a"))

        for file in (sliced, plain):
            for call in (
                blobs.put(scope, file.id, name, storage.write("x")),
                blobs.stage(scope, file.id, name, "a", storage.write("x")),
                blobs.commit(scope, file.id, name, []),
            ):
                with pytest.raises(InvalidInput):
                    await call
        with pytest.raises(InvalidInput):
            await blobs.put(scope, plain.id, "other", storage.write("x"))
        with pytest.raises(InvalidInput):
            await blobs.arrange(scope, plain.id, [])
        assert await storage.blobs(sliced.id) == await storage.blobs(plain.id) == {}

    async def test_blobs_of_another_project_are_not_there(self, storage: Storage) -> None:
        if not storage.files.takes_uploads:
            return
        blobs, scope = storage.files.blobs, storage.scope
        other = replace(scope, project="2")
        file = await storage.files.prepare(scope, FileUpload("a"))
        await blobs.put(scope, file.id, "", storage.write("mine"))

        for call in (
            blobs.list_blobs(other, file.id),
            blobs.blob(other, file.id, ""),
            blobs.open(other, file.id, ""),
            blobs.put(other, file.id, "", storage.write("theirs")),
            blobs.stage(other, file.id, "", "a", storage.write("theirs")),
            blobs.commit(other, file.id, "", []),
            blobs.remove(other, file.id, ""),
            blobs.arrange(other, file.id, []),
        ):
            with pytest.raises(NotFound) as caught:
                await call
            assert caught.value.kind == "file"
        assert await storage.blobs(file.id) == {"": b"mine"}


class Storage:
    """A backend in the hands of a test."""

    def __init__(self, backend: MappingBackend, scope: StorageScope, folder: Path) -> None:
        self.backend = backend
        self.tables = backend.tables
        self.files = backend.files
        self.has_types = backend.has_types
        self.loads_together = backend.loads_together
        self.says_with_loads = backend.says_with_loads
        self.scope = scope
        self.folder = folder
        self._written = 0

    def write(self, content: str | bytes) -> Path:
        """A new file with this content."""
        self._written += 1
        path = self.folder / f"written-{self._written}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    async def load(
        self, content: str | bytes, *, table_id: str = TABLE, **options: Any
    ) -> LoadResult:
        """Load one file of this content."""
        return await self.load_files((self.write(content),), table_id=table_id, **options)

    async def load_files(
        self, paths: tuple[Path, ...], *, table_id: str = TABLE, **options: Any
    ) -> LoadResult:
        """Load these files."""
        load = TableLoad(table_id, paths, **options)
        (result,) = await self.tables.load(self.scope, [load])
        return result

    async def detail(self, table_id: str = TABLE) -> TableDetail:
        """What the backend says of a table."""
        return await self.tables.table(self.scope, table_id)

    async def export(
        self, options: ExportOptions, table_id: str = TABLE
    ) -> tuple[ExportResult, bytes]:
        """The result and the bytes of an export."""
        target = self.folder / "exported"
        result = await self.tables.export(self.scope, table_id, options, target)
        content = target.read_bytes()
        target.unlink()
        return result, content

    async def exported(self, options: ExportOptions, table_id: str = TABLE) -> Rows:
        """Header and rows of an export."""
        _, content = await self.export(options, table_id)
        return _parsed(content.decode())

    async def rows(self, table_id: str = TABLE) -> Rows:
        """Header and sorted rows of a table."""
        header, *rows = await self.exported(ExportOptions(), table_id)
        return [header, *sorted(rows)]

    async def changed(
        self, *, since: datetime | None = None, until: datetime | None = None
    ) -> Rows:
        """Rows that changed, sorted."""
        options = ExportOptions(changed_since=since, changed_until=until)
        return sorted((await self.exported(options))[1:])

    async def upload(self, name: str, content: bytes, *, tags: Sequence[str] = ()) -> FileDetail:
        """Store a file of this content."""
        upload = FileUpload(name, tags=tuple(tags))
        return await self.files.upload(self.scope, upload, self.write(content))

    async def blobs(self, file_id: int) -> dict[str, bytes]:
        """The content of a file's blobs, by name."""
        found = {}
        listed = await self.files.blobs.list_blobs(self.scope, file_id)
        for each in listed:
            blob, content = await self.files.blobs.open(self.scope, file_id, each.name)
            with content:
                found[each.name] = content.read()
            assert blob == each
            assert blob.size_bytes == len(found[each.name])
        assert [blob.name for blob in listed] == sorted(found)
        return found

    async def found(self, query: FileQuery) -> list[int]:
        """Ids of the files that match."""
        return [file.id for file in await self.files.list_files(self.scope, query)]


def _parsed(text: str) -> Rows:
    csv.field_size_limit(10_000_000)
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


def _written(rows: Rows) -> str:
    def quoted(value: str) -> str:
        return '"' + value.replace('"', '""') + '"'

    return "".join(",".join(map(quoted, row)) + "\n" for row in rows)
