"""State: what a component is given of it, what is kept, and when."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from tests.engine.jobs.project import Project, Seen, Writes
from trio.testing import MockClock

from vaka import JobSpec, Status
from vaka.actors.definition import told
from vaka.masking import Masker

NOTHING_READ: dict[str, Any] = {"input": {"tables": [], "files": []}}


def writing(state: Any) -> Writes:
    return {"out/state.json": json.dumps(state)}


@pytest.mark.scenario("runner", 172)
@pytest.mark.scenario("mapping", 52)
async def test_a_component_finds_its_part_of_the_state(project: Project, clock: MockClock) -> None:
    await project.component("x")
    await project.configuration("x")
    await project.set_state("x", {"component": {"foo": "bar"}, "data_app": {"id": 7}})
    await project.run("x", config="c")
    (seen,) = project.seen
    assert json.loads(seen.files["in/state.json"]) == {"foo": "bar"}


@pytest.mark.scenario("runner", 174)
@pytest.mark.scenario("mapping", 51)
async def test_without_a_state_the_file_is_an_empty_object(
    project: Project, clock: MockClock
) -> None:
    await project.component("x")
    await project.configuration("x")
    await project.run("x", config="c")
    (seen,) = project.seen
    assert seen.files["in/state.json"] == "{}"


@pytest.mark.scenario("runner", 173)
@pytest.mark.scenario("mapping", 53)
async def test_a_state_of_another_shape_is_refused(project: Project, clock: MockClock) -> None:
    await project.component("x")
    await project.configuration("x")
    await project.set_state("x", {"lastUpdate": "today"})
    ran = await project.run("x", config="c")
    assert ran.outcome.error == "user"
    assert 'Invalid state: Unrecognized option "lastUpdate" under "state"' in ran.outcome.message
    assert project.host.created == []


@pytest.mark.scenario("runner", 175)
@pytest.mark.scenario("mapping", 54)
async def test_what_a_component_writes_is_kept(project: Project, clock: MockClock) -> None:
    await project.component("x", writing({"baz": "fooBar"}))
    await project.configuration("x")
    assert (await project.run("x", config="c")).outcome.status is Status.SUCCESS
    assert (await project.state("x")).value == {
        "component": {"baz": "fooBar"},
        "storage": NOTHING_READ,
    }


@pytest.mark.scenario("runner", 177)
@pytest.mark.scenario("mapping", 55)
async def test_a_component_that_writes_no_state_clears_it(
    project: Project, clock: MockClock
) -> None:
    await project.component("x")
    await project.configuration("x")
    await project.set_state("x", {"component": {"baz": "before"}})
    await project.run("x", config="c")
    assert (await project.state("x")).value == {"component": {}, "storage": NOTHING_READ}


@pytest.mark.scenario("runner", 178)
@pytest.mark.scenario("mapping", 61)
async def test_of_a_configuration_that_does_not_exist_no_state_is_kept(
    project: Project, clock: MockClock
) -> None:
    await project.component("x", writing({"baz": 1}))
    ran = await project.run("x", config="nowhere", config_data={})
    assert ran.outcome.status is Status.SUCCESS
    assert "Storing state." not in ran.told
    assert await project.engine.catalog.configurations("1", "x") == []


@pytest.mark.scenario("runner", 179)
@pytest.mark.scenario("mapping", 60)
async def test_without_a_configuration_no_state_is_kept(project: Project, clock: MockClock) -> None:
    await project.component("x", writing({"baz": 1}))
    await project.configuration("x")
    ran = await project.run("x", config_data={})
    assert ran.outcome.status is Status.SUCCESS
    assert "Storing state." not in ran.told
    assert (await project.state("x")).version == 0


async def test_an_inline_configuration_reads_no_state_and_writes_it(
    project: Project, clock: MockClock
) -> None:
    await project.component("x", writing({"baz": 2}))
    await project.configuration("x")
    await project.set_state("x", {"component": {"baz": 1}, "data_app": {"id": 7}})
    assert (await project.run("x", config="c", config_data={})).outcome.status is Status.SUCCESS
    (seen,) = project.seen
    assert seen.files["in/state.json"] == "{}"
    assert (await project.state("x")).value == {
        "component": {"baz": 2},
        "storage": NOTHING_READ,
        "data_app": {"id": 7},
    }


@pytest.mark.scenario("runner", 183)
@pytest.mark.scenario("mapping", 64)
async def test_what_others_keep_in_the_state_stays(project: Project, clock: MockClock) -> None:
    await project.component("x", writing({"baz": 2}))
    await project.configuration("x")
    await project.set_state("x", {"data_app": {"id": "7"}, "component": {"baz": 1}})
    await project.run("x", config="c")
    assert (await project.state("x")).value == {
        "component": {"baz": 2},
        "storage": NOTHING_READ,
        "data_app": {"id": "7"},
    }


@pytest.mark.scenario("mapping", 57)
async def test_a_component_that_fails_leaves_the_state_as_it_was(
    project: Project, clock: MockClock
) -> None:
    await project.component("x", writing({"baz": "new"}), exit_code=1)
    await project.configuration("x")
    await project.set_state("x", {"component": {"baz": "old"}})
    before = await project.state("x")
    assert (await project.run("x", config="c")).outcome.error == "user"
    assert await project.state("x") == before


async def test_a_stopped_job_leaves_the_state_as_it_was(project: Project, clock: MockClock) -> None:
    await project.component("x", writing({"baz": "new"}), seconds=100)
    await project.configuration("x")
    job = await project.engine.submit(JobSpec(component="x", config="c"))
    await trio.sleep(50)
    await job.cancel()
    assert (await job.wait()).status is Status.TERMINATED
    assert (await project.state("x")).version == 0


@pytest.mark.parametrize("content", ["5", '"x"', "[1]", "{", "nul"])
async def test_a_state_that_cannot_be_kept_is_refused_at_once(
    project: Project, clock: MockClock, content: str
) -> None:
    await project.component("x", {"out/state.json": content})
    await project.configuration("x")
    ran = await project.run("x", config="c")
    assert ran.outcome.error == "user"
    assert (await project.state("x")).version == 0


async def test_an_empty_state_file_clears_the_state(project: Project, clock: MockClock) -> None:
    await project.component("x", {"out/state.json": ""})
    await project.configuration("x")
    await project.set_state("x", {"component": {"baz": "old"}})
    assert (await project.run("x", config="c")).outcome.status is Status.SUCCESS
    assert (await project.state("x")).value["component"] == {}


@pytest.mark.scenario("runner", 182)
async def test_a_configuration_that_is_deleted_meanwhile_costs_its_state_and_nothing_else(
    project: Project, clock: MockClock
) -> None:
    await project.component("x", writing({"baz": 1}), seconds=100)
    await project.configuration("x")
    job = await project.engine.submit(JobSpec(component="x", config="c"))
    await trio.sleep(50)
    for _ in range(2):  # into the trash, then out of it
        await project.engine.catalog.delete_configuration("1", "x", "c")
    ran = await project.ended(job)
    assert ran.outcome.status is Status.SUCCESS
    (warning,) = [event for event in ran.events if event.level == "warn"]
    assert warning.message.startswith("Failed to store state: ")


async def test_a_state_that_somebody_else_has_changed_meanwhile_is_not_overwritten(
    project: Project, clock: MockClock
) -> None:
    await project.component("x", writing({"baz": "mine"}), seconds=100)
    await project.configuration("x")
    job = await project.engine.submit(JobSpec(component="x", config="c"))
    await trio.sleep(50)
    await project.set_state("x", {"component": {"baz": "theirs"}})
    ran = await project.ended(job)
    assert ran.outcome.error == "user"
    assert "Failed to store state" in ran.outcome.message
    assert (await project.state("x")).value["component"] == {"baz": "theirs"}


@pytest.mark.scenario("runner", 184)
async def test_only_what_is_new_since_the_last_run_is_read(
    project: Project, clock: MockClock
) -> None:
    await project.component("x", writing({}))
    source = {"source": "in.c-main.t", "destination": "t.csv", "changed_since": "adaptive"}
    await project.configuration("x", {"storage": {"input": {"tables": [source]}}})
    await project.load("in.c-main.t", '"id"\n"1"\n')
    await project.run("x", config="c")
    before = (await project.state("x")).value["storage"]["input"]["tables"]
    assert [each["source"] for each in before] == ["in.c-main.t"]

    await project.load("in.c-main.t", '"id"\n"2"\n', incremental=True)
    await project.run("x", config="c")
    first, second = (seen.files["in/tables/t.csv"] for seen in project.seen)
    assert first.split() == ['"id"', '"1"']
    assert second.split() == ['"id"', '"2"']
    after = (await project.state("x")).value["storage"]["input"]["tables"]
    assert after != before
    assert [each["source"] for each in after] == ["in.c-main.t"]


# -- processors ------------------------------------------------------------------------------------


def with_processors(*, before: tuple[str, ...] = (), after: tuple[str, ...] = ()) -> Any:
    return {
        "processors": {
            side: [{"definition": {"component": name}} for name in names]
            for side, names in (("before", before), ("after", after))
        }
    }


@pytest.mark.scenario("runner", 181)
@pytest.mark.scenario("mapping", 62)
@pytest.mark.scenario("mapping", 63)
async def test_the_state_is_the_main_components_alone(project: Project, clock: MockClock) -> None:
    await project.component("x", {**writing({"by": "x"}), "out/tables/t.csv": '"a"\n"1"\n'})
    for name in ("p.before", "p.after"):
        await project.processor(name)
    await project.component("p.last", writing({"by": "p"}))
    await project.configuration(
        "x", with_processors(before=("p.before",), after=("p.after", "p.last"))
    )
    await project.set_state("x", {"component": {"by": "earlier"}})
    ran = await project.run("x", config="c")
    assert ran.outcome.status is Status.SUCCESS
    given = {seen.component: seen for seen in project.seen}
    assert list(given) == ["p.before", "x", "p.after", "p.last"]
    for name in ("p.before", "p.after", "p.last"):
        assert not [path for path in given[name].files if "state" in path]
    assert json.loads(given["x"].files["in/state.json"]) == {"by": "earlier"}
    assert (await project.state("x")).value["component"] == {"by": "x"}


@pytest.mark.scenario("runner", 180)
async def test_a_processor_that_fails_leaves_the_state_as_it_was(
    project: Project, clock: MockClock
) -> None:
    await project.component("x", writing({"by": "x"}))
    await project.component("p", exit_code=1)
    await project.configuration("x", with_processors(after=("p",)))
    assert (await project.run("x", config="c")).outcome.status is Status.ERROR
    assert (await project.state("x")).version == 0


async def test_a_component_without_staging_has_a_state_all_the_same(
    project: Project, clock: MockClock
) -> None:
    await project.component(
        "x", writing({"baz": 1}), data={"staging_storage": {"input": "none", "output": "none"}}
    )
    await project.configuration("x")
    await project.set_state("x", {"component": {"baz": 0}})
    assert (await project.run("x", config="c")).outcome.status is Status.SUCCESS
    (seen,) = project.seen
    assert json.loads(seen.files["in/state.json"]) == {"baz": 0}
    assert (await project.state("x")).value["component"] == {"baz": 1}


async def test_rows_keep_their_own_state(project: Project, clock: MockClock) -> None:
    def writes(seen: Seen) -> Writes:
        return writing({"row": seen.environment["KBC_CONFIGROWID"]})

    await project.component("x", writes)
    await project.configuration("x", rows={"r1": {}, "r2": {}})
    await project.set_state("x", {"component": {"row": "none"}})
    await project.run("x", config="c")
    assert (await project.state("x", "r1")).value["component"] == {"row": "r1"}
    assert (await project.state("x", "r2")).value["component"] == {"row": "r2"}
    assert (await project.state("x")).value == {"component": {"row": "none"}}


async def test_what_is_told_of_a_state_hides_its_secrets(
    project: Project, clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await project.component("x", writing({"#token": "s3cret-value", "page": 2}))
    await project.configuration("x")
    await project.run("x", config="c")
    told = [vars(record)["reason"] for record in caplog.records if record.msg == "job.noted"]
    (stored,) = [line for line in told if line.startswith("Storing state: ")]
    assert '"page": 2' in stored
    assert "s3cret-value" not in caplog.text
    (used,) = [line for line in told if line.startswith("Using configuration id: c version:")]
    assert used.endswith("state: {}")


def test_a_state_is_told_whole_or_not_at_all() -> None:
    masker = Masker(["s3cret-value"])
    assert told({"#a": "s3cret-value", "b": "é"}, masker) == '{"#a": "[hidden]", "b": "é"}'
    assert told({"a": "x" * 100_000}, masker) == "(more than 10000 characters)"
    assert told(["y"] * 100_000, masker) == "(more than 10000 characters)"


@pytest.mark.scenario("encryption", 83)
async def test_the_input_state_is_logged_without_its_secrets(
    project: Project, clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await project.component("x")
    await project.configuration("x")
    state = {"component": {"#token": "s3cret-value", "page": 2}}
    await project.set_state("x", await project.sealed(state, "x"))
    await project.run("x", config="c")
    told = [vars(record)["reason"] for record in caplog.records if record.msg == "job.noted"]
    (used,) = [line for line in told if line.startswith("Using configuration id: c version:")]
    assert used.endswith('state: {"component": {"#token": "[hidden]", "page": 2}}')
