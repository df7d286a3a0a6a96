"""Configurations over HTTP: versions, rows, trash, metadata, branches, search, workspaces."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from tests.server.conftest import COMPONENT, Site

from vaka.models.catalog import Role
from vaka_local.jsontext import from_text, to_text
from vaka_server import schemas
from vaka_server.body import parse_object
from vaka_server.documents import plain_json
from vaka_server.fields import Fields, parse_form
from vaka_server.schemas import Schema

CONFIGS = "/v2/storage/components/C/configs"
CONFIG = f"{CONFIGS}/c"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def fits(schema: type[Schema], value: Any) -> None:
    for each in value if isinstance(value, list) else [value]:
        schema.model_validate(each)


def code(answer: Any) -> tuple[int, str]:
    return answer.status, answer.value["code"]


async def done(site: Site, method: str, path: str, body: Any = None, **options: Any) -> Any:
    """The answer's document; fails unless it is one of success."""
    answer = await site.ask(method, path, body, **options)
    assert answer.status in {200, 201, 204}, answer
    return answer.value


async def make(site: Site, config_id: str = "c", **members: Any) -> Any:
    body = {"name": config_id, "configurationId": config_id, **members}
    return await done(site, "POST", CONFIGS, body)


# -- components ------------------------------------------------------------------------------------


async def test_components_are_those_with_configurations(site: Site) -> None:
    assert await site.get("/v2/storage/components") == []
    await make(site, configuration={"a": 1}, state={"s": 1})
    await done(site, "POST", f"{CONFIG}/rows", {"rowId": "r"})

    for path in ("/v2/storage/components", "/v2/storage/branch/default/components"):
        (component,) = await site.get(path)
        fits(schemas.Component, component)
        assert {"id", "name", "type", "uri"} <= set(component)
        (config,) = component["configurations"]
        assert config["id"] == "c"
        assert not {"configuration", "rows", "state"} & set(config)
    (component,) = await site.get("/v2/storage/components?include=configuration,rows,state")
    (config,) = component["configurations"]
    fits(schemas.Configuration, config)
    assert (config["configuration"], config["state"]) == ({"a": 1}, {"s": 1})
    assert [row["id"] for row in config["rows"]] == ["r"]
    assert await site.get("/v2/storage/components?componentType=writer") == []
    assert len(await site.get("/v2/storage/components?componentType=application")) == 1
    assert await site.get("/v2/storage/components?isDeleted=true") == []
    await done(site, "DELETE", CONFIG)
    assert await site.get("/v2/storage/components") == []
    (component,) = await site.get("/v2/storage/components?isDeleted=true")
    assert component["configurations"][0]["isDeleted"] is True


async def test_a_configuration_comes_and_goes(site: Site) -> None:
    made = await make(site)
    fits(schemas.Configuration, made)
    assert await site.get(CONFIG) == made
    assert (await site.ask("DELETE", CONFIG)).status == 204
    assert code(await site.ask("GET", CONFIG)) == (404, "storage.configuration.notFound")
    for method in ("GET", "POST"):
        missing = await site.ask(method, "/v2/storage/components/none/configs", {"name": "x"})
        assert code(missing) == (404, "storage.components.notFound")
        assert missing.value["error"] == "Component none not found"


async def test_an_id_is_taken_until_it_is_deleted(site: Site) -> None:
    await make(site)
    await done(site, "POST", f"{CONFIG}/rows", {"rowId": "r"})
    again = await site.ask("POST", CONFIGS, {"name": "x", "configurationId": "c"})
    assert code(again) == (400, "configurationAlreadyExists")
    await done(site, "DELETE", CONFIG)

    revived = await make(site)

    assert (revived["version"], revived["rows"], revived["isDeleted"]) == (4, [], False)


@pytest.mark.scenario("storage-api", 97)
async def test_the_trash_is_emptied_or_gives_back(site: Site) -> None:
    await make(site, configuration={"a": []})
    await done(site, "DELETE", CONFIG)
    (thrown,) = await site.get(f"{CONFIGS}?isDeleted=true")
    assert (thrown["isDeleted"], thrown["version"]) == (True, 2)
    assert thrown["changeDescription"] == "Configuration deleted"
    assert await site.get(CONFIGS) == []

    restored = await site.ask("POST", f"{CONFIG}/restore")
    assert restored.status == 201
    fits(schemas.Configuration, restored.value)
    assert (restored.value["version"], restored.value["isDeleted"]) == (3, False)
    assert restored.value["changeDescription"] == "Configuration restored"
    assert restored.value["configuration"] == {"a": []}

    await done(site, "DELETE", CONFIG)
    await done(site, "DELETE", CONFIG)
    assert await site.get(f"{CONFIGS}?isDeleted=true") == []
    for method, path in (("DELETE", CONFIG), ("POST", f"{CONFIG}/restore")):
        assert code(await site.ask(method, path)) == (404, "storage.configuration.notFound")


