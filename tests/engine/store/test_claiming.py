import pytest
import trio
import trio.testing

from vaka.errors import Conflict
from vaka.models.job import Phase, Status
from vaka.store import JobStore, LeaseLost, NewJob

from .support import LEASE, MIB, SOMEBODY, Clock, claim, claim_one, fence, ids, new_job, owner


async def _end(store: JobStore, job_id: int) -> None:
    await store.finish(fence(await store.job(job_id)), Status.SUCCESS, result={"message": "done"})


async def test_a_claimed_job_is_processing_and_its_owners(store: JobStore, clock: Clock) -> None:
    made = await store.submit(new_job())
    clock.advance(5)

    [claimed] = await claim(store)

    assert claimed == await store.job(made.id)
    assert claimed.status is Status.PROCESSING
    assert claimed.started == clock.now
    assert (claimed.owner, claimed.host, claimed.pid) == ("first", "host-of-first", 4711)
    assert (claimed.attempt, claimed.phase, claimed.definition) == (1, Phase.CLAIMED, 0)
    assert claimed.spec == made.spec


async def test_the_oldest_jobs_are_claimed_first(store: JobStore) -> None:
    # two sizes, because a claim looks at jobs of one size together
    made = [await store.submit(new_job(memory_bytes=(1 + i % 2) * MIB)) for i in range(6)]

    assert ids(await claim(store, limit=4)) == ids(made[:4])
    assert ids(await claim(store, limit=4)) == ids(made[4:])
    assert await claim(store, limit=4) == []


async def test_an_owner_has_no_more_jobs_than_its_concurrency(store: JobStore) -> None:
    made = [await store.submit(new_job()) for _ in range(5)]

    assert ids(await claim(store, limit=9, concurrency=3)) == ids(made[:3])
    assert await claim(store, limit=9, concurrency=3) == []
    assert ids(await claim(store, owner("second"), limit=9, concurrency=1)) == [made[3].id]
    await _end(store, made[0].id)
    assert ids(await claim(store, limit=9, concurrency=3)) == [made[4].id]


async def test_whoever_asks_gets_the_oldest_job_and_nobody_the_same(
    store: JobStore, store_url: str, clock: Clock
) -> None:
    projects = "112131"
    made = ids([await store.submit(new_job(project=project)) for project in projects * 4])
    taken: list[int] = []

    async def ask(asking: JobStore, name: str) -> None:
        taken.extend(ids(await claim(asking, owner(name), limit=2)))

    async with JobStore(store_url, clock=clock) as other:
        for asking, name in (
            (store, "first"),
            (other, "second"),
            (other, "second"),
            (store, "first"),
        ):
            await ask(asking, name)
        assert taken == made[:8]
        for _ in range(4):
            taken.clear()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, store, "first")
                nursery.start_soon(ask, other, "second")
            assert sorted(taken) == made[8:12]
            del made[8:12]


# -- locks -----------------------------------------------------------------------------------------


async def test_jobs_of_one_lock_run_one_after_the_other(store: JobStore) -> None:
    made = [await store.submit(new_job(lock_name="lock")) for _ in range(3)]
    free = await store.submit(new_job())

    for expected in (made[0], made[1], made[2]):
        claimed = ids(await claim(store, limit=9))
        assert expected.id in claimed
        assert not {job.id for job in made} & set(claimed) - {expected.id}
        assert await claim(store, limit=9) == []
        await _end(store, expected.id)
    assert (await store.job(free.id)).status is Status.PROCESSING


async def test_a_cancelled_job_makes_way_for_the_next_of_its_lock(store: JobStore) -> None:
    first, second, third = [await store.submit(new_job(lock_name="lock")) for _ in range(3)]

    await store.request_stop(second.id, SOMEBODY)
    await store.request_stop(first.id, SOMEBODY)

    assert ids(await claim(store, limit=9)) == [third.id]


async def test_a_lock_is_held_when_its_jobs_lease_is_over(store: JobStore, clock: Clock) -> None:
    running, waiting = [await store.submit(new_job(lock_name="lock")) for _ in range(2)]
    await claim(store)
    clock.advance(LEASE + 1)

    # the container of the job may still run: it is taken over, and nothing of its lock begins
    assert ids(await claim(store, owner("second"), limit=9)) == [running.id]
    assert (await store.job(waiting.id)).status is Status.WAITING


