"""Rows of one job side by side: asked for by the job or its configuration, bounded by memory."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.engine.conftest import MakeEngine
from tests.engine.jobs.project import SCOPE, Project, Seen, Writes
from trio.testing import MockClock

from vaka import JobSpec, Status, UserError
from vaka.actors.plan import parallelism
from vaka.errors import StoreUnavailable
from vaka.models.container import ContainerSpec
from vaka.models.job import CauseKind, Mode
from vaka.models.storage import FileQuery
from vaka.testing import FakeHost, FakeImage, Printed, Script

SECONDS = {"a": 40, "b": 10, "c": 20, "d": 10}
"""How long the container of each row runs: with two at a time a and b, then c beside a, then d."""


def script(spec: ContainerSpec) -> Script:
    return Script(
        [Printed(b"begun\n")],
        seconds=SECONDS[spec.environment["KBC_CONFIGROWID"]],
        stop_seconds=2,
    )


def writes(seen: Seen) -> Writes:
    row = seen.environment["KBC_CONFIGROWID"]
    return {
        "out/tables/r.csv": f'"row"\n"{row}"\n',
        "out/state.json": json.dumps({"row": row}),
        "out/usage.json": json.dumps([{"metric": row, "value": 1}]),
    }


def rows(*names: str) -> dict[str, Any]:
    return {
        name: {
            "storage": {
                "output": {"tables": [{"source": "r.csv", "destination": f"in.c-rows.{name}"}]}
            }
        }
        for name in names
    }


async def prepared(project: Project, *names: str, **options: Any) -> Project:
    await project.component("x", writes, **{"script": script, **options})
    await project.configuration("x", rows=rows(*(names or SECONDS)))
    return project


async def most_at_a_time(project: Project, **spec: Any) -> int:
    """How many containers there were at a time in a job that succeeds."""
    ran = await project.run("x", config="c", **spec)
    assert ran.outcome.status is Status.SUCCESS, ran.outcome
    most = now = 0
    for method, _ in project.host.calls:
        now += {"create": 1, "remove": -1}.get(method, 0)
        most = max(most, now)
    return most


async def expect_everything(project: Project, ran: Any, *names: str) -> None:
    """All rows ran once, and everything of them is where it belongs, in the order of the rows."""
    names = names or tuple(SECONDS)
    assert ran.outcome.status is Status.SUCCESS, ran.outcome
    assert ran.result["rows"] == [{"id": name, "status": "success"} for name in names]
    assert [table["id"] for table in ran.result["output"]["tables"]] == [
        f"in.c-rows.{name}" for name in names
    ]
    assert ran.result["images"] == [[{"id": "x:1", "digests": []}]] * len(names)
    assert [each["metric"] for each in ran.job.record.usage] == list(names)
    for name in names:
        assert await project.rows(f"in.c-rows.{name}") == [(name,)]
        assert (await project.state("x", name)).value["component"] == {"row": name}
    assert len(project.host.created) == len(names)
    assert project.host.containers == []


async def test_rows_run_one_at_a_time_unless_somebody_asks(
    project: Project, clock: MockClock
) -> None:
    await prepared(project)
    assert await most_at_a_time(project) == 1


async def test_a_configuration_may_ask_for_rows_side_by_side(
    project: Project, clock: MockClock
) -> None:
    await project.component("x", writes, script=script)
    await project.configuration("x", {"runtime": {"parallelism": "infinity"}}, rows=rows(*SECONDS))
    assert await most_at_a_time(project) == 4


@pytest.mark.parametrize(
    ("job", "configuration", "expected"),
    [
        (None, None, 1),
        (None, 0, 1),
        (None, 2, 2),
        (None, "3", 3),
        (None, "infinity", sys.maxsize),
        (1, 4, 1),
        ("infinity", 2, sys.maxsize),
        (5, None, 5),
    ],
)
def test_what_the_job_says_comes_before_its_configuration(
    job: Any, configuration: Any, expected: int
) -> None:
    spec = JobSpec(component="x", config="c", parallelism=job)
    assert parallelism(spec, {"runtime": {"parallelism": configuration}}) == expected


@pytest.mark.parametrize("wrong", ["many", -1, 1.5, True, [2]])
def test_a_parallelism_that_is_none_is_told(wrong: Any) -> None:
    with pytest.raises(UserError, match=r"Unsupported parallelism .* in the configuration"):
        parallelism(JobSpec(component="x", config="c"), {"runtime": {"parallelism": wrong}})


async def test_each_row_has_its_own_folder_and_the_result_keeps_the_order_of_the_rows(
    project: Project, clock: MockClock
) -> None:
    await prepared(project)
    began = trio.current_time()
    ran = await project.run("x", config="c", parallelism=2)
    assert 40 <= trio.current_time() - began < 50
    await expect_everything(project, ran)
    assert [seen.environment["KBC_CONFIGROWID"] for seen in project.seen] == ["b", "c", "a", "d"]
    folders = {spec.mounts[0].source for spec in project.host.created}
    assert len(folders) == 4
    by_row = {event.definition for event in ran.events if event.kind == "log"}
    assert by_row == {0, 1, 2, 3}


async def test_rows_that_are_named_run_side_by_side_as_well(
    project: Project, clock: MockClock
) -> None:
    await prepared(project)
    ran = await project.run("x", config="c", rows=("d", "b"), parallelism=2)
    await expect_everything(project, ran, "b", "d")


async def test_no_more_rows_run_than_the_job_finds_memory_for(
    make_engine: MakeEngine, host: FakeHost, clock: MockClock, tmp_path: Path
) -> None:
    async with make_engine(memory_bytes=1 << 30) as engine:
        project = await prepared(Project(engine, host, tmp_path))
        host.images["other:1"] = FakeImage(Script(seconds=math.inf))
        other = await engine.submit(JobSpec(image="other:1", memory="300m"))
        ran = await project.run("x", config="c", parallelism="infinity")
        assert "Running up to 2 rows at a time, not 4: no more memory is free." in ran.told
        assert ran.outcome.status is Status.SUCCESS
        await other.cancel()


async def test_rows_may_add_to_one_table(project: Project, clock: MockClock) -> None:
    item = {"source": "r.csv", "destination": "in.c-rows.all", "incremental": True}
    document = {"storage": {"output": {"tables": [item]}}}
    await project.component("x", writes, script=script)
    await project.configuration("x", rows=dict.fromkeys(SECONDS, document))
    ran = await project.run("x", config="c", parallelism="infinity")
    assert ran.outcome.status is Status.SUCCESS, ran.outcome
    assert await project.rows("in.c-rows.all") == [(name,) for name in SECONDS]


async def test_snapshots_of_rows_are_of_their_own_folders(
    project: Project, clock: MockClock
) -> None:
    await prepared(project, "a", "b")
    ran = await project.run("x", config="c", parallelism=2, mode=Mode.DEBUG)
    assert ran.outcome.status is Status.SUCCESS, ran.outcome
    stored = await project.engine.storage.files.list_files(SCOPE, FileQuery())
    found = {
        (tag.partition(":")[2], file.name)
        for file in stored
        for tag in file.tags
        if tag.startswith("rowId:")
    }
    assert found == {
        (row, name) for row in ("a", "b") for name in ("stage_0.zip", "stage_output.zip")
    }
    assert await project.tables() == []


async def test_a_setting_bounds_the_rows_of_one_job(
    make_engine: MakeEngine, host: FakeHost, clock: MockClock, tmp_path: Path
) -> None:
    async with make_engine(parallel_rows=3) as engine:
        project = await prepared(Project(engine, host, tmp_path))
        assert await most_at_a_time(project, parallelism="infinity") == 3


# -- failing and stopping --------------------------------------------------------------------------


def failing(row: str, message: bytes = b"no more\n", code: int = 1) -> Any:
    def play(spec: ContainerSpec) -> Script:
        if spec.environment["KBC_CONFIGROWID"] != row:
            return script(spec)
        return Script([Printed(message, stream="stderr")], seconds=5, exit_code=code)

    return play


async def test_a_row_that_fails_lets_others_end_and_none_begin(
    project: Project, clock: MockClock
) -> None:
    await prepared(project, script=failing("b"))
    ran = await project.run("x", config="c", parallelism=2)
    assert (ran.outcome.error, ran.outcome.message) == ("user", "no more")
    assert ran.result["rows"] == [
        {"id": "a", "status": "success"},
        {"id": "b", "status": "error"},
    ]
    assert await project.tables() == ["in.c-rows.a"]
    assert "Row b failed: no more" in ran.told
    for name in SECONDS:
        assert (await project.state("x", name)).version == 0
    assert project.host.containers == []


async def test_of_several_rows_that_fail_our_own_fault_is_the_jobs(
    project: Project, clock: MockClock
) -> None:
    def play(spec: ContainerSpec) -> Script:
        ours = spec.environment["KBC_CONFIGROWID"] == "b"
        return Script(seconds=5, exit_code=2 if ours else 1)

    await prepared(project, "a", "b", script=play)
    ran = await project.run("x", config="c", parallelism=2)
    assert ran.outcome.error == "application"
    assert ran.outcome.cause is not None
    assert ran.outcome.cause.kind is CauseKind.APPLICATION_ERROR
    assert [row["status"] for row in ran.result["rows"]] == ["error", "error"]


async def test_a_stop_ends_all_rows_that_run(project: Project, clock: MockClock) -> None:
    await prepared(project)
    job = await project.engine.submit(JobSpec(component="x", config="c", parallelism=3))
    await trio.sleep(3)
    assert len(project.host.containers) == 3
    await job.cancel({"id": "4", "description": "me"})
    ran = await project.ended(job)
    assert ran.outcome.status is Status.TERMINATED
    assert project.host.containers == []
    assert len(project.host.created) == 3
    assert ran.result["rows"] == [{"id": name, "status": "terminated"} for name in ("a", "b", "c")]


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.5, 12])
async def test_a_stop_at_any_moment_leaves_nothing(
    project: Project, clock: MockClock, moment: float
) -> None:
    await prepared(project)
    project.host.delays |= {"prepare_image": 0.01, "create": 0.1, "start": 0.1}
    job = await project.engine.submit(JobSpec(component="x", config="c", parallelism=3))
    await trio.sleep(moment)
    await job.cancel()
    assert (await job.wait()).status in {Status.TERMINATED, Status.CANCELLED}
    assert project.host.containers == []
    for name in SECONDS:
        assert (await project.state("x", name)).version == 0


# -- resuming --------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", [0.0, 5, 25, 39.9])
async def test_a_job_goes_on_whenever_its_engine_left_it(
    make_engine: MakeEngine, host: FakeHost, clock: MockClock, tmp_path: Path, moment: float
) -> None:
    async with make_engine(shutdown="adopt") as engine:
        project = await prepared(Project(engine, host, tmp_path))
        job = await engine.submit(JobSpec(component="x", config="c", parallelism=2))
        await trio.sleep(moment)
    await trio.sleep(3)
    async with make_engine() as engine:
        project.engine = engine
        ran = await project.ended(await engine.job(job.id))
        await expect_everything(project, ran)
    assert list((tmp_path / "home" / "jobs").iterdir()) == []


@pytest.mark.parametrize(
    ("parallelism", "write"),
    [
        *((2, write) for write in (1, 2, 3, 4, 6, 8, 14, 20, 25)),
        *((1, write) for write in (1, 4, 5, 6, 13, 20, 21)),
    ],
)
async def test_a_job_goes_on_after_any_entry_of_its_journal(
    make_engine: MakeEngine,
    host: FakeHost,
    clock: MockClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parallelism: int,
    write: int,
) -> None:
    async with make_engine(shutdown="adopt") as engine:
        project = await prepared(Project(engine, host, tmp_path))
        store = engine.services.store
        count = 0
        reached = trio.Event()
        for name in ("advance", "plan_stage", "update_stage", "save_definition", "save_usage"):
            really = getattr(store, name)

            async def counted(*args: Any, _really: Any = really, **options: Any) -> Any:
                nonlocal count
                answer = await _really(*args, **options)
                count += 1
                if count == write:
                    reached.set()
                if count >= write:
                    await trio.sleep(1_000)  # the engine is dead from here on
                    raise StoreUnavailable("The engine is dead.")
                return answer

            monkeypatch.setattr(store, name, counted)
        job = await engine.submit(JobSpec(component="x", config="c", parallelism=parallelism))
        with trio.move_on_after(300):
            await reached.wait()
    async with make_engine() as engine:
        project.engine = engine
        ran = await project.ended(await engine.job(job.id))
        await expect_everything(project, ran)
    assert list((tmp_path / "home" / "jobs").iterdir()) == []
    assert reached.is_set()


async def test_a_failure_is_remembered_while_other_rows_run_on(
    make_engine: MakeEngine, host: FakeHost, clock: MockClock, tmp_path: Path
) -> None:
    async with make_engine(shutdown="adopt") as engine:
        project = await prepared(Project(engine, host, tmp_path), script=failing("b"))
        job = await engine.submit(JobSpec(component="x", config="c", parallelism=2))
        await trio.sleep(20)
    async with make_engine() as engine:
        project.engine = engine
        ran = await project.ended(await engine.job(job.id))
    assert (ran.outcome.error, ran.outcome.message) == ("user", "no more")
    assert len(host.created) == 2
    assert ran.result["rows"] == [
        {"id": "a", "status": "success"},
        {"id": "b", "status": "error"},
    ]


async def test_a_stop_is_heard_by_the_engine_that_takes_the_rows_over(
    make_engine: MakeEngine, host: FakeHost, clock: MockClock, tmp_path: Path
) -> None:
    def endless(spec: ContainerSpec) -> Script:
        return Script(seconds=math.inf, stop_seconds=1)

    async with make_engine(shutdown="adopt") as engine:
        await prepared(Project(engine, host, tmp_path), script=endless)
        job = await engine.submit(JobSpec(component="x", config="c", parallelism=3))
        await trio.sleep(3)
    async with make_engine(worker=False) as viewer:
        await (await viewer.job(job.id)).cancel()
    async with make_engine() as engine:
        assert (await (await engine.job(job.id)).wait()).status is Status.TERMINATED
    assert host.containers == []
    assert len(host.created) == 3
