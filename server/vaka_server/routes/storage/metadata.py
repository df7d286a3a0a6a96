"""Metadata of buckets, tables and columns (storage-api.md section 8)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from vaka.errors import NotFound
from vaka.models.storage import MetadataEntry, TableDetail
from vaka_server import documents
from vaka_server.access import Access
from vaka_server.fields import Fields
from vaka_server.problems import Refused
from vaka_server.route import Call, Handler, Response, Route
from vaka_server.routes.storage._common import bucket_of, found, named

_STRUCTURE: Final = "storage.metadata.invalidStructure"
_WORD: Final = re.compile(r"[A-Za-z0-9._:/-]{1,255}")
"""What keys and providers are made of."""

Said = dict[str, str]


async def of_bucket(call: Call, bucket: str) -> Response:
    """`GET /v2/storage/buckets/{id}/metadata`."""
    call.check_bucket(bucket)
    with named(call, bucket=bucket):
        known = await call.engine.storage.tables.bucket(call.scope, bucket)
    return call.storage(documents.metadata(known.metadata))


async def say_of_bucket(call: Call, bucket: str) -> Response:
    """`POST /v2/storage/buckets/{id}/metadata`."""
    call.check_bucket(bucket, write=True)
    given = await call.fields(code=_STRUCTURE)
    provider, said = _provider(given), entries(given.get("metadata"), "metadata")
    tables = call.engine.storage.tables
    with named(call, bucket=bucket):
        await tables.bucket(call.scope, bucket)
        await tables.write_metadata(call.scope, bucket, provider, said)
        known = await tables.bucket(call.scope, bucket)
    return call.storage(documents.metadata(known.metadata), 201)


async def unsay_of_bucket(call: Call, bucket: str, entry: str) -> Response:
    """`DELETE /v2/storage/buckets/{id}/metadata/{entryId}`."""
    call.check_bucket(bucket, write=True)
    with named(call, bucket=bucket):
        await call.engine.storage.tables.delete_metadata(call.scope, bucket, entry)
    return Response(b"", 204)


async def of_table(call: Call, table: str) -> Response:
    """`GET /v2/storage/tables/{id}/metadata`."""
    call.check_bucket(bucket_of(table))
    return call.storage(documents.metadata((await found(call, table)).metadata))


async def say_of_table(call: Call, table: str) -> Response:
    """`POST /v2/storage/tables/{id}/metadata`: an object when the request was JSON, else a list."""
    call.check_bucket(bucket_of(table), write=True)
    given = await call.fields(code=_STRUCTURE)
    provider, columns = _provider(given), _of_columns(given.get("columnsMetadata"))
    has_own = "metadata" in given or not columns
    said = entries(given.get("metadata"), "metadata") if has_own else {}
    known = await found(call, table)
    _check_columns(known, columns)
    with named(call, table=table):
        await call.engine.storage.tables.write_metadata(call.scope, table, provider, said, columns)
    known = await found(call, table)
    own = documents.metadata(known.metadata)
    if not call.request.is_json:
        return call.storage(own, 201)
    return call.storage({"metadata": own, "columnsMetadata": documents.column_metadata(known)}, 201)


async def unsay_of_table(call: Call, table: str, entry: str) -> Response:
    """`DELETE /v2/storage/tables/{id}/metadata/{entryId}`."""
    call.check_bucket(bucket_of(table), write=True)
    with named(call, table=table):
        await call.engine.storage.tables.delete_metadata(call.scope, table, entry)
    return Response(b"", 204)


async def of_column(call: Call, column: str) -> Response:
    """`GET /v2/storage/columns/{tableId}.{column}/metadata`."""
    table, _, name = column.rpartition(".")
    call.check_bucket(bucket_of(table))
    return call.storage(documents.metadata(await _of_column(call, table, name)))


async def say_of_column(call: Call, column: str) -> Response:
    """`POST /v2/storage/columns/{tableId}.{column}/metadata`."""
    table, _, name = column.rpartition(".")
    call.check_bucket(bucket_of(table), write=True)
    given = await call.fields(code=_STRUCTURE)
    provider, said = _provider(given), entries(given.get("metadata"), "metadata")
    await _of_column(call, table, name)
    with named(call, table=table):
        await call.engine.storage.tables.write_metadata(
            call.scope, table, provider, {}, {name: said}
        )
    return call.storage(documents.metadata(await _of_column(call, table, name)), 201)


async def unsay_of_column(call: Call, column: str, entry: str) -> Response:
    """`DELETE /v2/storage/columns/{tableId}.{column}/metadata/{entryId}`."""
    table, _, name = column.rpartition(".")
    call.check_bucket(bucket_of(table), write=True)
    await _of_column(call, table, name)
    await call.engine.storage.tables.delete_metadata(call.scope, table, entry, column=name)
    return Response(b"", 204)


async def _of_column(call: Call, table: str, name: str) -> tuple[MetadataEntry, ...]:
    known = await found(call, table)
    _check_columns(known, {name: {}})
    return known.column_metadata.get(name, ())


def _check_columns(table: TableDetail, columns: Mapping[str, object]) -> None:
    for name in columns:
        if name not in table.columns:
            raise NotFound(
                f'The column "{name}" was not found in the table "{table.id}"',
                kind="column",
                id=name,
                code="storage.tables.columnNotExists",
            )


# -- what requests say -----------------------------------------------------------------------------


def _provider(given: Fields) -> str:
    provider = given.get("provider")
    if not isinstance(provider, str) or not _WORD.fullmatch(provider):
        raise Refused(
            400,
            "provider: is required, and made of letters, digits and . _ : / -",
            code="storage.metadata.invalidProvider",
        )
    return provider


def entries(value: Any, path: str) -> Said:
    """Keys and values of a list of objects."""
    if not isinstance(value, list) or not value:
        raise Refused(
            400, f"{path}: must be a list of objects with key and value.", code=_STRUCTURE
        )
    return dict(_entry(each, f"{path}.{index}") for index, each in enumerate(value))


def _entry(value: Any, path: str) -> tuple[str, str]:
    if not isinstance(value, dict) or "key" not in value or "value" not in value:
        raise Refused(400, f"{path}: must be an object with key and value.", code=_STRUCTURE)
    key = value["key"]
    if not isinstance(key, str) or not _WORD.fullmatch(key):
        raise Refused(
            400,
            f"{path}.key: must have 1 to 255 letters, digits and . _ : / -",
            code="storage.metadata.invalidKey",
        )
    return key, Fields(value, code=_STRUCTURE).text("value", "")


def _of_columns(value: Any) -> dict[str, Said]:
    """What is said of columns: lists by name, by number, or in a list; `columnName` says better."""
    said: dict[str, Said] = {}
    for key, entries in _lists(value):
        path = f"columnsMetadata.{key}"
        if not isinstance(entries, list):
            raise Refused(400, f"{path}: must be a list of objects.", code=_STRUCTURE)
        for index, each in enumerate(entries):
            name, text = _entry(each, f"{path}.{index}")
            column = each.get("columnName")
            said.setdefault(key if column is None else str(column), {})[name] = text
    return said


def _lists(value: Any) -> Iterator[tuple[str, Any]]:
    if value is None:
        return
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from ((str(index), each) for index, each in enumerate(value))
    else:
        raise Refused(400, "columnsMetadata: must be an object or a list.", code=_STRUCTURE)


def _routes(
    path: str,
    what: str,
    read: Handler,
    write: Handler,
    remove: Handler,
    *,
    body: str = "NewMetadata",
    answer: str = "MetadataEntry[]",
) -> tuple[Route, ...]:
    one = f"{path}/<entry>"
    return (
        Route(
            "GET",
            path,
            Access.READ,
            read,
            f"Metadata of a {what}",
            answer="MetadataEntry[]",
            branch=True,
        ),
        Route(
            "POST",
            path,
            Access.ADMIN,
            write,
            f"Set metadata of a {what}",
            body=body,
            answer=answer,
            status=201,
            branch=True,
        ),
        Route(
            "DELETE",
            one,
            Access.ADMIN,
            remove,
            f"Delete an entry of a {what}'s metadata",
            status=204,
            branch=True,
        ),
    )


ROUTES = (
    *_routes(
        "/v2/storage/buckets/<bucket>/metadata",
        "bucket",
        of_bucket,
        say_of_bucket,
        unsay_of_bucket,
    ),
    *_routes(
        "/v2/storage/tables/<table>/metadata",
        "table",
        of_table,
        say_of_table,
        unsay_of_table,
        body="NewTableMetadata",
        answer="TableMetadata",
    ),
    *_routes(
        "/v2/storage/columns/<column>/metadata",
        "column",
        of_column,
        say_of_column,
        unsay_of_column,
    ),
)
