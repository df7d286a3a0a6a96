"""What a job reads: what it remembers of it, what it tells of it, and where it cannot be put."""

from __future__ import annotations

from typing import Any

import pytest
from tests.engine.jobs.project import SCOPE, Project
from trio.testing import MockClock

from vaka import ActionSpec, Status
from vaka.errors import UserError
from vaka.models.container import ContainerSpec
from vaka.models.storage import FileQuery, FileUpload
from vaka.testing import Printed, Script, host_path

T = "in.c-main.t"
U = "in.c-main.u"


def reads(*sources: str, changed_since: str = "adaptive", **files: Any) -> dict[str, Any]:
    """A configuration that reads these tables, each by its last name."""
    tables = [
        {"source": each, "destination": each.rpartition(".")[2], "changed_since": changed_since}
        for each in sources
    ]
    return {"storage": {"input": {"tables": tables, **files}}}


async def upload(project: Project, name: str, *tags: str) -> int:
    path = project.folder / "upload"
    path.write_text(name)
    stored = await project.engine.storage.files.upload(SCOPE, FileUpload(name, tags), path)
    return stored.id


# -- states ----------------------------------------------------------------------------------------


@pytest.mark.scenario("mapping", 104)
async def test_each_row_remembers_what_it_has_read_itself(
    project: Project, clock: MockClock
) -> None:
    for table in (T, U):
        await project.load(table, "id\n1\n")
    await project.component("x")
    await project.configuration("x", rows={"one": reads(T), "two": reads(T, U)})

    await project.run("x", config="c", row="one")
    stored = (await project.state("x", "one")).value["storage"]["input"]["tables"]
    assert [entry["source"] for entry in stored] == [T]
    assert (await project.state("x", "two")).version == 0

    project.seen.clear()
    ran = await project.run("x", config="c")
    assert ran.outcome.status is Status.SUCCESS
    one, two = project.seen
    assert one.files["in/tables/t"] == '"id"\n'
    assert two.files["in/tables/t"] == two.files["in/tables/u"] == '"id"\n"1"\n'
    assert len((await project.state("x", "two")).value["storage"]["input"]["tables"]) == 2


@pytest.mark.scenario("mapping", 105)
@pytest.mark.parametrize("broken", ["component", "output"])
async def test_after_a_failed_job_the_same_rows_are_read_again(
    project: Project, clock: MockClock, broken: str
) -> None:
    await project.load(T, "id\n1\n")
    await upload(project, "f", "t")
    await project.component("x")
    content = reads(T, files=[{"tags": ["t"], "changed_since": "adaptive"}])
    await project.configuration("x", content)
    await project.run("x", config="c")
    before = await project.state("x")

    await project.load(T, "id\n2\n", incremental=True)
    await upload(project, "g", "t")
    if broken == "component":
        await project.component("x", exit_code=1)
    else:
        await project.component("x", {"out/tables/bad": ""})
    project.seen.clear()
    assert (await project.run("x", config="c")).outcome.status is Status.ERROR
    assert await project.state("x") == before

    await project.component("x")
    assert (await project.run("x", config="c")).outcome.status is Status.SUCCESS
    first, second = project.seen
    assert first.files["in/tables/t"] == second.files["in/tables/t"] == '"id"\n"2"\n'
    files = [path for path in second.files if path.startswith("in/files/")]
    assert [path.partition("_")[2] for path in files] == ["g", "g.manifest"]
    assert (await project.state("x")).version == before.version + 1


@pytest.mark.scenario("mapping", 95)
async def test_a_job_whose_component_fails_tells_what_it_has_read(
    project: Project, clock: MockClock
) -> None:
    await project.load(T, "id\n1\n")
    number = await upload(project, "f", "t")
    await project.component("x", exit_code=1)
    await project.configuration("x", reads(T, files=[{"tags": ["t"]}]))

    ran = await project.run("x", config="c")

    assert ran.outcome.error == "user"
    (told,) = ran.result["input"]["tables"]
    assert (told["id"], told["columns"]) == (T, [{"name": "id"}])
    assert told["lastImportDate"] is not None
    assert ran.result["output"] == {"tables": []}
    # what was read of files was noted as well, for a state that is never stored
    journal = await project.engine.services.store.definitions(ran.job.id, 1)
    assert journal[0]["input_state"]["files"] == [
        {"tags": [{"name": "t"}], "lastImportId": str(number)}
    ]
    assert (await project.state("x")).version == 0


# -- staging kinds ---------------------------------------------------------------------------------


async def staged(project: Project, kind: str, content: Any, state: Any = None) -> str:
    """The user error of a job whose component has this input staging; no container ran."""
    output = kind if kind.startswith("workspace") else "local"
    data = {"staging_storage": {"input": kind, "output": output}}
    await project.component("x", data=data)
    await project.configuration("x", content)
    if state is not None:
        await project.set_state("x", state)
    outcome = (await project.run("x", config="c")).outcome
    assert outcome.error == "user"
    assert project.seen == []
    return outcome.message


