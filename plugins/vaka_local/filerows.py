"""Rows of the tables of files, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vaka.errors import NotFound
from vaka.models.storage import FileDetail, StorageScope
from vaka_local.database import file_slices, file_tags, files

_IDS_AT_A_TIME: Final = 500


def in_scope(scope: StorageScope) -> tuple[sa.ColumnElement[bool], ...]:
    """Files of a project's branch."""
    return files.c.project == scope.project, files.c.branch == (scope.branch or "")


def is_alive(now: datetime) -> sa.ColumnElement[bool]:
    """Files that have not expired."""
    return sa.or_(files.c.expires.is_(None), files.c.expires > now)


def find_row(connection: Connection, scope: StorageScope, file_id: int, now: datetime) -> Any:
    """The row of a file; `NotFound` when it is not there or has expired."""
    wanted = (files.c.id == bounded(file_id), *in_scope(scope), is_alive(now))
    row = connection.execute(sa.select(files).where(*wanted)).first()
    if row is None:
        raise not_found(file_id)
    return row


def not_found(file_id: int) -> NotFound:
    return NotFound(f"File id: {file_id} not found", kind="file", id=str(file_id))


def bounded(number: int) -> int:
    """A number that a database can compare with an id, and which is the same for all ids there are."""
    return max(-1, min(number, 2**63 - 1))


def details(connection: Connection, rows: Sequence[Any]) -> list[FileDetail]:
    """Rows of the table of files with their tags and slices."""
    ids = [row.id for row in rows]
    tags: dict[int, list[str]] = {}
    slices: dict[int, list[str]] = {}
    for start in range(0, len(ids), _IDS_AT_A_TIME):
        part = ids[start : start + _IDS_AT_A_TIME]
        for table, name, result in (
            (file_tags, file_tags.c.tag, tags),
            (file_slices, file_slices.c.name, slices),
        ):
            statement = (
                sa.select(table.c.file_id, name)
                .where(table.c.file_id.in_(part))
                .order_by(table.c.file_id, table.c.position)
            )
            for file_id, value in connection.execute(statement):
                result.setdefault(file_id, []).append(value)
    return [
        FileDetail(
            id=row.id,
            name=row.name,
            created=row.created,
            size_bytes=row.size_bytes,
            tags=tuple(tags.get(row.id, ())),
            is_public=row.is_public,
            is_encrypted=row.is_encrypted,
            is_sliced=row.is_sliced,
            max_age_days=row.max_age_days,
            run_id=row.run_id,
            creator_token_id=row.creator_id,
            creator_token_description=row.creator_description,
            slices=tuple(slices.get(row.id, ())),
            is_uploaded=row.is_uploaded,
        )
        for row in rows
    ]
