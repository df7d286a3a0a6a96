"""Buckets and tables as the project's file describes them: reading and writing the schema's tables."""

# ruff: noqa: S608 - names are quoted where they come from, values are parameters

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal, cast

from vaka.errors import ApplicationError, Conflict, InvalidInput, MappingFailed
from vaka.models.storage import BucketDetail, ColumnDefinition, MetadataEntry, TableDetail
from vaka_local import types
from vaka_local.conditions import naive
from vaka_local.duck import Session, quote
from vaka_local.names import TIMESTAMP, TableId, no_bucket, no_table, shown_name

_COLUMNS: Final = (
    "id, bucket, name, display_name, description, stored_as, columns, primary_key, created, "
    "last_import, last_change, row_count, data_bytes, definitions, distribution_key"
)
_SAMPLE: Final = 10_000
"""Rows that the size of a table is estimated from."""
TIME_BYTES: Final = 8
"""What the hidden time of a row takes."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it is stored."""

    id: str
    bucket: str
    name: str
    display_name: str
    description: str
    stored_as: str
    """Name of the table in DuckDB, where names that differ only in case are the same."""
    columns: tuple[str, ...]
    primary_key: tuple[str, ...]
    created: datetime
    last_import: datetime | None = None
    last_change: datetime | None = None
    row_count: int = 0
    data_bytes: int = 0
    definitions: tuple[ColumnDefinition, ...] = ()
    """One a column when the table is typed."""
    distribution_key: tuple[str, ...] = ()
    source: str | None = None
    """Id of the table that an alias shows; all but its names is that one's."""

    @property
    def layout(self) -> list[tuple[str, str]]:
        """Columns with DuckDB's types."""
        if self.definitions:
            return [(each.name, types.stored(each)) for each in self.definitions]
        return [(name, "VARCHAR") for name in self.columns]

    @property
    def comparable(self) -> dict[str, str]:
        """What columns are compared as that are not text."""
        kinds = ((each.name, types.comparable(each)) for each in self.definitions)
        return {name: kind for name, kind in kinds if kind}

    def detail(
        self,
        metadata: Sequence[MetadataEntry],
        column_metadata: Mapping[str, tuple[MetadataEntry, ...]],
        source: TableDetail | None = None,
    ) -> TableDetail:
        return TableDetail(
            id=self.id,
            bucket=self.bucket,
            name=self.name,
            columns=self.columns,
            primary_key=self.primary_key,
            created=self.created,
            display_name=self.display_name,
            last_import_date=self.last_import,
            last_change_date=self.last_change,
            rows_count=self.row_count,
            data_size_bytes=self.data_bytes,
            description=self.description,
            metadata=tuple(metadata),
            column_metadata=column_metadata,
            is_typed=bool(self.definitions),
            definitions=self.definitions,
            distribution_key=self.distribution_key,
            is_alias=self.source is not None,
            source=source,
        )


@dataclass(frozen=True, slots=True)
class Known:
    """A table with all that is said of it."""

    table: Table
    detail: TableDetail

    @property
    def id(self) -> str:
        return self.table.id

    def changed(self, table: Table) -> Known:
        """The same with what has changed of the table; what is said of columns that are gone goes."""
        columns = {
            name: entries
            for name, entries in self.detail.column_metadata.items()
            if name in table.columns
        }
        return Known(table, table.detail(self.detail.metadata, columns))

    def said(
        self,
        metadata: tuple[MetadataEntry, ...],
        columns: Mapping[str, tuple[MetadataEntry, ...]],
    ) -> Known:
        """The same with other metadata."""
        return Known(self.table, self.table.detail(metadata, columns))


def find_table(session: Session, table_id: str) -> Table | None:
    """The table of this id, or None.

    Raises:
        InvalidInput: it is an alias, and those can only be read.
    """
    found = find_readable(session, table_id)
    if found is not None and found.source is not None:
        raise InvalidInput(
            f'The table "{table_id}" is an alias of "{found.source}" and can only be read. '
            "Use that one.",
            path="table_id",
        )
    return found


def find_readable(session: Session, table_id: str) -> Table | None:
    """The table or alias of this id, or None."""
    for find in (_tables, _aliases):
        if found := find(session, "WHERE id = ?", [table_id]):
            return found[0]
    return None


