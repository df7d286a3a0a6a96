"""Tables: what they are, their rows, and copies of them (storage-api.md sections 7, 11.5 and 11.6)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import trio

from vaka.errors import Conflict, InvalidInput, NotFound
from vaka.models.catalog import Json
from vaka.models.naming import webalize, webalize_display_name
from vaka.models.storage import DeleteWhere, TableDetail, TableLoad
from vaka.operations import export_options
from vaka.operations.structure import definition, definitions
from vaka.operations.tables import import_results
from vaka_server import documents
from vaka_server.access import Access
from vaka_server.fields import Fields
from vaka_server.problems import Refused, conflict_is
from vaka_server.route import Call, Handler, Method, Response, Route, absent, not_implemented
from vaka_server.routes.storage._common import (
    DEFAULT_INCLUDE,
    TABLE,
    WHERE,
    accepted,
    bucket_of,
    found,
    included,
    named,
    objects,
    selection,
)
from vaka_server.routes.storage.buckets import by_bucket

PREVIEW_LIMIT = 100
PREVIEW_MOST = 1_000
_NAME: Final = re.compile(r"(?!_)[A-Za-z0-9_-]{1,96}")
_SHOWN: Final = re.compile(r"[A-Za-z0-9_-]{1,96}")
_LONGEST_COLUMN: Final = 64
_SNAPSHOTS_MOST: Final = 1_000
_KEY: Final = "storage.validation.primaryKey"
_FORMATS: Final = ("rfc", "json")

# -- reading what is there -------------------------------------------------------------------------


async def list_tables(call: Call, bucket: str | None = None) -> Response:
    """`GET /v2/storage/tables` and `GET /v2/storage/buckets/{id}/tables`."""
    if bucket is not None:
        call.check_bucket(bucket)
    with named(call, bucket=bucket or ""):
        tables = await call.engine.storage.tables.list_tables(call.scope, bucket)
    return call.storage(await _rendered(call, tables, included(call, DEFAULT_INCLUDE)))


async def search(call: Call) -> Response:
    """`GET /v2/storage/search/tables`: tables by what is said of them."""
    names = {"metadataKey": "key", "metadataValue": "value", "metadataProvider": "provider"}
    wanted = {names[name]: call.query.text(name) for name in names if call.query.text(name)}
    if not wanted:
        raise Refused(400, f"One of {', '.join(names)} is required.", code=TABLE)
    tables = [
        each
        for each in await call.engine.storage.tables.list_tables(call.scope)
        if any(
            all(getattr(entry, name) == value for name, value in wanted.items())
            for entry in each.metadata
        )
    ]
    return call.storage(await _rendered(call, tables, DEFAULT_INCLUDE))


async def _rendered(
    call: Call, tables: Sequence[TableDetail], include: frozenset[str]
) -> list[documents.Document]:
    """Those of the tables that the caller may see."""
    backend = call.engine.storage
    buckets = {}
    inside: Mapping[str, list[TableDetail]] = {}
    if tables and "buckets" in include:
        buckets = {each.id: each for each in await backend.tables.list_buckets(call.scope)}
        inside = by_bucket(await backend.tables.list_tables(call.scope))
    return [
        documents.table(
            each,
            call.base,
            backend=backend.backend_name,
            bucket_of=buckets.get(each.bucket),
            counted=inside[each.bucket] if buckets else None,
            include=include,
        )
        for each in tables
        if call.may_use_bucket(each.bucket)
    ]


async def table(call: Call, table: str) -> Response:
    """`GET /v2/storage/tables/{id}`."""
    call.check_bucket(bucket_of(table))
    return await _detail(call, await found(call, table))


async def _detail(call: Call, table: TableDetail, status: int = 200) -> Response:
    backend = call.engine.storage
    with named(call, table=table.id):
        bucket = await backend.tables.bucket(call.scope, table.bucket)
        inside = await backend.tables.list_tables(call.scope, table.bucket)
    document = documents.table(
        table, call.base, backend=backend.backend_name, bucket_of=bucket, counted=inside
    )
    return call.storage(document, status)


async def preview(call: Call, table: str) -> Response:
    """`GET /v2/storage/tables/{id}/data-preview`."""
    call.check_bucket(bucket_of(table))
    call.query.code = TABLE
    form = call.query.text("format") or "rfc"
    if form not in _FORMATS:
        code = "storage.tables.validation.invalidFormat"
        raise Refused(400, f"format: must be one of {', '.join(_FORMATS)}.", code=code)
    limit = call.query.whole("limit", PREVIEW_LIMIT, most=PREVIEW_MOST)
    params = {**selection(call.query), "limit": limit}
    params.pop("format", None)
    options = export_options(params)
    with named(call, table=table):
        columns, rows = await call.engine.storage.tables.preview(call.scope, table, options)
    if form == "json":
        return call.storage(documents.preview(columns, rows))
    return Response(render_csv(columns, rows).encode(), 200, content_type="text/csv; charset=UTF-8")


def render_csv(columns: Sequence[str], rows: Sequence[Sequence[str | None]]) -> str:
    """Rows as Storage writes them: every field quoted, lines ended by LF."""
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(["" if value is None else value for value in row] for row in rows)
    return text.getvalue()


# -- making tables ---------------------------------------------------------------------------------


async def create(call: Call, bucket: str) -> Response:
    """`POST /v2/storage/buckets/{id}/tables-async`: of a file's header and rows, or of a snapshot."""
    given = await call.fields(code=TABLE)
    table = await _new(call, bucket, given)
    for name in ("dataUrl", "dataWorkspaceId", "dataTableName", "dataObject", "sourceTableId"):
        if given.text(name):
            raise not_implemented(f"A new table by {name}")
    file, snapshot = given.text("dataFileId"), given.text("snapshotId")
    if bool(file) == bool(snapshot):
        raise Refused(400, "Exactly one of dataFileId and snapshotId is required.", code=TABLE)
    params = _naming(call, given)
    if snapshot:
        with named(call):
            await _snapshot(call, snapshot)
        source: Json = {"type": "snapshot", "snapshotId": snapshot}
    else:
        source = await _file_source(call, str(file))
        params |= _dialect(given) | {
            "primaryKey": list(given.words("primaryKey")),
            "columns": given.texts("columns"),
        }
    return await accepted(call, "tableCreate", {"source": source, "params": params}, table=table)


