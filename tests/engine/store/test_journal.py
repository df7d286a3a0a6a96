from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from vaka.errors import ApplicationError
from vaka.models.job import Cause, CauseKind, Phase, StageStatus, Status
from vaka.store import Fence, JobStore, LeaseLost

from .support import LEASE, Clock, claim, claim_one, events, new_job, owner, stage

Write = Callable[[JobStore, Fence], Awaitable[object]]
WRITES: dict[str, Write] = {
    "advance": lambda store, right: store.advance(right, Phase.RESULT, 9),
    "update_stage": lambda store, right: store.update_stage(right, 0, 0, exit_code=9),
    "save_definition": lambda store, right: store.save_definition(right, 0, {"new": True}),
    "save_usage": lambda store, right: store.save_usage(right, [{"metric": "x", "value": 9}]),
    "reserve": lambda store, right: store.reserve(right, 9, 9, memory_bytes=99),
    "restart": lambda store, right: store.restart(right),
    "requeue": lambda store, right: store.requeue(right),
    "release": lambda store, right: store.release(right),
    "finish": lambda store, right: store.finish(right, Status.ERROR, result={"message": "late"}),
    "append_events": lambda store, right: store.append_events(
        right.job_id, events(1, 1), offsets={(0, 0): (9, 9)}, fence=right
    ),
}


async def _running(store: JobStore) -> Fence:
    """A job with one stage and something of everything in its journal."""
    await store.submit(new_job())
    record, right = await claim_one(store)
    await store.plan_stage(right, stage(record))
    await store.save_definition(right, 0, {"new": False})
    return right


@pytest.mark.parametrize("how", ["owner", "attempt", "released", "ended"])
async def test_nothing_is_written_without_the_lease(
    store: JobStore, clock: Clock, how: str
) -> None:
    right = await _running(store)
    if how == "owner":
        clock.advance(LEASE)
        await claim(store, owner("second"))
    elif how == "attempt":
        await store.restart(right)
    elif how == "released":
        await store.release(right)
    else:
        await store.finish(right, Status.SUCCESS, result={"message": "done"})
    before = await store.job(right.job_id)

    for name, write in WRITES.items():
        with pytest.raises(LeaseLost) as caught:
            await write(store, right)
        assert caught.value.job_id == right.job_id, name

    assert await store.job(right.job_id) == before
    assert await store.definitions(right.job_id, right.attempt) == {0: {"new": False}}
    assert await store.last_seq(right.job_id) == 0
    assert before.status.is_finished or await store.active_jobs() == {before.id: before.attempt}


async def test_a_planned_stage_is_read_back_with_its_job(store: JobStore) -> None:
    await store.submit(new_job())
    record, right = await claim_one(store)
    planned = [stage(record, 1, kind="after"), stage(record, 0)]

    for each in planned:
        await store.plan_stage(right, each)

    assert (await store.job(record.id)).stages == (planned[1], planned[0])
    assert (await store.jobs_of_run(record.run_id))[0].stages == ()


async def test_a_stage_keeps_what_became_of_it(store: JobStore, clock: Clock) -> None:
    right = await _running(store)
    begun, ended = clock.now, clock.now + timedelta(seconds=1.5)

    await store.update_stage(right, 0, 0, status=StageStatus.STARTED, started_at=begun)
    await store.update_stage(
        right,
        0,
        0,
        status=StageStatus.EXITED,
        finished_at=ended,
        exit_code=137,
        oom_killed=True,
        memory_peak_bytes=1 << 40,
    )

    [kept] = (await store.job(right.job_id)).stages
    assert (kept.status, kept.started_at, kept.finished_at) == (StageStatus.EXITED, begun, ended)
    assert (kept.exit_code, kept.oom_killed, kept.memory_peak_bytes) == (137, True, 1 << 40)


async def test_a_stage_can_be_planned_anew_until_it_was_started(store: JobStore) -> None:
    right = await _running(store)
    record = await store.job(right.job_id)
    await store.plan_stage(right, stage(record, image_id="sha256:new"))
    assert (await store.job(right.job_id)).stages == (stage(record, image_id="sha256:new"),)
    await store.update_stage(right, 0, 0, status=StageStatus.STARTED)

    with pytest.raises(ApplicationError, match="is started already"):
        await store.plan_stage(right, stage(record))


