"""Typed tables of the embedded Storage: what text becomes a value, and what does not."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

import vaka_local
from vaka.errors import InvalidInput, MappingFailed
from vaka.models.storage import (
    ColumnDefinition,
    DeleteWhere,
    ExportOptions,
    Filter,
    LoadResult,
    OrderBy,
    StorageScope,
    TableDetail,
    TableLoad,
)
from vaka_local import schema, types
from vaka_local.storage import LocalStorage

SCOPE = StorageScope("1")
TABLE = "in.c-b.t"
Rows = list[tuple[str | None, ...]]


class Typed:
    """A Storage in the hands of a test."""

    def __init__(self, storage: LocalStorage, folder: Path) -> None:
        self.tables = storage.tables
        self.folder = folder

    async def load(
        self, content: str, *definitions: ColumnDefinition, table_id: str = TABLE, **options: Any
    ) -> LoadResult:
        path = self.folder / "data.csv"
        path.write_text(content)
        columns = tuple(each.name for each in definitions)
        load = TableLoad(table_id, (path,), columns, definitions=definitions, **options)
        (result,) = await self.tables.load(SCOPE, [load])
        return result

    async def rows(self, table_id: str = TABLE, **options: Any) -> Rows:
        _, rows = await self.tables.preview(SCOPE, table_id, ExportOptions(**options))
        return rows

    async def detail(self) -> TableDetail:
        return await self.tables.table(SCOPE, TABLE)


@pytest.fixture
async def typed(tmp_path: Path) -> AsyncIterator[Typed]:
    storage = vaka_local.vaka_mapping_backend(f"local://{tmp_path}/storage")
    assert isinstance(storage, LocalStorage)
    await storage.open()
    try:
        yield Typed(storage, tmp_path)
    finally:
        await storage.aclose()


def column(name: str, base: str | None = None, **options: Any) -> ColumnDefinition:
    return ColumnDefinition(name, base, **options)


ID = column("id", "INTEGER", nullable=False)


# -- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "own", "length", "expected"),
    [
        ("INTEGER", None, None, ("INTEGER", "NUMBER", None)),
        ("NUMERIC", None, "10, 2", ("NUMERIC", "NUMBER", "10,2")),
        ("NUMERIC", None, "10", ("INTEGER", "NUMBER", "10,0")),
        ("NUMERIC", "NUMBER", None, ("NUMERIC", "NUMBER", None)),
        ("STRING", "number", None, ("INTEGER", "NUMBER", None)),
        ("NUMERIC", "bigint", None, ("INTEGER", "NUMBER", None)),
        ("string", "character", "255", ("STRING", "VARCHAR", "255")),
        ("FLOAT", "double  precision", "8", ("FLOAT", "FLOAT", None)),
        ("TIMESTAMP", "TIMESTAMP_TZ", "9", ("TIMESTAMP", "TIMESTAMP_TZ", None)),
        ("TIMESTAMP", None, None, ("TIMESTAMP", "TIMESTAMP_NTZ", None)),
        ("DATE", "VARIANT", None, ("STRING", "VARIANT", None)),
        (None, "BOOLEAN", None, ("BOOLEAN", "BOOLEAN", None)),
        (None, None, None, (None, None, None)),
        ("", " ", "1) ; DROP", (None, None, None)),
    ],
)
def test_types_have_one_word(
    base: str | None, own: str | None, length: str | None, expected: tuple[str | None, ...]
) -> None:
    known = types.typed(ColumnDefinition("a", base, own, length))
    assert (known.base_type, known.type, known.length) == expected
    assert types.typed(known) == known


@pytest.mark.parametrize(
    ("base", "own", "length"),
    [
        ("WORD", None, None),
        ("STRING", "GEOGRAPHY", None),
        ("NUMERIC", None, "39,2"),
        ("NUMERIC", None, "5,6"),
        ("NUMERIC", None, "x"),
        ("STRING", None, "0"),
        ("STRING", None, "1) ; DROP"),
        ("STRING", None, "\u0661"),
    ],
)
def test_types_that_are_none_are_refused(base: str, own: str | None, length: str | None) -> None:
    with pytest.raises(InvalidInput, match='The type of column "a": '):
        types.typed(ColumnDefinition("a", base, own, length))


# -- values --------------------------------------------------------------------------------------


VALUES: list[tuple[ColumnDefinition, str, str | None]] = [
    (column("a", "INTEGER"), "12345678901234567890123456789012345678", None),
    (column("a", "INTEGER"), " -7 ", "-7"),
    (column("a", "INTEGER"), "1.0", "1"),
    (column("a", "NUMERIC"), "1.5", "1.500000000"),
    (column("a", "NUMERIC", length="10,2"), "1e2", "100.00"),
    (column("a", "NUMERIC", length="10,2"), ".126", "0.13"),
    (column("a", "FLOAT"), "1.5E3", "1500.0"),
    (column("a", "FLOAT"), "nan", "nan"),
    (column("a", "BOOLEAN"), "TRUE", "true"),
    (column("a", "BOOLEAN"), "0", "false"),
    (column("a", "DATE"), "2024-01-31", "2024-01-31"),
    (column("a", "DATE"), "2024-01-31 00:00:00", "2024-01-31"),
    (column("a", "TIMESTAMP"), "2024-01-31", "2024-01-31 00:00:00"),
    (column("a", "TIMESTAMP"), "2024-01-31T10:20:30.5", "2024-01-31 10:20:30.5"),
    (column("a", "TIMESTAMP"), "2024-01-31T10:20:30+02:00", "2024-01-31 08:20:30"),
    (column("a", "TIMESTAMP"), "2024-01-31 10:20:30Z", "2024-01-31 10:20:30"),
    (column("a", "STRING", length="3"), "žžž", "žžž"),
    (column("a", type="VARIANT"), '{""a"": 1}', '{"a": 1}'),
    (column("a"), " as it is ", " as it is "),
]


async def test_text_becomes_a_value(typed: Typed) -> None:
    columns = [replace(each, name=f"c{index}") for index, (each, _, _) in enumerate(VALUES)]
    full = ",".join(f'"{text}"' for _, text, _ in VALUES)
    await typed.load(f"1,{full}\n2{',' * len(VALUES)}\n", ID, *columns)
    full_row, empty_row = await typed.rows(order_by=(OrderBy("id"),))
    assert list(full_row[1:]) == [text if value is None else value for _, text, value in VALUES]
    assert set(empty_row[1:]) == {None}
    target = typed.folder / "out.csv"
    await typed.tables.export(SCOPE, TABLE, ExportOptions(order_by=(OrderBy("id"),)), target)
    assert target.read_text().splitlines()[2] == '"2"' + ',""' * len(VALUES)


REFUSED: list[tuple[ColumnDefinition, str, str]] = [
    (column("a", "INTEGER"), "id2", "Numeric value 'id2' is not recognized."),
    (column("a", "INTEGER"), "1.5", "Numeric value '1.5' is not recognized."),
    (column("a", "INTEGER"), "1_000", "Numeric value '1_000' is not recognized."),
    (column("a", "INTEGER"), "9" * 39, f"Numeric value '{'9' * 39}' is not recognized."),
    (column("a", "NUMERIC"), "nan", "Numeric value 'nan' is not recognized."),
    (column("a", "FLOAT"), "1,5", "Numeric value '1,5' is not recognized."),
    (column("a", "BOOLEAN"), "on", "Boolean value 'on' is not recognized."),
    (column("a", "DATE"), "31.1.2024", "Date value '31.1.2024' is not recognized."),
    (column("a", "DATE"), "infinity", "Date value 'infinity' is not recognized."),
    (column("a", "DATE"), "2024-01-31 10:00", "Date value '2024-01-31 10:00' is not"),
    (column("a", "DATE"), "2024-02-30", "Date value '2024-02-30' is not recognized."),
    (column("a", "TIMESTAMP"), "now", "Timestamp value 'now' is not recognized."),
    (column("a", "STRING", length="3"), "abcd", "String 'abcd' is too long for column \"a\""),
    (column("a", "DATE"), "x" * 99, f"Date value '{'x' * 50}…' is not recognized."),
    (column("a", "DATE"), "two\nlines", "Date value 'two\nlines' is not recognized."),
    (column("a", "STRING", nullable=False), "", 'Column "a" has to have a value in every row'),
    (column("a", "DATE", nullable=False), "", 'Column "a" has to have a value in every row'),
]


@pytest.mark.parametrize("incremental", [False, True])
async def test_what_is_no_value_is_refused_and_named(typed: Typed, incremental: bool) -> None:
    for index, (definition, text, message) in enumerate(REFUSED):
        table_id = f"in.c-b.t{index}"
        good = "2024-01-31" if definition.base_type == "DATE" else ""
        good = "abc" if definition.base_type == "STRING" else good
        await typed.load(f"1,{good}\n", ID, definition, table_id=table_id)
        before = await typed.rows(table_id)
        with pytest.raises(MappingFailed) as caught:
            await typed.load(
                f'1,"{text}"\n', ID, definition, incremental=incremental, table_id=table_id
            )
        assert caught.value.message.startswith(message)
        assert await typed.rows(table_id) == before


async def test_a_broken_file_is_not_taken_for_a_value(typed: Typed) -> None:
    with pytest.raises(MappingFailed, match="a row with 3 fields"):
        await typed.load("1,vaka value 9 x,3\n", ID, column("a", "DATE"))


async def test_what_becomes_null_can_be_said(typed: Typed) -> None:
    a = column("a", "STRING")
    await typed.load("1,\n2,aabb\n", ID, a, treat_values_as_null=("aabb",))
    assert sorted(await typed.rows()) == [("1", ""), ("2", None)]
    await typed.load("1,\n2,aabb\n", ID, a, treat_values_as_null=())
    assert sorted(await typed.rows()) == [("1", ""), ("2", "aabb")]
    with pytest.raises(MappingFailed, match="Numeric value '' is not recognized"):
        await typed.load(
            "1,\n", ID, column("b", "INTEGER"), table_id="in.c-b.u", treat_values_as_null=()
        )


# -- keys and changes ----------------------------------------------------------------------------


async def test_rows_with_a_key_are_replaced_where_values_differ(typed: Typed) -> None:
    a = column("a", "NUMERIC", length="5,1")
    await typed.load("1,1.0\n2,2\n3,\n", ID, a, primary_key=("id",))
    changed = (await typed.detail()).last_import_date
    await typed.load("1.0,1\n2,\n3,\n4,4\n", ID, a, primary_key=("id",), incremental=True)
    assert sorted(await typed.rows()) == [("1", "1.0"), ("2", None), ("3", None), ("4", "4.0")]
    assert sorted(await typed.rows(changed_since=changed)) == [("2", None), ("4", "4.0")]

    await typed.load("5,1\n5.0,2\n", ID, a, primary_key=("id",), incremental=True)
    assert ("5", "2.0") in await typed.rows()
    assert await typed.tables.delete_rows(SCOPE, TABLE, DeleteWhere((Filter("a", ("4",)),))) == 1


async def test_columns_of_a_key_have_values(typed: Typed) -> None:
    a, b = column("a", "DATE"), column("b", "STRING")
    await typed.load("2024-01-31,x\n,x\n", a, b)
    with pytest.raises(MappingFailed, match="rows without a value"):
        await typed.tables.set_primary_key(SCOPE, TABLE, ["a"])
    with pytest.raises(MappingFailed, match=r"Error changing primary key of table in\.c-b\.t: "):
        await typed.load("2024-01-31,x\n", a, b, primary_key=("a",))
    await typed.load("2024-01-31,x\n", a, b)
    detail = await typed.tables.set_primary_key(SCOPE, TABLE, ["a"])
    assert [each.nullable for each in detail.definitions] == [False, True]
    with pytest.raises(MappingFailed, match='Column "a" has to have a value'):
        await typed.load(",x\n", a, b, incremental=True)


async def test_columns_come_with_types_and_defaults(typed: Typed) -> None:
    await typed.load("1\n", ID)
    new = [column("n", "INTEGER", nullable=False, default="7"), column("when", "TIMESTAMP")]
    detail = await typed.tables.add_columns(SCOPE, TABLE, ["n", "when", "free"], definitions=new)
    assert [each.base_type for each in detail.definitions] == ["INTEGER"] * 2 + ["TIMESTAMP", None]
    assert await typed.rows() == [("1", "7", None, None)]
    for bad, error in [
        (column("z", "DATE", nullable=False), 'Column "z" has to have a value'),
        (column("z", "DATE", default="x"), "Date value 'x' is not recognized"),
    ]:
        with pytest.raises(MappingFailed, match=error):
            await typed.tables.add_columns(SCOPE, TABLE, ["z"], definitions=[bad])
    with pytest.raises(InvalidInput, match='There is no column "y" to define'):
        await typed.tables.add_columns(SCOPE, TABLE, ["z"], definitions=[column("y", "DATE")])

    columns = [ID, *new, column("free"), column("more", "BOOLEAN")]
    result = await typed.load("2,8,,x,yes\n", *columns, incremental=True)
    assert result.new_columns == ("more",)
    assert sorted(await typed.rows()) == [
        ("1", "7", None, None, None),
        ("2", "8", None, "x", "true"),
    ]


async def test_a_table_without_types_stays_so(typed: Typed) -> None:
    await typed.load("id\n1\n")
    await typed.load("x,y\n", column("id", "INTEGER"), column("b", "DATE"), incremental=True)
    assert not (await typed.detail()).is_typed
    assert sorted(await typed.rows()) == [("1", ""), ("x", "y")]
    with pytest.raises(InvalidInput, match="has no types"):
        await typed.tables.add_columns(SCOPE, TABLE, ["z"], definitions=[column("z", "DATE")])


async def test_lengths_and_nullability_change_where_values_allow_it(typed: Typed) -> None:
    await typed.load(
        "1,12.34,abc\n2,,\n", ID, column("n", "NUMERIC", length="10,2"), column("s", "STRING")
    )

    async def change(n: str, s: str, *, nullable: bool = True) -> None:
        await typed.load(
            "",
            ID,
            column("n", "NUMERIC", length=n),
            column("s", "STRING", length=s, nullable=nullable),
            incremental=True,
        )

    await change("12,4", "3")
    assert sorted(await typed.rows()) == [("1", "12.3400", "abc"), ("2", None, None)]
    assert [each.length for each in (await typed.detail()).definitions] == ["38,0", "12,4", "3"]
    for n, s, nullable, error in [
        ("12,1", "3", True, 'The length of column "n" cannot be changed to 12,1'),
        ("12,4", "2", True, 'The length of column "s" cannot be changed to 2'),
        ("12,4", "3", False, 'Column "s" has to have a value'),
    ]:
        with pytest.raises(MappingFailed, match=error):
            await change(n, s, nullable=nullable)
    await change("8,2", "9")
    assert min(await typed.rows()) == ("1", "12.34", "abc")


async def test_values_compare_as_what_they_are(typed: Typed) -> None:
    definitions = [
        ID, column("n", "NUMERIC", length="9,1"), column("b", "BOOLEAN"), column("d", "DATE"),
        column("s", "STRING"),
    ]  # fmt: skip
    await typed.load("1,10.0,true,2024-01-31,a\n2,9.5,no,2023-01-31,b\n3,,,,\n", *definitions)

    async def found(*filters: Filter) -> list[str | None]:
        return [row[0] for row in await typed.rows(filters=filters, order_by=(OrderBy("id"),))]

    assert await found(Filter("n", ("10",))) == ["1"]
    assert await found(Filter("n", ("9.6",), "gt")) == ["1"]
    assert await found(Filter("b", ("0",))) == ["2"]
    assert await found(Filter("b", ("true",), "ne")) == ["2"]
    assert await found(Filter("d", ("2024-01-31", "2023-01-31"))) == ["1", "2"]
    assert await found(Filter("n", ("9.5",), data_type="STRING")) == ["2"]
    assert await found(Filter("s", ("a",), "ne")) == ["2"]
    assert [row[0] for row in await typed.rows(order_by=(OrderBy("n"),))] == ["2", "1", "3"]
    for name, value in [("n", "x"), ("b", "maybe"), ("d", "x")]:
        with pytest.raises(InvalidInput, match=f'"{value}" cannot be compared'):
            await found(Filter(name, (value,)))


async def test_parquet_has_the_types(typed: Typed) -> None:
    await typed.load("1,2024-01-31\n2,\n", ID, column("d", "DATE"))
    target = typed.folder / "out.parquet"
    await typed.tables.export(SCOPE, TABLE, ExportOptions(file_type="parquet"), target)
    described = duckdb.execute(f"DESCRIBE FROM '{target}'").fetchall()
    assert [(name, kind) for name, kind, *_ in described] == [
        ("id", "DECIMAL(38,0)"),
        ("d", "DATE"),
    ]


async def test_definitions_survive_and_so_does_the_distribution_key(typed: Typed) -> None:
    await typed.load("1\n", ID, distribution_key=("id",))
    before = await typed.detail()
    assert before.distribution_key == ("id",)
    storage = vaka_local.vaka_mapping_backend(f"local://{typed.folder}/other")
    assert storage is not None
    with pytest.raises(InvalidInput, match='Distribution key columns "x" not found in "y"'):
        await typed.tables.create_table(SCOPE, "in.c-b.u", ["y"], distribution_key=["x"])


async def test_tables_from_before_there_were_types_are_without(tmp_path: Path) -> None:
    folder = tmp_path / "storage" / "tables"
    folder.mkdir(parents=True)
    with duckdb.connect(str(folder / "1.duckdb")) as old:
        old.execute("CREATE TABLE main.vaka_schema (version INTEGER NOT NULL)")
        old.execute(schema._MIGRATIONS[0])
        old.execute("INSERT INTO main.vaka_schema VALUES (1)")
        old.execute("INSERT INTO vaka.buckets VALUES ('in.c-b','in','c-b','b','',now()::TIMESTAMP)")
        old.execute(
            "INSERT INTO vaka.tables VALUES ('in.c-b.t','in.c-b','t','t','','in.c-b.t',['id'],[],"
            "now()::TIMESTAMP,NULL,NULL,0,0)"
        )
        old.execute('CREATE TABLE data."in.c-b.t" (id VARCHAR, _timestamp TIMESTAMP)')
    storage = vaka_local.vaka_mapping_backend(f"local://{tmp_path}/storage")
    assert isinstance(storage, LocalStorage)
    await storage.open()
    try:
        typed = Typed(storage, tmp_path)
        detail = await typed.detail()
        assert (detail.is_typed, detail.definitions, detail.distribution_key) == (False, (), ())
        await typed.load("id\n1\n", incremental=True)
        assert await typed.rows() == [("1",)]
    finally:
        await storage.aclose()
