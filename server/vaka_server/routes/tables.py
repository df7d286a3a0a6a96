"""Buckets and tables (storage-api.md sections 6 and 7), and loading and exporting as one stream."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

from vaka.errors import InvalidInput, NotFound
from vaka.models.storage import ExportOptions, Filter, TableLoad
from vaka_server import documents
from vaka_server.access import Access, check_bucket, may_use_bucket
from vaka_server.body import TemporaryFile, parse_object, spool
from vaka_server.problems import Refused, conflict_is
from vaka_server.requests import OPERATORS
from vaka_server.route import Call, Response, Route

PREVIEW_LIMIT = 100
PREVIEW_MOST = 1_000


# -- buckets ---------------------------------------------------------------------------------------


async def buckets(call: Call) -> Response:
    """`GET /v2/storage/buckets`."""
    backend = call.engine.storage
    return call.storage(
        [
            documents.bucket(each, call.base, backend=backend.backend_name)
            for each in await backend.tables.list_buckets(call.scope)
            if may_use_bucket(call.token, each.id)
        ]
    )


async def create_bucket(call: Call) -> Response:
    """`POST /v2/storage/buckets`."""
    given = parse_object(await call.raw())
    name, stage = str(given.get("name") or ""), str(given.get("stage") or "in")
    if stage not in {"in", "out"}:
        raise Refused(400, "stage: must be in or out.", code="storage.buckets.validation")
    check_bucket(call.token, f"{stage}.c-{name}", write=True)
    backend = call.engine.storage
    try:
        with conflict_is(400, "storage.buckets.alreadyExists"):
            created = await backend.tables.create_bucket(
                call.scope, stage, name, description=str(given.get("description") or "")
            )
    except InvalidInput as error:
        raise Refused(400, error.message, code="storage.buckets.validation") from error
    return call.storage(
        documents.bucket(created, call.base, backend=backend.backend_name, tables=()), 201
    )


async def bucket(call: Call, bucket: str) -> Response:
    """`GET /v2/storage/buckets/{id}`."""
    check_bucket(call.token, bucket)
    backend = call.engine.storage
    with _named(bucket=bucket):
        found = await backend.tables.bucket(call.scope, bucket)
        tables = await backend.tables.list_tables(call.scope, bucket)
    return call.storage(
        documents.bucket(found, call.base, backend=backend.backend_name, tables=tables)
    )


# -- tables ----------------------------------------------------------------------------------------


async def tables(call: Call, bucket: str | None = None) -> Response:
    """`GET /v2/storage/tables` and `GET /v2/storage/buckets/{id}/tables`."""
    if bucket is not None:
        check_bucket(call.token, bucket)
    backend = call.engine.storage
    with _named(bucket=bucket or ""):
        found = await backend.tables.list_tables(call.scope, bucket)
    return call.storage(
        [
            documents.table(each, call.base, backend=backend.backend_name)
            for each in found
            if may_use_bucket(call.token, each.bucket)
        ]
    )


async def table(call: Call, table: str) -> Response:
    """`GET /v2/storage/tables/{id}`."""
    check_bucket(call.token, bucket_of(table))
    backend = call.engine.storage
    with _named(table=table):
        found = await backend.tables.table(call.scope, table)
        owner = await backend.tables.bucket(call.scope, found.bucket)
    return call.storage(
        documents.table(found, call.base, backend=backend.backend_name, bucket_of=owner)
    )


async def preview(call: Call, table: str) -> Response:
    """`GET /v2/storage/tables/{id}/data-preview`."""
    check_bucket(call.token, bucket_of(table))
    form = call.text("format") or "rfc"
    if form not in {"rfc", "json"}:
        code = "storage.tables.validation.invalidFormat"
        raise Refused(400, "format: must be rfc or json.", code=code)
    text = call.text("limit")
    if text is not None and text.isdigit() and int(text[:9]) > PREVIEW_MOST:
        raise Refused(
            400, f"limit: must not be above {PREVIEW_MOST}.", code="storage.tables.validation"
        )
    options = export_options(call, limit=call.whole("limit", PREVIEW_LIMIT, most=PREVIEW_MOST))
    with _named(table=table):
        columns, rows = await call.engine.storage.tables.preview(call.scope, table, options)
    if form == "json":
        return call.storage(documents.preview(columns, rows))
    return Response(render_csv(columns, rows).encode(), 200, content_type="text/csv; charset=UTF-8")


async def load(call: Call, table: str) -> Response:
    """`POST /vaka/tables/{id}/load`: the body is the CSV file, plain or gzip. Our own.

    With an `Idempotency-Key`, a second try loads nothing.
    """
    check_bucket(call.token, bucket_of(table), write=True)
    key = call.text("primaryKey")
    wanted = TableLoad(
        table_id=table,
        paths=(),
        columns=call.words("columns"),
        primary_key=None if key is None else call.words("primaryKey"),
        incremental=call.flag("incremental"),
        delimiter=_character(call.text("delimiter") or ","),
        enclosure=call.request.args.get("enclosure", '"'),
        escaped_by=call.text("escapedBy") or "",
        import_key=call.request.headers.get("Idempotency-Key") or None,
    )
    async with spool(call.body, call.spool_folder, limit=call.settings.max_upload_bytes) as path:
        with _named(table=table):
            results = await call.engine.storage.tables.load(
                call.scope, [replace(wanted, paths=(path,))]
            )
    return call.storage(documents.load_result(results[0]))


async def export(call: Call, table: str) -> Response:
    """`GET /vaka/tables/{id}/export`: the rows as CSV, one stream. Our own."""
    check_bucket(call.token, bucket_of(table))
    limit = call.text("limit")
    options = export_options(
        call,
        limit=None if limit is None else call.whole("limit", 0, most=1 << 53),
        gzip=call.flag("gzip"),
        header=call.flag("header", default=True),
    )
    call.spool_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = call.spool_folder / uuid4().hex
    try:
        with _named(table=table):
            result = await call.engine.storage.tables.export(call.scope, table, options, target)
        content = TemporaryFile(target)
    finally:
        target.unlink(missing_ok=True)
    headers = {
        "Content-Length": str(content.size),
        "X-Vaka-Rows": str(result.rows),
        "Content-Disposition": f'attachment; filename="{table}.csv{".gz" * options.gzip}"',
    }
    kind = "application/gzip" if options.gzip else "text/csv; charset=UTF-8"
    return Response(content, 200, headers, content_type=kind)


# -- what a request means --------------------------------------------------------------------------


def export_options(
    call: Call, *, limit: int | None, gzip: bool = False, header: bool = True
) -> ExportOptions:
    """Which rows and columns a query asks for."""
    column, values = call.text("whereColumn"), call.request.args.getlist("whereValues[]")
    values = values or call.request.args.getlist("whereValues")
    filters: tuple[Filter, ...] = ()
    if column is not None:
        if not values:
            raise Refused(
                400,
                'Invalid request:\n - whereColumn: "To use "whereColumn" specify "whereValues"."',
                code="validation.failed",
            )
        operator = OPERATORS.get(call.text("whereOperator") or "eq")
        if operator is None:
            raise Refused(400, f"whereOperator: must be one of {', '.join(OPERATORS)}.")
        filters = (Filter(column, tuple(values), operator),)  # type: ignore[arg-type]
    return ExportOptions(
        columns=call.words("columns"),
        filters=filters,
        changed_since=call.moment("changedSince"),
        changed_until=call.moment("changedUntil"),
        limit=limit,
        header=header,
        gzip=gzip,
    )


def render_csv(columns: Sequence[str], rows: Sequence[Sequence[str | None]]) -> str:
    """Rows as Storage writes them: every field quoted, lines ended by LF."""
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(["" if value is None else value for value in row] for row in rows)
    return text.getvalue()


def bucket_of(table: str) -> str:
    """The bucket of a table id; of one that is none, what stands before its last dot."""
    return table.rpartition(".")[0]


@contextmanager
def _named(*, table: str = "", bucket: str = "") -> Iterator[None]:
    """Within it, what is not there is named as Storage's clients know it."""
    try:
        yield
    except NotFound as error:
        if error.kind == "bucket" or not table:
            missing = error.id or bucket
            raise NotFound(f"Bucket {missing} not found", kind="bucket", id=missing) from error
        name = table.rpartition(".")[2]
        raise NotFound(
            f'The table "{name}" was not found in the bucket "{bucket_of(table)}" in the project',
            kind="table",
            id=table,
        ) from error