async def test_only_a_token_that_may_purges(site: Site) -> None:
    await make(site)
    _, limited = await site.engine.catalog.create_token(
        "1", "limited", Role.ADMIN, component_access=["C"], can_purge_trash=False
    )
    assert (await site.ask("DELETE", CONFIG, token=limited)).status == 204
    assert code(await site.ask("DELETE", CONFIG, token=limited)) == (403, "accessDenied")
    assert (await site.ask("DELETE", f"{CONFIGS}/none", token=limited)).status == 404
    assert len(await site.get(f"{CONFIGS}?isDeleted=1")) == 1


@pytest.mark.scenario("storage-api", 16)
async def test_a_token_sees_its_own_components_only(site: Site) -> None:
    await site.engine.catalog.put_component({**COMPONENT, "id": "D"})
    await make(site)
    await done(site, "POST", "/v2/storage/components/D/configs", {"name": "d"})
    _, limited = await site.engine.catalog.create_token(
        "1", "limited", Role.ADMIN, component_access=["D"]
    )
    seen = await site.get("/v2/storage/components", token=limited)
    assert [each["id"] for each in seen] == ["D"]
    for method, path in (
        ("POST", CONFIGS),
        ("GET", CONFIGS),
        ("PUT", CONFIG),
        ("POST", f"{CONFIG}/versions/1/create"),
        ("POST", f"{CONFIG}/rows"),
        ("GET", f"{CONFIG}/metadata"),
        ("GET", f"{CONFIG}/workspaces"),
    ):
        refused = await site.ask(method, path, {"name": "x"} if method != "GET" else None,
                                 token=limited)  # fmt: skip
        assert code(refused) == (403, "accessDenied"), path
    _, none = await site.engine.catalog.create_token("1", "none", Role.ADMIN, component_access=[])
    assert code(await site.ask("GET", "/v2/storage/components", token=none)) == (
        403,
        "accessDenied",
    )


# -- what is written -------------------------------------------------------------------------------


async def test_a_form_and_json_store_the_same_bytes(site: Site) -> None:
    value = {"z": {}, "a": [], "n": [[], {}, {"x": [{}]}], "i": 12345678901234567890, "f": 0.1}
    await make(site, "json", configuration=value)
    form = {"name": "form", "configurationId": "form", "configuration": json.dumps(value)}
    await done(site, "POST", CONFIGS, data=urlencode(form).encode(), headers=FORM)

    answers = [await site.ask("GET", f"{CONFIGS}/{each}") for each in ("json", "form")]

    texts = [json.dumps(answer.value["configuration"]) for answer in answers]
    assert texts[0] == texts[1] == json.dumps(value)
    for text in ("[]", "{}"):
        await done(
            site,
            "PUT",
            f"{CONFIGS}/form",
            data=urlencode({"configuration": text}).encode(),
            headers=FORM,
        )
        assert json.dumps((await site.get(f"{CONFIGS}/form"))["configuration"]) == text


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])), each, max_size=4
    ),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), _JSON, max_size=5))
def test_json_goes_through_a_request_and_its_answer_unchanged(value: Any) -> None:
    fields = Fields(parse_object(json.dumps({"configuration": value}).encode()))
    in_form = Fields(parse_form(urlencode({"configuration": json.dumps(value)}).encode()))
    for given_value in (fields.json("configuration"), in_form.json("configuration")):
        kept = from_text(to_text(given_value, "configuration"))
        assert json.dumps(json.loads(plain_json(kept))) == json.dumps(value)


