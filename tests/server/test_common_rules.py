"""What all of Storage keeps to, whoever asks: the index, paths, rights, and what its jobs leave."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from tests.server.conftest import IMAGE, Site

from vaka.models.container import ContainerSpec
from vaka.models.storage import StorageScope
from vaka.testing import FakeImage, Script
from vaka.testing.runtime import host_path

REDUCED = {
    "id",
    "type",
    "name",
    "ico64",
    "ico128",
    "features",
    "flags",
    "description",
    "categories",
}


@pytest.mark.scenario("storage-api", 1)
@pytest.mark.scenario("storage-api", 2)
@pytest.mark.parametrize(("path", "token"), [("/v2/storage", None), ("/v2/storage/", "bogus")])
async def test_the_index_tells_anybody_what_there_is(
    site: Site, path: str, token: str | None
) -> None:
    index = await site.get(path, token=token)

    assert (index["api"], index["version"]) == ("storage", "v2")
    assert {"components", "services", "features"} <= set(index)


@pytest.mark.scenario("storage-api", 3)
async def test_the_index_leaves_out_what_is_not_wanted(site: Site) -> None:
    without = await site.get("/v2/storage?exclude=components")
    short = await site.get("/v2/storage?exclude=componentDetails")

    assert "components" not in without
    assert {key for component in short["components"] for key in component} <= REDUCED
    assert "C" in {component["id"] for component in short["components"]}


@pytest.mark.scenario("storage-api", 4)
async def test_every_service_of_the_index_is_there(site: Site) -> None:
    services = {each["id"]: each["url"] for each in (await site.get("/v2/storage"))["services"]}

    for url in services.values():
        answer = await site.ask("GET", urlsplit(url).path or "/", token=None)
        assert answer.status < 500, (url, answer)
    queue = await site.ask("GET", f"{urlsplit(services['queue']).path}/jobs/1", token=None)
    assert (queue.status, queue.value["code"]) == (401, 401)


@pytest.mark.scenario("storage-api", 8)
@pytest.mark.parametrize(
    "path",
    [
        *("/v2/storage", "/v2/storage/tokens/verify", "/v2/storage/buckets", "/v2/storage/files"),
        *("/v2/storage/dev-branches", "/v2/storage/triggers", "/v2/storage/components"),
        *("/v2/storage/branch/default/tables", "/v2/storage/not-there", "/queue/search/jobs"),
    ],
)
async def test_a_slash_at_the_end_changes_nothing(site: Site, path: str) -> None:
    without, with_slash = await site.ask("GET", path), await site.ask("GET", f"{path}/")

    assert without.status == with_slash.status
    assert without.status in {200, 404}
    for answer in (without, with_slash):
        if isinstance(answer.value, dict):
            answer.value.pop("exceptionId", None)
    assert without.value == with_slash.value


@pytest.mark.scenario("storage-api", 15)
async def test_a_token_that_may_read_a_bucket_reads_it_and_nothing_else(site: Site) -> None:
    for name in ("a", "b"):
        body = {"name": name, "stage": "in"}
        assert (await site.ask("POST", "/v2/storage/buckets", body)).status == 201
        await site.engine.storage.tables.create_table(StorageScope("1"), f"in.c-{name}.t", ["id"])
    made = await site.ask(
        "POST",
        "/v2/storage/tokens",
        data=urlencode({"description": "reader", "bucketPermissions[in.c-a]": "read"}).encode(),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert made.status == 201, made
    reader = made.value["token"]

    tables = await site.get("/v2/storage/buckets/in.c-a/tables", token=reader)
    preview = await site.get("/v2/storage/tables/in.c-a.t/data-preview", token=reader)
    refused = [
        await site.ask("POST", "/v2/storage/tables/in.c-a.t/import-async", {}, token=reader),
        await site.ask("GET", "/v2/storage/buckets/in.c-b", token=reader),
        await site.ask("GET", "/v2/storage/tables/in.c-b.t/data-preview", token=reader),
    ]

    assert [table["id"] for table in tables] == ["in.c-a.t"]
    assert preview == b'"id"\n'
    assert [(each.status, each.value["code"]) for each in refused] == [(403, "accessDenied")] * 3


# -- what a job of the queue does -------------------------------------------------------------------


def plays(site: Site, effect: Callable[[ContainerSpec], object]) -> None:
    """Let the component do this."""
    site.host.images[IMAGE] = FakeImage(Script(effect=effect))


async def ended(site: Site, **body: Any) -> Any:
    """A job of the newer queue, once it has ended."""
    made = await site.ask("POST", "/queue/jobs", {"component": "C", **body})
    assert made.status == 201, made
    await (await site.engine.job(int(made.value["id"]))).wait()
    return await site.get(f"/queue/jobs/{made.value['id']}")


@pytest.mark.scenario("storage-api", 115)
async def test_tables_of_a_job_say_who_has_made_them(site: Site) -> None:
    plays(site, lambda spec: (host_path(spec, "/data/out/tables") / "t.csv").write_text("id\n1\n"))
    mapping = {"output": {"tables": [{"source": "t.csv", "destination": "out.c-made.t"}]}}
    body = {"name": "X", "configurationId": "X", "configuration": {"storage": mapping}}
    assert (await site.ask("POST", "/v2/storage/components/C/configs", body)).status == 201

    job = await ended(site, config="X")

    assert job["status"] == "success", job
    table = await site.get("/v2/storage/tables/out.c-made.t")
    said = {
        each["key"]: each["value"] for each in table["metadata"] if each["provider"] == "system"
    }
    assert said["KBC.createdBy.component.id"] == "C"
    assert said["KBC.createdBy.configuration.id"] == "X"


@pytest.mark.scenario("storage-api", 120)
async def test_a_component_sees_its_own_secrets_and_no_others(site: Site) -> None:
    seen: list[str] = []

    def read(spec: ContainerSpec) -> None:
        document = json.loads((host_path(spec, "/data") / "config.json").read_text())
        seen.append(document["parameters"]["#password"])

    async def encrypted(component: str, project: str) -> str:
        query = urlencode({"componentId": component, "projectId": project})
        answer = await site.ask(
            "POST",
            f"/encryption/encrypt?{query}",
            token=None,
            data=b"hunter2",
            headers={"Content-Type": "text/plain"},
        )
        assert answer.status == 200, answer
        return str(answer.value.decode())

    plays(site, read)
    jobs = [
        await ended(site, configData={"parameters": {"#password": await encrypted(*scope)}})
        for scope in (("C", "1"), ("D", "1"), ("C", "2"))
    ]

    assert seen == ["hunter2"]
    assert [job["status"] for job in jobs] == ["success", "error", "error"]
    for job in jobs[1:]:
        message = job["result"]["message"]
        assert message.startswith("Encryption error: Invalid cipher text for key #password Value ")
        assert "hunter2" not in message
