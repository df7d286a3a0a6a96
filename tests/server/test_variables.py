"""Variables of a job, from the request's body to the container."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.server.conftest import IMAGE, Site

from vaka.models.container import ContainerSpec
from vaka.testing import FakeImage, Script, host_path
from vaka_server.schemas import VaultVariable


def values(**given: Any) -> dict[str, Any]:
    return {"values": [{"name": name, "value": value} for name, value in given.items()]}


@pytest.mark.scenario("runner", 218)
@pytest.mark.scenario("runner", 219)
async def test_a_request_brings_values_or_names_them(site: Site) -> None:
    seen: list[Any] = []

    def read(spec: ContainerSpec) -> None:
        seen.append(json.loads(host_path(spec, "/data/config.json").read_text()))

    site.host.images[IMAGE] = FakeImage(Script(effect=read))
    variables = "/v2/storage/components/keboola.variables/configs"
    declared = {"variables": [{"name": "foo", "type": "string"}]}
    for path, body in (
        (variables, {"configurationId": "v", "name": "V", "configuration": declared}),
        (
            f"{variables}/v/rows",
            {"rowId": "a", "name": "A", "configuration": values(foo='by "id"')},
        ),
        (
            "/v2/storage/components/C/configs",
            {
                "configurationId": "c",
                "name": "c",
                "configuration": {"parameters": {"a": "{{ foo }}"}, "variables_id": "v"},
            },
        ),
    ):
        assert (await site.ask("POST", path, body)).status == 201, path

    jobs = [
        await site.finished(await site.run({"config": "c", **given}))
        for given in (
            {"variableValuesId": "a"},
            {"variableValuesData": values(foo="inline")},
            {"variableValuesId": "0", "variableValuesData": {}},
            {"variableValuesId": "a", "variableValuesData": values(foo="inline")},
        )
    ]

    assert [job["status"] for job in jobs] == ["success", "success", "error", "error"]
    assert [document["parameters"]["a"] for document in seen] == ['by "id"', "inline"]
    assert jobs[0]["params"]["variableValuesId"] == "a"
    assert jobs[1]["params"]["variableValuesData"] == values(foo="inline")
    assert jobs[0]["result"]["variables"] == [{"name": "foo", "value": 'by "id"'}]
    assert [(job["error"], job["result"]["message"]) for job in jobs[2:]] == [
        (
            "user",
            'No variable values provided for configuration "c", row "", referencing variables "v".',
        ),
        ("user", "Only one of variables_id and variableValuesId can be entered"),
    ]


# -- the vault and credentials ---------------------------------------------------------------------


@pytest.mark.scenario("runner", 228)
async def test_the_vault_is_kept_and_used(site: Site) -> None:
    made = await site.ask("PUT", "/vaka/vault/x", {"value": "from the vault"})
    assert made.status == 200
    assert VaultVariable.model_validate(made.value).value == "from the vault"
    await site.ask("PUT", "/vaka/vault/x", {"value": 5, "branch": "7"})
    assert [each["value"] for each in await site.get("/vaka/vault?branch=7", token="read")] == ["5"]

    ran = await site.finished(await site.run({"configData": {"parameters": "{{ vault.x }}"}}))

    assert ran["result"]["variables"] == [{"name": "vault.x", "value": "from the vault"}]
    for body in ({}, {"value": None}, {"value": True}, {"value": ["a"]}):
        assert (await site.ask("PUT", "/vaka/vault/y", body)).status == 400
    assert (await site.ask("PUT", "/vaka/vault/x", {"value": "1"}, token="run")).status == 403
    assert (await site.ask("DELETE", "/vaka/vault/x")).status == 204
    assert (await site.ask("DELETE", "/vaka/vault/x")).status == 404
    assert await site.get("/vaka/vault") == []
    assert await site.get("/vaka/vault", token="other") == []


async def test_credentials_are_kept_as_they_came(site: Site) -> None:
    path = "/vaka/oauth/C/main"
    assert (await site.ask("GET", path)).status == 404
    cipher = {"id": "main", "#data": "KBC::ProjectSecure::x"}
    assert (await site.ask("PUT", path, cipher, token="run")).status == 403
    assert (await site.ask("PUT", path, cipher)).status == 204
    assert await site.get(path) == cipher
    assert (await site.ask("GET", path, token="other")).status == 404
    assert (await site.ask("DELETE", path)).status == 204
    assert (await site.ask("DELETE", path)).status == 404
