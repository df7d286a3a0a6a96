"""What of old jobs may go, and what keeps a job waiting, on both databases."""

from datetime import timedelta

from vaka.models.job import Phase, Status
from vaka.store import Blocker, JobStore

from .support import SOMEBODY, START, Clock, claim_one, events, fence, ids, new_job, stage


async def test_logs_of_old_jobs_go_and_others_stay(store: JobStore, clock: Clock) -> None:
    made = []
    for number in range(4):
        clock.now = START + timedelta(days=number)
        job = await store.submit(new_job())
        record, right = await claim_one(store)
        assert record.id == job.id
        await store.append_events(job.id, events(1, 3))
        await store.save_definition(right, 0, {"left": number})
        if number < 3:
            await store.finish(right, Status.SUCCESS, result={"message": "done"})
        made.append(job.id)
    before = START + timedelta(days=1, hours=1)
    count, size = await store.old_logs(before)
    assert count == 2
    assert size > 0
    assert await store.forget_logs(before, 1) == 1
    assert (await store.old_logs(before))[0] == 1
    assert await store.forget_logs(before, 10) == 1
    assert await store.forget_logs(before, 10) == 0
    assert await store.old_logs(before) == (0, 0)
    for job_id in made[:2]:
        assert await store.events(job_id) == []
        assert await store.definitions(job_id, 1) == {}
        assert (await store.job(job_id)).status is Status.SUCCESS
    for job_id in made[2:]:
        assert len(await store.events(job_id)) == 3
    # one that has not ended is never old
    assert (await store.old_logs(START + timedelta(days=999)))[0] == 1


async def test_the_last_use_of_an_image_is_known(store: JobStore, clock: Clock) -> None:
    assert await store.images_used() == {}
    for number in range(2):
        await store.submit(new_job())
        record, right = await claim_one(store)
        await store.advance(right, Phase.STAGING_IN)
        planned = START + timedelta(days=number)
        await store.plan_stage(right, stage(record, planned_at=planned))
    assert await store.images_used() == {"sha256:0123": START + timedelta(days=1)}


async def test_what_keeps_a_job_waiting_is_known(store: JobStore) -> None:
    first = await store.submit(new_job(lock_name="l", config="1"))
    second = await store.submit(new_job(lock_name="l", config="1"))
    assert await store.blocker(first.id) is None
    assert await store.blocker(second.id) == Blocker(job_id=first.id)
    parent = await store.submit(new_job(project="2", project_parallelism=1))
    await claim_one(store)
    await claim_one(store)
    other = await store.submit(new_job(project="2", project_parallelism=1))
    child = await store.submit(
        new_job(project="2", project_parallelism=1, parent_run_id=parent.run_id)
    )
    assert await store.blocker(other.id) == Blocker(project_running=1)
    assert await store.blocker(child.id) is None
    assert await store.blocker(999_999) is None


async def test_a_stop_reaches_what_is_below_a_run_and_nothing_else(
    store: JobStore, clock: Clock
) -> None:
    parent = await store.submit(new_job())
    _, right = await claim_one(store)
    child = await store.submit(new_job(parent_run_id=parent.run_id, lock_name="l"))
    next_child = await store.submit(new_job(parent_run_id=parent.run_id, lock_name="l"))
    behind = await store.submit(new_job(lock_name="l"))
    alike = await store.submit(new_job(parent_run_id=f"{parent.run_id}0"))
    foreign = await store.submit(new_job(parent_run_id=parent.run_id, project="2"))
    ended = await store.submit(new_job(parent_run_id=parent.run_id))
    await store.request_stop(ended.id, {"id": "1", "description": "another"})
    await store.request_stop(parent.id, SOMEBODY)
    assert (await store.job(parent.id)).status is Status.TERMINATING
    for job in (child, next_child):
        record = await store.job(job.id)
        assert (record.status, record.terminated_by) == (Status.CANCELLED, SOMEBODY)
    assert (await store.job(ended.id)).terminated_by == {"id": "1", "description": "another"}
    claimed = {(await claim_one(store))[0].id for _ in range(3)}
    assert claimed == set(ids([behind, alike, foreign]))
    await store.finish(right, Status.TERMINATED, result={"message": "stopped"})
    assert fence(await store.job(behind.id)).attempt == 1
