"""The items of input and output mapping: what they may hold, and what they mean (mapping.md section 1).

The nodes check an item inside a whole configuration and normalise it; the classes are what mapping works
with. Each class's `parse` takes an item, normalised or not, and checks it once more on its own, with
paths that begin with `table`, `file` or `tableFile`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, cast

from vaka.errors import InvalidInput
from vaka.models.catalog import Json
from vaka.models.moment import parse_moment
from vaka.models.tree import (
    ABSENT,
    Absent,
    Anything,
    Bool,
    Choice,
    Int,
    ListOf,
    MapOf,
    Object,
    Rule,
    Scalar,
    absent_when_empty,
    empty_as,
    invalid,
    is_blank,
    null_as,
    quoted,
    text,
)

ADAPTIVE: Final = "adaptive"
DESCRIPTION: Final = "KBC.description"
"""Metadata key that `description` is short for."""
DIRECT_GRANT: Final = "direct-grant"
EqualOperator = Literal["eq", "ne"]


def _blank(value: Json) -> bool:
    return not isinstance(value, str) or not value.strip()


def _operator(name: str) -> Rule:
    def rule(value: Json, path: str) -> Json:
        if value not in ("eq", "ne"):
            raise invalid(path, f"Invalid operator in {name} {quoted(value)}.")
        return value

    return rule


def _upper(value: Json) -> Json | Absent:
    if is_blank(value):
        return ABSENT
    return value.upper() if isinstance(value, str) else value


def _scalars(*, optional: bool = False, remove_empty: bool = False) -> ListOf:
    return ListOf(item=Scalar(), optional=optional, remove_empty=remove_empty)


def _input_table_rules(item: dict[str, Json], path: str) -> dict[str, Json]:
    if "source" not in item:
        raise InvalidInput('The "source" must be configured.', path=path)
    where_column, where_values = item.get("where_column"), item["where_values"]
    if not _blank(where_column) and not where_values:
        raise InvalidInput(
            'When "where_column" is set, "where_values" must be provided.', path=path
        )
    if where_values and _blank(where_column):
        raise InvalidInput(
            'When "where_values" is set, non-empty string in "where_column" must be provided.',
            path=path,
        )
    if item.pop("use_view", False):
        item.setdefault("load_type", "VIEW")
    return item


COLUMN_TYPE: Final = Object(
    children={
        "source": Scalar(required=True),
        "type": Scalar(),
        "destination": Scalar(),
        "length": Scalar(),
        "nullable": Scalar(),
        "convert_empty_values_to_null": Scalar(),
        "compression": Scalar(),
    }
)
INPUT_TABLE: Final = Object(
    children={
        "source": Scalar(non_empty=True),
        "source_branch_id": Scalar(),
        "destination": Scalar(),
        "days": Int(prepare=null_as(0)),
        "changed_since": Scalar(prepare=null_as("")),
        "columns": _scalars(),
        "column_types": ListOf(item=COLUMN_TYPE),
        "where_column": Scalar(),
        "where_operator": Scalar(
            default="eq", prepare=empty_as("eq"), rules=(_operator("where_operator"),)
        ),
        "where_values": _scalars(),
        "limit": Int(),
        "overwrite": Bool(default=False),
        "use_view": Bool(),
        "load_type": Choice(words=("COPY", "CLONE", "VIEW", "AUTO"), prepare=_upper),
        "keep_internal_timestamp_column": Bool(default=True),
        "file_type": Scalar(prepare=absent_when_empty),
    },
    rules=(_input_table_rules,),
)


@dataclass(frozen=True, slots=True)
class ColumnType:
    """How one column goes into a workspace; with file staging only `source` counts."""

    source: str
    type: str | None = None
    destination: str | None = None
    length: str | None = None
    nullable: Json = None
    convert_empty_values_to_null: Json = None
    compression: str | None = None

    @classmethod
    def _of(cls, item: Mapping[str, Json]) -> Self:
        as_text = {
            key: value if is_blank(value) else text(value)
            for key, value in item.items()
            if key in {"type", "destination", "length", "compression"}
        }
        return cls(**{**item, **as_text, "source": text(item["source"])})


@dataclass(frozen=True, slots=True)
class InputTable:
    """A table to be read."""

    source: str
    """Table id."""
    destination: str | None = None
    """Name in the data folder or workspace; None: the table id."""
    columns: tuple[str, ...] = ()
    """In this order; empty: all."""
    column_types: tuple[ColumnType, ...] = ()
    """One for each of `columns`."""
    days: int = 0
    """0: no filter."""
    changed_since: str = ""
    """Empty: no filter; `adaptive`: since the last run; else a moment."""
    where_column: str | None = None
    where_operator: EqualOperator = "eq"
    where_values: tuple[str, ...] = ()
    limit: int | None = None
    overwrite: bool = False
    load_type: Literal["COPY", "CLONE", "VIEW", "AUTO"] | None = None
    keep_internal_timestamp_column: bool = True
    file_type: str | None = None
    source_branch_id: str | None = None

    @classmethod
    def parse(cls, item: Json, path: str = "table") -> Self:
        """The table that a mapping item means.

        Raises:
            InvalidInput: the item breaks a rule of mapping.md section 1.2.1.
        """
        if isinstance(item, Mapping):
            _refuse_two_date_filters(item, path)
            _refuse_other_column_types(item, path)
        data = INPUT_TABLE.parse(item, path)
        types = tuple(ColumnType._of(each) for each in data["column_types"])
        columns = _texts(data["columns"])
        if types:
            columns = tuple(each.source for each in types)
        filtered = bool(data["where_values"])
        return cls(
            source=text(data["source"]),
            destination=_text_or_none(data.get("destination")),
            columns=columns,
            column_types=types or tuple(ColumnType(source=name) for name in columns),
            days=data.get("days", 0),
            changed_since=text(data.get("changed_since", "")),
            where_column=data["where_column"] if filtered else None,
            where_operator=data["where_operator"],
            where_values=_texts(data["where_values"]),
            limit=data.get("limit"),
            overwrite=data["overwrite"],
            load_type=data.get("load_type"),
            keep_internal_timestamp_column=data["keep_internal_timestamp_column"],
            file_type=_text_or_none(data.get("file_type")),
            source_branch_id=_text_or_none(data.get("source_branch_id")),
        )

    @property
    def is_adaptive(self) -> bool:
        return self.changed_since == ADAPTIVE

    @property
    def name(self) -> str:
        """Name of what the component finds: the destination, or the table id."""
        return self.destination or self.source


def _refuse_two_date_filters(item: Mapping[str, Json], path: str) -> None:
    if item.get("days") and item.get("changed_since"):
        raise InvalidInput('Cannot set both parameters "days" and "changed_since".', path=path)


def _refuse_other_column_types(item: Mapping[str, Json], path: str) -> None:
    columns, types = item.get("columns"), item.get("column_types")
    if not isinstance(columns, list) or not isinstance(types, list) or not columns or not types:
        return
    names = [text(each) for each in columns if not isinstance(each, list | dict)]
    sources = [
        text(each["source"])
        for each in types
        if isinstance(each, dict) and not isinstance(each.get("source", []), list | dict)
    ]
    for field, given, others in (
        ("columns", names, sources),
        ("column_types", sources, names),
    ):
        known = set(others)
        surplus = [name for name in given if name not in known]
        if surplus:
            raise InvalidInput(
                f'Both "columns" and "column_types" are specified, "{field}" field contains '
                f'surplus columns: "{", ".join(surplus)}".',
                path=path,
            )


def _match(value: Json, path: str) -> Json:
    if value not in ("include", "exclude"):
        raise invalid(
            path, f'Invalid match type "{quoted(value)}", allowed values are: "include", "exclude".'
        )
    return value


def _input_file_rules(item: dict[str, Json], path: str) -> dict[str, Json]:
    source_tags = item.get("source", {}).get("tags")
    tags, query, file_ids = item.get("tags"), item.get("query"), item.get("file_ids")
    changed_since = item.get("changed_since")
    if not (tags or source_tags or query or file_ids):
        raise invalid(
            path,
            'At least one of "tags", "source.tags", "query" or "file_ids" parameters must be '
            "defined.",
        )
    if tags and source_tags:
        raise invalid(path, 'Both "tags" and "source.tags" cannot be defined.')
    if query and changed_since is not None:
        raise invalid(path, "The changed_since parameter is not supported for query configurations")
    if changed_since is not None and changed_since != ADAPTIVE:
        try:
            parse_moment(text(changed_since))
        except ValueError:
            raise invalid(
                path, "The value provided for changed_since could not be converted to a timestamp"
            ) from None
    others = (tags, source_tags, query, changed_since, item.get("filter_by_run_id"))
    if file_ids and (any(others) or "limit" in item):
        raise invalid(
            path,
            "The file_ids filter can be combined only with overwrite flag and processed_tags",
        )
    return item


INPUT_FILE: Final = Object(
    children={
        "tags": _scalars(remove_empty=True),
        "source": Object(
            children={
                "tags": ListOf(
                    item=Object(
                        children={
                            "name": Scalar(required=True, non_empty=True),
                            "match": Scalar(default="include", rules=(_match,)),
                        }
                    )
                )
            }
        ),
        "query": Scalar(prepare=absent_when_empty),
        "file_ids": _scalars(remove_empty=True),
        "filter_by_run_id": Bool(),
        "limit": Int(),
        "overwrite": Bool(default=True),
        "processed_tags": _scalars(remove_empty=True),
        "changed_since": Scalar(prepare=absent_when_empty),
    },
    rules=(_input_file_rules,),
)


@dataclass(frozen=True, slots=True)
class TagRule:
    name: str
    match: Literal["include", "exclude"] = "include"


@dataclass(frozen=True, slots=True)
class InputFile:
    """Files to be read: those that meet all that is given."""

    tags: tuple[str, ...] = ()
    """At least one of these."""
    source_tags: tuple[TagRule, ...] = ()
    """All that are to be included, none that is to be excluded."""
    query: str = ""
    file_ids: tuple[str, ...] = ()
    filter_by_run_id: bool = False
    limit: int | None = None
    overwrite: bool = True
    processed_tags: tuple[str, ...] = ()
    """Put on the files after the job's outputs were stored."""
    changed_since: str = ""
    """Empty: no filter; `adaptive`: since the last run; else a moment."""

    @classmethod
    def parse(cls, item: Json, path: str = "file") -> Self:
        """The files that a mapping item means.

        Raises:
            InvalidInput: the item breaks a rule of mapping.md section 1.2.2.
        """
        data = INPUT_FILE.parse(item, path)
        return cls(
            tags=_texts(data.get("tags", ())),
            source_tags=tuple(
                TagRule(text(each["name"]), each["match"])
                for each in data.get("source", {}).get("tags", ())
            ),
            query=text(data.get("query", "")),
            file_ids=_texts(data.get("file_ids", ())),
            filter_by_run_id=data.get("filter_by_run_id", False),
            limit=data.get("limit"),
            overwrite=data["overwrite"],
            processed_tags=_texts(data.get("processed_tags", ())),
            changed_since=text(data.get("changed_since", "")),
        )

    @property
    def is_adaptive(self) -> bool:
        return self.changed_since == ADAPTIVE

    @property
    def state_tags(self) -> list[dict[str, str]]:
        """What identifies this item in the stored state (mapping.md section 5.4)."""
        if self.tags:
            return [{"name": tag} for tag in self.tags]
        return [{"name": rule.name, "match": rule.match} for rule in self.source_tags]