async def test_a_job_put_back_keeps_its_place_before_its_lock(store: JobStore) -> None:
    first, second = [await store.submit(new_job(lock_name="lock")) for _ in range(2)]
    [claimed] = await claim(store)

    back = await store.requeue(fence(claimed))

    assert (back.status, back.started, back.owner, back.phase) == (Status.WAITING, None, None, None)
    again, right = await claim_one(store)
    assert (again.id, again.attempt) == (first.id, 2)
    await store.finish(right, Status.SUCCESS, result={"message": "done"})
    assert ids(await claim(store)) == [second.id]


async def test_a_job_that_is_being_stopped_is_not_put_back(store: JobStore) -> None:
    await store.submit(new_job())
    claimed, right = await claim_one(store)
    await store.request_stop(claimed.id, SOMEBODY)

    with pytest.raises(Conflict, match="is being stopped"):
        await store.requeue(right)

    assert (await store.job(claimed.id)).status is Status.TERMINATING


# -- memory ----------------------------------------------------------------------------------------


async def test_jobs_are_claimed_as_they_fit_into_the_memory(store: JobStore) -> None:
    big, small, other = [
        await store.submit(new_job(memory_bytes=size * MIB)) for size in (600, 300, 500)
    ]

    assert ids(await claim(store, limit=9, memory_bytes=1000 * MIB)) == [big.id, small.id]
    assert await claim(store, limit=9, memory_bytes=1000 * MIB) == []
    assert ids(await claim(store, owner("second"), limit=9, memory_bytes=1000 * MIB)) == [other.id]


async def test_a_job_larger_than_the_memory_runs_alone(store: JobStore) -> None:
    small, huge, later = [
        await store.submit(new_job(memory_bytes=size * MIB)) for size in (10, 5000, 0)
    ]

    assert ids(await claim(store, limit=1, memory_bytes=1000 * MIB)) == [small.id]
    assert ids(await claim(store, limit=9, memory_bytes=1000 * MIB)) == [later.id]
    for job in (small, later):
        await _end(store, job.id)
    await store.submit(new_job(memory_bytes=0))
    assert ids(await claim(store, limit=9, memory_bytes=1000 * MIB)) == [huge.id]


async def test_small_jobs_pass_a_large_one_for_five_minutes_only(
    store: JobStore, clock: Clock
) -> None:
    running = await store.submit(new_job(memory_bytes=600 * MIB))
    assert ids(await claim(store, memory_bytes=1000 * MIB)) == [running.id]
    large = await store.submit(new_job(memory_bytes=500 * MIB))
    early = await store.submit(new_job(memory_bytes=100 * MIB))
    assert ids(await claim(store, limit=9, memory_bytes=1000 * MIB)) == [early.id]

    clock.advance(301)
    await store.submit(new_job(memory_bytes=100 * MIB))

    assert await claim(store, limit=9, memory_bytes=1000 * MIB) == []
    await _end(store, running.id)
    assert large.id in ids(await claim(store, limit=9, memory_bytes=1000 * MIB))


# -- projects --------------------------------------------------------------------------------------


def _limited(limit: int = 1, **changes: object) -> NewJob:
    return new_job(project_parallelism=limit, **changes)


async def test_a_project_runs_no_more_jobs_than_its_limit(store: JobStore) -> None:
    made = [await store.submit(_limited(2)) for _ in range(4)]
    other = await store.submit(_limited(2, project="2"))

    assert ids(await claim(store, limit=9)) == [made[0].id, made[1].id, other.id]
    assert await claim(store, owner("second"), limit=9) == []
    await _end(store, made[1].id)
    assert ids(await claim(store, owner("second"), limit=9)) == [made[2].id]


async def test_a_limit_counts_jobs_that_are_being_stopped_and_those_without_a_limit(
    store: JobStore,
) -> None:
    unlimited = await store.submit(new_job())
    await claim(store)
    await store.request_stop(unlimited.id, SOMEBODY)
    limited = await store.submit(_limited(1))

    assert await claim(store) == []
    await _end(store, unlimited.id)
    assert ids(await claim(store)) == [limited.id]


