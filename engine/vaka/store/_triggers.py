"""Triggers and when they last ran."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from vaka.errors import NotFound, Overloaded
from vaka.models.trigger import NewTrigger, Trigger, TriggerChanges
from vaka.store._database import Transaction
from vaka.store._records import row_of_project
from vaka.store.schema import triggers as table

MOST = 1_000
"""Triggers of one project: all of them are looked at when a table was loaded."""


def add(tx: Transaction, new: NewTrigger) -> Trigger:
    """Keep a trigger; `Overloaded` when the project has as many as it may."""
    count = sa.select(sa.func.count()).where(table.c.project == new.project)
    if tx.connection.execute(count).scalar_one() >= MOST:
        raise Overloaded(
            f"The project has {MOST} triggers; delete some to make others.", retry_after=60.0
        )
    trigger = Trigger(next(tx.ids), tx.clock(), new)
    tx.connection.execute(
        sa.insert(table).values(id=trigger.id, created=trigger.created, **_values(new))
    )
    return trigger


def change(tx: Transaction, trigger_id: int, project: str, changes: TriggerChanges) -> Trigger:
    """Change what is given; `NotFound` when the project has no such trigger."""
    trigger = one(tx.connection, trigger_id, project)
    given = {
        name: value
        for name in TriggerChanges.__slots__
        if (value := getattr(changes, name)) is not None
    }
    wanted = replace(trigger.wanted, **given)
    tx.connection.execute(
        sa.update(table).where(table.c.id == trigger_id).values(**_values(wanted))
    )
    return replace(trigger, wanted=wanted)


def remove(tx: Transaction, trigger_id: int, project: str) -> None:
    """Forget a trigger; `NotFound` when the project has no such one."""
    one(tx.connection, trigger_id, project)
    tx.connection.execute(sa.delete(table).where(table.c.id == trigger_id))


def mark(tx: Transaction, trigger_id: int, before: datetime | None, now: datetime) -> None:
    """Write down that a trigger ran, unless somebody has done so since `before`."""
    was = table.c.last_run.is_(None) if before is None else table.c.last_run == before
    tx.connection.execute(
        sa.update(table).where(table.c.id == trigger_id, was).values(last_run=now)
    )


def one(connection: Connection, trigger_id: int, project: str) -> Trigger:
    """One trigger of a project; `NotFound` when it has none such."""
    row = row_of_project(connection, table, trigger_id, project)
    if row is None:
        raise NotFound(f"Trigger {trigger_id} not found", kind="trigger", id=str(trigger_id))
    return _trigger(row)


def of_project(connection: Connection, project: str) -> list[Trigger]:
    """All triggers of a project, oldest first."""
    statement = sa.select(table).where(table.c.project == project).order_by(table.c.id)
    return [_trigger(row) for row in connection.execute(statement)]


def _values(new: NewTrigger) -> dict[str, Any]:
    return {
        "project": new.project,
        "component": new.component,
        "config": new.config,
        "tables": list(new.tables),
        "run_with_token_id": new.run_with_token_id,
        "cool_down_minutes": new.cool_down_minutes,
        "token_id": new.token_id,
        "token_description": new.token_description,
    }


def _trigger(row: Row[Any]) -> Trigger:
    return Trigger(
        row.id,
        row.created,
        NewTrigger(
            project=row.project,
            component=row.component,
            config=row.config,
            tables=tuple(row.tables),
            run_with_token_id=row.run_with_token_id,
            cool_down_minutes=row.cool_down_minutes,
            token_id=row.token_id,
            token_description=row.token_description,
        ),
        row.last_run,
    )
