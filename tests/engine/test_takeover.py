"""What becomes of the jobs of an engine that is gone, when one with another home takes them over."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from tests.engine.conftest import MakeEngine
from trio.testing import MockClock

from vaka import Engine, Job, JobSpec, Status
from vaka.models.job import CauseKind
from vaka.testing import FakeHost, FakeImage, Printed, Script

IMAGE = "worker:1"
MakeAt = Callable[..., Engine]


@pytest.fixture
def at(make_engine: MakeEngine, tmp_path: Path) -> MakeAt:
    """Makes an engine with a home of its own, on the one store, Storage and host of all."""
    (tmp_path / "shared").mkdir()

    def make(name: str, *, worker: bool = True) -> Engine:
        return make_engine(
            worker=worker,
            home=tmp_path / name,
            store_url=f"sqlite:///{tmp_path}/shared/jobs.db",
            storage_url=f"local://{tmp_path}/shared/storage",
            shutdown="adopt",
        )

    return make


async def left_running(engine: Engine) -> int:
    """A job that its engine leaves while the component works; its id."""
    async with engine:
        job = await engine.submit(JobSpec(image=IMAGE))
        async for event in job.events():
            if event.kind == "log":
                break
    return job.id


async def ended(engine: Engine, job_id: int) -> Job:
    async with engine:
        job = await engine.job(job_id)
        await job.wait()
    return job


async def test_a_component_that_has_begun_elsewhere_is_ended_and_not_run_again(
    host: FakeHost, clock: MockClock, at: MakeAt
) -> None:
    host.images[IMAGE] = FakeImage(Script((Printed(b"begun\n"),), seconds=math.inf))
    job = await ended(at("other"), await left_running(at("one")))

    assert job.record.status is Status.ERROR
    assert job.record.cause is not None
    assert job.record.cause.kind is CauseKind.CONTAINER_LOST
    assert job.record.cause.evidence["container"] == host.created[0].name
    assert len(host.created) == 1
    assert host.containers == []


async def test_what_the_component_left_elsewhere_is_not_taken_for_nothing(
    host: FakeHost, clock: MockClock, at: MakeAt
) -> None:
    host.images[IMAGE] = FakeImage(Script((Printed(b"begun\n"),), seconds=30))
    job_id = await left_running(at("one"))
    await trio.sleep(60)  # it has ended well meanwhile

    job = await ended(at("other"), job_id)

    assert job.record.status is Status.ERROR


async def test_a_component_that_has_not_begun_runs_from_the_start(
    host: FakeHost, clock: MockClock, at: MakeAt, tmp_path: Path
) -> None:
    host.images[IMAGE] = FakeImage(Script((Printed(b"whole\n"),), seconds=5))
    host.delays["create"] = 3_600
    async with at("one") as engine:
        job_id = (await engine.submit(JobSpec(image=IMAGE))).id
        await trio.sleep(60)
        (stage,) = (await (await engine.job(job_id)).refresh()).stages
        assert stage.started_at is None
    host.delays.clear()

    job = await ended(at("other"), job_id)

    assert job.record.status is Status.SUCCESS, job.record.result
    mounted = {mount.source for spec in host.created for mount in spec.mounts}
    assert tmp_path / f"other/jobs/{job_id}/data" in mounted
    assert host.containers == []
    assert list((tmp_path / "other/jobs").iterdir()) == []


async def test_a_job_that_was_asked_to_stop_is_stopped_from_any_home(
    host: FakeHost, clock: MockClock, at: MakeAt
) -> None:
    host.images[IMAGE] = FakeImage(Script((Printed(b"begun\n"),), seconds=math.inf, stop_seconds=1))
    job_id = await left_running(at("one"))
    async with at("front", worker=False) as front:
        await (await front.job(job_id)).cancel()

    job = await ended(at("other"), job_id)

    assert job.record.status is Status.TERMINATED
    assert host.containers == []
