"""The tables of the embedded Storage.

Every operation is one transaction of DuckDB, in a thread. Locks in the process decide who may write: one
writer a table at a time, and nobody writes into a bucket that is being dropped. Reading takes no lock:
it sees what was committed when it began.
"""

# ruff: noqa: S608 - names are quoted where they come from, values are parameters

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

import trio

from vaka.errors import ApplicationError, Conflict, InvalidInput, MappingFailed, NotFound, UserError
from vaka.hooks import TableBackend
from vaka.models.naming import webalize
from vaka.models.storage import (
    BucketDetail,
    ColumnDefinition,
    DeleteWhere,
    ExportOptions,
    ExportResult,
    LoadResult,
    SnapshotDetail,
    StorageScope,
    TableDetail,
    TableLoad,
)
from vaka_local import conditions, names, records, snapshots, types
from vaka_local.details import Details
from vaka_local.disk import new_file, new_folder
from vaka_local.duck import Duck, Session, quote
from vaka_local.loading import (
    DUPLICATES,
    EMPTY,
    NO_KEY_COLUMN,
    ImportKeys,
    Loader,
    ReadAgain,
    checked_key,
    distributed_by,
    remember,
)
from vaka_local.locks import Locks
from vaka_local.metadata import check, no_column, say, say_of_bucket, unsay
from vaka_local.records import Known, Table

T = TypeVar("T")
D = TypeVar("D", BucketDetail, Known)

_Changed: TypeAlias = dict[str, Known]
"""Tables that a load works on, by id."""

_PREVIEW: Final = 100
_MOST_KEYS: Final = 1_000
"""Tables whose import keys are kept in memory."""


