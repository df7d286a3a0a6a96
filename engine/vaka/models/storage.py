"""What a mapping backend takes and gives: tables, files, and the options of moving them.

All times are timezone-aware UTC datetimes, all sizes bytes. These are values between the engine and
a backend, not documents from outside, so they are plain frozen dataclasses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

Operator = Literal["eq", "ne", "gt", "ge", "lt", "le"]


@dataclass(frozen=True, slots=True)
class StorageRights:
    """What a limited token may in Storage."""

    buckets: Mapping[str, str] | None = field(default=None, hash=False)
    """Bucket id to `read` or `write`; None: all of them, also those that are made later."""
    reads_all_files: bool = True
    """Whether it sees files that other tokens have made."""

    def may_use(self, bucket_id: str, *, write: bool = False) -> bool:
        """Whether a bucket may be read, or changed."""
        if self.buckets is None:
            return True
        permission = self.buckets.get(bucket_id)
        return permission == "write" or (permission == "read" and not write)


EVERYTHING = StorageRights()
"""The rights of who has no limits."""


@dataclass(frozen=True, slots=True)
class StorageScope:
    """Whose storage an operation acts on, and on whose behalf."""

    project: str
    branch: str | None = None
    """Development branch; None is the default branch, and all there is where branches are not kept
    apart (`MappingBackend.keeps_branches_apart`)."""
    run_id: str | None = None
    """Run id of the job that acts, stored with what it makes."""
    token_id: str | None = None
    token_description: str | None = None
    rights: StorageRights = EVERYTHING
    """What may be done; who calls a backend sees to it, and a backend need not."""


@dataclass(frozen=True, slots=True)
class MetadataEntry:
    """One key of an object's metadata; unique by (object, provider, key)."""

    id: str
    key: str
    value: str
    provider: str
    timestamp: datetime


@dataclass(frozen=True, slots=True)
class BucketDetail:
    id: str
    """`<stage>.c-<name>`."""
    name: str
    stage: Literal["in", "out"]
    created: datetime
    display_name: str = ""
    description: str = ""
    last_change_date: datetime | None = None
    metadata: tuple[MetadataEntry, ...] = ()
    color: str | None = None
    """What user interfaces show it in."""


BASE_TYPES = ("STRING", "INTEGER", "NUMERIC", "FLOAT", "BOOLEAN", "DATE", "TIMESTAMP")
"""Types that mean the same in every Storage."""


@dataclass(frozen=True, slots=True)
class ColumnDefinition:
    """What a column of a typed table takes.

    Source: mapping.md sections 3.2.1, 3.5.2 and 6.12.
    """

    name: str
    base_type: str | None = None
    """One of `BASE_TYPES`; None: nothing was said, and the column takes text."""
    type: str | None = None
    """The backend's own word, such as `NUMBER`."""
    length: str | None = None
    """Such as `255` or `10,2`."""
    nullable: bool = True
    default: str | None = None
    """What rows get that are there when the column is added."""


@dataclass(frozen=True, slots=True)
class TableDetail:
    id: str
    """`<bucket id>.<name>`: exactly two dots."""
    bucket: str
    name: str
    columns: tuple[str, ...]
    primary_key: tuple[str, ...]
    created: datetime
    uri: str = ""
    display_name: str = ""
    last_import_date: datetime | None = None
    last_change_date: datetime | None = None
    rows_count: int | None = None
    data_size_bytes: int | None = None
    is_alias: bool = False
    is_typed: bool = False
    description: str = ""
    metadata: tuple[MetadataEntry, ...] = ()
    column_metadata: Mapping[str, tuple[MetadataEntry, ...]] = field(default_factory=dict)
    definitions: tuple[ColumnDefinition, ...] = ()
    """One a column, in their order, when `is_typed`; else none."""
    distribution_key: tuple[str, ...] = ()
    source: TableDetail | None = None
    """The table that an alias shows."""


@dataclass(frozen=True, slots=True)
class SnapshotDetail:
    """A copy of a table as it was at one moment."""

    id: str
    """Digits."""
    table: TableDetail
    """What the table was then; its rows may have changed since, and it may be gone."""
    created: datetime
    description: str = ""
    creator_token_id: str | None = None
    creator_token_description: str | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition on a column; several values mean "any of" (`eq`) or "none of" (`ne`).

    Values are compared as the column's type, text case-sensitively, unless `data_type` (`INTEGER`,
    `DOUBLE`, ...) asks for another. Rows without a value match neither `eq` nor `ne`.
    """

    column: str
    values: tuple[str, ...]
    operator: Operator = "eq"
    data_type: str | None = None


@dataclass(frozen=True, slots=True)
class OrderBy:
    column: str
    descending: bool = False
    data_type: str | None = None


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Which part of a table to write, and how. All conditions combine with AND."""

    columns: tuple[str, ...] = ()
    """In this order; empty means all, in table order."""
    filters: tuple[Filter, ...] = ()
    changed_since: datetime | None = None
    """Rows whose last change is at or after this moment."""
    changed_until: datetime | None = None
    """Rows whose last change is before this moment."""
    limit: int | None = None
    order_by: tuple[OrderBy, ...] = ()
    header: bool = True
    gzip: bool = False
    file_type: Literal["csv", "parquet"] = "csv"
    include_internal_timestamp: bool = False
    slice_bytes: int | None = None
    """CSV without order and header: into files of about so many bytes, in a folder `target`. A backend
    may leave it at one file."""


