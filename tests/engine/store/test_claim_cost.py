"""A claim reads as much for ten waiting jobs as for thousands, whatever they wait for.

Counted, not timed: steps of SQLite's virtual machine, rows that PostgreSQL fetched.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy as sa

from vaka.models.job import Status
from vaka.store import JobStore, NewJob, _queue
from vaka.store._database import Transaction
from vaka.store.schema import job_specs, jobs

from .support import LEASE, MIB, claim, claim_one, fence, new_job, owner

FEW, MANY = 10, 10_000

ROWS_READ = sa.text(
    "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables"
)


async def _submit_all(store: JobStore, new: NewJob, count: int, *, own_locks: bool = False) -> None:
    """As many jobs: one is submitted, the others are copies of its rows."""
    made = await store.submit(new)
    await _copy(store, made.id, count - 1, own_locks=own_locks)


async def _copy(store: JobStore, job_id: int, count: int, *, own_locks: bool = False) -> None:
    def copy(tx: Transaction) -> None:
        first = next(tx.ids)
        numbers = sa.select(sa.literal(first).label("number")).cte(recursive=True)
        number = numbers.c.number
        numbers = numbers.union_all(sa.select(number + 1).where(number < first + count - 1))
        text = sa.cast(numbers.c.number, sa.Text)
        changed = {"id": numbers.c.number, "run_id": text}
        if own_locks:
            changed["lock_name"] = sa.literal("lock-") + text
        for table, key, new in (
            (jobs, jobs.c.id, changed),
            (job_specs, job_specs.c.job_id, {"job_id": numbers.c.number}),
        ):
            columns = [new.get(column.name, column) for column in table.columns]
            rows = sa.select(*columns).select_from(table).join(numbers, sa.true())
            tx.connection.execute(
                sa.insert(table).from_select(list(table.columns), rows.where(key == job_id))
            )

    await store._writer.write(copy, queue=True, ids=count)


async def _free(store: JobStore, count: int) -> None:
    await _submit_all(store, new_job(lock_name="lock"), count, own_locks=True)


async def _behind_a_lock(store: JobStore, count: int) -> None:
    await store.submit(new_job(lock_name="lock"))
    await claim_one(store, owner("other"))
    await _submit_all(store, new_job(lock_name="lock"), count)


async def _in_a_full_project(store: JobStore, count: int) -> None:
    await store.submit(new_job(project="2", project_parallelism=1, parent_run_id="5"))
    await claim_one(store, owner("other"))
    in_it = {"project": "2", "project_parallelism": 1}
    await _submit_all(store, new_job(**in_it), count, own_locks=True)
    await _submit_all(store, new_job(**in_it, parent_run_id="5"), count, own_locks=True)


async def _too_large(store: JobStore, count: int) -> None:
    await _submit_all(store, new_job(memory_bytes=4000 * MIB), count, own_locks=True)


async def _ended(store: JobStore, count: int) -> None:
    await store.submit(new_job())
    record, right = await claim_one(store, owner("other"))
    await store.finish(right, Status.SUCCESS, result={"message": "done"})
    await _copy(store, record.id, count)


async def _cost(store: JobStore) -> int:
    """What one claim reads that finds exactly one job."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    def rows_read(tx: Transaction) -> int:
        return int(tx.connection.scalar(ROWS_READ) or 0)

    def measured(tx: Transaction) -> int:
        driver: Any = tx.connection.connection.driver_connection
        if tx.connection.dialect.name == "sqlite":
            driver.set_progress_handler(count, 1)
            _claim_one(tx)
            driver.set_progress_handler(None, 1)
            return steps
        before = rows_read(tx)  # of transactions whose count was not reported yet
        _claim_one(tx)
        return rows_read(tx) - before

    return await store._writer.write(measured, queue=True)


def _claim_one(tx: Transaction) -> None:
    [_] = _queue.claim(tx, owner(), lease=LEASE, concurrency=5, memory_bytes=1000 * MIB, limit=1)


@pytest.mark.parametrize(
    "fill",
    [
        pytest.param(_free, id="free"),
        pytest.param(_behind_a_lock, id="behind a lock"),
        pytest.param(_in_a_full_project, id="in a full project"),
        pytest.param(_too_large, id="too large"),
        pytest.param(_ended, id="ended"),
    ],
)
async def test_a_claim_costs_the_same_however_many_wait(
    store: JobStore, fill: Callable[[JobStore, int], Awaitable[None]]
) -> None:
    await fill(store, FEW)
    await store.submit(new_job())
    few = await _cost(store)
    await _finish_everything(store)

    await fill(store, MANY)
    await store.submit(new_job())
    await store._writer.write(_analyze)
    many = await _cost(store)

    assert many <= few + 20


async def _finish_everything(store: JobStore) -> None:
    while await claim(store, owner("sweeper"), limit=100, concurrency=1000):
        pass
    for job_id in await store.active_jobs():
        right = fence(await store.job(job_id))
        await store.finish(right, Status.SUCCESS, result={"message": "done"})
    if (await store.counts())[Status.WAITING]:
        await _finish_everything(store)


def _analyze(tx: Transaction) -> None:
    tx.connection.exec_driver_sql("ANALYZE")
