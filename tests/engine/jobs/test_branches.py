"""Jobs in development branches: what they read, write and remember stays theirs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.engine.conftest import MakeEngine
from tests.engine.jobs.project import SCOPE, Project, Seen, Writes
from trio.testing import MockClock

from vaka import JobSpec, Status
from vaka.actors.branch import job_branch
from vaka.errors import InvalidInput, NotFound, UserError
from vaka.hooks import MappingBackend, hookimpl
from vaka.models.storage import ExportOptions, FileQuery, TableLoad
from vaka.testing import FakeHost
from vaka_local.storage import LocalStorage

T = "in.c-main.t"
CONFIGURATION: dict[str, Any] = {
    "storage": {
        "input": {"tables": [{"source": T, "destination": "t"}]},
        "output": {
            "tables": [{"source": "t", "destination": T, "incremental": True}],
            "files": [{"source": "f", "tags": ["made"]}],
        },
    }
}


def writes(seen: Seen) -> Writes:
    run = json.loads(seen.files["in/state.json"]).get("run", 0) + 1
    return {
        "out/tables/t": f'"id"\n"{seen.environment.get("KBC_BRANCHID", "main")}-{run}"\n',
        "out/files/f": "x",
        "out/state.json": json.dumps({"run": run}),
    }


async def ready(project: Project) -> None:
    await project.component("x", writes)
    await project.configuration("x", CONFIGURATION)
    await project.load(T, "id\nproduction\n")


async def test_a_branch_in_a_shared_storage_has_its_own_by_prefixes(
    project: Project, clock: MockClock
) -> None:
    await ready(project)
    catalog = project.engine.catalog
    branch = await catalog.create_branch("1", "Mine")
    own = f"in.c-{branch.id}-main.t"

    first = await project.run("x", config="c", branch=branch.id)
    assert first.outcome.status is Status.SUCCESS
    second = await project.run("x", config="c", branch=branch.id)
    assert second.outcome.status is Status.SUCCESS

    assert [seen.environment["KBC_BRANCHID"] for seen in project.seen] == [branch.id] * 2
    one, two = (seen.files["in/tables/t"] for seen in project.seen)
    assert (one, two) == ('"id"\n"production"\n', f'"id"\n"{branch.id}-1"\n')
    assert f'Using dev input "{own}" instead of "{T}".' in second.told
    assert await project.rows(own) == [(f"{branch.id}-1",), (f"{branch.id}-2",)]
    assert await project.rows(T) == [("production",)]
    files = await project.engine.storage.files.list_files(SCOPE, FileQuery())
    assert [file.tags[0] for file in files] == [f"{branch.id}-made"] * 2
    # states are the branch's as well
    state = (await catalog.state("1", "x", "c", branch=branch.id)).value
    assert state["component"] == {"run": 2}
    assert [entry["source"] for entry in state["storage"]["input"]["tables"]] == [own]
    assert (await project.state("x")).version == 0


async def test_a_branch_in_a_storage_that_keeps_branches_apart_has_its_own_there(
    project: Project, clock: MockClock, tmp_path: Path
) -> None:
    catalog, storage = project.engine.catalog, project.engine.storage
    await project.component("x", writes)
    apart = await catalog.create_project("apart", features=["storage-branches"])
    main, *_ = await catalog.branches(apart.id)
    branch = await catalog.create_branch(apart.id, "Mine")
    await catalog.create_configuration(
        apart.id, "x", "c", config_id="c", configuration=CONFIGURATION
    )
    scope = replace(SCOPE, project=apart.id)
    here = replace(scope, branch=branch.id)
    path = tmp_path / "t.csv"
    path.write_text("id\nproduction\n")
    await storage.tables.load(scope, [TableLoad(T, (path,))])

    ran = [
        await project.run("x", project=apart.id, config="c", branch=each)
        for each in (branch.id, branch.id, None, main.id)
    ]

    assert [each.outcome.status for each in ran] == [Status.SUCCESS] * 4
    read = [seen.files["in/tables/t"] for seen in project.seen]
    assert read[0] == '"id"\n"production"\n'
    assert read[1] == f'"id"\n"{branch.id}-1"\n'
    assert read[2] == '"id"\n"production"\n'
    assert sorted(read[3].splitlines()) == ['"id"', '"main-1"', '"production"']
    fallback = f'Using fallback to default branch "{main.id}" for input "{T}".'
    assert [fallback in each.told for each in ran] == [True, False, True, True]
    _, rows = await storage.tables.preview(here, T, ExportOptions())
    assert sorted(rows) == [(f"{branch.id}-1",), (f"{branch.id}-2",)]
    _, rows = await storage.tables.preview(scope, T, ExportOptions())
    assert sorted(rows) == [(f"{main.id}-2",), ("main-1",), ("production",)]
    (file, _) = await storage.files.list_files(here, FileQuery())
    assert file.tags[0] == "made"
    # the default branch by its id is the default branch
    assert (await catalog.state(apart.id, "x", "c")).value["component"] == {"run": 2}
    assert (await catalog.state(apart.id, "x", "c", branch=branch.id)).version == 2


async def test_a_branch_that_is_not_there_is_the_callers_error(
    project: Project, clock: MockClock
) -> None:
    await ready(project)
    with pytest.raises(NotFound, match="Branch 4711 not found"):
        await project.run("x", config="c", branch="4711")
    main, *_ = await project.engine.catalog.branches("1")
    with pytest.raises(InvalidInput, match="Main"):
        await project.engine.delete_branch("1", main.id)

    # one that goes while a job waits
    catalog, storage = project.engine.catalog, project.engine.storage
    project_1 = await catalog.project("1")
    gone = await catalog.create_branch("1", "gone")
    await project.engine.delete_branch("1", gone.id)
    with pytest.raises(UserError, match=f'Branch "{gone.id}" not found in project 1.'):
        await job_branch(catalog, storage, project_1, gone.id)
    assert project.seen == []


async def test_what_a_storage_keeps_for_a_branch_goes_with_it(
    project: Project, clock: MockClock
) -> None:
    catalog, tables = project.engine.catalog, project.engine.storage.tables
    branch = await catalog.create_branch("1", "Mine")
    here = replace(SCOPE, branch=branch.id)
    await tables.create_bucket(here, "in", "b")
    await catalog.put_vault_variable("1", "v", "mine", is_encrypted=False, branch=branch.id)
    assert len(await catalog.vault_variables("1", branch=branch.id)) == 1

    await project.engine.delete_branch("1", branch.id)

    assert await tables.list_buckets(here) == []
    assert await catalog.vault_variables("1", branch=branch.id) == []


async def test_a_storage_that_cannot_keep_branches_apart_is_an_operators_error(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    class Shared(LocalStorage):
        keeps_branches_apart = False

    @hookimpl
    def vaka_mapping_backend(url: str) -> MappingBackend:
        return Shared(Path(url.removeprefix("local://")))

    async with make_engine(SimpleNamespace(vaka_mapping_backend=vaka_mapping_backend)) as engine:
        apart = await engine.catalog.create_project("apart", features=["storage-branches"])
        job = await engine.submit(JobSpec(image="x:1", project=apart.id))
        outcome = await job.wait()
    assert outcome.error == "application"
    assert host.containers == []
