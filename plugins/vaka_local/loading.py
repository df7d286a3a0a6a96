"""Loading CSV files into a table, within one transaction. No row passes through Python."""

# ruff: noqa: S608 - names are quoted where they come from, values are parameters

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Final

from vaka.errors import Conflict, InvalidInput, MappingFailed, UserError
from vaka.models.naming import webalize
from vaka.models.storage import ColumnDefinition, DeleteWhere, LoadResult, TableLoad
from vaka_local import conditions, names, records, types
from vaka_local.conditions import naive
from vaka_local.csvfiles import Dialect
from vaka_local.duck import ReadFailed, Session, quote
from vaka_local.metadata import check, say
from vaka_local.reading import Batch, Files
from vaka_local.records import Known, Table

_KEYS_KEPT: Final = timedelta(days=30)
"""Age at which import keys are forgotten. A job that was interrupted is resumed much sooner."""
_KEYS_IN_MEMORY: Final = 1_000
"""Import keys of a table from which on they are looked up one by one."""
_ORDER: Final = "_order"
DUPLICATES: Final = (
    "The new primary key cannot be created; duplicate values in primary key columns exist."
)


class ReadAgain(Exception):
    """DuckDB read a file in parallel and stumbled: the transaction must be repeated, one by one."""


def next_import(now: datetime, last: datetime | None) -> datetime:
    """When the rows of a load that begins now are said to have changed: never before the last one."""
    return max(now, last) if last is not None else now


def import_date(rows: datetime, now: datetime) -> datetime:
    """The date of a load whose rows have the time `rows` and which ends now.

    It is a whole second, because dates are shown and kept as such, and later than all rows: who reads
    what changed since that date gets what later loads bring, and nothing twice.
    """
    latest = max(now, rows + timedelta(microseconds=1))
    whole = latest.replace(microsecond=0)
    return whole if whole == latest else whole + timedelta(seconds=1)


EMPTY: Final = (
    "The new primary key cannot be created; primary key columns have rows without a value."
)


def distributed_by(key: Sequence[str], columns: Sequence[str]) -> tuple[str, ...]:
    """The columns that rows are said to be distributed by; here they are not, and it is remembered.

    Raises:
        InvalidInput: a column is not there.
    """
    return _of_columns(key, columns, "Distribution", "distributionKey")


NO_KEY_COLUMN: Final = "storage.tables.validation.invalidPrimaryKeyColumns"
"""Storage's word for a new table with a key of columns that it does not have."""


def checked_key(
    key: Sequence[str], columns: Sequence[str], *, code: str | None = None
) -> tuple[str, ...]:
    """A primary key of columns that exist.

    Raises:
        InvalidInput: a column is not there; `code` is Storage's word for it.
    """
    return _of_columns(key, columns, "Primary", "primaryKey", code)


def _of_columns(
    key: Sequence[str], columns: Sequence[str], kind: str, path: str, code: str | None = None
) -> tuple[str, ...]:
    missing = [written for written in key if webalize(written) not in columns]
    if missing:
        raise InvalidInput(
            f'{kind} key columns "{", ".join(missing)}" not found in "{", ".join(columns)}"',
            path=path,
            code=code,
        )
    return tuple(dict.fromkeys(map(webalize, key)))


