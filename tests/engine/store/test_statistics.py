"""How long jobs ran, on both databases."""

from datetime import UTC, date, datetime, timedelta

from vaka.models.job import Status
from vaka.store import JobStore

from .support import SOMEBODY, Clock, claim_one, new_job


async def ran(store: JobStore, clock: Clock, end: datetime, seconds: float, **job: str) -> None:
    """A job that ended at a moment."""
    clock.now = end - timedelta(seconds=seconds)
    await store.submit(new_job(**job))
    _, right = await claim_one(store)
    clock.now = end
    await store.finish(right, Status.ERROR, result={"message": "no"}, error="user")


async def test_run_time_is_summed_by_the_day_that_jobs_ended_on(
    store: JobStore, clock: Clock
) -> None:
    assert await store.run_seconds("1") == 0
    await ran(store, clock, datetime(2020, 8, 1, 23, 30, tzinfo=UTC), 100.9)
    await ran(store, clock, datetime(2020, 8, 2, 0, 30, tzinfo=UTC), 7_200)  # over midnight
    await ran(store, clock, datetime(2020, 8, 2, 23, 59, 59, 999_999, tzinfo=UTC), 3)
    await ran(store, clock, datetime(2020, 8, 4, tzinfo=UTC), 1_000)
    await ran(store, clock, datetime(2020, 8, 2, 12, tzinfo=UTC), 50, project="2")
    cancelled = await store.submit(new_job())
    await store.request_stop(cancelled.id, SOMEBODY)
    await store.submit(new_job())
    await claim_one(store)
    assert await store.run_seconds("1") == 100 + 7_200 + 3 + 1_000
    assert await store.run_seconds("2") == 50
    first, last = date(2020, 8, 1), date(2020, 8, 4)

    async def days(offset: timedelta) -> list[int]:
        found = await store.daily_run_seconds("1", first, last, offset)
        assert [day for day, _ in found] == [first + timedelta(days=n) for n in range(4)]
        return [seconds for _, seconds in found]

    assert await days(timedelta(0)) == [100, 7_203, 0, 1_000]
    assert await days(timedelta(hours=2)) == [0, 7_300, 3, 1_000]
    assert await days(-timedelta(hours=1)) == [7_300, 3, 1_000, 0]
    only = await store.daily_run_seconds("1", last, last, timedelta(0))
    assert only == [(last, 1_000)]