@pytest.mark.scenario("storage-api", 99)
async def test_only_a_change_makes_a_version(site: Site) -> None:
    await make(site, configuration={"a": 1}, description="about")

    async def put(**body: Any) -> Any:
        return await done(site, "PUT", CONFIG, body)

    for same in ({}, {"state": {"s": 1}}, {"name": "c"}, {"configuration": {"a": 1}}):
        assert (await put(**same))["version"] == 1
    assert (await site.get(CONFIG))["state"] == {"s": 1}
    changed = await put(description="new", changeDescription="why")
    assert (changed["version"], changed["changeDescription"]) == (2, "why")
    assert (changed["name"], changed["configuration"]) == ("c", {"a": 1})
    emptied = await put(description="")
    assert (emptied["version"], emptied["description"]) == (3, "")
    disabled = await put(isDisabled="True")
    assert (disabled["version"], disabled["isDisabled"]) == (4, True)
    state = await done(site, "PUT", f"{CONFIG}/state", {"state": '{"t": []}'})
    assert (state["version"], state["state"]) == (4, {"t": []})
    assert state["currentVersion"]["changeDescription"] == "Configuration updated"


@pytest.mark.scenario("storage-api", 102)
async def test_what_is_no_configuration_is_refused(site: Site) -> None:
    missing = await site.ask("POST", CONFIGS, {"description": "x"})
    assert code(missing) == (400, "storage.components.validation")
    assert "name" in missing.value["error"]
    for name in ("configuration", "state"):
        for value in ("{broken", "1", 1, True):
            answer = await site.ask("POST", CONFIGS, {"name": "x", name: value})
            assert code(answer) == (400, "validation.invalidConfigurationFormat")
    assert await site.get(CONFIGS) == []


@pytest.mark.scenario("storage-api", 106)
async def test_changes_at_once_lose_no_version(site: Site) -> None:
    await make(site)
    statuses: list[int] = []

    async def change(number: int) -> None:
        body = {"configuration": {"n": number}}
        statuses.append((await site.ask("PUT", CONFIG, body)).status)

    async with trio.open_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(change, number)

    assert statuses == [200] * 12
    versions = await site.get(f"{CONFIG}/versions?include=configuration")
    assert [each["version"] for each in versions] == list(range(13, 0, -1))
    written = sorted(each["configuration"].get("n", -1) for each in versions)
    assert written == [-1, *range(12)]


# -- versions --------------------------------------------------------------------------------------


@pytest.mark.scenario("storage-api", 100)
async def test_versions_are_listed_taken_back_and_copied(site: Site) -> None:
    await make(site, configuration={"v": 1}, state={"s": 1})
    await done(site, "POST", f"{CONFIG}/rows", {"rowId": "r", "configuration": {"r": 1}})
    await done(site, "PUT", CONFIG, {"name": "new", "configuration": {"v": 2}})
    await done(site, "DELETE", f"{CONFIG}/rows/r")

    versions = await site.get(f"{CONFIG}/versions")
    fits(schemas.Version, versions)
    assert [each["version"] for each in versions] == [4, 3, 2, 1]
    assert [each["name"] for each in versions] == ["new", "new", "c", "c"]
    assert not {"configuration", "state"} & set(versions[0])
    page = await site.get(f"{CONFIG}/versions?limit=2&offset=1&include=name,configuration,state")
    assert [each["version"] for each in page] == [3, 2]
    assert (page[0]["configuration"], page[0]["state"]) == ({"v": 2}, {"s": 1})
    assert "description" not in page[0]
    assert (await site.ask("GET", f"{CONFIG}/versions?limit=x")).status == 400
    second = await site.get(f"{CONFIG}/versions/2")
    fits(schemas.VersionDetail, second)
    assert (second["configuration"], second["rows"][0]["configuration"]) == ({"v": 1}, {"r": 1})
    assert second["versionIdentifier"] == versions[2]["versionIdentifier"]
    for number in ("5", "0", "999999999999999999"):
        missing = await site.ask("GET", f"{CONFIG}/versions/{number}")
        assert code(missing) == (404, "storage.configuration.versionNotFound")

    back = await site.ask("POST", f"{CONFIG}/versions/2/rollback", {"changeDescription": "why"})
    assert (back.status, back.value) == (201, {"version": 5})
    now = await site.get(CONFIG)
    assert (now["name"], now["configuration"], now["state"]) == ("c", {"v": 1}, {"s": 1})
    assert ([row["id"] for row in now["rows"]], now["changeDescription"]) == (["r"], "why")

    copied = await site.ask(
        "POST", f"{CONFIG}/versions/3/create", {"name": "copy", "description": "of it"}
    )
    assert copied.status == 201
    copy = await site.get(f"{CONFIGS}/{copied.value['id']}")
    assert isinstance(copied.value["id"], str)
    assert (copy["name"], copy["description"], copy["version"]) == ("copy", "of it", 1)
    assert (copy["configuration"], copy["state"]) == ({"v": 2}, {})
    assert [row["configuration"] for row in copy["rows"]] == [{"r": 1}]
    assert (await site.ask("POST", f"{CONFIG}/versions/99/create")).status == 404


