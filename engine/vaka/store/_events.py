"""Events of jobs: many in one row, compressed, numbered without gaps."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vaka.models.event import MAX_SEQ, Event, Lines, first_seq, parse_events
from vaka.store import _journal, _queue, _records
from vaka.store._database import Transaction
from vaka.store.schema import event_batches, jobs
from vaka.store.values import EventsOutOfOrder, Fence

ROW_BYTES = 1 << 20
"""A row is closed once it holds so much text: whoever reads a page unpacks whole rows."""

ROWS_AT_HAND = 8
"""Unpacked rows that are kept for who reads on."""

# fastest, and still a fifth of the text for what programs print
_LEVEL = 1
# a line of output need not be text; what cannot be decoded travels as lone surrogates
_ERRORS = "surrogatepass"


@dataclass(frozen=True, slots=True)
class Packed:
    """One row of events."""

    first_seq: int
    last_seq: int
    count: int
    data: bytes


def pack(events: Sequence[Event | Lines]) -> list[Packed]:
    """Events as rows. Their numbers must follow each other."""
    rows: list[Packed] = []
    lines: list[bytes] = []
    first, size = 0, 0
    expected = events[0].seq if events else 0
    for position, event in enumerate(events):
        if event.seq != expected:
            raise ValueError(f"event {event.seq} comes after {expected - 1}")
        if not lines:
            first = event.seq
        expected += event.count
        line = event.to_json().encode(errors=_ERRORS)
        lines.append(line)
        size += len(line) + 1
        if size >= ROW_BYTES or position == len(events) - 1:
            data = zlib.compress(b"\n".join(lines), _LEVEL)
            rows.append(Packed(first, expected - 1, expected - first, data))
            lines, size = [], 0
    return rows


def unpack(rows: Iterable[bytes], after: int = 0, last: int = MAX_SEQ) -> Iterator[Event]:
    """The events in rows, in order; only those that come after `after`, up to `last`."""
    for data in rows:
        documents, numbers = _documents(data)
        for place in range(max(bisect_right(numbers, after + 1) - 1, 0), len(documents)):
            if numbers[place] > last:
                return
            yield from parse_events(documents[place].decode(errors=_ERRORS), after, last)


@lru_cache(maxsize=ROWS_AT_HAND)
def _documents(data: bytes) -> tuple[list[bytes], list[int]]:
    """What is in a row, and the first number of each: pages that follow each other share rows."""
    documents = zlib.decompress(data).split(b"\n")
    return documents, [first_seq(document) for document in documents]


_LAST = (
    sa.select(event_batches.c.last_seq)
    .where(event_batches.c.job_id == sa.bindparam("job_id"))
    .order_by(event_batches.c.first_seq.desc())
    .limit(_queue.ONE)
)
_INSERT = sa.insert(event_batches)


def append(
    tx: Transaction,
    job_id: int,
    rows: Sequence[Packed],
    offsets: Mapping[tuple[int, int], tuple[int, int]] | None,
    fence: Fence | None,
) -> None:
    """Put events at the end of a job's log, and how far into the output they reach."""
    if fence is not None:
        if fence.job_id != job_id:
            raise ValueError("the events are of another job than their fence")
        _queue.require(tx, fence)
    elif tx.connection.execute(sa.select(jobs.c.id).where(jobs.c.id == job_id)).first() is None:
        raise _records.missing(job_id)
    if offsets:
        if fence is None:
            raise ValueError("offsets are written by the job's owner only")
        _journal.write_offsets(tx, fence, offsets)
    if not rows:
        return
    expected = last_seq(tx.connection, job_id) + 1
    if rows[0].first_seq != expected:
        raise EventsOutOfOrder(
            f"Events of job {job_id} must go on with number {expected}, not "
            f"{rows[0].first_seq}; read the last number and count on from there.",
            job_id=job_id,
            expected=expected,
        )
    tx.connection.execute(
        _INSERT,
        [
            {
                "job_id": job_id,
                "first_seq": row.first_seq,
                "last_seq": row.last_seq,
                "count": row.count,
                "data": row.data,
            }
            for row in rows
        ],
    )
    tx.topics.add(("job", job_id))


def last_seq(connection: Connection, job_id: int) -> int:
    """Number of the job's last event, 0 when it has none."""
    return connection.execute(_LAST, {"job_id": job_id}).scalar_one_or_none() or 0


def page(connection: Connection, job_id: int, after: int, limit: int) -> list[Event]:
    """Up to `limit` events that come after number `after`.

    Numbers have no gaps, so the rows that hold the page follow from the numbers alone.
    """
    if limit <= 0 or not 0 < job_id <= _records.MAX_ID:
        return []
    after = min(max(after, 0), _records.MAX_ID - 1)
    last = min(after + limit, _records.MAX_ID)
    of_job = event_batches.c.job_id == job_id
    begin = (
        sa.select(event_batches.c.first_seq)
        .where(of_job, event_batches.c.first_seq <= after + 1)
        .order_by(event_batches.c.first_seq.desc())
        .limit(_queue.ONE)
        .scalar_subquery()
    )
    rows = connection.execute(
        sa.select(event_batches.c.data)
        .where(
            of_job,
            event_batches.c.first_seq >= begin,
            event_batches.c.first_seq <= last,
            event_batches.c.last_seq > after,
        )
        .order_by(event_batches.c.first_seq)
    ).scalars()
    return list(unpack(rows, after, last))
