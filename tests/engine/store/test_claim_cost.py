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
from vaka.store.schema import jobs

from .support import LEASE, MIB, claim, claim_one, fence, new_job, owner

FEW, MANY = 10, 2_000

ROWS_READ = sa.text(
    "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables"
)


async def _submit_all(store: JobStore, new: list[NewJob]) -> None:
    def submit(tx: Transaction) -> None:
        for each in new:
            _queue.submit(tx, each)

    await store._writer.write(submit, queue=True, ids=2 * len(new))


async def _free(store: JobStore, count: int) -> None:
    await _submit_all(store, [new_job(lock_name=f"lock-{i}") for i in range(count)])


async def _behind_a_lock(store: JobStore, count: int) -> None:
    await store.submit(new_job(lock_name="lock"))
    await claim_one(store, owner("other"))
    await _submit_all(store, [new_job(lock_name="lock")] * count)


async def _in_a_full_project(store: JobStore, count: int) -> None:
    await store.submit(new_job(project="2", project_parallelism=1, parent_run_id="5"))
    await claim_one(store, owner("other"))
    in_it = {"project": "2", "project_parallelism": 1}
    await _submit_all(store, [new_job(**in_it)] * count)
    await _submit_all(store, [new_job(**in_it, parent_run_id="5")] * count)


async def _too_large(store: JobStore, count: int) -> None:
    await _submit_all(store, [new_job(memory_bytes=4000 * MIB)] * count)


async def _ended(store: JobStore, count: int) -> None:
    await store.submit(new_job())
    record, right = await claim_one(store, owner("other"))
    await store.finish(right, Status.SUCCESS, result={"message": "done"})

    def repeat(tx: Transaction) -> None:
        row = tx.connection.execute(sa.select(jobs).where(jobs.c.id == record.id)).one()
        copies = [dict(row._mapping) | {"id": next(tx.ids)} for _ in range(count)]
        tx.connection.execute(sa.insert(jobs), copies)

    await store._writer.write(repeat, ids=count)


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
