"""Containers and images that somebody takes away, and runtimes that fail, on simulated time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from tests.engine.jobs.project import Project, until
from trio.testing import MockClock

from vaka import JobSpec, Status
from vaka.actors.job import JobActor
from vaka.errors import ContainerLost, RuntimeUnavailable
from vaka.models.job import Cause, CauseKind
from vaka.testing import FakeHost, FakeImage, FakeRuntime, Script


async def prepared(project: Project, **play: Any) -> Project:
    await project.component("x", {"out/state.json": "{}"}, **play)
    await project.configuration("x")
    return project


def cause(outcome: Any) -> Cause:
    found = outcome.cause
    assert isinstance(found, Cause)
    return found


def vanishing(monkeypatch: pytest.MonkeyPatch, host: FakeHost, method: str, *, times: int) -> None:
    """Have somebody remove containers just before `method` is called for them."""
    real = getattr(FakeRuntime, method)
    left = times

    def before(runtime: FakeRuntime, name: str, **options: Any) -> Any:
        nonlocal left
        if left and name in host.containers:
            left -= 1
            host.vanish(name)
        return real(runtime, name, **options)

    monkeypatch.setattr(FakeRuntime, method, before)


@pytest.mark.parametrize("method", ["output", "start"])
async def test_a_container_that_vanishes_before_it_was_started_is_made_again(
    project: Project, clock: MockClock, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    await prepared(project, seconds=5)
    vanishing(monkeypatch, project.host, method, times=2)
    ran = await project.run("x", config="c")
    assert ran.outcome.status is Status.SUCCESS
    assert len(project.host.created) == 3
    assert len({spec.name for spec in project.host.created}) == 1
    assert len(project.seen) == 1
    assert [event.kind for event in ran.events].count("stage.started") == 1


async def test_a_container_that_always_vanishes_before_its_start_is_given_up(
    project: Project, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await prepared(project)
    vanishing(monkeypatch, project.host, "start", times=1_000)
    ran = await project.run("x", config="c")
    assert cause(ran.outcome).kind is CauseKind.CONTAINER_LOST
    assert len(project.host.created) == 3


async def test_a_container_that_may_have_started_is_not_made_again(
    project: Project, clock: MockClock
) -> None:
    await prepared(project)
    project.host.fail("start", ContainerLost("gone", name="n"), after=True)
    ran = await project.run("x", config="c")
    assert cause(ran.outcome) == Cause(CauseKind.CONTAINER_LOST, {"container": "n"})
    assert len(project.host.created) == 1
    assert project.host.containers == []


async def test_a_container_that_vanishes_while_it_runs_is_lost(
    project: Project, clock: MockClock
) -> None:
    await prepared(project, seconds=math.inf)
    job = await project.engine.submit(JobSpec(component="x", config="c"))
    await until(lambda: any(call == "wait" for call, _ in project.host.calls))
    (name,) = project.host.containers
    project.host.vanish(name)
    outcome = await job.wait()
    assert cause(outcome) == Cause(CauseKind.CONTAINER_LOST, {"container": name})
    assert len(project.host.created) == 1


async def test_an_image_that_was_removed_after_it_was_prepared_is_pulled_again(
    project: Project, clock: MockClock
) -> None:
    await prepared(project)
    project.host.images["x:1"] = FakeImage(Script(), digests=("x@sha256:1",), local=False)
    project.host.delays["create"] = 1
    job = await project.engine.submit(JobSpec(component="x", config="c"))
    await until(lambda: any(call == "create" for call, _ in project.host.calls))
    project.host._pulled.clear()  # as `docker rmi -f` does
    outcome = await job.wait()
    assert outcome.status is Status.SUCCESS
    assert project.host.calls.count(("pull", "x:1")) == 2
    assert len(project.host.created) == 1


async def test_an_image_that_was_removed_and_cannot_be_had_again_is_named(
    project: Project, clock: MockClock
) -> None:
    await prepared(project)
    project.host.delays["create"] = 1
    job = await project.engine.submit(JobSpec(component="x", config="c"))
    await until(lambda: any(call == "create" for call, _ in project.host.calls))
    del project.host.images["x:1"]
    found = cause(await job.wait())
    assert found.kind is CauseKind.IMAGE_UNAVAILABLE
    assert found.evidence["reference"] == "x:1"
    assert project.host.created == []


async def test_a_runtime_that_fails_while_a_container_runs_is_told_and_leaves_nothing(
    project: Project, clock: MockClock
) -> None:
    await prepared(project, seconds=math.inf)
    project.host.fail("wait", RuntimeUnavailable("Nobody answers."))
    ran = await project.run("x", config="c")
    assert cause(ran.outcome) == Cause(CauseKind.RUNTIME_LOST, {"detail": "Nobody answers."})
    assert ran.outcome.error == "application"
    assert project.host.containers == []


async def test_a_job_whose_folder_takes_long_to_go_has_lost_no_lease(
    project: Project,
    clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    remove = JobActor._remove_folder
    removed = trio.Event()

    async def remove_later(actor: JobActor) -> None:
        await trio.sleep(10 * project.engine.config.lease)
        await remove(actor)
        removed.set()

    monkeypatch.setattr(JobActor, "_remove_folder", remove_later)
    await project.component("x")
    ran = await project.run("x", config_data={})

    with trio.fail_after(100 * project.engine.config.lease):
        await removed.wait()

    assert ran.outcome.status is Status.SUCCESS
    assert "lease.lost" not in [record.msg for record in caplog.records]
