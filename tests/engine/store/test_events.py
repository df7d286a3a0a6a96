import zlib
from dataclasses import replace

import pytest

from vaka.errors import ApplicationError, NotFound
from vaka.models.event import Event, Lines
from vaka.models.job import Phase, StageStatus, Status
from vaka.store import EventsOutOfOrder, Fence, JobStore, LeaseLost, LogTail
from vaka.store._events import ROW_BYTES, pack

from .support import START, claim_one, events, new_job, stage


async def _job(store: JobStore) -> Fence:
    await store.submit(new_job())
    return (await claim_one(store))[1]


async def test_events_come_back_in_order_and_in_pages(store: JobStore) -> None:
    right = await _job(store)
    said = events(1, 250)
    for first, last in ((0, 1), (1, 3), (3, 240), (240, 250)):
        await store.append_events(right.job_id, said[first:last], fence=right)

    assert await store.events(right.job_id) == said
    assert await store.last_seq(right.job_id) == 250
    for after in (0, 1, 2, 3, 100, 239, 240, 249, 250, 251, 10**30):
        for limit in (1, 2, 100, 1000):
            page = await store.events(right.job_id, after=after, limit=limit)
            assert page == said[after : after + limit], (after, limit)
    assert await store.events(right.job_id, after=-5, limit=2) == said[:2]
    assert await store.events(right.job_id, limit=0) == []


async def test_an_event_comes_back_whole(store: JobStore) -> None:
    right = await _job(store)
    said = Event(
        seq=1,
        time=START,
        kind="stage.finished",
        level="notice",
        message="lines\n\u2028\x00 and \ud800 žluť",
        definition=1,
        stage=2,
        component="acme.extractor",
        stream="stderr",
        data={"exit_code": 1, "nested": {"b": [None, 1.5]}},
    )

    await store.append_events(right.job_id, [said], fence=right)

    assert await store.events(right.job_id) == [said]


async def test_a_job_without_events_has_none(store: JobStore) -> None:
    right = await _job(store)

    assert await store.events(right.job_id) == []
    assert await store.last_seq(right.job_id) == 0
    assert await store.events(10**30) == []


async def test_jobs_do_not_share_events(store: JobStore) -> None:
    first, second = [await _job(store) for _ in range(2)]
    await store.append_events(first.job_id, events(1, 3, "one"), fence=first)
    await store.append_events(second.job_id, events(1, 2, "two"), fence=second)

    assert await store.events(first.job_id) == events(1, 3, "one")
    assert await store.events(second.job_id) == events(1, 2, "two")


@pytest.mark.parametrize("first", [1, 3, 5, 7])
async def test_gaps_and_repetitions_are_refused(store: JobStore, first: int) -> None:
    right = await _job(store)
    await store.append_events(right.job_id, events(1, 5), fence=right)

    with pytest.raises(EventsOutOfOrder, match="must go on with number 6") as caught:
        await store.append_events(right.job_id, events(first, 3), fence=right)

    assert caught.value.expected == 6
    assert await store.events(right.job_id) == events(1, 5)


async def test_a_gap_within_is_refused(store: JobStore) -> None:
    right = await _job(store)

    with pytest.raises(ValueError, match="event 4 comes after 2"):
        await store.append_events(right.job_id, [*events(1, 2), *events(4, 1)], fence=right)


async def test_who_submits_may_write_before_the_job_runs(store: JobStore) -> None:
    made = await store.submit(new_job())

    await store.append_events(made.id, events(1, 1))

    assert await store.events(made.id) == events(1, 1)
    with pytest.raises(NotFound):
        await store.append_events(made.id + 1, events(1, 1))


async def test_events_and_offsets_are_stored_together(store: JobStore) -> None:
    await store.submit(new_job())
    record, right = await claim_one(store)
    await store.plan_stage(right, stage(record))
    await store.append_events(record.id, events(1, 2), offsets={(0, 0): (20, 5)}, fence=right)

    with pytest.raises(EventsOutOfOrder):
        await store.append_events(record.id, events(9, 2), offsets={(0, 0): (99, 99)}, fence=right)

    [kept] = (await store.job(record.id)).stages
    assert (kept.stdout_bytes, kept.stderr_bytes) == (20, 5)
    await store.append_events(record.id, [], offsets={(0, 0): (30, 5)}, fence=right)
    [kept] = (await store.job(record.id)).stages
    assert (kept.stdout_bytes, kept.stderr_bytes) == (30, 5)
    assert await store.last_seq(record.id) == 2