async def create_now(call: Call, bucket: str) -> Response:
    """`POST /v2/storage/buckets/{id}/tables`: of the file or text in the request."""
    given = await call.fields(code=TABLE)
    table = await _new(call, bucket, given)
    params = _dialect(given)
    name = _naming(call, given).get("displayName")
    async with _data(call, given) as path:
        wanted = TableLoad(
            table_id=table,
            paths=(path,),
            columns=tuple(given.texts("columns")),
            primary_key=given.words("primaryKey"),
            only_new=True,
            display_name=name,
        )
        with named(call, table=table), conflict_is(400, "storage.tables.alreadyExists"):
            await call.engine.storage.tables.load(call.scope, [_read_as(wanted, params)])
    return await _detail(call, await found(call, table), 201)


async def define(call: Call, bucket: str) -> Response:
    """`POST /v2/storage/buckets/{id}/tables-definition`: a new empty table."""
    given = await call.fields(code=TABLE)
    table = await _new(call, bucket, given)
    for name in ("source", "timePartitioning", "rangePartitioning", "clustering"):
        if name in given:
            raise not_implemented(f"A table with {name}")
    columns = objects(given, "columns")
    if not columns:
        raise Refused(
            400,
            "columns: a table needs at least one.",
            code="storage.tables.validation.noColumns",
        )
    for index, each in enumerate(columns):
        if not each.get("name") or not isinstance(each["name"], str):
            raise Refused(400, f"columns.{index}.name: is required.", code=TABLE)
        _checked_type(call, each, f"columns.{index}")
    params: dict[str, Json] = _naming(call, given) | {
        "columns": columns,
        "primaryKeysNames": list(given.words("primaryKeysNames")),
    }
    return await accepted(call, "tableDefinitionCreate", params, table=table)


