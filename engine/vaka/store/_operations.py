"""Operations on Storage: accepted, claimed, finished.

What is about one table is done in the order in which it was accepted, and what is about a bucket comes
after everything accepted before for its tables, and before everything after it. So an operation may be
claimed when no open one with a smaller id is about the same thing, and when no more of its project are
being done than may be. An operation that lost its engine
stays in its place: it is open, and comes again before what waits behind it.

Every function that writes runs in a transaction that no other change of the queue overlaps.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.engine import Connection, Row

from vaka.errors import NotFound, Overloaded
from vaka.models.operation import (
    Done,
    NewOperation,
    Operation,
    OperationError,
    OperationQuery,
    OperationStatus,
)
from vaka.store._database import Transaction
from vaka.store._records import MAX_ID, forget_older
from vaka.store.schema import operations as table
from vaka.store.values import Fence

MOST_OPEN = 1_000
"""Operations of a project that may be open: each is looked at when one is claimed."""

_DONE = TypeAdapter(Done)
_OPEN = table.c.ended.is_(None)
_EARLIER = table.alias("earlier")
_IS_BLOCKED = sa.exists().where(
    _EARLIER.c.ended.is_(None),
    _EARLIER.c.bucket_lock == table.c.bucket_lock,
    _EARLIER.c.id < table.c.id,
    sa.or_(
        _EARLIER.c.table_lock.is_(None),
        table.c.table_lock.is_(None),
        _EARLIER.c.table_lock == table.c.table_lock,
    ),
)
_OTHER = table.alias("other")
_BEGUN = (
    sa.select(sa.func.count())
    .where(
        _OTHER.c.ended.is_(None),
        _OTHER.c.status == OperationStatus.PROCESSING.value,
        _OTHER.c.project == table.c.project,
        _OTHER.c.id != table.c.id,
    )
    .scalar_subquery()
)
"""How many others of its project have begun; those of an engine that died are to be begun again."""
_MAY_BEGIN = sa.or_(table.c.project_parallelism.is_(None), table.c.project_parallelism > _BEGUN)
_CLAIMABLE = (
    sa.select(table.c.id, table.c.project_parallelism)
    .where(
        _OPEN,
        sa.or_(
            table.c.status == OperationStatus.WAITING.value,
            sa.and_(
                table.c.expires <= sa.bindparam("now", type_=table.c.expires.type),
                table.c.owner != sa.bindparam("claimer"),
            ),
        ),
        ~_IS_BLOCKED,
        _MAY_BEGIN,
    )
    .order_by(table.c.id)
    .limit(sa.bindparam("count"))
)
_COUNT_OPEN = (
    sa.select(sa.func.count()).select_from(table).where(_OPEN, table.c.project == sa.bindparam("p"))
)
_INSERT = sa.insert(table)
_UPDATE = sa.update(table).where(table.c.id == sa.bindparam("of_operation"))
_BY_ID = sa.select(table).where(table.c.id == sa.bindparam("of_operation"))
_STILL = (
    sa.select(sa.literal(1)).select_from(table).where(_BY_ID.whereclause, _MAY_BEGIN)  # type: ignore[arg-type]
)


def submit(tx: Transaction, new: NewOperation) -> Operation:
    """Store a new operation, waiting.

    Raises:
        Overloaded: the project has as many open ones as it may.
    """
    if tx.connection.execute(_COUNT_OPEN, {"p": new.project}).scalar_one() >= MOST_OPEN:
        raise Overloaded(
            f"The project has {MOST_OPEN} operations on Storage that have not ended; wait for some.",
            retry_after=5.0,
        )
    bucket_lock, table_lock = _locks(new)
    values: dict[str, Any] = {
        "id": next(tx.ids),
        "project": new.project,
        "branch": new.branch,
        "kind": new.kind,
        "params": dict(new.params),
        "table_id": new.table_id,
        "bucket_lock": bucket_lock,
        "table_lock": table_lock,
        "run_id": new.run_id,
        "status": OperationStatus.WAITING.value,
        "created": tx.clock(),
        "token_id": new.token_id,
        "token_description": new.token_description,
        "attempt": 0,
        "project_parallelism": new.project_parallelism,
    }
    tx.connection.execute(_INSERT, values)
    tx.topics.add("operations")
    return _by_id(tx.connection, values["id"])


def _locks(new: NewOperation) -> tuple[str | None, str | None]:
    """What the operation is about, as `bucket_lock` and `table_lock`."""
    if new.bucket_id is not None:
        return f"{new.project}/{new.branch or ''}/{new.bucket_id}", None
    if new.table_id is None:
        return None, None
    bucket = new.table_id.rpartition(".")[0]
    return f"{new.project}/{new.branch or ''}/{bucket}", new.table_id


def claim(tx: Transaction, owner: str, *, lease: float, limit: int) -> list[Operation]:
    """The oldest operations that may begin, or begin again, which are now `owner`'s."""
    now = tx.clock()
    found = tx.connection.execute(_CLAIMABLE, {"now": now, "claimer": owner, "count": limit}).all()
    ids = []
    for each, parallelism in found:
        if parallelism is not None and not tx.connection.scalar(_STILL, {"of_operation": each}):
            continue  # those before it are as many as may be
        ids.append(each)
        tx.connection.execute(
            _UPDATE.values(attempt=table.c.attempt + 1),
            {
                "of_operation": each,
                "status": OperationStatus.PROCESSING.value,
                "started": now,
                "owner": owner,
                "expires": now + timedelta(seconds=lease),
            },
        )
    return [_by_id(tx.connection, each) for each in ids]


