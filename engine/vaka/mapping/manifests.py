"""What a mapping item and a manifest say together about one output table (mapping.md section 6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from vaka.datafolder import printable
from vaka.errors import InvalidInput, MappingFailed
from vaka.models.catalog import Json
from vaka.models.mapping import TABLE_MANIFEST, TABLE_MANIFEST_DEFAULTS
from vaka.models.naming import webalize
from vaka.models.tree import text

_WITH_DEFAULT: Final = ("incremental", "delete_where_operator", "delimiter", "enclosure")
TIMESTAMP: Final = "_timestamp"
"""The column that every table has for itself, in any letter case."""


def sanitised(name: str) -> str:
    """A column name as tables can have it (mapping.md section 6.8); `_timestamp` stays as it is."""
    return name if name.lower() == TIMESTAMP else webalize(name)


def with_sanitised_columns(data: Mapping[str, Json], changes: dict[str, str]) -> dict[str, Json]:
    """A normalised item or manifest with column names as tables can have them.

    What was renamed is added to `changes`, old name to new.
    """

    def rename(value: Json) -> str:
        old = text(value)
        new = sanitised(old)
        if new != old:
            changes[old] = new
        return new

    result = dict(data)
    result["columns"] = [rename(name) for name in data["columns"]]
    # an empty name in a key is dropped later, with a warning of its own
    if "primary_key" in data:
        result["primary_key"] = [
            rename(name) if text(name).strip() else name for name in data["primary_key"]
        ]
    metadata: dict[str, list[Json]] = {}
    for name, entries in data["column_metadata"].items():
        metadata.setdefault(rename(name), []).extend(entries)
    result["column_metadata"] = metadata
    result["schema"] = [{**column, "name": rename(column["name"])} for column in data["schema"]]
    return result


def merge(
    source: str, manifest: Mapping[str, Json] | None, item: Mapping[str, Json] | None
) -> dict[str, Json]:
    """What holds for a table: the manifest, the mapping item over it, and defaults for the rest.

    Args:
        source: name of the table's data, for errors.
        manifest: normalised; None when there is none.
        item: normalised, and then it has a key, if only an empty one, that takes the place of the
            manifest's; None when the mapping does not name the source.

    Raises:
        MappingFailed: the two do not go together.

    Source: mapping.md section 6.2.
    """
    merged: dict[str, Json] = dict(manifest or {})
    if item is not None:
        for key, value in item.items():
            if key not in {"source", "primary_key"}:
                _merge_key(merged, key, value)
        if "primary_key" in item:
            _merge_primary_key(merged, item["primary_key"])
    try:
        result: dict[str, Json] = TABLE_MANIFEST.parse(merged, "table")
    except InvalidInput as error:
        raise MappingFailed(
            f"Failed to prepare mapping configuration for table {printable(source)}: "
            f"{error.message}"
        ) from error
    return result


def _merge_key(merged: dict[str, Json], key: str, value: Json) -> None:
    mine = merged.get(key)
    if key in _WITH_DEFAULT:
        if key not in merged or value != TABLE_MANIFEST_DEFAULTS[key]:
            merged[key] = value
    elif not mine:
        if value or key not in merged:
            merged[key] = value
    elif key == "metadata":
        merged[key] = _union(mine, value, "key")
    elif key == "column_metadata":
        merged[key] = {
            name: _union(mine.get(name, []), value.get(name, []), "key")
            for name in [*mine, *(name for name in value if name not in mine)]
        }
    elif key == "table_metadata":
        merged[key] = {**mine, **value}
    elif key == "schema":
        merged[key] = _merge_schema(mine, value)
    elif value:
        merged[key] = value


def _union(mine: Iterable[Json], theirs: Iterable[Json], key: str) -> list[Json]:
    """Both lists of objects by `key`: mine first, theirs in place of mine or after them."""
    merged = {text(each[key]): each for each in mine}
    merged.update((text(each[key]), each) for each in theirs)
    return list(merged.values())


def _merge_schema(mine: list[Any], theirs: list[Any]) -> list[Json]:
    # in the order of the manifest: who wrote the file knows the order of its fields
    known = {column["name"]: column for column in mine}
    merged = []
    for column in theirs:
        old = known.get(column["name"])
        new = dict(column)
        if old is not None:
            for key in ("data_type", "metadata"):
                if key in old or key in column:
                    new[key] = {**old.get(key, {}), **column.get(key, {})}
            new = {**old, **new}
        merged.append(new)
    return _union(mine, merged, "name")


def _merge_primary_key(merged: dict[str, Json], columns: list[Json]) -> None:
    """Put the item's key in place of the manifest's, even by none: an item always has one."""
    if not merged.get("schema"):
        merged["primary_key"] = columns
        return
    key = [text(column) for column in columns]
    names = {column["name"] for column in merged["schema"]}
    for column in key:
        if column not in names:
            raise MappingFailed(f'Primary key column "{column}" not found in manifest file.')
    merged["schema"] = [
        {**column, "primary_key": True} if column["name"] in key else column
        for column in merged["schema"]
    ]


def destination(
    source: str, item: str | None, manifest: str | None, default_bucket: str | None
) -> tuple[str, str | None]:
    """The table id that a source goes to, and a warning where that is a guess.

    Args:
        source: name of the data.
        item: destination in the mapping.
        manifest: destination in the manifest.
        default_bucket: bucket for tables that name none.

    Raises:
        MappingFailed: there is none, or it is no table id.

    Source: mapping.md section 6.3.
    """
    warning = None
    if item:
        candidate = item if _is_table_id(item) else None
    elif manifest:
        candidate = _in_bucket(manifest, default_bucket)
    else:
        candidate = _in_bucket(source.removesuffix(".csv"), default_bucket)
        if candidate is not None and _is_table_id(source.removesuffix(".csv")):
            warning = (
                f'Source table "{printable(source)}" has neither manifest file nor mapping set, '
                "falling back to the source name as a destination.This behaviour was DEPRECATED "
                "and will be removed in the future."
            )
    if candidate is None:
        raise MappingFailed(
            f'Failed to resolve destination for output table "{printable(source)}".'
        )
    if not _is_table_id(candidate):
        raise MappingFailed(
            f'Failed to resolve valid destination. "{printable(candidate)}" is not a valid table ID.'
        )
    return candidate, warning


def _is_table_id(name: str) -> bool:
    return name.count(".") == 2


def _in_bucket(name: str, bucket: str | None) -> str | None:
    if _is_table_id(name):
        return name
    return f"{bucket}.{name}" if bucket else None


def key_columns(columns: Iterable[Json], warnings: list[str]) -> tuple[str, ...]:
    """A key without empty and repeated names, white space cut off."""
    names = [text(column) for column in columns]
    if "" in names:
        warnings.append("Found empty column name in key array.")
    return tuple(dict.fromkeys(name.strip() for name in names if name != ""))


def check_columns(source: str, data: Mapping[str, Any]) -> None:
    """Refuse columns that every table has for itself.

    Raises:
        MappingFailed: `columns`, `column_metadata` or `schema` names one.
    """
    groups = (
        ('System columns "{}" cannot be imported to the table.', map(text, data["columns"])),
        (
            'Metadata for system columns "{}" cannot be imported to the table.',
            data["column_metadata"],
        ),
        (
            'Schema for system columns "{}" cannot be imported to the table.',
            (text(column["name"]) for column in data["schema"]),
        ),
    )
    found = []
    for message, names in groups:
        system = [name for name in names if name.lower() == TIMESTAMP]
        if system:
            found.append(message.format(", ".join(system)))
    if found:
        raise MappingFailed(
            f"Failed to process mapping for table {printable(source)}: {' '.join(found)}"
        )
