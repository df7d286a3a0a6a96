"""What a handler is given."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import trio

from vaka.hooks import Catalog, MappingBackend
from vaka.models.catalog import Json, Token
from vaka.models.operation import Operation
from vaka.models.storage import StorageScope
from vaka.store import JobStore


@dataclass(frozen=True, slots=True)
class Work:
    """One operation to be done, and what it is done with."""

    operation: Operation
    storage: MappingBackend
    catalog: Catalog
    store: JobStore
    folder: Path
    """A folder of its own, which is there and empty, and is removed afterwards."""

    @property
    def scope(self) -> StorageScope:
        """Whose storage it acts on, in whose name."""
        operation = self.operation
        return StorageScope(
            project=operation.project,
            branch=operation.branch,
            run_id=operation.run_id,
            token_id=operation.token_id,
            token_description=operation.token_description,
        )

    @property
    def import_key(self) -> str:
        """Makes what it loads and uploads count once."""
        return f"operation-{self.operation.id}"

    @property
    def is_repeated(self) -> bool:
        """Whether an engine died over it: it may have been done already."""
        return self.operation.attempt > 1

    @property
    def table_id(self) -> str:
        """The table that it is about."""
        assert self.operation.table_id is not None  # noqa: S101 - of all kinds that ask for it
        return self.operation.table_id

    async def token(self) -> Token | None:
        """Who asked for it, as far as the token is still there."""
        for each in await self.catalog.tokens(self.operation.project):
            if each.id == self.operation.token_id:
                return each
        return None


def created(moment: datetime) -> str:
    """A time as Storage writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S%z")


def creator(operation: Operation) -> Json:
    """Who asked for it, as what is made names them."""
    if operation.token_id is None:
        return {}
    return {
        "id": number(operation.token_id),
        "description": operation.token_description or "",
    }


def number(text: str) -> int | str:
    """An id as an integer, where it is one."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else text


async def is_packed(path: Path) -> bool:
    """Whether a file begins as gzip does."""

    def look() -> bool:
        with path.open("rb") as file:
            return file.read(2) == b"\x1f\x8b"

    return await trio.to_thread.run_sync(look)
