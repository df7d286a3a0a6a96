"""The database: its schema, and transactions in worker threads.

Every operation of the backend is one function that runs in one transaction, in a thread. What it
raises takes everything back; so does a cancellation, which ends even a statement that is running.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import trio

from vaka.errors import ApplicationError

T = TypeVar("T")

OLDEST_SQLITE = (3, 35, 0)
"""The first that drops columns."""
VERSION = 1
"""Of the schema, kept in the database."""
BUSY_TIMEOUT = 60.0
"""Seconds to wait for a writer in another process."""
_STEPS = 10_000
"""Instructions of SQLite's between two looks at whether we are cancelled: below a millisecond."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)

# All times are microseconds since 1970. The rows of table number 7 are in `rows_7`.
SCHEMA = """
CREATE TABLE bucket (
    project TEXT NOT NULL,
    id TEXT NOT NULL,
    description TEXT NOT NULL,
    created INTEGER NOT NULL,
    changed INTEGER,
    PRIMARY KEY (project, id)
) WITHOUT ROWID;
CREATE TABLE "table" (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    project TEXT NOT NULL,
    bucket TEXT NOT NULL,
    id TEXT NOT NULL,
    columns TEXT NOT NULL,
    primary_key TEXT NOT NULL,
    rows INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    created INTEGER NOT NULL,
    imported INTEGER,
    changed INTEGER,
    UNIQUE (project, id),
    FOREIGN KEY (project, bucket) REFERENCES bucket (project, id)
);
CREATE TABLE import_key (
    "table" INTEGER NOT NULL REFERENCES "table" (number) ON DELETE CASCADE,
    key TEXT NOT NULL,
    rows INTEGER NOT NULL,
    PRIMARY KEY ("table", key)
) WITHOUT ROWID;
CREATE TABLE metadata (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    project TEXT NOT NULL,
    object TEXT NOT NULL,
    "column" TEXT NOT NULL,
    provider TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    changed INTEGER NOT NULL,
    UNIQUE (project, object, "column", provider, key)
);
CREATE TABLE file (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    words TEXT NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER,
    bytes INTEGER NOT NULL,
    is_public INTEGER NOT NULL,
    is_encrypted INTEGER NOT NULL,
    is_sliced INTEGER NOT NULL,
    slices TEXT NOT NULL,
    run_id TEXT,
    token_id TEXT,
    token_description TEXT,
    import_key TEXT,
    UNIQUE (project, import_key)
);
CREATE TABLE tag (
    file INTEGER NOT NULL REFERENCES file (id) ON DELETE CASCADE,
    tag TEXT NOT NULL,
    UNIQUE (file, tag)
);
CREATE INDEX tag_tag ON tag (tag);
"""


class Database:
    """Runs functions in transactions: readers beside each other, writers one after the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = trio.Lock()
        self._anchor: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Create what is missing.

        Raises:
            ApplicationError: there can be no such database, or another version made this one.
        """
        await trio.to_thread.run_sync(self._open)

    async def aclose(self) -> None:
        """Let go of the file. What has been committed is in it."""
        if self._anchor is not None:
            self._anchor.close()
            self._anchor = None

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` returns, which sees the database as it is at one moment."""
        return await trio.to_thread.run_sync(self._run, "BEGIN", work)

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` returns, once what it changed is on the disk."""
        async with self._writer:
            return await trio.to_thread.run_sync(self._run, "BEGIN IMMEDIATE", work)

    def _open(self) -> None:
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise ApplicationError(
                f"This Python has SQLite {sqlite3.sqlite_version}; "
                f"{'.'.join(map(str, OLDEST_SQLITE))} or newer is needed."
            )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # The last connection that closes takes the write-ahead log along. This one stays.
            self._anchor = sqlite3.connect(
                self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
            )
            self._anchor.execute("PRAGMA journal_mode = WAL")
        except (OSError, sqlite3.Error) as error:
            raise ApplicationError(f"The database {self.path} cannot be opened: {error}") from error
        self._run("BEGIN IMMEDIATE", self._create)

    def _create(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == VERSION:
            return
        if version != 0:
            raise ApplicationError(
                f"The database {self.path} has schema {version}, this plugin knows {VERSION}: "
                "install the version of vaka-sqlite that made it."
            )
        for statement in SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")

    def _run(self, begin: str, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            connection = self._connect()
            try:
                connection.execute(begin)
                result = work(connection)
                connection.execute("COMMIT")
            finally:
                connection.close()  # takes back what is not committed
        except sqlite3.Error as error:
            trio.from_thread.check_cancelled()  # when that is why the statement was interrupted
            raise ApplicationError(f"The database {self.path} failed: {error}") from error
        except OSError as error:
            raise ApplicationError(f"A file cannot be read or written: {error}") from error
        return result

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")  # what is committed survives a power cut
        connection.create_function("number", 1, number, deterministic=True)
        connection.create_function("iso", 1, _iso, deterministic=True)
        connection.set_progress_handler(_is_cancelled, _STEPS)
        return connection


def now() -> int:
    """This moment."""
    return microseconds(datetime.now(UTC))


def microseconds(moment: datetime) -> int:
    """A moment as the database has it."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment(value: int) -> datetime:
    """A moment of the database."""
    return _EPOCH + timedelta(microseconds=value)


def bounded(value: int) -> int:
    """A number that SQLite can bind, and that compares with all that are in the database as it did."""
    return max(-(2**63), min(value, 2**63 - 1))


def number(text: str) -> float | None:
    """The number that `text` is, or None when it is none. SQLite's CAST would make it 0."""
    return float(text) if _NUMBER.fullmatch(text) else None


def _iso(value: int) -> str:
    return moment(value).isoformat(sep=" ", timespec="microseconds").removesuffix("+00:00")


def _is_cancelled() -> bool:
    try:
        trio.from_thread.check_cancelled()
    except trio.Cancelled:
        return True
    return False
