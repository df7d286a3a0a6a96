"""Metadata of buckets, tables and columns: what may be said, and saying it in a transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Final

from vaka.errors import InvalidInput, NotFound
from vaka.models.storage import BucketDetail
from vaka_local import records
from vaka_local.duck import Session
from vaka_local.records import Known

_LONGEST_KEY: Final = 255


def check(
    provider: str, metadata: Mapping[str, str], columns: Mapping[str, Mapping[str, str]]
) -> None:
    """Refuse metadata that no object can have.

    Raises:
        InvalidInput: the provider is missing, or a key is empty or too long.
    """
    if not provider:
        raise InvalidInput(
            "Metadata need a provider.", path="provider", code="storage.metadata.invalidProvider"
        )
    for key in [*metadata, *(key for each in columns.values() for key in each)]:
        if not key or len(key) > _LONGEST_KEY:
            raise InvalidInput(
                f'"{key}" is not a metadata key: it has 1 to {_LONGEST_KEY} characters.',
                path="key",
                code="storage.metadata.invalidKey",
            )


def say_of_bucket(
    session: Session,
    before: BucketDetail,
    provider: str,
    metadata: Mapping[str, str],
    now: datetime,
) -> BucketDetail:
    """Set metadata of a bucket, and return how it is then."""
    said = records.write_metadata(session, before.id, "", provider, metadata, now, before.metadata)
    return replace(before, metadata=said)


def say(
    session: Session,
    before: Known,
    provider: str,
    metadata: Mapping[str, str],
    columns: Mapping[str, Mapping[str, str]],
    now: datetime,
) -> Known:
    """Set metadata of a table and its columns, and return how it is then.

    Raises:
        NotFound: there is no such column; nothing was set.
    """
    for column in columns:
        if column not in before.table.columns:
            raise no_column(before.id, column)
    write = partial(records.write_metadata, session, before.id)
    said = dict(before.detail.column_metadata)
    for column, entries in columns.items():
        said[column] = write(column, provider, entries, now, said.get(column, ()))
    return before.said(write("", provider, metadata, now, before.detail.metadata), said)


def unsay(session: Session, object_id: str, column: str, entry_id: str) -> None:
    """Remove an entry of an object's metadata, or of its column's.

    Raises:
        NotFound: that has no such entry.
    """
    is_number = entry_id.isascii() and entry_id.isdigit() and len(entry_id) <= 18
    if not is_number or not records.drop_metadata(session, object_id, column, int(entry_id)):
        raise NotFound("The supplied metadata ID was not found", kind="metadata", id=entry_id)


def no_column(object_id: str, column: str) -> NotFound:
    return NotFound(
        f'The column "{column}" was not found in "{object_id}"', kind="column", id=column
    )
