"""Operations on tables that move their rows: create, import, export, drop."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import trio

from vaka.errors import Conflict, NotFound, UserError
from vaka.models.operation import Done, Transfer
from vaka.models.storage import (
    ExportOptions,
    FileDetail,
    FileUpload,
    LoadResult,
    TableDetail,
    TableLoad,
)
from vaka.operations._work import Work, is_packed
from vaka.operations.selection import export_options, texts, words

SLICE_BYTES: Final = 16 << 20
"""Of an export's slices, where it has several."""
MOST_SLICES: Final = 1_000


async def create(work: Work) -> Done:
    """`tableCreate`: a new table of a file's header and rows, or of a snapshot (section 7.3).

    `source.fileId`, and in `params` what an import takes, `primaryKey` and `displayName`; or
    `source.snapshotId` and `displayName`.
    """
    params = _params(work)
    if "snapshotId" in work.operation.params["source"]:
        return await _restore(work, params)
    await work.storage.tables.bucket(work.scope, work.table_id.rpartition(".")[0])
    shown = params.get("displayName") if work.storage.has_display_names else None
    load = TableLoad(
        table_id=work.table_id,
        paths=(),
        columns=words(params.get("columns"), "columns"),
        primary_key=words(params.get("primaryKey"), "primaryKey"),
        display_name=None if not shown else str(shown),
        only_new=True,
        import_key=work.import_key,
    )
    _, transfer = await _load(work, load, params)
    made = await work.storage.tables.table(work.scope, work.table_id)
    bucket = await work.storage.tables.bucket(work.scope, made.bucket)
    return Done(table=made, bucket=bucket, transfer=transfer)


async def _restore(work: Work, params: Mapping[str, Any]) -> Done:
    """Make the table of a snapshot."""
    tables, snapshot = work.storage.tables, str(work.operation.params["source"]["snapshotId"])
    try:
        made = await tables.restore_snapshot(
            work.scope, snapshot, work.table_id, display_name=params.get("displayName")
        )
    except Conflict:
        if not work.is_repeated:
            raise
        made = await tables.table(work.scope, work.table_id)
    return Done(table=made, bucket=await tables.bucket(work.scope, made.bucket))


async def load(work: Work) -> Done:
    """`tableImport`: a file's rows into a table (storage-api.md section 7.6).

    `source.fileId`, and in `params` `incremental`, `columns`, `withoutHeaders`, `ignoredLinesCount`,
    `treatValuesAsNull`, `delimiter`, `enclosure` and `escapedBy`.
    """
    params = _params(work)
    before = await work.storage.tables.table(work.scope, work.table_id)
    columns = words(params.get("columns"), "columns")
    if not columns and params.get("withoutHeaders"):
        columns = before.columns
    nulls = params.get("treatValuesAsNull")
    wanted = TableLoad(
        table_id=work.table_id,
        paths=(),
        columns=columns,
        incremental=bool(params.get("incremental")),
        ignored_lines=int(params.get("ignoredLinesCount") or 0),
        treat_values_as_null=None if nulls is None else texts(nulls, "treatValuesAsNull"),
        create=False,
        import_key=work.import_key,
    )
    result, transfer = await _load(work, wanted, params, before)
    after = await work.storage.tables.table(work.scope, work.table_id)
    return Done(import_results(result, after), transfer=transfer)


def import_results(result: LoadResult, table: TableDetail) -> dict[str, Any]:
    """What a client is told of an import; `table` is as the import left it."""
    return {
        "transaction": None,
        "warnings": [{"message": each} for each in result.warnings],
        "importedColumns": list(table.columns),
        "newColumns": list(result.new_columns),
        "totalRowsCount": result.total_rows,
        "importedRowsCount": result.imported_rows,
        "totalDataSizeBytes": table.data_size_bytes or 0,
        "timers": [],
    }


