"""The chain of a job: processors around a component, tags, time-outs, and what is left of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.engine.conftest import MakeEngine
from tests.engine.jobs.project import Project, Seen, Writes, copied
from trio.testing import MockClock

from vaka import Status
from vaka.models.job import CauseKind
from vaka.testing import FakeHost, FakeImage, Printed, Script

TABLE = '"a"\n"1"\n'
OUTPUT = {"output": {"tables": [{"source": "t.csv", "destination": "in.c-main.out"}]}}


def around(
    before: tuple[Any, ...] = (), after: tuple[Any, ...] = (), **document: Any
) -> dict[str, Any]:
    """A configuration with these processors: ids, or whole entries."""

    def entry(processor: Any) -> Any:
        return {"definition": {"component": processor}} if isinstance(processor, str) else processor

    return {
        **document,
        "processors": {
            "before": [entry(each) for each in before],
            "after": [entry(each) for each in after],
        },
    }


# -- processors ------------------------------------------------------------------------------------


@pytest.mark.scenario("runner", 190)
async def test_processors_run_in_order_around_their_component(
    project: Project, clock: MockClock
) -> None:
    def marked(seen: Seen) -> Writes:
        content = seen.files["in/tables/t.csv"] + f'"{seen.component}"\n'
        return {"out/tables/t.csv": content}

    names = ("p.one", "p.two", "p.three", "p.four")
    images = [
        await project.component(name, marked, digests=(f"{name}@sha256:{name[-1] * 64}",))
        for name in names
    ]
    images.append(await project.component("x", marked, digests=("x@sha256:00",)))
    await project.load("in.c-main.t", TABLE)
    source = {"tables": [{"source": "in.c-main.t", "destination": "t.csv"}]}
    ran = await project.run("x", config_data=around(names, storage={"input": source, **OUTPUT}))
    assert ran.outcome.status is Status.SUCCESS, ran.outcome
    assert ran.result["images"] == [
        [{"id": image, "digests": list(project.host.images[image].digests)} for image in images]
    ]
    assert await project.rows("in.c-main.out") == sorted(
        [("1",), *((name,) for name in names), ("x",)], key=str
    )
    assert [f"Running processor {name}" for name in names] == [
        message for message in ran.told if message.startswith("Running processor")
    ]


async def test_a_processor_sees_its_own_parameters_and_image_parameters(
    project: Project, clock: MockClock
) -> None:
    await project.component("x", data={"image_parameters": {"of": "x"}})
    await project.processor("p", data={"image_parameters": {"of": "p"}})
    entry = {"definition": {"component": "p"}, "parameters": {"lines": 1}}
    await project.run("x", config_data=around(after=(entry,), parameters={"own": True}))
    main, processor = (json.loads(seen.files["config.json"]) for seen in project.seen)
    assert (main["parameters"], main["image_parameters"]) == ({"own": True}, {"of": "x"})
    assert processor == {
        "parameters": {"lines": 1},
        "image_parameters": {"of": "p"},
        "action": "run",
        "storage": {},
        "authorization": {},
    }


@pytest.mark.scenario("runner", 191)
async def test_a_processor_that_is_not_known_is_named_before_anything_runs(
    project: Project, clock: MockClock
) -> None:
    await project.component("x")
    ran = await project.run("x", config_data=around(after=("no.such",)))
    assert (ran.outcome.error, ran.outcome.message) == ("user", "Component 'no.such' not found.")
    assert project.host.created == []


@pytest.mark.scenario("runner", 193)
async def test_processors_are_in_the_configuration_or_in_its_rows(
    project: Project, clock: MockClock
) -> None:
    await project.component("x")
    await project.processor("p")
    await project.configuration(
        "x", around(after=("p",)), rows={"r": around(before=("p",))}, config_id="both"
    )
    ran = await project.run("x", config="both")
    assert (ran.outcome.error, ran.outcome.message) == (
        "user",
        "Processors may be set either in configuration or in configuration row, but not in both "
        "places.",
    )
    assert project.host.created == []
    await project.configuration("x", around(), rows={"r": around(before=("p",))}, config_id="row")
    assert (await project.run("x", config="row")).outcome.status is Status.SUCCESS
    assert [seen.component for seen in project.seen] == ["p", "x"]


@pytest.mark.scenario("runner", 195)
async def test_without_staging_processors_are_told_and_do_not_run(
    project: Project, clock: MockClock
) -> None:
    image = await project.component(
        "x",
        {"out/tables/t.csv": TABLE},
        data={"staging_storage": {"input": "none", "output": "none"}},
    )
    await project.processor("p.before")
    after = await project.processor("p.after")
    source = {"tables": [{"source": "in.c-main.nothing", "destination": "t.csv"}]}
    ran = await project.run(
        "x",
        config_data=around(("p.before",), ("p.after",), storage={"input": source, **OUTPUT}),
    )
    assert ran.outcome.status is Status.SUCCESS, ran.outcome
    assert {"Running processor p.before", "Running processor p.after"} <= set(ran.told)
    assert [seen.component for seen in project.seen] == ["x"]
    assert ran.result["images"] == [[{"id": image, "digests": []}]]
    assert not [path for path in project.seen[0].files if "tables" in path]
    assert await project.tables() == []
    assert ("prepare_image", after) in project.host.calls


@pytest.mark.scenario("runner", 196)
async def test_a_processor_may_name_its_tag(project: Project, clock: MockClock) -> None:
    image = await project.component("x")
    await project.processor("p")
    project.host.images["p:1.0.0"] = project.host.images["p:1"]
    tagged = {"definition": {"component": "p", "tag": "1.0.0"}}
    empty = {"definition": {"component": "p", "tag": ""}}
    ran = await project.run("x", config_data=around(after=(tagged, empty)), tag="")
    assert [each["id"] for each in ran.result["images"][0]] == [image, "p:1.0.0", "p:1"]


async def test_a_processors_failure_is_the_jobs(project: Project, clock: MockClock) -> None:
    await project.component("x")
    await project.processor("p", exit_code=1, output=[Printed(b"bad row\n", stream="stderr")])
    ran = await project.run("x", config_data=around(after=("p",)))
    assert (ran.outcome.error, ran.outcome.message) == ("user", "bad row")
    assert len(ran.result["images"][0]) == 2


async def test_between_two_containers_out_becomes_in(project: Project, clock: MockClock) -> None:
    manifest = '{"incremental": true}'
    await project.component(
        "x",
        {
            "out/tables/t.csv": TABLE,
            "out/tables/t.csv.manifest": manifest,
            "out/usage.json": "[]",
            "out/state.json": "{}",
            "out/odd/thing.txt": "kept",
        },
    )
    await project.component("p", copied)
    await project.run("x", config_data=around(after=("p",)), config=None)
    given = project.seen[1].files
    assert sorted(given) == [
        "config.json",
        "in/odd/thing.txt",
        "in/tables/t.csv",
        "in/tables/t.csv.manifest",
        "in/usage.json",
    ]
    assert given["in/tables/t.csv.manifest"] == manifest


# -- tags ------------------------------------------------------------------------------------------


@pytest.mark.scenario("runner", 246)
async def test_another_tag_is_run_and_said_so(project: Project, clock: MockClock) -> None:
    await project.component("x")
    await project.processor("p")
    project.host.images["x:1.1.12"] = FakeImage(Script())
    ran = await project.run("x", config_data=around(after=("p",)), tag="1.1.12")
    (warning,) = [event.message for event in ran.events if event.level == "warn"]
    assert warning == "Overriding component tag with: '1.1.12'"
    assert [image["id"] for image in ran.result["images"][0]] == ["x:1.1.12", "p:1"]


# -- ends ------------------------------------------------------------------------------------------


@pytest.mark.scenario("runner", 112)
async def test_what_a_component_prints_is_told(project: Project, clock: MockClock) -> None:
    await project.component("x", output=[Printed(b"from the container\n")])
    ran = await project.run("x", config_data={})
    assert ran.outcome.status is Status.SUCCESS
    (line,) = [event for event in ran.events if event.kind == "log"]
    assert (line.message, line.stream, line.component) == ("from the container", "stdout", "x")


@pytest.mark.scenario("runner", 120)
async def test_a_component_that_takes_too_long_is_ended_and_what_it_said_is_kept(
    project: Project, clock: MockClock
) -> None:
    await project.component(
        "x",
        output=[Printed(b"begun\n"), Printed(b"slow\n", at=5, stream="stderr")],
        seconds=20,
        stop_seconds=math.inf,
        data={"process_timeout": 10},
    )
    began = trio.current_time()
    ran = await project.run("x", config_data={})
    assert 10 <= trio.current_time() - began < 15
    assert ran.outcome.error == "user"
    assert ran.outcome.message == "Running x:1 container exceeded the timeout of 10 seconds."
    printed = [(event.stream, event.message) for event in ran.events if event.kind == "log"]
    assert printed == [("stdout", "begun"), ("stderr", "slow")]
    assert ran.outcome.cause is not None
    assert ran.outcome.cause.kind is CauseKind.TIMEOUT
    assert project.host.containers == []


@pytest.mark.scenario("runner", 121)
async def test_nothing_ends_a_run_of_80_seconds_but_its_own_timeout(
    project: Project, clock: MockClock
) -> None:
    await project.component("x", seconds=80, data={"process_timeout": 100})
    began = trio.current_time()
    assert (await project.run("x", config_data={})).outcome.status is Status.SUCCESS
    assert 80 <= trio.current_time() - began < 85


@pytest.mark.scenario("runner", 137)
@pytest.mark.parametrize(
    ("wanted", "seconds"), [(None, 20), (10, 10), (40, 40), (25 * 3600, 24 * 3600)]
)
async def test_a_configuration_may_set_the_time_of_its_component(
    make_engine: MakeEngine,
    host: FakeHost,
    clock: MockClock,
    tmp_path: Path,
    seldom: dict[str, float],
    wanted: int | None,
    seconds: int,
) -> None:
    async with make_engine(**seldom) as engine:
        project = Project(engine, host, tmp_path)
        await project.component("x", seconds=math.inf, data={"process_timeout": 20})
        began = trio.current_time()
        ran = await project.run("x", config_data={"runtime": {"process_timeout": wanted}})
        assert seconds <= trio.current_time() - began < seconds + 5
    assert ran.outcome.message.endswith(f"exceeded the timeout of {seconds} seconds.")


@pytest.mark.scenario("runner", 137)
async def test_a_processor_has_the_time_of_its_own_component(
    project: Project, clock: MockClock
) -> None:
    await project.component("x")
    await project.component("p", seconds=math.inf, data={"process_timeout": 20})
    ran = await project.run("x", config_data=around(after=("p",), runtime={"process_timeout": 40}))
    assert ran.outcome.message == "Running p:1 container exceeded the timeout of 20 seconds."


@pytest.mark.parametrize("wrong", [0, -1, "10", 1.5, True])
async def test_a_time_that_is_none_is_refused(
    project: Project, clock: MockClock, wrong: Any
) -> None:
    await project.component("x")
    ran = await project.run("x", config_data={"runtime": {"process_timeout": wrong}})
    assert ran.outcome.error == "user"
    assert "container.runtime.process_timeout" in ran.outcome.message


@pytest.mark.scenario("runner", 129)
@pytest.mark.parametrize(
    "play", [{}, {"exit_code": 1}, {"exit_code": 2}, {"seconds": math.inf}, {"oom_killed": True}]
)
async def test_however_a_job_ends_no_container_is_left(
    project: Project, clock: MockClock, play: dict[str, Any]
) -> None:
    await project.component("x", data={"process_timeout": 30}, **play)
    await project.processor("p")
    await project.run("x", config_data=around(("p",), ("p",)))
    assert len(project.host.created) >= 2
    assert project.host.containers == []


@pytest.mark.scenario("runner", 118)
async def test_the_text_of_a_failure_names_the_container(
    project: Project, clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    await project.component(
        "acme.x", exit_code=2, output=[Printed(b"Class 2 error\n", stream="stderr")]
    )
    ran = await project.run("acme.x", config_data={})
    assert ran.outcome.error == "application"
    (told,) = [vars(record) for record in caplog.records if record.msg == "job.failed"]
    (spec,) = project.host.created
    assert told["error"] == f"acme-x:1 container '{spec.name}' failed: (2) Class 2 error"
    prefix = "com.keboola.docker-runner."
    job, run = spec.labels[prefix + "jobId"], spec.labels[prefix + "runId"]
    assert spec.labels[prefix + "containerName"] == f"acme-x-{job}-{run}-0"
