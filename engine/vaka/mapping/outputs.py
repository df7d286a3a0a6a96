"""Output mapping: what a component left in its folder into Storage (mapping.md sections 6 and 7).

Everything is checked before anything is stored; then files are stored, then tables. What creates the
bucket and the table, changes the key, deletes rows and loads is one transaction of the backend, with a
key that makes it count once. So a repeated call, after any crash, ends where an undisturbed one does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

import trio

from vaka.datafolder import JobFolder, Source, Sources, printable
from vaka.errors import (
    ApplicationError,
    Conflict,
    InvalidInput,
    MappingFailed,
    NotFound,
    UserError,
)
from vaka.hooks import MappingBackend
from vaka.mapping._parallel import in_parallel
from vaka.mapping.branches import PRODUCTION, JobBranch, belongs_to_a_branch
from vaka.mapping.filters import rows_to_delete
from vaka.mapping.inputs import tag_processed
from vaka.mapping.manifests import (
    check_columns,
    destination,
    key_columns,
    merge,
    with_sanitised_columns,
)
from vaka.mapping.results import Report, TableResult
from vaka.mapping.slicing import check_slicing, not_sliced
from vaka.mapping.types import (
    check_structure,
    definitions,
    definitions_in_metadata,
    with_types,
)
from vaka.models.component import DataTypesSupport
from vaka.models.document import Format
from vaka.models.manifest import SUFFIX, parse_file_manifest, parse_table_manifest
from vaka.models.mapping import (
    DESCRIPTION,
    FileOptions,
    InputFile,
    OutputFile,
    OutputTable,
)
from vaka.models.storage import (
    ColumnDefinition,
    DeleteWhere,
    FileUpload,
    LoadResult,
    MetadataEntry,
    StorageScope,
    TableDetail,
    TableLoad,
)
from vaka.models.tree import text

PARALLEL = 4
"""Tables that are loaded, and files that are stored, at a time."""
_SYSTEM = "system"
"""Provider of the metadata that say who made an object."""
_METADATA_COLUMNS = 100
"""Columns whose metadata are written in one call."""


@dataclass(frozen=True, slots=True)
class OutputContext:
    """On whose behalf outputs are stored."""

    component_id: str
    config_id: str | None = None
    row_id: str | None = None
    run_id: str | None = None
    default_bucket: str | None = None
    """Bucket id for tables that name none: the configuration's `default_bucket`, or the component's
    (`ComponentDefinition.default_bucket_id`)."""
    treat_values_as_null: tuple[str, ...] | None = None
    format: Format = "json"
    """Of the manifests."""
    data_types: DataTypesSupport | None = None
    """What types of columns are worth (`effective_support`); None: the project knows none."""
    types_in_metadata: bool = False
    """Whether the metadata of columns make a new table typed, where no schema does."""
    tags_staging: bool = False
    """Whether the files that tables travel in carry the system tags."""
    slices: bool = False
    """Whether what mapping.md section 6.15 says of slicing holds; nothing is really cut."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What `store` did."""

    tables: tuple[TableResult, ...] = ()
    """Tables that were loaded, in the order of their sources."""
    files: tuple[int, ...] = ()
    """Ids of the files that were stored."""
    errors: tuple[str, ...] = ()
    """Why tables could not be loaded, one line each; the job then fails with
    `Failed to process output mapping: …`."""
    rows: int = 0
    bytes: int = 0
    """Read from the data folder."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file to be stored."""

    source: Source
    options: FileOptions
    kind: Literal["files", "tables"] = "files"
    """The folder it is in."""


