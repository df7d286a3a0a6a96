"""Variables of a job, from the request's body to the container."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.server.conftest import IMAGE, Site

from vaka.models.container import ContainerSpec
from vaka.testing import FakeImage, Script, host_path


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
