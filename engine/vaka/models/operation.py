"""Operations on Storage that are accepted now and done later; Storage's API calls them jobs.

Source: storage-api.md section 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from vaka.models.catalog import Json
from vaka.models.storage import BucketDetail, TableDetail


class OperationStatus(StrEnum):
    """Where an operation is; clients know no other words."""

    WAITING = "waiting"
    PROCESSING = "processing"
    SUCCESS = "success"
    ERROR = "error"

    @property
    def is_finished(self) -> bool:
        return self in {OperationStatus.SUCCESS, OperationStatus.ERROR}


@dataclass(frozen=True, slots=True)
class NewOperation:
    """An operation to be accepted. What its parameters say was checked by whoever submits it."""

    project: str
    kind: str
    """Such as `tableImport`: a name that a handler has (`vaka.operations`)."""
    params: Mapping[str, Json]
    """As they are shown to clients (`operationParams`), key order kept."""
    branch: str | None = None
    """`StorageScope.branch`."""
    table_id: str | None = None
    """The table that it is about, which it has for itself; also of one that it makes."""
    bucket_id: str | None = None
    """The bucket that it has for itself, with all tables in it; not given together with `table_id`."""
    run_id: str | None = None
    token_id: str | None = None
    token_description: str | None = None
    project_parallelism: int | None = None
    """How many operations of the project may be done at a time; None: as many as the engine does."""

    def __post_init__(self) -> None:
        if self.table_id is not None and self.bucket_id is not None:
            raise ValueError("an operation is about a table or a bucket, not both")


@dataclass(frozen=True, slots=True)
class Transfer:
    """Bytes that an operation moved."""

    in_compressed: bool = False
    in_bytes: int = 0
    out_compressed: bool = False
    out_bytes: int = 0


NO_TRANSFER = Transfer()


@dataclass(frozen=True, slots=True)
class Done:
    """What a successful operation leaves to be shown: a table, a bucket, or any JSON."""

    value: Json = None
    table: TableDetail | None = None
    """The table as it was then, shown in place of `value`; its bucket is in `bucket`."""
    bucket: BucketDetail | None = None
    transfer: Transfer = NO_TRANSFER
    cache_key: str | None = None
    """Equal for exports that give the same file."""


@dataclass(frozen=True, slots=True)
class OperationError:
    """Why an operation failed."""

    code: str
    """Storage's word (storage-api.md section 1.5)."""
    message: str
    exception_id: str
    """Names the occurrence in the engine's log."""


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation as the store knows it. Times are UTC, None until they happened."""

    id: int
    project: str
    branch: str | None
    kind: str
    params: Mapping[str, Json]
    table_id: str | None
    run_id: str | None
    status: OperationStatus
    created: datetime
    started: datetime | None = None
    ended: datetime | None = None
    results: Done | None = None
    """Of a successful one."""
    error: OperationError | None = None
    """Of a failed one."""
    token_id: str | None = None
    token_description: str | None = None
    owner: str | None = None
    """The engine that has it."""
    attempt: int = 0
    """How often it was begun; above 1 an engine has died over it."""


@dataclass(frozen=True, slots=True)
class OperationQuery:
    """Which operations to list, newest first; conditions combine with AND."""

    project: str
    statuses: tuple[OperationStatus, ...] = ()
    kinds: tuple[str, ...] = ()
    table_id: str | None = None
    bucket_id: str | None = None
    """Of any table of it."""
    run_id: str | None = None
    token_id: str | None = None
    created_since: datetime | None = None
    created_until: datetime | None = None
    limit: int = 100
    offset: int = 0