@dataclass(frozen=True, slots=True)
class _Table:
    """A table to be loaded: where from, where to, and all that holds for it."""

    source: Source
    destination: str
    data: Mapping[str, Any]
    primary_key: tuple[str, ...]
    key: str
    warnings: tuple[str, ...]
    distribution_key: tuple[str, ...]

    @property
    def bucket(self) -> str:
        """Id of the bucket that it goes to."""
        return self.destination.rpartition(".")[0]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the fields in the data, or none when the data have a header row."""
        schema = tuple(text(column["name"]) for column in self.data["schema"])
        return schema or tuple(map(text, self.data["columns"]))


@dataclass(slots=True)
class _Loaded:
    """How it went with one table, or with all of a failed transaction."""

    result: TableResult | None = None
    refused: str | None = None
    """Why it was not even begun."""
    errors: list[str] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0


async def store(
    tables: Sequence[OutputTable],
    files: Sequence[OutputFile],
    *,
    backend: MappingBackend,
    scope: StorageScope,
    folder: JobFolder,
    context: OutputContext,
    key: str,
    report: Report,
    input_files: Sequence[InputFile] = (),
    failed: bool = False,
    atomic: bool = False,
    table_files: FileOptions | None = None,
    parallel: int = PARALLEL,
    branch: JobBranch = PRODUCTION,
) -> Outputs:
    """Store what is in `out/files` and `out/tables`. No container may run any more.

    `tables` and `files` are the mapping's items. Safe to repeat with the same `key`, which names the
    job and its definition, and the same folder: what has landed is skipped. With `atomic` all tables
    are loaded in one transaction. With `failed`, for a job that has failed, only tables with
    `write_always` are stored. With `table_files` nothing becomes a table: what is in `out/tables` is
    stored as files, with these options. The `input_files` get their `processed_tags` once everything
    is stored. `branch` is the one that the job runs in; its objects are its own, in whatever way its
    Storage keeps branches.

    Raises:
        MappingFailed: outputs are not what mapping and manifests say, or a file cannot be stored, and
            no table was loaded; or Storage refused to begin a load, and others may have been loaded.
        InvalidInput: outputs are not what they may be, for a manifest or something in the folder that
            cannot be taken; or `atomic` is asked of a backend that cannot do it.
    """
    if atomic and not backend.loads_together:
        raise no_atomic_output(backend)
    await report("note", "debug", "Storing results.", {})
    await report("note", "debug", "Uploading output tables and files.", {})
    if context.default_bucket:
        await report("note", "debug", f"Default bucket {context.default_bucket}", {})
    scope = branch.scope(scope)
    storage = _Storage(backend, scope, folder, context, report, branch)
    found = await trio.to_thread.run_sync(folder.sources, "tables")
    prepared: list[_Table] = []
    uploads: list[_File] = []
    if table_files is None:
        prepared = _prepare_tables(found, tables, context, branch, key, failed=failed)
    elif not failed:
        uploads = _prepare_table_files(found, table_files)
    if not failed:
        found = await trio.to_thread.run_sync(folder.sources, "files")
        uploads = [*_prepare_files(found, files, context), *uploads]
    unclaimed = await storage.check_buckets(prepared)
    planned = await in_parallel(
        parallel, lambda _, table: storage.plan(table, failed=failed), prepared
    )
    plans = [plan for plan in planned if plan is not None]
    for bucket_id in unclaimed & {plan.table.bucket for plan in plans}:
        await storage.claim(bucket_id)
    tags = _system_tags(context) if uploads else ()
    stored = await in_parallel(parallel, lambda _, file: storage.upload(file, tags, key), uploads)
    if atomic:
        loaded = await storage.load(plans) if plans else []
    else:
        loaded = await _load_each(storage, plans, parallel)
    errors = tuple(error for each in loaded for error in each.errors)
    refused = [each.refused for each in loaded if each.refused is not None]
    if refused:
        raise MappingFailed("\n".join([*refused, *errors]))
    if not failed and not errors:
        await tag_processed(input_files, backend=backend, scope=scope, branch=branch)
    return Outputs(
        tables=tuple(each.result for each in loaded if each.result is not None),
        files=tuple(stored),
        errors=errors,
        rows=sum(each.rows for each in loaded),
        bytes=sum(each.bytes for each in loaded),
    )


async def _load_each(storage: _Storage, plans: Sequence[_Plan], parallel: int) -> list[_Loaded]:
    """Load tables by themselves, those of one destination one after the other."""
    loaded: dict[int, _Loaded] = {}
    groups: dict[str, list[int]] = {}
    for index, plan in enumerate(plans):
        groups.setdefault(plan.load.table_id, []).append(index)

    async def load_in_turn(_: int, group: list[int]) -> None:
        for index in group:
            (loaded[index],) = await storage.load([plans[index]])

    await in_parallel(parallel, load_in_turn, list(groups.values()))
    return [loaded[index] for index in range(len(plans))]


# -- what is to be stored ------------------------------------------------------------------------


def _prepare_tables(
    found: Sources,
    items: Sequence[OutputTable],
    context: OutputContext,
    branch: JobBranch,
    key: str,
    *,
    failed: bool,
) -> list[_Table]:
    """Every table to be loaded, in the order of their sources and of the mapping."""
    if found.orphans:
        raise MappingFailed(f"Found orphaned table manifest: {_listed(found.orphans)}")
    by_source: dict[str, list[OutputTable]] = {}
    for item in items:
        if not item.is_direct_grant:
            by_source.setdefault(item.source, []).append(item)
    missing = by_source.keys() - {source.name for source in found.entries}
    if missing and not failed:
        raise MappingFailed(
            f"Table sources not found: {_listed(name for name in by_source if name in missing)}"
        )
    tables: list[_Table] = []
    keys = _Keys(key)
    for source in found.entries:
        manifest = _table_manifest(source, context.format)
        joined: Sequence[OutputTable | None] = by_source.get(source.name) or [None]
        for each in joined:
            try:
                if context.slices:
                    check_slicing(source.name, joined)
                table = _prepare_table(source, manifest, each, context, branch, keys)
            except MappingFailed:
                if not failed:
                    raise
                continue
            if not failed or table.data["write_always"]:
                tables.append(table)
    return tables


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f'"{printable(name)}"' for name in names)


def _table_manifest(source: Source, format: Format) -> dict[str, Any] | None:  # noqa: A002
    if source.manifest is None:
        return None
    path = f"/data/out/tables/{printable(source.name)}{SUFFIX}"
    return parse_table_manifest(source.manifest, format=format, path=path)


def _prepare_table(
    source: Source,
    manifest: Mapping[str, Any] | None,
    item: OutputTable | None,
    context: OutputContext,
    branch: JobBranch,
    keys: _Keys,
) -> _Table:
    renamed: dict[str, str] = {}
    warnings: list[str] = []
    data = merge(
        source.name,
        None if manifest is None else with_sanitised_columns(manifest, renamed),
        None if item is None else with_sanitised_columns(item.data, renamed),
    )
    warnings += [
        f'Column name "{printable(old)}" was webalized to "{new}"' for old, new in renamed.items()
    ]
    target, warning = destination(
        source.name,
        None if item is None else item.destination,
        None if manifest is None else text(manifest.get("destination")),
        context.default_bucket,
    )
    target = branch.table(target)
    if warning is not None:
        warnings.append(warning)
    key, distribution_key = data["primary_key"], data["distribution_key"]
    if data["schema"]:
        key = [column["name"] for column in data["schema"] if column["primary_key"]]
        distribution_key = [
            column["name"] for column in data["schema"] if column["distribution_key"]
        ]
    primary_key = key_columns(key, warnings)
    distribution_key = key_columns(distribution_key, warnings)
    check_columns(source.name, data)
    if context.data_types is not None:
        data = with_types(data, context.data_types)
    table = _Table(
        source,
        target,
        data,
        primary_key,
        keys.next(source.name, target),
        tuple(warnings),
        distribution_key,
    )
    if source.is_folder and not table.columns:
        raise MappingFailed(
            f'Sliced file "{printable(source.name)}" columns specification missing.'
        )
    return table


class _Keys:
    """Import keys: the same for the same outputs of the same job, and different for each of them."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._count: dict[tuple[str, ...], int] = {}

    def next(self, *names: str) -> str:
        count = self._count.get(names, 0)
        self._count[names] = count + 1
        return import_key(self._prefix, *names, str(count))