def _as_text(value: Json) -> Json:
    return value if value is None or isinstance(value, list | dict) else text(value)


def _filter_operator(value: Json, path: str) -> Json:
    if value not in ("eq", "ne"):
        raise invalid(path, f'Invalid operator {quoted(value)}. Valid values are "eq" or "ne".')
    return value


_VALUE_SOURCES = '"values_from_set", "values_from_workspace", or "values_from_storage"'


def _where_filter_rules(item: dict[str, Json], path: str) -> dict[str, Json]:
    count = sum(key.startswith("values_from_") for key in item)
    if count == 0:
        raise invalid(path, f"One of {_VALUE_SOURCES} must be defined.")
    if count > 1:
        raise invalid(path, f"Only one of {_VALUE_SOURCES} can be defined.")
    return item


def _delete_where_rules(item: dict[str, Json], path: str) -> dict[str, Json]:
    given = (not is_blank(item.get(key)) for key in ("changed_since", "changed_until"))
    if not any(given) and not item.get("where_filters"):
        raise invalid(
            path,
            'At least one of "changed_since", "changed_until", or "where_filters" must be defined.',
        )
    return item


DELETE_WHERE: Final = Object(
    children={
        "changed_since": Scalar(),
        "changed_until": Scalar(),
        "where_filters": ListOf(
            remove_empty=True,
            item=Object(
                children={
                    "column": Scalar(required=True, non_empty=True),
                    "operator": Scalar(default="eq", rules=(_filter_operator,)),
                    "values_from_set": _scalars(remove_empty=True),
                    "values_from_workspace": Object(
                        children={
                            "workspace_id": Scalar(),
                            "table": Scalar(required=True, non_empty=True),
                            "column": Scalar(),
                        }
                    ),
                    "values_from_storage": Object(
                        children={
                            "bucket_id": Scalar(required=True, non_empty=True),
                            "table": Scalar(required=True, non_empty=True),
                            "column": Scalar(),
                        }
                    ),
                },
                rules=(_where_filter_rules,),
            ),
        ),
    },
    rules=(_delete_where_rules,),
)
_TYPE_KEYS: Final = {
    "length": Scalar(prepare=_as_text),
    "default": Scalar(prepare=_as_text),
}
_BACKEND_TYPE: Final = Object(children={"type": Scalar(), **_TYPE_KEYS})
_BACKENDS: Final = ("snowflake", "bigquery")