async def _new(call: Call, bucket: str, given: Fields) -> str:
    """The id of the table that a request may make in a bucket."""
    call.check_bucket(bucket, write=True)
    tables = call.engine.storage.tables
    with named(call, bucket=bucket):
        await tables.bucket(call.scope, bucket)
    name = given.text("name", "")
    if not _NAME.fullmatch(name):
        raise Refused(
            400,
            f'Invalid data - name "{name[:100]}": Only alphanumeric characters dash and underscores '
            "are allowed, no underscore at the beginning, and at most 96 characters.",
            code=TABLE,
        )
    table = f"{bucket}.{name}"
    try:
        await tables.table(call.scope, table)
    except NotFound:
        return table
    raise Refused(
        400,
        f'The table "{name}" already exists in the bucket "{bucket}".',
        code="storage.tables.alreadyExists",
    )


def _naming(call: Call, given: Fields) -> dict[str, Json]:
    """What a new table is called, and shown as where that is said."""
    params: dict[str, Json] = {"name": given.text("name")}
    if (shown := given.text("displayName")) is not None:
        params["displayName"] = _display_name(call, shown)
    return params


def _display_name(call: Call, shown: str) -> str:
    if not call.engine.storage.has_display_names:
        raise Refused(400, "displayName: tables here have names only.", code=TABLE)
    if not _SHOWN.fullmatch(shown):
        raise Refused(
            400,
            "Invalid data - displayName: Only alphanumeric characters dash and underscores are "
            "allowed.",
            code=TABLE,
        )
    return shown


def _checked_type(call: Call, column: Mapping[str, Any], path: str) -> None:
    """`Refused` when a column's definition cannot be."""
    given = column.get("definition")
    if given is not None and not isinstance(given, dict):
        raise Refused(400, f"{path}.definition: must be an object.", code=TABLE)
    if definitions([column]) and call.engine.storage.has_types:
        try:
            call.engine.storage.tables.typed(definition(column))
        except InvalidInput as error:
            raise Refused(400, error.message, code=error.code or TABLE) from error


# -- bringing rows in ------------------------------------------------------------------------------


async def load(call: Call, table: str) -> Response:
    """`POST /v2/storage/tables/{id}/import-async`."""
    call.check_bucket(bucket_of(table), write=True)
    given = await call.fields()
    await found(call, table)
    for name in ("dataUrl", "dataWorkspaceId", "dataTableName", "dataObject"):
        if given.text(name):
            raise not_implemented(f"An import by {name}")
    source = await _file_source(call, given.required("dataFileId"))
    params = {**_dialect(given), **_import(given)}
    return await accepted(call, "tableImport", {"source": source, "params": params}, table=table)


async def load_now(call: Call, table: str) -> Response:
    """`POST /v2/storage/tables/{id}/import`: of the file or text in the request."""
    call.check_bucket(bucket_of(table), write=True)
    given = await call.fields()
    before = await found(call, table)
    params = {**_dialect(given), **_import(given)}
    columns = tuple(params["columns"]) or (before.columns if params["withoutHeaders"] else ())
    nulls = params.get("treatValuesAsNull")
    async with _data(call, given) as path:
        wanted = TableLoad(
            table_id=table,
            paths=(path,),
            columns=columns,
            incremental=params["incremental"],
            ignored_lines=params.get("ignoredLinesCount", 0),
            treat_values_as_null=None if nulls is None else tuple(nulls),
            create=False,
        )
        with named(call, table=table):
            (result,) = await call.engine.storage.tables.load(
                call.scope, [_read_as(wanted, params)]
            )
    return call.storage(import_results(result, await found(call, table)))