async def test_events_are_stored_with_an_entry_of_the_journal_or_not_at_all(
    store: JobStore,
) -> None:
    await store.submit(new_job())
    record, right = await claim_one(store)
    planned = stage(record)
    await store.plan_stage(right, planned)
    tail = LogTail(events(1, 2), {(0, 0): (20, 5)})

    with pytest.raises(ApplicationError, match="never planned"):
        await store.update_stage(right, 0, 7, tail=tail, status=StageStatus.STARTED)
    assert await store.last_seq(record.id) == 0
    with pytest.raises(EventsOutOfOrder):
        await store.update_stage(
            right, 0, 0, tail=LogTail(events(2, 2)), status=StageStatus.STARTED
        )
    assert (await store.job(record.id)).stages[0].status is StageStatus.PLANNED

    await store.update_stage(
        right, 0, 0, tail=tail, phase=Phase.STAGING_OUT, status=StageStatus.COLLECTED
    )
    kept = await store.job(record.id)
    assert kept.phase is Phase.STAGING_OUT
    assert (kept.stages[0].status, kept.stages[0].stdout_bytes) == (StageStatus.COLLECTED, 20)

    await store.finish(
        right, Status.SUCCESS, result={"message": "done"}, tail=LogTail(events(3, 30))
    )
    assert await store.events(record.id) == events(1, 32)
    with pytest.raises(LeaseLost):
        await store.finish(
            right, Status.SUCCESS, result={"message": "again"}, tail=LogTail(events(33, 1))
        )
    assert await store.last_seq(record.id) == 32


async def test_offsets_are_the_owners_only(store: JobStore) -> None:
    right = await _job(store)

    with pytest.raises(ValueError, match="owner only"):
        await store.append_events(right.job_id, events(1, 1), offsets={(0, 0): (1, 1)})
    with pytest.raises(ValueError, match="another job"):
        await store.append_events(right.job_id + 2, events(1, 1), fence=right)


async def test_long_lines_make_rows_of_bounded_size(store: JobStore) -> None:
    right = await _job(store)
    said = [replace(event, message="x" * 64_000) for event in events(1, 100)]

    rows = pack(said)
    assert [row.count for row in rows] == [17, 17, 17, 17, 17, 15]
    assert all(len(zlib.decompress(row.data)) < ROW_BYTES + 65_000 for row in rows)

    await store.append_events(right.job_id, said, fence=right)
    assert await store.events(right.job_id) == said
    assert await store.events(right.job_id, after=16, limit=3) == said[16:19]


async def test_lines_stored_together_are_read_as_events_of_their_own(store: JobStore) -> None:
    right = await _job(store)
    before, after = events(1, 2), events(503, 2)
    lines = Lines(
        3,
        START,
        "error",
        [f"line {number} \u2028" for number in range(500)],
        definition=1,
        stage=2,
        component="acme.extractor",
        stream="stderr",
        data={"results": {"a": 1}},
    )

    await store.append_events(right.job_id, [*before, lines, *after], fence=right)

    said = [*before, *lines.events(), *after]
    assert [event.seq for event in said] == list(range(1, 505))
    assert {event.message for event in said[2:502]} == set(lines.messages)
    assert said[2].stream == "stderr"
    assert said[2].data == {"results": {"a": 1}}
    assert await store.last_seq(right.job_id) == 504
    for first, limit in ((0, 1_000), (1, 3), (250, 10), (501, 3)):
        page = await store.events(right.job_id, after=first, limit=limit)
        assert page == said[first : first + limit]


def test_lines_take_as_many_numbers_as_they_are() -> None:
    lines = Lines(1, START, "info", ["a", "b"])
    (row,) = pack([lines, *events(3, 1)])
    assert (row.first_seq, row.last_seq, row.count) == (1, 3, 3)
    with pytest.raises(ValueError, match="event 2 comes after 2"):
        pack([lines, *events(2, 1)])
