"""The audit log: administrative acts, the use of tokens, and the use of secrets.

Entries are only ever added; the database itself refuses to change or remove one. What goes in is
bounded here, so that nobody can fill the log with one long name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from vaka.models.audit import AuditEntry, AuditQuery
from vaka.store import JobStore

MOST_TEXT: Final = 255
"""Characters of one text; what is beyond is cut."""
MOST_DETAIL: Final = 16 << 10
"""Bytes of an entry's detail, which is left out when it has more."""


class AuditLog:
    """Writes and reads the log of an installation."""

    def __init__(self, store: JobStore) -> None:
        self._store = store

    async def record(self, entry: AuditEntry) -> None:
        """Add an entry; durable when it returns."""
        await self._store.append_audit(_bounded(entry))

    async def record_first(self, entry: AuditEntry) -> None:
        """Add an entry unless its token has one of its kind."""
        await self._store.append_audit(_bounded(entry), once=True)

    async def entries(self, query: AuditQuery) -> list[AuditEntry]:
        """The entries that match, newest first."""
        return await self._store.audit(query)


def _bounded(entry: AuditEntry) -> AuditEntry:
    detail: Mapping[str, Any] = dict(entry.detail)
    if len(json.dumps(detail)) > MOST_DETAIL:
        detail = {"omitted": "larger than an entry may be"}
    return replace(
        entry,
        token_description=_clean(entry.token_description),
        address=_clean(entry.address),
        subject={name: _clean(value) or "" for name, value in entry.subject.items()},
        detail=detail,
    )


def _clean(text: str | None) -> str | None:
    """A text that every database keeps, of a length that it may have."""
    if text is None:
        return None
    return text[:MOST_TEXT].replace("\0", "").encode("utf-8", "replace").decode()