def _import(given: Fields) -> dict[str, Any]:
    """What an import asks for, as it is shown in its job."""
    params: dict[str, Any] = {
        "incremental": given.flag("incremental"),
        "columns": given.texts("columns"),
        "withoutHeaders": given.flag("withoutHeaders"),
    }
    ignored = given.whole("ignoredLinesCount", 0, most=1 << 31)
    if ignored:
        params["ignoredLinesCount"] = ignored
    if "treatValuesAsNull" in given:
        params["treatValuesAsNull"] = given.texts("treatValuesAsNull")
    return params


def _dialect(given: Fields) -> dict[str, Json]:
    """How a CSV file is to be read.

    Raises:
        Refused: `invalidCsv`, when none can be.
    """
    escaped_by = given.text("escapedBy") or ""
    delimiter = given.text("delimiter") or ","
    enclosure = given.text("enclosure")
    if enclosure is None:
        enclosure = "" if escaped_by else '"'
    for name, value, least in (
        ("delimiter", "\t" if delimiter == "\\t" else delimiter, 1),
        ("enclosure", enclosure, 0),
        ("escapedBy", escaped_by, 0),
    ):
        if not least <= len(value) <= 1:
            raise Refused(
                400, f'CSV {name} must be one character, it is "{value}".', code="invalidCsv"
            )
    if enclosure and escaped_by:
        raise Refused(
            400,
            "Only one of the CSV options enclosure and escapedBy can be set.",
            code="invalidCsv",
        )
    return {"delimiter": delimiter, "enclosure": enclosure, "escapedBy": escaped_by}


def _read_as(wanted: TableLoad, params: Mapping[str, Any]) -> TableLoad:
    """A load of files in this dialect."""
    return replace(
        wanted,
        delimiter="\t" if params["delimiter"] == "\\t" else params["delimiter"],
        enclosure=params["enclosure"],
        escaped_by=params["escapedBy"],
    )


async def _file_source(call: Call, file_id: str) -> dict[str, Json]:
    """A file that the caller may read, as the source of rows; `NotFound` when there is none."""
    missing = NotFound(f"File id: {file_id[:100]} not found", kind="file", id=file_id)
    if not re.fullmatch(r"[0-9]{1,18}", file_id):
        raise missing
    file = await call.engine.storage.files.file(call.scope, int(file_id))
    if not call.token.can_read_all_file_uploads and file.creator_token_id != call.token.id:
        raise missing
    return {"type": "file", "fileId": file.id}


@asynccontextmanager
async def _data(call: Call, given: Fields) -> AsyncGenerator[Path, None]:
    """The file that came with a request, or its text in one."""
    if (path := given.files.get("data")) is not None:
        yield path
        return
    text = given.text("dataString")
    if text is None:
        raise Refused(400, "One of data and dataString is required.", code=given.code)
    call.spool_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = call.spool_folder / uuid4().hex
    try:
        await trio.Path(path).write_text(text, encoding="utf-8")
        yield path
    finally:
        path.unlink(missing_ok=True)


# -- taking rows out -------------------------------------------------------------------------------


async def export(call: Call, table: str) -> Response:
    """`POST /v2/storage/tables/{id}/export-async`."""
    call.check_bucket(bucket_of(table))
    given = await call.fields()
    params = selection(given)
    if params.get("fileType") not in {None, "csv"}:
        raise not_implemented(f"An export as {params['fileType']}")
    params.setdefault("gzip", False)
    export_options(params)  # refuses what cannot be
    await found(call, table)
    return await accepted(call, "tableExport", params, table=table)


async def delete_rows(call: Call, table: str) -> Response:
    """`DELETE /v2/storage/tables/{id}/rows`: by parameters in the query or in the body."""
    call.check_bucket(bucket_of(table), write=True)
    body = await call.fields()
    given = Fields({**call.query.tree, **body.tree})
    for each in objects(given, "whereFilters"):
        if "valuesByTableInWorkspace" in each:
            raise not_implemented("Deleting rows by a table of a workspace")
    params = selection(given)
    for name in ("columns", "limit", "format", "fileType", "orderBy", "gzip"):
        params.pop(name, None)
    options = export_options(params)  # refuses what cannot be
    where = DeleteWhere(options.filters, options.changed_since, options.changed_until)
    if where == DeleteWhere():
        if not given.flag("allowTruncate"):
            raise Refused(
                400,
                "No filters have been specified, which will truncate the table, but the "
                "`allowTruncate` parameter was not set.",
                code="storage.tables.validation.unintendedTruncation",
            )
        params["allowTruncate"] = True
    await found(call, table)
    return await accepted(call, "tableRowsDelete", params, table=table)


