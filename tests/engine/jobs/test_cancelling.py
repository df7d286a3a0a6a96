"""A job is stopped, whatever it does at that moment: its final status says what is true."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from tests.engine.jobs.project import Project, until
from trio.testing import MockClock

from vaka import Job, JobSpec, Status
from vaka.errors import Conflict
from vaka.testing import FakeImage, Script

OUTPUT = {"tables": [{"source": "rows.csv", "destination": "out.c-a.rows"}]}
CONFIGURATION = {
    "storage": {
        "input": {"tables": [{"source": "in.c-a.rows", "destination": "rows.csv"}]},
        "output": OUTPUT,
    },
    "processors": {
        "before": [{"definition": {"component": "x.before"}}],
        "after": [{"definition": {"component": "x.after"}}],
    },
}
PARTS = ("x.before", "x", "x.after")
SECONDS = 10.0


def written(seen: Any) -> dict[str, str]:
    return {
        "out/tables/rows.csv": seen.files.get("in/tables/rows.csv", "id\n1\n"),
        "out/state.json": '{"runs": 1}',
    }


async def prepared(project: Project, **play: Any) -> Project:
    """A component between two processors, each of which takes ten seconds."""
    for part in PARTS:
        await project.component(part, written, **{"seconds": SECONDS, **play})
    await project.load("in.c-a.rows", "id\n1\n2\n")
    await project.configuration("x", CONFIGURATION)
    return project


class Pause:
    """Holds a call up: `reached` when somebody makes it, until `go`."""

    def __init__(self, call: Callable[..., Awaitable[Any]]) -> None:
        self.reached, self.go = trio.Event(), trio.Event()
        self._call = call

    async def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.reached.set()
        await self.go.wait()
        return await self._call(*arguments, **options)


async def ended(project: Project, job: Job) -> Status:
    """The final status, seen when it is there for the first time; nothing lives behind it."""
    while True:
        if (await job.refresh()).status.is_finished:
            break
        await trio.sleep(0.1)
    assert project.host.containers == []
    return job.record.status


async def expect_stopped(project: Project, job: Job) -> None:
    assert await ended(project, job) is Status.TERMINATED
    assert job.record.cause is not None
    assert job.record.cause.kind == "cancelled"
    assert job.record.cause.evidence == {"id": "4", "description": "me"}
    assert (await project.state("x")).version == 0
    with pytest.raises(Conflict):
        await job.cancel()


@pytest.mark.parametrize("grace", ["it obeys", "it does not listen"])
@pytest.mark.parametrize("part", range(len(PARTS)), ids=PARTS)
async def test_a_job_is_stopped_while_a_container_of_it_runs(
    project: Project, clock: MockClock, part: int, grace: str
) -> None:
    await prepared(project, stop_seconds=2.0 if grace == "it obeys" else math.inf)
    job = await project.engine.submit(JobSpec(component="x", config="c"))
    await until(lambda: len(project.host.created) > part)
    name = project.host.created[part].name
    await trio.sleep(1)
    await job.cancel({"id": "4", "description": "me"})
    await job.cancel({"id": "4", "description": "me"})  # once more changes nothing
    assert job.record.status is Status.TERMINATING
    await expect_stopped(project, job)
    assert len(project.host.created) == part + 1
    assert name in job.record.result["verifiedGone"]
    assert "out.c-a.rows" not in await project.tables()


@pytest.mark.parametrize(
    ("service", "method", "created", "is_stored"),
    [
        pytest.param("tables", "export", 0, False, id="staging in"),
        pytest.param("tables", "load", 3, False, id="output mapping"),
        pytest.param("catalog", "put_state", 3, True, id="state"),
    ],
)
async def test_a_job_is_stopped_between_its_containers(
    project: Project,
    clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    service: str,
    method: str,
    created: int,
    is_stored: bool,
) -> None:
    await prepared(project)
    engine = project.engine
    owner = engine.catalog if service == "catalog" else engine.storage.tables
    pause = Pause(getattr(owner, method))
    monkeypatch.setattr(owner, method, pause)
    job = await engine.submit(JobSpec(component="x", config="c"))
    await pause.reached.wait()
    await job.cancel({"id": "4", "description": "me"})
    await expect_stopped(project, job)
    assert len(project.host.created) == created
    assert ("out.c-a.rows" in await project.tables()) is is_stored


async def test_a_job_is_stopped_while_its_image_is_pulled(
    project: Project, clock: MockClock
) -> None:
    await prepared(project)
    project.host.images["x:1"] = FakeImage(
        Script(), digests=("x@sha256:1",), local=False, pull_seconds=3_600
    )
    job = await project.engine.submit(JobSpec(component="x", config="c"))
    await until(lambda: ("pull", "x:1") in project.host.calls)
    await job.cancel({"id": "4", "description": "me"})
    await expect_stopped(project, job)
    assert project.host.created == []
    assert job.record.result["verifiedGone"] == []


@pytest.mark.parametrize("method", ["create", "start", "output", "remove"])
async def test_a_job_is_stopped_while_the_runtime_is_at_work(
    project: Project, clock: MockClock, method: str
) -> None:
    await prepared(project)
    project.host.delays[method] = 5
    job = await project.engine.submit(JobSpec(component="x", config="c"))
    await until(lambda: any(call == method for call, _ in project.host.calls))
    await job.cancel({"id": "4", "description": "me"})
    await expect_stopped(project, job)
    assert len(project.host.created) < len(PARTS)


@pytest.mark.parametrize("early", [0.0, 0.001, 0.05, -0.001, -0.05])
async def test_a_stop_that_races_with_the_natural_end_has_one_winner(
    project: Project, clock: MockClock, early: float
) -> None:
    await project.component("x", written, seconds=SECONDS, stop_seconds=0.05)
    await project.configuration("x", {"storage": {"output": OUTPUT}})
    job = await project.engine.submit(JobSpec(component="x", config="c"))
    await until(lambda: any(call == "wait" for call, _ in project.host.calls))
    await trio.sleep(SECONDS - early)
    try:
        await job.cancel({"id": "4", "description": "me"})
    except Conflict:
        assert await ended(project, job) is Status.SUCCESS
    status = await ended(project, job)
    assert status in {Status.TERMINATED, Status.SUCCESS}
    # a job that was stopped keeps no state, and one that succeeded has all of it
    assert (await project.state("x")).version == (1 if status is Status.SUCCESS else 0)
    assert await ended(project, job) is status
