"""The SQL database of the embedded Storage: what is known of files, and the catalog.

SQLAlchemy Core throughout, without anything of one database's own in the queries: SQLite now, and a
PostgreSQL URL later. The schema has a version; a change of it is a new migration at the end.
"""

# ruff: noqa: S608 - what migrations put together are names of this module

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa
import trio
import trio.to_thread
from sqlalchemy import event
from sqlalchemy.engine import Connection, Dialect, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeDecorator

from vaka.errors import ApplicationError, DiskFull, StorageUnavailable
from vaka.models.ulid import new_ulid
from vaka_local.disk import is_full

T = TypeVar("T")

_READERS: Final = 4
_BUSY_SECONDS: Final = 30
"""How long to wait for another process that writes."""


class Moment(TypeDecorator[datetime]):
    """A moment, kept in UTC without a zone and given with one."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.replace(tzinfo=UTC)


metadata = sa.MetaData()
MAIN: Final = "Main"
"""Name of every project's default branch."""


def _creator() -> list[sa.Column[Any]]:
    return [sa.Column("creator_id", sa.String), sa.Column("creator_description", sa.String)]


files = sa.Table(
    "files",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("project", sa.String, nullable=False),
    # empty in the default branch
    sa.Column("branch", sa.String, nullable=False, server_default=""),
    sa.Column("name", sa.String, nullable=False),
    # the name in lower case, and its words with a blank around each, for searching
    sa.Column("name_lower", sa.String, nullable=False),
    sa.Column("name_words", sa.String, nullable=False),
    sa.Column("created", Moment, nullable=False),
    sa.Column("expires", Moment),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("is_public", sa.Boolean, nullable=False),
    sa.Column("is_encrypted", sa.Boolean, nullable=False),
    sa.Column("is_sliced", sa.Boolean, nullable=False),
    sa.Column("max_age_days", sa.Integer),
    sa.Column("run_id", sa.String),
    *_creator(),
    sa.Column("import_key", sa.String),
    sa.Column("is_uploaded", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.UniqueConstraint("project", "import_key"),
    sa.Index("files_by_project", "project", "id"),
    sa.Index("files_by_expiry", "expires"),
    sqlite_autoincrement=True,
)
file_tags = sa.Table(
    "file_tags",
    metadata,
    sa.Column("file_id", sa.ForeignKey("files.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("tag", sa.String, primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Index("files_by_tag", "tag", "file_id"),
)
# which blobs are a file's slices; names are taken as a client gives them, so there may be no such blob
file_slices = sa.Table(
    "file_slices",
    metadata,
    sa.Column("file_id", sa.ForeignKey("files.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
)
# the content of files; a file that is not sliced is the blob with the empty name
file_blobs = sa.Table(
    "file_blobs",
    metadata,
    sa.Column("file_id", sa.ForeignKey("files.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.String, primary_key=True),
    # the file that holds it, below the folder of the project
    sa.Column("content", sa.String, nullable=False),
    sa.Column("size_bytes", sa.BigInteger),  # null: as large as that file
    sa.Column("modified", Moment, nullable=False),
    # a list of [id, size] of the blocks it was made of
    sa.Column("blocks", sa.Text),
)
projects = sa.Table(
    "projects",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("created", Moment, nullable=False),
    sa.Column("features", sa.Text, nullable=False),
    sa.Column("limits", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)
branches = sa.Table(
    "branches",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("project_id", sa.ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("is_default", sa.Boolean, nullable=False),
    sa.Column("created", Moment, nullable=False),
    *_creator(),
    sa.UniqueConstraint("project_id", "name"),
    sqlite_autoincrement=True,
)
tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("project_id", sa.ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    sa.Column("description", sa.String, nullable=False),
    sa.Column("role", sa.String, nullable=False),
    sa.Column("secret_hash", sa.String, nullable=False, unique=True),
    sa.Column("created", Moment, nullable=False),
    sa.Column("expires", Moment),
    sa.Column("component_access", sa.Text),
    sa.Column("bucket_permissions", sa.Text),
    sa.Column("can_manage_tokens", sa.Boolean, nullable=False, server_default="1"),
    sa.Column("can_read_all_file_uploads", sa.Boolean, nullable=False, server_default="1"),
    sa.Column("can_purge_trash", sa.Boolean, nullable=False, server_default="1"),
    sa.Column("refreshed", Moment),
    *_creator(),
    sqlite_autoincrement=True,
)
components = sa.Table(
    "components",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("document", sa.Text, nullable=False),
)
configurations = sa.Table(
    "configurations",
    metadata,
    sa.Column("key", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("project_id", sa.ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    sa.Column("branch_id", sa.ForeignKey("branches.id", ondelete="CASCADE"), nullable=False),
    sa.Column("component_id", sa.String, nullable=False),
    sa.Column("id", sa.String, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("is_deleted", sa.Boolean, nullable=False),
    # deleted for good in a development branch, and hides what the default branch has
    sa.Column("is_purged", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("created", Moment, nullable=False),
    *_creator(),
    # of the default branch; those of others are in `branch_states`
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("state_version", sa.Integer, nullable=False),
    sa.UniqueConstraint("project_id", "component_id", "id", "branch_id"),
    sa.Index("configurations_by_branch", "branch_id"),
    sqlite_autoincrement=True,
)


def _configuration_key() -> sa.Column[Any]:
    reference = sa.ForeignKey("configurations.key", ondelete="CASCADE")
    return sa.Column("configuration_key", reference, primary_key=True)


def _content() -> list[sa.Column[Any]]:
    """What a version of a configuration or of a row has."""
    return [
        sa.Column("name", sa.String, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("configuration", sa.Text, nullable=False),
        sa.Column("is_disabled", sa.Boolean, nullable=False),
        sa.Column("change_description", sa.Text, nullable=False),
        sa.Column("identifier", sa.String, nullable=False),
        sa.Column("created", Moment, nullable=False),
        *_creator(),
    ]


configuration_versions = sa.Table(
    "configuration_versions",
    metadata,
    _configuration_key(),
    sa.Column("version", sa.Integer, primary_key=True),
    *_content(),
    sa.Column("rows_sort_order", sa.Text, nullable=False),
    # a list of [row id, row version], in the order in which the rows were made
    sa.Column("rows", sa.Text, nullable=False),
)
configuration_rows = sa.Table(
    "configuration_rows",
    metadata,
    _configuration_key(),
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("is_deleted", sa.Boolean, nullable=False),
    sa.Column("created", Moment, nullable=False),
    *_creator(),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("state_version", sa.Integer, nullable=False),
)
row_versions = sa.Table(
    "row_versions",
    metadata,
    _configuration_key(),
    sa.Column("row_id", sa.String, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    *_content(),
)
branch_states = sa.Table(
    "branch_states",
    metadata,
    _configuration_key(),
    sa.Column("row_id", sa.String, primary_key=True),  # empty for the configuration's own state
    sa.Column(
        "branch_id", sa.ForeignKey("branches.id", ondelete="CASCADE"), primary_key=True, index=True
    ),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("state_version", sa.Integer, nullable=False),
)
state_keys = sa.Table(
    "state_keys",
    metadata,
    _configuration_key(),
    sa.Column("row_id", sa.String, primary_key=True),  # empty for the configuration's own state
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("written", Moment, nullable=False),
)
catalog_metadata = sa.Table(
    "catalog_metadata",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("branch_id", sa.ForeignKey("branches.id", ondelete="CASCADE"), nullable=False),
    # null for what is said of the branch itself
    sa.Column("configuration_key", sa.ForeignKey("configurations.key", ondelete="CASCADE")),
    sa.Column("key", sa.String, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("written", Moment, nullable=False),
    sa.Index("catalog_metadata_by_owner", "branch_id", "configuration_key"),
    sa.Index("catalog_metadata_by_configuration", "configuration_key", "key"),
    sqlite_autoincrement=True,
)
workspaces = sa.Table(
    "workspaces",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("branch_id", sa.ForeignKey("branches.id", ondelete="CASCADE"), nullable=False),
    sa.Column(
        "configuration_key",
        sa.ForeignKey("configurations.key", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    sa.Column("is_read_only", sa.Boolean, nullable=False),
    sa.Column("request_key", sa.String),
    sa.Column("created", Moment, nullable=False),
    *_creator(),
    sa.UniqueConstraint("branch_id", "request_key"),
    sqlite_autoincrement=True,
)
vault_variables = sa.Table(
    "vault_variables",
    metadata,
    sa.Column("project_id", sa.ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("branch", sa.String, primary_key=True),  # empty for the default branch
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("is_encrypted", sa.Boolean, nullable=False),
)
oauth_credentials = sa.Table(
    "oauth_credentials",
    metadata,
    sa.Column("project_id", sa.ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("component_id", sa.String, primary_key=True),
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("created", Moment, nullable=False),
)
counters = sa.Table(
    "counters",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)

_versions = sa.Table(
    "vaka_local_schema",
    sa.MetaData(),
    sa.Column("version", sa.Integer, primary_key=True),
)


def _add_the_vault(connection: Connection) -> None:
    for table in (vault_variables, oauth_credentials):
        table.create(connection, checkfirst=True)


def _add_branches(connection: Connection) -> None:
    branches.create(connection)
    branch_states.create(connection)
    connection.execute(
        branches.insert().from_select(
            ["project_id", "name", "description", "is_default", "created"],
            sa.select(
                projects.c.id, sa.literal(MAIN), sa.literal(""), sa.true(), projects.c.created
            ),
        )
    )
    connection.exec_driver_sql("ALTER TABLE files ADD COLUMN branch VARCHAR DEFAULT '' NOT NULL")


def _add_blobs(connection: Connection) -> None:
    file_blobs.create(connection)
    connection.exec_driver_sql(
        "ALTER TABLE files ADD COLUMN is_uploaded BOOLEAN DEFAULT 1 NOT NULL"
    )
    # a sliced file was a folder of its slices
    connection.exec_driver_sql(
        "INSERT INTO file_blobs (file_id, name, content, size_bytes, modified)"
        " SELECT id, '', content, size_bytes, created FROM files"
        " WHERE content IS NOT NULL AND NOT is_sliced"
        " UNION ALL SELECT id, s.name, content || '/' || s.name, NULL, created"
        " FROM files JOIN file_slices AS s ON s.file_id = id WHERE content IS NOT NULL"
    )
    connection.exec_driver_sql("ALTER TABLE files DROP COLUMN content")


def _add_configurations_of_branches(connection: Connection) -> None:
    """Each configuration gets a branch, each version a name; metadata and workspaces are new.

    SQLite cannot change what is unique, and dropping a table takes with it what refers to it, so the
    tables are put aside, made anew and filled again.
    """
    tables = (
        configurations,
        configuration_versions,
        configuration_rows,
        row_versions,
        branch_states,
        state_keys,
    )
    for table in tables:
        connection.exec_driver_sql(
            f"CREATE TEMPORARY TABLE old_{table.name} AS SELECT * FROM {table.name}"
        )
    for table in reversed(tables):
        connection.exec_driver_sql(f"DROP TABLE {table.name}")
    for table in (*tables, catalog_metadata, workspaces):
        table.create(connection, checkfirst=True)
    main = (
        "(SELECT branches.id FROM branches WHERE is_default "
        "AND branches.project_id = old_configurations.project_id)"
    )
    made = {
        "configurations.branch_id": main,
        "configurations.is_purged": "0",
        "configuration_versions.identifier": "name_of_version(created)",
        "row_versions.identifier": "name_of_version(created)",
    }
    raw = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)  # noqa: S101 - what the engine is made for
    raw.create_function("name_of_version", 1, lambda text: new_ulid(_moment_of(text)))
    for table in tables:
        names = [column.name for column in table.columns]
        values = ", ".join(made.get(f"{table.name}.{name}", name) for name in names)
        connection.exec_driver_sql(
            f"INSERT INTO {table.name} ({', '.join(names)}) SELECT {values} FROM old_{table.name}"
        )
        connection.exec_driver_sql(f"DROP TABLE old_{table.name}")


def _moment_of(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _add_rights_of_tokens(connection: Connection) -> None:
    for column in (
        "can_manage_tokens BOOLEAN DEFAULT '1' NOT NULL",
        "can_read_all_file_uploads BOOLEAN DEFAULT '1' NOT NULL",
        "can_purge_trash BOOLEAN DEFAULT '1' NOT NULL",
        "refreshed DATETIME",
        "creator_id VARCHAR",
        "creator_description VARCHAR",
    ):
        connection.exec_driver_sql(f"ALTER TABLE tokens ADD COLUMN {column}")
    connection.exec_driver_sql(
        "UPDATE tokens SET can_read_all_file_uploads = 0 WHERE bucket_permissions IS NOT NULL"
    )


_MIGRATIONS: Final[tuple[Callable[[Connection], None], ...]] = (
    # A new database has the tables above as they are. These bring an older one to that: from 1 to 2, ...
    _add_the_vault,
    _add_branches,
    _add_blobs,
    _add_configurations_of_branches,
    _add_rights_of_tokens,
)
_NEWEST: Final = 1 + len(_MIGRATIONS)


class Database:
    """Connections to the database, used in threads. Writers stand in line, readers do not wait."""

    def __init__(self, home: Path) -> None:
        """Use `catalog.db` in `home`."""
        self.path = home / "catalog.db"
        self._engine: Engine | None = None
        self._readers = trio.CapacityLimiter(_READERS)
        self._writer = trio.CapacityLimiter(1)

    async def open(self) -> None:
        """Connect, and bring the schema up to date."""
        await trio.to_thread.run_sync(self._open)

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ApplicationError(
                f"The storage folder {self.path.parent} cannot be made: {error.strerror}."
            ) from error
        engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(self.path)),
            connect_args={"timeout": _BUSY_SECONDS},
            max_overflow=-1,  # who may connect at a time is bounded elsewhere
        )
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "begin", _begin)
        self._engine = engine
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # one at a time: SQLite does not wait for a lock when it changes the journal's mode
            fcntl.flock(folder, fcntl.LOCK_EX)
            self._in_transaction(self._migrate, True)
            self.path.chmod(0o600)
        finally:
            os.close(folder)

    def _migrate(self, connection: Connection) -> None:
        _versions.create(connection, checkfirst=True)
        found = connection.scalar(sa.select(sa.func.max(_versions.c.version))) or 0
        if found > _NEWEST:
            raise ApplicationError(
                f"The catalog {self.path} was written by a newer version (its schema is {found}, "
                f"this version knows {_NEWEST}): use that version."
            )
        if found == 0:
            metadata.create_all(connection)
        else:
            for migration in _MIGRATIONS[found - 1 :]:
                migration(connection)
        if found < _NEWEST:
            connection.execute(_versions.insert().values(version=_NEWEST))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Call `work` in a thread, with a connection that shows one moment."""
        return await trio.to_thread.run_sync(
            self._in_transaction, work, False, limiter=self._readers
        )

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Call `work` in a thread, alone; what it did is durable on return, undone if it raises."""
        return await trio.to_thread.run_sync(self._in_transaction, work, True, limiter=self._writer)

    def in_thread(self, work: Callable[[Connection], T], *, writes: bool) -> T:
        """The same for who is in a thread already."""
        return self._in_transaction(work, writes)

    def _in_transaction(self, work: Callable[[Connection], T], writes: bool) -> T:
        if self._engine is None:
            raise ApplicationError(f"The catalog {self.path} is not open.")
        try:
            with self._engine.connect() as connection:
                connection.execution_options(vaka_writes=writes)
                with connection.begin():
                    return work(connection)
        except DBAPIError as error:
            raise self._told(error.orig) from error

    def _told(self, error: BaseException | None) -> ApplicationError:
        """An error of SQLite as one of ours, with what to do about it."""
        # the lowest byte is the kind, the others are details of it
        match getattr(error, "sqlite_errorcode", 0) & 0xFF:
            case sqlite3.SQLITE_FULL:
                return DiskFull(f"The catalog {self.path} has no room: free space on its disk.")
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return StorageUnavailable(
                    f"The catalog {self.path} is locked: another process has held its lock for "
                    f"{_BUSY_SECONDS} s; find and end it."
                )
            case _ if is_full(self.path.parent):
                # a file that SQLite could not make or lengthen, of which it does not say why
                return DiskFull(f"The catalog {self.path} has no room: free space on its disk.")
            case _:
                return ApplicationError(f"The catalog {self.path} failed: {error}.")

    async def aclose(self) -> None:
        """Close all connections."""
        if self._engine is not None:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._engine.dispose)
            self._engine = None


def _prepare(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # the driver begins no transactions of its own
    for pragma in (
        "journal_mode = WAL",  # readers do not wait for the writer
        "synchronous = FULL",  # what is committed survives a loss of power
        "foreign_keys = ON",
        "case_sensitive_like = ON",  # as in PostgreSQL
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    # A transaction that reads first and then writes may fail halfway when another one writes.
    writes = connection.get_execution_options().get("vaka_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