# -- columns and keys ------------------------------------------------------------------------------


async def add_column(call: Call, table: str) -> Response:
    """`POST /v2/storage/tables/{id}/columns`."""
    call.check_bucket(bucket_of(table), write=True)
    given = await call.fields()
    known = await found(call, table)
    name = given.text("name", "")
    column = webalize(name)
    if not column or len(column) > _LONGEST_COLUMN:
        raise Refused(
            400,
            f'"{name[:100]}" is not a column name: it has letters or digits, at most '
            f"{_LONGEST_COLUMN} of them.",
            code="storage.tables.invalidColumnName",
        )
    if column.lower() in {each.lower() for each in known.columns}:
        raise Refused(
            400,
            f'The table "{table}" already has the column "{column}".',
            code="storage.tables.columnAlreadyExists",
        )
    params: dict[str, Json] = {"name": column}
    if "definition" in given:
        params["definition"] = given.json("definition", code=given.code)
    if basetype := given.text("basetype"):
        params["basetype"] = basetype
    if definitions([params]) and not known.is_typed:
        raise Refused(400, f'The table "{table}" has no types, and its columns cannot have any.')
    _checked_type(call, params, "column")
    return await accepted(call, "tableColumnAdd", params, table=table)


async def delete_column(call: Call, table: str, column: str) -> Response:
    """`DELETE /v2/storage/tables/{id}/columns/{column}`."""
    call.check_bucket(bucket_of(table), write=True)
    known = await found(call, table)
    _check_column(known, column)
    if column in known.primary_key:
        raise Refused(
            400,
            f'The column "{column}" is part of the primary key and cannot be deleted.',
            code="storage.tables.cannotDeletePrimaryKeyColumn",
        )
    if len(known.columns) == 1:
        raise Refused(
            400,
            f'The column "{column}" is the last one and cannot be deleted.',
            code="storage.tables.cannotDeleteLastColumn",
        )
    return await accepted(call, "tableColumnDelete", {"column": column}, table=table)


async def change_column(call: Call, table: str, column: str) -> Response:
    """`PUT /v2/storage/tables/{id}/columns/{column}/definition`."""
    call.check_bucket(bucket_of(table), write=True)
    given = await call.fields(code=TABLE)
    known = await found(call, table)
    _check_column(known, column)
    if not known.is_typed:
        raise Refused(400, f'The table "{table}" has no types that could be changed.', code=TABLE)
    names = ("length", "nullable")
    wanted = given.mapping("definition") or {name: given.get(name) for name in names}
    changes: dict[str, Json] = {}
    inner = Fields(wanted, code=TABLE)
    if "length" in inner:
        changes["length"] = inner.text("length")
    if "nullable" in inner:
        changes["nullable"] = inner.flag("nullable")
    params: dict[str, Json] = {"column": column, "definition": changes}
    return await accepted(call, "tableColumnDefinitionUpdate", params, table=table)


def _check_column(table: TableDetail, column: str) -> None:
    if column not in table.columns:
        raise NotFound(
            f'The column "{column}" was not found in the table "{table.id}"',
            kind="column",
            id=column,
            code="storage.tables.columnNotExists",
        )


async def add_key(call: Call, table: str) -> Response:
    """`POST /v2/storage/tables/{id}/primary-key`."""
    call.check_bucket(bucket_of(table), write=True)
    given = await call.fields(code=_KEY)
    known = await found(call, table)
    columns = given.words("columns")
    missing = [each for each in columns if each not in known.columns]
    if missing or not columns:
        names = ", ".join(missing)
        raise Refused(
            400,
            f'Primary key columns "{names}" not found in "{", ".join(known.columns)}"',
            code=_KEY,
        )
    return await accepted(call, "tablePrimaryKeyAdd", {"columns": list(columns)}, table=table)