async def test_each_parent_may_have_one_child_beyond_the_limit(store: JobStore) -> None:
    parent = await store.submit(_limited())
    await claim(store)
    await store.submit(_limited())  # not nested: it waits
    children = [await store.submit(_limited(parent_run_id=parent.run_id)) for _ in range(2)]
    other = await store.submit(_limited(parent_run_id="777"))

    assert ids(await claim(store, limit=9)) == [children[0].id, other.id]
    assert await claim(store, limit=9) == []
    await _end(store, children[0].id)
    assert ids(await claim(store, limit=9)) == [children[1].id]


async def test_a_limit_is_reached_in_the_middle_of_a_claim(store: JobStore) -> None:
    first = await store.submit(_limited(parent_run_id="5"))
    await store.submit(_limited(parent_run_id="5"))
    nested = await store.submit(_limited(parent_run_id="6"))
    await store.submit(_limited())

    assert ids(await claim(store, limit=9)) == [first.id, nested.id]


async def test_a_parent_of_another_project_is_nobodys_business(store: JobStore) -> None:
    await store.submit(new_job(project="2", parent_run_id="5"))
    await store.submit(new_job(project="1"))
    await claim(store, limit=2)
    child = await store.submit(_limited(parent_run_id="5"))

    assert ids(await claim(store)) == [child.id]


# -- leases ----------------------------------------------------------------------------------------


async def test_a_job_of_a_dead_owner_is_taken_over_where_it_was(
    store: JobStore, clock: Clock
) -> None:
    made = await store.submit(new_job())
    _, right = await claim_one(store)
    await store.advance(right, Phase.STAGING_OUT, 3)
    started = clock.now
    clock.advance(LEASE - 1)
    assert await claim(store, owner("second")) == []
    clock.advance(1)

    [taken] = await claim(store, owner("second"))

    assert (taken.id, taken.owner, taken.host) == (made.id, "second", "host-of-second")
    assert (taken.attempt, taken.phase, taken.definition) == (1, Phase.STAGING_OUT, 3)
    assert (taken.status, taken.started) == (Status.PROCESSING, started)
    assert await claim(store, owner("third")) == []
    with pytest.raises(LeaseLost, match="second at attempt 1 has it"):
        await store.advance(right, Phase.STATE)


async def test_what_was_abandoned_comes_before_what_waits(store: JobStore, clock: Clock) -> None:
    first, second = [await store.submit(new_job()) for _ in range(2)]
    await claim(store)
    [later] = await claim(store, owner("second"))
    await store.release(fence(later))
    waiting = await store.submit(new_job())

    assert ids(await claim(store, owner("third"), limit=2)) == [second.id, waiting.id]
    clock.advance(LEASE)
    assert ids(await claim(store, owner("fourth"), limit=1)) == [first.id]


async def test_a_job_to_be_stopped_is_taken_over_too(store: JobStore, clock: Clock) -> None:
    made = await store.submit(new_job())
    await claim(store)
    await store.request_stop(made.id, SOMEBODY)
    clock.advance(LEASE)

    [taken] = await claim(store, owner("second"))

    assert (taken.id, taken.status, taken.stop_requested) == (made.id, Status.TERMINATING, True)


async def test_a_takeover_needs_a_slot_but_no_free_memory(store: JobStore, clock: Clock) -> None:
    for _ in range(3):
        await store.submit(new_job(memory_bytes=800 * MIB))
    await claim(store, limit=3)
    clock.advance(LEASE)

    taken = await claim(store, owner("second"), limit=9, concurrency=2, memory_bytes=1000 * MIB)

    assert len(taken) == 2


async def test_a_late_owner_keeps_what_nobody_has_taken(store: JobStore, clock: Clock) -> None:
    made = await store.submit(new_job())
    await claim(store)
    clock.advance(LEASE * 10)

    assert await claim(store) == []
    assert (await store.renew(owner(), LEASE)).held == {made.id}
    assert await claim(store, owner("second")) == []


