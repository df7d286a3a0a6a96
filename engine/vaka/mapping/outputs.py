"""Output mapping: what a component left in its folder into Storage (mapping.md sections 6 and 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vaka.datafolder import JobFolder
from vaka.hooks import MappingBackend
from vaka.mapping.results import Report, TableResult
from vaka.models.document import Format
from vaka.models.mapping import InputFile, OutputFile, OutputTable
from vaka.models.storage import StorageScope

PARALLEL = 4
"""Tables that are loaded at a time."""


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
    system_tags: bool = False,
    parallel: int = PARALLEL,
) -> Outputs:
    """Store what is in `out/files` and `out/tables`. No container may run any more.

    Everything is checked before anything is stored. Safe to repeat with the same `key` and folder:
    what has landed is skipped.

    Args:
        tables: the mapping's items.
        files: the mapping's items.
        key: names the job and its definition; each load and upload has a key made from it.
        input_files: those with `processed_tags` get them once everything is stored.
        failed: the job has failed, so store only tables with `write_always`.
        atomic: load all tables in one transaction.
        system_tags: put the tags of mapping.md section 7.4 on files.

    Raises:
        MappingFailed: outputs are not what mapping and manifests say; no table was loaded.
        InvalidInput: the same, for a manifest or something in the folder that cannot be taken.
    """
    raise NotImplementedError