async def drop_key(call: Call, table: str) -> Response:
    """`DELETE /v2/storage/tables/{id}/primary-key`."""
    call.check_bucket(bucket_of(table), write=True)
    await found(call, table)
    return await accepted(call, "tablePrimaryKeyDelete", {}, table=table)


# -- the table as a whole --------------------------------------------------------------------------


async def update(call: Call, table: str) -> Response:
    """`PUT /v2/storage/tables/{id}`: how the table is shown."""
    call.check_bucket(bucket_of(table), write=True)
    given = await call.fields(code=TABLE)
    known = await found(call, table)
    shown = given.text("displayName")
    if shown is None:
        return await _detail(call, known)
    shown = _display_name(call, shown)
    if given.flag("async") or call.query.flag("async"):
        return await accepted(call, "tableUpdate", {"displayName": shown}, table=table)
    with named(call, table=table), conflict_is(400, "storage.buckets.tableAlreadyExists"):
        changed = await call.engine.storage.tables.update_table(
            call.scope, table, display_name=shown
        )
    return await _detail(call, changed)


async def describe(call: Call, table: str) -> Response:
    """`PUT /v2/storage/tables/{id}/definition`: what people are told of it and its columns."""
    call.check_bucket(bucket_of(table), write=True)
    given = await call.fields(code=TABLE)
    known = await found(call, table)
    params: dict[str, Json] = {}
    if "description" in given.tree:
        params["description"] = given.text("description")
    if columns := objects(given, "columns"):
        params["columns"] = [_description(known, each) for each in columns]
    return await accepted(call, "tableDefinitionUpdate", params, table=table)


def _description(table: TableDetail, column: Mapping[str, Any]) -> dict[str, Json]:
    fields = Fields(column, code=TABLE)
    name = fields.required("name")
    _check_column(table, name)
    said: dict[str, Json] = {"name": name}
    if "description" in column:
        said["description"] = fields.text("description")
    return said


async def delete(call: Call, table: str) -> Response:
    """`DELETE /v2/storage/tables/{id}`."""
    call.check_bucket(bucket_of(table), write=True)
    await found(call, table)
    if call.query.flag("async"):
        params = {"force": call.query.flag("force")}
        return await accepted(call, "tableDrop", params, table=table)
    with named(call, table=table):
        try:
            await call.engine.storage.tables.drop_table(call.scope, table)
        except Conflict as error:
            raise Refused(400, error.message, code=error.code or TABLE) from error
    return Response(b"", 204)


async def swap(call: Call, table: str) -> Response:
    """`POST /v2/storage/tables/{id}/swap`."""
    given = await call.fields(code=TABLE)
    target = given.required("targetTableId")
    for each in (table, target):
        call.check_bucket(bucket_of(each), write=True)
        await found(call, each)
    if table == target:
        raise Refused(400, f'The table "{table}" cannot be swapped with itself.', code=TABLE)
    return await accepted(call, "tableSwap", {"targetTableId": target}, table=table)


# -- snapshots -------------------------------------------------------------------------------------


async def create_snapshot(call: Call, table: str) -> Response:
    """`POST /v2/storage/tables/{id}/snapshots`."""
    call.check_bucket(bucket_of(table), write=True)
    if not call.engine.storage.has_snapshots:
        raise not_implemented("A snapshot of a table")
    given = await call.fields()
    await found(call, table)
    params: dict[str, Json] = {"description": given.text("description", "")}
    return await accepted(call, "tableSnapshotCreate", params, table=table)


async def snapshots(call: Call, table: str) -> Response:
    """`GET /v2/storage/tables/{id}/snapshots`: newest first."""
    call.check_bucket(bucket_of(table))
    backend = call.engine.storage
    limit = call.query.whole("limit", 20, most=_SNAPSHOTS_MOST)
    offset = call.query.whole("offset", 0, most=1 << 53)
    with named(call, table=table):
        made = await backend.tables.list_snapshots(call.scope, table, limit=limit, offset=offset)
    return call.storage(
        [documents.snapshot(each, call.base, backend=backend.backend_name) for each in made]
    )


