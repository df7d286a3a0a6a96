"""Which jobs run when, what keeps one waiting, and what ends with what."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from tests.engine.conftest import MakeEngine
from trio.testing import MockClock

from vaka import Engine, Job, JobSpec, Status
from vaka._supervision import INTERNAL_ERROR
from vaka.actors import admission
from vaka.errors import Conflict, UnderMaintenance
from vaka.hooks import hookimpl
from vaka.models.container import ContainerSpec
from vaka.models.storage import StorageScope, TableLoad
from vaka.testing import FakeHost, FakeImage, Printed, Script, host_path

IMAGE = "worker:1"
MAIN, SIEVE = "acme.main", "acme.sieve"


def play(host: FakeHost, *output: Printed, image: str = IMAGE, **script: Any) -> None:
    host.images[image] = FakeImage(Script(output, **script))


async def register(engine: Engine, component: str = MAIN, *, image: str = IMAGE) -> None:
    uri, _, tag = image.rpartition(":")
    definition = {"type": "dockerhub", "uri": uri, "tag": tag}
    await engine.catalog.put_component(
        {"id": component, "type": "other", "name": component, "data": {"definition": definition}}
    )


async def running(engine: Engine, *jobs: Job) -> None:
    """Return once these jobs' containers run."""
    for job in jobs:
        async for event in job.events():
            if event.kind == "stage.started":
                break
        else:
            pytest.fail(f"job {job.id} ended without a container: {job.record}")


async def statuses(*jobs: Job) -> list[Status]:
    return [(await job.refresh()).status for job in jobs]


# -- one after the other, or side by side ----------------------------------------------------------


@pytest.mark.scenario("runner", 89)
@pytest.mark.scenario("runner", 90)
async def test_jobs_of_one_configuration_run_one_by_one_and_inline_ones_together(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, seconds=100)
    async with make_engine() as engine:
        await register(engine)
        await engine.catalog.create_configuration("1", MAIN, "c", config_id="c")
        for row in ("r1", "r2"):
            await engine.catalog.create_row("1", MAIN, "c", row_id=row)
        stored = JobSpec(component=MAIN, config="c")
        first = await engine.submit(stored.model_copy(update={"row": "r1"}))
        second = await engine.submit(stored.model_copy(update={"row": "r2"}))
        third = await engine.submit(stored)
        inline = [
            await engine.submit(JobSpec(component=MAIN, config_data={"parameters": {}}))
            for _ in range(2)
        ]
        await running(engine, first, *inline)
        waiting, processing = Status.WAITING, Status.PROCESSING
        assert await statuses(first, *inline) == [processing] * 3
        assert await statuses(second, third) == [waiting] * 2
        said = await engine.waits_for(second.record)
        assert said == f"job {first.id} of the same configuration, which has not ended"
        await first.wait()
        await running(engine, second)
        assert await statuses(first, second, third) == [Status.SUCCESS, processing, waiting]
        assert await engine.waits_for(second.record) is None
        assert (await third.wait()).status is Status.SUCCESS


@pytest.mark.scenario("runner", 91)
async def test_a_full_project_waits_but_a_child_of_a_running_job_starts(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, seconds=100)
    async with make_engine() as engine:
        project = await engine.catalog.create_project(
            "Narrow", limits={"components.jobsParallelism": 1}
        )
        spec = JobSpec(image=IMAGE, project=project.id)
        parent = await engine.submit(spec)
        await running(engine, parent)
        second = await engine.submit(spec)
        of_parent = spec.model_copy(update={"parent_run_id": parent.record.run_id})
        child, sibling = await engine.submit(of_parent), await engine.submit(of_parent)
        await running(engine, child)
        assert child.record.run_id.startswith(f"{parent.record.run_id}.")
        assert await statuses(parent, child) == [Status.PROCESSING] * 2
        assert await statuses(second, sibling) == [Status.WAITING] * 2
        assert await engine.waits_for(second.record) == (
            "one of the project's 2 running jobs to end"
        )
        # the limit is the project's alone
        other = await engine.submit(JobSpec(image=IMAGE))
        await running(engine, other)
        for job in (second, sibling):
            assert (await job.wait()).status is Status.SUCCESS