@pytest.mark.scenario("storage-api", 101)
async def test_rows_have_a_life_of_their_own(site: Site) -> None:
    await make(site)
    await make(site, "other")
    rows = f"{CONFIG}/rows"
    made = await done(
        site,
        "POST",
        rows,
        {"rowId": "r", "name": "row", "configuration": {"n": 1}, "state": {"s": 1}},
    )
    fits(schemas.Row, made)
    assert (made["version"], made["state"], made["changeDescription"]) == (
        1,
        {"s": 1},
        "Row r added",
    )
    generated = await done(site, "POST", rows)
    assert isinstance(generated["id"], str)
    assert (await site.get(CONFIG))["version"] == 3
    taken = await site.ask("POST", rows, {"rowId": "r"})
    assert taken.status == 400
    assert [each["id"] for each in await site.get(rows)] == ["r", generated["id"]]

    same = await done(site, "PUT", f"{rows}/r", {"configuration": {"n": 1}})
    assert same["version"] == 1
    changed = await done(site, "PUT", f"{rows}/r", {"configuration": '{"n": 2}'})
    assert (changed["version"], changed["configuration"]) == (2, {"n": 2})
    assert (await site.get(CONFIG))["version"] == 4
    state = await done(site, "PUT", f"{rows}/r/state", {"state": {"s": 2}})
    assert (state["version"], state["state"]) == (2, {"s": 2})

    versions = await site.get(f"{rows}/r/versions?include=configuration")
    fits(schemas.Version, versions)
    assert [(each["version"], each["configuration"]) for each in versions] == [
        (2, {"n": 2}),
        (1, {"n": 1}),
    ]
    assert (await site.get(f"{rows}/r/versions/1"))["name"] == "row"
    assert (await site.ask("GET", f"{rows}/r/versions/9")).status == 404
    back = await site.ask("POST", f"{rows}/r/versions/1/rollback")
    assert (back.status, back.value["version"], back.value["configuration"]) == (201, 3, {"n": 1})
    assert back.value["state"] == {"s": 2}
    copy = await site.ask("POST", f"{rows}/r/versions/2/create", {"targetConfigId": "other"})
    assert (copy.status, copy.value["configuration"]) == (201, {"n": 2})
    assert [row["id"] for row in (await site.get(f"{CONFIGS}/other"))["rows"]] == [copy.value["id"]]

    order = [generated["id"], "r"]
    sorted_ = await done(
        site, "PUT", CONFIG, data=urlencode([("rowsSortOrder[]", each) for each in order]).encode(),
        headers=FORM,
    )  # fmt: skip
    assert sorted_["rowsSortOrder"] == [row["id"] for row in sorted_["rows"]] == order
    deleted = await site.ask("DELETE", f"{rows}/r", {"changeDescription": "why"})
    assert deleted.status == 204
    now = await site.get(CONFIG)
    assert (now["version"], now["changeDescription"]) == (7, "why")
    for path in (f"{rows}/r", f"{rows}/r/versions", f"{rows}/r/state"):
        assert code(await site.ask("GET", path)) == (404, "storage.configuration.rowNotFound")


