from collections.abc import Sequence
from typing import Any

import pytest

from vaka.errors import InvalidInput, NotFound
from vaka.models.job import JobQuery, JobRecord, Status
from vaka.store import JobStore

from .support import SOMEBODY, START, Clock, claim, claim_one, fence, ids, new_job


@pytest.mark.parametrize("job_id", [0, -1, 17, 2**63, 10**30])
async def test_a_job_that_is_not_there_is_not_found(store: JobStore, job_id: int) -> None:
    with pytest.raises(NotFound, match="Job not found") as caught:
        await store.job(job_id)

    assert (caught.value.kind, caught.value.id) == ("job", str(job_id))


async def test_a_job_of_another_project_is_not_found(store: JobStore) -> None:
    made = await store.submit(new_job(project="2"))

    assert (await store.job(made.id, "2")).id == made.id
    with pytest.raises(NotFound):
        await store.job(made.id, "1")


async def test_lists_are_newest_first_and_are_cut_into_pages(store: JobStore) -> None:
    made = [await store.submit(new_job()) for _ in range(4)]

    assert ids(await store.jobs(JobQuery())) == [job.id for job in reversed(made)]
    assert ids(await store.jobs(JobQuery(limit=2, offset=1))) == [made[2].id, made[1].id]
    assert ids(await store.jobs(JobQuery(descending=False, limit=1))) == [made[0].id]
    assert await store.jobs(JobQuery(limit=0)) == []
    assert await store.jobs(JobQuery(limit=10**30, offset=10**30)) == []


async def test_lists_can_be_narrowed_down(store: JobStore, clock: Clock) -> None:
    old = await store.submit(new_job(config="1"))
    clock.advance(60)
    other = await store.submit(new_job(component="acme.writer", config="1"))
    clock.advance(60)
    foreign = await store.submit(new_job(project="2", config="2"))
    await claim_one(store)

    async def found(query: JobQuery) -> list[int]:
        return sorted(ids(await store.jobs(query)))

    assert await found(JobQuery(project="1")) == [old.id, other.id]
    assert await found(JobQuery(component="acme.extractor")) == [old.id, foreign.id]
    assert await found(JobQuery(project="1", config="1")) == [old.id, other.id]
    assert await found(JobQuery(run_id=other.run_id)) == [other.id]
    assert await found(JobQuery(statuses=(Status.PROCESSING,))) == [old.id]
    assert await found(JobQuery(statuses=(Status.PROCESSING, Status.WAITING))) == [
        old.id,
        other.id,
        foreign.id,
    ]
    assert await found(JobQuery(created_since=other.created)) == [other.id, foreign.id]
    assert await found(JobQuery(created_until=other.created)) == [old.id, other.id]


async def test_what_is_no_text_cannot_be_looked_for(store: JobStore) -> None:
    with pytest.raises(InvalidInput, match="cannot look for"):
        await store.jobs(JobQuery(component="\ud800"))


async def _finished(store: JobStore, clock: Clock, durations: Sequence[float]) -> list[JobRecord]:
    made = []
    for seconds in durations:
        await store.submit(new_job())
        _, right = await claim_one(store)
        clock.advance(seconds)
        made.append(await store.finish(right, Status.SUCCESS, result={"message": "done"}))
    return made


async def test_equal_whole_seconds_are_ordered_newest_first(store: JobStore, clock: Clock) -> None:
    first, second, third = await _finished(store, clock, [120.9, 240, 120.1])
    waiting = await store.submit(new_job())

    ascending = await store.jobs(JobQuery(order_by="duration", descending=False))
    descending = await store.jobs(JobQuery(order_by="duration"))

    assert ids(ascending) == [third.id, first.id, second.id, waiting.id]
    assert ids(descending) == [second.id, third.id, first.id, waiting.id]


async def test_every_sort_key_can_be_sorted_by(store: JobStore, clock: Clock) -> None:
    [only] = await _finished(store, clock, [1])

    for key in ("id", "status", "component", "config", "created", "started", "ended", "duration"):
        assert ids(await store.jobs(JobQuery(order_by=key))) == [only.id]


