import sqlite3
from pathlib import Path

import alembic.autogenerate
import pytest
import sqlalchemy as sa
import trio
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from vaka.errors import StoreUnavailable
from vaka.models.job import JobQuery
from vaka.store import JobStore, _migrate
from vaka.store._database import Transaction
from vaka.store.schema import metadata

from .support import ids, new_job


async def test_a_store_can_be_opened_again(store_url: str) -> None:
    async with JobStore(store_url) as store:
        made = await store.submit(new_job())

    async with JobStore(store_url) as store:
        assert ids(await store.jobs(JobQuery())) == [made.id]
        assert (await store.submit(new_job())).id > made.id


async def test_many_may_open_an_empty_store_at_once(store_url: str) -> None:
    made: list[int] = []

    async def use() -> None:
        async with JobStore(store_url) as store:
            made.append((await store.submit(new_job())).id)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(use)

    async with JobStore(store_url) as store:
        assert sorted(ids(await store.jobs(JobQuery()))) == sorted(made)
        assert len(set(made)) == 4


async def test_migrations_make_the_schema_that_the_code_uses(store: JobStore) -> None:
    def differences(connection: sa.Connection) -> list[object]:
        def is_ours(thing: object, name: str | None, kind: str, *_: object) -> bool:
            return not (kind == "table" and name == _migrate.VERSION_TABLE)

        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "include_object": is_ours}
        )
        return list(alembic.autogenerate.compare_metadata(context, metadata))

    assert await store._read(differences) == []


async def test_indexes_are_partial_where_the_code_relies_on_it(store: JobStore) -> None:
    def conditions(connection: sa.Connection) -> dict[str, str]:
        found = {}
        tables = sa.inspect(connection)
        for index in (each for name in metadata.tables for each in tables.get_indexes(name)):
            options = index.get("dialect_options", {})
            condition = options.get("sqlite_where", options.get("postgresql_where"))
            if condition is not None:
                found[str(index["name"])] = str(condition).replace("(", "").replace(")", "")
        return found

    declared = {
        str(index.name): str(index.dialect_options["sqlite"]["where"]).replace(f"{table.name}.", "")
        for table in metadata.tables.values()
        for index in table.indexes
        if index.dialect_options["sqlite"]["where"] is not None
    }

    assert await store._read(conditions) == declared
    assert len(declared) == 7


def test_the_newest_migration_is_the_one_the_code_looks_for() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(_migrate.__file__).parent / "migrations"))

    assert ScriptDirectory.from_config(config).get_heads() == [_migrate.HEAD]


async def test_a_newer_schema_is_refused_with_what_to_do(store_url: str) -> None:
    def pretend(tx: Transaction) -> None:
        tx.connection.exec_driver_sql("UPDATE store_version SET version_num = '9999'")

    async with JobStore(store_url) as store:
        await store._writer.write(pretend)

    with pytest.raises(StoreUnavailable, match=r"schema 9999, which is newer .* install the newer"):
        async with JobStore(store_url):
            pass


async def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="check that its folder exists"):
        async with JobStore(f"sqlite:///{tmp_path}/nowhere/vaka.db"):
            pass


async def test_a_file_that_is_no_database_is_told_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "vaka.db"
    path.write_text("a letter to a friend\n" * 500)
    before = path.read_bytes()

    with pytest.raises(StoreUnavailable, match="restore it from a backup"):
        async with JobStore(f"sqlite:///{path}"):
            pass

    assert path.read_bytes() == before


async def test_a_store_of_something_else_is_not_damaged(tmp_path: Path) -> None:
    path = tmp_path / "vaka.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE jobs (id INTEGER)")
    connection.close()

    with pytest.raises(StoreUnavailable):
        async with JobStore(f"sqlite:///{path}"):
            pass

    connection = sqlite3.connect(path)
    tables = connection.execute("SELECT name FROM sqlite_schema").fetchall()
    connection.close()
    assert tables == [("jobs",)]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("mysql://host/vaka", "cannot be on mysql"),
        ("not a url", "cannot be read"),
    ],
)
def test_a_url_that_cannot_be_is_refused(url: str, told: str) -> None:
    with pytest.raises(StoreUnavailable, match=told):
        JobStore(url)


async def test_stores_of_one_process_are_made_at_the_same_time(tmp_path: Path) -> None:
    async def make(name: str) -> None:
        async with JobStore(f"sqlite:///{tmp_path / name}") as store:
            assert (await store.counts()) is not None

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(make, f"{number}.db")