async def test_a_stage_must_be_planned_first(store: JobStore) -> None:
    right = await _running(store)

    with pytest.raises(ApplicationError, match="never planned"):
        await store.update_stage(right, 0, 1, exit_code=0)
    with pytest.raises(ApplicationError, match="never planned"):
        await store.append_events(right.job_id, events(1, 1), offsets={(0, 1): (1, 1)}, fence=right)

    assert await store.last_seq(right.job_id) == 0


async def test_a_stage_has_no_other_columns_to_change(store: JobStore) -> None:
    right = await _running(store)

    changes: dict[str, Any] = {"job_id": 5}
    with pytest.raises(TypeError, match="no job_id"):
        await store.update_stage(right, 0, 0, **changes)


async def test_definitions_keep_what_they_left_by_attempt(store: JobStore) -> None:
    right = await _running(store)
    await store.save_definition(right, -1, ["plan"])
    await store.save_definition(right, 0, {"state": {"b": 1, "a": None}})

    assert await store.definitions(right.job_id, 1) == {
        -1: ["plan"],
        0: {"state": {"b": 1, "a": None}},
    }
    record = await store.restart(right)
    assert await store.definitions(right.job_id, record.attempt) == {}


async def test_usage_adds_up_over_definitions_and_counts_none_twice(store: JobStore) -> None:
    right = await _running(store)
    first, second = {"metric": "kB", "value": 150}, {"metric": "rows", "value": 0}
    for index, entry in enumerate((first, second)):
        await store.advance(right, Phase.STAGE, index)
        await store.save_usage(right, [entry])
        await store.save_usage(right, [entry])  # as a resumed job does

    assert (await store.job(right.job_id)).usage == (first, second)
    await store.save_usage(right, [], definition=0)
    ended = await store.finish(right, Status.SUCCESS, result={"message": "done"})
    assert ended.usage == (second,)


async def test_a_restart_is_a_new_attempt_from_the_beginning(store: JobStore, clock: Clock) -> None:
    right = await _running(store)
    await store.advance(right, Phase.STAGE, 2)
    clock.advance(10)

    record = await store.restart(right)

    assert (record.attempt, record.phase, record.definition) == (2, Phase.CLAIMED, 0)
    assert (record.status, record.started) == (Status.PROCESSING, clock.now)
    assert [each.attempt for each in record.stages] == [1]
    await store.plan_stage(Fence(record.id, "first", 2), stage(record))
    assert [each.attempt for each in (await store.job(record.id)).stages] == [1, 2]


async def test_a_finished_job_says_how_it_ended(store: JobStore, clock: Clock) -> None:
    right = await _running(store)
    clock.advance(90)
    cause = Cause(CauseKind.OUT_OF_MEMORY, {"limit_bytes": 1, "peak_bytes": None})

    ended = await store.finish(
        right,
        Status.ERROR,
        result={"message": "out of memory \ud800", "exceptionId": "docker-1"},
        error="user",
        cause=cause,
        metrics={"storage": {"inBytes": 5}},
    )

    assert ended == await store.job(right.job_id)
    assert (ended.status, ended.error, ended.cause) == (Status.ERROR, "user", cause)
    assert ended.result == {"message": "out of memory \ud800", "exceptionId": "docker-1"}
    assert ended.metrics == {"storage": {"inBytes": 5}}
    assert (ended.ended, ended.duration_seconds, ended.phase) == (clock.now, 90, Phase.RESULT)
    assert await store.active_jobs() == {}


async def test_a_job_does_not_end_with_a_status_of_the_living(store: JobStore) -> None:
    right = await _running(store)

    with pytest.raises(ValueError, match="terminating is not how a job ends"):
        await store.finish(right, Status.TERMINATING, result={})

    assert (await store.job(right.job_id)).status is Status.PROCESSING
