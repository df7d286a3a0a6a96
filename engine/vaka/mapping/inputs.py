"""Input mapping: tables and files from Storage into a job's folder (mapping.md sections 4 and 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import trio

from vaka.datafolder import JobFolder, Kind, printable, split_name
from vaka.errors import ApplicationError, InvalidInput, MappingFailed, UserError
from vaka.hooks import MappingBackend
from vaka.mapping._parallel import in_parallel
from vaka.mapping.branches import (
    PRODUCTION,
    FoundFiles,
    FoundTable,
    JobBranch,
    find_files,
    find_table,
    foreign_buckets,
)
from vaka.mapping.filters import export_options, file_query
from vaka.mapping.results import Report, TableResult
from vaka.models.document import Format
from vaka.models.manifest import dumps_manifest, input_file_manifest, input_table_manifest
from vaka.models.mapping import InputFile, InputTable
from vaka.models.state import FileState, JobState, TableState, file_key
from vaka.models.storage import (
    ExportOptions,
    ExportResult,
    FileDetail,
    StorageScope,
    TableDetail,
)

MAX_EXPORT_BYTES = 100_000_000_000
"""Largest table that is read, unless the project says otherwise."""
PARALLEL = 4
"""Tables or files that are read at a time."""


@dataclass(frozen=True, slots=True)
class InputTables:
    """What `stage_tables` did."""

    tables: tuple[TableResult, ...] = ()
    """In mapping order."""
    state: tuple[TableState, ...] = ()
    """Replaces the stored list once the job has succeeded."""
    rows: int = 0
    bytes: int = 0
    """Written to the data folder."""


@dataclass(frozen=True, slots=True)
class InputFiles:
    """What `stage_files` did."""

    state: tuple[FileState, ...] = ()
    """Replaces the stored list once the job has succeeded."""
    files: int = 0
    bytes: int = 0


async def stage_tables(
    items: Sequence[InputTable],
    *,
    backend: MappingBackend,
    scope: StorageScope,
    folder: JobFolder,
    state: JobState,
    format: Format,  # noqa: A002 - of the manifests
    report: Report,
    max_bytes: int = MAX_EXPORT_BYTES,
    dev_mapping_allowed: bool = False,
    parallel: int = PARALLEL,
    branch: JobBranch = PRODUCTION,
) -> InputTables:
    """Export the tables to `in/tables`, each with its manifest.

    `items` are in mapping order, `state` says where adaptive reads go on, `max_bytes` is the project's
    `components.max_export_size_bytes`, and `dev_mapping_allowed` lets a component read buckets of
    development branches. `branch` is the one that the job runs in. The folder must be fresh.

    Raises:
        MappingFailed: a table cannot be read as asked.
    """
    if not items:
        return InputTables()
    await report("note", "debug", "Downloading source tables.", {})
    await report("note", "info", 'Using "local" table input staging.', {})
    scope = replace(scope, branch=None)
    now = datetime.now(UTC)
    # the details come first: what changes while a table is exported is new again next time
    found = await in_parallel(parallel, lambda _, item: _find(item, backend, scope, branch), items)
    for each in found:
        if each.note is not None:
            await report("note", "info", each.note, {})
    state = _resolved(state, items, found)
    items = [replace(item, source=each.detail.id) for item, each in zip(items, found, strict=True)]
    details = [each.detail for each in found]
    for detail in details:
        if not scope.rights.may_use(detail.bucket):
            raise MappingFailed(
                f'The token of the job has no right to read bucket "{detail.bucket}", which the input '
                f'table "{detail.id}" is in.'
            )
    _check_names([item.name for item in items])
    if not dev_mapping_allowed:
        await _refuse_foreign_buckets(backend, branch, found)
    for detail in details:
        _check_size(detail, max_bytes)
    options = [_options(item, state, now) for item in items]
    await report("note", "info", f"Processing {len(items)} local table exports.", {})
    last = {item.name: index for index, item in enumerate(items)}

    async def fetch(index: int, item: InputTable) -> ExportResult:
        if last[item.name] != index:  # a later item has the same name and would replace it
            return ExportResult(0, 0)
        result = await _export(backend, found[index].scope, folder, item, options[index], index)
        document = input_table_manifest(
            details[index], columns=item.columns, backend=backend.backend_name
        )
        await _write_manifest(folder, item.name, dumps_manifest(document, format), details[index])
        await report(
            "input.table",
            "info",
            f"Fetched table {item.source}.",
            {
                "table": item.source,
                "destination": item.name,
                "rows": result.rows,
                "bytes": result.bytes,
            },
        )
        return result

    results = await in_parallel(parallel, fetch, items)
    await report("note", "info", "All tables were fetched.", {})
    return InputTables(
        tables=tuple(map(TableResult.of, details)),
        state=tuple(
            TableState(item.source, _state_date(detail.last_import_date))
            for item, detail in zip(items, details, strict=True)
        ),
        rows=sum(result.rows for result in results),
        bytes=sum(result.bytes for result in results),
    )


def _check_names(names: Sequence[str]) -> None:
    """Refuse names that leave the folder, or of which one is a folder that another one is in."""
    taken = set(names)
    for name in names:
        try:
            parts = split_name(name)
        except InvalidInput as error:
            raise MappingFailed(error.message) from error
        for end in range(1, len(parts)):
            folder = "/".join(parts[:end])
            if folder in taken:
                raise MappingFailed(
                    f'Destination "{name}" lies in "{folder}", which is a table itself. '
                    "Rename one of them."
                )


async def _find(
    item: InputTable, backend: MappingBackend, scope: StorageScope, branch: JobBranch
) -> FoundTable:
    try:
        return await find_table(item, backend=backend, scope=scope, branch=branch)
    except UserError as error:
        raise _not_imported(error) from error


def _not_imported(error: UserError) -> MappingFailed:
    return MappingFailed(f"Cannot import data from Storage API: {error.message}")


def _resolved(
    state: JobState, items: Sequence[InputTable], found: Sequence[FoundTable]
) -> JobState:
    """The state with the ids of the tables that are really read."""
    ids = {item.source: each.detail.id for item, each in zip(items, found, strict=True)}
    return replace(
        state,
        input_tables=tuple(
            replace(entry, source=ids.get(entry.source, entry.source))
            for entry in state.input_tables
        ),
    )


async def _refuse_foreign_buckets(
    backend: MappingBackend, branch: JobBranch, found: Sequence[FoundTable]
) -> None:
    try:
        buckets = await foreign_buckets(found, backend=backend, branch=branch)
    except UserError as error:
        raise _not_imported(error) from error
    if buckets:
        raise MappingFailed(
            f'The buckets "{", ".join(buckets)}" come from a development branch and must not be '
            "used directly in input mapping."
        )


def _check_size(detail: TableDetail, limit: int) -> None:
    if detail.data_size_bytes is not None and detail.data_size_bytes > limit:
        raise MappingFailed(
            f'Table "{detail.id}" with size {detail.data_size_bytes} bytes exceeds the input '
            f"mapping limit of {limit} bytes. Please contact support to raise this limit"
        )


def _options(item: InputTable, state: JobState, now: datetime) -> ExportOptions:
    try:
        return export_options(item, state, now)
    except InvalidInput as error:
        raise _not_imported(error) from error


async def _export(
    backend: MappingBackend,
    scope: StorageScope,
    folder: JobFolder,
    item: InputTable,
    options: ExportOptions,
    index: int,
) -> ExportResult:
    target = await trio.to_thread.run_sync(folder.incoming, f"table-{index}")
    try:
        result = await backend.tables.export(scope, item.source, options, target)
    except UserError as error:
        raise _not_imported(error) from error
    await _place(folder, target, "tables", item.name)
    return result


async def _place(folder: JobFolder, incoming: Path, kind: Kind, name: str) -> None:
    try:
        await trio.to_thread.run_sync(folder.place, incoming, kind, name)
    except InvalidInput as error:
        raise MappingFailed(error.message) from error


async def _write_manifest(
    folder: JobFolder, name: str, document: bytes, detail: TableDetail
) -> None:
    try:
        await trio.to_thread.run_sync(folder.write_manifest, "tables", name, document)
    except OSError as error:
        raise ApplicationError(
            f"Failed to write manifest for table {detail.id} - {detail.name}."
        ) from error


def _state_date(moment: datetime | None) -> str:
    """A date that the next adaptive read begins at: exact, or it would see the same rows again."""
    if moment is None:
        return ""
    return moment.strftime(f"%Y-%m-%dT%H:%M:%S{'.%f' if moment.microsecond else ''}%z")


async def stage_files(
    items: Sequence[InputFile],
    *,
    backend: MappingBackend,
    scope: StorageScope,
    folder: JobFolder,
    state: JobState,
    format: Format,  # noqa: A002 - of the manifests
    report: Report,
    parallel: int = PARALLEL,
    branch: JobBranch = PRODUCTION,
) -> InputFiles:
    """Download the files to `in/files`, each with its manifest.

    `items` are in mapping order, `state` says where adaptive reads go on, and `branch` is the one that
    the job runs in. The folder must be fresh.

    Raises:
        MappingFailed: the files cannot be listed as asked.
        ApplicationError: a file that was listed cannot be downloaded.
    """
    if not items:
        return InputFiles()
    await report("note", "debug", "Downloading source files.", {})
    await report("note", "info", 'Using "local" file input staging.', {})
    scope = replace(scope, branch=None)
    now = datetime.now(UTC)
    newest = state.newest_files

    async def find(_: int, item: InputFile) -> tuple[FoundFiles, list[FileDetail]]:
        where = await _where(item, backend, scope, branch)
        # the tags as configured are what the state knows the item by, in every branch
        last = newest.get(file_key(item.state_tags))
        return where, await _list_files(where, backend, now, last)

    found = await in_parallel(parallel, find, items)
    entries: list[FileState] = []
    wanted: dict[tuple[str | None, int], _Wanted] = {}  # what several items find is fetched once
    for item, (where, listed) in zip(items, found, strict=True):
        if where.note is not None:
            await report("note", "info", where.note, {})
        for file in listed:
            key = where.scope.branch, file.id
            if key not in wanted or not item.overwrite:
                wanted[key] = _Wanted(item, where.scope, file)
        last = newest.get(file_key(item.state_tags))
        if listed:
            last = str(max(file.id for file in listed))
        if last is not None:
            entries.append(FileState(tuple(item.state_tags), last))
    download = partial(_download, backend, folder, format, report)
    fetched = await in_parallel(parallel, download, list(wanted.values()))
    await report("note", "info", "All files were fetched.", {})
    return InputFiles(
        state=tuple(entries), files=len(fetched), bytes=sum(file.size_bytes for file in fetched)
    )


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A file to be downloaded, and an item that found it: one that refuses to, if there is one."""

    item: InputFile
    scope: StorageScope
    file: FileDetail


