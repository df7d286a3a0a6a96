"""One project's buckets and tables, within one transaction.

A table's rows are in an SQLite table of their own, every column TEXT and never NULL, and beside them
`_timestamp`: when the row changed last. A key is an index that is not UNIQUE, because a load may be
asked to insert what is there already; `loading` is what keeps keys unique otherwise.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from vaka.errors import Conflict, InvalidInput, MappingFailed, NotFound
from vaka.models.storage import (
    BucketDetail,
    DeleteWhere,
    ExportOptions,
    ExportResult,
    MetadataEntry,
    TableDetail,
)
from vaka_sqlite import csvfiles, disk
from vaka_sqlite.conditions import order_by, quoted, where
from vaka_sqlite.database import moment, now
from vaka_sqlite.names import bucket_id, bucket_of, column_names

DUPLICATES = "The new primary key cannot be created; duplicate values in primary key columns exist."


@dataclass(frozen=True, slots=True)
class Table:
    """What operations need to know of a table."""

    number: int
    id: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    imported: int
    """The moment of the last load, 0 before the first."""

    @property
    def rows(self) -> str:
        """The SQLite table that has the rows."""
        return f"rows_{self.number}"

    @property
    def index(self) -> str:
        """The SQLite index of the key."""
        return f"key_{self.number}"


class Project:
    """The buckets and tables of a project, as one transaction sees and changes them."""

    def __init__(self, connection: sqlite3.Connection, project: str) -> None:
        self.connection = connection
        self.project = project

    # -- buckets -----------------------------------------------------------------------------------

    def buckets(self) -> list[BucketDetail]:
        ids = self.connection.execute(
            "SELECT id FROM bucket WHERE project = ? ORDER BY id", (self.project,)
        )
        return [self.bucket(each) for (each,) in ids.fetchall()]

    def bucket(self, bucket: str) -> BucketDetail:
        found = self.connection.execute(
            "SELECT description, created, changed FROM bucket WHERE project = ? AND id = ?",
            (self.project, bucket),
        ).fetchone()
        if found is None:
            raise NotFound(f"Bucket {bucket} not found", kind="bucket", id=bucket)
        description, created, changed = found
        stage, _, name = bucket.partition(".")
        return BucketDetail(
            id=bucket,
            name=name,
            stage=cast(Literal["in", "out"], stage),
            created=moment(created),
            display_name=name.removeprefix("c-"),
            description=description,
            last_change_date=None if changed is None else moment(changed),
            metadata=self._metadata(bucket).get("", ()),
        )

    def create_bucket(self, stage: str, name: str, description: str) -> BucketDetail:
        bucket = bucket_id(stage, name)
        if not self.ensure_bucket(bucket, description):
            raise Conflict(f"The bucket {bucket} already exists.")
        return self.bucket(bucket)

    def ensure_bucket(self, bucket: str, description: str = "") -> bool:
        """Make a bucket unless it is there; whether it was made."""
        made = self.connection.execute(
            "INSERT INTO bucket (project, id, description, created) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            (self.project, bucket, description, now()),
        )
        return made.rowcount == 1

    def drop_bucket(self, bucket: str, *, force: bool) -> None:
        self.bucket(bucket)
        tables = self.tables(bucket)
        if tables and not force:
            raise Conflict(f"The bucket {bucket} has {len(tables)} tables: drop them, or force it.")
        for table in tables:
            self.drop_table(table.id)
        self.connection.execute(
            "DELETE FROM bucket WHERE project = ? AND id = ?", (self.project, bucket)
        )
        self._forget_metadata(bucket)

    # -- tables ------------------------------------------------------------------------------------

    def tables(self, bucket: str | None) -> list[TableDetail]:
        if bucket is not None:
            self.bucket(bucket)
        ids = self.connection.execute(
            'SELECT id FROM "table" WHERE project = ?1 AND coalesce(?2, bucket) = bucket'
            " ORDER BY id",
            (self.project, bucket),
        )
        return [self.detail(each) for (each,) in ids.fetchall()]

    def table(self, table_id: str) -> Table:
        table = self.find(table_id)
        if table is None:
            raise NotFound(f"The table {table_id} was not found", kind="table", id=table_id)
        return table

    def find(self, table_id: str) -> Table | None:
        found = self.connection.execute(
            'SELECT number, columns, primary_key, imported FROM "table"'
            " WHERE project = ? AND id = ?",
            (self.project, table_id),
        ).fetchone()
        if found is None:
            return None
        number, columns, key, imported = found
        return Table(
            number, table_id, tuple(json.loads(columns)), tuple(json.loads(key)), imported or 0
        )

    def detail(self, table_id: str) -> TableDetail:
        table = self.table(table_id)
        rows, size, created, imported, changed = self.connection.execute(
            'SELECT rows, bytes, created, imported, changed FROM "table" WHERE number = ?',
            (table.number,),
        ).fetchone()
        bucket, _, name = table_id.rpartition(".")
        metadata = self._metadata(table_id)
        return TableDetail(
            id=table_id,
            bucket=bucket,
            name=name,
            columns=table.columns,
            primary_key=table.key,
            created=moment(created),
            display_name=name,
            last_import_date=None if imported is None else moment(imported),
            last_change_date=None if changed is None else moment(changed),
            rows_count=rows,
            data_size_bytes=size,
            metadata=metadata.pop("", ()),
            column_metadata=metadata,
        )

    def create_table(self, table_id: str, columns: Sequence[str], key: Sequence[str]) -> Table:
        """Make an empty table in a bucket that is there."""
        bucket = bucket_of(table_id)
        self.bucket(bucket)
        if self.find(table_id) is not None:
            raise Conflict(f"The table {table_id} already exists.")
        names = column_names(columns)
        if not names:
            raise InvalidInput(f"The table {table_id} needs a column.", path="columns")
        number = self.connection.execute(
            'INSERT INTO "table" (project, bucket, id, columns, primary_key, rows, bytes, created)'
            " VALUES (?, ?, ?, ?, '[]', 0, 0, ?)",
            (self.project, bucket, table_id, json.dumps(names), now()),
        ).lastrowid
        assert number is not None
        table = Table(number, table_id, names, (), 0)
        definitions = ", ".join(map(_definition, names))
        self.connection.execute(
            f"CREATE TABLE {table.rows} ({definitions}, _timestamp INTEGER NOT NULL)"
        )
        return self.set_primary_key(table, key)

    def drop_table(self, table_id: str) -> None:
        table = self.table(table_id)
        self.connection.execute(f"DROP TABLE {table.rows}")
        self.connection.execute('DELETE FROM "table" WHERE number = ?', (table.number,))
        self._forget_metadata(table_id)
        self._touch_bucket(table_id)

    def add_columns(self, table: Table, names: Sequence[str]) -> Table:
        added = column_names(names)
        taken = {column.lower() for column in table.columns}
        for column in added:
            if column.lower() in taken:
                raise Conflict(f'The table {table.id} has a column "{column}" already.')
            self.connection.execute(f"ALTER TABLE {table.rows} ADD COLUMN {_definition(column)}")
        return self._restructure(table, (*table.columns, *added), table.key)

    def drop_column(self, table: Table, column: str) -> Table:
        if column not in table.columns:
            raise NotFound(
                f'The table {table.id} has no column "{column}".', kind="column", id=column
            )
        if column in table.key:
            raise InvalidInput(f'"{column}" is part of the primary key.', path="column")
        if len(table.columns) == 1:
            raise InvalidInput(f'"{column}" is the only column.', path="column")
        self.connection.execute(f"ALTER TABLE {table.rows} DROP COLUMN {quoted(column)}")
        self.connection.execute(
            'DELETE FROM metadata WHERE project = ? AND object = ? AND "column" = ?',
            (self.project, table.id, column),
        )
        left = tuple(each for each in table.columns if each != column)
        return self._restructure(table, left, table.key)

    def set_primary_key(self, table: Table, columns: Sequence[str]) -> Table:
        """Replace the key; `MappingFailed`, and nothing changed, when rows have the same."""
        key = tuple(dict.fromkeys(columns))
        if unknown := [column for column in key if column not in table.columns]:
            raise InvalidInput(
                f'Primary key columns "{", ".join(unknown)}" not found in '
                f'"{", ".join(table.columns)}"',
                path="primary_key",
            )
        names = ", ".join(map(quoted, key))
        if key:
            twice = f"SELECT 1 FROM {table.rows} GROUP BY {names} HAVING count(*) > 1 LIMIT 1"
            if self.connection.execute(twice).fetchone() is not None:
                raise MappingFailed(DUPLICATES)
        self.connection.execute(f"DROP INDEX IF EXISTS {table.index}")
        if key:
            self.connection.execute(f"CREATE INDEX {table.index} ON {table.rows} ({names})")
        return self._restructure(table, table.columns, key)

    def _restructure(self, table: Table, columns: tuple[str, ...], key: tuple[str, ...]) -> Table:
        self.connection.execute(
            'UPDATE "table" SET columns = ?, primary_key = ? WHERE number = ?',
            (json.dumps(columns), json.dumps(key), table.number),
        )
        changed = Table(table.number, table.id, columns, key, table.imported)
        self.touch(changed)
        return changed

    def touch(self, table: Table) -> None:
        """Note that a table has changed, and count it anew."""
        # as bytes: length() of TEXT counts characters
        sizes = " + ".join(f"length(CAST({quoted(column)} AS BLOB))" for column in table.columns)
        self.connection.execute(
            'UPDATE "table" SET (rows, bytes) ='
            f" (SELECT count(*), coalesce(sum({sizes}), 0) FROM {table.rows}), changed = ?"
            " WHERE number = ?",
            (now(), table.number),
        )
        self._touch_bucket(table.id)

    def _touch_bucket(self, table_id: str) -> None:
        self.connection.execute(
            "UPDATE bucket SET changed = ? WHERE project = ? AND id = ?",
            (now(), self.project, table_id.rpartition(".")[0]),
        )

    # -- rows --------------------------------------------------------------------------------------

    def select(
        self, table_id: str, options: ExportOptions, limit: int | None
    ) -> tuple[tuple[str, ...], Iterator[tuple[str, ...]]]:
        """Column names and rows, which are read while they are asked for."""
        table = self.table(table_id)
        columns = options.columns or table.columns
        for column in columns:
            if column not in table.columns:
                raise InvalidInput(
                    f'The table {table_id} has no column "{column}".', path="columns"
                )
        selected = [*map(quoted, columns)]
        if options.include_internal_timestamp:
            columns = (*columns, "_timestamp")
            selected.append("iso(_timestamp)")
        if limit is not None and limit < 0:
            raise InvalidInput("The limit is negative.", path="limit")
        condition, values = where(options, table.columns)
        rows = self.connection.execute(
            f"SELECT {', '.join(selected)} FROM {table.rows} WHERE {condition}"
            f"{order_by(options.order_by, table.columns)} LIMIT ?",
            (*values, -1 if limit is None else limit),
        )
        return columns, rows

    def export(self, table_id: str, options: ExportOptions, target: Path) -> ExportResult:
        columns, rows = self.select(table_id, options, options.limit)
        header = columns if options.header else None
        with disk.new(target):
            count = csvfiles.write(target, header, rows, packed=options.gzip)
            return ExportResult(rows=count, bytes=target.stat().st_size)

    def delete_rows(self, table_id: str, asked: DeleteWhere | None) -> int:
        table = self.table(table_id)
        condition, values = where(asked or DeleteWhere(), table.columns)
        deleted = self.connection.execute(f"DELETE FROM {table.rows} WHERE {condition}", values)
        self.touch(table)
        return deleted.rowcount

    # -- metadata ----------------------------------------------------------------------------------

    def write_metadata(
        self,
        object_id: str,
        provider: str,
        metadata: Mapping[str, str],
        columns: Mapping[str, Mapping[str, str]],
    ) -> None:
        keys = [key for entries in (metadata, *columns.values()) for key in entries]
        if not provider or not all(keys):
            raise InvalidInput("Metadata have a provider and keys that are not empty.", path="key")
        known: tuple[str, ...] = ()
        if object_id.count(".") == 1:
            self.bucket(object_id)
        else:
            known = self.table(object_id).columns
        for column in columns:
            if column not in known:
                raise NotFound(f'{object_id} has no column "{column}".', kind="column", id=column)
        moment_of_change = now()
        rows: list[tuple[Any, ...]] = [
            (self.project, object_id, column, provider, key, value, moment_of_change)
            for column, entries in {"": metadata, **columns}.items()
            for key, value in entries.items()
        ]
        self.connection.executemany(
            'INSERT INTO metadata (project, object, "column", provider, key, value, changed)'
            " VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET value = excluded.value, changed = excluded.changed",
            rows,
        )

    def _metadata(self, object_id: str) -> dict[str, tuple[MetadataEntry, ...]]:
        """Entries by column; those of the object itself under the empty name."""
        entries = self.connection.execute(
            'SELECT "column", id, key, value, provider, changed FROM metadata'
            " WHERE project = ? AND object = ? ORDER BY id",
            (self.project, object_id),
        )
        result: dict[str, tuple[MetadataEntry, ...]] = {}
        for column, number, key, value, provider, changed in entries:
            entry = MetadataEntry(str(number), key, value, provider, moment(changed))
            result[column] = (*result.get(column, ()), entry)
        return result

    def _forget_metadata(self, object_id: str) -> None:
        self.connection.execute(
            "DELETE FROM metadata WHERE project = ? AND object = ?", (self.project, object_id)
        )


def _definition(column: str) -> str:
    return f"{quoted(column)} TEXT NOT NULL DEFAULT ''"
