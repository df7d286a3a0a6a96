"""Events that clients send: kept for a while, and so many of a project at most."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from vaka.errors import NotFound
from vaka.models.client_event import ClientEvent, ClientEventQuery, NewClientEvent
from vaka.store._database import Transaction
from vaka.store._records import MAX_ID, forget_older, row_of_project
from vaka.store.schema import client_events as table

MOST_KEPT = 100_000
"""Events of one project; older ones go."""
PRUNE_EVERY = 256
"""Events from one look at how many there are to the next."""


def add(tx: Transaction, new: NewClientEvent) -> ClientEvent:
    """Keep an event."""
    number, created = next(tx.ids), tx.clock()
    event = ClientEvent(number, str(uuid4()), created, new)
    tx.connection.execute(
        sa.insert(table).values(
            id=number,
            uuid=event.uuid,
            created=created,
            project=new.project,
            component=new.component,
            message=new.message,
            type=new.type,
            description=new.description,
            configuration_id=new.configuration_id,
            run_id=new.run_id,
            run_tail=None if new.run_id is None else new.run_id.rpartition(".")[2],
            params=dict(new.params),
            results=dict(new.results),
            duration=new.duration,
            branch=new.branch,
            token_id=new.token_id,
            token_description=new.token_description,
        )
    )
    if number % PRUNE_EVERY == 0:
        _prune(tx, new.project)
    return event


def _prune(tx: Transaction, project: str) -> None:
    is_its = table.c.project == project
    last = (
        sa.select(table.c.id).where(is_its).order_by(table.c.id.desc()).limit(1).offset(MOST_KEPT)
    )
    limit = tx.connection.scalars(last).one_or_none()
    if limit is not None:
        tx.connection.execute(sa.delete(table).where(is_its, table.c.id <= limit))


def forget(tx: Transaction, before: datetime, limit: int) -> int:
    """Remove up to `limit` events that are older than a moment; return how many."""
    return forget_older(tx.connection, table.c.created, before, limit)


def one(connection: Connection, event_id: int, project: str) -> ClientEvent:
    """One event of a project; `NotFound` when it has none such."""
    row = row_of_project(connection, table, event_id, project)
    if row is None:
        raise NotFound(f"Event {event_id} not found", kind="event", id=str(event_id))
    return _event(row)


def like(connection: Connection, query: ClientEventQuery) -> list[ClientEvent]:
    """The events that match, newest first."""
    statement = (
        sa.select(table)
        .where(table.c.project == query.project, *_conditions(query))
        .order_by(table.c.id.desc())
        .limit(query.limit)
        .offset(query.offset)
    )
    return [_event(row) for row in connection.execute(statement)]


def _conditions(query: ClientEventQuery) -> Iterator[sa.ColumnElement[bool]]:
    if query.run_id is not None:
        # two indexes; a run id without a dot is its own last part
        yield sa.or_(table.c.run_id == query.run_id, table.c.run_tail == query.run_id)
    for column, value in (
        (table.c.component, query.component),
        (table.c.configuration_id, query.configuration_id),
    ):
        if value is not None:
            yield column == value
    for word in query.words:
        yield sa.func.lower(table.c.message).contains(word.lower(), autoescape=True)
    if query.since_id is not None:
        yield table.c.id > min(query.since_id, MAX_ID)
    if query.max_id is not None:
        yield table.c.id < min(query.max_id, MAX_ID)


def _event(row: Row[Any]) -> ClientEvent:
    return ClientEvent(
        row.id,
        row.uuid,
        row.created,
        NewClientEvent(
            project=row.project,
            component=row.component,
            message=row.message,
            type=row.type,
            description=row.description,
            configuration_id=row.configuration_id,
            run_id=row.run_id,
            params=row.params,
            results=row.results,
            duration=row.duration,
            branch=row.branch,
            token_id=row.token_id,
            token_description=row.token_description,
        ),
    )