def _data_type_rules(item: dict[str, Json], path: str) -> dict[str, Json]:
    for name in item:
        if name not in {"base", *_BACKENDS}:
            raise invalid(path, f"The {quoted(name)} data type is not supported.")
    for name in _BACKENDS:
        if name in item and is_blank(item[name].get("type")):
            raise invalid(path, f'The "type" is required for the "{name}" data type.')
    return item


def _schema_item_rules(item: dict[str, Json], path: str) -> dict[str, Json]:
    if not is_blank(item.get("description")) and DESCRIPTION in item.get("metadata", {}):
        raise invalid(
            path, f'Only one of "description" or "metadata.{DESCRIPTION}" can be defined.'
        )
    return item


SCHEMA_ITEM: Final = Object(
    children={
        "name": Scalar(required=True, non_empty=True),
        "data_type": Object(
            extra="keep",
            children={
                "base": Object(
                    required=True, children={"type": Scalar(required=True), **_TYPE_KEYS}
                ),
                **dict.fromkeys(_BACKENDS, _BACKEND_TYPE),
            },
            rules=(_data_type_rules,),
        ),
        "nullable": Bool(default=True),
        "primary_key": Bool(default=False),
        "distribution_key": Bool(default=False),
        "description": Scalar(),
        "metadata": MapOf(item=Anything(), optional=True),
    },
    rules=(_schema_item_rules,),
)


