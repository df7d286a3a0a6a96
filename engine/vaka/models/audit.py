"""Entries of the audit log: who did what to which thing, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One act. It never holds a secret, nor a part of one."""

    kind: str
    """What was done, as `token.created` or `secrets.decrypted`."""
    project: str | None = None
    """Whose it was; None is the installation's."""
    token_id: str | None = None
    """Who did it, when it was done with a token."""
    token_description: str | None = None
    address: str | None = None
    """Where a request came from."""
    subject: Mapping[str, str] = field(default_factory=dict)
    """Which things it was done to, by their kind."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """What else is known of it; JSON."""
    id: int = 0
    """Counted up in the order of writing; 0: not written yet."""
    moment: datetime | None = None
    """When it was written."""


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which entries to read, newest first; all given conditions combine."""

    project: str | None = None
    """Of this project; None: all, and the installation's."""
    kind: str | None = None
    """`token.created`, or `token` for all that begin with it and a dot."""
    token_id: str | None = None
    """Done with this token, or to it."""
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None
    """Ids smaller than this: the next page."""
    limit: int = 100
