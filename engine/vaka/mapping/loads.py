"""Uploads, and loads with what belongs to them: how each is planned, done, and told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import trio

from vaka.datafolder import JobFolder, printable
from vaka.errors import ApplicationError, Conflict, InvalidInput, MappingFailed, NotFound, UserError
from vaka.hooks import MappingBackend
from vaka.mapping.branches import JobBranch, belongs_to_a_branch
from vaka.mapping.filters import rows_to_delete
from vaka.mapping.preparing import File, OutputContext, Table, import_key, listed, system_tags
from vaka.mapping.results import Report, TableResult
from vaka.mapping.slicing import not_sliced
from vaka.mapping.types import check_structure, definitions, definitions_in_metadata
from vaka.models.mapping import DESCRIPTION
from vaka.models.storage import (
    ColumnDefinition,
    DeleteWhere,
    FileUpload,
    LoadResult,
    MetadataChange,
    MetadataEntry,
    StorageScope,
    TableDetail,
    TableLoad,
)
from vaka.models.tree import text
from vaka.turns import beside

_SYSTEM = "system"
"""Provider of the metadata that say who made an object."""
_METADATA_COLUMNS = 100
"""Columns whose metadata are written in one call."""


@dataclass(slots=True)
class Loaded:
    """How it went with one table, or with all of a failed transaction."""

    result: TableResult | None = None
    refused: str | None = None
    """Why it was not even begun."""
    errors: list[str] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    said: Sequence[MetadataChange] = ()
    """What is to be said of the table in its metadata."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One load, decided but for its data."""

    table: Table
    load: TableLoad
    bucket_is_new: bool
    is_new: bool
    """Whether there is no such table yet."""