async def test_a_job_is_stopped_with_all_that_it_has_started(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, seconds=math.inf)
    async with make_engine(concurrency=4, shutdown="stop") as engine:
        foreign = await engine.catalog.create_project("Foreign")
        spec = JobSpec(image=IMAGE)
        parent = await engine.submit(spec)

        async def below(job: Job, **changes: Any) -> Job:
            update = {"parent_run_id": job.record.run_id, **changes}
            return await engine.submit(spec.model_copy(update=update))

        child = await below(parent)
        grandchild = await below(child)
        theirs = await below(parent, project=foreign.id)
        await running(engine, parent, child, grandchild, theirs)
        waiting = await below(child)
        await parent.cancel({"id": "7", "description": "who"})
        began = trio.current_time()
        for job in (parent, child, grandchild):
            assert (await job.wait()).status is Status.TERMINATED
            assert job.record.terminated_by == {"id": "7", "description": "who"}
        assert trio.current_time() - began < 1  # told at once, not with the next renewal
        assert await statuses(waiting, theirs) == [Status.CANCELLED, Status.PROCESSING]
        assert len(host.containers) == 1
        # whose run id only begins alike is no child
        alike = await engine.submit(spec.model_copy(update={"parent_run_id": child.record.run_id}))
        assert (await alike.refresh()).status is not Status.CANCELLED


# -- delivered again --------------------------------------------------------------------------------


@pytest.mark.scenario("runner", 92)
@pytest.mark.scenario("runner", 250)
async def test_a_job_that_runs_or_has_ended_is_left_alone_by_other_engines(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, tmp_path: Path
) -> None:
    play(host, Printed(b"done\n"))
    play(host, seconds=500, image="long:1")
    shared = f"sqlite:///{tmp_path}/shared.db"
    async with make_engine(store_url=shared, idle_poll=1) as first:
        done = await first.submit(JobSpec(image=IMAGE))
        await done.wait()
        runs = await first.submit(JobSpec(image="long:1"))
        await running(first, runs)
        before = [await job.refresh() for job in (done, runs)]
        told = [[event async for event in job.events(follow=False)] for job in (done, runs)]
        # another worker looks at the same queue, as if both were delivered to it once more
        async with make_engine(store_url=shared, home=tmp_path / "other", idle_poll=1) as second:
            await trio.sleep(120)
            own = await second.submit(JobSpec(image=IMAGE))
            assert (await own.wait()).status is Status.SUCCESS
        assert [await job.refresh() for job in (done, runs)] == before
        again = [[event async for event in job.events(follow=False)] for job in (done, runs)]
        assert again == told
        assert (await runs.wait()).status is Status.SUCCESS
    # and none is run again by the next start
    created = len(host.created)
    async with make_engine(store_url=shared) as third:
        await trio.sleep(120)
        assert await third.services.store.job(done.id) == before[0]
    assert len(host.created) == created