def get_readable(session: Session, project: str, table_id: str) -> Table:
    """The table or alias of this id, or `NotFound`."""
    found = find_readable(session, table_id)
    if found is None:
        raise no_table(table_id, project)
    return found


def get_table(session: Session, project: str, table_id: str) -> Table:
    """The table of this id, or `NotFound`; an alias is `InvalidInput`."""
    found = find_table(session, table_id)
    if found is None:
        raise no_table(table_id, project)
    return found


def tables(session: Session, bucket: str | None = None) -> list[Table]:
    """All tables and aliases, or those of a bucket, by id."""
    where: tuple[str, list[object]] = ("", []) if bucket is None else ("WHERE bucket = ?", [bucket])
    found = _tables(session, *where) + _aliases(session, *where)
    return sorted(found, key=lambda table: table.id)


def _aliases(session: Session, clause: str, parameters: Sequence[object]) -> list[Table]:
    rows = session.rows(
        f"SELECT id, bucket, name, source, created FROM {session.meta('aliases')} {clause}",
        parameters,
    )
    if not rows:
        return []
    sources = {
        table.id: table
        for table in _tables(
            session,
            "WHERE id IN (SELECT unnest(CAST(? AS VARCHAR[])))",
            [[row[3] for row in rows]],
        )
    }
    return [
        replace(
            sources[source],
            id=alias,
            bucket=bucket,
            name=name,
            display_name=name,
            description="",
            created=aware(created),
            source=source,
        )
        for alias, bucket, name, source, created in rows
    ]


def new_alias(session: Session, alias: TableId, source: str, now: datetime) -> None:
    """Describe an alias of a table."""
    session.rows(
        f"INSERT INTO {session.meta('aliases')} VALUES (?, ?, ?, ?, ?)",
        [alias.whole, alias.bucket, alias.name, source, naive(now)],
    )


def aliases_of(session: Session, table_ids: Collection[str]) -> list[str]:
    """Ids of the aliases of these tables that are not among them."""
    rows = session.rows(
        f"SELECT id FROM {session.meta('aliases')} "
        "WHERE source IN (SELECT unnest(CAST(? AS VARCHAR[]))) ORDER BY id",
        [list(table_ids)],
    )
    return [row[0] for row in rows if row[0] not in table_ids]


def _tables(session: Session, clause: str, parameters: Sequence[object]) -> list[Table]:
    rows = session.rows(
        f"SELECT {_COLUMNS} FROM {session.meta('tables')} {clause} ORDER BY id",
        parameters,
    )
    return [
        Table(
            id=row[0],
            bucket=row[1],
            name=row[2],
            display_name=row[3],
            description=row[4],
            stored_as=row[5],
            columns=tuple(row[6]),
            primary_key=tuple(row[7]),
            created=aware(row[8]),
            last_import=optional(row[9]),
            last_change=optional(row[10]),
            row_count=row[11],
            data_bytes=row[12],
            definitions=definitions_of(row[13]),
            distribution_key=tuple(row[14] or ()),
        )
        for row in rows
    ]


def get_known(session: Session, project: str, table_id: str) -> Known:
    """The table of this id with all that is said of it, or `NotFound`."""
    return describe(session, [get_readable(session, project, table_id)])[0]


def describe(session: Session, found: Sequence[Table]) -> list[Known]:
    """Tables with their metadata."""
    shown = [table.source for table in found if table.source is not None]
    sources: dict[str, TableDetail] = {}
    if shown:
        clause = "WHERE id IN (SELECT unnest(CAST(? AS VARCHAR[])))"
        known = describe(session, _tables(session, clause, [shown]))
        sources = {each.id: each.detail for each in known}
    entries = metadata(session, [table.id for table in found])
    result = []
    for table in found:
        own = entries.get(table.id, {})
        columns = {name: own[name] for name in table.columns if name in own}
        source = sources[table.source] if table.source is not None else None
        result.append(Known(table, table.detail(own.get("", ()), columns, source)))
    return result