def _output_table_rules(item: dict[str, Json], path: str) -> dict[str, Json]:
    by_column = not is_blank(item.get("delete_where_column"))
    if by_column and not item["delete_where_values"]:
        raise invalid(
            path,
            'When "delete_where_column" option is set, then the "delete_where_values" is required.',
        )
    if item["schema"]:
        for key in ("columns", "metadata", "column_metadata"):
            if item[key]:
                raise invalid(path, f'Only one of "schema" or "{key}" can be defined.')
    if not is_blank(item.get("description")) and DESCRIPTION in item.get("table_metadata", {}):
        raise invalid(
            path, f'Only one of "description" or "table_metadata.{DESCRIPTION}" can be defined.'
        )
    if item["schema"]:
        for key in ("primary_key", "distribution_key"):
            if item[key]:
                raise InvalidInput(
                    f'Only one of "{key}" or "schema[].{key}" can be defined.', path=path
                )
    if by_column and "delete_where" in item:
        raise invalid(path, 'Only one of "delete_where_column" or "delete_where" can be defined.')
    return item


def _source_rule(item: dict[str, Json], path: str) -> dict[str, Json]:
    if is_blank(item.get("source")) and item.get("unload_strategy") != DIRECT_GRANT:
        raise InvalidInput(
            f'The child config "source" under "{path}" must be configured.', path=path
        )
    return item


