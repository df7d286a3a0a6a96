"""Manifests: those that components find beside their inputs, and those they leave beside outputs.

The keys, their order and their defaults are those of mapping.md section 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import cast

from vaka.errors import InvalidInput
from vaka.models.catalog import Json
from vaka.models.document import Format, dump_document, load_document
from vaka.models.mapping import FILE_MANIFEST, TABLE_MANIFEST, FileOptions
from vaka.models.storage import ColumnDefinition, FileDetail, MetadataEntry, TableDetail
from vaka.models.tree import Object

SUFFIX = ".manifest"
"""What a manifest's name has after the name of its data file, in every format."""


def parse_table_manifest(
    data: bytes,
    *,
    format: Format = "json",  # noqa: A002 - what the component writes
    path: str,
) -> dict[str, Json]:
    """The manifest of an output table, checked and with its defaults.

    Raises:
        InvalidInput: `Failed to parse manifest file "<path>" as "<format>": …`.
    """
    return _parse(TABLE_MANIFEST, "table", data, format, path)


def parse_file_manifest(
    data: bytes,
    *,
    format: Format = "json",  # noqa: A002
    path: str,
) -> FileOptions:
    """How the manifest of an output file wants it stored.

    Raises:
        InvalidInput: `Failed to parse manifest file "<path>" as "<format>": …`.
    """
    return FileOptions.of(_parse(FILE_MANIFEST, "file", data, format, path))


def input_table_manifest(
    table: TableDetail,
    *,
    columns: Sequence[str] = (),
    staging: Mapping[str, Json] | None = None,
    backend: str = "",
) -> dict[str, Json]:
    """What a component is told of a table it reads.

    Args:
        table: as it was just before it was read.
        columns: those that were asked for, in that order; empty means all.
        staging: `{"s3": …}` or `{"abs": …}` where the data are not in the data folder.
        backend: word for the backend whose types the table's columns have.
    """
    selected = list(columns or table.columns)
    document: dict[str, Json] = {
        "id": table.id,
        "uri": table.uri,
        "name": table.name,
        "primary_key": list(table.primary_key),
        "distribution_key": list(table.distribution_key),
        "created": manifest_date(table.created),
        "last_change_date": date_or_none(table.last_change_date),
        "last_import_date": date_or_none(table.last_import_date),
    }
    if table.description:
        document["description"] = table.description
    document.update(staging or {})
    document["columns"] = selected
    document["metadata"] = _metadata(table.metadata)
    # a map without entries is written as every empty collection is
    document["column_metadata"] = {
        column: _metadata(table.column_metadata.get(column, ())) for column in selected
    } or []
    definitions = {each.name: each for each in table.definitions}
    document["schema"] = [
        _column(definitions[name], backend, is_key=name in table.primary_key)
        for name in selected
        if name in definitions
    ]
    return document


def _column(definition: ColumnDefinition, backend: str, *, is_key: bool) -> dict[str, Json]:
    """An entry of an input manifest's schema (mapping.md section 3.2.1)."""
    document: dict[str, Json] = {"name": definition.name}
    kinds: dict[str, Json] = {}
    if definition.base_type is not None:
        kinds["base"] = {"type": definition.base_type}
    if definition.type is not None:
        own = {
            "type": definition.type,
            "length": definition.length,
            "default": definition.default,
        }
        kinds[backend] = {key: value for key, value in own.items() if value not in {None, ""}}
    if kinds:
        document["data_type"] = kinds
    document["nullable"] = definition.nullable
    document["primary_key"] = is_key
    return document


def input_file_manifest(file: FileDetail) -> dict[str, Json]:
    """What a component is told of a file it reads."""
    return {
        "id": file.id,
        "name": file.name,
        "created": manifest_date(file.created),
        "is_public": file.is_public,
        "is_encrypted": file.is_encrypted,
        "is_sliced": file.is_sliced,
        "tags": list(file.tags),
        "max_age_days": file.max_age_days or 0,
        "size_bytes": file.size_bytes,
    }


def dumps_manifest(document: Mapping[str, Json], format: Format = "json") -> bytes:  # noqa: A002
    """A manifest as it is written."""
    return dump_document(document, format)


def manifest_date(moment: datetime) -> str:
    """`2022-06-03T01:31:43+0200`: seconds, and the moment's own time zone."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S%z")


def _parse(tree: Object, root: str, data: bytes, format: Format, path: str) -> dict[str, Json]:  # noqa: A002
    try:
        return cast(dict[str, Json], tree.parse(load_document(data, format), root))
    except InvalidInput as error:
        raise InvalidInput(
            f'Failed to parse manifest file "{path}" as "{format}": {error.message}',
            path=error.path,
        ) from error


def date_or_none(moment: datetime | None) -> str | None:
    """`manifest_date`, or None for None."""
    return None if moment is None else manifest_date(moment)


def _metadata(entries: Iterable[MetadataEntry]) -> list[Json]:
    return [
        {
            "id": entry.id,
            "key": entry.key,
            "value": entry.value,
            "provider": entry.provider,
            "timestamp": manifest_date(entry.timestamp),
        }
        for entry in entries
    ]