def import_key(prefix: str, *names: str) -> str:
    """A key of bounded length for what `names` tell apart within `prefix`."""
    digest = hashlib.sha256("\0".join(names).encode()).hexdigest()
    return f"{prefix}-{digest[:32]}"


def _prepare_files(
    found: Sources, items: Sequence[OutputFile], context: OutputContext
) -> list[_File]:
    """Every file to be stored; of several items for one source the last one counts."""
    names = {source.name for source in found.entries}
    mapped = {item.source: item.options for item in items}
    for name in mapped:
        if name not in names:
            raise MappingFailed(f"File '{printable(name)}' not found.")
    if found.orphans:
        orphans = ", ".join(f"'{printable(name)}'" for name in found.orphans)
        raise MappingFailed(f"Found orphaned file manifest: {orphans}")
    files: list[_File] = []
    for source in found.entries:
        options = mapped.get(source.name)
        if options is None and source.manifest is not None:
            path = f"/data/out/files/{printable(source.name)}{SUFFIX}"
            options = parse_file_manifest(source.manifest, format=context.format, path=path)
        files.append(_File(source, options or FileOptions()))
    return files


def _prepare_table_files(found: Sources, options: FileOptions) -> list[_File]:
    """Every table that is to be a file. A sliced one is not, and its manifest counts as an orphan."""
    folders = {source.name for source in found.entries if source.is_folder}
    orphans = [
        *found.orphans,
        *(
            f"{source.name}{SUFFIX}"
            for source in found.entries
            if source.is_folder and source.manifest is not None
        ),
    ]
    if orphans:
        raise MappingFailed(f"Found orphaned table manifest: {_listed(orphans)}")
    return [
        _File(source, options, "tables") for source in found.entries if source.name not in folders
    ]


