"""Output mapping: what a component left in its folder into Storage (mapping.md sections 6 and 7).

Everything is checked before anything is stored; then files are stored, then tables. What creates the
bucket and the table, changes the key, deletes rows and loads is one transaction of the backend, with a
key that makes it count once. So a repeated call, after any crash, ends where an undisturbed one does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import trio

from vaka.datafolder import JobFolder
from vaka.errors import MappingFailed
from vaka.hooks import MappingBackend
from vaka.mapping._parallel import in_parallel
from vaka.mapping.branches import PRODUCTION, JobBranch
from vaka.mapping.inputs import tag_processed
from vaka.mapping.loads import Loaded, Plan, Storage
from vaka.mapping.preparing import (
    File,
    OutputContext,
    Table,
    no_atomic_output,
    prepare_files,
    prepare_table_files,
    prepare_tables,
    system_tags,
)
from vaka.mapping.results import Report, TableResult
from vaka.models.mapping import FileOptions, InputFile, OutputFile, OutputTable
from vaka.models.storage import StorageScope
from vaka.turns import in_turn

PARALLEL = 4
"""Tables that are loaded, and files that are stored, at a time."""


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
    storage = Storage(backend, scope, folder, context, report, branch)
    found = await trio.to_thread.run_sync(folder.sources, "tables")
    prepared: list[Table] = []
    uploads: list[File] = []
    # in threads: manifests may take seconds to be checked, and others are to be served meanwhile
    if table_files is None:
        prepared = await in_turn(
            partial(prepare_tables, found, tables, context, branch, key, failed=failed)
        )
    elif not failed:
        uploads = await in_turn(partial(prepare_table_files, found, table_files))
    if not failed:
        found = await trio.to_thread.run_sync(folder.sources, "files")
        others = await in_turn(partial(prepare_files, found, files, context))
        uploads = [*others, *uploads]
    unclaimed = await storage.check_buckets(prepared)
    planned = await in_parallel(
        parallel, lambda _, table: storage.plan(table, failed=failed), prepared
    )
    plans = [plan for plan in planned if plan is not None]
    for bucket_id in unclaimed & {plan.table.bucket for plan in plans}:
        await storage.claim(bucket_id)
    tags = system_tags(context) if uploads else ()
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


async def _load_each(storage: Storage, plans: Sequence[Plan], parallel: int) -> list[Loaded]:
    """Load tables by themselves, those of one destination one after the other."""
    loaded: dict[int, Loaded] = {}
    groups: dict[str, list[int]] = {}
    for index, plan in enumerate(plans):
        groups.setdefault(plan.load.table_id, []).append(index)

    async def load_in_turn(_: int, group: list[int]) -> None:
        for index in group:
            (loaded[index],) = await storage.load([plans[index]])

    await in_parallel(parallel, load_in_turn, list(groups.values()))
    return [loaded[index] for index in range(len(plans))]