async def snapshot(call: Call, snapshot: str) -> Response:
    """`GET /v2/storage/snapshots/{id}`."""
    backend = call.engine.storage
    found = await backend.tables.snapshot(call.scope, snapshot)
    call.check_bucket(found.table.bucket)
    return call.storage(documents.snapshot(found, call.base, backend=backend.backend_name))


async def delete_snapshot(call: Call, snapshot: str) -> Response:
    """`DELETE /v2/storage/snapshots/{id}`."""
    await _snapshot(call, snapshot, write=True)
    await call.engine.storage.tables.delete_snapshot(call.scope, snapshot)
    return Response(b"", 204)


async def _snapshot(call: Call, snapshot: str, *, write: bool = False) -> None:
    """Raises unless the caller may read a snapshot, or change it."""
    found = await call.engine.storage.tables.snapshot(call.scope, snapshot)
    call.check_bucket(found.table.bucket, write=write)


# -- names -----------------------------------------------------------------------------------------


async def column_names(call: Call) -> Response:
    """`POST /v2/storage/webalize/column-names`."""
    given = await call.fields()
    return call.storage({"columnNames": list(map(webalize, given.texts("columnNames")))})


async def display_name(call: Call) -> Response:
    """`POST /v2/storage/webalize/display-name`."""
    given = await call.fields()
    return call.storage({"displayName": webalize_display_name(given.required("displayName"))})


_TABLES = "/v2/storage/tables"
_ONE = f"{_TABLES}/<table>"
_IN_BUCKET = "/v2/storage/buckets/<bucket>"
_ASYNC = {"async": "true: later, as a storage job"}


def _deferred(method: Method, rule: str, handler: Handler, summary: str, **more: Any) -> Route:
    """A route that answers with a storage job."""
    return Route(
        method,
        rule,
        Access.ADMIN,
        handler,
        summary,
        answer="StorageJob",
        status=202,
        branch=True,
        **more,
    )


_ABSENT: tuple[tuple[Method, str, str], ...] = (
    ("POST", f"{_ONE}/pull", "Pulling a table"),
    ("POST", f"{_ONE}/profile", "Profiling a table"),
    ("GET", f"{_ONE}/profile", "Profiling a table"),
    ("POST", f"{_ONE}/optimize", "Optimizing a table"),
    ("POST", f"{_IN_BUCKET}/table-aliases", "An alias of a table"),
    ("POST", f"{_ONE}/alias-filter", "A filter of an alias"),
    ("DELETE", f"{_ONE}/alias-filter", "A filter of an alias"),
    ("POST", f"{_ONE}/alias-columns-auto-sync", "Following the columns of an alias's table"),
    ("DELETE", f"{_ONE}/alias-columns-auto-sync", "Following the columns of an alias's table"),
)

