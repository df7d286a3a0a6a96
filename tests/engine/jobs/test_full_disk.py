"""The disk of the home is full, for real: a file system of a few MB that a test fills at each phase.

Nothing that was acknowledged is lost. A job whose journal has no room left waits and goes on once there
is some; one whose journal has room, and whose data have none, fails and says so.
"""

from __future__ import annotations

import itertools
import math
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.disks import Disk, small_disk
from tests.engine.conftest import MakeEngine
from tests.engine.jobs.project import SCOPE, Project, Ran, Seen, Writes, until
from trio.testing import MockClock

from vaka import Engine, Job, JobQuery, JobSpec, Mode, Status
from vaka.errors import ApplicationError, DiskFull, StoreUnavailable
from vaka.models.job import CauseKind
from vaka.models.operation import NewOperation, OperationStatus
from vaka.models.storage import ExportOptions, FileQuery, FileUpload, TableLoad
from vaka.testing import FakeHost, Printed
from vaka_local.blocks import Blocks

SIZE = 16 << 20
SOME = 200_000
"""Bytes that are enough for journal and catalog, and not for data."""
A_WHILE = 60.0
"""Seconds, simulated, that a disk stays full."""
IN, OUT = "in.c-main.source", "out.c-main.result"
BIG = "id,text\n" + "".join(f"{number},{os.urandom(50).hex()}\n" for number in range(20_000))
STORAGE = {
    "input": {"tables": [{"source": IN, "destination": "source.csv"}]},
    "output": {"tables": [{"source": "result.csv", "destination": OUT}]},
}
OUTPUT = {"storage": {"output": STORAGE["output"]}}
SETTINGS = {"disk_stop_bytes": 0, "disk_warn_bytes": 0}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", SIZE) as disk:
        yield disk


@pytest.fixture
async def project(
    disk: Disk, clock: MockClock, make_engine: MakeEngine, host: FakeHost, tmp_path: Path
) -> AsyncIterator[Project]:
    """A project whose home is on the small disk."""
    async with make_engine(home=disk.folder / "home", **SETTINGS) as engine:
        yield Project(engine, host, tmp_path)


def first(
    monkeypatch: pytest.MonkeyPatch, part: Any, method: str, before: Callable[[], object]
) -> trio.Event:
    """Have `before` called before the first call of a method; set when that call has ended."""
    real: Callable[..., Awaitable[Any]] = getattr(part, method)
    done = trio.Event()

    async def called(*arguments: Any, **options: Any) -> Any:
        if done.is_set():
            return await real(*arguments, **options)
        before()
        try:
            return await real(*arguments, **options)
        finally:
            done.set()

    monkeypatch.setattr(part, method, called)
    return done


async def waits(job: Job) -> None:
    """Let a while pass in which a job cannot end."""
    await trio.sleep(A_WHILE)
    assert not (await job.refresh()).status.is_finished


def assert_failed_for_want_of_room(disk: Disk, ran: Ran) -> None:
    assert ran.outcome.status is Status.ERROR
    assert ran.outcome.error == "application"
    assert ran.outcome.cause is not None
    assert ran.outcome.cause.kind is CauseKind.STORAGE
    detail = ran.outcome.cause.evidence["detail"]
    assert "No space left on device" in detail or "disk" in detail
    assert list((disk.folder / "home/jobs").iterdir()) == []


# -- jobs ------------------------------------------------------------------------------------------


async def test_what_was_accepted_is_done_and_the_rest_was_refused(
    clock: MockClock, disk: Disk, project: Project
) -> None:
    await project.component("x", seconds=10)
    spec = JobSpec(component="x", config_data={"parameters": {"text": "x" * 10_000}})
    accepted: list[Job] = []

    async def submit_for_ever() -> None:
        while True:
            accepted.append(await project.engine.submit(spec))

    disk.fill(SOME)
    with pytest.raises(StoreUnavailable, match="free disk space"):
        await submit_for_ever()

    assert {job.id for job in await project.engine.jobs(JobQuery(project="1"))} == {
        job.id for job in accepted
    }
    await trio.sleep(A_WHILE)
    disk.free()
    accepted.append(await project.engine.submit(spec))

    assert len(accepted) > 1
    assert {(await job.wait()).status for job in accepted} == {Status.SUCCESS}
    assert len(await project.engine.jobs(JobQuery(project="1"))) == len(accepted)
    assert len(project.host.created) == len(accepted)


