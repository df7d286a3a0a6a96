"""What is known of buckets and tables, kept in memory: looking it up costs more than most changes.

Only this process writes to a project's file. Whoever changes something says what became of it while it
still holds the lock, so what is kept here is never older than the last change. For one thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Final

from vaka.models.storage import BucketDetail
from vaka_local.records import Known

_MOST: Final = 10_000
"""Buckets and tables that are kept."""


class Details:
    """Buckets and tables by project and id."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], BucketDetail | Known] = {}
        self._asked: dict[tuple[str, str], object] = {}

    def table(self, project: str, table_id: str) -> Known | None:
        """The table, or None when it is not kept here."""
        found = self._kept.get((project, table_id))
        return found if isinstance(found, Known) else None

    def bucket(self, project: str, bucket_id: str) -> BucketDetail | None:
        """The bucket, or None when it is not kept here."""
        found = self._kept.get((project, bucket_id))
        return found if isinstance(found, BucketDetail) else None

    def ask(self, project: str, object_id: str) -> object:
        """A ticket for `answer`, to be had before the object is looked up."""
        ticket = self._asked[project, object_id] = object()
        return ticket

    def answer(self, project: str, ticket: object, found: BucketDetail | Known) -> None:
        """Keep what was looked up, unless it has changed meanwhile."""
        key = (project, found.id)
        if self._asked.get(key) is ticket:
            del self._asked[key]
            self._keep(key, found)

    def learn(self, project: str, changed: Iterable[BucketDetail | Known]) -> None:
        """Keep what a change has made of buckets and tables."""
        for each in changed:
            self._drop((project, each.id))
            self._keep((project, each.id), each)
            if isinstance(each, Known):
                key = (project, each.table.bucket)
                bucket = self.bucket(*key)
                self._drop(key)
                if bucket is not None:
                    moments = (bucket.last_change_date, each.table.last_change, each.table.created)
                    last = max(moment for moment in moments if moment is not None)
                    self._keep(key, replace(bucket, last_change_date=last))

    def forget(self, project: str, changed: Collection[str] | None) -> None:
        """Keep these no longer, nor the buckets that they are in; None is all of the project."""
        if changed is None:
            gone = [key for key in (*self._kept, *self._asked) if key[0] == project]
        else:
            buckets = {each.rpartition(".")[0] for each in changed}
            gone = [(project, each) for each in {*changed, *buckets}]
        for key in gone:
            self._drop(key)

    def _keep(self, key: tuple[str, str], found: BucketDetail | Known) -> None:
        if isinstance(found, Known) and found.table.source is not None:
            return  # an alias is another one whenever the table that it shows has changed
        if len(self._kept) >= _MOST:
            self._kept.clear()
        self._kept[key] = found

    def _drop(self, key: tuple[str, str]) -> None:
        self._kept.pop(key, None)
        self._asked.pop(key, None)