ROUTES = (
    Route(
        "GET",
        _TABLES,
        Access.READ,
        list_tables,
        "Tables",
        query={"include": f"Comma separated: {', '.join(sorted(documents.EXTRAS))}"},
        answer="Table[]",
        branch=True,
    ),
    Route(
        "GET",
        f"{_IN_BUCKET}/tables",
        Access.READ,
        list_tables,
        "Tables of a bucket",
        query={"include": f"Comma separated: {', '.join(sorted(documents.EXTRAS))}"},
        answer="Table[]",
        branch=True,
    ),
    Route(
        "GET",
        "/v2/storage/search/tables",
        Access.READ,
        search,
        "Tables by their metadata",
        query=dict.fromkeys(("metadataKey", "metadataValue", "metadataProvider"), "Exactly"),
        answer="Table[]",
        branch=True,
    ),
    Route("GET", _ONE, Access.READ, table, "One table", answer="Table", branch=True),
    Route(
        "GET",
        f"{_ONE}/data-preview",
        Access.READ,
        preview,
        "Some rows of a table",
        query={"format": "rfc, or json", **WHERE},
        answer="text/csv",
        branch=True,
    ),
    _deferred(
        "POST",
        f"{_IN_BUCKET}/tables-async",
        create,
        "Make a table of a file or a snapshot",
        body="NewTable",
    ),
    _deferred(
        "POST",
        f"{_IN_BUCKET}/tables-definition",
        define,
        "Make an empty table",
        body="NewTableDefinition",
    ),
    Route(
        "POST",
        f"{_IN_BUCKET}/tables",
        Access.ADMIN,
        create_now,
        "Make a table of a CSV file in the request",
        body="multipart/form-data",
        answer="Table",
        status=201,
        branch=True,
    ),
    _deferred("POST", f"{_ONE}/import-async", load, "Load a file into a table", body="TableImport"),
    Route(
        "POST",
        f"{_ONE}/import",
        Access.ADMIN,
        load_now,
        "Load a CSV file in the request into a table",
        body="multipart/form-data",
        answer="ImportResults",
        branch=True,
    ),
    Route(
        "POST",
        f"{_ONE}/export-async",
        Access.READ,
        export,
        "Write rows of a table to a file",
        body="TableExport",
        answer="StorageJob",
        status=202,
        branch=True,
    ),
    _deferred(
        "DELETE", f"{_ONE}/rows", delete_rows, "Delete rows", query=WHERE, body="RowsToDelete"
    ),
    _deferred("POST", f"{_ONE}/columns", add_column, "Add a column", body="NewColumn"),
    _deferred("DELETE", f"{_ONE}/columns/<column>", delete_column, "Delete a column"),
    _deferred(
        "PUT",
        f"{_ONE}/columns/<column>/definition",
        change_column,
        "Change a typed column",
        body="ColumnChanges",
    ),
    _deferred(
        "POST", f"{_ONE}/primary-key", add_key, "Give a table a primary key", body="KeyColumns"
    ),
    _deferred("DELETE", f"{_ONE}/primary-key", drop_key, "Take a table its primary key"),
    Route(
        "PUT",
        _ONE,
        Access.ADMIN,
        update,
        "Change how a table is shown",
        query=_ASYNC,
        body="TableChanges",
        answer="Table",
        branch=True,
    ),
    _deferred(
        "PUT",
        f"{_ONE}/definition",
        describe,
        "Describe a table and its columns",
        body="TableDescription",
    ),
    Route(
        "DELETE",
        _ONE,
        Access.ADMIN,
        delete,
        "Delete a table",
        query=_ASYNC,
        status=204,
        branch=True,
    ),
    _deferred("POST", f"{_ONE}/swap", swap, "Exchange two tables", body="TableSwap"),
    _deferred(
        "POST", f"{_ONE}/snapshots", create_snapshot, "Keep a copy of a table", body="NewSnapshot"
    ),
    Route(
        "GET",
        f"{_ONE}/snapshots",
        Access.READ,
        snapshots,
        "Copies of a table, newest first",
        query={"limit": "How many at most", "offset": "How many to leave out"},
        answer="Snapshot[]",
        branch=True,
    ),
    Route(
        "GET",
        "/v2/storage/snapshots/<snapshot>",
        Access.READ,
        snapshot,
        "One copy of a table",
        answer="Snapshot",
    ),
    Route(
        "DELETE",
        "/v2/storage/snapshots/<snapshot>",
        Access.ADMIN,
        delete_snapshot,
        "Delete a copy of a table",
        status=204,
    ),
    Route(
        "POST",
        "/v2/storage/webalize/column-names",
        Access.READ,
        column_names,
        "Names of columns as tables have them",
        body="ColumnNames",
        answer="ColumnNames",
        branch=True,
    ),
    Route(
        "POST",
        "/v2/storage/webalize/display-name",
        Access.READ,
        display_name,
        "A display name of allowed characters",
        body="DisplayName",
        answer="DisplayName",
        branch=True,
    ),
    *(absent(method, rule, what, branch=True) for method, rule, what in _ABSENT),
)
