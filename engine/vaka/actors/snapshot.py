"""The snapshot actor: a debug job's data folder, photographed before a stage and after the last.

The folder is archived by one writer at a time into the engine's own area and streamed from there into
the project's files, so that a snapshot costs disk, never memory.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import trio

from vaka.actors.events import Entry, EventLog
from vaka.actors.services import Services
from vaka.actors.stages import DefinitionContext, JobContext, Stage
from vaka.datafolder import JobFolder
from vaka.datafolder.archives import write_zip
from vaka.masking import Masker
from vaka.models.storage import FileUpload, StorageScope

MASKED = frozenset(
    {
        "config.json",
        "config.yml",
        "in/state.json",
        "in/state.yml",
        "out/state.json",
        "out/state.yml",
    }
)
"""Documents of the runner's own that hold decrypted values (runner.md section 7)."""


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
    name = "stage_output.zip" if stage is None else f"stage_{stage.index}.zip"
    target = folder.engine / name
    left_out = await trio.to_thread.run_sync(partial(_write, folder, target, events.masker))
    row, job_id = unit.row_id or "", job.record.id
    tags = (
        "debug",
        component,
        f"RowId:{row}",
        f"JobId:{job_id}",
        f"jobId:{job_id}",
        f"rowId:{row}",
        *(() if stage is None else (stage.reference.rpartition(":")[0],)),
    )
    stored = await services.storage.files.upload(
        scope,
        FileUpload(name=name, tags=tags),
        target,
        import_key=f"job-{job_id}-{job.record.attempt}-{unit.index}-{name}",
    )
    await trio.to_thread.run_sync(target.unlink)
    await events.write(
        Entry(
            "snapshot.stored",
            "info",
            f"Stored snapshot {name}.",
            definition=unit.index,
            stage=None if stage is None else stage.index,
            component=component,
            data={"file_id": stored.id, "bytes": stored.size_bytes, "left_out": left_out[:100]},
        )
    )


def _write(folder: JobFolder, target: Path, masker: Masker) -> list[str]:
    return write_zip(
        folder.data,
        target,
        rewrite=lambda data: masker.text(data.decode("utf-8", "replace")).encode(),
        rewritten=MASKED,
    )