# -- metadata --------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["/v2/storage", "/v2/storage/branch/default"])
async def test_configurations_have_metadata(site: Site, prefix: str) -> None:
    await make(site)
    path = f"{prefix}/components/C/configs/c/metadata"
    assert await site.get(path) == []
    body = {"metadata": [{"key": "KBC.a", "value": "1"}, {"key": "b", "value": ""}]}
    made = await site.ask("POST", path, body)
    assert made.status == 201
    fits(schemas.Remark, made.value)
    assert [(each["key"], each["value"]) for each in made.value] == [("KBC.a", "1"), ("b", "")]
    form = urlencode({"metadata[0][key]": "KBC.a", "metadata[0][value]": "2"}).encode()
    again = await site.ask("POST", path, data=form, headers=FORM)
    assert [each["value"] for each in again.value] == ["2", ""]
    assert again.value[0]["id"] == made.value[0]["id"]
    assert await site.get(path) == again.value
    assert (await site.ask("DELETE", f"{path}/{made.value[0]['id']}")).status == 204
    assert [each["key"] for each in await site.get(path)] == ["b"]
    missing = await site.ask("DELETE", f"{path}/{made.value[0]['id']}")
    assert code(missing) == (404, "storage.metadata.notFound")
    assert missing.value["error"] == "The supplied metadata ID was not found"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, "invalidStructure"),
        ({"metadata": {"a": "b"}}, "invalidStructure"),
        ({"metadata": []}, "invalidStructure"),
        ({"metadata": ["x"]}, "invalidStructure"),
        ({"metadata": [{"key": "a"}]}, "invalidStructure"),
        ({"metadata": [{"key": "a", "value": []}]}, "invalidStructure"),
        ({"metadata": [{"key": "", "value": "x"}]}, "invalidKey"),
        ({"metadata": [{"key": "%25", "value": "x"}]}, "invalidKey"),
        ({"metadata": [{"key": "a+b", "value": "x"}]}, "invalidKey"),
        ({"metadata": [{"key": "k" * 256, "value": "x"}]}, "invalidKey"),
        ({"metadata": [{"key": 1, "value": "x"}]}, "invalidKey"),
    ],
)
async def test_metadata_that_cannot_be_is_refused(site: Site, body: Any, expected: str) -> None:
    path = "/v2/storage/branch/default/metadata"
    assert code(await site.ask("POST", path, body)) == (400, f"storage.metadata.{expected}")
    assert await site.get(path) == []


async def test_branches_have_metadata(site: Site) -> None:
    branch = await site.engine.catalog.create_branch("1", "dev")
    body = {"metadata": [{"key": "KBC.projectDescription", "value": "ours"}]}
    path = "/v2/storage/branch/default/metadata"
    (entry,) = await done(site, "POST", path, body)
    assert isinstance(entry["id"], str)
    assert set(entry) == {"id", "key", "value", "timestamp"}
    main = (await site.engine.catalog.branches("1"))[0]
    assert await site.get(f"/v2/storage/branch/{main.id}/metadata") == [entry]
    assert await site.get(f"/v2/storage/branch/{branch.id}/metadata") == []
    assert (await site.ask("GET", "/v2/storage/branch/999/metadata")).status == 404
    assert (await site.ask("DELETE", f"{path}/{entry['id']}")).status == 204
    assert await site.get(path) == []


# -- branches --------------------------------------------------------------------------------------


@pytest.mark.scenario("storage-api", 124)
async def test_the_default_branch_is_there_under_three_names(site: Site) -> None:
    branches = "/v2/storage/dev-branches"
    (main,) = await site.get(f"{branches}/")
    fits(schemas.DevBranch, main)
    assert (main["isDefault"], main["name"], main["creatorToken"]) == (True, "Main", {})
    assert isinstance(main["id"], int)
    assert await site.get(f"{branches}/default") == main
    assert await site.get(f"{branches}/{main['id']}") == main
    missing = await site.ask("GET", f"{branches}/999")
    assert (code(missing), missing.value["error"]) == (
        (404, "devBranch.notFound"),
        "Branch not found",
    )

    for name in ("default", str(main["id"])):
        refused = await site.ask("DELETE", f"{branches}/{name}")
        assert (refused.status, refused.value["error"]) == (400, "Cannot delete Main branch")


async def job(site: Site, answer: Any) -> Any:
    """The Storage job that was accepted, once it has ended well."""
    assert answer.status == 202, answer
    fits(schemas.StorageJob, answer.value)
    await site.engine.operations.wait(answer.value["id"])
    ended = await site.get(f"/v2/storage/jobs/{answer.value['id']}")
    assert ended["status"] == "success", ended
    return ended