async def _load(
    work: Work, load: TableLoad, params: Mapping[str, Any], before: TableDetail | None = None
) -> tuple[LoadResult, Transfer]:
    """Load the file that the operation names."""
    file = await _source(work)
    columns = load.columns
    if not columns and file.is_sliced:
        if before is None:
            raise UserError(
                "A sliced file has no header: give the names of its columns.",
                code="storage.tables.validation.noColumns",
            )
        columns = before.columns
    async with work.storage.files.reading(work.scope, file.id) as paths:
        packed = [await is_packed(path) for path in paths[:1]]
        escaped_by = str(params.get("escapedBy") or "")
        (result,) = await work.storage.tables.load(
            work.scope,
            [
                replace(
                    load,
                    paths=tuple(paths),
                    columns=columns,
                    delimiter=str(params.get("delimiter") or ",").replace("\\t", "\t"),
                    enclosure=str(params.get("enclosure", "" if escaped_by else '"')),
                    escaped_by=escaped_by,
                )
            ],
        )
    return result, Transfer(in_compressed=any(packed), in_bytes=file.size_bytes)


async def _source(work: Work) -> FileDetail:
    """The file that the operation reads."""
    source = work.operation.params["source"]
    return await work.storage.files.file(work.scope, int(source["fileId"]))


async def export(work: Work) -> Done:
    """`tableExport`: rows of a table into a file (storage-api.md section 7.8).

    The parameters are those of `export_options`. The file is sliced and has no header, because
    clients put one before it in any case. The same export of an unchanged table gives the file that
    is there already, to the token that made it.
    """
    options = export_options(work.operation.params, now=work.operation.created)
    table = await work.storage.tables.table(work.scope, work.table_id)
    key = _cache_key(work, options, table)
    known = await _exported(work, key)
    if known is not None:
        return Done({"file": {"id": known.id}, "cacheHit": True})
    ending = ".csv.gz" if options.gzip else ".csv"
    target = work.folder / f"slice{ending}"
    wanted = replace(options, slice_bytes=_slice_bytes(options, table))
    await work.storage.tables.export(work.scope, work.table_id, wanted, target)
    file = await work.storage.files.upload(
        work.scope,
        FileUpload(name=f"{work.table_id}{ending}", is_sliced=True, of_table=True),
        await trio.to_thread.run_sync(_slices, target),
        import_key=work.import_key,
        move=True,
    )
    return Done(
        {"file": {"id": file.id}, "cacheHit": False},
        transfer=Transfer(out_compressed=options.gzip, out_bytes=file.size_bytes),
        cache_key=key,
    )


def _slice_bytes(options: ExportOptions, table: TableDetail) -> int | None:
    """How large the slices of an export are to be; None for all in one.

    The published Python client reads a slice into memory and copies it line by line. Up to 32 MiB it
    fetches it by one request, and it needs a quarter less CPU for all of a large table.
    """
    size = table.data_size_bytes or 0
    if options.gzip or options.order_by or size < SLICE_BYTES:
        return None
    return max(SLICE_BYTES, size // MOST_SLICES)


def _slices(target: Path) -> list[Path]:
    if not target.is_dir():
        return [target]
    return sorted(target.iterdir(), key=lambda path: (len(path.name), path.name))


def _cache_key(work: Work, options: ExportOptions, table: TableDetail) -> str:
    """Equal for exports of the same rows, in the same form, by the same token."""
    scope = work.scope
    parts = (
        scope.branch,
        scope.token_id,
        table.id,
        table.created,
        table.last_change_date,
        table.rows_count,
        table.columns,
        asdict(options),
    )
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


async def _exported(work: Work, key: str) -> FileDetail | None:
    """The file of the same export, if it is there still."""
    earlier = await work.store.cached_operation(work.operation.project, key)
    if earlier is None or earlier.results is None:
        return None
    try:
        return await work.storage.files.file(work.scope, earlier.results.value["file"]["id"])
    except NotFound:
        return None


async def drop(work: Work) -> Done:
    """`tableDrop`."""
    try:
        await work.storage.tables.drop_table(work.scope, work.table_id)
    except NotFound:
        if not work.is_repeated:
            raise
    return Done()


def _params(work: Work) -> Mapping[str, Any]:
    params: Mapping[str, Any] = work.operation.params.get("params") or {}
    return params


HANDLERS = {
    "tableCreate": create,
    "tableImport": load,
    "tableExport": export,
    "tableDrop": drop,
}