async def _where(
    item: InputFile, backend: MappingBackend, scope: StorageScope, branch: JobBranch
) -> FoundFiles:
    try:
        return await find_files(item, backend=backend, scope=scope, branch=branch)
    except MappingFailed:
        raise
    except UserError as error:
        raise _not_imported(error) from error


async def _list_files(
    where: FoundFiles, backend: MappingBackend, now: datetime, last: str | None = None
) -> list[FileDetail]:
    try:
        query = file_query(where.item, last, run_id=where.scope.run_id, now=now)
        if not where.scope.rights.reads_all_files:
            query = replace(query, creator_token_id=where.scope.token_id)
        return await backend.files.list_files(where.scope, query)
    except UserError as error:
        raise _not_imported(error) from error


async def _download(
    backend: MappingBackend,
    folder: JobFolder,
    format: Format,  # noqa: A002
    report: Report,
    index: int,
    wanted: _Wanted,
) -> FileDetail:
    listed = wanted.file
    name = f"{listed.id}_{listed.name}"
    try:
        if not wanted.item.overwrite:
            raise InvalidInput("Overwrite cannot be turned off for local mapping.")
        if len(split_name(name)) != 1:
            raise InvalidInput("Its name is a path.")
        target = await trio.to_thread.run_sync(folder.incoming, f"file-{index}")
        file = await backend.files.download(wanted.scope, listed.id, target)
        await trio.to_thread.run_sync(folder.place, target, "files", name)
        document = dumps_manifest(input_file_manifest(file), format)
        await trio.to_thread.run_sync(folder.write_manifest, "files", name, document)
    except UserError as error:
        raise ApplicationError(
            f"Failed to download file {printable(listed.name)} ({listed.id}): {error.message}"
        ) from error
    await report(
        "input.file",
        "info",
        f'Fetched file "{printable(name)}".',
        {"file": file.id, "name": file.name, "bytes": file.size_bytes},
    )
    return file


async def tag_processed(
    items: Sequence[InputFile],
    *,
    backend: MappingBackend,
    scope: StorageScope,
    branch: JobBranch = PRODUCTION,
) -> None:
    """Put the `processed_tags` of each item on the files that it finds now.

    The items are listed anew, without adaptive state: files that arrived meanwhile are tagged too. A
    Storage that keeps branches apart gets no tags.

    Raises:
        MappingFailed: files cannot be listed or tagged.

    Source: mapping.md section 7.6.
    """
    if branch.is_kept_apart:
        return
    scope = replace(scope, branch=None)
    now = datetime.now(UTC)
    for item in items:
        if not item.processed_tags:
            continue
        where = await _where(item, backend, scope, branch)
        for file in await _list_files(where, backend, now):
            try:
                await backend.files.add_tags(scope, file.id, branch.tags(item.processed_tags))
            except UserError as error:
                raise MappingFailed(
                    f"Cannot tag file {printable(file.name)} ({file.id}): {error.message}"
                ) from error