async def test_branches_come_and_go_by_storage_jobs(site: Site) -> None:
    branches = "/v2/storage/dev-branches"
    body = {"name": "dev", "description": "to try"}
    made = await job(site, await site.ask("POST", branches, body))
    assert (made["operationName"], made["operationParams"]) == ("devBranchCreate", body)
    branch = made["results"]
    fits(schemas.DevBranch, branch)
    assert await site.get(f"{branches}/{branch['id']}") == branch
    assert (branch["name"], branch["creatorToken"]["description"]) == ("dev", "the admin")
    taken = await site.ask("POST", f"{branches}/", body)
    assert code(taken) == (400, "devBranch.duplicateName")
    assert (await site.ask("POST", branches, {"description": "x"})).status == 400

    gone = await job(site, await site.ask("DELETE", f"{branches}/{branch['id']}"))

    assert gone["operationName"] == "devBranchDelete"
    assert code(await site.ask("GET", f"{branches}/{branch['id']}")) == (404, "devBranch.notFound")
    assert (await site.ask("DELETE", f"{branches}/{branch['id']}")).status == 404


async def test_a_branch_is_renamed(site: Site) -> None:
    branch = await site.engine.catalog.create_branch("1", "dev")
    path = f"/v2/storage/dev-branches/{branch.id}"
    renamed = await done(site, "PUT", path, {"name": "new", "description": "d"})
    fits(schemas.DevBranch, renamed)
    assert (renamed["name"], renamed["description"], renamed["isDefault"]) == ("new", "d", False)
    assert await site.get(path) == renamed
    taken = await site.ask("PUT", path, {"name": "Main"})
    assert code(taken) == (400, "devBranch.duplicateName")
    assert taken.value["error"] == 'There already is a branch with name "Main"'


async def test_a_branch_changes_configurations_for_itself(site: Site) -> None:
    await make(site, configuration={"of": "main"}, state={"of": "main"})
    branch = await site.engine.catalog.create_branch("1", "dev")
    configs = f"/v2/storage/branch/{branch.id}/components/C/configs"
    seen = await site.get(f"{configs}/c")
    assert (seen["configuration"], seen["state"]) == ({"of": "main"}, {})

    await done(
        site, "PUT", f"{configs}/c", {"configuration": {"of": "dev"}, "state": {"of": "dev"}}
    )
    await done(site, "POST", f"{configs}/c/rows", {"rowId": "r", "state": {"r": 1}})
    await done(site, "POST", configs, {"name": "own", "configurationId": "own"})

    own = await site.get(f"{configs}/c")
    assert (own["configuration"], own["state"], own["version"]) == ({"of": "dev"}, {"of": "dev"}, 3)
    assert own["rows"][0]["state"] == {"r": 1}
    main = await site.get(CONFIG)
    assert (main["configuration"], main["state"]) == ({"of": "main"}, {"of": "main"})
    assert (main["version"], main["rows"]) == (1, [])
    assert [each["id"] for each in await site.get(CONFIGS)] == ["c"]
    await done(site, "DELETE", f"{configs}/c")
    assert [each["id"] for each in await site.get(configs)] == ["own"]
    assert [each["id"] for each in await site.get(f"{configs}?isDeleted=true")] == ["c"]
    assert (await site.get(CONFIG))["isDeleted"] is False
    for method, action in (("GET", "diff"), ("POST", "rebase"), ("POST", "reset-to-default")):
        assert code(await site.ask(method, f"{configs}/own/{action}")) == (501, "notImplemented")


async def test_a_job_in_a_branch_runs_what_the_branch_has(site: Site) -> None:
    await make(site, configuration={"parameters": {"of": "main"}})
    branch = await site.engine.catalog.create_branch("1", "dev")
    configs = f"/v2/storage/branch/{branch.id}/components/C/configs"
    await done(site, "PUT", f"{configs}/c", {"configuration": {"parameters": {"of": "dev"}}})
    await done(site, "POST", configs, {"name": "own", "configurationId": "own"})

    async def version(**body: Any) -> Any:
        ended = await site.finished(await site.run(body))
        assert ended["status"] == "success", ended
        return ended["result"]["configVersion"]

    assert await version(config="c") == 1
    assert await version(config="c", branchId=branch.id) == 2
    assert await version(config="own", branchId=branch.id) == 1
    refused = await site.finished(await site.run({"config": "own"}))
    assert "Configuration own not found" in refused["result"]["message"]


# -- search ----------------------------------------------------------------------------------------