@dataclass(frozen=True, slots=True)
class Storage:
    """What every upload and load needs."""

    backend: MappingBackend
    scope: StorageScope
    folder: JobFolder
    context: OutputContext
    report: Report
    branch: JobBranch

    async def upload(self, file: File, tags: tuple[str, ...], key: str) -> int:
        """Store one file; return its id."""
        name, options = file.source.name, file.options
        upload = FileUpload(
            name=name,
            tags=tuple(dict.fromkeys(self.branch.tags((*options.tags, *tags)))),
            is_public=options.is_public,
            is_permanent=options.is_permanent,
            is_encrypted=options.is_encrypted,
            notify=options.notify,
        )
        with ExitStack() as stack:
            opened = await trio.to_thread.run_sync(
                stack.enter_context, self.folder.opened(file.kind, file.source)
            )
            kind = "file" if file.kind == "files" else "table file"
            try:
                stored = await self.backend.files.upload(
                    self.scope, upload, opened.paths[0], import_key=import_key(key, kind, name)
                )
            except UserError as error:
                raise MappingFailed(
                    f"Cannot upload file '{printable(name)}' to Storage API: {error.message}"
                ) from error
        await self.report(
            "output.file",
            "info",
            f'Stored file "{printable(name)}".',
            {"file": stored.id, "name": stored.name, "bytes": stored.size_bytes},
        )
        return stored.id

    async def check_buckets(self, tables: Sequence[Table]) -> set[str]:
        """Refuse to write into buckets without the right to, or from a branch into those of others.

        What is returned are those to `claim`.
        """
        unclaimed: set[str] = set()
        for table in tables:
            if not self.scope.rights.may_use(table.bucket, write=True):
                raise MappingFailed(
                    f'The token of the job has no right to write to bucket "{table.bucket}", which '
                    f'the output table "{table.destination}" is for.'
                )
        if not self.branch.prefixes:
            return unclaimed
        for bucket_id in dict.fromkeys(table.bucket for table in tables):
            try:
                bucket = await self.backend.tables.bucket(self.scope, bucket_id)
            except NotFound:
                unclaimed.add(bucket_id)
                continue
            try:
                self.branch.check_bucket(bucket)
            except MappingFailed:
                # a job that made it, and was interrupted before it could say so, comes again
                if belongs_to_a_branch(bucket.metadata) or await self.backend.tables.list_tables(
                    self.scope, bucket_id
                ):
                    raise
                unclaimed.add(bucket_id)
        return unclaimed

    async def claim(self, bucket_id: str) -> None:
        """Make a bucket, and say that it is the branch's, before there is anything in it.

        Else a repeated call would find its own tables in a bucket that is nobody's.
        """
        stage, _, name = bucket_id.partition(".")
        if not name.startswith("c-"):
            return  # only a load can make one of such a name
        tables = self.backend.tables
        with suppress(Conflict):
            await tables.create_bucket(self.scope, stage, name.removeprefix("c-"))
        await tables.write_metadata(self.scope, bucket_id, _SYSTEM, self._actor("createdBy"))

    async def plan(self, table: Table, *, failed: bool) -> Plan | None:
        """The load of a table, given what is there now; None when a failed job cannot have it."""
        bucket_id, _, name = table.destination.rpartition(".")
        before = await self._table(table.destination)
        bucket_is_new = before is None and not await self._has_bucket(bucket_id)
        data, columns = table.data, table.columns
        try:
            deletions = () if before is None else _deletions(before.id, data, self.branch)
            defined = self._definitions(table, before)
        except MappingFailed:
            if failed:
                return None
            raise
        warnings = list(table.warnings)
        treat_as_null = self.context.treat_values_as_null
        if before is None and not columns and treat_as_null is not None:
            treat_as_null = None
            warnings.append(f'Treating values as null for table "{name}" was skipped.')
        if before is not None and set(before.primary_key) != set(table.primary_key):
            warnings.append(
                f'Modifying primary key of table "{before.id}" from '
                f'"{", ".join(before.primary_key)}" to "{", ".join(table.primary_key)}".'
            )
        for warning in warnings:
            await self.report("note", "warn", warning, {})
        load = TableLoad(
            table_id=table.destination,
            paths=(),
            columns=columns,
            primary_key=table.primary_key,
            incremental=data["incremental"],
            deduplication=data.get("deduplication_strategy", "upsert"),
            delimiter=text(data["delimiter"]).replace("\\t", "\t"),
            enclosure=text(data["enclosure"]),
            ignored_lines=1 if columns and data.get("has_header") else 0,
            treat_values_as_null=treat_as_null,
            delete_where=deletions,
            import_key=table.key,
            definitions=defined,
            distribution_key=() if before is not None else table.distribution_key,
            staging_tags=self._staging_tags(data),
        )
        return Plan(table, load, bucket_is_new, before is None)

    def _definitions(
        self, table: Table, before: TableDetail | None
    ) -> tuple[ColumnDefinition, ...]:
        """Types of columns that the load is to know: a schema's, else those of new columns."""
        data, backend = table.data, self.backend.backend_name
        takes_types = before is None or before.is_typed
        if data["schema"]:
            if self.context.data_types is None:
                return ()
            wanted = definitions(data, backend)
            if takes_types:
                wanted = self._typed(table, wanted)
            if before is not None:
                check_structure(before, wanted)
            return wanted if takes_types else ()
        if before is None:
            takes_types = bool(
                self.context.types_in_metadata and data["columns"] and data["column_metadata"]
            )
        if not takes_types:
            return ()
        known = () if before is None else before.columns
        said = definitions_in_metadata(data, backend)
        return self._typed(table, [each for each in said if each.name not in known])

    def _typed(
        self, table: Table, columns: Sequence[ColumnDefinition]
    ) -> tuple[ColumnDefinition, ...]:
        try:
            return tuple(map(self.backend.tables.typed, columns))
        except InvalidInput as error:
            name = table.destination.rpartition(".")[2]
            raise MappingFailed(
                f'Cannot create table "{name}" definition in Storage API: {error.message}'
            ) from error

    def _staging_tags(self, data: Mapping[str, Any]) -> tuple[str, ...]:
        system = system_tags(self.context) if self.context.tags_staging else ()
        return tuple(dict.fromkeys((*map(text, data["tags"]), *system)))

    async def _table(self, table_id: str) -> TableDetail | None:
        try:
            return await self.backend.tables.table(self.scope, table_id)
        except NotFound:
            return None

    async def _has_bucket(self, bucket_id: str) -> bool:
        try:
            await self.backend.tables.bucket(self.scope, bucket_id)
        except NotFound:
            return False
        return True

    async def load(self, plans: Sequence[Plan]) -> list[Loaded]:
        """Load tables in one transaction: all land, or none; how it went with each."""
        outcome = [Loaded() for _ in plans]
        with ExitStack() as stack:
            loads: list[TableLoad] = []
            try:
                for plan, loaded in zip(plans, outcome, strict=True):
                    source = plan.table.source
                    await self.report(
                        "note", "info", f'Loading table "{printable(source.name)}"', {}
                    )
                    opened = await trio.to_thread.run_sync(
                        stack.enter_context, self.folder.opened("tables", source)
                    )
                    loaded.bytes = opened.size
                    if self.context.slices and (
                        warning := not_sliced(
                            source, has_manifest=source.manifest is not None, size=opened.size
                        )
                    ):
                        await self.report("note", "warn", warning, {})
                    loaded.said = await beside(plan.table.data, partial(self._metadata, plan))
                    said = tuple(loaded.said) if self.backend.says_with_loads else ()
                    loads.append(replace(plan.load, paths=opened.paths, metadata=said))
            except UserError as error:
                return [Loaded(errors=[_failure(plans, error)])]
            try:
                results = await self.backend.tables.load(self.scope, loads)
            except UserError as error:
                return [await self._unloaded(plans, error)]
        for plan, loaded, result in zip(plans, outcome, results, strict=True):
            await self._finish(plan, loaded, result)
        return outcome

    async def _unloaded(self, plans: Sequence[Plan], error: UserError) -> Loaded:
        """What to say of a load that has changed nothing."""
        if len(plans) > 1 or isinstance(error, MappingFailed):
            for plan in plans:
                if plan.is_new:
                    table_id = plan.load.table_id
                    await self.report(
                        "note", "warn", f'Failed to load table "{table_id}". Dropping table.', {}
                    )
            return Loaded(errors=[_failure(plans, error)])
        table_id = plans[0].load.table_id
        if isinstance(error, InvalidInput) and error.path.startswith("delete_where"):
            return Loaded(refused=_no_deletion(table_id, error))
        return Loaded(refused=f"{error.message} [{table_id}]")

    async def _finish(self, plan: Plan, loaded: Loaded, result: LoadResult) -> None:
        """Write metadata and tell: the data are stored, whatever goes wrong from here on."""
        table_id = plan.load.table_id
        for warning in result.warnings:
            await self.report("note", "warn", warning, {})
        loaded.rows = result.imported_rows
        try:
            detail = await self.backend.tables.table(self.scope, table_id)
            loaded.result = TableResult.of(detail, imported_rows=result.imported_rows)
            failures = await self._say(plan, loaded.said, detail, result)
        except UserError as error:
            failures = [_Refusal(error.message, table_id)]
        if failures:
            loaded.errors.append(_unsaid(table_id, failures))
        await self.report(
            "output.table",
            "info",
            f"Loaded table {table_id}.",
            {
                "table": table_id,
                "source": plan.table.source.name,
                "rows": result.imported_rows,
                "bytes": loaded.bytes,
                "total_rows": result.total_rows,
                "created": result.created,
                "repeated": result.repeated,
            },
        )

    def _metadata(self, plan: Plan) -> list[MetadataChange]:
        """Who made and changed the table, and what the author says of it and of its columns."""
        data, component = plan.table.data, self.context.component_id
        changes = [
            MetadataChange(_SYSTEM, self._actor("createdBy"), only_when_created=True),
            MetadataChange(_SYSTEM, self._actor("lastUpdatedBy")),
        ]
        own = _entries(data["metadata"]) | _texts(data.get("table_metadata", {}))
        own |= _description(data)
        if own:
            changes.append(MetadataChange(component, own))
        columns = {
            name: _entries(entries) for name, entries in data["column_metadata"].items() if entries
        }
        for column in data["schema"]:
            entries = _texts(column.get("metadata", {})) | _description(column)
            if entries:
                columns[text(column["name"])] = entries
        names = list(columns)
        changes += [
            MetadataChange(
                component,
                columns={name: columns[name] for name in names[start : start + _METADATA_COLUMNS]},
            )
            for start in range(0, len(names), _METADATA_COLUMNS)
        ]
        return changes

    async def _say(
        self,
        plan: Plan,
        changes: Sequence[MetadataChange],
        detail: TableDetail,
        result: LoadResult,
    ) -> list[_Refusal]:
        """Write what the load did not write itself; return what was refused."""
        created = self._actor("createdBy")
        refusals: list[_Refusal] = []
        if plan.bucket_is_new or result.repeated:
            bucket = await self.backend.tables.bucket(self.scope, detail.bucket)
            # after a repeated load nobody knows what it made, but what has no maker says so
            if not _says(bucket.metadata, created):
                refusals += await self._write(bucket.id, MetadataChange(_SYSTEM, created))
        if self.backend.says_with_loads and not result.repeated:
            refused = [(changes[index], message) for index, message in result.refused_metadata]
            return refusals + [_Refusal.of(detail.id, *each) for each in refused]
        is_new = (result.created or result.repeated) and not _says(detail.metadata, created)
        for change in changes:
            if is_new or not change.only_when_created:
                refusals += await self._write(detail.id, change)
        return refusals

    async def _write(self, object_id: str, change: MetadataChange) -> list[_Refusal]:
        try:
            await self.backend.tables.write_metadata(
                self.scope, object_id, change.provider, change.metadata, change.columns or None
            )
        except UserError as error:
            return [_Refusal.of(object_id, change, error.message)]
        return []

    def _actor(self, verb: str) -> dict[str, str]:
        """Metadata that name who acts."""
        context = self.context
        if not context.component_id:
            raise ApplicationError("Component Id must be set")
        named = {
            "component": context.component_id,
            "configuration": context.config_id,
            "configurationRow": context.row_id,
            "branch": self.branch.id,
        }
        return {f"KBC.{verb}.{kind}.id": value for kind, value in named.items() if value}


