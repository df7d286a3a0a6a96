"""The audit log's table: entries are added and read, and the database refuses anything else."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vaka.models.audit import AuditEntry, AuditQuery
from vaka.store._database import Transaction
from vaka.store.schema import audit


def append(tx: Transaction, entry: AuditEntry, *, once: bool) -> None:
    """Add an entry; with `once` only when its token has none of its kind."""
    if once:
        same = sa.select(audit.c.id).where(
            audit.c.project == entry.project,
            audit.c.token_id == entry.token_id,
            audit.c.kind == entry.kind,
        )
        if tx.connection.execute(same.limit(1)).first() is not None:
            return
    tx.connection.execute(
        audit.insert().values(
            moment=tx.clock(),
            kind=entry.kind,
            project=entry.project,
            token_id=entry.token_id,
            token_description=entry.token_description,
            address=entry.address,
            subject=dict(entry.subject),
            subject_token=entry.subject.get("token"),
            detail=dict(entry.detail),
        )
    )


def find(connection: Connection, query: AuditQuery) -> list[AuditEntry]:
    """The entries that match, newest first."""
    statement = sa.select(audit).order_by(audit.c.id.desc()).limit(query.limit)
    if query.project is not None:
        statement = statement.where(audit.c.project == query.project)
    if query.kind is not None:
        below = audit.c.kind.startswith(f"{query.kind}.", autoescape=True)
        statement = statement.where(sa.or_(audit.c.kind == query.kind, below))
    if query.token_id is not None:
        statement = statement.where(
            sa.or_(audit.c.token_id == query.token_id, audit.c.subject_token == query.token_id)
        )
    if query.since is not None:
        statement = statement.where(audit.c.moment >= query.since)
    if query.until is not None:
        statement = statement.where(audit.c.moment < query.until)
    if query.before is not None:
        statement = statement.where(audit.c.id < query.before)
    return [
        AuditEntry(
            id=row.id,
            moment=row.moment,
            kind=row.kind,
            project=row.project,
            token_id=row.token_id,
            token_description=row.token_description,
            address=row.address,
            subject=row.subject,
            detail=row.detail,
        )
        for row in connection.execute(statement)
    ]
