"""PostgreSQL goes away under a running engine, by order or by a crash, and comes back."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from uuid import uuid4

import pytest
import trio
from tests.engine.conftest import MakeEngine
from tests.engine.jobs.project import until
from tests.engine.store.support import new_job
from tests.postgresql import Cluster, postgresql_cluster
from trio.testing import MockClock

from vaka import JobQuery, JobSpec, Status
from vaka.errors import StoreUnavailable
from vaka.models.job import JobRecord
from vaka.models.operation import Done, NewOperation, OperationStatus
from vaka.operations import Work
from vaka.store import JobStore, Owner
from vaka.testing import FakeHost, FakeImage, Printed, Script

pytestmark = pytest.mark.postgresql

A_WHILE = 60.0
"""Seconds, simulated, that it is away: longer than a lease."""
IMAGE = "worker:1"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL that loses nothing in a crash; the machine itself does not crash."""
    with postgresql_cluster(fsync="off", full_page_writes="off") as cluster:
        yield cluster


@pytest.fixture
def database(cluster: Cluster) -> str:
    name = f"test_{uuid4().hex}"
    cluster.execute(f"CREATE DATABASE {name}")
    return cluster.url(name)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGQUIT])
async def test_jobs_wait_for_postgresql_and_go_on_once(
    clock: MockClock,
    cluster: Cluster,
    database: str,
    host: FakeHost,
    make_engine: MakeEngine,
    end: signal.Signals,
) -> None:
    host.images[IMAGE] = FakeImage(Script((Printed(b"begun\n"),), seconds=math.inf))
    async with make_engine(store_url=database, concurrency=1) as engine:
        running = await engine.submit(JobSpec(image=IMAGE))
        waiting = await engine.submit(JobSpec(image=IMAGE))
        async for event in running.events():
            if event.kind == "log":
                break
        await trio.to_thread.run_sync(cluster.stop, end)
        health = await engine.health()
        assert health.store is not None
        assert "check that the server runs" in health.store
        with pytest.raises(StoreUnavailable):
            await engine.submit(JobSpec(image=IMAGE))
        (name,) = host.containers
        host.print(name, b"while it was away\n")
        host.finish(name)
        await trio.sleep(A_WHILE)
        assert len(host.created) == 1

        await trio.to_thread.run_sync(cluster.start)

        assert (await running.wait()).status is Status.SUCCESS
        assert (await engine.health()).ok
        await until(lambda: len(host.created) == 2 and host.containers)
        (name,) = host.containers
        host.finish(name)
        assert (await waiting.wait()).status is Status.SUCCESS
        assert len(await engine.jobs(JobQuery(project="1"))) == 2
        assert await engine.services.store.active_jobs() == {}
        for job, lines in ((running, ["begun", "while it was away"]), (waiting, ["begun"])):
            events = [each async for each in job.events(follow=False)]
            assert [each.message for each in events if each.kind == "log"] == lines
            assert job.record.attempt == 1
    assert len(host.created) == 2
    assert host.containers == []


async def test_a_crash_loses_nothing_that_was_acknowledged(cluster: Cluster, database: str) -> None:
    acknowledged: list[int] = []
    async with JobStore(database) as store:

        async def submit_for_ever() -> None:
            while True:
                try:
                    acknowledged.append((await store.submit(new_job())).id)
                except StoreUnavailable:
                    return

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(submit_for_ever)
            await until(lambda: len(acknowledged) >= 100)
            await trio.to_thread.run_sync(cluster.stop, signal.SIGQUIT)
        await trio.to_thread.run_sync(cluster.start)
        stored = [job.id for job in await store.jobs(JobQuery(limit=100_000))]
    assert set(acknowledged) <= set(stored)
    assert len(stored) <= len(acknowledged) + 8  # what was under way, nobody knows how far


async def test_what_was_claimed_in_a_transaction_whose_answer_was_lost_runs_all_the_same(
    clock: MockClock, host: FakeHost, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.images[IMAGE] = FakeImage(Script(seconds=math.inf))
    host.images["other:1"] = FakeImage(Script(seconds=1))
    claim, losing = JobStore.claim, [True]

    async def lose(self: JobStore, owner: Owner, **options: object) -> list[JobRecord]:
        claimed = await claim(self, owner, **options)  # type: ignore[arg-type]
        if losing and any(job.spec["image"] == "other:1" for job in claimed):
            losing.clear()
            raise StoreUnavailable("The connection was lost.")
        return claimed

    monkeypatch.setattr(JobStore, "claim", lose)
    async with make_engine() as engine:
        busy = await engine.submit(JobSpec(image=IMAGE))  # whose lease is renewed, and its owner's
        await until(lambda: host.containers)
        lost = await engine.submit(JobSpec(image="other:1"))

        assert (await lost.wait()).status is Status.SUCCESS

        assert not losing
        assert len(host.created) == 2
        await busy.cancel()
        await busy.wait()


async def test_an_operation_that_was_claimed_so_is_done_all_the_same(
    clock: MockClock, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, losing = JobStore.claim_operations, [True]

    async def lose(self: JobStore, owner: Owner, *, lease: float, limit: int) -> object:
        claimed = await claim(self, owner, lease=lease, limit=limit)
        if losing and claimed:
            losing.clear()
            raise StoreUnavailable("The connection was lost.")
        return claimed

    async def do(work: Work) -> Done:
        return Done({"x": 1})

    monkeypatch.setattr(JobStore, "claim_operations", lose)
    monkeypatch.setattr("vaka.actors.operations.HANDLERS", {"done": do})
    async with make_engine() as engine:
        made = await engine.operations.submit(NewOperation("1", "done", {}))

        ended = await engine.operations.wait(made.id)

    assert not losing
    assert (ended.status, ended.attempt) == (OperationStatus.SUCCESS, 1)