async def test_a_job_that_is_claimed_while_the_engine_leaves_is_for_the_next_one(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(host)
    async with make_engine() as engine:
        store = engine.services.store
        real, claimed, may_answer = store.claim, trio.Event(), trio.Event()

        async def claim(*arguments: Any, **options: Any) -> Any:
            found = await real(*arguments, **options)
            if found:
                claimed.set()
                await may_answer.wait()
            return found

        monkeypatch.setattr(store, "claim", claim)
        await trio.sleep(6)  # the dispatcher asks by the new way
        job = await engine.submit(JobSpec(image=IMAGE))
        await claimed.wait()
        real_close = engine._dispatcher.close  # type: ignore[union-attr]

        def close() -> None:
            real_close()
            may_answer.set()

        monkeypatch.setattr(engine._dispatcher, "close", close)
    assert host.created == []
    async with make_engine() as engine:
        assert (await (await engine.job(job.id)).wait()).status is Status.SUCCESS


# -- outcomes --------------------------------------------------------------------------------------


@pytest.mark.scenario("runner", 95)
async def test_an_unexpected_error_is_told_to_the_operator_with_its_id(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    @hookimpl
    def vaka_container_spec(spec: ContainerSpec) -> ContainerSpec:
        raise KeyError("of a secret kind")

    play(host)
    async with make_engine(SimpleNamespace(vaka_container_spec=vaka_container_spec)) as engine:
        job = await engine.submit(JobSpec(image=IMAGE))
        outcome = await job.wait()
    assert outcome.message == INTERNAL_ERROR
    assert INTERNAL_ERROR == "Internal error occurred, please contact support@keboola.com"
    assert (outcome.status, outcome.error) == (Status.ERROR, "application")
    (told,) = [record for record in caplog.records if record.msg == "job.failed"]
    assert told.levelname == "ERROR"
    assert vars(told)["exception_id"] == outcome.exception_id == outcome.result["exceptionId"]
    assert "of a secret kind" in vars(told)["exception"]
    assert "of a secret kind" not in json.dumps(dict(job.record.result))


@pytest.mark.scenario("runner", 97)
async def test_usage_written_while_a_job_runs_is_there_at_once_and_after_its_end(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    usage = [{"metric": "kB", "value": 150}]

    def write(spec: ContainerSpec) -> None:
        host_path(spec, "/data/out/usage.json").write_text(json.dumps(usage))

    play(host, effect=write)
    play(host, seconds=100, image="sieve:1")
    async with make_engine() as engine:
        await register(engine)
        await register(engine, SIEVE, image="sieve:1")
        sieve = {"definition": {"component": SIEVE}}
        job = await engine.submit(
            JobSpec(component=MAIN, config_data={"processors": {"after": [sieve]}})
        )
        async for event in job.events():
            if event.kind == "stage.started" and event.component == SIEVE:
                break
        assert (await job.refresh()).status is Status.PROCESSING
        assert [dict(entry) for entry in job.record.usage] == usage
        assert (await job.wait()).status is Status.SUCCESS
        assert [dict(entry) for entry in job.record.usage] == usage


@pytest.mark.scenario("runner", 98)
@pytest.mark.parametrize("closed", ["configuration", "put_state"])
async def test_a_job_that_meets_maintenance_waits_again(
    host: FakeHost,
    clock: MockClock,
    make_engine: MakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    closed: str,
) -> None:
    play(host, Printed(b"worked\n"))
    async with make_engine() as engine:
        await register(engine)
        await engine.catalog.create_configuration("1", MAIN, "c", config_id="c")
        real: Callable[..., Awaitable[Any]] = getattr(engine.catalog, closed)

        async def refuse(*_: Any, **__: Any) -> Any:
            raise UnderMaintenance("Storage is being moved", retry_after=300)

        monkeypatch.setattr(engine.catalog, closed, refuse)
        job = await engine.submit(JobSpec(component=MAIN, config="c"))
        async for event in job.events():
            if event.kind == "job.requeued":
                break
        began = trio.current_time()
        watch = engine.services.store.watch(("status", job.id))
        while (await job.refresh()).status is not Status.WAITING:
            await watch.changed(5)
        record = job.record
        assert (record.result, record.started, record.owner) == ({}, None, None)
        assert host.containers == []
        assert await engine.waits_for(record) == "Storage is being moved"
        monkeypatch.setattr(engine.catalog, closed, real)
        assert (await job.wait()).status is Status.SUCCESS
        assert trio.current_time() - began >= 299
        assert job.record.attempt == 2


async def test_a_job_that_is_stopped_under_maintenance_ends(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_engine() as engine:
        await register(engine)

        async def refuse(*_: Any, **__: Any) -> Any:
            await job.cancel()
            raise UnderMaintenance("Storage is being moved")

        monkeypatch.setattr(engine.catalog, "configuration", refuse)
        job = await engine.submit(JobSpec(component=MAIN, config="c"))
        assert (await job.wait()).status is Status.TERMINATED


async def test_a_key_names_one_request_of_a_project_whoever_sends_it(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host)
    spec = JobSpec(image=IMAGE, idempotency_key="k", token_id="1", token_description="one")
    async with make_engine() as engine:
        first = await engine.submit(spec)
        other = spec.model_copy(update={"token_id": "2", "token_description": "two"})
        assert (await engine.submit(other)).id == first.id
        with pytest.raises(Conflict, match=f"which made job {first.id}"):
            await engine.submit(spec.model_copy(update={"memory": "1g"}))
        second = await engine.catalog.create_project("Two")
        theirs = await engine.submit(spec.model_copy(update={"project": second.id}))
        assert theirs.id != first.id
    async with make_engine() as engine:  # it outlives the engine
        assert (await engine.submit(spec)).id == first.id


async def test_a_job_says_how_many_bytes_it_moved_whether_it_failed_or_not(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, tmp_path: Path
) -> None:
    out = b"id,name\n1,one\n"

    def write(spec: ContainerSpec) -> None:
        host_path(spec, "/data/out/tables/out.csv").write_bytes(out)

    configuration = {
        "storage": {
            "input": {"tables": [{"source": "in.c-b.t", "destination": "t.csv"}]},
            "output": {"tables": [{"source": "out.csv", "destination": "out.c-b.t"}]},
        }
    }
    source = tmp_path / "t.csv"
    source.write_text("id\n1\n")
    async with make_engine() as engine:
        await register(engine)
        tables, scope = engine.storage.tables, StorageScope(project="1")
        await tables.create_bucket(scope, "in", "b")
        await tables.load(scope, [TableLoad("in.c-b.t", (source,))])
        spec = JobSpec(component=MAIN, config_data=configuration)
        play(host, effect=write)
        good = await engine.submit(spec)
        assert (await good.wait()).status is Status.SUCCESS, good.record
        assert good.record.metrics == {
            "storage": {"inBytes": len('"id"\n"1"\n'), "outBytes": len(out)},
            "backend": engine.storage.backend_name,
        }
        play(host, effect=write, exit_code=1)
        bad = await engine.submit(spec)
        assert (await bad.wait()).status is Status.ERROR
        assert bad.record.metrics["storage"] == {"inBytes": len('"id"\n"1"\n'), "outBytes": 0}


# -- the disk --------------------------------------------------------------------------------------

GIB = 1 << 30


async def test_no_job_starts_while_the_disk_is_nearly_full(
    host: FakeHost,
    clock: MockClock,
    make_engine: MakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    free = 100 * GIB
    caplog.set_level(logging.INFO, "vaka")
    play(host, seconds=10)
    monkeypatch.setattr(admission, "free_bytes", lambda folder: free)
    async with make_engine(disk_stop_bytes=GIB, disk_warn_bytes=5 * GIB) as engine:
        runs = await engine.submit(JobSpec(image=IMAGE))
        await running(engine, runs)
        assert (await engine.health()).warnings == ()
        free = 2 * GIB
        await trio.sleep(2)
        health = await engine.health()
        assert health.ok
        (warning,) = health.warnings
        assert warning.startswith("only 2.0 GiB are free on the disk of ")
        free = GIB - 1
        await trio.sleep(2)
        waits = await engine.submit(JobSpec(image=IMAGE))
        assert (await runs.wait()).status is Status.SUCCESS  # what runs is not touched
        await trio.sleep(1_000)
        assert (await waits.refresh()).status is Status.WAITING
        reason = await engine.waits_for(waits.record)
        assert reason is not None
        assert reason.startswith("only 1023 MiB are free on the disk of ")
        health = await engine.health()
        assert (health.ok, health.disk, health.warnings) == (False, reason, ())
        free = 100 * GIB
        assert (await waits.wait()).status is Status.SUCCESS
    told = [record.msg for record in caplog.records]
    for name in ("disk.filling", "admission.stopped", "admission.resumed"):
        assert told.count(name) == 1, name


async def test_a_job_of_a_dead_engine_is_taken_over_even_when_the_disk_is_full(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 100 * GIB
    play(host, seconds=1_000)
    monkeypatch.setattr(admission, "free_bytes", lambda folder: free)
    async with make_engine(shutdown="adopt") as engine:
        job = await engine.submit(JobSpec(image=IMAGE))
        await running(engine, job)
    free = 0
    async with make_engine() as engine:
        assert (await (await engine.job(job.id)).wait()).status is Status.SUCCESS


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of its own: 64 MiB for who may mount, else shared memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        yield folder
        subprocess.run(["umount", str(folder)], check=True)
        return
    folder = Path("/dev/shm") / f"vaka-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


async def test_a_real_disk_is_looked_at(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, small_disk: Path
) -> None:
    play(host)
    free = shutil.disk_usage(small_disk).free
    settings = {"disk_stop_bytes": free - (24 << 20), "disk_warn_bytes": free - (24 << 20)}
    async with make_engine(home=small_disk / "home", **settings) as engine:
        assert (await (await engine.submit(JobSpec(image=IMAGE))).wait()).status is Status.SUCCESS
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(32 << 20))
        await trio.sleep(2)
        job = await engine.submit(JobSpec(image=IMAGE))
        await trio.sleep(60)
        assert (await job.refresh()).status is Status.WAITING
        assert str(small_disk) in str(await engine.waits_for(job.record))
        ballast.unlink()
        assert (await job.wait()).status is Status.SUCCESS
