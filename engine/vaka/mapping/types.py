"""Types of output columns: what is asked for, and whether a table can take it (mapping.md section 6.12).

A backend has the last word on types: it puts definitions into its own words, which are compared here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from vaka.errors import MappingFailed
from vaka.models.component import DataTypesSupport
from vaka.models.storage import ColumnDefinition, TableDetail
from vaka.models.tree import is_blank, text

FEATURE: Final = "new-native-types"
"""Feature of a project whose tables may be typed."""
FEATURE_METADATA: Final = "native-types"
"""Feature of a project where the metadata of columns make new tables typed: the older way."""
_METADATA: Final = "KBC.datatype."


def effective_support(
    features: Iterable[str], configured: str | None, component: DataTypesSupport
) -> DataTypesSupport | None:
    """What a component's types are worth in a project: None without the feature.

    Args:
        features: the project's.
        configured: `storage.output.data_type_support`.
        component: what its definition says.
    """
    if FEATURE not in features:
        return None
    match configured:
        case "none" | "hints" | "authoritative":
            return configured
        case _:
            return component


def with_types(data: Mapping[str, Any], support: DataTypesSupport) -> dict[str, Any]:
    """The merged item of a table with the schema that its table is to have.

    For hints every type becomes metadata of its column, which takes text.

    Raises:
        MappingFailed: there is no schema, or not all of the types that there must be.
    """
    schema = data["schema"]
    if support == "none":
        return dict(data)
    if not schema:
        raise MappingFailed("Configuration schema is missing.")
    if support == "hints":
        return {**data, "schema": [_as_hint(column) for column in schema]}
    missing = [text(column["name"]) for column in schema if "data_type" not in column]
    if missing:
        raise MappingFailed(f"Missing data type for columns: {', '.join(missing)}")
    return dict(data)


def _as_hint(column: Mapping[str, Any]) -> dict[str, Any]:
    nullable = column["nullable"] and not column["primary_key"]
    said = {}
    if "data_type" in column:
        base = column["data_type"]["base"]
        said["basetype"] = text(base["type"])
        said |= {
            key: text(base[key]) for key in ("length", "default") if not is_blank(base.get(key))
        }
    said["nullable"] = "1" if nullable else "0"
    if column["distribution_key"]:
        said["distribution_key"] = "1"
    hint = {**column, "nullable": nullable}
    if "data_type" in column:
        hint["data_type"] = {"base": {"type": "STRING"}}
    hint["metadata"] = {
        **{f"{_METADATA}{key}": value for key, value in said.items()},
        **column.get("metadata", {}),
    }
    return hint


def definitions(data: Mapping[str, Any], backend: str) -> tuple[ColumnDefinition, ...]:
    """What a merged item's schema says of its columns; `backend` is the backend's word for itself."""
    return tuple(_definition(column, backend) for column in data["schema"])


def _definition(column: Mapping[str, Any], backend: str) -> ColumnDefinition:
    types = column.get("data_type", {})
    base, own = types.get("base", {}), types.get(backend, {})
    length = own.get("length") if own else base.get("length")
    return ColumnDefinition(
        name=text(column["name"]),
        base_type=text(base.get("type")) or None,
        type=text(own.get("type")) or None,
        length=text(length) or None,
        nullable=column["nullable"] and not column["primary_key"],
    )


def definitions_in_metadata(data: Mapping[str, Any], backend: str) -> tuple[ColumnDefinition, ...]:
    """What a merged item without schema says, in the metadata of its columns (section 6.9).

    Types of a backend count when the table's metadata name this one.
    """
    about = {text(each["key"]): text(each.get("value")) for each in data["metadata"]}
    about |= {key: text(value) for key, value in data.get("table_metadata", {}).items()}
    is_ours = about.get(f"{_METADATA}backend", "").lower() == backend
    found = []
    for name in dict.fromkeys([*map(text, data["columns"]), *data["column_metadata"]]):
        said = {
            text(entry["key"]).removeprefix(_METADATA): text(entry.get("value"))
            for entry in data["column_metadata"].get(name, ())
            if text(entry["key"]).startswith(_METADATA)
        }
        found.append(
            ColumnDefinition(
                name=name,
                base_type=said.get("basetype") or "STRING",
                type=(said.get("type") or None) if is_ours else None,
                length=said.get("length") or None,
                nullable=said.get("nullable", "1").lower() not in {"0", "false"},
                default=said.get("default") or None,
            )
        )
    return tuple(found)


def check_structure(table: TableDetail, columns: Sequence[ColumnDefinition]) -> None:
    """Refuse a schema that a table cannot be brought to.

    Args:
        table: as it is stored.
        columns: the schema, in the backend's words.

    Raises:
        MappingFailed: columns are missing from the schema, or have other types.
    """
    wanted = {column.name: column for column in columns}
    lacking = [name for name in wanted if name not in table.columns]
    if len(wanted) != len(table.columns) and not lacking:
        raise MappingFailed(
            f'Table "{table.id}" does not contain the same number of columns as the schema. '
            f"Table columns: {len(table.columns)}, schema columns: {len(wanted)}."
        )
    if len(wanted) == len(table.columns) and lacking:
        names = ", ".join(f'"{name}"' for name in lacking)
        raise MappingFailed(f'Table "{table.id}" does not contain columns: {names}.')
    different = [
        f'Table "{table.id}" column "{known.name}" has different type than the schema. '
        f'Table type: "{_word(known)}", schema type: "{_word(column)}".'
        for known in table.definitions
        if (column := wanted.get(known.name)) is not None and _differs(known, column)
    ]
    if different:
        raise MappingFailed(" ".join(different))


def _differs(known: ColumnDefinition, wanted: ColumnDefinition) -> bool:
    if wanted.type is None and wanted.base_type is None:
        return False
    mine, theirs = _word(known), _word(wanted)
    if mine.startswith("TIMESTAMP") and theirs.startswith("TIMESTAMP"):
        return False
    return mine != theirs


def _word(definition: ColumnDefinition) -> str:
    return (definition.type or definition.base_type or "").upper()