@dataclass(frozen=True, slots=True)
class ExportResult:
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class DeleteWhere:
    """Rows to delete: all given conditions must hold."""

    filters: tuple[Filter, ...] = ()
    changed_since: datetime | None = None
    changed_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class MetadataChange:
    """Keys to be set in what a provider says of a table and of its columns."""

    provider: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By name of the column."""
    only_when_created: bool = False
    """Said of a table that the load makes, not of one that was there."""


@dataclass(frozen=True, slots=True)
class TableLoad:
    """One table to be loaded from CSV files.

    A backend does everything asked here in one transaction, in this order: create the bucket and the
    table when they are missing, add missing columns, delete rows, load, remember `import_key`.

    What is asked for and cannot be is an `InvalidInput`; one whose path begins with `delete_where`
    says that rows could not be deleted. Data that do not fit are a `MappingFailed`.
    """

    table_id: str
    paths: tuple[Path, ...]
    """One file, or the slices in order. Plain or gzip, told apart by their first bytes. May be empty
    when `columns` are given: that creates or empties the table."""
    columns: tuple[str, ...] = ()
    """Names of the fields in the order of the files, which then have no header row; empty: the first
    row of the only file is the header."""
    primary_key: tuple[str, ...] | None = None
    """Key that the table has afterwards; None keeps what it has (a new table gets none)."""
    incremental: bool = False
    """False replaces the content, True appends or, with a key, upserts."""
    deduplication: Literal["upsert", "insert"] = "upsert"
    delimiter: str = ","
    enclosure: str = '"'
    escaped_by: str = ""
    ignored_lines: int = 0
    treat_values_as_null: tuple[str, ...] | None = None
    """None: the default, the empty string; empty: nothing becomes null. Tables without types have no
    nulls: what is to be one is an empty string there."""
    delete_where: tuple[DeleteWhere, ...] = ()
    """Each element deletes on its own, before the load, and only when the table existed before."""
    create: bool = True
    """False: a missing table is an error."""
    only_new: bool = False
    """True: a table that is there already is a `Conflict`, unless this load has made it before."""
    add_columns: bool = True
    """Columns of the files that the table lacks are added; False: they are an error."""
    import_key: str | None = None
    """A key already remembered for this table makes the load a no-op with `repeated` set."""
    definitions: tuple[ColumnDefinition, ...] = ()
    """A new table becomes a typed one, and columns that are not named here take text. Of a typed table
    that is there, new columns get these types, and known ones their nullability and, where it is
    given, length. A table without types stays without."""
    distribution_key: tuple[str, ...] = ()
    """Only for a new table; a backend that does not distribute rows just remembers it."""
    display_name: str | None = None
    """Only for a new table, and given only to a backend that `has_display_names`; None: its name."""
    staging_tags: tuple[str, ...] = ()
    """Tags of the file that the data travel in, for a backend that makes one."""
    metadata: tuple[MetadataChange, ...] = ()
    """Given only to a backend that `says_with_loads`: written in the same transaction. What is refused
    undoes nothing and is told in the result."""


@dataclass(frozen=True, slots=True)
class LoadResult:
    table_id: str
    imported_rows: int
    """Rows read from the files, after duplicates of the key were removed."""
    total_rows: int
    """Rows in the table after the load."""
    created: bool = False
    repeated: bool = False
    new_columns: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """For example a primary key that could not be changed because of duplicates."""
    refused_metadata: tuple[tuple[int, str], ...] = ()
    """Which of `TableLoad.metadata` were not written, and why."""


@dataclass(frozen=True, slots=True)
class FileQuery:
    """Which files to list; all given conditions combine with AND, newest first."""

    tags: tuple[str, ...] = ()
    """Files that carry at least one of these."""
    query: str = ""
    """The query language of storage-api.md section 4.6 and mapping.md section 10.7."""
    since_id: int | None = None
    """Ids greater than this."""
    max_id: int | None = None
    """Ids smaller than this."""
    run_id: str | None = None
    creator_token_id: str | None = None
    """Files that this token has made; None is anybody's."""
    limit: int = 100
    offset: int = 0
    show_expired: bool = False


@dataclass(frozen=True, slots=True)
class FileDetail:
    id: int
    name: str
    created: datetime
    size_bytes: int
    tags: tuple[str, ...] = ()
    is_public: bool = False
    is_encrypted: bool = False
    is_sliced: bool = False
    max_age_days: int | None = None
    """None for permanent files."""
    run_id: str | None = None
    creator_token_id: str | None = None
    creator_token_description: str | None = None
    slices: tuple[str, ...] = ()
    """Names of the slices of a sliced file, in order."""
    is_uploaded: bool = True
    """False: the file has been prepared, and its content has not come yet; `size_bytes` is then what
    was announced."""


@dataclass(frozen=True, slots=True)
class FileUpload:
    name: str
    tags: tuple[str, ...] = ()
    is_public: bool = False
    is_permanent: bool = False
    is_encrypted: bool = True
    is_sliced: bool = False
    notify: bool = False
    size_bytes: int | None = None
    """Announced for a file whose content comes later; else the content says it."""
    of_table: bool = False
    """It is the export of a table, and named as that is: a `-` in its name stays."""


@dataclass(frozen=True, slots=True)
class Blob:
    """One object of which a file's content is made: all of it, or a slice."""

    name: str
    """Empty for all of a file that is not sliced."""
    size_bytes: int
    modified: datetime
    etag: str
    """Another one whenever the content is another one."""


@dataclass(frozen=True, slots=True)
class BlockRef:
    """A block that a blob is to be made of."""

    id: str
    among: Literal["latest", "staged", "committed"] = "latest"
    """Where to look: `latest` is among the staged blocks first, then among those that the blob is made
    of now."""
