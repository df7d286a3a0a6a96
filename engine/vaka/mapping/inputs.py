"""Input mapping: tables and files from Storage into a job's folder (mapping.md sections 4 and 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vaka.datafolder import JobFolder
from vaka.hooks import MappingBackend
from vaka.mapping.results import Report, TableResult
from vaka.models.document import Format
from vaka.models.mapping import InputFile, InputTable
from vaka.models.state import FileState, JobState, TableState
from vaka.models.storage import StorageScope

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
) -> InputTables:
    """Export the tables to `in/tables`, each with its manifest. The folder must be fresh.

    Args:
        items: what is asked for, in mapping order.
        state: where adaptive reads go on.
        max_bytes: the project's `components.max_export_size_bytes`.
        dev_mapping_allowed: whether the component may read buckets of development branches.

    Raises:
        MappingFailed: a table cannot be read as asked.
    """
    raise NotImplementedError


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
) -> InputFiles:
    """Download the files to `in/files`, each with its manifest. The folder must be fresh.

    Raises:
        MappingFailed: the files cannot be listed as asked.
        ApplicationError: a file that was listed cannot be downloaded.
    """
    raise NotImplementedError
