"""From rows to records, and the questions that only read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from vaka.errors import NotFound
from vaka.models.job import (
    Cause,
    CauseKind,
    JobQuery,
    JobRecord,
    Mode,
    Phase,
    StageRecord,
    StageStatus,
    Status,
)
from vaka.store import _search
from vaka.store.schema import definitions, job_specs, job_tokens, jobs, leases, stages
from vaka.store.values import Blocker

MAX_ID = 2**63 - 1
_SECOND = 1_000_000

_RECORD = sa.select(jobs, job_specs.c.spec).join_from(jobs, job_specs)
_BY_ID = _RECORD.where(jobs.c.id == sa.bindparam("job_id"))
_STAGES = (
    sa.select(stages)
    .where(stages.c.job_id == sa.bindparam("job_id"))
    .order_by(stages.c.attempt, stages.c.definition, stages.c.stage)
)
_SORT_KEYS = {
    "id": jobs.c.id,
    "run_id": jobs.c.run_id,
    "token_description": jobs.c.token_description,
    "status": jobs.c.status,
    "component": jobs.c.component,
    "config": jobs.c.config,
    "created": jobs.c.created,
    "started": jobs.c.started,
    "ended": jobs.c.ended,
    # whole seconds, as they are shown: equal ones are then ordered by id
    "duration": (
        sa.type_coerce(jobs.c.ended, sa.BigInteger) - sa.type_coerce(jobs.c.started, sa.BigInteger)
    )
    // _SECOND,
}


def missing(job_id: int) -> NotFound:
    """The error for a job that is not there, or not for who asks."""
    return NotFound(f"Job not found: {job_id}", kind="job", id=str(job_id))


def job(connection: Connection, job_id: int, project: str | None = None) -> JobRecord:
    """One job with its stages."""
    if not 0 < job_id <= MAX_ID:
        raise missing(job_id)
    row = connection.execute(_BY_ID, {"job_id": job_id}).one_or_none()
    if row is None or project not in {None, row.project}:
        raise missing(job_id)
    return record(row, map(_stage, connection.execute(_STAGES, {"job_id": job_id})))


def token(connection: Connection, job_id: int) -> str | None:
    """The cipher of a job's token, or None when it has none or has ended."""
    statement = sa.select(job_tokens.c.token).where(job_tokens.c.job_id == job_id)
    return connection.execute(statement).scalar_one_or_none()


def request_hash(connection: Connection, project: str, idempotency_key: str) -> str | None:
    """What was stored with a project's idempotency key, or None."""
    statement = sa.select(jobs.c.request_hash).where(
        jobs.c.project == project, jobs.c.idempotency_key == idempotency_key
    )
    return connection.execute(statement).scalar_one_or_none()


def jobs_like(connection: Connection, query: JobQuery) -> list[JobRecord]:
    """The jobs that match, without their stages."""
    if query.limit <= 0:
        return []
    statement = (
        _RECORD.where(*_conditions(query))
        .order_by(*_order(query))
        .limit(min(query.limit, MAX_ID))
        .offset(min(max(query.offset, 0), MAX_ID))
    )
    return [record(row) for row in connection.execute(statement)]


def job_groups(connection: Connection, query: JobQuery) -> list[tuple[str, str | None]]:
    """Component and configuration of the jobs that match, each pair once, its first job deciding."""
    number = sa.func.row_number().over(
        partition_by=[jobs.c.component, jobs.c.config], order_by=_order(query)
    )
    ranked = (
        sa.select(jobs.c.id.label("job_id"), number.label("number"))
        .join_from(jobs, job_specs)
        .where(*_conditions(query))
        .subquery()
    )
    statement = (
        sa.select(jobs.c.component, jobs.c.config)
        .join_from(jobs, job_specs)
        .where(jobs.c.id.in_(sa.select(ranked.c.job_id).where(ranked.c.number == 1)))
        .order_by(*_order(query))
        .limit(min(max(query.limit, 0), MAX_ID))
        .offset(min(max(query.offset, 0), MAX_ID))
    )
    return [(row.component, row.config) for row in connection.execute(statement)]


