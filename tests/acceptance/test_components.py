"""What real components get and leave: a shell, and the published component library in Python."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.images import Images
from tests.acceptance.projects import Project, open_project

from vaka import Status
from vaka.models.storage import StorageScope, TableLoad

pytestmark = pytest.mark.docker


@pytest.fixture
async def project(
    docker_host: str, images: Images, demo_images: Mapping[str, str], tmp_path: Path
) -> AsyncIterator[Project]:
    library = demo_images["demo-delays"]
    async with open_project(docker_host, images, library, tmp_path / "home") as project:
        yield project


AWKWARD = "123 ščř =-'\"321 $HOME `id` \\n %s"


@pytest.mark.scenario("runner", 112)
@pytest.mark.scenario("runner", 119)
@pytest.mark.scenario("runner", 129)
async def test_a_value_of_the_environment_arrives_as_it_is(project: Project) -> None:
    image = project.images.script('printf "%s\\n" "$KBC_TOKENDESC"')
    await project.component("shell", image, forward_token_details=True)
    outcome, lines = await project.run("shell", token_description=AWKWARD)
    assert outcome.status is Status.SUCCESS, outcome
    assert [line.message for line in lines] == [AWKWARD]


@pytest.mark.scenario("runner", 129)
async def test_no_container_is_left_of_a_job_that_fails_or_takes_too_long(project: Project) -> None:
    await project.component("fails", project.images.script("echo no >&2; exit 1"))
    await project.component("late", project.images.script("sleep 600"), process_timeout=1)
    failed, _ = await project.run("fails")
    late, _ = await project.run("late")
    assert (failed.message, late.error) == ("no", "user")
    assert "exceeded the timeout of 1 seconds" in late.message
    assert project.images.containers(project.instance) == []


@pytest.mark.scenario("mapping", 254)
async def test_the_library_logs_by_its_standard_logging(project: Project) -> None:
    await project.python(
        "lib.logs",
        """
        import logging
        from keboola.component import CommonInterface

        CommonInterface()
        logging.info("Fine so far.")
        logging.warning("Something is odd.")
        """,
    )
    outcome, lines = await project.run("lib.logs")
    assert outcome.status is Status.SUCCESS, outcome
    by_stream = {line.stream: line.message for line in lines}
    assert "Fine so far." in by_stream["stdout"]
    assert "Something is odd." in by_stream["stderr"]
    assert len(lines) == 2


WRITES_A_TABLE = """
import csv
from keboola.component import CommonInterface

component = CommonInterface()
table = component.create_out_table_definition(
    "people.csv",
    destination="in.c-library.people",
    schema=["id", "name"],
    primary_key=["id"],
    has_header=True,
)
table.table_metadata.add_table_description("People")
with open(table.full_path, "w", newline="") as file:
    csv.writer(file).writerows([["id", "name"], ["1", "Anna"]])
component.write_manifest(table)
print(open(table.full_path + ".manifest").read().replace(chr(10), " "))
"""


@pytest.mark.scenario("mapping", 255)
async def test_a_manifest_of_the_library_is_taken(project: Project) -> None:
    await project.python("lib.table", WRITES_A_TABLE)
    outcome, lines = await project.run("lib.table")
    assert outcome.status is Status.SUCCESS, outcome
    # the library warns on the other stream, and which of two streams comes first is not said
    (printed,) = (line.message for line in lines if line.stream == "stdout")
    manifest = json.loads(printed)
    assert "manifest_type" not in manifest
    assert "schema" not in manifest
    assert manifest["primary_key"] == ["id"]
    assert await project.columns("in.c-library.people") == ("id", "name")
    table = await project.engine.storage.tables.table(
        StorageScope(project.id), "in.c-library.people"
    )
    assert table.primary_key == ("id",)
    assert "People" in {entry.value for entry in table.metadata}


@pytest.mark.scenario("mapping", 256)
async def test_a_manifest_with_types_of_the_library_is_taken(project: Project) -> None:
    made = await project.engine.catalog.create_project("typed", features=["new-native-types"])
    project.id = made.id
    await project.python("lib.typed", WRITES_A_TABLE, types="authoritative")
    outcome, lines = await project.run("lib.typed")
    assert outcome.status is Status.SUCCESS, outcome
    # the library warns on the other stream, and which of two streams comes first is not said
    (printed,) = (line.message for line in lines if line.stream == "stdout")
    manifest = json.loads(printed)
    assert manifest["manifest_type"] == "out"
    assert manifest["has_header"] is True
    assert [column["name"] for column in manifest["schema"]] == ["id", "name"]
    assert manifest["table_metadata"] == {"KBC.description": "People"}
    assert await project.columns("in.c-library.people") == ("id", "name")


LISTS_TABLES = """
from pathlib import Path
from keboola.component import CommonInterface

component = CommonInterface()
tables = component.get_input_tables_definitions()
print("tables:", *sorted(Path(table.full_path).name for table in tables))
folder = Path(component.tables_in_path)
print("folders:", *sorted(path.name for path in folder.iterdir() if path.is_dir()))
print("bare:", *sorted(
    path.name
    for path in folder.iterdir()
    if not path.name.endswith(".manifest") and not Path(f"{path}.manifest").exists()
))
"""


@pytest.mark.scenario("mapping", 257)
async def test_the_library_finds_every_table_that_is_staged(
    project: Project, tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    path.write_text('"id"\n"1"\n')
    load = TableLoad("in.c-main.t", (path,))
    await project.engine.storage.tables.load(StorageScope(project.id), [load])
    await project.python("lib.lists", LISTS_TABLES)
    await project.component(
        "p.folder",
        project.images.script("cp -r /data/in/tables /data/out; mkdir /data/out/tables/no-table"),
    )
    sources = [
        {"source": "in.c-main.t", "destination": "plain.csv"},
        {"source": "in.c-main.t", "destination": "sliced", "file_type": "parquet"},
    ]
    document: dict[str, Any] = {"storage": {"input": {"tables": sources}}}

    async def listed() -> list[str]:
        outcome, lines = await project.run("lib.lists", config_data=document)
        assert outcome.status is Status.SUCCESS, outcome
        return [line.message for line in lines if line.stream == "stdout"]

    assert await listed() == ["tables: plain.csv sliced", "folders: sliced", "bare:"]
    # a folder that somebody else made, without a manifest, is no table
    document["processors"] = {"before": [{"definition": {"component": "p.folder"}}]}
    assert await listed() == [
        "tables: plain.csv sliced",
        "folders: no-table sliced",
        "bare: no-table",
    ]