async def test_renewing_tells_what_is_held_and_what_is_to_be_stopped(
    store: JobStore, clock: Clock
) -> None:
    lost, stopping, held = [await store.submit(new_job()) for _ in range(3)]
    await claim(store, limit=3)
    await store.request_stop(stopping.id, SOMEBODY)
    clock.advance(LEASE)
    await claim(store, owner("second"))

    renewal = await store.renew(owner(), LEASE)

    assert renewal.held == {stopping.id, held.id}
    assert renewal.stopping == {stopping.id}
    assert (await store.renew(owner("second"), LEASE)).held == {lost.id}
    clock.advance(LEASE - 1)
    assert await claim(store, owner("third")) == []


async def test_a_released_job_is_free_at_once_and_unchanged(store: JobStore) -> None:
    await store.submit(new_job())
    claimed, right = await claim_one(store)
    await store.advance(right, Phase.STAGE, 1)

    await store.release(right)

    left = await store.job(claimed.id)
    assert (left.status, left.phase, left.definition) == (Status.PROCESSING, Phase.STAGE, 1)
    with pytest.raises(LeaseLost, match="nobody has it"):
        await store.release(right)
    assert ids(await claim(store, owner("second"))) == [claimed.id]


async def test_the_jobs_of_a_dead_owner_can_be_freed_at_once(store: JobStore) -> None:
    first, second = [await store.submit(new_job()) for _ in range(2)]
    await claim(store)
    await claim(store, owner("second"))

    await store.expire_owner("first")

    assert ids(await claim(store, owner("third"), limit=9)) == [first.id]
    assert (await store.job(second.id)).owner == "second"


async def test_a_cancelled_claim_leaves_nothing_claimed(store: JobStore) -> None:
    made = await store.submit(new_job())

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(claim, store)
            await trio.testing.wait_all_tasks_blocked()  # it is in its thread
            scope.cancel()

    [claimed] = await claim(store, owner("second"))
    assert (claimed.id, claimed.owner) == (made.id, "second")


# -- stopping --------------------------------------------------------------------------------------


async def test_a_waiting_job_is_cancelled_on_the_spot(store: JobStore, clock: Clock) -> None:
    made = await store.submit(new_job())
    clock.advance(1)

    cancelled = await store.request_stop(made.id, SOMEBODY, project="1")

    assert cancelled == await store.job(made.id)
    assert (cancelled.status, cancelled.terminated_by) == (Status.CANCELLED, SOMEBODY)
    assert (cancelled.started, cancelled.ended) == (None, clock.now)
    assert await claim(store) == []


async def test_a_running_job_is_marked_as_to_be_stopped(store: JobStore) -> None:
    await store.submit(new_job())
    claimed, right = await claim_one(store)

    stopping = await store.request_stop(claimed.id, SOMEBODY)
    again = await store.request_stop(claimed.id, {"id": "99", "description": "late"})

    assert (stopping.status, stopping.terminated_by) == (Status.TERMINATING, SOMEBODY)
    assert stopping.stop_requested
    assert again == stopping
    ended = await store.finish(right, Status.TERMINATED, result={"message": "stopped"})
    assert (ended.status, ended.terminated_by) == (Status.TERMINATED, SOMEBODY)


async def test_an_ended_job_cannot_be_stopped(store: JobStore) -> None:
    await store.submit(new_job())
    claimed, right = await claim_one(store)
    await store.finish(right, Status.SUCCESS, result={"message": "done"})

    with pytest.raises(Conflict, match="Job is not in a killable state"):
        await store.request_stop(claimed.id, SOMEBODY)

    assert (await store.job(claimed.id)).status is Status.SUCCESS


async def test_a_running_job_may_hold_the_memory_of_several_containers(store: JobStore) -> None:
    for _ in range(3):
        await store.submit(new_job())
    (first, other) = await claim(store, limit=2, memory_bytes=1024 * MIB)
    right = fence(first)
    assert await store.reserve(right, 256 * MIB, 8, memory_bytes=1024 * MIB) == 3
    # what it holds is held against whoever waits
    assert await claim(store, memory_bytes=1024 * MIB) == []
    # asked again it starts anew, and it has one at least
    assert await store.reserve(right, 256 * MIB, 2, memory_bytes=1024 * MIB) == 2
    assert await store.reserve(right, 256 * MIB, 8, memory_bytes=300 * MIB) == 1
    assert ids(await claim(store, memory_bytes=1024 * MIB)) != ids([first, other])