def _conditions(query: JobQuery) -> Iterator[sa.ColumnElement[bool]]:
    for column, value in (
        (jobs.c.project, query.project),
        (jobs.c.component, query.component),
        (jobs.c.config, query.config),
        (jobs.c.run_id, query.run_id),
    ):
        if value is not None:
            yield column == value
    for given, values in (
        (jobs.c.id, [each for each in query.ids if 0 < each <= MAX_ID] if query.ids else ()),
        (jobs.c.run_id, query.run_ids),
        (sa.func.coalesce(jobs.c.parent_run_id, ""), query.parent_run_ids),
        (jobs.c.component, query.components),
        (sa.func.coalesce(jobs.c.config, ""), query.configs),
        (sa.func.coalesce(_BRANCH, ""), query.branches),
        (jobs.c.token_id, query.token_ids),
        (jobs.c.mode, [mode.value for mode in query.modes]),
        (jobs.c.status, [status.value for status in query.statuses]),
    ):
        if values or (given is jobs.c.id and query.ids):
            yield given.in_(values)
    if query.rows:
        yield sa.or_(*map(_asks_for_row, query.rows))
    for moment, since, until in (
        (jobs.c.created, query.created_since, query.created_until),
        (jobs.c.started, query.started_since, query.started_until),
        (jobs.c.ended, query.ended_since, query.ended_until),
        (_SORT_KEYS["duration"], query.least_seconds, query.most_seconds),
    ):
        if since is not None:
            yield moment >= since
        if until is not None:
            yield moment <= until
    if query.search is not None:
        yield _search.condition(query.search)


_BRANCH = _search.member(job_specs.c.spec, "branch")
_ROW = _search.member(job_specs.c.spec, "row")
_ROWS = _search.member(job_specs.c.spec, "rows")


def _asks_for_row(row: str) -> sa.ColumnElement[bool]:
    # the rows are a list in JSON; taking the text out of it is compared byte by byte on both databases
    return sa.or_(_ROW.in_([row]), sa.func.replace(_ROWS, json.dumps(row), "") != _ROWS)


def _order(query: JobQuery) -> list[sa.ColumnElement[Any]]:
    key = _BRANCH if query.order_by == "branch" else _SORT_KEYS[query.order_by]
    order = key.desc() if query.descending else key.asc()
    # `id` is never missing, and a plain order can come from an index
    return [order] if query.order_by == "id" else [order.nulls_last(), jobs.c.id.desc()]


def jobs_of_run(connection: Connection, run_id: str) -> list[JobRecord]:
    """The jobs with this run id and those below it, oldest first."""
    below = run_id + "."
    after_below = run_id + chr(ord(".") + 1)
    statement = _RECORD.where(
        (jobs.c.run_id == run_id) | ((jobs.c.run_id >= below) & (jobs.c.run_id < after_below))
    ).order_by(jobs.c.id)
    return [record(row) for row in connection.execute(statement)]


def counts(connection: Connection) -> dict[Status, int]:
    """How many jobs there are of each status; all statuses are named."""
    statement = sa.select(jobs.c.status, sa.func.count()).group_by(jobs.c.status)
    found = {Status(status): number for status, number in connection.execute(statement)}
    return {status: found.get(status, 0) for status in Status}


def active_jobs(connection: Connection) -> dict[int, int]:
    """Attempt by id of the jobs that run."""
    rows = connection.execute(sa.select(leases.c.job_id, leases.c.attempt))
    return {row.job_id: row.attempt for row in rows}