def no_atomic_output(backend: MappingBackend) -> InvalidInput:
    """What is wrong when all tables of a job are to land together, and cannot."""
    return InvalidInput(
        f'The Storage "{backend.backend_name}" cannot load several tables in one transaction, which '
        "atomic_output asks for. Leave it out, or use a Storage that can.",
        path="runtime.atomic_output",
    )


def _system_tags(context: OutputContext) -> tuple[str, ...]:
    if not context.component_id:
        raise ApplicationError("Component Id must be set")
    tags = [
        f"componentId: {context.component_id}",
        f"configurationId: {context.config_id or ''}",
    ]
    if context.row_id:
        tags.append(f"configurationRowId: {context.row_id}")
    tags.append(f"runId: {context.run_id or ''}")
    return tuple(tags)


# -- storing -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Plan:
    """One load, decided but for its data."""

    table: _Table
    load: TableLoad
    bucket_is_new: bool
    is_new: bool
    """Whether there is no such table yet."""


@dataclass(frozen=True, slots=True)
class _Storage:
    """What every upload and load needs."""

    backend: MappingBackend
    scope: StorageScope
    folder: JobFolder
    context: OutputContext
    report: Report
    branch: JobBranch

    async def upload(self, file: _File, tags: tuple[str, ...], key: str) -> int:
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

    async def check_buckets(self, tables: Sequence[_Table]) -> set[str]:
        """Refuse to write from a branch into buckets that are not its own; name those to `claim`."""
        unclaimed: set[str] = set()
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

    async def plan(self, table: _Table, *, failed: bool) -> _Plan | None:
        """The load of a table, given what is there now; None when a failed job cannot have it."""
        bucket_id, _, name = table.destination.rpartition(".")
        before = await self._table(table.destination)
        bucket_is_new = before is None and not await self._has_bucket(bucket_id)
        data, columns = table.data, table.columns
        try:
            deletions = () if before is None else _deletions(before.id, data)
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
        return _Plan(table, load, bucket_is_new, before is None)

    def _definitions(
        self, table: _Table, before: TableDetail | None
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
        self, table: _Table, columns: Sequence[ColumnDefinition]
    ) -> tuple[ColumnDefinition, ...]:
        try:
            return tuple(map(self.backend.tables.typed, columns))
        except InvalidInput as error:
            name = table.destination.rpartition(".")[2]
            raise MappingFailed(
                f'Cannot create table "{name}" definition in Storage API: {error.message}'
            ) from error

    def _staging_tags(self, data: Mapping[str, Any]) -> tuple[str, ...]:
        system = _system_tags(self.context) if self.context.tags_staging else ()
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

    async def load(self, plans: Sequence[_Plan]) -> list[_Loaded]:
        """Load tables in one transaction: all land, or none; how it went with each."""
        outcome = [_Loaded() for _ in plans]
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
                    loads.append(replace(plan.load, paths=opened.paths))
            except UserError as error:
                return [_Loaded(errors=[_failure(plans, error)])]
            try:
                results = await self.backend.tables.load(self.scope, loads)
            except UserError as error:
                return [await self._unloaded(plans, error)]
        for plan, loaded, result in zip(plans, outcome, results, strict=True):
            await self._finish(plan, loaded, result)
        return outcome

    async def _unloaded(self, plans: Sequence[_Plan], error: UserError) -> _Loaded:
        """What to say of a load that has changed nothing."""
        if len(plans) > 1 or isinstance(error, MappingFailed):
            for plan in plans:
                if plan.is_new:
                    table_id = plan.load.table_id
                    await self.report(
                        "note", "warn", f'Failed to load table "{table_id}". Dropping table.', {}
                    )
            return _Loaded(errors=[_failure(plans, error)])
        table_id = plans[0].load.table_id
        if isinstance(error, InvalidInput) and error.path.startswith("delete_where"):
            return _Loaded(refused=_no_deletion(table_id, error))
        return _Loaded(refused=f"{error.message} [{table_id}]")

    async def _finish(self, plan: _Plan, loaded: _Loaded, result: LoadResult) -> None:
        """Write metadata and tell: the data are stored, whatever goes wrong from here on."""
        table_id = plan.load.table_id
        for warning in result.warnings:
            await self.report("note", "warn", warning, {})
        loaded.rows = result.imported_rows
        try:
            detail = await self.backend.tables.table(self.scope, table_id)
            loaded.result = TableResult.of(detail, imported_rows=result.imported_rows)
            failures = await self._write_metadata(plan, detail, result)
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

    async def _write_metadata(
        self, plan: _Plan, detail: TableDetail, result: LoadResult
    ) -> list[_Refusal]:
        """Say who made and changed what, and what the author says of it; return what was refused."""
        tables, data = self.backend.tables, plan.table.data
        bucket = await tables.bucket(self.scope, detail.bucket)
        component = self.context.component_id
        created, updated = self._actor("createdBy"), self._actor("lastUpdatedBy")
        writes: list[tuple[str, str, dict[str, str], dict[str, dict[str, str]] | None]] = []
        # after a repeated load nobody knows any more what it made, but what has no maker says so
        if (plan.bucket_is_new or result.repeated) and not _says(bucket.metadata, created):
            writes.append((bucket.id, _SYSTEM, created, None))
        is_new = (result.created or result.repeated) and not _says(detail.metadata, created)
        writes.append((detail.id, _SYSTEM, {**created, **updated} if is_new else updated, None))
        own = _entries(data["metadata"]) | _texts(data.get("table_metadata", {}))
        own |= _description(data)
        if own:
            writes.append((detail.id, component, own, None))
        columns = {
            name: _entries(entries) for name, entries in data["column_metadata"].items() if entries
        }
        for column in data["schema"]:
            entries = _texts(column.get("metadata", {})) | _description(column)
            if entries:
                columns[text(column["name"])] = entries
        names = list(columns)
        writes += [
            (
                detail.id,
                component,
                {},
                {name: columns[name] for name in names[start : start + _METADATA_COLUMNS]},
            )
            for start in range(0, len(names), _METADATA_COLUMNS)
        ]
        failures: list[_Refusal] = []
        for object_id, provider, metadata, by_column in writes:
            try:
                await tables.write_metadata(self.scope, object_id, provider, metadata, by_column)
            except UserError as error:
                failures.append(
                    _Refusal(error.message, object_id, provider, tuple(by_column or ()))
                )
        return failures

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


def _deletions(table_id: str, data: Mapping[str, Any]) -> tuple[DeleteWhere, ...]:
    try:
        return rows_to_delete(data, datetime.now(UTC))
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


def _failure(plans: Sequence[_Plan], error: UserError) -> str:
    ids = list(dict.fromkeys(plan.load.table_id for plan in plans))
    if len(ids) == 1:
        return f'Failed to load table "{ids[0]}": {error.message}'
    return (
        f"Failed to load tables {_listed(ids)}, of which none was changed because atomic_output is "
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
