"""`/sync-actions`: synchronous actions as the newer clients call them (storage-api.md section 15)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.server.conftest import COMPONENT, IMAGE, Answer, Site

from vaka.testing import FakeImage, Printed, Script

ACTIONS = "/sync-actions/actions"


async def declare(site: Site, *actions: str) -> None:
    """Let the component `C` have these actions."""
    data = {**COMPONENT["data"], "synchronous_actions": list(actions)}
    await site.engine.catalog.put_component({**COMPONENT, "data": data})
    site.app.gate.components_changed()


async def act(site: Site, script: Script | None = None, **body: Any) -> Answer:
    """Call the action `look` of `C`, whose container does what `script` says."""
    site.host.images[IMAGE] = FakeImage(script or Script((Printed(b"{}"),)))
    sent = {"componentId": "C", "action": "look", "configData": {}, **body}
    return await site.ask("POST", ACTIONS, {k: v for k, v in sent.items() if v is not None})


def refused(answer: Answer, status: int = 400) -> str:
    """The message of a refusal; its code is the status."""
    assert (answer.status, answer.value["status"]) == (status, "error"), answer
    assert answer.value["code"] == status
    assert answer.value["exceptionId"]
    return str(answer.value["error"])


@pytest.mark.parametrize(
    "text", ['{"tables":[1,{}],"component":{"a":{}},"é":""}', "[]", "{}", '[{"a":null}]']
)
async def test_the_answer_is_what_the_action_prints(site: Site, text: str) -> None:
    await declare(site, "look")

    answer = await act(site, Script((Printed(text.encode()),)), branchId="default", tag="1")

    assert (answer.status, answer.value) == (200, json.loads(text))
    assert list((await site.get(f"{ACTIONS}?componentId=C"))["actions"]) == ["look"]


async def test_a_branch_is_told_and_must_be_there(site: Site) -> None:
    await declare(site, "look")
    made = await site.engine.catalog.create_branch("1", "mine")

    assert (await act(site, branchId=made.id)).status == 200
    assert site.host.created[-1].environment["KBC_BRANCHID"] == made.id
    for default in [each.id for each in await site.engine.catalog.branches("1") if each.is_default]:
        assert (await act(site, branchId=default)).status == 200
        assert "KBC_BRANCHID" not in site.host.created[-1].environment
    assert refused(await act(site, branchId="987654"), 404) == "Branch not found"


async def test_who_asks_for_what_is_not_there_is_told(site: Site) -> None:
    await declare(site, "look")

    assert refused(await act(site, action="x")) == 'Action "x" not defined for component "C"'
    assert refused(await act(site, componentId="X"), 404) == 'Component "X" not found'
    assert refused(await act(site, componentId=None)).startswith("componentId: ")
    assert refused(await act(site, action=None)).startswith("action: ")
    assert refused(await act(site, configData=None)).startswith("Attribute 'configData'")
    assert refused(await site.ask("GET", ACTIONS)).startswith("componentId: ")
    assert refused(await site.ask("GET", f"{ACTIONS}?componentId=X"), 404)
    assert refused(await site.ask("POST", ACTIONS, data=b"no json"))
    assert (
        refused(await site.ask("POST", ACTIONS, {}, token="wrong"), 401) == "Invalid access token"
    )
    assert refused(await site.ask("POST", ACTIONS, {}, token=None), 401)
    assert refused(await site.ask("POST", ACTIONS, {}, token="read"), 403)
    assert site.host.created == []


async def test_a_failure_of_the_action_is_the_users_and_a_crash_is_not(site: Site) -> None:
    await declare(site, "look")

    def failing(code: int) -> Script:
        return Script((Printed(b"bad credentials", stream="stderr"),), exit_code=code)

    assert refused(await act(site, failing(1))) == "bad credentials"
    assert "bad credentials" not in refused(await act(site, failing(2)), 500)
