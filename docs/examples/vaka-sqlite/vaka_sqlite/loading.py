"""A load: CSV files into a table, in the order that `TableLoad` describes, in one transaction.

The rows go into a temporary table first. There duplicates of the key are removed, and from there the
rest is three statements on whole sets of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from vaka.errors import Conflict, InvalidInput, MappingFailed, NotFound, UserError
from vaka.models.storage import LoadResult, TableLoad
from vaka_sqlite import csvfiles
from vaka_sqlite.conditions import quoted, where
from vaka_sqlite.database import now
from vaka_sqlite.names import bucket_of, column_names
from vaka_sqlite.project import Project, Table


def load_table(project: Project, load: TableLoad) -> LoadResult:
    """Do one load; see `vaka.models.storage.TableLoad` for every option."""
    existing = project.find(load.table_id)
    if existing is None and not load.create:
        raise NotFound(f"The table {load.table_id} was not found", kind="table", id=load.table_id)
    if existing is not None and load.import_key is not None:
        repeated = _repeated(project, existing, load.import_key)
        if repeated is not None:
            return repeated
    if existing is not None and load.only_new:
        raise Conflict(f'The table "{load.table_id}" already exists.')
    columns = column_names(load.columns) if load.columns else _header(load)
    warnings: list[str] = []
    added: tuple[str, ...] = ()
    if existing is None:
        project.ensure_bucket(bucket_of(load.table_id))
        table = project.create_table(load.table_id, columns, load.primary_key or ())
    else:
        table, columns, added = _fitted(project, existing, load, columns)
        try:
            if load.primary_key is not None and set(load.primary_key) != set(table.key):
                table = project.set_primary_key(table, load.primary_key)
        except UserError as error:  # no reason to refuse the data: the key stays as it was
            warnings.append(f"Error changing primary key of table {table.id}: {error.message}")
        for each in load.delete_where:
            try:
                condition, values = where(each, table.columns)
            except InvalidInput as error:  # the engine tells it from a load that is refused
                error.path = f"delete_where.{error.path}"
                raise
            project.connection.execute(f"DELETE FROM {table.rows} WHERE {condition}", values)
    if not load.incremental:
        project.connection.execute(f"DELETE FROM {table.rows}")
    # rows are older than the load that brought them, and not older than the load before
    started = max(now(), table.imported)
    rows = _move(project, table, load, columns, started)
    project.connection.execute(
        'UPDATE "table" SET imported = ? WHERE number = ?',
        (max(now(), started + 1), table.number),
    )
    project.touch(table)
    if load.import_key is not None:
        project.connection.execute(
            'INSERT INTO import_key ("table", key, rows) VALUES (?, ?, ?)',
            (table.number, load.import_key, rows),
        )
    return LoadResult(
        table_id=table.id,
        imported_rows=rows,
        total_rows=project.detail(table.id).rows_count or 0,
        created=existing is None,
        new_columns=added,
        warnings=tuple(warnings),
    )


def _repeated(project: Project, table: Table, import_key: str) -> LoadResult | None:
    found = project.connection.execute(
        'SELECT rows FROM import_key WHERE "table" = ? AND key = ?', (table.number, import_key)
    ).fetchone()
    if found is None:
        return None
    total = project.detail(table.id).rows_count or 0
    return LoadResult(table.id, imported_rows=found[0], total_rows=total, repeated=True)


def _header(load: TableLoad) -> tuple[str, ...]:
    if len(load.paths) != 1:
        raise InvalidInput(
            f"The table {load.table_id} is loaded from {len(load.paths)} files, and only one alone "
            "has a header: name the columns.",
            path="columns",
        )
    with csvfiles.reading(load.paths[0], load) as rows:
        header = next(rows, None)
    if header is None:
        raise MappingFailed("There are no data in import file")
    try:
        return column_names(header)
    except InvalidInput as error:
        raise MappingFailed(error.message) from error


def _fitted(
    project: Project, table: Table, load: TableLoad, columns: Sequence[str]
) -> tuple[Table, tuple[str, ...], tuple[str, ...]]:
    """The table with the columns of the files, their names as it has them, and the new ones."""
    known = {column.lower(): column for column in table.columns}
    columns = tuple(known.get(column.lower(), column) for column in columns)
    if missing := [column for column in table.columns if column not in columns]:
        raise MappingFailed(
            "Some columns are missing in the csv file. "
            f"Missing columns: {','.join(missing)}. Expected columns: {','.join(table.columns)}. "
            f'Please check if the expected delimiter "{load.delimiter}" is used in the csv file.'
        )
    added = tuple(column for column in columns if column not in table.columns)
    if added and not load.add_columns:
        raise MappingFailed(f"The table {table.id} has no columns {', '.join(added)}.")
    return project.add_columns(table, added) if added else table, columns, added


def _move(
    project: Project, table: Table, load: TableLoad, columns: Sequence[str], timestamp: int
) -> int:
    """Bring the rows of the files into the table; how many there were, duplicates removed."""
    run = project.connection.execute
    names = ", ".join(map(quoted, columns))
    key = ", ".join(map(quoted, table.key))
    with _staged(project, load, columns):
        upsert = bool(table.key) and (not load.incremental or load.deduplication == "upsert")
        if upsert:
            run(
                "DELETE FROM staged WHERE rowid NOT IN"
                f" (SELECT max(rowid) FROM staged GROUP BY {key})"
            )
        (rows,) = run("SELECT count(*) FROM staged").fetchone()
        insert = f"INSERT INTO {table.rows} ({names}, _timestamp) SELECT {names}, ? FROM staged"
        if not (upsert and load.incremental):
            run(insert, (timestamp,))
            return int(rows)
        same = " AND ".join(
            f"{table.rows}.{quoted(each)} = staged.{quoted(each)}" for each in table.key
        )
        differs = " OR ".join(
            f"{table.rows}.{quoted(each)} <> staged.{quoted(each)}" for each in columns
        )
        values = ", ".join(f"{quoted(each)} = staged.{quoted(each)}" for each in columns)
        run(
            f"UPDATE {table.rows} SET {values}, _timestamp = ? FROM staged"
            f" WHERE {same} AND ({differs})",
            (timestamp,),
        )
        run(f"{insert} WHERE NOT EXISTS (SELECT 1 FROM {table.rows} WHERE {same})", (timestamp,))
    return int(rows)


@contextmanager
def _staged(project: Project, load: TableLoad, columns: Sequence[str]) -> Iterator[None]:
    """The rows of all files in the temporary table `staged`."""
    definitions = ", ".join(f"{quoted(column)} TEXT NOT NULL" for column in columns)
    insert = f"INSERT INTO temp.staged VALUES ({', '.join('?' * len(columns))})"
    project.connection.execute(f"CREATE TEMP TABLE staged ({definitions})")
    for path in load.paths:
        with csvfiles.reading(path, load) as rows:
            if not load.columns:
                next(rows)  # the header
            data = _without(load.treat_values_as_null, csvfiles.checked(rows, len(columns)))
            project.connection.executemany(insert, data)
    yield
    project.connection.execute("DROP TABLE temp.staged")


def _without(nulls: Sequence[str] | None, rows: Iterator[list[str]]) -> Iterator[list[str]]:
    """The rows with empty text for what is to be null: columns without a type have no null."""
    if not nulls:
        return rows
    gone = frozenset(nulls)
    return (["" if value in gone else value for value in row] for row in rows)
