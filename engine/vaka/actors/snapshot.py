"""The snapshot actor: a debug job's data folder, photographed before a stage and after the last.

The folder is archived by one writer at a time into the engine's own area and streamed from there into
the project's files, so that a snapshot costs disk, never memory.

Source: runner.md section 7, mapping.md section 2.12, encryption.md section 8.3.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import trio

from vaka.actors.events import Entry, EventLog
from vaka.actors.services import Services
from vaka.actors.stages import DefinitionContext, JobContext, Stage
from vaka.datafolder import JobFolder
from vaka.datafolder.archives import Written, write_archive
from vaka.errors import InvalidInput
from vaka.masking import HIDDEN, Masker
from vaka.models.catalog import Json
from vaka.models.document import Format, dump_document, load_document
from vaka.models.job import ArchiveFormat
from vaka.models.storage import FileUpload, StorageScope

DOCUMENTS = frozenset(
    {
        "config.json",
        "config.yml",
        "in/state.json",
        "in/state.yml",
        "out/state.json",
        "out/state.yml",
        "out/result.json",
        "out/usage.json",
        "out/usage.yml",
    }
)
"""Documents that the runner writes and reads, which may hold decrypted values."""
_TOLD = 3


async def keep_snapshot(
    services: Services,
    folder: JobFolder,
    scope: StorageScope,
    job: JobContext,
    unit: DefinitionContext,
    stage: Stage | None,
    component: str,
    events: EventLog,
) -> None:
    """Store the folder as it is before `stage`, or after the last one when that is None."""
    packing = job.spec.snapshot_format or services.config.snapshot_format
    name = f"stage_{'output' if stage is None else stage.index}.{packing}"
    target = folder.engine / name
    row, job_id = unit.row_id or "", job.record.id
    tags = (
        "debug",
        component,
        f"RowId:{row}",
        f"JobId:{job_id}",
        f"jobId:{job_id}",
        f"rowId:{row}",
        *(() if stage is None else (_without_tag(stage.reference),)),
    )
    try:
        written = await trio.to_thread.run_sync(
            partial(_write, services, folder, target, packing, events.masker)
        )
        stored = await services.storage.files.upload(
            scope,
            FileUpload(name=name, tags=tags),
            target,
            import_key=f"job-{job_id}-{job.record.attempt}-{unit.index}-{name}",
        )
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_forget, target)
    left_out = written.left_out
    await events.write(
        Entry(
            "snapshot.stored",
            "warn" if left_out.count else "info",
            _told(name, written),
            definition=unit.index,
            stage=None if stage is None else stage.index,
            component=component,
            data={
                "name": name,
                "row": row,
                "file_id": stored.id,
                "bytes": stored.size_bytes,
                "entries": written.entries,
                "left_out": left_out.count,
                "left_out_paths": [f"{path}: {reason}" for path, reason in left_out.named],
            },
        )
    )


def _write(
    services: Services, folder: JobFolder, target: Path, packing: ArchiveFormat, masker: Masker
) -> Written:
    _forget(target)  # of an engine that was killed while it wrote
    free = shutil.disk_usage(target.parent).free - services.config.disk_stop_bytes
    return write_archive(
        folder.data,
        target,
        format=packing,
        rewrite=lambda path, data: hide_secrets(path, data, masker),
        rewritten=DOCUMENTS,
        proceed=trio.from_thread.check_cancelled,  # a job that is stopped does not wait for it
        limit=min(services.config.snapshot_bytes, max(0, free // 2)),
    )


def _forget(target: Path) -> None:
    with suppress(FileNotFoundError):
        target.unlink()


def _told(name: str, written: Written) -> str:
    left_out = written.left_out
    if not left_out.count:
        return f"Stored snapshot {name}."
    shown = "; ".join(f"{path} ({reason})" for path, reason in left_out.named[:_TOLD])
    more = f" and {left_out.count - _TOLD} more" if left_out.count > _TOLD else ""
    return (
        f"Stored snapshot {name} without {left_out.count} of the folder's entries: {shown}{more}."
    )


def _without_tag(reference: str) -> str:
    """An image's name; the port of a registry stays."""
    name = reference.partition("@")[0]
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name


def hide_secrets(path: str, data: bytes, masker: Masker) -> bytes:
    """A document without secrets: those under marked keys, and known values wherever they stand.

    It stays valid JSON or YAML when it was. What is neither is masked as text.
    """
    form: Format = "yaml" if path.endswith(".yml") else "json"
    try:
        document = load_document(data, form)
        written = dump_document(_hidden(document, masker), form)
    except InvalidInput:
        written = data
    return masker.text(written.decode("utf-8", "replace")).encode()


def _hidden(value: Json, masker: Masker, *, is_marked: bool = False) -> Json:
    match value:
        case Mapping():
            return {
                masker.text(key): _hidden(item, masker, is_marked=key.startswith("#"))
                for key, item in value.items()
            }
        case list() | tuple():
            return [_hidden(item, masker, is_marked=is_marked) for item in value]
        case None | "":
            return value
        case _ if is_marked:
            return HIDDEN
        case str():
            return masker.text(value)
        case bool():
            return value
        case _:  # a number that holds one is no number any more
            shown = masker.text(str(value))
            return value if shown == str(value) else shown
