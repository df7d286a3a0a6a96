"""What of old jobs may go, and what of them is still in use."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vaka.store._database import Transaction
from vaka.store.schema import definitions, event_batches, jobs, stages

_BEFORE = jobs.c.ended < sa.bindparam("before", type_=jobs.c.ended.type)
_OLD = (
    sa.select(jobs.c.id)
    .where(_BEFORE)
    .where(
        sa.exists().where(event_batches.c.job_id == jobs.c.id)
        | sa.exists().where(definitions.c.job_id == jobs.c.id)
    )
)


def images_used(connection: Connection) -> dict[str, datetime]:
    """When an image was last to be run, by its id."""
    statement = sa.select(
        stages.c.image_id, sa.func.max(stages.c.planned_at, type_=stages.c.planned_at.type)
    ).group_by(stages.c.image_id)
    return {row[0]: row[1] for row in connection.execute(statement)}


def old_logs(connection: Connection, before: datetime) -> tuple[int, int]:
    """How many jobs that ended before a moment have a log or a journal, and the bytes of both."""
    values = {"before": before}
    count = connection.execute(
        sa.select(sa.func.count()).select_from(_OLD.subquery()), values
    ).scalar_one()
    size = 0
    for table in (event_batches, definitions):
        statement = (
            sa.select(sa.func.coalesce(sa.func.sum(sa.func.length(table.c.data)), 0))
            .join_from(table, jobs)
            .where(_BEFORE)
        )
        size += int(connection.execute(statement, values).scalar_one())
    return int(count), size


def forget_logs(tx: Transaction, before: datetime, limit: int) -> int:
    """Remove the logs and journals of so many of these jobs; return of how many."""
    ids = tx.connection.scalars(
        _OLD.order_by(jobs.c.id).limit(sa.bindparam("count")), {"before": before, "count": limit}
    ).all()
    for table in (event_batches, definitions):
        tx.connection.execute(sa.delete(table).where(table.c.job_id.in_(ids)))
    tx.topics.update(("job", job_id) for job_id in ids)
    return len(ids)
