"""What a definition's outputs are to become, before anything of them is stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vaka.datafolder import Source, Sources, printable
from vaka.errors import ApplicationError, InvalidInput, MappingFailed
from vaka.hooks import MappingBackend
from vaka.mapping.branches import JobBranch
from vaka.mapping.manifests import (
    check_columns,
    destination,
    key_columns,
    merge,
    with_sanitised_columns,
)
from vaka.mapping.slicing import check_slicing
from vaka.mapping.types import with_types
from vaka.models.component import DataTypesSupport
from vaka.models.document import Format
from vaka.models.manifest import SUFFIX, parse_file_manifest, parse_table_manifest
from vaka.models.mapping import FileOptions, OutputFile, OutputTable
from vaka.models.tree import text


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
class File:
    """A file to be stored."""

    source: Source
    options: FileOptions
    kind: Literal["files", "tables"] = "files"
    """The folder it is in."""


@dataclass(frozen=True, slots=True)
class Table:
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


def prepare_tables(
    found: Sources,
    items: Sequence[OutputTable],
    context: OutputContext,
    branch: JobBranch,
    key: str,
    *,
    failed: bool,
) -> list[Table]:
    """Every table to be loaded, in the order of their sources and of the mapping."""
    if found.orphans:
        raise MappingFailed(f"Found orphaned table manifest: {listed(found.orphans)}")
    by_source: dict[str, list[OutputTable]] = {}
    for item in items:
        if not item.is_direct_grant:
            by_source.setdefault(item.source, []).append(item)
    missing = by_source.keys() - {source.name for source in found.entries}
    if missing and not failed:
        raise MappingFailed(
            f"Table sources not found: {listed(name for name in by_source if name in missing)}"
        )
    tables: list[Table] = []
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


def listed(names: Iterable[str]) -> str:
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
) -> Table:
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
    table = Table(
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


def prepare_files(
    found: Sources, items: Sequence[OutputFile], context: OutputContext
) -> list[File]:
    """Every file to be stored; of several items for one source the last one counts."""
    names = {source.name for source in found.entries}
    mapped = {item.source: item.options for item in items}
    for name in mapped:
        if name not in names:
            raise MappingFailed(f"File '{printable(name)}' not found.")
    if found.orphans:
        orphans = ", ".join(f"'{printable(name)}'" for name in found.orphans)
        raise MappingFailed(f"Found orphaned file manifest: {orphans}")
    files: list[File] = []
    for source in found.entries:
        options = mapped.get(source.name)
        if options is None and source.manifest is not None:
            path = f"/data/out/files/{printable(source.name)}{SUFFIX}"
            options = parse_file_manifest(source.manifest, format=context.format, path=path)
        files.append(File(source, options or FileOptions()))
    return files


def prepare_table_files(found: Sources, options: FileOptions) -> list[File]:
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
        raise MappingFailed(f"Found orphaned table manifest: {listed(orphans)}")
    return [
        File(source, options, "tables") for source in found.entries if source.name not in folders
    ]


def no_atomic_output(backend: MappingBackend) -> InvalidInput:
    """What is wrong when all tables of a job are to land together, and cannot."""
    return InvalidInput(
        f'The Storage "{backend.backend_name}" cannot load several tables in one transaction, which '
        "atomic_output asks for. Leave it out, or use a Storage that can.",
        path="runtime.atomic_output",
    )


def system_tags(context: OutputContext) -> tuple[str, ...]:
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