def _deletions(
    table_id: str, data: Mapping[str, Any], branch: JobBranch
) -> tuple[DeleteWhere, ...]:
    try:
        return rows_to_delete(data, datetime.now(UTC), in_branch=branch.prefixes)
    except InvalidInput as error:
        raise MappingFailed(_no_deletion(table_id, error)) from error


def _no_deletion(table_id: str, error: UserError) -> str:
    return f'Cannot delete rows from table "{table_id}" in Storage: {error.message}'


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Metadata that Storage did not take."""

    message: str
    id: str
    provider: str = ""
    columns: tuple[str, ...] = ()

    @classmethod
    def of(cls, object_id: str, change: MetadataChange, message: str) -> _Refusal:
        return cls(message, object_id, change.provider, tuple(change.columns))


def _unsaid(table_id: str, refusals: Sequence[_Refusal]) -> str:
    """What to say of a table whose data are stored, and not all that is said of it."""
    messages = ", ".join(dict.fromkeys(each.message for each in refusals))
    details = [
        {key: value for key, value in asdict(each).items() if value and key != "message"}
        for each in refusals
    ]
    return (
        f'Failed to update metadata for table "{table_id}": {messages} '
        f"({json.dumps(details, ensure_ascii=False)})"
    )


def _failure(plans: Sequence[Plan], error: UserError) -> str:
    ids = list(dict.fromkeys(plan.load.table_id for plan in plans))
    if len(ids) == 1:
        return f'Failed to load table "{ids[0]}": {error.message}'
    return (
        f"Failed to load tables {listed(ids)}, of which none was changed because atomic_output is "
        f"set: {error.message}"
    )


def _says(metadata: Sequence[MetadataEntry], keys: Mapping[str, str]) -> bool:
    """Whether an object has any of these keys from the system."""
    return any(entry.provider == _SYSTEM and entry.key in keys for entry in metadata)


def _entries(items: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {text(item["key"]): text(item.get("value")) for item in items}


def _texts(items: Mapping[str, Any]) -> dict[str, str]:
    return {key: text(value) for key, value in items.items()}


def _description(data: Mapping[str, Any]) -> dict[str, str]:
    description = text(data.get("description"))
    return {DESCRIPTION: description} if description else {}