def new_table(
    session: Session,
    table_id: TableId,
    columns: tuple[str, ...],
    primary_key: tuple[str, ...],
    now: datetime,
    *,
    definitions: tuple[ColumnDefinition, ...] = (),
    distribution_key: tuple[str, ...] = (),
    display_name: str | None = None,
) -> Table:
    """Describe a new table, and its bucket when there is none; its data is the caller's business.

    Raises:
        InvalidInput, Conflict: it cannot be shown as `display_name`.
    """
    if find_bucket(session, table_id.bucket) is None:
        stage, _, name = table_id.bucket.partition(".")
        new_bucket(session, table_id.bucket, stage, name, "", now)
    if display_name is not None:
        check_table_name(session, table_id, display_name)
    taken = {
        row[0].lower()
        for row in session.rows(
            f"SELECT stored_as FROM {session.meta('tables')} WHERE lower(id) = lower(?)",
            [table_id.whole],
        )
    }
    candidates = [table_id.whole, *(f"{table_id.whole}~{number}" for number in range(len(taken)))]
    stored_as = next(name for name in candidates if name.lower() not in taken)
    table = Table(
        id=table_id.whole,
        bucket=table_id.bucket,
        name=table_id.name,
        display_name=display_name or table_id.name,
        description="",
        stored_as=stored_as,
        columns=columns,
        primary_key=primary_key,
        created=now,
        definitions=definitions,
        distribution_key=distribution_key,
    )
    session.rows(
        f"INSERT INTO {session.meta('tables')} ({_COLUMNS}) VALUES "
        "(?, ?, ?, ?, ?, ?, ?::VARCHAR[], ?::VARCHAR[], ?, NULL, NULL, 0, 0, ?, ?::VARCHAR[])",
        [
            *(table.id, table.bucket, table.name, table.display_name, "", stored_as),
            *(list(columns), list(primary_key), naive(now)),
            *(text_of(definitions), list(distribution_key)),
        ],
    )
    return table


def save(session: Session, table: Table, before: Table | None = None) -> None:
    """Write what can change of a table; of one that was `before`, what has changed."""
    values = {
        name: value
        for name, value in _changeable(table).items()
        if before is None or _changeable(before)[name] != value
    }
    casts = {"columns": "::VARCHAR[]", "primary_key": "::VARCHAR[]"}
    assignments = ", ".join(f"{name} = ?{casts.get(name, '')}" for name in values)
    if values:
        session.rows(
            f"UPDATE {session.meta('tables')} SET {assignments} WHERE id = ?",
            [*values.values(), table.id],
        )


def _changeable(table: Table) -> dict[str, object]:
    return {
        "display_name": table.display_name,
        "columns": list(table.columns),
        "primary_key": list(table.primary_key),
        "last_import": table.last_import and naive(table.last_import),
        "last_change": table.last_change and naive(table.last_change),
        "row_count": table.row_count,
        "data_bytes": table.data_bytes,
        "definitions": text_of(table.definitions),
    }


def measured(
    session: Session, table: Table, count: int | None = None, size: int | None = None
) -> Table:
    """The table with its number of rows and its size in bytes, which are given when they are known.

    Else the rows are counted, and the size is estimated from the first of them.
    """
    source = session.table(table.stored_as)
    if count is None:
        count = int(session.value(f"SELECT count(*) FROM {source}"))
    if size is not None:
        return replace(table, row_count=count, data_bytes=size)
    values = map(types.as_text if table.definitions else quote, table.columns)
    widths = " + ".join(f"strlen({value})" for value in values)
    mean = session.value(
        f"SELECT coalesce(avg({TIME_BYTES} + {widths}), 0) FROM (FROM {source} LIMIT {_SAMPLE})"
    )
    return replace(table, row_count=count, data_bytes=round(mean * count))


def create_data(
    session: Session, target: str, layout: Iterable[tuple[str, str]], *, temporary: bool = False
) -> None:
    """An empty table of DuckDB, in place of one that has this name."""
    definition = ", ".join(f"{quote(name)} {kind}" for name, kind in layout)
    kind = "TEMP TABLE" if temporary else "TABLE"
    session.rows(f"CREATE OR REPLACE {kind} {target} ({definition}, {quote(TIMESTAMP)} TIMESTAMP)")


