"""How long jobs ran, summed up (runner.md section 1.11.5)."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta, timezone

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vaka.store.schema import jobs

_SECOND = 1_000_000
_STARTED = sa.type_coerce(jobs.c.started, sa.BigInteger)
_ENDED = sa.type_coerce(jobs.c.ended, sa.BigInteger)
# whole seconds a job, as each is shown
_SUM = sa.func.coalesce(
    sa.func.sum((_ENDED - _STARTED) // sa.literal_column(str(_SECOND), sa.BigInteger)), 0
)


def run_seconds(connection: Connection, project: str) -> int:
    """Seconds that the finished jobs of a project ran, together."""
    statement = sa.select(_SUM).where(
        jobs.c.project == project, jobs.c.started.is_not(None), jobs.c.ended.is_not(None)
    )
    return int(connection.execute(statement).scalar_one())


def daily_run_seconds(
    connection: Connection, project: str, first: date, last: date, offset: timedelta
) -> list[tuple[date, int]]:
    """The same by the day that jobs ended on, from `first` to `last`; days without any have 0."""
    zone = timezone(offset)
    begin = datetime.combine(first, time(), zone)
    beyond = datetime.combine(last, time(), zone) + timedelta(days=1)
    day = 86_400 * _SECOND
    epoch_day = (_ENDED + int(offset.total_seconds()) * _SECOND) // sa.literal_column(
        str(day), sa.BigInteger
    )
    statement = (
        sa.select(epoch_day.label("day"), _SUM.label("seconds"))
        .where(
            jobs.c.project == project,
            jobs.c.started.is_not(None),
            jobs.c.ended >= begin,
            jobs.c.ended < beyond,
        )
        .group_by(sa.text("day"))
    )
    found = {int(row.day): int(row.seconds) for row in connection.execute(statement)}
    start = (first - date(1970, 1, 1)).days
    return [
        (first + timedelta(days=number), found.get(start + number, 0))
        for number in range((last - first).days + 1)
    ]