class ImportKeys:
    """The import keys of one table, for who has it alone: kept in memory, unless there are many."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[int, int]] | None = None
        self._are_many = False

    def find(self, session: Session, table_id: str, key: str) -> tuple[int, int] | None:
        """The rows that the load with this key had and left, or None when there was none."""
        if self._rows is None and not self._are_many:
            found = session.rows(
                f"SELECT key, imported_rows, total_rows FROM {session.meta('import_keys')} "
                "WHERE table_id = ? LIMIT ?",
                [table_id, _KEYS_IN_MEMORY],
            )
            self._are_many = len(found) == _KEYS_IN_MEMORY
            if not self._are_many:
                self._rows = {each: (imported, total) for each, imported, total in found}
        if self._rows is not None:
            return self._rows.get(key)
        found = session.rows(
            f"SELECT imported_rows, total_rows FROM {session.meta('import_keys')} "
            "WHERE table_id = ? AND key = ?",
            [table_id, key],
        )
        return (found[0][0], found[0][1]) if found else None

    def forget(self) -> None:
        """Some were removed."""
        self._rows, self._are_many = None, False

    def add(self, key: str, result: LoadResult) -> None:
        """The load with this key is committed."""
        if self._rows is not None:
            self._rows[key] = (result.imported_rows, result.total_rows)
            if len(self._rows) >= _KEYS_IN_MEMORY:
                self._rows, self._are_many = None, True


def remember(
    session: Session,
    table_id: str,
    key: str,
    now: datetime,
    imported_rows: int = 0,
    total_rows: int = 0,
) -> None:
    """Note that what has this import key is done."""
    session.rows(
        f"INSERT INTO {session.meta('import_keys')} VALUES (?, ?, ?, ?, ?)",
        [table_id, key, imported_rows, total_rows, naive(now)],
    )


@dataclass(frozen=True)
class Loader:
    """One load, with what it needs."""

    session: Session
    project: str
    load: TableLoad
    known: Known | None
    """The table, if its caller knows it; else it is looked up."""
    keys: ImportKeys
    """What is known of the table's import keys."""
    clock: Callable[[], datetime]
    scratch: Path
    sequential: bool
    """Read files from their beginning to their end, not in parallel."""

    @cached_property
    def now(self) -> datetime:
        """When the load began."""
        return self.clock()

    @cached_property
    def before(self) -> Known | None:
        """The table as it is before the load, or None when there is none."""
        if self.known is not None:
            return self.known
        found = records.find_table(self.session, self.load.table_id)
        return records.describe(self.session, [found])[0] if found else None

    def run(self) -> tuple[LoadResult, Known | None]:
        """Do all that the load asks for; also give what the table is then, None if as before.

        Raises:
            ReadAgain: the transaction must be undone and repeated with `sequential`.
            NotFound, InvalidInput, MappingFailed: as `TableBackend.load`.
        """
        load = self.load
        if load.import_key is not None and (done := self._remembered()) is not None:
            return done, None
        dialect = Dialect.of(load)
        if self.before is not None and load.only_new:
            raise Conflict(
                f'The table "{load.table_id}" already exists.', code="storage.tables.alreadyExists"
            )
        if self.before is None and not load.create:
            raise names.no_table(load.table_id, self.project)
        if not load.columns and len(load.paths) != 1:
            raise InvalidInput(
                f'The load of table "{load.table_id}" has {len(load.paths)} files and no names of '
                "columns: only a single file has a header.",
                path="columns",
            )
        files = Files(load.paths, dialect, not load.columns, self.scratch, self.session.check)
        columns = self._file_columns(files)
        if self.before is None:
            result, after = self._into_new(files, columns)
        else:
            result, after = self._into_existing(self.before.table, files, columns)
        if load.import_key is not None:
            self._remember(result)
        return result, after

    def _file_columns(self, files: Files) -> tuple[str, ...]:
        """Names of the fields, in the order of the files."""
        if self.load.columns:
            return names.column_names(self.load.columns)
        header = files.header()
        if header is None:
            raise MappingFailed(
                "There are no data in import file", code="storage.tables.validation.noColumns"
            )
        try:
            return names.column_names(header)
        except InvalidInput as error:
            raise MappingFailed(error.message, code=error.code) from error

    def _into_new(self, files: Files, columns: tuple[str, ...]) -> tuple[LoadResult, Known]:
        load = self.load
        key = checked_key(load.primary_key or (), columns, code=NO_KEY_COLUMN)
        table = records.new_table(
            self.session,
            names.table_id(load.table_id),
            columns,
            key,
            self.now,
            definitions=types.kept(columns, self._defined, key) if load.definitions else (),
            distribution_key=distributed_by(load.distribution_key, columns),
            display_name=load.display_name,
        )
        count = self._replace(table, files, columns)
        size = self._size(files, count, columns)
        return self._finished(table, count, total=count, size=size, created=True)

    def _into_existing(
        self, before: Table, files: Files, columns: tuple[str, ...]
    ) -> tuple[LoadResult, Known]:
        load, session = self.load, self.session
        new = tuple(name for name in columns if name not in before.columns)
        expected = before.columns + new
        names.check_count(len(expected))
        missing = [name for name in before.columns if name not in columns]
        if missing:
            raise MappingFailed(
                f"Some columns are missing in the csv file. Missing columns: {','.join(missing)}. "
                f"Expected columns: {','.join(expected)}. Please check if the expected delimiter "
                f'"{load.delimiter}" is used in the csv file.',
                code="csvImport.columnsNotMatch",
            )
        if new and not load.add_columns:
            raise MappingFailed(
                f'The table "{before.id}" has no columns {names.quoted(new)}, and the load may not '
                "add any."
            )
        clauses = [self._deletion(each, before) for each in load.delete_where]
        key, warnings = self._key(before, expected)
        table = replace(
            before,
            columns=expected,
            primary_key=key,
            definitions=self._definitions(before, new, key),
        )
        target = session.table(table.stored_as)
        total = size = None
        if load.incremental:
            records.add_columns(session, table, new)
            for clause, parameters in clauses:
                session.rows(f"DELETE FROM {target}{clause}", parameters)
            records.change_columns(session, table, before.definitions)
            if key and load.deduplication == "upsert":
                count = self._upsert(table, files, columns)
            else:
                count = self._fill(target, table, files, columns)
        else:
            total = count = self._replace(table, files, columns)
            size = self._size(files, count, columns)
        return self._finished(
            table, count, total=total, size=size, new_columns=new, warnings=warnings
        )

    def _deletion(self, where: DeleteWhere, before: Table) -> tuple[str, list[object]]:
        try:
            return conditions.where(where, before.columns, before.comparable)
        except InvalidInput as error:
            error.path = f"delete_where.{error.path}"
            raise

    @cached_property
    def _defined(self) -> tuple[ColumnDefinition, ...]:
        """Definitions by the names that columns have here."""
        return tuple(replace(each, name=webalize(each.name)) for each in self.load.definitions)

    def _definitions(
        self, before: Table, new: tuple[str, ...], key: tuple[str, ...]
    ) -> tuple[ColumnDefinition, ...]:
        """What the columns of a typed table are from now on."""
        if not before.definitions:
            return ()
        wanted = {each.name: each for each in self._defined}
        known = [types.changed(old, wanted.get(old.name, old), key) for old in before.definitions]
        return (*known, *types.kept(new, self._defined, key))

    def _key(
        self, before: Table, columns: tuple[str, ...]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The key the table has from now on, and warnings if it is not the one asked for.

        Whether it can be is decided by the rows that are stored, also when they are to be replaced.
        """
        wanted, old = self.load.primary_key, before.primary_key
        if wanted is None:
            return old, ()
        try:
            key = checked_key(wanted, columns)
            if set(key) == set(old):
                return old, ()
        except InvalidInput as error:
            return old, (self._unchanged_key(before, error.message),)
        if key and self._has_duplicates(before, key):
            return old, (self._unchanged_key(before, DUPLICATES),)
        if before.definitions and records.has_empty(self.session, before, key):
            return old, (self._unchanged_key(before, EMPTY),)
        return key, ()

    def _unchanged_key(self, table: Table, why: str) -> str:
        """A warning, or the end of the load when its columns are defined."""
        message = f"Error changing primary key of table {table.id}: {why}"
        if self.load.definitions:
            raise MappingFailed(message)
        return message

    def _has_duplicates(self, table: Table, key: Sequence[str]) -> bool:
        """Whether stored rows have the same key; in columns that are new all have the same."""
        stored = [name for name in key if name in table.columns]
        if not stored:
            return table.row_count > 1
        return records.has_duplicates(self.session, self.session.table(table.stored_as), stored)

    # -- the ways rows come into a table ---------------------------------------------------------

    def _replace(self, table: Table, files: Files, columns: tuple[str, ...]) -> int:
        """Make the files the table's whole content."""
        target = self.session.table(table.stored_as)
        records.create_data(self.session, target, table.layout)
        count = self._fill(target, table, files, columns)
        if table.primary_key and records.has_duplicates(self.session, target, table.primary_key):
            records.create_data(self.session, target, table.layout)
            count = self._fill_with_last(target, table, files, columns)
        return count

    def _size(self, files: Files, rows: int, columns: tuple[str, ...]) -> int | None:
        """About how many bytes the values are that were just loaded; None if that cannot be told."""
        size = files.plain_bytes()
        if size is None:
            return None
        if not self.load.columns:
            size -= sum(len(name.encode()) + 1 for name in columns)
        # the row's time is stored, delimiters and line ends are not
        return max(0, size + rows * (records.TIME_BYTES - len(columns)))

    def _upsert(self, table: Table, files: Files, columns: tuple[str, ...]) -> int:
        """Put rows in the place of those with the same key, add the others, leave what is the same.

        Deleting and inserting by row number costs a fifth of a MERGE when what changes is scattered:
        an update in place makes DuckDB write all groups of rows anew that it touches.
        """
        session, key = self.session, table.primary_key
        target = session.table(table.stored_as)
        stage = "temp.main.stage"
        records.create_data(session, stage, table.layout, temporary=True)
        count = self._fill(stage, table, files, columns)
        if records.has_duplicates(session, stage, key):
            records.create_data(session, stage, table.layout, temporary=True)
            count = self._fill_with_last(stage, table, files, columns)
        same_key = " AND ".join(f"t.{quote(name)} = s.{quote(name)}" for name in key)
        session.rows(
            "CREATE OR REPLACE TEMP TABLE matched AS SELECT t.rowid AS old, s.rowid AS new "
            f"FROM {target} AS t JOIN {stage} AS s ON {same_key}"
        )
        unlike = "IS DISTINCT FROM" if table.definitions else "<>"
        differs = [
            f"t.{quote(name)} {unlike} s.{quote(name)}" for name in table.columns if name not in key
        ]
        session.rows(
            "CREATE OR REPLACE TEMP TABLE changed AS SELECT m.old "
            f"FROM temp.main.matched AS m JOIN {target} AS t ON t.rowid = m.old "
            f"JOIN {stage} AS s ON s.rowid = m.new WHERE {' OR '.join(differs) or 'false'}"
        )
        session.rows(f"DELETE FROM {target} WHERE rowid IN (SELECT old FROM temp.main.changed)")
        everything = ", ".join(map(quote, [*table.columns, names.TIMESTAMP]))
        session.rows(
            f"{self._into(target, table)} SELECT {everything} FROM {stage} WHERE rowid NOT IN ("
            "SELECT new FROM temp.main.matched "
            "WHERE old NOT IN (SELECT old FROM temp.main.changed))"
        )
        for name in ("stage", "matched", "changed"):
            session.rows(f"DROP TABLE temp.main.{name}")
        return count

    def _fill(self, target: str, table: Table, files: Files, columns: tuple[str, ...]) -> int:
        """Append all rows of the files to a table, in any order."""
        into = self._into(target, table)
        count = 0
        for batch in files.batches():
            scan = batch.scan(len(columns), sequential=self.sequential)
            select, given = self._selection(table, columns, scan, "?", self._stamp)
            if batch.in_parallel and not self.sequential:
                rows = self._read(batch, f"{into} {select}", given, table, len(columns))
                if not batch.is_complete(rows, len(columns)):
                    raise ReadAgain
            else:  # only one thread reads; with a table between, all of them write
                into_memory = f"CREATE OR REPLACE TEMP TABLE read AS {select}"
                rows = self._read(batch, into_memory, given, table, len(columns))
                self.session.rows(f"{into} FROM temp.main.read")
                self.session.rows("DROP TABLE temp.main.read")
            count += rows
        return count

    def _fill_with_last(
        self, target: str, table: Table, files: Files, columns: tuple[str, ...]
    ) -> int:
        """Append, of the rows with one key, the one that stands last in the files."""
        session, ordered = self.session, "temp.main.ordered"
        definition = ", ".join(f"{quote(name)} {kind}" for name, kind in table.layout)
        session.rows(f"CREATE OR REPLACE TEMP TABLE {ordered} ({definition}, {_ORDER} BIGINT)")
        count = 0
        for batch in files.batches(in_order=True):
            scan = batch.scan(len(columns), sequential=True)
            number = "? + row_number() OVER ()"
            select, given = self._selection(table, columns, scan, number, count)
            statement = f"INSERT INTO {ordered} {select}"
            count += self._read(batch, statement, given, table, len(columns))
        key = ", ".join(map(quote, table.primary_key))
        kept = session.value(
            f"{self._into(target, table)} SELECT {', '.join(map(quote, table.columns))}, ? "
            f"FROM {ordered} WHERE {_ORDER} IN (SELECT max({_ORDER}) FROM {ordered} GROUP BY {key})",
            [self._stamp],
        )
        session.rows(f"DROP TABLE {ordered}")
        return int(kept)

    def _into(self, target: str, table: Table) -> str:
        columns = ", ".join(map(quote, [*table.columns, names.TIMESTAMP]))
        return f"INSERT INTO {target} ({columns})"

    def _selection(
        self, table: Table, columns: tuple[str, ...], scan: str, last: str, value: object
    ) -> tuple[str, list[object]]:
        """A `SELECT` of the table's columns and `last` out of a reader's, with parameters."""
        given = self.load.treat_values_as_null
        nulls = ("",) if given is None else given
        fields = [f"c{columns.index(name)}" for name in table.columns]
        if table.definitions:
            pairs = zip(fields, table.definitions, strict=True)
            values = [types.value_of(f, index, each) for index, (f, each) in enumerate(pairs)]
            instead = "NULL"
        else:  # there are no nulls in a table of texts: what is to be one is an empty text
            values, instead = fields, "''"
            nulls = tuple(text for text in nulls if text)
        parameters = [value]
        if nulls:
            marks = ", ".join("?" for _ in nulls)
            read = ", ".join(
                f"CASE WHEN {f} IN ({marks}) THEN {instead} ELSE {f} END AS {f}" for f in fields
            )
            scan = f"(SELECT {read} FROM {scan})"
            parameters += [*nulls] * len(fields)
        return f"SELECT {', '.join(values)}, {last} FROM {scan}", parameters

    def _read(
        self, batch: Batch, statement: str, parameters: list[object], table: Table, columns: int
    ) -> int:
        try:
            return self.session.read(statement, parameters)
        except ReadFailed as error:
            if (refused := types.failure(str(error), table.definitions)) is not None:
                raise refused from error
            if batch.in_parallel and not self.sequential:
                raise ReadAgain from error
            raise batch.failure(str(error), columns) from error

    # -- what is remembered ----------------------------------------------------------------------

    @cached_property
    def _stamp(self) -> datetime:
        """The time of the load's rows."""
        last = self.before.table.last_import if self.before else None
        return naive(next_import(self.now, last))

    def _finished(
        self,
        table: Table,
        count: int,
        *,
        total: int | None,
        size: int | None,
        created: bool = False,
        new_columns: tuple[str, ...] = (),
        warnings: tuple[str, ...] = (),
    ) -> tuple[LoadResult, Known]:
        """Write down what the table is now; `total` are its rows and `size` its bytes, if known."""
        date = import_date(self._stamp.replace(tzinfo=UTC), self.clock())
        measured = records.measured(self.session, table, total, size)
        after = replace(measured, last_import=date, last_change=date)
        records.save(self.session, after, self.before.table if self.before else None)
        known = self.before.changed(after) if self.before else Known(after, after.detail((), {}))
        known, refused = self._say(known, created=created)
        result = LoadResult(
            table_id=table.id,
            imported_rows=count,
            total_rows=after.row_count,
            created=created,
            new_columns=new_columns,
            warnings=warnings,
            refused_metadata=refused,
        )
        return result, known

    def _say(self, known: Known, *, created: bool) -> tuple[Known, tuple[tuple[int, str], ...]]:
        """Write the load's metadata; also give which of them were refused, and why."""
        refused = []
        for index, each in enumerate(self.load.metadata):
            if each.only_when_created and not created:
                continue
            try:
                check(each.provider, each.metadata, each.columns)
                known = say(
                    self.session, known, each.provider, each.metadata, each.columns, self.clock()
                )
            except UserError as error:
                refused.append((index, error.message))
        return known, tuple(refused)

    def _remembered(self) -> LoadResult | None:
        found = self.keys.find(self.session, self.load.table_id, str(self.load.import_key))
        if found is None:
            return None
        return LoadResult(self.load.table_id, *found, repeated=True)

    def _remember(self, result: LoadResult) -> None:
        target = self.session.meta("import_keys")
        last = self.before.table.last_import if self.before else None
        if last is None or last.date() != self.now.date():  # once a day is enough
            self.session.rows(
                f"DELETE FROM {target} WHERE table_id = ? AND written < ?",
                [result.table_id, naive(self.now - _KEYS_KEPT)],
            )
            self.keys.forget()
        remember(
            self.session,
            result.table_id,
            str(self.load.import_key),
            self.now,
            result.imported_rows,
            result.total_rows,
        )