_METADATA: Final = ListOf(
    item=Object(children={"key": Scalar(required=True, non_empty=True), "value": Scalar()})
)
_TABLE_MANIFEST_KEYS: Final = {
    "destination": Scalar(),
    "incremental": Bool(default=False),
    "primary_key": _scalars(),
    "columns": _scalars(),
    "distribution_key": ListOf(item=Scalar(non_empty=True)),
    "delete_where_column": Scalar(),
    "delete_where_values": _scalars(),
    "delete_where_operator": Scalar(
        default="eq", prepare=empty_as("eq"), rules=(_operator("delete_where_operator"),)
    ),
    "delete_where": ListOf(item=DELETE_WHERE, remove_empty=True),
    "delimiter": Scalar(default=","),
    "enclosure": Scalar(default='"'),
    "metadata": _METADATA,
    "column_metadata": MapOf(item=_METADATA),
    "write_always": Bool(default=False),
    "tags": ListOf(item=Scalar(non_empty=True)),
    "deduplication_strategy": Choice(words=("insert", "upsert")),
    "unload_strategy": Scalar(),
    "manifest_type": Scalar(),
    "has_header": Bool(),
    "description": Scalar(),
    "table_metadata": MapOf(item=Anything(), optional=True),
    "schema": ListOf(item=SCHEMA_ITEM),
}
TABLE_MANIFEST: Final = Object(children=_TABLE_MANIFEST_KEYS, rules=(_output_table_rules,))
OUTPUT_TABLE: Final = Object(
    children={"source": Scalar(), **_TABLE_MANIFEST_KEYS},
    rules=(_source_rule, _output_table_rules),
)
TABLE_MANIFEST_DEFAULTS: Final[Mapping[str, Json]] = TABLE_MANIFEST.parse({}, "table")
"""A manifest that says nothing."""


@dataclass(frozen=True, slots=True)
class OutputTable:
    """A table to be written, from one mapping item; a manifest may add to it.

    `data` is the normalised item, which merging with a manifest works on (mapping.md section 6.2). It
    is not to be changed.
    """

    source: str
    """Name in `out/tables`; empty for a direct grant."""
    data: Mapping[str, Json]

    @classmethod
    def parse(cls, item: Json, path: str = "table") -> Self:
        """The table that a mapping item means.

        Raises:
            InvalidInput: the item breaks a rule of mapping.md sections 1.3.1 and 3.5.
        """
        data = OUTPUT_TABLE.parse(item, path)
        return cls(source=text(data.get("source")), data=data)

    @property
    def destination(self) -> str | None:
        return _text_or_none(self.data.get("destination"))

    @property
    def write_always(self) -> bool:
        return cast(bool, self.data["write_always"])

    @property
    def is_direct_grant(self) -> bool:
        return self.data.get("unload_strategy") == DIRECT_GRANT


_FILE_MANIFEST_KEYS: Final = {
    "tags": _scalars(),
    "is_public": Bool(default=False),
    "is_permanent": Bool(default=False),
    "is_encrypted": Bool(default=True),
    "notify": Bool(default=False),
}
FILE_MANIFEST: Final = Object(children=_FILE_MANIFEST_KEYS)
OUTPUT_FILE: Final = Object(children={"source": Scalar(required=True), **_FILE_MANIFEST_KEYS})
TABLE_FILES: Final = Object(children={"tags": _scalars(), "is_permanent": Bool(default=True)})


@dataclass(frozen=True, slots=True)
class FileOptions:
    """How a file is to be stored."""

    tags: tuple[str, ...] = ()
    """Without duplicates, in the order given."""
    is_public: bool = False
    is_permanent: bool = False
    is_encrypted: bool = True
    notify: bool = False

    @classmethod
    def of(cls, data: Mapping[str, Json]) -> Self:
        """The options in a normalised item, manifest or `table_files`."""
        flags: dict[str, Any] = {
            key: data[key]
            for key in ("is_public", "is_permanent", "is_encrypted", "notify")
            if key in data
        }
        return cls(tags=tuple(dict.fromkeys(_texts(data["tags"]))), **flags)


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file to be written, from one mapping item; its manifest does not count."""

    source: str
    """Name in `out/files`."""
    options: FileOptions

    @classmethod
    def parse(cls, item: Json, path: str = "file") -> Self:
        """The file that a mapping item means.

        Raises:
            InvalidInput: the item breaks a rule of mapping.md sections 1.3.2 and 3.6.
        """
        data = OUTPUT_FILE.parse(item, path)
        return cls(source=text(data["source"]), options=FileOptions.of(data))


def table_files_options(value: Json) -> FileOptions:
    """How tables are stored that are to be files: the options of `storage.output.table_files`."""
    return FileOptions.of(TABLE_FILES.parse(value, "tableFile"))


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(text(value) for value in values)


def _text_or_none(value: Json) -> str | None:
    return None if is_blank(value) else text(value)