@pytest.mark.scenario("storage-api", 125)
async def test_configurations_are_found_by_their_metadata(site: Site) -> None:
    folder = {"key": "KBC.configuration.folderName", "value": "in a folder"}
    for config_id, entries in (("a", [folder, {"key": "other", "value": "x"}]), ("b", [])):
        await make(site, config_id)
        if entries:
            await done(site, "POST", f"{CONFIGS}/{config_id}/metadata", {"metadata": entries})
    search = "/v2/storage/branch/default/search/component-configurations"

    for query in ("metadataKeys[]", "metadataKeys[0]", "idComponent=C&metadataKeys[]"):
        found = await site.get(
            f"{search}?{query}=KBC.configuration.folderName&include=filteredMetadata"
        )
        fits(schemas.FoundConfiguration, found)
        ((entry,),) = [each["metadata"] for each in found]
        assert (entry["key"], entry["value"]) == tuple(folder.values())
        assert (found[0]["idComponent"], found[0]["configurationId"]) == ("C", "a")
    assert await site.get(f"{search}?metadataKeys[]=other") == [
        {"idComponent": "C", "configurationId": "a"}
    ]
    of_component = await site.get(f"{search}?idComponent=C&include=filteredMetadata")
    assert [len(each["metadata"]) for each in of_component] == [2, 0]
    assert await site.get(f"{search}?configurationId=b") == [
        {"idComponent": "C", "configurationId": "b"}
    ]
    unknown = await site.ask("GET", f"{search}?componentId=C")
    assert code(unknown) == (400, "validation.failed")
    assert "componentId" in unknown.value["error"]


async def test_a_project_is_searched_by_name_if_it_wants(site: Site) -> None:
    await make(site, "c")
    await done(site, "PUT", CONFIG, {"name": "Sales of March"})
    await done(site, "POST", f"{CONFIG}/rows", {"rowId": "r", "name": "march rows"})
    await site.ask("POST", "/v2/storage/buckets", {"name": "march", "stage": "in"})
    await site.engine.catalog.create_branch("1", "dev")
    search = "/v2/storage/global-search?query=march"
    nothing = await site.get(search)
    assert nothing == {"all": 0, "items": [], "byType": {}, "byProject": {}}

    await site.engine.catalog.update_project("1", features=["global-search"])
    site.app.gate.tokens_changed()

    found = await site.get(search)
    fits(schemas.Found, found)
    assert [(each["type"], each["id"]) for each in found["items"]] == [
        ("bucket", "in.c-march"),
        ("configuration-row", "r"),
        ("configuration", "c"),
    ]
    assert found["all"] == 3
    assert found["byType"] == {"bucket": 1, "configuration": 1, "configuration-row": 1}
    project = await site.engine.catalog.project("1")
    assert found["byProject"] == {"1": project.name}
    page = await site.get(f"{search}&limit=1&offset=1&branchTypes[]=production")
    assert ([each["id"] for each in page["items"]], page["all"]) == (["r"], 3)
    assert (await site.get(f"{search}&types[]=configuration&query=march+SALES"))["all"] == 1
    for query in ("&projectIds[]=999", "&branchTypes[]=development"):
        assert (await site.get(search + query))["all"] == 0


# -- workspaces ------------------------------------------------------------------------------------


async def test_workspaces_are_records(site: Site) -> None:
    await make(site)
    assert await site.get("/v2/storage/workspaces") == []
    assert await site.get(f"{CONFIG}/workspaces") == []
    assert code(await site.ask("POST", "/v2/storage/workspaces")) == (501, "notImplemented")
    asked = {"readOnlyStorageAccess": True, "loginType": "x", "backend": "snowflake"}
    accepted = await site.ask(
        "POST",
        f"/v2/storage/branch/default/components/C/configs/c/workspaces?async={True}",
        asked,
    )
    made = await job(site, accepted)
    assert made["operationName"] == "workspaceCreate"
    number = made["results"]["id"]
    assert isinstance(number, int)
    path = f"/v2/storage/branch/default/workspaces/{number}"
    found = await site.get(path)
    fits(schemas.Workspace, found)
    assert found["connection"]["schema"] == f"WORKSPACE_{number}"
    assert (found["readOnlyStorageAccess"], found["configurationId"]) == (True, "c")
    assert await site.get("/v2/storage/workspaces") == [found]
    assert await site.get(f"{CONFIG}/workspaces") == [found]
    assert code(await site.ask("POST", f"{path}/load")) == (501, "notImplemented")
    assert (await site.ask("DELETE", path)).status == 204
    assert code(await site.ask("GET", path)) == (404, "storage.workspaces.notFound")
