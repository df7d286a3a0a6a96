"""Operations on Storage as the store keeps them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from vaka.errors import NotFound, Overloaded
from vaka.models.operation import (
    Done,
    NewOperation,
    Operation,
    OperationError,
    OperationQuery,
    OperationStatus,
    Transfer,
)
from vaka.models.storage import BucketDetail, MetadataEntry, TableDetail
from vaka.store import Fence, JobStore, _operations

from .support import LEASE, Clock, owner

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def new(table: str | None = "in.c-a.t", **changes: Any) -> NewOperation:
    values: dict[str, Any] = {
        "project": "1",
        "kind": "tableImport",
        "params": {"source": {"type": "file", "fileId": 7}},
        "table_id": table,
    }
    return NewOperation(**(values | changes))


async def claim(store: JobStore, name: str = "first", limit: int = 100) -> list[Operation]:
    return await store.claim_operations(owner(name), lease=LEASE, limit=limit)


def fence(record: Operation) -> Fence:
    assert record.owner is not None
    return Fence(record.id, record.owner, record.attempt)


def ids(records: list[Operation]) -> list[int]:
    return [record.id for record in records]


async def test_an_operation_is_there_when_it_is_accepted(store: JobStore, clock: Clock) -> None:
    params = {"b": 1, "a": {"x": "\0 č", "y": [None, True, 1.5]}}
    made = await store.submit_operation(
        new(params=params, branch="7", run_id="10.20", token_id="44", token_description="me")
    )

    found = await store.operation(made.id, "1")
    assert found == made
    assert list(found.params) == ["b", "a"]
    assert found.params == params
    assert (found.status, found.created, found.attempt) == (OperationStatus.WAITING, clock.now, 0)
    assert (found.branch, found.run_id, found.token_id) == ("7", "10.20", "44")
    for wrong_id, project in ((made.id, "2"), (made.id + 1, "1"), (2**70, "1")):
        with pytest.raises(NotFound, match=f"Job {wrong_id} not found"):
            await store.operation(wrong_id, project)


async def test_one_table_is_worked_on_in_order_and_others_beside_it(store: JobStore) -> None:
    made = [
        await store.submit_operation(new(table))
        for table in ("in.c-a.t", "in.c-a.t", "in.c-a.u", "in.c-b.t", None, None)
    ]

    claimed = await claim(store)
    assert ids(claimed) == ids([made[0], *made[2:]])
    assert await claim(store) == []
    assert await store.finish_operation(fence(claimed[0]), Done())
    assert ids(await claim(store)) == [made[1].id]


async def test_a_bucket_waits_for_its_tables_and_they_for_it(store: JobStore) -> None:
    table = await store.submit_operation(new("in.c-a.t"))
    bucket = await store.submit_operation(new(None, bucket_id="in.c-a", kind="bucketDelete"))
    later = await store.submit_operation(new("in.c-a.u"))
    other = await store.submit_operation(new("in.c-ab.u"))
    elsewhere = await store.submit_operation(new("in.c-a.u", project="2"))
    in_branch = await store.submit_operation(new("in.c-a.u", branch="9"))

    first = await claim(store)
    assert ids(first) == ids([table, other, elsewhere, in_branch])
    assert await store.finish_operation(fence(first[0]), Done())
    (second,) = await claim(store)
    assert second.id == bucket.id
    assert await store.finish_operation(fence(second), Done())
    assert ids(await claim(store)) == [later.id]


async def test_what_an_engine_had_that_died_comes_first_again(
    store: JobStore, clock: Clock
) -> None:
    made = await store.submit_operation(new())
    behind = await store.submit_operation(new())
    (lost,) = await claim(store, "first")

    assert await claim(store, "second") == []
    clock.advance(LEASE - 1)
    assert await store.renew_operations(owner("first"), LEASE) == {made.id}
    clock.advance(LEASE - 1)
    assert await claim(store, "second") == []
    clock.advance(2)
    assert await claim(store, "first") == []  # it has it, however late it is with saying so
    (taken,) = await claim(store, "second")
    assert (taken.id, taken.attempt, taken.owner) == (made.id, 2, "second")
    assert not await store.finish_operation(fence(lost), Done())
    assert not await store.release_operation(fence(lost))
    assert await store.renew_operations(owner("first"), LEASE) == frozenset()
    assert await store.finish_operation(fence(taken), Done({"x": 1}))
    assert not await store.finish_operation(fence(taken), Done({"x": 2}))
    assert (await store.operation(made.id)).results == Done({"x": 1})
    assert ids(await claim(store, "second")) == [behind.id]


async def test_what_a_known_dead_engine_had_is_free_at_once(store: JobStore) -> None:
    made = await store.submit_operation(new())
    await claim(store, "first")

    await store.expire_owner("first")

    assert ids(await claim(store, "second")) == [made.id]


async def test_what_is_put_back_begins_as_if_for_the_first_time(store: JobStore) -> None:
    await store.submit_operation(new())
    (claimed,) = await claim(store)

    assert await store.release_operation(fence(claimed))

    found = await store.operation(claimed.id)
    assert (found.status, found.started, found.attempt) == (OperationStatus.WAITING, None, 0)
    (again,) = await claim(store, "second")
    assert (again.id, again.attempt) == (claimed.id, 1)


async def test_how_it_ended_is_kept(store: JobStore, clock: Clock) -> None:
    entry = MetadataEntry("5", "k", "v", "user", CREATED)
    table = TableDetail(
        "in.c-a.t", "in.c-a", "t", ("id",), ("id",), CREATED, column_metadata={"id": (entry,)}
    )
    done = Done(
        table=table,
        bucket=BucketDetail("in.c-a", "c-a", "in", CREATED, metadata=(entry,)),
        transfer=Transfer(in_bytes=5),
    )
    failed = OperationError("invalidCsv", "no good", "exception-1")
    outcomes: tuple[Done | OperationError, ...] = (done, Done([]), Done({}), failed)
    for _ in outcomes:
        await store.submit_operation(new(None))
    clock.advance(3)
    claimed = await claim(store)
    clock.advance(4)
    for record, outcome in zip(claimed, outcomes, strict=True):
        assert await store.finish_operation(fence(record), outcome)

    found = [await store.operation(record.id) for record in claimed]
    assert [each.results for each in found] == [done, Done([]), Done({}), None]
    assert [each.error for each in found] == [None, None, None, failed]
    assert [each.status.value for each in found] == ["success", "success", "success", "error"]
    assert {(each.ended, each.started) for each in found} == {(clock.now, found[0].started)}
    assert found[0].started is not None
    assert (clock.now - found[0].started).total_seconds() == 4


async def test_a_list_is_newest_first_and_filtered(store: JobStore, clock: Clock) -> None:
    made = []
    for number in range(6):
        made.append(
            await store.submit_operation(
                new(
                    f"in.c-a.t{number % 2}",
                    kind="tableExport" if number == 5 else "tableImport",
                    run_id=f"r{number}",
                    token_id=f"{number}",
                )
            )
        )
        clock.advance(10)
    await store.submit_operation(new(project="2"))
    (first, _) = await claim(store, limit=2)
    await store.finish_operation(fence(first), Done())

    async def listed(**wanted: Any) -> list[int]:
        found = await store.operations(OperationQuery("1", **wanted))
        return [ids(made).index(each.id) for each in found]

    assert await listed() == [5, 4, 3, 2, 1, 0]
    assert await listed(limit=2, offset=1) == [4, 3]
    assert await listed(table_id="in.c-a.t1") == [5, 3, 1]
    assert await listed(bucket_id="in.c-a") == [5, 4, 3, 2, 1, 0]
    assert await listed(bucket_id="in.c") == []
    assert await listed(kinds=("tableExport",)) == [5]
    assert await listed(run_id="r3") == [3]
    assert await listed(token_id="2") == [2]
    assert await listed(statuses=(OperationStatus.SUCCESS, OperationStatus.PROCESSING)) == [1, 0]
    assert await listed(created_since=made[2].created, created_until=made[4].created) == [3, 2]


async def test_the_newest_with_a_cache_key_is_found(store: JobStore) -> None:
    for number in range(3):
        await store.submit_operation(new(None, project=str(number // 2)))
    claimed = await claim(store)
    for record in claimed:
        await store.finish_operation(fence(record), Done(cache_key="same"))

    found = await store.cached_operation("0", "same")
    assert found is not None
    assert found.id == claimed[1].id
    assert await store.cached_operation("0", "other") is None


async def test_a_project_may_have_so_many_open_ones_and_no_more(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_operations, "MOST_OPEN", 2)
    for _ in range(2):
        await store.submit_operation(new())

    with pytest.raises(Overloaded, match="wait for some"):
        await store.submit_operation(new("in.c-b.t"))

    await store.submit_operation(new(project="2"))
    (first, *_) = await claim(store)
    await store.finish_operation(fence(first), Done())
    await store.submit_operation(new("in.c-b.t"))


async def test_no_more_of_a_project_are_done_at_a_time_than_may_be(store: JobStore) -> None:
    limited = [
        await store.submit_operation(new(f"in.c-a.t{number}", project_parallelism=2))
        for number in range(4)
    ]
    free = [await store.submit_operation(new(f"in.c-a.t{n}", project="2")) for n in range(3)]

    begun = await claim(store)
    assert ids(begun) == ids([*limited[:2], *free])
    assert await claim(store, "second") == []
    await store.finish_operation(fence(begun[0]), Done())
    assert ids(await claim(store, "second")) == ids(limited[2:3])
    assert await claim(store) == []


async def test_what_ended_long_ago_is_forgotten(store: JobStore, clock: Clock) -> None:
    made = [await store.submit_operation(new(None)) for _ in range(5)]
    claimed = await claim(store, limit=4)
    for record in claimed:
        await store.finish_operation(fence(record), Done())
        clock.advance(10)

    assert await store.forget_operations(made[0].created.replace(second=15), 1) == 1
    assert await store.forget_operations(made[0].created.replace(second=15), 10) == 1
    assert await store.forget_operations(made[0].created.replace(second=15), 10) == 0
    assert ids(await store.operations(OperationQuery("1"))) == ids(made[:1:-1])
