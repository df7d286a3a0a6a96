"""Types of output columns, from project and schema to the table."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.engine.mapping.conftest import CONTEXT, SCOPE, Desk, csv_of, values

from vaka.errors import MappingFailed
from vaka.mapping import OutputContext
from vaka.mapping.types import effective_support
from vaka.models.component import DataTypesSupport
from vaka.models.storage import ColumnDefinition, TableLoad

TABLE = "out.c-b.table"
COMPONENT = "keboola.demo"
NEW = ("queuev2", "new-native-types")
TYPED = replace(CONTEXT, data_types="authoritative")
HINTED = replace(CONTEXT, data_types="hints")


def column(name: str, base: str | None = None, **more: Any) -> dict[str, Any]:
    """A column of a schema; `length` is that of its base type."""
    length = more.pop("length", None)
    types = {"base": {"type": base, **({"length": length} if length else {})}} if base else {}
    types |= more.pop("types", {})
    return {"name": name, **({"data_type": types} if types else {}), **more}


ID = column("Id", "INTEGER", primary_key=True)


async def stored(
    desk: Desk,
    rows: Sequence[Sequence[str]],
    *schema: dict[str, Any],
    context: OutputContext = TYPED,
    **item: Any,
) -> tuple[str, ...]:
    """Store one table of a schema; return why it could not be loaded."""
    desk.write("tables/t.csv", csv_of(rows))
    desk.write("tables/t.csv.manifest", json.dumps({"schema": list(schema)} if schema else {}))
    number = len(desk.reports.events("output.table")) + len(desk.reports.warnings)
    outputs = await desk.store(
        {"source": "t.csv", "destination": TABLE, **item}, context=context, key=f"job-{number}"
    )
    return outputs.errors


# -- what a project and a component say ------------------------------------------------------------


@pytest.mark.scenario("mapping", 210)
@pytest.mark.scenario("mapping", 211)
@pytest.mark.parametrize(
    ("features", "configured", "component", "expected"),
    [
        (("queuev2",), "authoritative", "authoritative", None),
        ((), None, "hints", None),
        (NEW, None, "none", "none"),
        (NEW, None, "hints", "hints"),
        (NEW, "authoritative", "hints", "authoritative"),
        (NEW, "none", "authoritative", "none"),
    ],
)
def test_what_types_are_worth(
    features: Sequence[str],
    configured: str | None,
    component: DataTypesSupport,
    expected: DataTypesSupport | None,
) -> None:
    assert effective_support(features, configured, component) == expected


@pytest.mark.scenario("mapping", 210)
async def test_without_the_feature_a_schema_makes_no_types(desk: Desk) -> None:
    assert await stored(desk, [("1", "x")], ID, column("a", "DATE"), context=CONTEXT) == ()
    table = await desk.backend.tables.table(SCOPE, TABLE)
    assert (table.is_typed, table.primary_key) == (False, ("Id",))
    assert await desk.rows(TABLE) == [("1", "x")]


@pytest.mark.scenario("mapping", 212)
@pytest.mark.parametrize("context", [TYPED, HINTED])
async def test_types_need_a_schema(desk: Desk, context: OutputContext) -> None:
    with pytest.raises(MappingFailed) as caught:
        await stored(desk, [("Id",), ("1",)], context=context)
    assert caught.value.message == "Configuration schema is missing."
    assert not await desk.has_table(TABLE)

    assert await stored(desk, [("Id",), ("1",)], context=replace(CONTEXT, data_types="none")) == ()
    assert not (await desk.backend.tables.table(SCOPE, TABLE)).is_typed


@pytest.mark.scenario("mapping", 213)
async def test_an_authoritative_schema_has_all_types(desk: Desk) -> None:
    with pytest.raises(MappingFailed) as caught:
        await stored(desk, [], ID, column("col1"), column("col2"))
    assert caught.value.message == "Missing data type for columns: col1, col2"


# -- new tables ------------------------------------------------------------------------------------


async def test_an_authoritative_schema_makes_a_typed_table(desk: Desk) -> None:
    own = {"snowflake": {"type": "decimal", "length": "10,2"}, "bigquery": {"type": "INT64"}}
    errors = await stored(
        desk,
        [("1", "1.5", "")],
        ID,
        column("n", "NUMERIC", types=own, nullable=False),
        column("when", "TIMESTAMP", description="then"),
    )
    assert errors == ()
    table = await desk.backend.tables.table(SCOPE, TABLE)
    assert (table.is_typed, table.primary_key) == (True, ("Id",))
    assert table.definitions == (
        ColumnDefinition("Id", "INTEGER", "NUMBER", "38,0", nullable=False),
        ColumnDefinition("n", "NUMERIC", "NUMBER", "10,2", nullable=False),
        ColumnDefinition("when", "TIMESTAMP", "TIMESTAMP_NTZ"),
    )
    assert await desk.rows(TABLE) == [("1", "1.50", None)]
    assert values(table.column_metadata["when"], COMPONENT) == {"KBC.description": "then"}


async def test_a_header_beside_a_schema_is_skipped_when_it_is_said(desk: Desk) -> None:
    rows = [("Id", "a"), ("1", "two\nlines")]
    assert await stored(desk, rows, ID, column("a", "STRING"), has_header=True) == ()
    assert await desk.rows(TABLE) == [("1", "two\nlines")]


@pytest.mark.scenario("mapping", 216)
async def test_hints_become_metadata_of_columns_that_take_text(desk: Desk) -> None:
    errors = await stored(
        desk,
        [("one", "x", "y")],
        column("Id", "INTEGER", length="10", primary_key=True, distribution_key=True),
        column("d", "DATE", nullable=False, metadata={"mine": "too"}),
        column("free"),
        context=HINTED,
    )
    assert errors == ()
    table = await desk.backend.tables.table(SCOPE, TABLE)
    assert table.is_typed
    assert [each.base_type for each in table.definitions] == ["STRING", "STRING", None]
    assert [each.nullable for each in table.definitions] == [False, False, True]
    assert table.distribution_key == ("Id",)
    said = {name: values(found, COMPONENT) for name, found in table.column_metadata.items()}
    assert said == {
        "Id": {
            "KBC.datatype.basetype": "INTEGER",
            "KBC.datatype.length": "10",
            "KBC.datatype.nullable": "0",
            "KBC.datatype.distribution_key": "1",
        },
        "d": {
            "KBC.datatype.basetype": "DATE",
            "KBC.datatype.nullable": "0",
            "mine": "too",
        },
        "free": {"KBC.datatype.nullable": "1"},
    }
    assert await desk.rows(TABLE) == [("one", "x", "y")]


@pytest.mark.scenario("mapping", 219)
async def test_a_typed_table_whose_load_fails_is_not_there(desk: Desk) -> None:
    (error,) = await stored(desk, [("id2",)], ID)
    assert error == (
        f'Failed to load table "{TABLE}": Numeric value \'id2\' is not recognized. Column "Id" '
        "takes INTEGER."
    )
    assert not await desk.has_table(TABLE)
    assert desk.reports.warnings == [f'Failed to load table "{TABLE}". Dropping table.']


async def test_a_type_that_storage_does_not_have_is_told_before_anything_is_stored(
    desk: Desk,
) -> None:
    with pytest.raises(MappingFailed) as caught:
        await stored(desk, [], column("a", "WORD"))
    assert caught.value.message.startswith(
        'Cannot create table "table" definition in Storage API: The type of column "a": '
    )


# -- tables that are there -------------------------------------------------------------------------


@pytest.mark.scenario("mapping", 217)
@pytest.mark.parametrize("typed", [True, False])
async def test_a_schema_may_have_more_columns_than_the_table_but_not_fewer(
    desk: Desk, *, typed: bool
) -> None:
    if typed:
        assert (
            await stored(desk, [("1", "x", "y")], ID, column("a", "STRING"), column("b", "STRING"))
            == ()
        )
    else:
        await desk.table(TABLE, [("1", "x", "y")], columns=("Id", "a", "b"), key=("Id",))

    with pytest.raises(MappingFailed) as caught:
        await stored(desk, [("2", "x")], ID, column("a", "STRING"), incremental=True)
    assert caught.value.message == (
        f'Table "{TABLE}" does not contain the same number of columns as the schema. Table columns: '
        "3, schema columns: 2."
    )
    with pytest.raises(MappingFailed) as caught:
        await stored(desk, [], ID, column("a", "STRING"), column("col4", "STRING"))
    assert caught.value.message == f'Table "{TABLE}" does not contain columns: "col4".'

    more = column("more", "DATE")
    errors = await stored(
        desk, [("2", "x", "y", "2024-01-31")], ID, column("a", "STRING"), column("b", "STRING"), more,
        incremental=True,
    )  # fmt: skip
    assert errors == ()
    table = await desk.backend.tables.table(SCOPE, TABLE)
    assert table.columns == ("Id", "a", "b", "more")
    assert [each.base_type for each in table.definitions][3:] == (["DATE"] if typed else [])
    assert await desk.rows(TABLE) == [
        ("1", "x", "y", None if typed else ""),
        ("2", "x", "y", "2024-01-31"),
    ]


@pytest.mark.scenario("mapping", 218)
async def test_a_schema_has_the_types_of_the_table(desk: Desk) -> None:
    ntz = {"snowflake": {"type": "TIMESTAMP_NTZ"}}
    ltz = {"snowflake": {"type": "timestamp_ltz"}}
    a = column("a", "STRING")
    assert await stored(desk, [("1", "x", "")], ID, a, column("t", "TIMESTAMP", types=ntz)) == ()

    alias = column("a", "STRING", types={"snowflake": {"type": "text"}})
    assert (
        await stored(desk, [("1", "x", "")], ID, alias, column("t", "TIMESTAMP", types=ltz)) == ()
    )
    with pytest.raises(MappingFailed) as caught:
        await stored(desk, [], column("Id", "STRING", primary_key=True), a, column("t", "DATE"))
    assert caught.value.message == (
        f'Table "{TABLE}" column "Id" has different type than the schema. Table type: "NUMBER", '
        f'schema type: "VARCHAR". Table "{TABLE}" column "t" has different type than the schema. '
        'Table type: "TIMESTAMP_NTZ", schema type: "DATE".'
    )


async def test_nullability_length_and_key_follow_the_schema_or_fail(desk: Desk) -> None:
    assert (
        await stored(
            desk, [("1", "abc"), ("1", "d")], column("Id", "INTEGER"), column("a", "STRING")
        )
        == ()
    )

    changed = column("a", "STRING", length="3", nullable=False)
    more = [("2", "e")]
    assert await stored(desk, more, column("Id", "INTEGER"), changed, incremental=True) == ()
    _, a = (await desk.backend.tables.table(SCOPE, TABLE)).definitions
    assert (a.length, a.nullable) == ("3", False)

    (error,) = await stored(
        desk, more, column("Id", "INTEGER"), column("a", "STRING", length="2"), incremental=True
    )
    assert 'The length of column "a" cannot be changed to 2' in error
    (error,) = await stored(desk, more, ID, changed, incremental=True)
    assert error.startswith(
        f'Failed to load table "{TABLE}": Error changing primary key of table {TABLE}: '
    )
    assert len(await desk.rows(TABLE)) == 3


async def test_a_new_column_without_schema_has_the_type_of_its_metadata(desk: Desk) -> None:
    assert await stored(desk, [("1",)], ID) == ()
    said = {"KBC.datatype.basetype": "DATE", "KBC.datatype.nullable": "0", "other": "x"}
    errors = await stored(
        desk,
        [("2", "2024-01-31", "x")],
        context=replace(CONTEXT, data_types="none"),
        columns=["Id", "d", "e"],
        column_metadata={"d": [{"key": key, "value": value} for key, value in said.items()]},
    )
    assert errors == ()
    table = await desk.backend.tables.table(SCOPE, TABLE)
    assert [(each.base_type, each.nullable) for each in table.definitions[1:]] == [
        ("DATE", False),
        ("STRING", True),
    ]


@pytest.mark.parametrize(
    ("backend", "expected"), [("snowflake", ("NUMBER", "10,2")), ("teradata", ("FLOAT", None))]
)
async def test_metadata_make_a_new_table_typed_where_a_project_has_it_so(
    desk: Desk, backend: str, expected: tuple[str, str | None]
) -> None:
    said = {"basetype": "FLOAT", "type": "NUMERIC", "length": "10,2", "nullable": "0"}
    item = {
        "columns": ["Id", "n"],
        "column_metadata": {
            "n": [{"key": f"KBC.datatype.{key}", "value": value} for key, value in said.items()]
        },
        "metadata": [{"key": "KBC.datatype.backend", "value": backend}],
    }
    assert await stored(desk, [("1", "1")], context=CONTEXT, **item) == ()
    assert not (await desk.backend.tables.table(SCOPE, TABLE)).is_typed
    await desk.backend.tables.drop_table(SCOPE, TABLE)

    old = replace(CONTEXT, types_in_metadata=True)
    assert await stored(desk, [("1", "1")], context=old, **item) == ()
    free, n = (await desk.backend.tables.table(SCOPE, TABLE)).definitions
    assert (free.base_type, n.type, n.length, n.nullable) == ("STRING", *expected, False)
    assert await stored(desk, [("Id",), ("1",)], context=old, destination="out.c-b.bare") == ()
    assert not (await desk.backend.tables.table(SCOPE, "out.c-b.bare")).is_typed


# -- values that become null -----------------------------------------------------------------------


async def seeded(desk: Desk, *, typed: bool) -> None:
    """A table with columns Id and Name, empty."""
    columns = ("Id", "Name")
    defined = tuple(ColumnDefinition(name, "STRING") for name in columns) if typed else ()
    load = TableLoad(TABLE, (), columns, definitions=defined)
    await desk.backend.tables.load(SCOPE, [load])


@pytest.mark.scenario("mapping", 182)
@pytest.mark.parametrize(("typed", "expected"), [(True, None), (False, "")])
async def test_values_become_null_in_a_table_that_is_there(
    desk: Desk, expected: str | None, *, typed: bool
) -> None:
    await seeded(desk, typed=typed)
    desk.write("tables/t.csv", csv_of([("Id", "Name"), ("1", "aabb"), ("2", "x")]))
    context = replace(CONTEXT, treat_values_as_null=("aabb",))
    await desk.store({"source": "t.csv", "destination": TABLE}, context=context)
    assert await desk.rows(TABLE) == [("1", expected), ("2", "x")]
    assert desk.reports.warnings == []


@pytest.mark.scenario("mapping", 182)
async def test_values_become_null_in_a_table_made_from_names_but_not_in_one_made_from_data(
    desk: Desk,
) -> None:
    desk.write("tables/header.csv", csv_of([("1", "aabb")]))
    desk.write("tables/data.csv", csv_of([("Id", "Name"), ("1", "aabb")]))
    await desk.store(
        {"source": "header.csv", "destination": "out.c-b.header", "columns": ["Id", "Name"]},
        {"source": "data.csv", "destination": "out.c-b.data"},
        context=replace(CONTEXT, treat_values_as_null=("aabb",)),
    )
    assert await desk.rows("out.c-b.header") == [("1", "")]
    assert await desk.rows("out.c-b.data") == [("1", "aabb")]
    assert desk.reports.warnings == ['Treating values as null for table "data" was skipped.']


@pytest.mark.scenario("mapping", 183)
async def test_no_value_becomes_null_when_that_is_said(desk: Desk) -> None:
    await seeded(desk, typed=True)
    desk.write("tables/t.csv", csv_of([("Id", "Name"), ("1", "")]))
    item = {"source": "t.csv", "destination": TABLE}
    await desk.store(item, context=replace(CONTEXT, treat_values_as_null=()))
    assert await desk.rows(TABLE) == [("1", "")]
    await desk.store(item, key="job-2-0")
    assert await desk.rows(TABLE) == [("1", None)]
