"""Snapshots: copies of tables, with their data in DuckDB tables of their own."""

# ruff: noqa: S608 - names are quoted where they come from, values are parameters

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from vaka.errors import NotFound
from vaka.models.storage import SnapshotDetail, StorageScope
from vaka_local import records
from vaka_local.conditions import naive
from vaka_local.duck import Session, quote
from vaka_local.loading import import_date
from vaka_local.names import TIMESTAMP, TableId
from vaka_local.records import Table, aware, definitions_of, optional, text_of

_COLUMNS: Final = (
    "id, created, description, token_id, token_description, import_key, table_id, bucket, name, "
    "display_name, columns, primary_key, table_created, last_import, last_change, row_count, "
    "data_bytes, definitions, distribution_key"
)


def create(
    session: Session,
    scope: StorageScope,
    table: Table,
    description: str,
    import_key: str | None,
    now: datetime,
) -> SnapshotDetail:
    """Copy a table with all that is said of it."""
    sequence = "'" + session.meta("snapshot_id").replace("'", "''") + "'"
    number = int(session.value(f"SELECT nextval({sequence})"))
    target, source = session.snapshot(number), session.table(table.stored_as)
    session.rows(f"CREATE TABLE {target} AS SELECT * EXCLUDE ({quote(TIMESTAMP)}) FROM {source}")
    session.rows(
        f"INSERT INTO {session.meta('snapshots')} ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, "
        "?::VARCHAR[], ?::VARCHAR[], ?, ?, ?, ?, ?, ?, ?::VARCHAR[])",
        [
            *(number, naive(now), description, scope.token_id, scope.token_description, import_key),
            *(table.id, table.bucket, table.name, table.display_name),
            *(list(table.columns), list(table.primary_key), naive(table.created)),
            *(table.last_import and naive(table.last_import),),
            *(table.last_change and naive(table.last_change),),
            *(table.row_count, table.data_bytes),
            *(text_of(table.definitions), list(table.distribution_key)),
        ],
    )
    records.copy_metadata(session, table.id, _said_of(number))
    return _found(session, "id = ?", [number])[0]


def made_with(session: Session, table_id: str, import_key: str) -> SnapshotDetail | None:
    """The snapshot of a table that was made with this import key."""
    found = _found(session, "table_id = ? AND import_key = ?", [table_id, import_key])
    return found[0] if found else None


def of_table(session: Session, table_id: str, limit: int, offset: int) -> list[SnapshotDetail]:
    """Snapshots of a table, newest first."""
    return _found(session, "table_id = ?", [table_id], f"LIMIT {limit:d} OFFSET {offset:d}")


def get(session: Session, snapshot_id: str) -> SnapshotDetail:
    """The snapshot of this id, or `NotFound`."""
    found = _found(session, "id = ?", [_number(snapshot_id)])
    if not found:
        raise _missing(snapshot_id)
    return found[0]


def delete(session: Session, snapshot_id: str) -> None:
    """Remove a snapshot; `NotFound` when there is none of this id."""
    number = int(get(session, snapshot_id).id)
    session.rows(f"DROP TABLE {session.snapshot(number)}")
    session.rows(f"DELETE FROM {session.meta('snapshots')} WHERE id = ?", [number])
    session.rows(f"DELETE FROM {session.meta('metadata')} WHERE object_id = ?", [_said_of(number)])


def restore(
    session: Session,
    snapshot_id: str,
    table_id: TableId,
    display_name: str | None,
    clock: Callable[[], datetime],
) -> None:
    """Make a table of a snapshot, in a bucket that is there; all of its rows change now."""
    snapshot = get(session, snapshot_id)
    now, number = clock(), int(snapshot.id)
    table = records.new_table(
        session,
        table_id,
        snapshot.table.columns,
        snapshot.table.primary_key,
        now,
        definitions=snapshot.table.definitions,
        distribution_key=snapshot.table.distribution_key,
        display_name=display_name,
    )
    target = session.table(table.stored_as)
    records.create_data(session, target, table.layout)
    columns = ", ".join(map(quote, table.columns))
    count = session.value(
        f"INSERT INTO {target} ({columns}, {quote(TIMESTAMP)}) "
        f"SELECT {columns}, ? FROM {session.snapshot(number)}",
        [naive(now)],
    )
    measured = records.measured(session, table, int(count), snapshot.table.data_size_bytes)
    date = import_date(naive(now).replace(tzinfo=UTC), clock())
    records.save(session, replace(measured, last_import=date, last_change=date))
    records.copy_metadata(session, _said_of(number), table.id)


def _found(
    session: Session, clause: str, parameters: Sequence[object], end: str = ""
) -> list[SnapshotDetail]:
    rows = session.rows(
        f"SELECT {_COLUMNS} FROM {session.meta('snapshots')} WHERE {clause} ORDER BY id DESC {end}",
        parameters,
    )
    said = records.metadata(session, [_said_of(row[0]) for row in rows])
    return [_snapshot(row, said.get(_said_of(row[0]), {})) for row in rows]


def _snapshot(row: tuple[Any, ...], said: dict[str, Any]) -> SnapshotDetail:
    table = Table(
        id=row[6],
        bucket=row[7],
        name=row[8],
        display_name=row[9],
        description="",
        stored_as="",
        columns=tuple(row[10]),
        primary_key=tuple(row[11]),
        created=aware(row[12]),
        last_import=optional(row[13]),
        last_change=optional(row[14]),
        row_count=row[15],
        data_bytes=row[16],
        definitions=definitions_of(row[17]),
        distribution_key=tuple(row[18] or ()),
    )
    columns = {name: said[name] for name in table.columns if name in said}
    return SnapshotDetail(
        id=str(row[0]),
        table=table.detail(said.get("", ()), columns),
        created=aware(row[1]),
        description=row[2],
        creator_token_id=row[3],
        creator_token_description=row[4],
    )


def _said_of(number: int) -> str:
    """What a snapshot's metadata are kept under; no table can have this id."""
    return f"snapshot {number}"


def _number(snapshot_id: str) -> int:
    """The number of a snapshot, one that none has when the id is no number."""
    is_number = snapshot_id.isascii() and snapshot_id.isdigit() and len(snapshot_id) <= 18
    return int(snapshot_id) if is_number else 0


def _missing(snapshot_id: str) -> NotFound:
    return NotFound(f"Snapshot {snapshot_id} not found", kind="snapshot", id=snapshot_id)
