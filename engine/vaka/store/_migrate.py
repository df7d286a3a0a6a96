"""Brings a database to the schema that this code knows."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vaka.errors import StoreUnavailable

HEAD = "0006"
"""The newest migration; a test compares it with the files."""
VERSION_TABLE = "store_version"
_migrating = Lock()
"""Alembic keeps what it migrates in its own module: a process can migrate one database at a time."""


def migrate(connection: Connection, name: str) -> None:
    """Apply what is missing, in the transaction that is open and under the lock that the caller has.

    Raises:
        StoreUnavailable: the schema is of a newer version of this software.
    """
    current = _current(connection)
    if current == HEAD:
        return  # the ordinary case, without the cost of importing Alembic

    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config(attributes={"connection": connection, "version_table": VERSION_TABLE})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise StoreUnavailable(
            f"The job store {name} has schema {current}, which is newer than this version of vaka "
            f"(it knows up to {HEAD}); install the newer version, or use another store."
        )
    with _migrating:
        command.upgrade(config, "head")


def _current(connection: Connection) -> str | None:
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    version = sa.table(VERSION_TABLE, sa.column("version_num", sa.Text))
    return connection.execute(sa.select(version.c.version_num)).scalar_one_or_none()
