"""A job on a real Docker Engine is stopped at each step, or loses what it runs on: its end is true."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from vaka import Engine, EngineConfig, Job, JobSpec, Status
from vaka.hooks import ContainerRuntime, hookimpl
from vaka.models.container import ContainerSpec, ContainerStatus, ImageInfo
from vaka.models.job import CauseKind
from vaka.runtime import DockerRuntime

pytestmark = pytest.mark.docker

TIME_LIMIT = 300.0
"""Seconds for one test: a bound, no measure."""
SLEEPS = "echo begun; while [ ! -e /tmp/wake ]; do sleep 0.1 & wait $!; done"


class Steps(DockerRuntime):
    """A Docker runtime that calls something before or after one of its methods."""

    step = ""
    """Such as `before create`."""
    act: Callable[[], Any]

    async def prepare_image(self, *arguments: Any, **options: Any) -> ImageInfo:
        async with self._around("prepare"):
            return await super().prepare_image(*arguments, **options)

    async def create(self, spec: ContainerSpec) -> ContainerStatus:
        async with self._around("create"):
            return await super().create(spec)

    async def start(self, name: str) -> None:
        async with self._around("start"):
            await super().start(name)

    async def remove(self, name: str) -> None:
        async with self._around("remove"):
            await super().remove(name)

    @asynccontextmanager
    async def _around(self, method: str) -> AsyncIterator[None]:
        await self._at(f"before {method}")
        yield
        await self._at(f"after {method}")

    async def _at(self, step: str) -> None:
        if step == self.step:
            self.step = ""  # once
            await self.act()


class Bench:
    """An engine on the real daemon, and that daemon's own word on what is there."""

    def __init__(self, engine: Engine, runtime: Steps, host: str, image: str) -> None:
        self.engine = engine
        self.runtime = runtime
        self.image = image
        self._host = host
        self._submitted = trio.Event()
        self._job: Job | None = None

    def docker(self, *arguments: str) -> str:
        return subprocess.run(
            ["docker", "--host", self._host, *arguments],
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
            check=True,
        ).stdout

    def containers(self) -> list[str]:
        label = f"label=vaka.instance={self.engine.config.instance}"
        return self.docker("ps", "--all", "--filter", label, "--format", "{{.Names}}").split()

    async def submit(self, script: str, image: str | None = None) -> Job:
        spec = JobSpec(image=image or self.image, command=("sh", "-c", script), memory="32m")
        self._job = await self.engine.submit(spec)
        self._submitted.set()
        return self._job

    async def cancel(self) -> None:
        """Ask the job to end, as soon as it is known."""
        await self._submitted.wait()
        assert self._job is not None
        await self._job.cancel()

    async def begun(self, script: str) -> Job:
        """A job whose container has printed its first line."""
        job = await self.submit(script)
        async for event in job.events():
            if event.kind == "log":
                return job
        raise AssertionError("it printed nothing")

    async def ended(self, job: Job) -> Status:
        """The final status; nothing lives behind it."""
        outcome = await job.wait()
        assert self.containers() == []
        return outcome.status


@pytest.fixture
async def bench(docker_host: str, busybox_image: str, tmp_path: Path) -> AsyncIterator[Bench]:
    runtime = Steps(docker_host)

    @hookimpl
    def vaka_container_runtime(url: str) -> ContainerRuntime:
        return runtime

    config = EngineConfig(
        home=tmp_path / "home",
        instance=f"test-{secrets.token_hex(4)}",
        runtime_url="steps://",
        pull_attempts=1,
        stop_grace=0.5,
    )
    plugin = SimpleNamespace(vaka_container_runtime=vaka_container_runtime)
    with trio.fail_after(TIME_LIMIT):
        async with Engine(config, plugins=[plugin]) as engine:
            yield Bench(engine, runtime, docker_host, busybox_image)


@pytest.mark.parametrize(
    "step",
    [
        "before prepare",
        "after prepare",
        "before create",
        "after create",
        "before start",
        "after start",
    ],
)
async def test_a_job_is_stopped_at_every_step_of_its_start(bench: Bench, step: str) -> None:
    bench.runtime.step = step
    bench.runtime.act = bench.cancel
    job = await bench.submit(SLEEPS)

    assert await bench.ended(job) is Status.TERMINATED


@pytest.mark.parametrize("listens", [True, False])
async def test_a_container_that_runs_is_stopped_whether_it_listens_or_not(
    bench: Bench, listens: bool
) -> None:
    job = await bench.begun(SLEEPS if listens else f"trap '' TERM; {SLEEPS}")

    await job.cancel()
    await job.cancel()  # once more changes nothing

    assert await bench.ended(job) is Status.TERMINATED


@pytest.mark.parametrize("step", ["before remove", "after remove"])
async def test_a_stop_that_races_with_the_end_tells_what_was_first(bench: Bench, step: str) -> None:
    bench.runtime.step = step
    bench.runtime.act = bench.cancel
    job = await bench.submit("echo done")

    assert await bench.ended(job) in {Status.SUCCESS, Status.TERMINATED}
    assert [each.message async for each in job.events() if each.kind == "log"] == ["done"]


async def test_a_container_that_somebody_removes_is_lost_and_said_so(bench: Bench) -> None:
    job = await bench.begun(SLEEPS)
    (name,) = bench.containers()

    bench.docker("rm", "--force", name)

    assert await bench.ended(job) is Status.ERROR
    assert job.record.cause is not None
    assert job.record.cause.kind is CauseKind.CONTAINER_LOST
    assert job.record.cause.evidence["container"] == name


async def test_an_image_that_is_removed_before_its_container_is_made_is_named(
    bench: Bench,
) -> None:
    reference = f"vaka-test/going:{secrets.token_hex(4)}"
    # an image of its own, not another name of one that stays
    made = bench.docker("create", bench.image).strip()
    bench.docker("commit", made, reference)
    bench.docker("rm", made)

    async def remove() -> None:
        bench.docker("rmi", reference)

    bench.runtime.step = "before create"
    bench.runtime.act = remove

    job = await bench.submit("echo begun", reference)

    assert await bench.ended(job) is Status.ERROR
    assert job.record.cause is not None
    assert job.record.cause.kind is CauseKind.IMAGE_UNAVAILABLE
    assert job.record.cause.evidence["reference"] == reference