async def test_a_job_whose_input_has_no_room_fails_and_says_so(
    clock: MockClock, disk: Disk, project: Project
) -> None:
    await project.load(IN, BIG)
    await project.component("x")
    reads = {"storage": {"input": STORAGE["input"]}}
    disk.fill(1 << 20)

    assert_failed_for_want_of_room(disk, await project.run("x", config_data=reads))
    assert project.host.created == []

    disk.free()
    assert (await project.run("x", config_data=reads)).outcome.status is Status.SUCCESS
    assert project.seen[0].files["in/tables/source.csv"].count("\n") == BIG.count("\n")


async def test_what_is_printed_while_nothing_can_be_written_is_told_later(
    clock: MockClock, disk: Disk, project: Project
) -> None:
    await project.component("x", output=(Printed(b"begun\n"),), seconds=math.inf)
    job = await project.engine.submit(JobSpec(component="x", config_data={}))
    async for event in job.events():
        if event.kind == "log":
            break
    disk.fill()
    (name,) = project.host.containers
    lines = [f"line {number} {'x' * 1000}" for number in range(1000)]
    project.host.print(name, "".join(f"{line}\n" for line in lines).encode())
    project.host.finish(name)
    await waits(job)
    disk.free()

    ran = await project.ended(job)

    assert ran.outcome.status is Status.SUCCESS
    assert [each.message for each in ran.events if each.kind == "log"] == ["begun", *lines]
    assert len(project.host.created) == 1
    assert project.host.containers == []


@pytest.mark.parametrize("leave", [0, SOME])
async def test_outputs_that_have_no_room_land_later_or_not_at_all(
    clock: MockClock,
    disk: Disk,
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    leave: int,
) -> None:
    await project.load(OUT, "id,text\n0,before\n")
    await project.component("x", {"out/tables/result.csv": BIG, "out/state.json": '{"a": 1}'})
    await project.configuration("x", OUTPUT)
    tables = project.engine.storage.tables
    loaded = first(monkeypatch, tables, "load", lambda: disk.fill(leave))
    job = await project.engine.submit(JobSpec(component="x", config="c"))
    await loaded.wait()
    if leave:
        assert_failed_for_want_of_room(disk, await project.ended(job))
        assert await project.rows(OUT) == [("0", "before")]
        assert (await project.state("x")).version == 0
        disk.free()
        job = await project.engine.submit(JobSpec(component="x", config="c"))
    else:
        await waits(job)
        disk.free()

    assert (await project.ended(job)).outcome.status is Status.SUCCESS

    assert (await tables.table(SCOPE, OUT)).rows_count == BIG.count("\n") - 1
    assert (await project.state("x")).version == 1