def add_columns(session: Session, table: Table, names: Iterable[str]) -> None:
    """Add columns that `table` describes to its data.

    Raises:
        MappingFailed: one of a typed table has to have values, there are rows, and it has no default.
    """
    target = session.table(table.stored_as)
    definitions = {each.name: each for each in table.definitions}
    for name in names:
        kind, default = "VARCHAR", "''"
        if (definition := definitions.get(name)) is not None:
            kind, default = types.stored(definition), _default(session, definition)
            if default == "NULL" and not definition.nullable and table.row_count:
                raise types.empty(definition)
        session.rows(f"ALTER TABLE {target} ADD COLUMN {quote(name)} {kind} DEFAULT {default}")


def _default(session: Session, definition: ColumnDefinition) -> str:
    """A column's default as SQL, once it is known that it is a value of the column."""
    if definition.default is None:
        return "NULL"
    value = (
        f"SELECT CAST({types.value_of('text', 0, definition)} AS VARCHAR) FROM (SELECT ? AS text)"
    )
    try:
        text = str(session.value(value, [definition.default]))
    except ApplicationError as error:
        raise types.failure(str(error.__cause__), [definition]) or error from error
    return "'" + text.replace("'", "''") + "'"


def change_columns(session: Session, table: Table, before: Sequence[ColumnDefinition]) -> None:
    """Bring the data of a typed table from the definitions `before` to those of `table`.

    Raises:
        MappingFailed: there are values that the new definition does not allow.
    """
    target = session.table(table.stored_as)
    for old, new in zip(before, table.definitions, strict=False):
        name, kind = quote(new.name), types.stored(new)
        if new.length != old.length:
            fits = f"length({name}) <= {new.length}"  # digits, or the type would not be one
            if kind != "VARCHAR":
                fits = f"TRY_CAST({name} AS {kind}) IS NOT DISTINCT FROM {name}"
            if session.rows(f"SELECT 1 FROM {target} WHERE NOT ({fits}) LIMIT 1"):
                raise MappingFailed(
                    f'The length of column "{new.name}" cannot be changed to {new.length}: '
                    "there are values that do not fit."
                )
            if kind != types.stored(old):
                session.rows(f"ALTER TABLE {target} ALTER COLUMN {name} TYPE {kind}")
        if (
            old.nullable
            and not new.nullable
            and session.rows(f"SELECT 1 FROM {target} WHERE {name} IS NULL LIMIT 1")
        ):
            raise types.empty(new)


def has_empty(session: Session, table: Table, key: Sequence[str]) -> bool:
    """Whether a row has no value in one of these columns, of those that are there."""
    empty = [f"{quote(name)} IS NULL" for name in key if name in table.columns]
    if not empty:
        return False
    source = session.table(table.stored_as)
    return bool(session.rows(f"SELECT 1 FROM {source} WHERE {' OR '.join(empty)} LIMIT 1"))


def has_duplicates(session: Session, source: str, key: Sequence[str]) -> bool:
    """Whether two rows of `source` have the same values in the columns of `key`."""
    names = ", ".join(map(quote, key))
    statement = f"SELECT 1 FROM {source} GROUP BY {names} HAVING count(*) > 1 LIMIT 1"
    return bool(session.rows(statement))


def drop_table(session: Session, table: Table) -> None:
    """Remove a table with all that is known of it but its import keys: what they say has happened.

    Of an alias only itself goes.
    """
    if table.source is None:
        session.rows(f"DROP TABLE {session.table(table.stored_as)}")
    for name, column in (("tables", "id"), ("aliases", "id"), ("metadata", "object_id")):
        session.rows(
            f"DELETE FROM {session.meta(name)} WHERE {column} = ?",
            [table.id],
        )


def buckets(session: Session) -> list[BucketDetail]:
    """All buckets, by id."""
    return _buckets(session, "", [])


def find_bucket(session: Session, bucket_id: str) -> BucketDetail | None:
    """The bucket of this id, or None."""
    found = _buckets(session, "WHERE id = ?", [bucket_id])
    return found[0] if found else None


def get_bucket(session: Session, bucket_id: str) -> BucketDetail:
    """The bucket of this id, or `NotFound`."""
    found = find_bucket(session, bucket_id)
    if found is None:
        raise no_bucket(bucket_id)
    return found


