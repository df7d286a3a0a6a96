"""The mapping backend: one database for tables and files."""

from __future__ import annotations

from pathlib import Path

from vaka.hooks import FileBackend, MappingBackend, TableBackend
from vaka_sqlite.database import Database
from vaka_sqlite.files import SqliteFiles
from vaka_sqlite.tables import SqliteTables


class SqliteBackend(MappingBackend):
    """Tables and files in the SQLite database at `path`."""

    def __init__(self, path: Path) -> None:
        # nothing is opened here: the hook that makes this object is synchronous and must be quick
        self._database = Database(path)
        self._tables = SqliteTables(self._database)
        self._files = SqliteFiles(self._database, path.with_name(f"{path.name}.files"))

    async def open(self) -> None:
        await self._database.open()
        await self._files.remove_expired()

    async def aclose(self) -> None:
        await self._database.aclose()

    @property
    def tables(self) -> TableBackend:
        return self._tables

    @property
    def files(self) -> FileBackend:
        return self._files

    @property
    def backend_name(self) -> str:
        return "sqlite"
