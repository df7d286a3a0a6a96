"""What the collector plans and removes, and what it never touches."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.engine.conftest import MakeEngine
from trio.testing import MockClock

from vaka import Engine, JobSpec
from vaka.errors import ApplicationError
from vaka.models.container import ContainerPhase, ContainerSpec
from vaka.models.garbage import GarbageKind
from vaka.models.job import Mode
from vaka.models.storage import FileUpload, StorageScope
from vaka.testing import FakeHost, FakeImage, FakeRuntime, Printed, Script

IMAGE = "worker:1"
LABEL = "vaka.instance"
DAY = timedelta(days=1)


def at(engine: Engine, now: Callable[[], datetime]) -> None:
    """Let an engine take this for the time."""
    object.__setattr__(engine.services, "now", now)


async def leftover(host: FakeHost, name: str, instance: str, *, ends: bool) -> None:
    """A container that no job needs."""
    runtime = FakeRuntime(host=host)
    image = f"left:{ends}"
    host.images.setdefault(image, FakeImage(Script(seconds=0 if ends else 1e9)))
    await runtime.create(ContainerSpec(name=name, image=image, labels={LABEL: instance}))
    await runtime.start(name)
    if ends:
        await runtime.wait(name)


def named(plan: Any, kind: GarbageKind) -> list[str]:
    return [item.name for item in plan.items if item.kind is kind]


async def test_ended_containers_go_when_they_are_old_and_ours(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    async with make_engine(worker=False, gc_container_age=3 * 86_400) as engine:
        at(engine, host.now)
        await leftover(host, "old", "vaka", ends=True)
        await leftover(host, "foreign", "another", ends=True)
        await leftover(host, "running", "vaka", ends=False)
        await trio.sleep(2 * 86_400)
        await leftover(host, "newer", "vaka", ends=True)
        assert named(await engine.gc_plan(), GarbageKind.CONTAINER) == []
        await trio.sleep(86_400)
        plan = await engine.gc_plan()
        assert named(plan, GarbageKind.CONTAINER) == ["old"]
        assert plan.items[0].reason == "it ended 3 days ago, and no job needs it"
        assert set(host.containers) == {"old", "foreign", "running", "newer"}  # only planned
        lines: list[str] = []
        report = await engine.gc_apply(plan, say=lines.append)
        assert [item.name for item in report.removed] == ["old"]
        assert set(host.containers) == {"foreign", "running", "newer"}
        assert lines[0] == "Clearing old containers"
        assert lines[-1] == "Finished"
        # somebody else was faster: nothing fails
        again = await engine.gc_apply(plan, say=lines.append)
        assert (again.removed, again.failures) == ((), ())
        assert "Kept container old: it is gone already" in lines


async def test_a_container_that_a_job_needs_is_never_planned(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    host.images[IMAGE] = FakeImage(Script(seconds=10))
    async with make_engine(shutdown="adopt") as engine:
        job = await engine.submit(JobSpec(image=IMAGE))
        async for event in job.events():
            if event.kind == "stage.started":
                break
    await trio.sleep(100)  # it has ended, and nobody has collected it
    async with make_engine(worker=False, gc_container_age=0) as engine:
        at(engine, lambda: host.now() + 365 * DAY)
        (container,) = host.containers
        found = await FakeRuntime(host=host).find(container)
        assert found is not None
        assert found.phase is ContainerPhase.EXITED
        plan = await engine.gc_plan()
        assert named(plan, GarbageKind.CONTAINER) == []
        assert named(plan, GarbageKind.FOLDER) == []


@pytest.mark.scenario("runner", 244)
async def test_a_collection_ends_in_time(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    async with make_engine(worker=False, gc_container_age=0) as engine:
        at(engine, host.now)
        for name in ("one", "two", "three"):
            await leftover(host, name, "vaka", ends=True)
        host.delays["remove"] = 2
        lines: list[str] = []
        began = trio.current_time()
        report = await engine.gc_apply(await engine.gc_plan(), timeout=1, say=lines.append)
        assert trio.current_time() - began < 3
        assert len(report.removed) == 1
        assert report.timed_out
        assert "Timeout reached, terminating" in lines
        assert lines[-1] == "Finished"
        assert len(host.containers) == 2


async def test_what_fails_is_told_and_the_rest_goes_on(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, tmp_path: Path
) -> None:
    async with make_engine(worker=False, gc_container_age=0) as engine:
        at(engine, host.now)
        for name in ("one", "two"):
            await leftover(host, name, "vaka", ends=True)
        folder = tmp_path / "home" / "jobs" / "77"
        folder.mkdir(parents=True)
        (folder / "big").write_bytes(bytes(5_000))
        (folder / "link").symlink_to("/etc/passwd")
        plan = await engine.gc_plan()
        assert plan.to_json()["bytes"] >= 5_000
        host.fail("remove", ApplicationError("the disk is broken"), name="one")
        lines: list[str] = []
        report = await engine.gc_apply(plan, say=lines.append)
        (failure,) = report.failures
        assert failure == "Error occurred when processing container one: the disk is broken"
        assert failure in lines
        assert {item.name for item in report.removed} == {"two", "77"}
        assert not folder.exists()
        host.go_down()
        (tmp_path / "home" / "jobs" / "78").mkdir()
        plan = await engine.gc_plan()
        assert set(plan.failures) == {GarbageKind.CONTAINER, GarbageKind.PULLED_IMAGE}
        report = await engine.gc_apply(plan, say=lines.append)
        assert [item.name for item in report.removed] == ["78"]
        assert "Clearing old containers failed The fake runtime is down: start it." in lines


async def test_only_images_that_we_pulled_go_when_nobody_has_used_them(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    digests = ("worker@sha256:" + "0" * 64,)
    host.images[IMAGE] = FakeImage(Script(), digests=digests, local=False)
    host.images["weekly:1"] = FakeImage(Script(), digests=digests, local=False)
    host.images["here:1"] = FakeImage(Script(), digests=digests)
    async with make_engine(gc_image_age=7 * 86_400) as engine:
        start = host.now()
        for image in (IMAGE, "weekly:1", "here:1"):
            await (await engine.submit(JobSpec(image=image))).wait()
    async with make_engine(gc_image_age=7 * 86_400, worker=False) as engine:
        at(engine, lambda: start + 6 * DAY)
        assert named(await engine.gc_plan(), GarbageKind.PULLED_IMAGE) == []
        at(engine, lambda: start + 8 * DAY)
        plan = await engine.gc_plan()
        assert set(named(plan, GarbageKind.PULLED_IMAGE)) == {IMAGE, "weekly:1"}
        # a container of somebody's holds one, and one is needed in this very moment
        runtime = FakeRuntime(host=host)
        await runtime.create(ContainerSpec(name="theirs", image="weekly:1"))
        report = await engine.gc_apply(plan)
        assert [item.name for item in report.removed] == [IMAGE]
        assert ("remove_image", "here:1") not in host.calls
        assert [each.reference for each in await engine.services.images.read()] == ["weekly:1"]
        await runtime.remove("theirs")
        await engine.services.images.note(
            await runtime.prepare_image("weekly:1"), engine.services.now()
        )
        assert (await engine.gc_apply(plan)).removed == ()


async def test_an_unreadable_list_of_images_removes_none(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, tmp_path: Path
) -> None:
    async with make_engine(worker=False) as engine:
        for text in ("{", "[]", '{"images": [{"id": 1}]}'):
            (tmp_path / "home" / "images.json").write_text(text)
            assert (await engine.gc_plan()).items == ()


async def test_logs_go_after_a_while_and_their_jobs_stay(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    host.images[IMAGE] = FakeImage(Script((Printed(b"words\n"),)))
    async with make_engine(gc_log_age=90 * 86_400) as engine:
        jobs = [await engine.submit(JobSpec(image=IMAGE)) for _ in range(3)]
        for job in jobs:
            await job.wait()
        now = engine.services.now()
        at(engine, lambda: now + 89 * DAY)
        assert named(await engine.gc_plan(), GarbageKind.LOG) == []
        at(engine, lambda: now + 91 * DAY)
        plan = await engine.gc_plan()
        (item,) = (each for each in plan.items if each.kind is GarbageKind.LOG)
        assert item.name == "of 3 jobs"
        assert item.bytes
        report = await engine.gc_apply(plan)
        assert item in report.removed
        for job in jobs:
            assert [event async for event in job.events(follow=False)] == []
            assert (await job.refresh()).status.is_finished
            assert job.record.stages
        assert named(await engine.gc_plan(), GarbageKind.LOG) == []
    async with make_engine(gc_log_age=None, worker=False) as engine:
        at(engine, lambda: now + 9_000 * DAY)
        assert named(await engine.gc_plan(), GarbageKind.LOG) == []


async def test_old_snapshots_go_and_files_of_people_stay(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, tmp_path: Path
) -> None:
    host.images[IMAGE] = FakeImage(Script())
    async with make_engine(gc_snapshot_age=14 * 86_400) as engine:
        job = await engine.submit(JobSpec(image=IMAGE, mode=Mode.DEBUG))
        await job.wait()
        mine = tmp_path / "mine"
        mine.write_text("mine")
        files, scope = engine.storage.files, StorageScope(project="1")
        kept = await files.upload(scope, FileUpload(name="stage_notes", tags=("debug",)), mine)
        now = engine.services.now()
        assert named(await engine.gc_plan(), GarbageKind.SNAPSHOT) == []
        # Storage has a clock of its own, by which nothing has expired yet
        at(engine, lambda: now + 15 * DAY)
        plan = await engine.gc_plan()
        snapshots = named(plan, GarbageKind.SNAPSHOT)
        assert len(snapshots) == 2
        assert str(kept.id) not in snapshots
        report = await engine.gc_apply(plan)
        assert {item.name for item in report.removed} >= set(snapshots)
        assert (await files.file(scope, kept.id)).name == "stage_notes"
        assert json.loads(json.dumps(report.to_json()))["timedOut"] is False


async def test_a_collection_by_itself_is_off_unless_asked_for(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, seldom: dict[str, float]
) -> None:
    host.images[IMAGE] = FakeImage(Script(), digests=("worker@sha256:" + "0" * 64,), local=False)
    ages = {"gc_image_age": 1.0, **seldom}
    async with make_engine(**ages) as engine:
        job = await engine.submit(JobSpec(image=IMAGE))
        await job.wait()
        at(engine, lambda: host.now() + 2 * timedelta(hours=1))
        await trio.sleep(86_400)
    assert ("remove_image", IMAGE) not in host.calls
    async with make_engine(**ages, gc_interval=3_600) as engine:
        at(engine, lambda: host.now() + 2 * timedelta(hours=1))
        await trio.sleep(3_700)
    assert ("remove_image", IMAGE) in host.calls


async def test_a_collector_that_breaks_ends_no_job(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.images[IMAGE] = FakeImage(Script(seconds=100))
    async with make_engine(gc_interval=10) as engine:

        async def broken(*_: Any) -> Any:
            raise KeyError("a plugin's bug")

        monkeypatch.setattr(engine.storage.files, "list_files", broken)
        outcome = await (await engine.submit(JobSpec(image=IMAGE))).wait()
    assert outcome.status.value == "success"