def _buckets(session: Session, clause: str, parameters: Sequence[object]) -> list[BucketDetail]:
    rows = session.rows(
        "SELECT DISTINCT ON (id) id, name, stage, created, display_name, description, color "
        f"FROM {session.meta('buckets')} {clause} ORDER BY id, created",
        parameters,
    )
    entries = metadata(session, [row[0] for row in rows])
    changes = dict(
        session.rows(
            "SELECT bucket, max(coalesce(last_change, created)) "
            f"FROM {session.meta('tables')} GROUP BY bucket"
        )
    )
    return [
        BucketDetail(
            id=row[0],
            name=row[1],
            stage=cast("Literal['in', 'out']", row[2]),
            created=aware(row[3]),
            display_name=row[4],
            description=row[5],
            color=row[6],
            last_change_date=optional(changes.get(row[0])),
            metadata=entries.get(row[0], {}).get("", ()),
        )
        for row in rows
    ]


def new_bucket(
    session: Session,
    bucket_id: str,
    stage: str,
    name: str,
    description: str,
    now: datetime,
    *,
    display_name: str | None = None,
    color: str | None = None,
) -> None:
    """Describe a bucket."""
    shown = name.removeprefix("c-") if display_name is None else display_name
    session.rows(
        f"INSERT INTO {session.meta('buckets')} "
        "(id, stage, name, display_name, description, created, color) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        [bucket_id, stage, name, shown, description, naive(now), color or None],
    )


def save_bucket(session: Session, bucket: BucketDetail) -> None:
    """Write what can change of a bucket."""
    session.rows(
        f"UPDATE {session.meta('buckets')} SET display_name = ?, color = ? WHERE id = ?",
        [bucket.display_name, bucket.color, bucket.id],
    )


def check_bucket_name(session: Session, stage: str, bucket_id: str, shown: str) -> None:
    """Refuse a display name that another bucket of the stage has.

    Raises:
        InvalidInput: it cannot be one.
        Conflict: it is taken.
    """
    shown_name(shown, of_bucket=True)
    if session.rows(
        f"SELECT 1 FROM {session.meta('buckets')} "
        "WHERE stage = ? AND id <> ? AND display_name = ? LIMIT 1",
        [stage, bucket_id, shown],
    ):
        raise Conflict(
            f'The display name "{shown}" already exists in project.',
            code="storage.buckets.alreadyExists",
        )


def check_table_name(session: Session, table: TableId, shown: str) -> None:
    """Refuse a display name that another table of the bucket has.

    Raises:
        InvalidInput: it cannot be one.
        Conflict: it is taken.
    """
    shown_name(shown, of_bucket=False)
    found = session.rows(
        f"SELECT name FROM {session.meta('tables')} "
        "WHERE bucket = ? AND id <> ? AND display_name = ? LIMIT 1",
        [table.bucket, table.whole, shown],
    )
    if found:
        raise Conflict(
            f'The table "{found[0][0]}" in the bucket already has the same display name "{shown}".',
            code="storage.buckets.tableAlreadyExists",
        )


def drop_bucket(session: Session, bucket_id: str) -> None:
    """Remove an empty bucket."""
    for name, column in (("buckets", "id"), ("metadata", "object_id")):
        session.rows(
            f"DELETE FROM {session.meta(name)} WHERE {column} = ?",
            [bucket_id],
        )


def metadata(
    session: Session, object_ids: Sequence[str]
) -> dict[str, dict[str, tuple[MetadataEntry, ...]]]:
    """Metadata by object and column; the empty column is the object itself."""
    result: dict[str, dict[str, tuple[MetadataEntry, ...]]] = {}
    if not object_ids:
        return result
    rows = session.rows(
        "SELECT object_id, column_name, id, key, value, provider, written "
        f"FROM {session.meta('metadata')} "
        "WHERE object_id IN (SELECT unnest(CAST(? AS VARCHAR[]))) ORDER BY id",
        [list(object_ids)],
    )
    for object_id, column, number, key, value, provider, written in rows:
        entry = MetadataEntry(str(number), key, value, provider, aware(written))
        columns = result.setdefault(object_id, {})
        columns[column] = (*columns.get(column, ()), entry)
    return result


