"""Operations on what tables are: their definition, columns, key, names and copies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vaka.errors import Conflict, InvalidInput, NotFound
from vaka.models.catalog import Json
from vaka.models.naming import webalize
from vaka.models.operation import Done
from vaka.models.storage import ColumnDefinition, DeleteWhere, SnapshotDetail, TableDetail
from vaka.operations._work import Work
from vaka.operations.selection import filters, moment, words

DESCRIPTION = "KBC.description"
"""Key of metadata, of the provider `user`, that holds what people are told of a table or a column."""
USER = "user"


async def create(work: Work) -> Done:
    """`tableDefinitionCreate`: a new empty table (storage-api.md section 7.4).

    `columns` with `name`, `definition` and `basetype`; `primaryKeysNames`, `displayName`.
    """
    params = work.operation.params
    columns: list[Mapping[str, Any]] = params["columns"]
    try:
        made = await work.storage.tables.create_table(
            work.scope,
            work.table_id,
            [str(each["name"]) for each in columns],
            primary_key=words(params.get("primaryKeysNames"), "primaryKeysNames"),
            definitions=definitions(columns) if work.storage.has_types else (),
            **_shown(params),
        )
    except Conflict:
        if not work.is_repeated:
            raise
        made = await work.storage.tables.table(work.scope, work.table_id)
    return await _described(work, made)


def definitions(columns: list[Mapping[str, Any]]) -> tuple[ColumnDefinition, ...]:
    """Definitions of columns as a client gives them; none when no column has a type."""
    found = tuple(map(definition, columns))
    return found if any(each.type or each.base_type for each in found) else ()


def definition(column: Mapping[str, Any]) -> ColumnDefinition:
    """What a client says of a column: `name`, `basetype`, and `definition` with a type."""
    given: Mapping[str, Any] = column.get("definition") or {}
    length, default = given.get("length"), given.get("default")
    nullable = given.get("nullable")
    return ColumnDefinition(
        name=str(column["name"]),
        base_type=str(column["basetype"]) if column.get("basetype") else None,
        type=str(given["type"]) if given.get("type") else None,
        length=None if length in {None, ""} else str(length),
        nullable=nullable is None or bool(nullable),
        default=None if default is None else str(default),
    )


async def update(work: Work) -> Done:
    """`tableUpdate`: another `displayName`."""
    changed = await work.storage.tables.update_table(
        work.scope, work.table_id, display_name=str(work.operation.params["displayName"])
    )
    return await _described(work, changed)


async def describe(work: Work) -> Done:
    """`tableDefinitionUpdate`: `description`, and `columns` with `name` and `description`.

    Both are kept as metadata, where clients look for them. One that is null or empty is removed.
    """
    params, tables = work.operation.params, work.storage.tables
    said: dict[str | None, Json] = {
        str(each["name"]): each["description"]
        for each in params.get("columns") or ()
        if "description" in each
    }
    if "description" in params:
        said[None] = params["description"]
    texts = {column: {DESCRIPTION: str(text)} for column, text in said.items() if text}
    columns = {column: text for column, text in texts.items() if column is not None}
    if texts:
        await tables.write_metadata(work.scope, work.table_id, USER, texts.get(None, {}), columns)
    before = await tables.table(work.scope, work.table_id)
    for column in said.keys() - texts.keys():
        entries = before.metadata if column is None else before.column_metadata.get(column, ())
        for entry in entries:
            if (entry.provider, entry.key) == (USER, DESCRIPTION):
                await tables.delete_metadata(work.scope, work.table_id, entry.id, column=column)
    return await _described(work, await tables.table(work.scope, work.table_id))


async def change_column(work: Work) -> Done:
    """`tableColumnDefinitionUpdate`: `column`, and its new `definition`."""
    params, tables = work.operation.params, work.storage.tables
    name = str(params["column"])
    table = await tables.table(work.scope, work.table_id)
    known = {each.name: each for each in table.definitions}
    if name not in known:
        raise InvalidInput(
            f'The column "{name}" of the table "{work.table_id}" has no type that could be changed.',
            path="column",
        )
    old, given = known[name], params.get("definition") or {}
    wanted = ColumnDefinition(
        name=name,
        base_type=old.base_type,
        type=old.type,
        length=str(given["length"]) if given.get("length") else old.length,
        nullable=old.nullable if given.get("nullable") is None else bool(given["nullable"]),
    )
    return await _described(work, await tables.update_column(work.scope, work.table_id, wanted))


async def add_column(work: Work) -> Done:
    """`tableColumnAdd`: `name`, and for a typed table `definition` and `basetype`."""
    params, tables = work.operation.params, work.storage.tables
    name = str(params["name"])
    table = await tables.table(work.scope, work.table_id)
    if work.is_repeated and webalize(name) in table.columns:
        return await _described(work, table)
    typed = (definition(params),) if table.is_typed else ()
    changed = await tables.add_columns(work.scope, work.table_id, [name], definitions=typed)
    return await _described(work, changed)


async def delete_column(work: Work) -> Done:
    """`tableColumnDelete`: `column`."""
    name = str(work.operation.params["column"])
    try:
        await work.storage.tables.drop_column(work.scope, work.table_id, name)
    except NotFound as error:
        if not (work.is_repeated and error.kind == "column"):
            raise
    return Done()


async def set_key(work: Work) -> Done:
    """`tablePrimaryKeyAdd`: `columns`."""
    columns = words(work.operation.params.get("columns"), "columns")
    changed = await work.storage.tables.set_primary_key(work.scope, work.table_id, columns)
    return await _described(work, changed)


async def drop_key(work: Work) -> Done:
    """`tablePrimaryKeyDelete`."""
    changed = await work.storage.tables.set_primary_key(work.scope, work.table_id, ())
    return await _described(work, changed)


async def delete_rows(work: Work) -> Done:
    """`tableRowsDelete`: the rows that an export with the same parameters gives, or all of them."""
    params, now = work.operation.params, work.operation.created
    where = DeleteWhere(
        filters=filters(params),
        changed_since=moment(params, "changedSince", now),
        changed_until=moment(params, "changedUntil", now),
    )
    deleted = await work.storage.tables.delete_rows(
        work.scope, work.table_id, None if where == DeleteWhere() else where
    )
    return Done({"deletedRows": deleted})


async def swap(work: Work) -> Done:
    """`tableSwap`: with the table `targetTableId`."""
    await work.storage.tables.swap_tables(
        work.scope,
        work.table_id,
        str(work.operation.params["targetTableId"]),
        import_key=work.import_key,
    )
    return Done()


async def snapshot(work: Work) -> Done:
    """`tableSnapshotCreate`: with a `description`."""
    made = await work.storage.tables.create_snapshot(
        work.scope,
        work.table_id,
        description=str(work.operation.params.get("description") or ""),
        import_key=work.import_key,
    )
    return Done(snapshot_results(made))


def snapshot_results(made: SnapshotDetail) -> dict[str, Any]:
    """What a client is told of a new snapshot."""
    return {
        "id": made.id,
        "description": made.description,
        "createdTime": made.created.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "dataSizeBytes": made.table.data_size_bytes,
        "tableId": made.table.id,
    }


async def _described(work: Work, table: TableDetail) -> Done:
    """A table to be shown, with its bucket."""
    return Done(table=table, bucket=await work.storage.tables.bucket(work.scope, table.bucket))


def _shown(params: Mapping[str, Any]) -> dict[str, str]:
    """The display name of a new table, where it is given one."""
    return {"display_name": str(params["displayName"])} if params.get("displayName") else {}


HANDLERS = {
    "tableDefinitionCreate": create,
    "tableUpdate": update,
    "tableDefinitionUpdate": describe,
    "tableColumnDefinitionUpdate": change_column,
    "tableColumnAdd": add_column,
    "tableColumnDelete": delete_column,
    "tablePrimaryKeyAdd": set_key,
    "tablePrimaryKeyDelete": drop_key,
    "tableRowsDelete": delete_rows,
    "tableSwap": swap,
    "tableSnapshotCreate": snapshot,
}
