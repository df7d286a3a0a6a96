"""Group commit, and what becomes of it when things go wrong."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event as ThreadEvent

import psycopg
import pytest
import sqlalchemy as sa
import trio
import trio.testing

from vaka.errors import (
    ApplicationError,
    Conflict,
    EngineError,
    InvalidInput,
    StoreUnavailable,
)
from vaka.models.job import JobQuery, JobRecord
from vaka.store import JobStore
from vaka.store._database import Transaction
from vaka.store.schema import counters, jobs

from .support import claim_one, events, ids, new_job


@contextmanager
def commits_of(store: JobStore) -> Iterator[list[int]]:
    """A list with one entry for each transaction of the store that was committed meanwhile."""
    engine, made = store._database._writers, list[int]()

    def count(_connection: object) -> None:
        made.append(1)

    sa.event.listen(engine, "commit", count)
    try:
        yield made
    finally:
        sa.event.remove(engine, "commit", count)


@contextmanager
def busy(store: JobStore) -> Iterator[ThreadEvent]:
    """The writer is in a transaction until the event is set, so that others gather behind it."""
    go_on = ThreadEvent()
    yield go_on
    go_on.set()


async def _hold(store: JobStore, go_on: ThreadEvent) -> None:
    await store._writer.write(lambda _: go_on.wait(), queue=True)


async def test_writes_that_wait_together_share_one_commit(store: JobStore) -> None:
    made: list[JobRecord] = []

    async def submit() -> None:
        made.append(await store.submit(new_job()))

    with commits_of(store) as commits, busy(store) as go_on:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_hold, store, go_on)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(100):
                nursery.start_soon(submit)
            await trio.testing.wait_all_tasks_blocked()
            go_on.set()

    assert len(commits) == 2
    assert sorted(ids(made)) == sorted(ids(await store.jobs(JobQuery())))
    assert {job.run_id for job in made} == {str(job.id) for job in made}
    assert len({job.id for job in made}) == 100


async def test_a_write_that_fails_fails_alone(store: JobStore) -> None:
    await store.submit(new_job(idempotency_key="k", request_hash="h"))
    told: dict[str, Exception | None] = {}

    def insert_and_break(tx: Transaction) -> None:
        tx.connection.execute(sa.insert(counters).values(name="rubbish", value=1))
        raise KeyError("a bug")

    def break_a_constraint(tx: Transaction) -> None:
        tx.connection.execute(sa.insert(counters).values(name="rubbish", value=1))
        tx.connection.execute(sa.insert(counters).values(name="ids", value=1))

    async def attempt(name: str) -> None:
        told[name] = None
        try:
            if name == "conflict":
                await store.submit(new_job(idempotency_key="k", request_hash="other"))
            elif name == "no text":
                await store.submit(new_job(component="\ud800"))
            elif name == "bug":
                await store._writer.write(insert_and_break, queue=True)
            elif name == "constraint":
                await store._writer.write(break_a_constraint, queue=True)
            else:
                await store.submit(new_job(component=name))
        except (EngineError, KeyError) as error:
            told[name] = error

    names = ["before", "conflict", "no text", "between", "bug", "constraint", "after"]
    with commits_of(store) as commits, busy(store) as go_on:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_hold, store, go_on)
            await trio.testing.wait_all_tasks_blocked()
            for name in names:
                nursery.start_soon(attempt, name)
                await trio.testing.wait_all_tasks_blocked()
            go_on.set()

    assert len(commits) == 2
    assert {name: type(error) for name, error in told.items()} == {
        "before": type(None),
        "conflict": Conflict,
        "no text": InvalidInput,
        "between": type(None),
        "bug": KeyError,
        "constraint": ApplicationError,
        "after": type(None),
    }
    stored = {job.component for job in await store.jobs(JobQuery())}
    assert stored == {"acme.extractor", "before", "between", "after"}
    left = await store._read(
        lambda connection: connection.scalars(sa.select(counters.c.name)).all()
    )
    assert left == ["ids"]


async def test_a_write_that_fails_alone_leaves_nothing(store: JobStore) -> None:
    def insert_and_break(tx: Transaction) -> None:
        tx.connection.execute(sa.insert(counters).values(name="rubbish", value=1))
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        await store._writer.write(insert_and_break)

    left = await store._read(
        lambda connection: connection.scalars(sa.select(counters.c.name)).all()
    )
    assert left == ["ids"]


async def test_a_cancelled_write_that_was_not_begun_is_not_done(store: JobStore) -> None:
    with busy(store) as go_on:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_hold, store, go_on)
            await trio.testing.wait_all_tasks_blocked()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as inner:
                    inner.start_soon(store.submit, new_job())
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            assert scope.cancelled_caught
            go_on.set()

    assert await store.jobs(JobQuery()) == []


async def test_a_cancelled_caller_goes_at_once_and_the_write_is_completed(store: JobStore) -> None:
    def slow(tx: Transaction) -> None:
        go_on.wait()
        tx.connection.execute(sa.insert(counters).values(name="late", value=1))

    with busy(store) as go_on:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store._writer.write, slow)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        go_on.set()

    await store.submit(new_job())  # waits behind it
    left = await store._read(
        lambda connection: connection.scalars(sa.select(counters.c.name)).all()
    )
    assert sorted(left) == ["ids", "late"]


async def test_a_cancelled_read_goes_at_once_and_leaves_the_store_usable(store: JobStore) -> None:
    with busy(store) as go_on:
        for _ in range(8):  # more than there are connections
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(store._read, lambda _: go_on.wait())
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            assert scope.cancelled_caught

    assert await store.jobs(JobQuery()) == []


async def test_what_was_accepted_is_written_before_the_store_closes(store_url: str) -> None:
    go_on = ThreadEvent()
    with trio.CancelScope() as scope:
        async with JobStore(store_url) as store, trio.open_nursery() as nursery:
            nursery.start_soon(_hold, store, go_on)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            go_on.set()
            with trio.CancelScope(shield=True):  # as a cleanup does
                made = await store.submit(new_job())

    async with JobStore(store_url) as store:
        assert ids(await store.jobs(JobQuery())) == [made.id]


async def test_a_closed_store_says_so(store_url: str) -> None:
    async with JobStore(store_url) as store:
        pass

    with pytest.raises(StoreUnavailable, match="closed"):
        await store.submit(new_job())
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.jobs(JobQuery())


async def test_an_error_of_the_caller_leaves_the_store_as_it_was_raised(store_url: str) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with JobStore(store_url):
            raise KeyError("mine")


# -- failures of SQLite ----------------------------------------------------------------------------


@pytest.fixture
async def sqlite_store(tmp_path: Path) -> AsyncIterator[JobStore]:
    async with JobStore(f"sqlite:///{tmp_path}/vaka.db", patience=0.2) as opened:
        yield opened


async def test_a_full_disk_is_told_and_what_was_stored_stays(sqlite_store: JobStore) -> None:
    store = sqlite_store
    await store.submit(new_job())
    record, right = await claim_one(store)
    await store.append_events(record.id, events(1, 100), fence=right)

    def allow(pages: str) -> None:
        with store._database._writers.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.execute(f"PRAGMA max_page_count = {pages}")

    await store._writer.in_thread(allow, "1")  # as many as there are now

    async def fill() -> None:
        for _ in range(1000):
            await store.submit(new_job(spec={"long": "x" * 10_000}))

    with pytest.raises(
        StoreUnavailable, match=r"vaka\.db does not answer: .*full.*free disk space"
    ):
        await fill()
    stored = len(await store.jobs(JobQuery(limit=2000)))
    assert await store.events(record.id) == events(1, 100)

    await store._writer.in_thread(allow, "1000000")
    await store.submit(new_job())
    assert len(await store.jobs(JobQuery(limit=2000))) == stored + 1


async def test_a_lock_that_somebody_holds_is_told(sqlite_store: JobStore, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "vaka.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(StoreUnavailable, match=r"another process has held its lock for 0\.2 s"):
            await sqlite_store.submit(new_job())

        assert await sqlite_store.jobs(JobQuery()) == []  # reading goes on
        other.execute("ROLLBACK")
        await sqlite_store.submit(new_job())
    finally:
        other.close()


async def test_commits_on_sqlite_reach_the_disk(sqlite_store: JobStore) -> None:
    def settings(tx: Transaction) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [tx.connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    assert await sqlite_store._writer.write(settings) == ["wal", 2, 1]  # 2 is FULL


# -- failures of PostgreSQL ------------------------------------------------------------------------


@pytest.fixture
async def postgresql_store(fresh_database: str) -> AsyncIterator[JobStore]:
    async with JobStore(fresh_database, patience=5) as opened:
        yield opened


def _run(url: str, statement: str) -> list[tuple[object, ...]]:
    target = sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(target, autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


KILL = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


@pytest.mark.postgresql
async def test_lost_connections_are_made_anew(
    postgresql_store: JobStore, fresh_database: str
) -> None:
    store = postgresql_store
    made = await store.submit(new_job())
    assert await store.jobs(JobQuery()) != []

    killed = await trio.to_thread.run_sync(_run, fresh_database, KILL)
    assert len(killed) >= 3  # writer, reader, listener

    assert ids(await store.jobs(JobQuery())) == [made.id]
    await store.submit(new_job())
    assert len(await store.jobs(JobQuery())) == 2


@pytest.mark.postgresql
async def test_a_connection_lost_in_a_transaction_is_told(
    postgresql_store: JobStore, fresh_database: str
) -> None:
    store = postgresql_store

    def lose(tx: Transaction) -> None:
        tx.connection.execute(sa.insert(counters).values(name="lost", value=1))
        _run(fresh_database, KILL)
        tx.connection.execute(sa.insert(counters).values(name="more", value=1))

    with pytest.raises(StoreUnavailable, match="check that the server runs"):
        await store._writer.write(lose)

    left = await store._read(
        lambda connection: connection.scalars(sa.select(counters.c.name)).all()
    )
    assert left == ["ids"]


@pytest.mark.postgresql
async def test_a_batch_in_a_deadlock_is_tried_again(
    postgresql_store: JobStore, fresh_database: str
) -> None:
    store = postgresql_store
    made = [await store.submit(new_job()) for _ in range(2)]
    tries = 0

    def note(tx: Transaction, job: JobRecord) -> None:
        tx.connection.execute(sa.update(jobs).where(jobs.c.id == job.id).values(error_note="x"))

    async with JobStore(fresh_database) as other:
        first_has, second_has = ThreadEvent(), ThreadEvent()

        def forth(tx: Transaction) -> None:
            nonlocal tries
            tries += 1
            note(tx, made[0])
            first_has.set()
            second_has.wait()
            note(tx, made[1])

        def back(tx: Transaction) -> None:
            nonlocal tries
            tries += 1
            note(tx, made[1])
            second_has.set()
            first_has.wait()
            note(tx, made[0])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(store._writer.write, forth)
            nursery.start_soon(other._writer.write, back)

    assert tries == 3
    assert {job.error_note for job in await store.jobs(JobQuery())} == {"x"}


@pytest.mark.postgresql
async def test_a_message_says_where_and_hides_the_password(tmp_path: Path) -> None:
    url = f"postgresql+psycopg://me:s3cret@/vaka?host={tmp_path}"

    with pytest.raises(StoreUnavailable) as caught:
        async with JobStore(url):
            pass

    assert "postgresql+psycopg://me:***@/vaka does not answer" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.postgresql
async def test_a_missing_database_is_told(postgresql_url: str) -> None:
    url = sa.make_url(postgresql_url).set(database="nowhere").render_as_string()

    with pytest.raises(StoreUnavailable, match="create the database"):
        async with JobStore(url):
            pass
