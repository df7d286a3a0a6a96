"""Buckets (storage-api.md section 6)."""

from __future__ import annotations

from collections import defaultdict

from vaka.errors import Conflict
from vaka.models.storage import BucketDetail, TableDetail
from vaka_server import documents
from vaka_server.access import Access
from vaka_server.fields import Fields
from vaka_server.problems import Refused, conflict_is
from vaka_server.route import Call, Method, Response, Route, absent, not_implemented
from vaka_server.routes.storage._common import (
    BUCKET,
    accepted,
    check_manages,
    included,
    named,
)

_PATH = "/v2/storage/buckets"
_ONE = f"{_PATH}/<bucket>"
_NOT_EMPTY = "buckets.deleteNotEmpty"
_INCLUDE = {"include": "Comma separated: attributes, metadata"}


async def list_buckets(call: Call) -> Response:
    """`GET /v2/storage/buckets`."""
    backend = call.engine.storage
    found = await backend.tables.list_buckets(call.scope)
    tables = by_bucket(await backend.tables.list_tables(call.scope))
    include = included(call, frozenset({"attributes"}))
    return call.storage(
        [
            documents.bucket(
                each,
                call.base,
                backend=backend.backend_name,
                counted=tables[each.id],
                include=include,
            )
            for each in found
            if call.may_use_bucket(each.id)
        ]
    )


def by_bucket(tables: list[TableDetail]) -> defaultdict[str, list[TableDetail]]:
    """Tables by the bucket they are in."""
    result = defaultdict(list)
    for each in tables:
        result[each.bucket].append(each)
    return result


async def create(call: Call) -> Response:
    """`POST /v2/storage/buckets`."""
    given = await call.fields(code=BUCKET)
    if "sourceProjectId" in given:
        raise not_implemented("Linking a bucket of another project")
    name, stage = given.text("name", ""), given.text("stage") or "in"
    backend = call.engine.storage
    wanted = given.text("backend")
    if wanted not in {None, "", backend.backend_name}:
        raise Refused(400, f"backend: must be {backend.backend_name}.", code=BUCKET)
    check_manages(call, f"{stage}.c-{name}")
    shown = _shown(call, given)
    with conflict_is(400, "storage.buckets.alreadyExists"):
        created = await backend.tables.create_bucket(
            call.scope, stage, name, description=given.text("description", ""), **shown
        )
    return _detail(call, created, [], 201)


async def bucket(call: Call, bucket: str) -> Response:
    """`GET /v2/storage/buckets/{id}`."""
    call.check_bucket(bucket)
    tables = call.engine.storage.tables
    with named(call, bucket=bucket):
        found = await tables.bucket(call.scope, bucket)
        return _detail(call, found, await tables.list_tables(call.scope, bucket))


async def update(call: Call, bucket: str) -> Response:
    """`PUT /v2/storage/buckets/{id}`: how the bucket is shown."""
    check_manages(call, bucket)
    given = await call.fields(code=BUCKET)
    tables = call.engine.storage.tables
    with named(call, bucket=bucket):
        found = await tables.bucket(call.scope, bucket)
        shown = _shown(call, given)
        if given.flag("async") or call.query.flag("async"):
            params = {"displayName": shown.get("display_name"), "color": shown.get("color")}
            changes = {name: value for name, value in params.items() if value is not None}
            return await accepted(
                call, "bucketUpdate", {"bucketId": bucket, **changes}, bucket=bucket
            )
        if shown:
            with conflict_is(400, "storage.buckets.alreadyExists"):
                found = await tables.update_bucket(call.scope, bucket, **shown)
        return _detail(call, found, await tables.list_tables(call.scope, bucket))


async def delete(call: Call, bucket: str) -> Response:
    """`DELETE /v2/storage/buckets/{id}`."""
    check_manages(call, bucket)
    force = call.query.flag("force")
    tables = call.engine.storage.tables
    with named(call, bucket=bucket):
        inside = await tables.list_tables(call.scope, bucket)
        if inside and not force:
            raise Refused(
                400,
                f"Only empty buckets can be deleted. There are {len(inside)} tables in the bucket.",
                code=_NOT_EMPTY,
            )
        if call.query.flag("async"):
            params = {"bucketId": bucket, "force": force}
            return await accepted(call, "bucketDelete", params, bucket=bucket)
        try:
            await tables.drop_bucket(call.scope, bucket, force=force)
        except Conflict as error:
            raise Refused(400, error.message, code=error.code or _NOT_EMPTY) from error
    return Response(b"", 204)


async def shared(call: Call) -> Response:
    """`GET /v2/storage/shared-buckets`: there are none."""
    return call.storage([])


def _detail(
    call: Call, found: BucketDetail, tables: list[TableDetail], status: int = 200
) -> Response:
    backend = call.engine.storage.backend_name
    return call.storage(documents.bucket(found, call.base, backend=backend, tables=tables), status)


def _shown(call: Call, given: Fields) -> dict[str, str]:
    """How a bucket is to be shown, as far as it is said."""
    names = {"display_name": given.text("displayName"), "color": given.text("color")}
    shown = {name: value for name, value in names.items() if value is not None}
    if shown and not call.engine.storage.has_display_names:
        raise Refused(400, "displayName: buckets here have names only.", code=BUCKET)
    return shown


_ABSENT: tuple[tuple[Method, str, str], ...] = (
    ("POST", f"{_ONE}/share", "Sharing a bucket"),
    ("DELETE", f"{_ONE}/share", "Sharing a bucket"),
    ("POST", f"{_ONE}/share-organization", "Sharing a bucket"),
    ("POST", f"{_ONE}/share-organization-project", "Sharing a bucket"),
    ("POST", f"{_ONE}/share-to-projects", "Sharing a bucket"),
    ("POST", f"{_ONE}/share-to-users", "Sharing a bucket"),
    ("PUT", f"{_ONE}/share", "Sharing a bucket"),
    ("POST", f"{_ONE}/refresh", "Refreshing a bucket"),
    ("PUT", f"{_ONE}/owner", "Giving a bucket an owner"),
    ("DELETE", f"{_ONE}/owner", "Giving a bucket an owner"),
    ("GET", "/v2/storage/listings", "The exchange of buckets"),
    ("POST", "/v2/storage/listings", "The exchange of buckets"),
    ("POST", f"{_PATH}/register", "Registering a bucket of a database"),
)

ROUTES = (
    Route(
        "GET",
        _PATH,
        Access.READ,
        list_buckets,
        "Buckets",
        query=_INCLUDE,
        answer="Bucket[]",
        branch=True,
    ),
    Route(
        "POST",
        _PATH,
        Access.ADMIN,
        create,
        "Make a bucket",
        body="NewBucket",
        answer="Bucket",
        status=201,
        branch=True,
    ),
    Route(
        "GET",
        _ONE,
        Access.READ,
        bucket,
        "One bucket with its tables",
        answer="Bucket",
        branch=True,
    ),
    Route(
        "PUT",
        _ONE,
        Access.ADMIN,
        update,
        "Change how a bucket is shown",
        query={"async": "true: later, as a storage job"},
        body="BucketChanges",
        answer="Bucket",
        branch=True,
    ),
    Route(
        "DELETE",
        _ONE,
        Access.ADMIN,
        delete,
        "Delete a bucket",
        query={
            "force": "true deletes the tables in it as well",
            "async": "true: later, as a storage job",
        },
        status=204,
        branch=True,
    ),
    Route("GET", "/v2/storage/shared-buckets", Access.READ, shared, "Buckets of other projects"),
    *(absent(method, rule, what, branch=True) for method, rule, what in _ABSENT),
)