def blocker(connection: Connection, job_id: int) -> Blocker | None:
    """What of the store's own keeps a waiting job from being claimed, if anything does."""
    row = connection.execute(
        sa.select(
            jobs.c.lock_name, jobs.c.project, jobs.c.project_parallelism, jobs.c.parent_run_id
        ).where(jobs.c.id == job_id)
    ).one_or_none()
    if row is None:
        return None
    older = connection.execute(
        sa.select(sa.func.min(jobs.c.id)).where(
            jobs.c.lock_name == row.lock_name, jobs.c.ended.is_(None), jobs.c.id < job_id
        )
    ).scalar_one()
    if older is not None:
        return Blocker(job_id=older)
    if row.project_parallelism is None:
        return None
    running = connection.scalars(
        sa.select(leases.c.parent_run_id).where(leases.c.project == row.project)
    ).all()
    has_free_parent = row.parent_run_id is not None and row.parent_run_id not in running
    if len(running) < row.project_parallelism or has_free_parent:
        return None
    return Blocker(project_running=len(running))


def kept_definitions(connection: Connection, job_id: int, attempt: int) -> dict[int, Any]:
    """What the definitions of an attempt have left for its end, by definition."""
    statement = sa.select(definitions.c.definition, definitions.c.data).where(
        definitions.c.job_id == job_id, definitions.c.attempt == attempt
    )
    return {row.definition: row.data for row in connection.execute(statement)}


def record(row: Row[Any], stage_records: Iterable[StageRecord] = ()) -> JobRecord:
    """The job that a row of `jobs` joined with `job_specs` speaks of."""
    return JobRecord(
        id=row.id,
        run_id=row.run_id,
        project=row.project,
        spec=row.spec,
        component=row.component,
        config=row.config,
        status=Status(row.status),
        mode=Mode(row.mode),
        created=row.created,
        lock_name=row.lock_name,
        memory_bytes=row.memory_bytes,
        token_id=row.token_id,
        token_description=row.token_description,
        started=row.started,
        ended=row.ended,
        owner=row.owner,
        host=row.host,
        pid=row.pid,
        attempt=row.attempt,
        phase=None if row.phase is None else Phase(row.phase),
        definition=row.definition,
        stop_requested=row.terminated_by is not None,
        terminated_by=row.terminated_by,
        error=row.error,
        error_note=row.error_note,
        result=row.result or {},
        usage=_usage(row.usage),
        metrics=row.metrics or {},
        cause=_cause(row.cause),
        stages=tuple(stage_records),
    )


def _stage(row: Row[Any]) -> StageRecord:
    fields = dict(row._mapping)
    fields["digests"] = tuple(row.digests)
    fields["status"] = StageStatus(row.status)
    return StageRecord(**fields)


def _usage(kept: Mapping[str, list[Mapping[str, Any]]] | None) -> tuple[Mapping[str, Any], ...]:
    """All entries, in the order of attempts and of the definitions that left them."""
    ordered = sorted((kept or {}).items(), key=lambda each: tuple(map(int, each[0].split("."))))
    return tuple(entry for _, entries in ordered for entry in entries)


def cause_json(cause: Cause | None) -> Mapping[str, Any] | None:
    """A cause as it is stored."""
    return None if cause is None else {"kind": cause.kind.value, "evidence": dict(cause.evidence)}


def _cause(kept: Mapping[str, Any] | None) -> Cause | None:
    return None if kept is None else Cause(CauseKind(kept["kind"]), kept["evidence"])


def row_of_project(
    connection: Connection, table: sa.Table, row_id: int, project: str
) -> Row[Any] | None:
    """The row of this id, None when the project has none such."""
    if not 0 < row_id <= MAX_ID:
        return None
    wanted = sa.select(table).where(table.c.id == row_id, table.c.project == project)
    return connection.execute(wanted).one_or_none()


def forget_older(
    connection: Connection, moment: sa.Column[Any], before: datetime, limit: int
) -> int:
    """Remove up to `limit` rows whose `moment` is before another; return how many."""
    table = moment.table
    ids = connection.scalars(
        sa.select(table.c.id).where(moment < before).order_by(moment).limit(limit)
    ).all()
    connection.execute(sa.delete(table).where(table.c.id.in_(ids)))
    return len(ids)
