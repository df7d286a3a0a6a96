"""What the routes of buckets, tables and their metadata share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from vaka.errors import AccessDenied, NotFound
from vaka.models.catalog import Json
from vaka.models.operation import NewOperation
from vaka.models.storage import TableDetail
from vaka_server import documents
from vaka_server.fields import Fields
from vaka_server.problems import Refused
from vaka_server.route import Call, Response

BUCKET = "storage.buckets.validation"
TABLE = "storage.tables.validation"
"""Storage's words for bad members of requests."""
DEFAULT_INCLUDE = frozenset({"attributes", "metadata", "buckets"})
"""What lists of tables hold when nobody says what to include."""

WHERE = {
    "columns": "Comma separated, in the order wanted",
    "whereColumn": "Column to compare",
    "whereValues[]": "Values to compare with, any of them",
    "whereOperator": "One of eq, ne, neq",
    "whereFilters": "Conditions that must all hold, each with column, operator, values and dataType",
    "changedSince": "Rows that changed then or later",
    "changedUntil": "Rows that changed before",
    "limit": "How many rows at most",
}
"""Query parameters that choose rows and columns, and what they mean."""


async def accepted(
    call: Call,
    kind: str,
    params: Mapping[str, Json],
    *,
    table: str | None = None,
    bucket: str | None = None,
) -> Response:
    """Submit an operation, and answer with the storage job that it is."""
    scope = call.scope
    record = await call.engine.operations.submit(
        NewOperation(
            project=scope.project,
            branch=scope.branch,
            kind=kind,
            params=params,
            table_id=table,
            bucket_id=bucket,
            run_id=scope.run_id,
            token_id=scope.token_id,
            token_description=scope.token_description,
        )
    )
    backend = call.engine.storage.backend_name
    return call.storage(documents.storage_job(record, call.base, backend=backend), 202)


def check_manages(call: Call, bucket: str) -> None:
    """`AccessDenied` when the caller may not make, change or delete a bucket as a whole."""
    call.check_bucket(bucket, write=True)
    if not call.token.can_manage_buckets:
        raise AccessDenied(f"Token {call.token.id} may not manage buckets.")


def bucket_of(table: str) -> str:
    """The bucket of a table id; of one that is none, what stands before its last dot."""
    return table.rpartition(".")[0]


async def found(call: Call, table: str) -> TableDetail:
    """The table, named as Storage's clients know it when it is not there."""
    with named(call, table=table):
        return await call.engine.storage.tables.table(call.scope, table)


@contextmanager
def named(call: Call, *, table: str = "", bucket: str = "") -> Iterator[None]:
    """Within it, what is not there is named as Storage's clients know it."""
    try:
        yield
    except NotFound as error:
        if error.kind == "bucket" or (error.kind == "table" and not table):
            missing = error.id or bucket
            raise NotFound(f"Bucket {missing} not found", kind="bucket", id=missing) from error
        if error.kind != "table":
            raise
        missing = error.id or table
        raise NotFound(
            f'The table "{missing.rpartition(".")[2]}" was not found in the bucket '
            f'"{bucket_of(missing)}" in the project "{call.project.id}"',
            kind="table",
            id=missing,
        ) from error


def included(call: Call, default: frozenset[str]) -> frozenset[str]:
    """What a list shall hold beside what it always holds."""
    return frozenset(call.query.words("include")) if "include" in call.query.tree else default


def selection(fields: Fields) -> dict[str, Json]:
    """Which rows and columns a request asks for, as `vaka.operations.export_options` takes it.

    Storage shows these parameters in its jobs, so they stay as they are named; flags are booleans, and
    what may be a list or a text is a list.
    """
    params: dict[str, Json] = {}
    if columns := fields.words("columns"):
        params["columns"] = list(columns)
    for name in ("limit", "format", "fileType", "changedSince", "changedUntil"):
        if (value := fields.text(name)) not in {None, ""}:
            params[name] = value
    if column := fields.text("whereColumn"):
        params["whereColumn"] = column
        params["whereValues"] = fields.texts("whereValues")
        if operator := fields.text("whereOperator"):
            params["whereOperator"] = operator
    for name in ("whereFilters", "orderBy"):
        if members := objects(fields, name):
            params[name] = members
    for name in ("gzip", "includeInternalTimestamp"):
        if fields.flag(name):
            params[name] = True
    return params


def objects(fields: Fields, name: str) -> list[dict[str, Any]]:
    """A list of objects, which may be the text of it as JSON; empty when it is not there."""
    value = fields.get(name)
    if isinstance(value, str) and value:
        value = fields.json(name, code=fields.code)
    if value in (None, "", {}):
        return []
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise Refused(400, f"{name}: must be a list of objects.", code=fields.code)
    return value
