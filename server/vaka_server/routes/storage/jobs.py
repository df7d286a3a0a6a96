"""Storage jobs: what is done to tables and buckets later than it was asked for (section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio

from vaka.errors import NotFound
from vaka.models.operation import NewOperation, Operation, OperationQuery, OperationStatus
from vaka_server import documents
from vaka_server.access import Access
from vaka_server.route import Call, Response, Route

LIMIT = 100
MOST = 10_000
PATIENCE = 10.0
"""Seconds that who asks for a job that has not ended is kept waiting for its end: the published Python
client would not ask again for 4 seconds, then 8, up to 20. Published clients wait 30 for an answer."""


async def jobs(call: Call) -> Response:
    """`GET /jobs`, newest first. A token that has not every bucket sees its own jobs."""
    query = call.query
    given = query.words("storage_job_status") + query.words("status")
    statuses = tuple(each for each in OperationStatus if each.value in given)
    if given and not statuses:
        return call.storage([])
    wanted = OperationQuery(
        project=call.project.id,
        statuses=statuses,
        kinds=query.words("operationName") + query.words("operation_name"),
        table_id=query.text("tableId") or query.text("table_id") or None,
        run_id=query.text("runId") or query.text("run_id") or None,
        token_id=None if call.token.bucket_permissions is None else call.token.id,
        created_since=query.moment("created_time_from") or query.moment("createdTimeFrom"),
        created_until=query.moment("created_time_to") or query.moment("createdTimeTo"),
        limit=query.whole("limit", LIMIT, most=MOST),
        offset=query.whole("offset", 0, most=1 << 31),
    )
    found = await call.engine.operations.operations(wanted)
    return call.storage([document(call, each) for each in found])


async def job(call: Call, job_id: str) -> Response:
    """`GET /jobs/{id}`. Answers once the job has ended, or after `PATIENCE`."""
    missing = NotFound(f"Job {job_id} not found", kind="job", id=job_id)
    if not (job_id.isascii() and job_id.isdigit() and len(job_id) <= 18):
        raise missing
    found = await call.engine.operations.operation(int(job_id), project=call.project.id)
    if call.token.bucket_permissions is not None and found.token_id != call.token.id:
        raise missing
    if not found.status.is_finished:
        with trio.move_on_after(PATIENCE):
            await call.engine.operations.wait(found.id)
        found = await call.engine.operations.operation(found.id, project=call.project.id)
    return call.storage(document(call, found))


def document(call: Call, operation: Operation) -> documents.Document:
    """A job as clients read it."""
    return documents.storage_job(operation, call.base, backend=call.engine.storage.backend_name)


def accepted(call: Call, operation: Operation) -> Response:
    """The answer to a request whose work is done later; it may have ended by now."""
    return call.storage(document(call, operation), 202)


async def submitted(
    call: Call, kind: str, params: Mapping[str, Any], *, table_id: str | None = None
) -> Response:
    """Ask for an operation in the name of the caller, and say that it was accepted."""
    operation = await call.engine.operations.submit(
        NewOperation(
            project=call.project.id,
            kind=kind,
            params=params,
            branch=call.scope.branch,
            table_id=table_id,
            run_id=call.run_id,
            token_id=call.token.id,
            token_description=call.token.description,
        )
    )
    return accepted(call, operation)


ROUTES = (
    Route(
        "GET",
        "/v2/storage/jobs",
        Access.READ,
        jobs,
        "Storage jobs, newest first",
        query={
            "storage_job_status": "waiting, processing, success or error, or several",
            "operationName": "Such as tableImport, or several",
            "tableId": "Of this table",
            "runId": "Of this run",
            "created_time_from": "Created then or later",
            "created_time_to": "Created before",
            "limit": f"How many at most, {LIMIT} unless given",
            "offset": "How many to leave out",
        },
        answer="StorageJob[]",
    ),
    Route(
        "GET",
        "/v2/storage/jobs/<job_id>",
        Access.READ,
        job,
        "One Storage job",
        answer="StorageJob",
    ),
)
