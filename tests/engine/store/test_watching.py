from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa
import trio
import trio.testing

from vaka.models.job import Phase, Status
from vaka.store import JobStore, Watch
from vaka.store._database import Transaction

from .support import SOMEBODY, claim_one, events, fence, new_job, owner

SOON = 30.0
"""Seconds that a change may take to be told, at most; it takes milliseconds."""


async def test_a_change_between_two_waits_is_not_missed(store: JobStore) -> None:
    watch = store.watch("jobs")
    assert not await watch.changed(0)

    await store.submit(new_job())
    await store.submit(new_job())

    assert await watch.changed(0)
    assert not await watch.changed(0)


async def test_a_watch_sees_nothing_from_before_it_was_made(store: JobStore) -> None:
    before = store.watch("jobs")
    await store.submit(new_job())

    assert not await store.watch("jobs").changed(0)
    assert await before.changed(0)


async def test_everybody_who_waits_is_woken(store: JobStore) -> None:
    told: list[bool] = []

    async def wait(watch: Watch) -> None:
        told.append(await watch.changed(SOON))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait, store.watch("jobs"))
        await trio.testing.wait_all_tasks_blocked()
        await store.submit(new_job())

    assert told == [True] * 3


async def test_what_may_make_a_job_claimable_wakes_the_claimers(store: JobStore) -> None:
    watch = store.watch("jobs")

    async def woken() -> bool:
        return await watch.changed(0)

    await store.submit(new_job(lock_name="lock"))
    assert await woken()
    behind = await store.submit(new_job(lock_name="lock"))
    assert not await woken()
    first, right = await claim_one(store)
    await store.advance(right, Phase.STAGE)
    await store.append_events(first.id, events(1, 1), fence=right)
    assert not await woken()
    await store.request_stop(first.id, SOMEBODY)
    assert not await woken()
    await store.finish(right, Status.TERMINATED, result={"message": "stopped"})
    assert await woken()
    second, right = await claim_one(store)
    assert second.id == behind.id
    await store.release(right)
    assert await woken()
    second, right = await claim_one(store)
    await store.requeue(right)
    assert await woken()
    await claim_one(store)
    await store.expire_owner("nobody")
    assert not await woken()
    await store.expire_owner(owner().id)
    assert await woken()


async def test_a_cancelled_job_wakes_the_claimers_of_the_next(store: JobStore) -> None:
    first = await store.submit(new_job(lock_name="lock"))
    await store.submit(new_job(lock_name="lock"))
    watch = store.watch("jobs")

    await store.request_stop(first.id, SOMEBODY)

    assert await watch.changed(0)


async def test_a_job_is_watched_for_its_status_and_its_events(store: JobStore) -> None:
    made = await store.submit(new_job())
    other = await store.submit(new_job())
    watch, others = store.watch(("job", made.id)), store.watch(("job", other.id))

    record, right = await claim_one(store)
    assert record.id == made.id
    assert await watch.changed(0)
    await store.append_events(made.id, events(1, 1), fence=right)
    assert await watch.changed(0)
    await store.advance(right, Phase.STAGE)
    assert not await watch.changed(0)
    await store.set_error_note(made.id, "x")
    assert await watch.changed(0)
    await store.request_stop(made.id, SOMEBODY)
    assert await watch.changed(0)
    await store.request_stop(made.id, SOMEBODY)
    assert not await watch.changed(0)
    right = fence(await store.restart(right))
    assert await watch.changed(0)
    await store.finish(right, Status.TERMINATED, result={"message": "stopped"})
    assert await watch.changed(0)
    assert not await others.changed(0)


async def test_the_end_of_a_job_is_watched_by_itself(store: JobStore) -> None:
    made = await store.submit(new_job())
    never_run = await store.submit(new_job())
    watch, other = store.watch(("end", made.id)), store.watch(("end", never_run.id))

    _, right = await claim_one(store)
    await store.append_events(made.id, events(1, 1), fence=right)
    await store.request_stop(made.id, SOMEBODY)
    assert not await watch.changed(0)
    await store.finish(right, Status.TERMINATED, result={"message": "stopped"})
    assert await watch.changed(0)

    assert not await other.changed(0)
    await store.request_stop(never_run.id, SOMEBODY)
    assert await other.changed(0)


async def test_a_job_that_ends_wakes_who_can_use_its_place(store: JobStore) -> None:
    await store.submit(new_job())
    _, right = await claim_one(store)
    watch = store.watch("jobs")
    await store.finish(right, Status.SUCCESS, result={"message": "done"})
    assert not await watch.changed(0)  # nobody waits

    await store.submit(new_job())
    _, right = await claim_one(store)
    await store.submit(new_job())
    watch = store.watch("jobs")
    await store.finish(right, Status.SUCCESS, result={"message": "done"})
    assert await watch.changed(0)


async def test_a_write_that_failed_wakes_nobody(store: JobStore) -> None:
    def fail(tx: Transaction) -> None:
        tx.topics.add("jobs")
        raise KeyError

    watch = store.watch("jobs")
    with pytest.raises(KeyError):
        await store._writer.write(fail)

    assert not await watch.changed(0)


@pytest.fixture
async def other(store_url: str, store: JobStore) -> AsyncIterator[JobStore]:
    """A second store on the same database, as another process has it."""
    async with JobStore(store_url) as opened:
        yield opened


async def test_what_others_write_is_told(store: JobStore, other: JobStore) -> None:
    jobs_watch = store.watch("jobs")
    assert not await jobs_watch.changed(0)

    made = await other.submit(new_job())
    with trio.fail_after(SOON):
        while not await jobs_watch.changed(0.05):
            pass

    watch = store.watch(("job", made.id))
    await other.set_error_note(made.id, "x")
    with trio.fail_after(SOON):
        while not await watch.changed(0.05):
            pass


async def test_a_long_wait_looks_by_itself(
    store: JobStore, other: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaka.store._watch.LOOK_INTERVAL", 0.01)
    watch = store.watch("jobs")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other.submit, new_job())
        with trio.fail_after(SOON):
            assert await watch.changed()


async def test_own_writes_are_told_once(store: JobStore, other: JobStore) -> None:
    mine, theirs = store.watch("jobs"), other.watch("jobs")
    await store.submit(new_job())
    assert await mine.changed(0)

    # once the other has been told, an echo of our own writes would have come back as well
    with trio.fail_after(SOON):
        while not await theirs.changed(0.05):
            pass

    assert not await mine.changed(0)


@pytest.mark.postgresql
async def test_a_lost_listener_listens_again(fresh_database: str) -> None:
    kill = sa.text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    )

    def kill_listeners(connection: sa.Connection) -> int:
        return len(connection.execute(kill).all())

    async with JobStore(fresh_database) as store, JobStore(fresh_database) as other:
        watch = store.watch("jobs")
        assert await other._read(kill_listeners) == 2

        # whoever waits is woken once it listens again, because it may have missed something
        assert await watch.changed(SOON)
        await other.submit(new_job())
        assert await watch.changed(SOON)
