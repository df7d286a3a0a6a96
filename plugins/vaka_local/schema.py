"""What a project's DuckDB file holds beside the tables' data.

Nothing here has a key or an index that DuckDB would enforce: two transactions that touch different rows
must never get in each other's way. Who may write what at a time is decided by locks in the process.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from vaka.errors import ApplicationError

if TYPE_CHECKING:
    import duckdb

META: Final = "vaka"
DATA: Final = "data"
SNAPSHOTS: Final = "snapshots"

_MIGRATIONS: Final = (
    # 1: the beginning
    f"""
    CREATE SCHEMA {META};
    CREATE SCHEMA {DATA};
    CREATE SEQUENCE {META}.metadata_id;

    -- One row for each transaction that needed the bucket and saw none: of several with one id the
    -- earliest counts. So loads into a new bucket need not wait for each other.
    CREATE TABLE {META}.buckets (
        id VARCHAR NOT NULL,
        stage VARCHAR NOT NULL,
        name VARCHAR NOT NULL,
        display_name VARCHAR NOT NULL,
        description VARCHAR NOT NULL,
        created TIMESTAMP NOT NULL
    );

    CREATE TABLE {META}.tables (
        id VARCHAR NOT NULL,
        bucket VARCHAR NOT NULL,
        name VARCHAR NOT NULL,
        display_name VARCHAR NOT NULL,
        description VARCHAR NOT NULL,
        stored_as VARCHAR NOT NULL,
        columns VARCHAR[] NOT NULL,
        primary_key VARCHAR[] NOT NULL,
        created TIMESTAMP NOT NULL,
        last_import TIMESTAMP,
        last_change TIMESTAMP,
        row_count BIGINT NOT NULL,
        data_bytes BIGINT NOT NULL
    );

    -- column_name is empty for metadata of the bucket or table itself
    CREATE TABLE {META}.metadata (
        id BIGINT NOT NULL,
        object_id VARCHAR NOT NULL,
        column_name VARCHAR NOT NULL,
        provider VARCHAR NOT NULL,
        key VARCHAR NOT NULL,
        value VARCHAR NOT NULL,
        written TIMESTAMP NOT NULL
    );

    CREATE TABLE {META}.import_keys (
        table_id VARCHAR NOT NULL,
        key VARCHAR NOT NULL,
        imported_rows BIGINT NOT NULL,
        total_rows BIGINT NOT NULL,
        written TIMESTAMP NOT NULL
    );
    """,
    # 2: typed tables; definitions are a list in JSON, or null for a table without types
    f"""
    ALTER TABLE {META}.tables ADD COLUMN definitions VARCHAR;
    ALTER TABLE {META}.tables ADD COLUMN distribution_key VARCHAR[];
    """,
    # 3: aliases, which show another table and have no data of their own
    f"""
    CREATE TABLE {META}.aliases (
        id VARCHAR NOT NULL,
        bucket VARCHAR NOT NULL,
        name VARCHAR NOT NULL,
        source VARCHAR NOT NULL,
        created TIMESTAMP NOT NULL
    );
    """,
    # 4: colours of buckets, and snapshots: copies of tables, the data of each in a table named by its
    # id. What was said of the table is in the metadata, under the snapshot's name.
    f"""
    ALTER TABLE {META}.buckets ADD COLUMN color VARCHAR;
    CREATE SCHEMA {SNAPSHOTS};
    CREATE SEQUENCE {META}.snapshot_id;
    CREATE TABLE {META}.snapshots (
        id BIGINT NOT NULL,
        created TIMESTAMP NOT NULL,
        description VARCHAR NOT NULL,
        token_id VARCHAR,
        token_description VARCHAR,
        import_key VARCHAR,
        table_id VARCHAR NOT NULL,
        bucket VARCHAR NOT NULL,
        name VARCHAR NOT NULL,
        display_name VARCHAR NOT NULL,
        columns VARCHAR[] NOT NULL,
        primary_key VARCHAR[] NOT NULL,
        table_created TIMESTAMP NOT NULL,
        last_import TIMESTAMP,
        last_change TIMESTAMP,
        row_count BIGINT NOT NULL,
        data_bytes BIGINT NOT NULL,
        definitions VARCHAR,
        distribution_key VARCHAR[]
    );
    """,
)


def migrate(instance: duckdb.DuckDBPyConnection, alias: str, path: Path) -> None:
    """Bring an attached file, known as `alias`, to the present schema, in one transaction."""
    cursor = instance.cursor()
    try:
        cursor.execute(f"USE {alias}")
        cursor.execute("BEGIN")
        cursor.execute("CREATE TABLE IF NOT EXISTS main.vaka_schema (version INTEGER NOT NULL)")
        found = cursor.execute("SELECT max(version) FROM main.vaka_schema").fetchall()[0][0] or 0
        if found > len(_MIGRATIONS):
            raise ApplicationError(
                f"The table database {path} was written by a newer version (its schema is {found}, "
                f"this version knows {len(_MIGRATIONS)}): use that version."
            )
        for number, script in enumerate(_MIGRATIONS[found:], found + 1):
            cursor.execute(script)
            cursor.execute("INSERT INTO main.vaka_schema VALUES (?)", [number])
        cursor.execute("COMMIT")
    finally:
        cursor.close()