def _character(text: str) -> str:
    return "\t" if text == "\\t" else text


_WHERE = {
    "columns": "Comma separated, in the order wanted",
    "whereColumn": "Column to compare",
    "whereValues[]": "Values to compare with, any of them",
    "whereOperator": f"One of {', '.join(OPERATORS)}",
    "changedSince": "Rows that changed then or later",
    "changedUntil": "Rows that changed before",
    "limit": "How many rows at most",
}

ROUTES = (
    Route("GET", "/v2/storage/buckets", Access.READ, buckets, "Buckets", answer="Bucket[]"),
    Route(
        "POST",
        "/v2/storage/buckets",
        Access.ADMIN,
        create_bucket,
        "Make a bucket",
        body="NewBucket",
        answer="Bucket",
        status=201,
    ),
    Route(
        "GET",
        "/v2/storage/buckets/<bucket>",
        Access.READ,
        bucket,
        "One bucket with its tables",
        answer="Bucket",
    ),
    Route(
        "GET",
        "/v2/storage/buckets/<bucket>/tables",
        Access.READ,
        tables,
        "Tables of a bucket",
        answer="Table[]",
    ),
    Route("GET", "/v2/storage/tables", Access.READ, tables, "Tables", answer="Table[]"),
    Route("GET", "/v2/storage/tables/<table>", Access.READ, table, "One table", answer="Table"),
    Route(
        "GET",
        "/v2/storage/tables/<table>/data-preview",
        Access.READ,
        preview,
        "Some rows of a table",
        query={"format": "rfc, or json", **_WHERE},
        answer="text/csv",
    ),
    Route(
        "POST",
        "/vaka/tables/<table>/load",
        Access.ADMIN,
        load,
        "Load a CSV file, plain or gzip, into a table that is made when it is missing",
        query={
            "incremental": "true adds rows, or replaces those of the same key",
            "primaryKey": "Columns, comma separated",
            "columns": "Names of the columns of a file without a header",
            "delimiter": "One character, or \\t",
            "enclosure": "One character, or nothing",
            "escapedBy": "One character",
        },
        body="text/csv",
        answer="LoadResult",
    ),
    Route(
        "GET",
        "/vaka/tables/<table>/export",
        Access.READ,
        export,
        "A table as CSV",
        query={"gzip": "true", "header": "false leaves out the header", **_WHERE},
        answer="text/csv",
    ),
)