def write_metadata(
    session: Session,
    object_id: str,
    column: str,
    provider: str,
    metadata: Mapping[str, str],
    now: datetime,
    before: Sequence[MetadataEntry],
) -> tuple[MetadataEntry, ...]:
    """Set keys of an object's or a column's metadata that were `before`; return how they are then."""
    target, written = session.meta("metadata"), naive(now)
    entries = {entry.id: entry for entry in before}
    ids = {entry.key: entry.id for entry in before if entry.provider == provider}
    touched: list[str] = []
    for key, value in metadata.items():
        if key not in ids:
            number = session.value(
                f"INSERT INTO {target} "
                "(id, object_id, column_name, provider, key, value, written) "
                f"VALUES (nextval({sequence(session)}), ?, ?, ?, ?, ?, ?) RETURNING id",
                [object_id, column, provider, key, value, written],
            )
            ids[key] = str(number)
        elif entries[ids[key]].value == value:
            touched.append(ids[key])
        else:
            session.rows(
                f"UPDATE {target} SET value = ?, written = ? WHERE id = ?",
                [value, written, int(ids[key])],
            )
        entries[ids[key]] = MetadataEntry(ids[key], key, value, provider, now)
    if touched:
        session.rows(
            f"UPDATE {target} SET written = ? WHERE id IN ({', '.join(touched)})", [written]
        )
    return tuple(entries.values())


def sequence(session: Session) -> str:
    """The name of the sequence of metadata ids, as `nextval` takes it."""
    return "'" + session.meta("metadata_id").replace("'", "''") + "'"


def drop_metadata(session: Session, object_id: str, column: str, number: int) -> bool:
    """Forget an entry of an object's or a column's metadata; whether there was one."""
    count = session.value(
        f"DELETE FROM {session.meta('metadata')} "
        "WHERE id = ? AND object_id = ? AND column_name = ?",
        [number, object_id, column],
    )
    return bool(count)


def copy_metadata(session: Session, object_id: str, other_id: str) -> None:
    """Say all of `other_id` that is said of an object and its columns, in new entries."""
    target = session.meta("metadata")
    session.rows(
        f"INSERT INTO {target} (id, object_id, column_name, provider, key, value, written) "
        f"SELECT nextval({sequence(session)}), ?, column_name, provider, key, value, written "
        f"FROM {target} WHERE object_id = ?",
        [other_id, object_id],
    )


def swap(session: Session, one: Table, other: Table) -> None:
    """Give each of two tables what the other one has, all but the names."""
    between = f"{one.stored_as}~swap"
    # data are under their table's name also then: who reads with what was known before finds its table
    for old, new in (
        (one.stored_as, between),
        (other.stored_as, one.stored_as),
        (between, other.stored_as),
    ):
        session.rows(f"ALTER TABLE {session.table(old)} RENAME TO {quote(new)}")
    for table, gets in ((one, other), (other, one)):
        session.rows(
            f"UPDATE {session.meta('tables')} SET created = ? WHERE id = ?",
            [naive(gets.created), table.id],
        )
        save(
            session,
            replace(
                gets,
                id=table.id,
                bucket=table.bucket,
                name=table.name,
                display_name=table.display_name,
            ),
        )
    session.rows(
        f"UPDATE {session.meta('metadata')} SET object_id = CASE WHEN object_id = ? THEN ? ELSE ? END "
        "WHERE object_id IN (?, ?)",
        [one.id, other.id, one.id, one.id, other.id],
    )


def drop_column_metadata(session: Session, table_id: str, column: str) -> None:
    """Forget what is said of a column."""
    session.rows(
        f"DELETE FROM {session.meta('metadata')} WHERE object_id = ? AND column_name = ?",
        [table_id, column],
    )


def text_of(definitions: Sequence[ColumnDefinition]) -> str | None:
    """Definitions as they are stored, None for a table without types."""
    return json.dumps([asdict(each) for each in definitions]) if definitions else None


def definitions_of(text: str | None) -> tuple[ColumnDefinition, ...]:
    return tuple(ColumnDefinition(**each) for each in json.loads(text)) if text else ()


def aware(moment: datetime) -> datetime:
    """A moment that DuckDB gave, which is in UTC."""
    return moment.replace(tzinfo=UTC)


def optional(moment: Any) -> datetime | None:
    return None if moment is None else aware(moment)
