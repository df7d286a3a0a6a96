"""Tables: every operation is one transaction of `project.Project`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from vaka.errors import InvalidInput
from vaka.hooks import TableBackend
from vaka.models.storage import (
    BucketDetail,
    ColumnDefinition,
    DeleteWhere,
    ExportOptions,
    ExportResult,
    LoadResult,
    StorageScope,
    TableDetail,
    TableLoad,
)
from vaka_sqlite.database import Database
from vaka_sqlite.loading import load_table
from vaka_sqlite.project import Project

T = TypeVar("T")

PREVIEW_ROWS = 100


class SqliteTables(TableBackend):
    """The tables of all projects."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_buckets(self, scope: StorageScope) -> list[BucketDetail]:
        return await self._read(scope, lambda project: project.buckets())

    async def bucket(self, scope: StorageScope, bucket_id: str) -> BucketDetail:
        return await self._read(scope, lambda project: project.bucket(bucket_id))

    async def create_bucket(
        self,
        scope: StorageScope,
        stage: str,
        name: str,
        *,
        description: str = "",
        display_name: str | None = None,  # noqa: ARG002 - not given to who has none
        color: str | None = None,  # noqa: ARG002
    ) -> BucketDetail:
        return await self._write(
            scope, lambda project: project.create_bucket(stage, name, description)
        )

    async def drop_bucket(
        self, scope: StorageScope, bucket_id: str, *, force: bool = False
    ) -> None:
        await self._write(scope, lambda project: project.drop_bucket(bucket_id, force=force))

    async def list_tables(
        self, scope: StorageScope, bucket_id: str | None = None
    ) -> list[TableDetail]:
        return await self._read(scope, lambda project: project.tables(bucket_id))

    async def table(self, scope: StorageScope, table_id: str) -> TableDetail:
        return await self._read(scope, lambda project: project.detail(table_id))

    async def create_table(
        self,
        scope: StorageScope,
        table_id: str,
        columns: Sequence[str],
        *,
        primary_key: Sequence[str] = (),
        definitions: Sequence[ColumnDefinition] = (),
        distribution_key: Sequence[str] = (),  # noqa: ARG002 - rows are in one place here
        display_name: str | None = None,  # noqa: ARG002 - not given to who has none
    ) -> TableDetail:
        for definition in definitions:
            self.typed(definition)  # refuses: there are no types here

        def work(project: Project) -> TableDetail:
            project.create_table(table_id, columns, primary_key)
            return project.detail(table_id)

        return await self._write(scope, work)

    async def drop_table(self, scope: StorageScope, table_id: str) -> None:
        await self._write(scope, lambda project: project.drop_table(table_id))

    async def export(
        self, scope: StorageScope, table_id: str, options: ExportOptions, target: Path
    ) -> ExportResult:
        if options.file_type != "csv":
            raise InvalidInput(
                f'Tables here are exported as "csv", not as "{options.file_type}".',
                path="file_type",
            )
        return await self._read(scope, lambda project: project.export(table_id, options, target))

    async def preview(
        self, scope: StorageScope, table_id: str, options: ExportOptions
    ) -> tuple[tuple[str, ...], list[tuple[str | None, ...]]]:
        def work(project: Project) -> tuple[tuple[str, ...], list[tuple[str | None, ...]]]:
            limit = PREVIEW_ROWS if options.limit is None else options.limit
            columns, rows = project.select(table_id, options, limit)
            return columns, list(rows)

        return await self._read(scope, work)

    async def load(self, scope: StorageScope, loads: Sequence[TableLoad]) -> list[LoadResult]:
        for definition in (each for load in loads for each in load.definitions):
            self.typed(definition)
        return await self._write(
            scope, lambda project: [load_table(project, each) for each in loads]
        )

    async def delete_rows(
        self, scope: StorageScope, table_id: str, where: DeleteWhere | None
    ) -> int:
        return await self._write(scope, lambda project: project.delete_rows(table_id, where))

    async def add_columns(
        self,
        scope: StorageScope,
        table_id: str,
        columns: Sequence[str],
        *,
        definitions: Sequence[ColumnDefinition] = (),
    ) -> TableDetail:
        for definition in definitions:
            self.typed(definition)

        def work(project: Project) -> TableDetail:
            project.add_columns(project.table(table_id), columns)
            return project.detail(table_id)

        return await self._write(scope, work)

    async def drop_column(self, scope: StorageScope, table_id: str, column: str) -> TableDetail:
        def work(project: Project) -> TableDetail:
            project.drop_column(project.table(table_id), column)
            return project.detail(table_id)

        return await self._write(scope, work)

    async def set_primary_key(
        self, scope: StorageScope, table_id: str, columns: Sequence[str]
    ) -> TableDetail:
        def work(project: Project) -> TableDetail:
            project.set_primary_key(project.table(table_id), columns)
            return project.detail(table_id)

        return await self._write(scope, work)

    async def write_metadata(
        self,
        scope: StorageScope,
        object_id: str,
        provider: str,
        metadata: Mapping[str, str],
        columns: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        await self._write(
            scope,
            lambda project: project.write_metadata(object_id, provider, metadata, columns or {}),
        )

    async def _read(self, scope: StorageScope, work: Callable[[Project], T]) -> T:
        return await self._database.read(_in_project(scope, work))

    async def _write(self, scope: StorageScope, work: Callable[[Project], T]) -> T:
        return await self._database.write(_in_project(scope, work))


def _in_project(
    scope: StorageScope, work: Callable[[Project], T]
) -> Callable[[sqlite3.Connection], T]:
    return lambda connection: work(Project(connection, scope.project))
