"""Configuration rows: which of them run, in which order, and what is stored of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.engine.conftest import MakeEngine
from tests.engine.jobs.project import SCOPE, Project, Seen, Writes
from trio.testing import MockClock

from vaka import JobSpec, Status
from vaka.errors import UnderMaintenance
from vaka.models.container import ContainerSpec
from vaka.testing import FakeHost, Printed, Script


def one_table_a_row(seen: Seen) -> Writes:
    row = seen.environment.get("KBC_CONFIGROWID", "none")
    return {
        "out/tables/result.csv": f'"id","row"\n"1","{row}"\n',
        "out/state.json": json.dumps({"last": row}),
    }


def to(table: str) -> dict[str, Any]:
    return {
        "storage": {
            "output": {"tables": [{"source": "result.csv", "destination": f"in.c-rows.{table}"}]}
        }
    }


ROWS = {"row-1": to("one"), "row-2": to("two")}


async def with_rows(project: Project, **options: Any) -> None:
    await project.component("x", one_table_a_row)
    await project.configuration("x", rows=ROWS, **options)


@pytest.mark.scenario("runner", 197)
async def test_rows_run_one_after_the_other_in_their_order(
    project: Project, clock: MockClock
) -> None:
    await with_rows(project)
    ran = await project.run("x", config="c")
    assert ran.outcome.status is Status.SUCCESS
    assert await project.tables() == ["in.c-rows.one", "in.c-rows.two"]
    framed = [message for message in ran.told if "(row " in message]
    assert framed == [
        "Running component x (row 1 of 2)",
        "Finished component x (row 1 of 2)",
        "Running component x (row 2 of 2)",
        "Finished component x (row 2 of 2)",
    ]
    waited = ran.told.index("Waiting for 2 Storage jobs to finish.")
    assert ran.told[waited + 1] == "Output mapping done."
    assert ran.result["images"] == [[{"id": "x:1", "digests": []}]] * 2
    assert ran.result["configVersion"] == 3
    assert ran.result["rows"] == [
        {"id": "row-1", "status": "success"},
        {"id": "row-2", "status": "success"},
    ]
    assert [table["id"] for table in ran.result["output"]["tables"]] == [
        "in.c-rows.one",
        "in.c-rows.two",
    ]


async def test_the_order_of_rows_is_the_configurations(project: Project, clock: MockClock) -> None:
    await with_rows(project)
    await project.engine.catalog.update_configuration(
        "1", "x", "c", {"rows_sort_order": ["row-2", "row-1"]}
    )
    ran = await project.run("x", config="c", rows=("row-1", "row-2"))
    assert [row["id"] for row in ran.result["rows"]] == ["row-2", "row-1"]


@pytest.mark.scenario("runner", 198)
async def test_of_rows_only_the_one_that_is_named_runs(project: Project, clock: MockClock) -> None:
    await with_rows(project)
    ran = await project.run("x", config="c", row="row-2")
    assert await project.tables() == ["in.c-rows.two"]
    assert ran.result["rows"] == [{"id": "row-2", "status": "success"}]
    assert (await project.state("x", "row-1")).version == 0


async def test_several_rows_can_be_named_and_unknown_ones_beside_them_are_ignored(
    project: Project, clock: MockClock
) -> None:
    await with_rows(project)
    await project.engine.catalog.create_row("1", "x", "c", row_id="row-3", configuration=to("3"))
    ran = await project.run("x", config="c", rows=("row-3", "no-such", "row-1"))
    assert [row["id"] for row in ran.result["rows"]] == ["row-1", "row-3"]
    assert await project.tables() == ["in.c-rows.3", "in.c-rows.one"]


@pytest.mark.scenario("runner", 199)
@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"row": "row-2"}, "Row row-2 not found."),
        ({"rows": ("row-2", "row-3")}, 'None of rows "row-2,row-3" was found.'),
    ],
)
async def test_a_row_that_is_not_there_fails_the_job(
    project: Project, clock: MockClock, wanted: dict[str, Any], message: str
) -> None:
    await project.component("x", one_table_a_row)
    await project.configuration("x", rows={"row-1": to("one")})
    ran = await project.run("x", config="c", **wanted)
    assert (ran.outcome.error, ran.outcome.message) == ("user", message)
    assert project.host.created == []


@pytest.mark.scenario("runner", 200)
async def test_a_disabled_row_is_left_out_and_said_so(project: Project, clock: MockClock) -> None:
    await project.component("x", one_table_a_row)
    rows = {"row-1": to("one"), "disabled-row": to("off"), "row-2": to("two")}
    await project.configuration("x", config_id="my-config", rows=rows, disabled=("disabled-row",))
    ran = await project.run("x", config="my-config")
    version = ran.result["configVersion"]
    assert (
        f"Skipping disabled configuration: my-config, version: {version}, row: disabled-row"
        in ran.told
    )
    assert await project.tables() == ["in.c-rows.one", "in.c-rows.two"]
    assert [row["id"] for row in ran.result["rows"]] == ["row-1", "row-2"]
    assert "Running component x (row 2 of 2)" in ran.told


@pytest.mark.scenario("runner", 201)
async def test_a_disabled_row_that_is_named_runs(project: Project, clock: MockClock) -> None:
    await project.component("x", one_table_a_row)
    await project.configuration(
        "x", config_id="my-config", rows={"disabled-row": to("off")}, disabled=("disabled-row",)
    )
    ran = await project.run("x", config="my-config", row="disabled-row")
    version = ran.result["configVersion"]
    assert (
        f"Force running disabled configuration: my-config, version: {version}, row: disabled-row"
        in ran.told
    )
    assert await project.tables() == ["in.c-rows.off"]


@pytest.mark.scenario("runner", 202)
async def test_with_all_rows_disabled_nothing_runs_and_that_is_no_failure(
    project: Project, clock: MockClock
) -> None:
    await with_rows(project, disabled=("row-1", "row-2"))
    ran = await project.run("x", config="c")
    assert ran.outcome.status is Status.SUCCESS
    assert ran.result["message"] == "No configurations executed."
    assert (ran.result["images"], ran.result["configVersion"]) == ([], None)
    assert project.host.created == []


@pytest.mark.scenario("runner", 208)
async def test_a_list_is_no_row(project: Project, clock: MockClock) -> None:
    await with_rows(project)
    ran = await project.run("x", config="c", row=[1, 2, 3])
    assert ran.outcome.error == "user"
    assert ran.outcome.message.startswith("Unsupported row value")


@pytest.mark.scenario("runner", 205)
@pytest.mark.scenario("mapping", 58)
async def test_a_load_that_fails_late_keeps_the_state_of_every_row_as_it_was(
    project: Project, clock: MockClock
) -> None:
    def writes(seen: Seen) -> Writes:
        wrong = seen.environment["KBC_CONFIGROWID"] == "row-1"
        # a row with one value too many is found when it is loaded, not before
        return {**one_table_a_row(seen), **({"out/tables/result.csv": BROKEN} if wrong else {})}

    await project.component("x", writes)
    await project.configuration("x", rows=ROWS)
    for row in ROWS:
        await project.set_state("x", {"component": {"last": "before"}}, row)
    ran = await project.run("x", config="c")
    assert ran.outcome.error == "user"
    assert ran.outcome.message.startswith(
        'Failed to process output mapping: Failed to load table "in.c-rows.one": '
    )
    assert await project.tables() == ["in.c-rows.two"]
    assert "Output mapping done." not in ran.told
    for row in ROWS:
        assert (await project.state("x", row)).value["component"] == {"last": "before"}
    assert ran.result["rows"] == [
        {"id": "row-1", "status": "error"},
        {"id": "row-2", "status": "success"},
    ]


BROKEN = '"id","row"\n"1","a"\n"2","b","c"\n'


@pytest.mark.scenario("runner", 206)
async def test_columns_that_stand_twice_are_found_before_anything_is_loaded(
    project: Project, clock: MockClock
) -> None:
    await project.component("x", {"out/tables/result.csv": '"id","id"\n"1","2"\n'})
    await project.configuration("x", rows=ROWS)
    await project.set_state("x", {"component": {"last": "before"}}, "row-1")
    ran = await project.run("x", config="c")
    assert (ran.outcome.status, ran.outcome.error) == (Status.ERROR, "user")
    assert await project.tables() == []
    assert (await project.state("x", "row-1")).value == {"component": {"last": "before"}}


@pytest.mark.scenario("mapping", 59)
async def test_a_row_that_fails_ends_the_job_and_no_row_keeps_its_state(
    project: Project, clock: MockClock
) -> None:
    def script(spec: ContainerSpec) -> Script:
        failed = spec.environment["KBC_CONFIGROWID"] == "row-2"
        return Script([Printed(b"no more\n", stream="stderr")] if failed else [], exit_code=failed)

    await project.component("x", one_table_a_row, script=script)
    await project.configuration("x", rows={**ROWS, "row-3": to("three")})
    ran = await project.run("x", config="c")
    assert (ran.outcome.error, ran.outcome.message) == ("user", "no more")
    assert await project.tables() == ["in.c-rows.one"]
    for row in ("row-1", "row-2", "row-3"):
        assert (await project.state("x", row)).version == 0
    assert ran.result["rows"] == [
        {"id": "row-1", "status": "success"},
        {"id": "row-2", "status": "error"},
    ]
    assert ran.result["images"] == [[{"id": "x:1", "digests": []}]] * 2
    assert ran.result["output"]["tables"] == []


@pytest.mark.parametrize("parallelism", [1, 2])
async def test_a_job_that_begins_anew_stores_what_its_rows_leave_then(
    project: Project, clock: MockClock, monkeypatch: pytest.MonkeyPatch, parallelism: int
) -> None:
    def writes(seen: Seen) -> Writes:
        return {"out/tables/result.csv": f'"run"\n"{len(project.seen)}"\n', "out/state.json": "{}"}

    await project.component("x", writes)
    await project.configuration("x", rows=ROWS)
    really = project.engine.catalog.put_state
    closed = [UnderMaintenance("Storage is being moved", retry_after=60)]

    async def put_state(*arguments: Any, **options: Any) -> Any:
        if arguments[3] == "row-2" and closed:
            raise closed.pop()
        return await really(*arguments, **options)

    monkeypatch.setattr(project.engine.catalog, "put_state", put_state)
    ran = await project.run("x", config="c", parallelism=parallelism)
    assert ran.outcome.status is Status.SUCCESS, ran.outcome
    assert ran.job.record.attempt == 2
    assert len(project.seen) == 4
    stored = [await project.rows(f"in.c-rows.{name}") for name in ("one", "two")]
    assert sorted(stored, key=str) == [[("3",)], [("4",)]]


async def test_a_mistake_in_any_row_is_found_before_anything_runs(
    project: Project, clock: MockClock
) -> None:
    await project.component("x", one_table_a_row)
    wrong = {"storage": {"input": {"tables": [{"source": "in.c-a.b", "foo": 1}]}}}
    await project.configuration("x", rows={"row-1": to("one"), "row-2": wrong})
    ran = await project.run("x", config="c")
    assert ran.outcome.error == "user"
    assert 'Unrecognized option "foo" under "container.storage.input.tables.0"' in (
        ran.outcome.message
    )
    assert project.host.created == []
    assert not ran.result.get("rows")


async def test_a_disabled_row_may_be_wrong_as_long_as_nobody_runs_it(
    project: Project, clock: MockClock
) -> None:
    await project.component("x", one_table_a_row)
    await project.configuration(
        "x", rows={"row-1": to("one"), "off": {"foo": 1}}, disabled=("off",)
    )
    assert (await project.run("x", config="c")).outcome.status is Status.SUCCESS
    assert (await project.run("x", config="c", row="off")).outcome.status is Status.ERROR


@pytest.mark.scenario("runner", 207)
async def test_tables_say_which_configuration_and_row_made_them(
    project: Project, clock: MockClock
) -> None:
    await with_rows(project)
    await project.run("x", config="c", row="row-1")
    await project.run("x", config_data=to("inline"))

    async def makers(table: str) -> dict[str, str]:
        detail = await project.engine.storage.tables.table(SCOPE, table)
        return {each.key: each.value for each in detail.metadata if "createdBy" in each.key}

    assert await makers("in.c-rows.one") == {
        "KBC.createdBy.component.id": "x",
        "KBC.createdBy.configuration.id": "c",
        "KBC.createdBy.configurationRow.id": "row-1",
    }
    assert await makers("in.c-rows.inline") == {"KBC.createdBy.component.id": "x"}


async def test_a_job_runs_the_version_that_it_began_with(
    make_engine: MakeEngine, host: FakeHost, clock: MockClock, tmp_path: Path
) -> None:
    async with make_engine(shutdown="adopt") as engine:
        project = Project(engine, host, tmp_path)
        await project.component("x", one_table_a_row, seconds=100)
        await project.configuration("x", {"parameters": {"old": True}}, rows=ROWS)
        job = await engine.submit(JobSpec(component="x", config="c"))
        await trio.sleep(50)
        catalog = engine.catalog
        before = (await catalog.configuration("1", "x", "c")).version
        await catalog.update_configuration(
            "1", "x", "c", {"configuration": {"parameters": {"old": False}}}
        )
        await catalog.create_row("1", "x", "c", row_id="row-3", configuration=to("three"))
        await catalog.update_row("1", "x", "c", "row-2", {"is_disabled": True})
    async with make_engine() as engine:
        project.engine = engine
        ran = await project.ended(await engine.job(job.id))
    assert [row["id"] for row in ran.result["rows"]] == ["row-1", "row-2"]
    assert ran.result["configVersion"] == before
    for seen in project.seen:
        assert seen.environment["KBC_CONFIGVERSION"] == str(before)
        assert json.loads(seen.files["config.json"])["parameters"] == {"old": True}
