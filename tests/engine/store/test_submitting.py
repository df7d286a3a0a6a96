from dataclasses import replace

import pytest

from vaka.errors import Conflict, InvalidInput
from vaka.models.job import JobQuery, Mode, Status
from vaka.store import JobStore

from .support import SOMEBODY, START, Clock, claim, claim_one, ids, new_job


async def test_a_new_job_is_waiting_and_can_be_read_back(store: JobStore) -> None:
    made = await store.submit(
        new_job(
            config="42",
            mode=Mode.DEBUG,
            lock_name="docker-1-acme.extractor-42",
            token_id="7",
            token_description="me@example.com",
        )
    )

    assert made == await store.job(made.id)
    assert made.status is Status.WAITING
    assert made.created == START
    assert (made.started, made.ended, made.owner, made.phase) == (None, None, None, None)
    assert (made.config, made.mode, made.attempt) == ("42", Mode.DEBUG, 0)
    assert made.lock_name == "docker-1-acme.extractor-42"
    assert (made.token_id, made.token_description) == ("7", "me@example.com")
    assert made.stages == ()
    assert not made.stop_requested


async def test_a_run_is_numbered_as_its_job(store: JobStore) -> None:
    first = await store.submit(new_job())
    second = await store.submit(new_job())

    assert [first.run_id, second.run_id] == [str(first.id), str(second.id)]
    assert second.id > first.id


async def test_a_run_id_goes_on_from_its_parents(store: JobStore) -> None:
    made = await store.submit(new_job(parent_run_id="111.222"))

    assert made.run_id.rpartition(".")[0] == "111.222"
    assert made.nesting_level == 2


async def test_a_specification_keeps_its_order_and_every_character(store: JobStore) -> None:
    document = {"z": 1, "a": ["\x00", "\ud800", "\u2028", "žluťoučký", {"z": None, "b": 1.5}]}

    made = await store.submit(new_job(spec=document))

    kept = (await store.job(made.id)).spec
    assert kept == document
    assert list(kept) == ["z", "a"]


async def test_a_name_that_is_no_text_is_refused(store: JobStore) -> None:
    with pytest.raises(InvalidInput, match="cannot keep a value"):
        await store.submit(new_job(component="acme\ud800"))

    assert await store.jobs(JobQuery()) == []


async def test_a_repeated_idempotency_key_gives_the_same_job(store: JobStore, clock: Clock) -> None:
    first = await store.submit(new_job(idempotency_key="k", request_hash="h"))
    await claim(store)
    clock.advance(60)

    again = await store.submit(new_job(idempotency_key="k", request_hash="h"))

    assert again == await store.job(first.id)
    assert again.status is Status.PROCESSING
    assert ids(await store.jobs(JobQuery())) == [first.id]


async def test_an_idempotency_key_is_good_for_one_request_only(store: JobStore) -> None:
    first = await store.submit(new_job(idempotency_key="k", request_hash="h"))

    with pytest.raises(
        Conflict, match=f"'k' was used for another request, which made job {first.id}"
    ):
        await store.submit(new_job(idempotency_key="k", request_hash="other"))

    assert ids(await store.jobs(JobQuery())) == [first.id]


async def test_projects_do_not_share_idempotency_keys(store: JobStore) -> None:
    first = await store.submit(new_job(idempotency_key="k", request_hash="h"))
    second = await store.submit(new_job(idempotency_key="k", request_hash="x", project="2"))

    assert first.id != second.id


def test_an_idempotency_key_needs_a_hash() -> None:
    with pytest.raises(ValueError, match="needs the hash"):
        new_job(idempotency_key="k")


async def test_an_old_job_loses_its_idempotency_key(store: JobStore, clock: Clock) -> None:
    keyed = new_job(idempotency_key="k", request_hash="h", idempotency_seconds=60)
    first = await store.submit(keyed)
    clock.advance(59)
    assert (await store.submit(keyed)).id == first.id
    clock.advance(1)
    second = await store.submit(replace(keyed, request_hash="another"))
    assert second.id != first.id
    assert (await store.submit(replace(keyed, request_hash="another"))).id == second.id


async def test_a_jobs_token_is_kept_apart_until_the_job_ends(store: JobStore) -> None:
    made = await store.submit(new_job(token="KBC::ProjectWideSecure::v1.x"))
    cancelled = await store.submit(new_job(token="KBC::ProjectWideSecure::v1.y"))
    without = await store.submit(new_job())
    assert await store.token(made.id) == "KBC::ProjectWideSecure::v1.x"
    assert await store.token(without.id) is None
    assert "ProjectWideSecure" not in repr((made, await store.job(made.id)))

    record, right = await claim_one(store)
    assert record.id == made.id
    await store.requeue(right)
    record, right = await claim_one(store)
    await store.restart(right)
    right = replace(right, attempt=right.attempt + 1)
    assert await store.token(made.id) == "KBC::ProjectWideSecure::v1.x"
    await store.finish(right, Status.SUCCESS, result={"message": "done"})
    await store.request_stop(cancelled.id, SOMEBODY)

    assert await store.token(made.id) is None
    assert await store.token(cancelled.id) is None
