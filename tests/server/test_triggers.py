"""Triggers over HTTP, and what sets them off, on a real engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import trio
from tests.server.conftest import IMAGE, Site

from vaka.models.container import ContainerSpec
from vaka.models.job import JobQuery
from vaka.models.operation import NewOperation, OperationStatus
from vaka.models.storage import FileUpload, StorageScope
from vaka.store import JobStore
from vaka.testing import FakeImage, Script, host_path
from vaka_server import schemas

TRIGGERS = "/v2/storage/triggers"
TABLE = "in.c-main.users"
SCOPE = StorageScope("1")
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def body(site: Site, **changes: Any) -> dict[str, Any]:
    token = await site.get("/v2/storage/tokens/verify")
    return {
        "component": "C",
        "configurationId": "X",
        "tableIds": [TABLE],
        "coolDownPeriodMinutes": 5,
        "runWithTokenId": token["id"],
        **changes,
    }


async def create(site: Site, **changes: Any) -> Any:
    answer = await site.ask("POST", TRIGGERS, await body(site, **changes))
    assert answer.status == 201, answer
    schemas.Trigger.model_validate(answer.value)
    return answer.value


async def test_a_trigger_is_made_shown_changed_and_deleted(site: Site) -> None:
    sent = await body(site)
    made = await create(site)

    assert list(made) == [
        *("id", "runWithTokenId", "component", "configurationId", "lastRun"),
        *("coolDownPeriodMinutes", "creatorToken", "tables"),
    ]
    assert isinstance(made["id"], str)
    assert made["runWithTokenId"] == int(sent["runWithTokenId"])
    assert made["creatorToken"]["description"] == "the admin"
    assert made["tables"] == [{"tableId": TABLE}]
    assert await site.get(f"{TRIGGERS}/{made['id']}/") == made
    assert await site.get(TRIGGERS) == [made]
    assert await site.get(f"{TRIGGERS}?component=D") == []
    assert await site.get(f"{TRIGGERS}?component=C&configurationId=X") == [made]
    assert await site.get(TRIGGERS, token="other") == []

    form = urlencode([("tableIds", "in.c-a.b"), ("tableIds", "in.c-a.c")])
    path = f"{TRIGGERS}/{made['id']}"
    changed = await site.ask("PUT", path, data=form.encode(), headers=FORM)
    tables = [{"tableId": "in.c-a.b"}, {"tableId": "in.c-a.c"}]
    assert (changed.status, changed.value) == (200, {**made, "tables": tables})
    changed = await site.ask("PUT", path, data=b"coolDownPeriodMinutes=100", headers=FORM)
    assert changed.value == {**made, "tables": tables, "coolDownPeriodMinutes": 100}

    assert (await site.ask("DELETE", path, token="other")).status == 404
    assert (await site.ask("DELETE", path)).status == 204
    gone = await site.ask("GET", path)
    assert (gone.status, gone.value["code"]) == (404, "storage.triggers.notFound")
    assert (await site.ask("PUT", path, {"coolDownPeriodMinutes": 1})).status == 404
    assert (await site.ask("DELETE", path)).status == 404


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"coolDownPeriodMinutes": 0}, "Minimal cool down period is 1 minute"),
        ({"coolDownPeriodMinutes": None}, "Minimal cool down period is 1 minute"),
        ({"coolDownPeriodMinutes": "soon"}, "coolDownPeriodMinutes: must be a whole number"),
        ({"tableIds": []}, "tableIds: must be a list"),
        ({"tableIds": [""]}, "tableIds: each must be the id"),
        ({"component": ""}, "component: is required"),
        ({"configurationId": None}, "configurationId: is required"),
        ({"runWithTokenId": "4711"}, "runWithTokenId: the project has no token 4711."),
    ],
)
async def test_a_trigger_that_cannot_be_is_refused(
    site: Site, changes: dict[str, Any], words: str
) -> None:
    answer = await site.ask("POST", TRIGGERS, await body(site, **changes))

    assert answer.status == 400
    assert answer.value["error"].startswith(words)
    assert await site.get(TRIGGERS) == []


async def test_a_token_that_a_trigger_uses_stays(site: Site) -> None:
    run = await site.get("/v2/storage/tokens/verify", token="run")
    made = await create(site, runWithTokenId=run["id"])
    path = f"/v2/storage/tokens/{run['id']}"

    refused = await site.ask("DELETE", path)

    assert refused.status == 400
    assert (
        refused.value["error"] == f"The token is used by trigger {made['id']}; delete that first."
    )
    assert (await site.ask("DELETE", f"{TRIGGERS}/{made['id']}")).status == 204
    assert (await site.ask("DELETE", path)).status == 204


async def test_who_only_reads_makes_no_triggers(site: Site) -> None:
    answer = await site.ask("POST", TRIGGERS, await body(site), token="read")

    assert answer.status == 403


# -- what sets them off ----------------------------------------------------------------------------


class World:
    """A watched table, and a configuration that a trigger runs."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site = site
        self._file = folder / "users.csv"

    async def load(self, kind: str = "tableImport") -> OperationStatus:
        self._file.write_text("id,name\n1,a\n")
        file = await self.site.engine.storage.files.upload(SCOPE, FileUpload("f"), self._file)
        params = {"source": {"type": "file", "fileId": file.id}, "params": {}}
        new = NewOperation("1", kind, params, table_id=TABLE)
        submitted = await self.site.engine.operations.submit(new)
        return (await self.site.engine.operations.wait(submitted.id)).status

    async def jobs(self) -> list[Any]:
        """Jobs of the configuration, oldest first; all of them have ended."""
        records = await self.site.engine.jobs(JobQuery("1", config="X", descending=False))
        for record in records:
            await (await self.site.engine.job(record.id)).wait()
        return [await self.site.job(record.id) for record in records]