class LocalTables(TableBackend):
    """Tables in DuckDB, one file a project."""

    def __init__(self, duck: Duck, clock: Callable[[], datetime]) -> None:
        """Use `duck` for all data; `clock` gives the time in UTC."""
        self._duck = duck
        self._clock = clock
        self._locks = Locks()
        self._details = Details()
        self._keys: dict[tuple[str, str], ImportKeys] = {}

    # -- buckets ---------------------------------------------------------------------------------

    async def list_buckets(self, scope: StorageScope) -> list[BucketDetail]:
        return await self._look_up(scope, records.buckets)

    async def bucket(self, scope: StorageScope, bucket_id: str) -> BucketDetail:
        known = self._details.bucket(names.space(scope), bucket_id)
        return known or await self._recall(
            scope, bucket_id, lambda session: records.get_bucket(session, bucket_id)
        )

    async def create_bucket(
        self,
        scope: StorageScope,
        stage: str,
        name: str,
        *,
        description: str = "",
        display_name: str | None = None,
        color: str | None = None,
    ) -> BucketDetail:
        bucket_id = names.bucket_id(stage, name)

        def create(session: Session) -> BucketDetail:
            if records.find_bucket(session, bucket_id) is not None:
                raise Conflict(
                    f"The bucket {name} already exists", code="storage.buckets.alreadyExists"
                )
            shown = name if display_name is None else display_name
            records.check_bucket_name(session, stage, bucket_id, shown)
            records.new_bucket(
                session,
                bucket_id,
                stage,
                f"c-{name}",
                description,
                self._clock(),
                display_name=shown,
                color=color,
            )
            return records.get_bucket(session, bucket_id)

        async with self._alone_in_buckets(scope, bucket_id, _display_names(scope)):
            return await self._change(scope, create, [bucket_id])

    async def update_bucket(
        self,
        scope: StorageScope,
        bucket_id: str,
        *,
        display_name: str | None = None,
        color: str | None = None,
    ) -> BucketDetail:
        def update(session: Session) -> BucketDetail:
            bucket = records.get_bucket(session, bucket_id)
            if display_name is not None:
                records.check_bucket_name(session, bucket.stage, bucket_id, display_name)
                bucket = replace(bucket, display_name=display_name)
            if color is not None:
                bucket = replace(bucket, color=color or None)
            records.save_bucket(session, bucket)
            return bucket

        async with self._alone_in_buckets(scope, bucket_id, _display_names(scope)):
            return await self._change(scope, update, [bucket_id])

    async def drop_bucket(
        self, scope: StorageScope, bucket_id: str, *, force: bool = False
    ) -> None:
        def drop(session: Session) -> None:
            records.get_bucket(session, bucket_id)
            tables = records.tables(session, bucket_id)
            if tables and not force:
                raise Conflict(
                    "Only empty buckets can be deleted. There are "
                    f"{len(tables)} tables in the bucket.",
                    code="buckets.deleteNotEmpty",
                )
            _refuse_shown(session, [table.id for table in tables])
            for table in tables:
                records.drop_table(session, table)
            records.drop_bucket(session, bucket_id)

        async with self._alone_in_buckets(scope, bucket_id):
            await self._change(scope, drop, None)

    # -- tables ----------------------------------------------------------------------------------

    async def list_tables(
        self, scope: StorageScope, bucket_id: str | None = None
    ) -> list[TableDetail]:
        def find(session: Session) -> list[TableDetail]:
            if bucket_id is not None:
                records.get_bucket(session, bucket_id)
            found = records.describe(session, records.tables(session, bucket_id))
            return [each.detail for each in found]

        return await self._look_up(scope, find)

    async def table(self, scope: StorageScope, table_id: str) -> TableDetail:
        return (await self._table(scope, table_id)).detail

    async def _table(self, scope: StorageScope, table_id: str) -> Known:
        known = self._details.table(names.space(scope), table_id)
        return known or await self._recall(
            scope, table_id, lambda session: records.get_known(session, scope.project, table_id)
        )

    async def create_table(
        self,
        scope: StorageScope,
        table_id: str,
        columns: Sequence[str],
        *,
        primary_key: Sequence[str] = (),
        definitions: Sequence[ColumnDefinition] = (),
        distribution_key: Sequence[str] = (),
        display_name: str | None = None,
    ) -> TableDetail:
        parsed = names.table_id(table_id)
        checked = names.column_names(columns)
        if not checked:
            raise InvalidInput(
                "A table needs at least one column.",
                path="columns",
                code="storage.tables.validation.noColumns",
            )
        key = checked_key(primary_key, checked, code=NO_KEY_COLUMN)
        distributed = distributed_by(distribution_key, checked)
        defined = types.kept(checked, _plain(definitions, checked), key) if definitions else ()

        def create(session: Session) -> TableDetail:
            records.get_bucket(session, parsed.bucket)
            if records.find_readable(session, table_id) is not None:
                raise _exists(parsed)
            table = records.new_table(
                session,
                parsed,
                checked,
                key,
                self._clock(),
                definitions=defined,
                distribution_key=distributed,
                display_name=display_name,
            )
            records.create_data(session, session.table(table.stored_as), table.layout)
            return _detail(session, scope, table_id)

        async with self._alone_in_tables(scope, [table_id], *_shown_as(scope, display_name)):
            return await self._change(scope, create, [table_id])

    async def update_table(
        self, scope: StorageScope, table_id: str, *, display_name: str
    ) -> TableDetail:
        def update(session: Session) -> TableDetail:
            table = records.get_table(session, scope.project, table_id)
            records.check_table_name(session, names.TableId(table.bucket, table.name), display_name)
            records.save(session, replace(table, display_name=display_name), table)
            return _detail(session, scope, table_id)

        async with self._alone_in_tables(scope, [table_id], _display_names(scope)):
            return await self._change(scope, update, [table_id])

    async def swap_tables(
        self,
        scope: StorageScope,
        table_id: str,
        other_id: str,
        *,
        import_key: str | None = None,
    ) -> None:
        def swap(session: Session) -> None:
            keys = ImportKeys()
            if import_key is not None and keys.find(session, table_id, import_key) is not None:
                return
            one = records.get_table(session, scope.project, table_id)
            other = records.get_table(session, scope.project, other_id)
            records.swap(session, one, other)
            if import_key is not None:
                remember(session, table_id, import_key, self._clock())

        if table_id == other_id:
            raise InvalidInput(
                f'The table "{table_id}" cannot be swapped with itself.', path="targetTableId"
            )
        async with self._alone_in_tables(scope, [table_id, other_id]):
            self._keys.pop((names.space(scope), table_id), None)
            await self._change(scope, swap, [table_id, other_id])

    async def create_alias(self, scope: StorageScope, table_id: str, source_id: str) -> TableDetail:
        parsed = names.table_id(table_id)

        def create(session: Session) -> TableDetail:
            records.get_bucket(session, parsed.bucket)
            records.get_table(session, scope.project, source_id)
            if records.find_readable(session, table_id) is not None:
                raise _exists(parsed)
            records.new_alias(session, parsed, source_id, self._clock())
            return _detail(session, scope, table_id)

        async with self._alone_in_tables(scope, [table_id, source_id]):
            return await self._change(scope, create, [table_id])

    async def drop_table(self, scope: StorageScope, table_id: str) -> None:
        def drop(session: Session) -> None:
            table = records.get_readable(session, scope.project, table_id)
            _refuse_shown(session, [table_id])
            records.drop_table(session, table)

        async with self._alone_in_tables(scope, [table_id]):
            await self._change(scope, drop, [table_id])

    async def add_columns(
        self,
        scope: StorageScope,
        table_id: str,
        columns: Sequence[str],
        *,
        definitions: Sequence[ColumnDefinition] = (),
    ) -> TableDetail:
        try:
            added = names.column_names(columns)
        except InvalidInput as error:
            error.code = "storage.tables.invalidColumnName"
            raise
        defined = types.kept(added, _plain(definitions, added), ())

        def add(session: Session) -> TableDetail:
            table = records.get_table(session, scope.project, table_id)
            if taken := names.repeated_names([*table.columns, *added]):
                raise Conflict(
                    f'The table "{table_id}" already has the column "{taken[0]}".',
                    code="storage.tables.columnAlreadyExists",
                )
            if definitions and not table.definitions:
                raise InvalidInput(
                    f'The table "{table_id}" has no types, and its columns cannot have any.',
                    path="definitions",
                )
            changed = replace(table, columns=table.columns + added)
            if table.definitions:
                changed = replace(changed, definitions=table.definitions + defined)
            records.add_columns(session, changed, added)
            records.save(session, replace(changed, last_change=self._clock()))
            return _detail(session, scope, table_id)

        async with self._alone_in_tables(scope, [table_id]):
            return await self._change(scope, add, [table_id])

    async def drop_column(self, scope: StorageScope, table_id: str, column: str) -> TableDetail:
        def drop(session: Session) -> TableDetail:
            table = records.get_table(session, scope.project, table_id)
            if column not in table.columns:
                raise NotFound(
                    f'The column "{column}" was not found in the table "{table_id}"',
                    kind="column",
                    id=column,
                    code="storage.tables.columnNotExists",
                )
            if column in table.primary_key:
                raise InvalidInput(
                    f'The column "{column}" is part of the primary key and cannot be deleted.',
                    path="column",
                    code="storage.tables.cannotDeletePrimaryKeyColumn",
                )
            if len(table.columns) == 1:
                raise InvalidInput(
                    f'The column "{column}" is the last one and cannot be deleted.',
                    path="column",
                    code="storage.tables.cannotDeleteLastColumn",
                )
            target = session.table(table.stored_as)
            session.rows(f"ALTER TABLE {target} DROP COLUMN {quote(column)}")
            after = replace(
                table,
                columns=tuple(name for name in table.columns if name != column),
                definitions=tuple(each for each in table.definitions if each.name != column),
                last_change=self._clock(),
            )
            records.save(session, after)
            records.drop_column_metadata(session, table_id, column)
            return _detail(session, scope, table_id)

        async with self._alone_in_tables(scope, [table_id]):
            return await self._change(scope, drop, [table_id])

    async def set_primary_key(
        self, scope: StorageScope, table_id: str, columns: Sequence[str]
    ) -> TableDetail:
        def change(session: Session) -> TableDetail:
            table = records.get_table(session, scope.project, table_id)
            key = checked_key(columns, table.columns, code="storage.validation.primaryKey")
            source = session.table(table.stored_as)
            if key and records.has_duplicates(session, source, key):
                raise MappingFailed(DUPLICATES, code="storage.tables.primaryKeyDuplicateValues")
            if table.definitions and records.has_empty(session, table, key):
                raise MappingFailed(EMPTY, code="storage.validation.primaryKey")
            after = replace(
                table,
                primary_key=key,
                definitions=tuple(types.changed(each, each, key) for each in table.definitions),
                last_change=self._clock(),
            )
            records.save(session, after)
            return _detail(session, scope, table_id)

        async with self._alone_in_tables(scope, [table_id]):
            return await self._change(scope, change, [table_id])

    async def write_metadata(
        self,
        scope: StorageScope,
        object_id: str,
        provider: str,
        metadata: Mapping[str, str],
        columns: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        check(provider, metadata, columns or {})
        if object_id.count(".") == 1:
            if columns:
                raise no_column(object_id, next(iter(columns)))
            async with self._alone_in_metadata(scope, object_id):
                bucket = await self.bucket(scope, object_id)
                await self._change(
                    scope,
                    lambda s: say_of_bucket(s, bucket, provider, metadata, self._clock()),
                    [object_id],
                    lambda after: [after],
                )
            return
        async with self._alone_in_tables(scope, [object_id]):
            table = await self._table(scope, object_id)
            await self._change(
                scope,
                lambda s: say(s, table, provider, metadata, columns or {}, self._clock()),
                [object_id],
                lambda after: [after],
            )

    async def delete_metadata(
        self, scope: StorageScope, object_id: str, entry_id: str, *, column: str | None = None
    ) -> None:
        if object_id.count(".") == 1:
            if column is not None:
                raise no_column(object_id, column)
            async with self._alone_in_metadata(scope, object_id):
                await self.bucket(scope, object_id)
                await self._change(scope, lambda s: unsay(s, object_id, "", entry_id), [object_id])
            return
        async with self._alone_in_tables(scope, [object_id]):
            table = await self._table(scope, object_id)
            if column is not None and column not in table.table.columns:
                raise no_column(object_id, column)
            await self._change(
                scope, lambda s: unsay(s, object_id, column or "", entry_id), [object_id]
            )

    async def update_column(
        self, scope: StorageScope, table_id: str, definition: ColumnDefinition
    ) -> TableDetail:
        def change(session: Session) -> TableDetail:
            table = records.get_table(session, scope.project, table_id)
            if definition.name not in table.columns:
                raise no_column(table_id, definition.name)
            if not table.definitions:
                raise InvalidInput(
                    f'The table "{table_id}" has no types, and its columns cannot have any.',
                    path="definition",
                )
            after = replace(
                table,
                definitions=tuple(
                    types.changed(old, definition, table.primary_key)
                    if old.name == definition.name
                    else old
                    for old in table.definitions
                ),
                last_change=self._clock(),
            )
            records.change_columns(session, after, table.definitions)
            records.save(session, after)
            return _detail(session, scope, table_id)

        async with self._alone_in_tables(scope, [table_id]):
            return await self._change(scope, change, [table_id])

    # -- snapshots -------------------------------------------------------------------------------

    async def create_snapshot(
        self,
        scope: StorageScope,
        table_id: str,
        *,
        description: str = "",
        import_key: str | None = None,
    ) -> SnapshotDetail:
        def create(session: Session) -> SnapshotDetail:
            if import_key is not None and (
                found := snapshots.made_with(session, table_id, import_key)
            ):
                return found
            table = records.get_table(session, scope.project, table_id)
            return snapshots.create(session, scope, table, description, import_key, self._clock())

        async with self._alone_in_tables(scope, [table_id]):
            return await self._change(scope, create, ())

    async def list_snapshots(
        self, scope: StorageScope, table_id: str, *, limit: int = 20, offset: int = 0
    ) -> list[SnapshotDetail]:
        await self.table(scope, table_id)
        return await self._look_up(
            scope, lambda session: snapshots.of_table(session, table_id, limit, offset)
        )

    async def snapshot(self, scope: StorageScope, snapshot_id: str) -> SnapshotDetail:
        return await self._look_up(scope, lambda session: snapshots.get(session, snapshot_id))

    async def delete_snapshot(self, scope: StorageScope, snapshot_id: str) -> None:
        async with self._locks.hold(exclusive=[_snapshot_lock(scope, snapshot_id)]):
            await self._change(scope, lambda s: snapshots.delete(s, snapshot_id), ())

    async def restore_snapshot(
        self,
        scope: StorageScope,
        snapshot_id: str,
        table_id: str,
        *,
        display_name: str | None = None,
    ) -> TableDetail:
        parsed = names.table_id(table_id)

        def restore(session: Session) -> TableDetail:
            records.get_bucket(session, parsed.bucket)
            if records.find_readable(session, table_id) is not None:
                raise _exists(parsed)
            snapshots.restore(session, snapshot_id, parsed, display_name, self._clock)
            return _detail(session, scope, table_id)

        async with self._locks.hold(
            shared={_bucket_lock(scope, parsed.bucket), _snapshot_lock(scope, snapshot_id)},
            exclusive={_table_lock(scope, table_id), *_shown_as(scope, display_name)},
        ):
            return await self._change(scope, restore, [table_id])

    # -- rows ------------------------------------------------------------------------------------

    async def export(
        self, scope: StorageScope, table_id: str, options: ExportOptions, target: Path
    ) -> ExportResult:
        def copy(session: Session, known: Table | None) -> ExportResult:
            table = known or records.get_readable(session, scope.project, table_id)
            source = session.table(table.stored_as)
            is_text = table.definitions and options.file_type == "csv"
            text = types.as_text if is_text else quote
            select, parameters = conditions.selection(
                options, table.columns, source, table.comparable, text
            )
            if options.slice_bytes is not None:
                return _in_slices(session, select, parameters, options, target)
            with _export_file(target, options) as fd:
                statement = f"COPY ({select}) TO '/proc/self/fd/{fd}' ({_copy_options(options)})"
                count = session.value(statement, parameters)
                return ExportResult(rows=count, bytes=os.fstat(fd).st_size)

        known = self._details.table(names.space(scope), table_id)
        if known is not None:
            try:
                return await self._duck.run(
                    names.space(scope), partial(copy, known=known.table), "export"
                )
            except ApplicationError:
                # a change that came first may have left less than is known here
                if self._details.table(names.space(scope), table_id) is known:
                    raise
                await trio.to_thread.run_sync(partial(target.unlink, missing_ok=True))
        return await self._duck.run(names.space(scope), partial(copy, known=None), "export")

    async def preview(
        self, scope: StorageScope, table_id: str, options: ExportOptions
    ) -> tuple[tuple[str, ...], list[tuple[str | None, ...]]]:
        limit = _PREVIEW if options.limit is None else options.limit

        def read(session: Session) -> tuple[tuple[str, ...], list[tuple[str | None, ...]]]:
            table = records.get_readable(session, scope.project, table_id)
            source = session.table(table.stored_as)
            limited = replace(options, limit=limit)
            text = types.as_optional_text if table.definitions else quote
            rows = session.rows(
                *conditions.selection(limited, table.columns, source, table.comparable, text)
            )
            extra = (names.TIMESTAMP,) if options.include_internal_timestamp else ()
            return (options.columns or table.columns) + extra, rows

        return await self._look_up(scope, read)

    async def load(self, scope: StorageScope, loads: Sequence[TableLoad]) -> list[LoadResult]:
        for each in loads:
            names.table_id(each.table_id)

        known: dict[str, Known] = {}

        def all_of_them(session: Session, *, sequential: bool) -> tuple[list[LoadResult], _Changed]:
            changed = dict(known)
            results = [
                self._load(session, scope, each, loads, changed, sequential) for each in loads
            ]
            return results, changed

        loaded = [each.table_id for each in loads]
        shown = (name for load in loads for name in _shown_as(scope, load.display_name))
        async with self._alone_in_tables(scope, loaded, *shown):
            for table_id in loaded:
                found = self._details.table(names.space(scope), table_id)
                if found is not None:
                    known[table_id] = found
            for sequential in (False, True):
                work = partial(all_of_them, sequential=sequential)
                try:
                    results, _ = await self._change(scope, work, loaded, _loaded_tables)
                except ReadAgain:
                    continue
                except BaseException:
                    for table_id in loaded:  # whether their keys are stored is for the file to say
                        self._keys.pop((names.space(scope), table_id), None)
                    raise
                for load, result in zip(loads, results, strict=True):
                    if load.import_key is not None:
                        self._keys_of(scope, load.table_id).add(load.import_key, result)
                return results
        raise AssertionError("files are not read in parallel twice")

    def _load(
        self,
        session: Session,
        scope: StorageScope,
        load: TableLoad,
        loads: Sequence[TableLoad],
        changed: _Changed,
        sequential: bool,
    ) -> LoadResult:
        loader = Loader(
            session,
            scope.project,
            load,
            changed.get(load.table_id),
            self._keys_of(scope, load.table_id),
            self._clock,
            self._duck.scratch,
            sequential,
        )
        try:
            result, after = loader.run()
        except UserError as error:
            if len(loads) > 1:
                error.message = f'Table "{load.table_id}": {error.message}'
                error.args = (error.message,)
            raise
        if after is not None:
            changed[load.table_id] = after
        return result

    def _keys_of(self, scope: StorageScope, table_id: str) -> ImportKeys:
        if len(self._keys) >= _MOST_KEYS:
            self._keys.clear()
        return self._keys.setdefault((names.space(scope), table_id), ImportKeys())

    def typed(self, definition: ColumnDefinition) -> ColumnDefinition:
        return types.typed(definition)

    async def delete_rows(
        self, scope: StorageScope, table_id: str, where: DeleteWhere | None
    ) -> int:
        def delete(session: Session) -> int:
            table = records.get_table(session, scope.project, table_id)
            clause, parameters = conditions.where(
                where or DeleteWhere(), table.columns, table.comparable
            )
            source = session.table(table.stored_as)
            count = int(session.value(f"DELETE FROM {source}{clause}", parameters))
            after = records.measured(session, table)
            records.save(session, replace(after, last_change=self._clock()))
            return count

        async with self._alone_in_tables(scope, [table_id]):
            return await self._change(scope, delete, [table_id])

    async def drop_branch(self, scope: StorageScope) -> None:
        """Remove all tables of a branch. Nothing may be reading or writing them."""
        space = names.space(scope)
        await self._duck.drop(space)
        self._details.forget(space, None)
        self._keys = {key: keys for key, keys in self._keys.items() if key[0] != space}

    # -- transactions and locks ------------------------------------------------------------------

    async def _look_up(self, scope: StorageScope, work: Callable[[Session], T]) -> T:
        return await self._duck.run(names.space(scope), work, "lookup")

    async def _recall(self, scope: StorageScope, object_id: str, work: Callable[[Session], D]) -> D:
        """What `work` finds out of a bucket or table, to be kept."""
        ticket = self._details.ask(names.space(scope), object_id)
        found = await self._look_up(scope, work)
        self._details.answer(names.space(scope), ticket, found)
        return found

    async def _change(
        self,
        scope: StorageScope,
        work: Callable[[Session], T],
        changed: Collection[str] | None,
        news: Callable[[T], Iterable[BucketDetail | Known]] | None = None,
    ) -> T:
        """Call `work` and commit. `changed` are tables and buckets; None is all of the project.

        `news` takes from what `work` returned what all that has changed is then.
        """

        def and_commit(session: Session) -> T:
            result = work(session)
            session.commit()
            return result

        try:
            result = await self._duck.run(names.space(scope), and_commit, "load")
        except BaseException:
            self._details.forget(names.space(scope), changed)
            raise
        if news is None:
            self._details.forget(names.space(scope), changed)
        else:
            self._details.learn(names.space(scope), news(result))
        return result

    def _alone_in_tables(
        self, scope: StorageScope, table_ids: Sequence[str], *more: str
    ) -> AbstractAsyncContextManager[None]:
        """Nobody else writes to these tables, nor drops their buckets, nor has the locks `more`."""
        return self._locks.hold(
            shared={_bucket_lock(scope, each.rpartition(".")[0]) for each in table_ids},
            exclusive={*more, *(_table_lock(scope, each) for each in table_ids)},
        )

    def _alone_in_metadata(
        self, scope: StorageScope, bucket_id: str
    ) -> AbstractAsyncContextManager[None]:
        """Nobody else says anything of this bucket, nor drops it."""
        bucket = _bucket_lock(scope, bucket_id)
        return self._locks.hold(shared=[bucket], exclusive=[f"{bucket} metadata"])

    def _alone_in_buckets(
        self, scope: StorageScope, bucket_id: str, *more: str
    ) -> AbstractAsyncContextManager[None]:
        """Nobody else writes to anything in this bucket, nor has the locks `more`."""
        return self._locks.hold(exclusive=[_bucket_lock(scope, bucket_id), *more])


def _exists(table: names.TableId) -> Conflict:
    return Conflict(
        f'The table "{table.name}" already exists in the bucket "{table.bucket}".',
        code="storage.tables.alreadyExists",
    )


def _refuse_shown(session: Session, table_ids: Sequence[str]) -> None:
    """Refuse to drop tables that aliases show which would stay."""
    if aliases := records.aliases_of(session, table_ids):
        raise Conflict(
            f"There are aliases that show it: {names.quoted(aliases)}. Delete those first."
        )


def _bucket_lock(scope: StorageScope, bucket_id: str) -> str:
    return f"{names.space(scope)} bucket {bucket_id}"


def _table_lock(scope: StorageScope, table_id: str) -> str:
    # in DuckDB names that differ only in case are the same
    return f"{names.space(scope)} table {table_id.lower()}"


def _snapshot_lock(scope: StorageScope, snapshot_id: str) -> str:
    return f"{names.space(scope)} snapshot {snapshot_id}"


def _display_names(scope: StorageScope) -> str:
    """A lock for who gives display names, of which no two may be the same."""
    return f"{names.space(scope)} display names"


def _shown_as(scope: StorageScope, display_name: str | None) -> tuple[str, ...]:
    """The lock that a new table with this display name needs, if it has one of its own."""
    return () if display_name is None else (_display_names(scope),)


def _detail(session: Session, scope: StorageScope, table_id: str) -> TableDetail:
    return records.get_known(session, scope.project, table_id).detail


def _plain(
    definitions: Sequence[ColumnDefinition], columns: Sequence[str]
) -> list[ColumnDefinition]:
    """Definitions by the names that columns have here, all of them of `columns`."""
    plain = [replace(each, name=webalize(each.name)) for each in definitions]
    for each in plain:
        if each.name not in columns:
            raise InvalidInput(f'There is no column "{each.name}" to define.', path="definitions")
    return plain


def _loaded_tables(result: tuple[list[LoadResult], _Changed]) -> Iterable[Known]:
    return result[1].values()


def _in_slices(
    session: Session,
    select: str,
    parameters: Sequence[object],
    options: ExportOptions,
    target: Path,
) -> ExportResult:
    """Write an export into several files of a new folder, or into one that is empty."""
    with new_folder(target):
        fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            statement = f"COPY ({select}) TO '/proc/self/fd/{fd}' ({_copy_options(options)})"
            count = session.value(statement, parameters)
        finally:
            os.close(fd)
        sizes = [path.stat().st_size for path in target.iterdir()]
        if not sizes:
            (target / "data_0.csv").touch()
    return ExportResult(rows=count, bytes=sum(sizes))


@contextmanager
def _export_file(target: Path, options: ExportOptions) -> Generator[int, None, None]:
    """A descriptor of the file that an export goes to; Parquet is one slice in the folder `target`."""
    with ExitStack() as stack:
        if options.file_type == "parquet":
            stack.enter_context(new_folder(target))
            target /= "part.00000.parquet"
        yield stack.enter_context(new_file(target))


def _copy_options(options: ExportOptions) -> str:
    # a file that is there already must be neither replaced nor renamed by DuckDB
    where = (
        "USE_TMP_FILE false"
        if options.slice_bytes is None
        else f"FILE_SIZE_BYTES {options.slice_bytes:d}"
    )
    if options.file_type == "parquet":
        return f"FORMAT parquet, {where}"
    return (
        f"FORMAT csv, DELIMITER ',', QUOTE '\"', ESCAPE '\"', FORCE_QUOTE *, {where}, "
        f"HEADER {'true' if options.header else 'false'}, "
        f"COMPRESSION {'gzip' if options.gzip else 'none'}"
    )