async def test_a_state_that_has_no_room_is_stored_later_and_nothing_is_told_twice(
    clock: MockClock, disk: Disk, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = f'{{"text": "{"x" * 500_000}"}}'
    await project.component("x", {"out/tables/result.csv": "id\n1\n", "out/state.json": state})
    await project.configuration("x", OUTPUT)
    stored = first(monkeypatch, project.engine.catalog, "put_state", disk.fill)
    job = await project.engine.submit(JobSpec(component="x", config="c"))
    await stored.wait()
    await waits(job)
    disk.free()

    ran = await project.ended(job)

    assert ran.outcome.status is Status.SUCCESS
    assert (await project.state("x")).version == 1
    for kind in ("stage.finished", "output.table", "state.stored"):
        assert [each.kind for each in ran.events].count(kind) == 1
    assert len(project.host.created) == 1


@pytest.mark.parametrize("leave", [0, SOME])
async def test_a_debug_job_waits_for_room_or_leaves_out_what_finds_none(
    clock: MockClock, disk: Disk, project: Project, leave: int
) -> None:
    def writes(seen: Seen) -> Writes:
        if not leave:
            disk.fill(len(BIG) + (1 << 16))
        else:
            disk.fill(len(BIG) + leave)
        return {"out/files/big": BIG}

    await project.component("x", writes)
    job = await project.engine.submit(JobSpec(component="x", config_data={}, mode=Mode.DEBUG))
    await until(lambda: project.seen)
    if not leave:
        disk.fill()
        await waits(job)
        disk.free()
    ran = await project.ended(job)

    assert ran.outcome.status is Status.SUCCESS
    names = {
        file.name for file in await project.engine.storage.files.list_files(SCOPE, FileQuery())
    }
    assert names == {"stage_0.zip", "stage_output.zip"}
    assert len(project.host.created) == 1
    assert any("big" in text for text in ran.told) == bool(leave), ran.told


# -- Storage itself --------------------------------------------------------------------------------


async def test_storage_keeps_what_it_has_and_says_that_it_is_full(
    clock: MockClock, disk: Disk, project: Project, tmp_path: Path
) -> None:
    storage, catalog = project.engine.storage, project.engine.catalog
    source = tmp_path / "source.csv"
    source.write_text(BIG)
    await project.load(IN, "id,text\n0,before\n")
    await project.component("x")
    disk.fill(SOME)
    with pytest.raises(DiskFull):
        await storage.files.upload(SCOPE, FileUpload("f"), source)
    for table in (IN, "in.c-main.new"):
        with pytest.raises(DiskFull):
            await storage.tables.load(SCOPE, [TableLoad(table, (source,))])
    disk.fill()
    with pytest.raises(DiskFull, match="catalog"):
        await project.configuration("x", {"text": "x" * 1_000_000})

    # it is read all the while
    assert await project.rows(IN) == [("0", "before")]
    assert await project.tables() == [IN]
    assert await storage.files.list_files(SCOPE, FileQuery()) == []
    assert await catalog.configurations("1", "x") == []

    disk.free()
    await storage.files.upload(SCOPE, FileUpload("f"), source)
    await storage.tables.load(SCOPE, [TableLoad(IN, (source,))])
    await project.configuration("x", {})
    _, rows = await storage.tables.preview(SCOPE, IN, ExportOptions(limit=1_000_000))
    assert len(rows) == BIG.count("\n") - 1


async def test_an_operation_that_has_no_room_fails_and_says_so(
    clock: MockClock, disk: Disk, project: Project, tmp_path: Path
) -> None:
    source = tmp_path / "source.csv"
    source.write_text(BIG)
    await project.load(IN, "id,text\n0,before\n")
    stored = await project.engine.storage.files.upload(SCOPE, FileUpload("f"), source)
    imports = NewOperation(
        project="1",
        kind="tableImport",
        params={
            "source": {"type": "file", "fileId": stored.id},
            "params": {},
            "csvOptions": {},
            "settings": {},
        },
        table_id=IN,
    )
    disk.fill(SOME)

    async def done() -> Any:
        accepted = await project.engine.operations.submit(imports)
        return await project.engine.operations.wait(accepted.id)

    failed = await done()
    assert failed.status is OperationStatus.ERROR
    assert failed.error.code == "storage.diskFull"
    assert await project.rows(IN) == [("0", "before")]
    disk.free()
    assert (await done()).status is OperationStatus.SUCCESS


def test_a_block_that_was_acknowledged_on_a_full_disk_is_there(disk: Disk, tmp_path: Path) -> None:
    block = tmp_path / "block"
    block.write_bytes(b"x")

    def stage(name: str) -> None:
        with Blocks(disk.folder).of("1", 1, "") as staged:
            staged.stage(name, block, lambda: None)

    acknowledged = []

    def stage_for_ever() -> None:
        for number in itertools.count(1):
            stage(str(number))
            acknowledged.append(str(number))

    stage("0")
    disk.fill()
    with pytest.raises(DiskFull):
        stage_for_ever()
    disk.free()
    stage("last")

    with Blocks(disk.folder).of("1", 1, "") as staged:
        assert len(acknowledged) > 1
        assert all(staged.find(name) is not None for name in ("0", *acknowledged, "last"))
        assert staged.find(str(len(acknowledged) + 1)) is None


# -- the engine itself -----------------------------------------------------------------------------


async def test_an_engine_that_has_no_room_says_so_and_opens_once_there_is_some(
    clock: MockClock, disk: Disk, make_engine: MakeEngine, host: FakeHost, tmp_path: Path
) -> None:
    home = disk.folder / "home"

    def engine() -> Engine:
        return make_engine(home=home, shutdown="adopt", **SETTINGS)

    disk.fill()
    with pytest.raises(ApplicationError, match=r"Free space|free disk space"):
        await engine().__aenter__()
    shutil.rmtree(home)
    disk.free()
    async with engine() as opened:
        project = Project(opened, host, tmp_path)
        await project.component("x", output=(Printed(b"begun\n"),), seconds=600)
        job = await opened.submit(JobSpec(component="x", config_data={}))
        await until(lambda: host.containers)
    disk.fill()
    with pytest.raises(StoreUnavailable, match="free disk space"):
        await engine().__aenter__()
    disk.free()

    async with engine() as opened:
        ran = await Project(opened, host, tmp_path).ended(await opened.job(job.id))

    assert ran.outcome.status is Status.SUCCESS
    assert [each.message for each in ran.events if each.kind == "log"] == ["begun"]
    assert len(host.created) == 1