@pytest.fixture
async def world(site: Site, tmp_path: Path) -> World:
    configs = "/v2/storage/components/C/configs"
    answer = await site.ask("POST", configs, {"name": "X", "configurationId": "X"})
    assert answer.status == 201, answer
    await site.engine.storage.tables.create_bucket(SCOPE, "in", "main")
    return World(site, tmp_path)


@pytest.mark.scenario("storage-api", 116)
async def test_imports_start_one_job_within_the_cool_down(world: World) -> None:
    site = world.site
    await world.load("tableCreate")
    made = await create(
        site, runWithTokenId=(await site.get("/v2/storage/tokens/verify", token="run"))["id"]
    )
    await create(site, tableIds=["in.c-main.other"])
    assert await world.jobs() == []

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(world.load)

    (job,) = await world.jobs()
    assert job["status"] == "success"
    assert job["token"]["description"] == "the run"
    assert (job["params"]["component"], job["params"]["config"]) == ("C", "X")
    after = await site.get(f"{TRIGGERS}/{made['id']}")
    assert after["lastRun"] >= made["lastRun"]
    await world.load()
    assert len(await world.jobs()) == 1


async def test_a_failed_import_starts_nothing(world: World) -> None:
    await create(world.site)

    assert await world.load() is OperationStatus.ERROR  # there is no such table

    assert await world.jobs() == []


async def test_a_new_table_starts_a_job(world: World) -> None:
    await create(world.site)

    assert await world.load("tableCreate") is OperationStatus.SUCCESS

    assert len(await world.jobs()) == 1


async def test_a_table_that_a_job_writes_starts_a_job(world: World) -> None:
    def write(spec: ContainerSpec) -> None:
        (host_path(spec, "/data/out/tables") / "users.csv").write_text("id,name\n1,a\n")

    site = world.site
    await create(site)
    site.host.images[IMAGE] = FakeImage(Script(effect=write))
    mapping = {"output": {"tables": [{"source": "users.csv", "destination": TABLE}]}}
    data = {"storage": mapping}

    writer = await site.finished(await site.run({"configData": data}))

    assert writer["status"] == "success", writer
    assert len(await world.jobs()) == 1


async def test_a_trigger_whose_token_is_gone_starts_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    catalog = world.site.engine.catalog
    run = await world.site.get("/v2/storage/tokens/verify", token="run")
    await create(world.site, runWithTokenId=run["id"])
    await catalog.revoke_token("1", run["id"])

    assert await world.load("tableCreate") is OperationStatus.SUCCESS

    assert await world.jobs() == []
    assert "trigger.failed" in [record.getMessage() for record in caplog.records]


async def test_a_server_that_dies_before_it_notes_a_run_starts_no_second_job(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*_: Any) -> None:
        """What comes after it is as if it had never been called."""

    await create(world.site)
    with monkeypatch.context() as patch:
        patch.setattr(JobStore, "mark_trigger", die)
        await world.load("tableCreate")
    await world.load()

    assert len(await world.jobs()) == 1