async def test_jobs_are_counted_by_status(store: JobStore, clock: Clock) -> None:
    await _finished(store, clock, [1, 1])
    await store.submit(new_job())

    counts = await store.counts()

    assert counts.pop(Status.SUCCESS) == 2
    assert counts.pop(Status.WAITING) == 1
    assert set(counts.values()) == {0}


async def test_a_run_is_its_job_and_all_below_it(store: JobStore) -> None:
    parent = await store.submit(new_job())
    child = await store.submit(new_job(parent_run_id=parent.run_id))
    grandchild = await store.submit(new_job(parent_run_id=child.run_id))
    await store.submit(new_job(parent_run_id=parent.run_id + "0"))
    await store.submit(new_job())

    assert ids(await store.jobs_of_run(parent.run_id)) == [parent.id, child.id, grandchild.id]
    assert ids(await store.jobs_of_run(child.run_id)) == [child.id, grandchild.id]


async def test_active_jobs_are_those_that_run(store: JobStore) -> None:
    running, stopping, waiting, ended = [await store.submit(new_job()) for _ in range(4)]
    await claim(store, limit=2)
    await store.request_stop(stopping.id, SOMEBODY)
    await store.request_stop(ended.id, SOMEBODY)

    assert await store.active_jobs() == {running.id: 1, stopping.id: 1}
    await store.restart(fence(await store.job(running.id)))
    assert await store.active_jobs() == {running.id: 2, stopping.id: 1}
    assert (await store.job(waiting.id)).status is Status.WAITING


async def test_a_note_can_be_put_on_any_job(store: JobStore) -> None:
    made = await store.submit(new_job())

    noted = await store.set_error_note(made.id, "seen by support", project="1")

    assert noted.error_note == "seen by support"
    assert noted == await store.job(made.id)
    assert (await store.set_error_note(made.id, None)).error_note is None
    with pytest.raises(NotFound):
        await store.set_error_note(made.id, "x", project="2")


async def test_times_come_back_as_they_were(store: JobStore, clock: Clock) -> None:
    clock.advance(0.123456)

    made = await store.submit(new_job())

    assert (await store.job(made.id)).created == clock.now
    assert clock.now != START


async def test_jobs_are_found_by_what_only_their_request_says(store: JobStore) -> None:
    specs: list[dict[str, Any]] = [
        {},
        {"branch": "7", "row": "a"},
        {"rows": ["b", 'a "quoted"', "č"]},
        {"rows": ["ab"], "branch": "8"},
    ]
    made = [await store.submit(new_job(spec=spec, token_id=str(i))) for i, spec in enumerate(specs)]

    async def found(**wanted: Any) -> list[int]:
        records = await store.jobs(JobQuery(descending=False, **wanted))
        return [ids(made).index(record.id) for record in records]

    assert await found(rows=("a",)) == [1]
    assert await found(rows=("b", "ab")) == [2, 3]
    assert await found(rows=('a "quoted"',)) == [2]
    assert await found(branches=("",)) == [0, 2]
    assert await found(branches=("7", "")) == [0, 1, 2]
    assert await found(token_ids=("3", "0")) == [0, 3]
    assert await found(ids=(2**70,)) == []
    assert await found(ids=(made[1].id, 2**70)) == [1]
    assert await found(order_by="branch") == [1, 3, 2, 0]


async def test_configurations_are_grouped_in_the_order_of_their_jobs(store: JobStore) -> None:
    for config in ("x", "y", None, "x"):
        await store.submit(new_job(config=config))
    await store.submit(new_job(component="other", config="x"))
    await store.submit(new_job(project="2", config="z"))

    async def groups(**wanted: Any) -> list[tuple[str, str | None]]:
        return await store.job_groups(JobQuery(project="1", **wanted))

    every = [("other", "x"), *(("acme.extractor", name) for name in ("x", None, "y"))]
    assert await groups() == every
    assert await groups(limit=2, offset=1) == every[1:3]
    assert await groups(configs=("",)) == every[2:3]
    assert await groups(descending=False) == [every[1], every[3], every[2], every[0]]
