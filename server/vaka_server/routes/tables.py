"""Loading and exporting a table as one stream. Our own; Storage's ways are in `storage`."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

from vaka.models.storage import TableLoad
from vaka.operations import export_options
from vaka_server import documents
from vaka_server.access import Access
from vaka_server.body import TemporaryFile, spool
from vaka_server.route import Call, Response, Route
from vaka_server.routes.storage._common import WHERE, bucket_of, named, selection


async def load(call: Call, table: str) -> Response:
    """`POST /vaka/tables/{id}/load`: the body is the CSV file, plain or gzip. Our own.

    With an `Idempotency-Key`, a second try loads nothing.
    """
    call.check_bucket(bucket_of(table), write=True)
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
        with named(call, table=table):
            results = await call.engine.storage.tables.load(
                call.scope, [replace(wanted, paths=(path,))]
            )
    return call.storage(documents.load_result(results[0]))


async def export(call: Call, table: str) -> Response:
    """`GET /vaka/tables/{id}/export`: the rows as CSV, one stream. Our own."""
    call.check_bucket(bucket_of(table))
    options = export_options(selection(call.query), header=call.query.flag("header", default=True))
    call.spool_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = call.spool_folder / uuid4().hex
    try:
        with named(call, table=table):
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


def _character(text: str) -> str:
    return "\t" if text == "\\t" else text


ROUTES = (
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
        query={"gzip": "true", "header": "false leaves out the header", **WHERE},
        answer="text/csv",
    ),
)