def renew(tx: Transaction, owner: str, lease: float) -> frozenset[int]:
    """Extend what `owner` has; return the ids of it."""
    is_its = sa.and_(table.c.owner == owner, _OPEN)
    expires = tx.clock() + timedelta(seconds=lease)
    tx.connection.execute(sa.update(table).where(is_its).values(expires=expires))
    return frozenset(tx.connection.scalars(sa.select(table.c.id).where(is_its)))


def expire_owner(tx: Transaction, owner: str) -> None:
    """Let others have what an engine had that is known to be dead."""
    tx.connection.execute(
        sa.update(table).where(table.c.owner == owner, _OPEN).values(expires=tx.clock())
    )
    tx.topics.add("operations")


def disown(tx: Transaction, owner: str, under_way: Collection[int]) -> None:
    """Put what `owner` has claimed and never began back among the waiting."""
    tx.connection.execute(
        sa.update(table)
        .where(table.c.owner == owner, _OPEN, table.c.id.not_in(sorted(under_way)))
        .values(
            status=OperationStatus.WAITING.value,
            started=None,
            owner=None,
            expires=None,
            attempt=table.c.attempt - 1,
        )
    )
    tx.topics.add("operations")


def release(tx: Transaction, fence: Fence) -> bool:
    """Put an operation back among the waiting as if it had not begun; False: it is another's."""
    if not _is_held(tx, fence):
        return False
    tx.connection.execute(
        _UPDATE,
        {
            "of_operation": fence.job_id,
            "status": OperationStatus.WAITING.value,
            "started": None,
            "owner": None,
            "expires": None,
            # the next one to begin it need not think that it was interrupted
            "attempt": fence.attempt - 1,
        },
    )
    tx.topics.add("operations")
    return True


def finish(tx: Transaction, fence: Fence, outcome: Done | OperationError) -> bool:
    """Write how an operation ended; False: it is another's, and nothing was written."""
    if not _is_held(tx, fence):
        return False
    values: dict[str, Any] = {"of_operation": fence.job_id, "ended": tx.clock(), "expires": None}
    if isinstance(outcome, Done):
        values |= {
            "status": OperationStatus.SUCCESS.value,
            "results": _DONE.dump_python(outcome, mode="json", exclude_defaults=True),
            "cache_key": outcome.cache_key,
        }
    else:
        values |= {"status": OperationStatus.ERROR.value, "error": asdict(outcome)}
    tx.connection.execute(_UPDATE, values)
    tx.topics |= {"operations", ("operation", fence.job_id)}
    return True


def _is_held(tx: Transaction, fence: Fence) -> bool:
    row = tx.connection.execute(
        _BY_ID.with_for_update(), {"of_operation": fence.job_id}
    ).one_or_none()
    return row is not None and (row.owner, row.attempt, row.ended) == (
        fence.owner_id,
        fence.attempt,
        None,
    )


def forget(tx: Transaction, before: datetime, limit: int) -> int:
    """Remove up to `limit` operations that ended before a moment; return how many."""
    return forget_older(tx.connection, table.c.ended, before, limit)


# -- reading ---------------------------------------------------------------------------------------


def operation(connection: Connection, operation_id: int, project: str | None) -> Operation:
    """One operation; `NotFound` when it is not there or of another project."""
    missing = NotFound(f"Job {operation_id} not found", kind="job", id=str(operation_id))
    if not 0 < operation_id <= MAX_ID:
        raise missing
    row = connection.execute(_BY_ID, {"of_operation": operation_id}).one_or_none()
    if row is None or project not in {None, row.project}:
        raise missing
    return _record(row)


def operations_like(connection: Connection, query: OperationQuery) -> list[Operation]:
    """The operations that match, newest first."""
    statement = (
        sa.select(table)
        .where(table.c.project == query.project, *_conditions(query))
        .order_by(table.c.id.desc())
        .limit(query.limit)
        .offset(query.offset)
    )
    return [_record(row) for row in connection.execute(statement)]


def _conditions(query: OperationQuery) -> Iterable[sa.ColumnElement[bool]]:
    if query.statuses:
        yield table.c.status.in_([each.value for each in query.statuses])
    if query.kinds:
        yield table.c.kind.in_(query.kinds)
    if query.table_id is not None:
        yield table.c.table_id == query.table_id
    if query.bucket_id is not None:
        # "/" is what comes after "."
        yield table.c.table_id >= f"{query.bucket_id}."
        yield table.c.table_id < f"{query.bucket_id}/"
    if query.run_id is not None:
        yield table.c.run_id == query.run_id
    if query.token_id is not None:
        yield table.c.token_id == query.token_id
    if query.created_since is not None:
        yield table.c.created >= query.created_since
    if query.created_until is not None:
        yield table.c.created < query.created_until


def cached(connection: Connection, project: str, cache_key: str) -> Operation | None:
    """The newest operation that left this key, or None."""
    row = connection.execute(
        sa.select(table)
        .where(table.c.project == project, table.c.cache_key == cache_key)
        .order_by(table.c.id.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else _record(row)


def _by_id(connection: Connection, operation_id: int) -> Operation:
    return _record(connection.execute(_BY_ID, {"of_operation": operation_id}).one())


def _record(row: Row[Any]) -> Operation:
    error: Mapping[str, Any] | None = row.error
    return Operation(
        id=row.id,
        project=row.project,
        branch=row.branch,
        kind=row.kind,
        params=row.params,
        table_id=row.table_id,
        run_id=row.run_id,
        status=OperationStatus(row.status),
        created=row.created,
        started=row.started,
        ended=row.ended,
        results=None if row.results is None else _DONE.validate_python(row.results),
        error=None if error is None else OperationError(**error),
        token_id=row.token_id,
        token_description=row.token_description,
        owner=row.owner,
        attempt=row.attempt,
    )
