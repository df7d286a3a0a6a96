"""What the server writes into the audit log: acts of routes, and the use of tokens."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import trio

from vaka.models.audit import AuditEntry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vaka import Engine
    from vaka.models.catalog import Token

KNOWN_TOKENS = 10_000
"""Tokens that are remembered to have been used, so that the log need not be asked."""
WINDOW = 60.0
"""Seconds in which an address is written down once for all tokens of it that were refused."""
MOST_REFUSED = 20
"""Refusals that are written down in that time; all further ones are counted only."""


class Witness:
    """Writes entries, and sees to it that nobody can fill the log by asking."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._used: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._window = -WINDOW
        self._refused: set[str] = set()
        self._unwritten = 0

    async def acted(
        self,
        kind: str,
        token: Token,
        address: str | None,
        subject: Mapping[str, str],
        detail: Mapping[str, Any],
    ) -> None:
        """An act that has succeeded."""
        await self._engine.audit.record(
            AuditEntry(
                kind=kind,
                project=token.project.id,
                token_id=token.id,
                token_description=token.description,
                address=address,
                subject=subject,
                detail=detail,
            )
        )

    async def used(self, token: Token, address: str | None) -> None:
        """A token was used; the first time is written down."""
        key = token.project.id, token.id
        if key in self._used:
            return
        self._used[key] = None
        if len(self._used) > KNOWN_TOKENS:
            self._used.popitem(last=False)
        await self._engine.audit.record_first(
            AuditEntry(
                kind="token.used",
                project=token.project.id,
                token_id=token.id,
                token_description=token.description,
                address=address,
                subject={"token": token.id},
            )
        )

    async def refused(self, address: str | None, path: str) -> None:
        """A token was refused; an address is written down once in a while."""
        now = trio.current_time()
        if now - self._window >= WINDOW:
            self._window = now
            self._refused.clear()
        if address in self._refused or len(self._refused) >= MOST_REFUSED:
            self._unwritten += 1
            return
        self._refused.add(address or "")
        unwritten, self._unwritten = self._unwritten, 0
        detail: dict[str, Any] = {"path": path[:200]}
        if unwritten:
            detail["refusedBefore"] = unwritten
        await self._engine.audit.record(
            AuditEntry(kind="token.refused", address=address, detail=detail)
        )