@pytest.mark.parametrize("kind", ["s3", "abs"])
async def test_tables_do_not_come_from_an_object_store_that_is_not_there(
    project: Project, clock: MockClock, kind: str
) -> None:
    await project.load(T, "id\n1\n")
    message = await staged(project, kind, reads(T))
    assert message == f"This project does not have {kind.upper()} backend."


@pytest.mark.parametrize("content", [reads(T), reads(T, changed_since=""), {}])
@pytest.mark.parametrize(
    "kind", ["workspace-snowflake", "workspace-bigquery", "workspace-redshift"]
)
async def test_there_are_no_workspaces(
    project: Project, clock: MockClock, kind: str, content: Any
) -> None:
    await project.load(T, "id\n1\n")
    message = await staged(project, kind, content)
    assert message == f'The project does not support "{kind}" staging.'


@pytest.mark.scenario("mapping", 242)
async def test_days_are_no_option_of_workspaces(project: Project, clock: MockClock) -> None:
    content = {"storage": {"input": {"tables": [{"source": T, "days": 3}]}}}
    assert await staged(project, "workspace-snowflake", content) == (
        "Days option is not supported on workspace, use changed_since instead."
    )


@pytest.mark.scenario("mapping", 100)
async def test_a_date_that_is_none_is_told_before_a_workspace_is_asked_for(
    project: Project, clock: MockClock
) -> None:
    entry = {"source": T, "lastImportDate": "nonsense"}
    state = {"component": {}, "storage": {"input": {"tables": [entry], "files": []}}}
    assert await staged(project, "workspace-snowflake", reads(T), state) == (
        f'Invalid lastImportDate value "nonsense" for table "{T}". '
        "This value cannot be converted to a valid timestamp."
    )


@pytest.mark.parametrize("kind", ["s3", "abs"])
async def test_files_come_to_the_data_folder_whatever_the_staging_is(
    project: Project, clock: MockClock, kind: str
) -> None:
    number = await upload(project, "f", "t")
    data = {"staging_storage": {"input": kind, "output": "local"}}
    await project.component("x", data=data)
    await project.configuration("x", reads(files=[{"tags": ["t"]}]))
    assert (await project.run("x", config="c")).outcome.status is Status.SUCCESS
    (seen,) = project.seen
    assert seen.files[f"in/files/{number}_f"] == "f"
    assert f"in/files/{number}_f.manifest" in seen.files


def needs_its_table(spec: ContainerSpec) -> Script:
    """A component that ends with an error when its input is not there."""
    is_there = (host_path(spec, "/data") / "in/tables/t").exists()
    missing = Printed(b"in/tables/t is missing\n", stream="stderr")
    return Script(exit_code=0) if is_there else Script((missing,), exit_code=1)


@pytest.mark.scenario("mapping", 93)
async def test_without_staging_nothing_is_read_and_nothing_is_stored(
    project: Project, clock: MockClock
) -> None:
    await project.load(T, "id\n1\n")
    await upload(project, "f", "t")
    data = {"staging_storage": {"input": "none", "output": "local"}}
    content = reads(T, files=[{"tags": ["t"]}])
    content["storage"]["output"] = {"tables": [{"source": "o", "destination": "in.c-main.o"}]}
    await project.component("x", data=data, script=needs_its_table)
    await project.configuration("x", content)

    ran = await project.run("x", config="c")
    assert (ran.outcome.error, ran.outcome.message) == ("user", "in/tables/t is missing")

    await project.component("x", {"out/tables/o": '"id"\n"1"\n', "out/files/f": "x"}, data=data)
    ran = await project.run("x", config="c")
    assert ran.outcome.status is Status.SUCCESS
    for seen in project.seen:
        assert {"in/tables", "in/files"} <= set(seen.folders)
        assert not any(path.startswith(("in/tables/", "in/files/")) for path in seen.files)
    assert await project.tables() == [T]
    assert len(await project.engine.storage.files.list_files(SCOPE, FileQuery())) == 1
    assert ran.result["input"]["tables"] == ran.result["output"]["tables"] == []


@pytest.mark.scenario("mapping", 92)
async def test_a_synchronous_action_reads_nothing(project: Project, clock: MockClock) -> None:
    await project.load(T, "id\n1\n")
    await project.component("x", data={"synchronous_actions": ["look"]}, script=needs_its_table)
    spec = ActionSpec(component="x", action="look", config_data=reads(T))
    with pytest.raises(UserError, match="in/tables/t is missing"):
        await project.engine.act(spec)
    (seen,) = project.seen
    assert "in/tables" in seen.folders
    assert not any(path.startswith("in/tables/") for path in seen.files)
