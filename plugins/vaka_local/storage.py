"""The embedded Storage as one mapping backend."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from vaka.errors import ApplicationError
from vaka.hooks import FileBackend, MappingBackend, TableBackend
from vaka.models.storage import StorageScope
from vaka_local.database import Database
from vaka_local.duck import Duck
from vaka_local.files import LocalFiles
from vaka_local.tables import LocalTables


def utc_now() -> datetime:
    """The time of the machine."""
    return datetime.now(UTC)


class LocalStorage(MappingBackend):
    """Tables and files in a folder of this machine.

    The folder has `tables/`, a DuckDB file for each project and each branch, `files/`, the content of
    files, `blocks/`, parts of content that is being sent, `reading/`, what is being read of it,
    `catalog.db`, what is known of files and all of the catalog, and `tmp/`.
    """

    def __init__(
        self,
        home: Path,
        *,
        memory_bytes: int | None = None,
        threads: int | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Keep everything in `home`, an absolute path; made when it is not there.

        `memory_bytes` and `threads` bound DuckDB, for all projects together: a quarter of the
        machine's memory and a thread a core, when None. `clock` gives the time in UTC.
        """
        self._home = home
        self._database = Database(home)
        self._duck = Duck(home, memory_bytes=memory_bytes, threads=threads)
        self._tables = LocalTables(self._duck, clock)
        self._files = LocalFiles(home, self._database, clock)

    @property
    def tables(self) -> TableBackend:
        return self._tables

    @property
    def files(self) -> FileBackend:
        return self._files

    @property
    def has_types(self) -> bool:
        return True

    @property
    def has_display_names(self) -> bool:
        return True

    @property
    def has_snapshots(self) -> bool:
        return True

    @property
    def says_with_loads(self) -> bool:
        return True

    @property
    def keeps_branches_apart(self) -> bool:
        return True

    async def drop_branch(self, project: str, branch: str) -> None:
        scope = StorageScope(project, branch)
        await self._tables.drop_branch(scope)
        await self._files.drop_branch(scope)

    async def open(self) -> None:
        try:
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ApplicationError(
                f"The storage folder {self._home} cannot be made: {error.strerror}."
            ) from error
        await self._database.open()

    async def aclose(self) -> None:
        await self._duck.aclose()
        await self._database.aclose()
