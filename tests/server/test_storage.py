"""The Storage routes: configurations, tokens, buckets, tables and files, on disk."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from tests.server.conftest import COMPONENT, Site

from vaka.models.storage import ColumnDefinition, StorageScope
from vaka_server import schemas
from vaka_server.schemas import Schema

CONFIGS = "/v2/storage/components/C/configs"
CSV = b"id,name\n1,a\n2,b\n"


def fits(schema: type[Schema], value: Any) -> None:
    """A document has the shape that `/openapi.json` promises."""
    for each in value if isinstance(value, list) else [value]:
        schema.model_validate(each)


def code(answer: Any) -> tuple[int, str]:
    return answer.status, answer.value["code"]


# -- index and components --------------------------------------------------------------------------


async def test_the_index_needs_no_token_and_minds_no_wrong_one(site: Site) -> None:
    for path in ("/v2/storage", "/v2/storage/"):
        index = await site.get(path, token="nobody's")
        fits(schemas.Index, index)
        services = {service["id"]: service["url"] for service in index["services"]}
        assert services["queue"] == "http://localhost/queue"
        assert [component["id"] for component in index["components"]] == [
            "C",
            "keboola.mcp-server-tool",
            "keboola.shared-code",
            "keboola.variables",
        ]
    assert "components" not in await site.get("/v2/storage?exclude=components")
    for short in (await site.get("/v2/storage?exclude=componentDetails"))["components"]:
        assert "data" not in short


async def test_a_component_is_registered_and_replaced(site: Site) -> None:
    path = "/v2/storage/components/D"
    made = await site.ask("PUT", path, {**COMPONENT, "id": "D", "flags": ["x"], "categories": []})
    assert made.status == 200
    found = await site.get(path, token=None)
    fits(schemas.Component, found)
    assert (found["data"], found["flags"]) == (COMPONENT["data"], ["x"])
    assert found["uri"] == "http://localhost/docker/D"
    assert found["configurationSchema"] == {}
    other = await site.ask("PUT", path, {**COMPONENT, "id": "E"})
    assert (other.status, other.value["error"]) == (400, "id: must be D, as in the path.")
    missing = await site.ask("GET", "/v2/storage/components/none")
    assert code(missing) == (404, "storage.components.notFound")


@pytest.mark.parametrize("body", [[], "text", 1])
async def test_a_body_that_is_no_object_is_refused(site: Site, body: Any) -> None:
    answer = await site.ask("PUT", "/v2/storage/components/D", body)
    assert code(answer) == (400, "malformedRequest")
    broken = await site.ask("POST", CONFIGS, data=b"{broken")
    assert code(broken) == (400, "malformedRequest")


# -- configurations --------------------------------------------------------------------------------


async def test_a_configuration_is_kept_with_its_versions(site: Site) -> None:
    content = {"parameters": {"empty": {}, "list": [], "big": 10**20, "ž": "<'&\"/>"}}
    made = await site.ask(
        "POST",
        CONFIGS,
        {"name": "First", "configurationId": "X", "configuration": content, "state": {"a": 1}},
    )
    assert made.status == 201
    fits(schemas.Configuration, made.value)
    assert (made.value["id"], made.value["version"]) == ("X", 1)
    assert (made.value["configuration"], made.value["state"]) == (content, {"a": 1})
    assert made.value["creatorToken"]["description"] == "the admin"
    again = await site.ask("POST", CONFIGS, {"name": "Second", "configurationId": "X"})
    assert code(again) == (400, "configurationAlreadyExists")
    changed = await site.ask(
        "PUT", f"{CONFIGS}/X", {"configuration": '{"parameters":{}}', "changeDescription": "why"}
    )
    assert (changed.value["version"], changed.value["name"]) == (2, "First")
    assert changed.value["configuration"] == {"parameters": {}}
    same = await site.ask("PUT", f"{CONFIGS}/X", {"configuration": {"parameters": {}}})
    assert same.value["version"] == 2
    versions = await site.get(f"{CONFIGS}/X/versions")
    fits(schemas.Version, versions)
    assert [each["version"] for each in versions] == [2, 1]
    assert versions[0]["changeDescription"] == "why"
    first = await site.get(f"{CONFIGS}/X/versions/1")
    fits(schemas.VersionDetail, first)
    assert first["configuration"] == content
    missing = await site.ask("GET", f"{CONFIGS}/X/versions/9")
    assert code(missing) == (404, "storage.configuration.versionNotFound")
    (listed,) = await site.get(CONFIGS)
    assert listed == await site.get(f"{CONFIGS}/X")
    removed = await site.ask("DELETE", f"{CONFIGS}/X")
    assert (removed.status, removed.value) == (204, b"")
    assert code(await site.ask("GET", f"{CONFIGS}/X")) == (404, "storage.configuration.notFound")


async def test_a_change_that_is_meant_for_another_version_is_refused(site: Site) -> None:
    await site.ask("POST", CONFIGS, {"name": "a", "configurationId": "X"})
    path = f"{CONFIGS}/X"
    done = await site.ask("PUT", path, {"name": "b", "expectedVersion": 1})
    assert (done.status, done.value["version"]) == (200, 2)
    late = await site.ask("PUT", path, {"name": "c", "expectedVersion": 1})
    assert code(late) == (409, "storage.components.configurations.versionConflict")
    nonsense = await site.ask("PUT", path, {"name": "c", "expectedVersion": "x"})
    assert nonsense.status == 400
    assert (await site.get(path))["name"] == "b"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, "storage.components.validation"),
        ({"name": ""}, "storage.components.validation"),
        ({"name": "a", "configuration": "{broken"}, "validation.invalidConfigurationFormat"),
        ({"name": "a", "configuration": 1}, "validation.invalidConfigurationFormat"),
        ({"name": "a", "isDisabled": "maybe"}, "storage.components.validation"),
    ],
)
async def test_a_configuration_that_cannot_be_is_refused(
    site: Site, body: Any, expected: str
) -> None:
    assert code(await site.ask("POST", CONFIGS, body)) == (400, expected)
    assert await site.get(CONFIGS) == []


async def test_configurations_of_no_component(site: Site) -> None:
    path = "/v2/storage/components/none/configs"
    for method, body in (("GET", None), ("POST", {"name": "a"})):
        answer = await site.ask(method, path, body)
        assert code(answer) == (404, "storage.components.notFound")


async def test_rows_are_kept_in_their_order(site: Site) -> None:
    await site.ask("POST", CONFIGS, {"name": "a", "configurationId": "X"})
    rows = f"{CONFIGS}/X/rows"
    for id_ in ("r1", "r2"):
        made = await site.ask("POST", rows, {"rowId": id_, "configuration": {"p": id_}})
        assert made.status == 201
        fits(schemas.Row, made.value)
    assert code(await site.ask("POST", rows, {"rowId": "r1"})) == (
        400,
        "configurationAlreadyExists",
    )
    assert (await site.get(f"{CONFIGS}/X"))["version"] == 3
    sorted_ = await site.ask("PUT", f"{CONFIGS}/X", {"rowsSortOrder": ["r2", "r1"]})
    assert sorted_.value["rowsSortOrder"] == ["r2", "r1"]
    assert [row["id"] for row in await site.get(rows)] == ["r2", "r1"]
    changed = await site.ask("PUT", f"{rows}/r1", {"name": "new", "isDisabled": "1"})
    assert (changed.value["name"], changed.value["isDisabled"]) == ("new", True)
    assert changed.value["version"] == 2
    assert (await site.ask("DELETE", f"{rows}/r2")).status == 204
    missing = await site.ask("GET", f"{rows}/r2")
    assert code(missing) == (404, "storage.configuration.rowNotFound")


async def test_state_is_replaced_without_a_new_version_of_the_configuration(site: Site) -> None:
    await site.ask("POST", CONFIGS, {"name": "a", "configurationId": "X"})
    await site.ask("POST", f"{CONFIGS}/X/rows", {"rowId": "r"})
    for path in (f"{CONFIGS}/X", f"{CONFIGS}/X/rows/r"):
        assert await site.get(f"{path}/state") == {"state": {}, "version": 0}
        version = (await site.get(path))["version"]
        done = await site.ask("PUT", f"{path}/state", {"state": {"seen": 5}, "expectedVersion": 0})
        assert (done.status, done.value["state"]) == (200, {"seen": 5})
        assert done.value["version"] == version
        late = await site.ask("PUT", f"{path}/state", {"state": {}, "expectedVersion": 0})
        assert code(late) == (409, "storage.components.configurations.versionConflict")
        assert await site.get(f"{path}/state") == {"state": {"seen": 5}, "version": 1}


async def test_components_are_listed_with_their_configurations(site: Site) -> None:
    await site.engine.catalog.put_component({**COMPONENT, "id": "D"})
    assert await site.get("/v2/storage/components") == []
    await site.ask("POST", CONFIGS, {"name": "a", "configurationId": "X"})
    (bare,) = await site.get("/v2/storage/components")
    assert bare["id"] == "C"
    assert not {"configuration", "rows", "state"} & set(bare["configurations"][0])
    (full,) = await site.get("/v2/storage/components?include=configuration,rows,state")
    assert {"configuration", "rows", "state"} <= set(full["configurations"][0])
    assert await site.get("/v2/storage/components?componentType=extractor") == []


# -- tokens ----------------------------------------------------------------------------------------


async def test_the_token_that_asks_is_described(site: Site) -> None:
    verified = await site.get("/v2/storage/tokens/verify")
    fits(schemas.Token, verified)
    assert verified["token"] == site.tokens["admin"]
    assert verified["owner"]["id"] == 1
    assert verified["owner"]["defaultBackend"] == "snowflake"
    assert (verified["isMasterToken"], verified["isExpired"]) == (True, False)
    reader = await site.get("/v2/storage/tokens/verify", token="read")
    assert (reader["isMasterToken"], reader["canCreateJobs"]) == (False, False)
    assert "admin" not in reader


async def test_a_token_is_made_shown_once_and_revoked_at_once(site: Site) -> None:
    made = await site.ask(
        "POST", "/v2/storage/tokens", {"description": "new", "role": "run", "expiresIn": "3600"}
    )
    assert made.status == 201
    fits(schemas.Token, made.value)
    secret = made.value["token"]
    assert (made.value["role"], made.value["expires"] is not None) == ("run", True)
    listed = await site.get("/v2/storage/tokens")
    fits(schemas.Token, listed)
    assert "new" in {each["description"] for each in listed}
    assert secret not in str(listed)
    assert (await site.ask("GET", "/queue/job", token=secret)).status == 200
    gone = await site.ask("DELETE", f"/v2/storage/tokens/{made.value['id']}")
    assert gone.status == 204
    assert (await site.ask("GET", "/queue/job", token=secret)).status == 401
    again = await site.ask("DELETE", f"/v2/storage/tokens/{made.value['id']}")
    assert code(again) == (404, "storage.tokens.notFound")


async def test_a_token_cannot_revoke_itself(site: Site) -> None:
    own = (await site.get("/v2/storage/tokens/verify"))["id"]
    assert (await site.ask("DELETE", f"/v2/storage/tokens/{own}")).status == 400
    assert (await site.ask("GET", "/v2/storage/tokens/verify")).status == 200


@pytest.mark.parametrize(
    "body",
    [
        {"role": "god"},
        {"expiresIn": "soon"},
        {"expiresIn": 0},
        {"componentAccess": {"C": ["D"]}},
        {"bucketPermissions": {"in.c-none": "read"}},
        {"bucketPermissions": {"in.c-b": "manage"}},
    ],
)
async def test_a_token_that_cannot_be_is_refused(site: Site, body: Any) -> None:
    before = len(await site.get("/v2/storage/tokens"))
    assert (await site.ask("POST", "/v2/storage/tokens", body)).status == 400
    assert len(await site.get("/v2/storage/tokens")) == before


# -- tables ----------------------------------------------------------------------------------------


async def bucket(site: Site) -> None:
    made = await site.ask("POST", "/v2/storage/buckets", {"name": "b", "stage": "in"})
    assert made.status == 201


async def load(site: Site, query: str = "", data: bytes = CSV, key: str | None = None) -> Any:
    path = f"/vaka/tables/in.c-b.t/load?{query}"
    headers = {} if key is None else {"Idempotency-Key": key}
    return await site.ask("POST", path, data=data, headers=headers)


async def test_a_bucket_is_made_once(site: Site) -> None:
    made = await site.ask(
        "POST", "/v2/storage/buckets", {"name": "b", "stage": "in", "description": "words"}
    )
    assert made.status == 201
    fits(schemas.Bucket, made.value)
    assert (made.value["id"], made.value["displayName"]) == ("in.c-b", "b")
    again = await site.ask("POST", "/v2/storage/buckets", {"name": "b", "stage": "in"})
    assert code(again) == (400, "storage.buckets.alreadyExists")
    (listed,) = await site.get("/v2/storage/buckets")
    assert listed["tables"] == "http://localhost/v2/storage/buckets/in.c-b/tables"
    detail = await site.get("/v2/storage/buckets/in.c-b")
    fits(schemas.Bucket, detail)
    assert (detail["tables"], detail["description"]) == ([], "words")
    for body in ({"name": "x", "stage": "sys"}, {"name": "a.b"}, {}):
        answer = await site.ask("POST", "/v2/storage/buckets", body)
        assert code(answer) == (400, "storage.buckets.validation")
    missing = await site.ask("GET", "/v2/storage/buckets/in.c-none")
    assert code(missing) == (404, "storage.buckets.notFound")
    assert missing.value["error"] == "Bucket in.c-none not found"


async def test_a_table_is_loaded_described_and_exported(site: Site) -> None:
    await bucket(site)
    loaded = await load(site, "primaryKey=id")
    assert loaded.status == 200
    fits(schemas.LoadResult, loaded.value)
    assert (loaded.value["importedRowsCount"], loaded.value["created"]) == (2, True)
    table = await site.get("/v2/storage/tables/in.c-b.t")
    fits(schemas.Table, table)
    assert (table["columns"], table["primaryKey"]) == (["id", "name"], ["id"])
    assert (table["rowsCount"], table["bucket"]["id"]) == (2, "in.c-b")
    assert table["lastImportDate"] is not None
    (listed,) = await site.get("/v2/storage/tables")
    assert await site.get("/v2/storage/buckets/in.c-b/tables") == [listed]
    (inside,) = (await site.get("/v2/storage/buckets/in.c-b"))["tables"]
    assert inside["id"] == "in.c-b.t"
    exported = await site.ask("GET", "/vaka/tables/in.c-b.t/export")
    assert exported.value == b'"id","name"\n"1","a"\n"2","b"\n'
    assert exported.headers["X-Vaka-Rows"] == "2"
    assert exported.headers["Content-Length"] == str(len(exported.value))
    packed = await site.ask("GET", "/vaka/tables/in.c-b.t/export?gzip=true&header=false&limit=1")
    assert gzip.decompress(packed.value) == b'"1","a"\n'
    assert uploads(site) == []


async def test_a_load_adds_replaces_or_starts_anew(site: Site) -> None:
    await bucket(site)
    await load(site, "primaryKey=id")
    more = await load(site, "incremental=1", b"id,name\n2,changed\n3,new\n")
    assert (more.value["importedRowsCount"], more.value["totalRowsCount"]) == (2, 3)
    rows = (await site.ask("GET", "/vaka/tables/in.c-b.t/export")).value
    assert sorted(rows.splitlines()[1:]) == [b'"1","a"', b'"2","changed"', b'"3","new"']
    anew = await load(site, "", gzip.compress(b"id,name\n9,z\n"))
    assert anew.value["totalRowsCount"] == 1
    bare = await load(site, "columns=id,name&incremental=true", b"10,y\n")
    assert bare.value["totalRowsCount"] == 2
    tabs = await load(site, "delimiter=%5Ct", b"id\tname\n1\ta\n")
    assert tabs.value["totalRowsCount"] == 1


async def test_a_key_that_cannot_be_is_warned_of(site: Site) -> None:
    await bucket(site)
    await load(site)
    (warning,) = (await load(site, "primaryKey=none")).value["warnings"]
    assert "none" in warning
    assert (await site.get("/v2/storage/tables/in.c-b.t"))["primaryKey"] == []


async def test_a_load_that_is_tried_again_is_done_once(site: Site) -> None:
    await bucket(site)
    first = await load(site, "incremental=1", key="k")
    again = await load(site, "incremental=1", key="k")
    assert (first.value["repeated"], again.value["repeated"]) == (False, True)
    assert (await site.get("/v2/storage/tables/in.c-b.t"))["rowsCount"] == 2


async def test_a_typed_table_is_described_and_takes_what_fits(site: Site) -> None:
    await bucket(site)
    await site.engine.storage.tables.create_table(
        StorageScope("1"),
        "in.c-b.t",
        ["id", "name"],
        primary_key=["id"],
        definitions=[
            ColumnDefinition("id", "INTEGER"),
            ColumnDefinition("name", "STRING", length="5"),
        ],
        distribution_key=["id"],
    )
    table = await site.get("/v2/storage/tables/in.c-b.t")
    fits(schemas.Table, table)
    assert (table["isTyped"], table["distributionKey"]) == (True, ["id"])
    integer = {"type": "NUMBER", "length": "38,0", "nullable": False, "default": None}
    text = {"type": "VARCHAR", "length": "5", "nullable": True, "default": None}
    assert table["definition"] == {
        "primaryKeysNames": ["id"],
        "columns": [
            {"name": "id", "canBeFiltered": True, "basetype": "INTEGER", "definition": integer},
            {"name": "name", "canBeFiltered": True, "basetype": "STRING", "definition": text},
        ],
    }
    assert (await load(site)).status == 200
    refused = await load(site, "incremental=true", b"id,name\nx,c\n")
    assert refused.status == 400
    assert refused.value["error"].startswith("Numeric value 'x' is not recognized.")


async def test_a_load_that_cannot_be_leaves_the_table_as_it_was(site: Site) -> None:
    await bucket(site)
    await load(site)
    for query, data in (
        ("", b""),
        ("", b"id\n1\n"),
        ("", b"id,name\n1,a,more\n"),
        ("delimiter=xx", CSV),
        ("incremental=maybe", CSV),
    ):
        answer = await load(site, query, data)
        assert answer.status == 400, (query, data, answer)
        assert answer.value["error"]
    rows = (await site.ask("GET", "/vaka/tables/in.c-b.t/export")).value
    assert rows == b'"id","name"\n"1","a"\n"2","b"\n'
    assert uploads(site) == []


async def test_a_preview_is_csv_or_json(site: Site) -> None:
    await bucket(site)
    await load(site, data=b'id,name\n1,"a ""quoted"", b"\n2,\n')
    path = "/v2/storage/tables/in.c-b.t/data-preview"
    plain = await site.ask("GET", path)
    assert plain.headers["Content-Type"] == "text/csv; charset=UTF-8"
    assert plain.value == b'"id","name"\n"1","a ""quoted"", b"\n"2",""\n'
    rows = await site.get(f"{path}?format=json&columns=name&limit=1")
    assert rows == {
        "columns": ["name"],
        "rows": [[{"columnName": "name", "value": 'a "quoted", b', "isTruncated": False}]],
    }
    filtered = await site.ask(
        "GET", f"{path}?whereColumn=id&whereValues[]=2&whereValues[]=3&whereOperator=eq"
    )
    assert filtered.value == b'"id","name"\n"2",""\n'
    other = await site.ask("GET", f"{path}?whereColumn=id&whereValues[]=2&whereOperator=neq")
    assert b'"1"' in other.value
    for query, expected in (
        ("limit=1001", "storage.tables.validation"),
        ("format=xml", "storage.tables.validation.invalidFormat"),
        ("whereColumn=id", "validation.failed"),
    ):
        assert code(await site.ask("GET", f"{path}?{query}")) == (400, expected)
    for query in ("whereColumn=none&whereValues[]=1", "columns=none", "changedSince=x"):
        assert (await site.ask("GET", f"{path}?{query}")).status == 400


async def test_a_table_that_is_not_there(site: Site) -> None:
    await bucket(site)
    for path in (
        "/v2/storage/tables/in.c-b.none",
        "/v2/storage/tables/in.c-b.none/data-preview",
        "/vaka/tables/in.c-b.none/export",
    ):
        answer = await site.ask("GET", path)
        assert code(answer) == (404, "storage.tables.notFound"), path
        assert 'table "none" was not found in the bucket "in.c-b"' in answer.value["error"]
    odd = await site.ask("GET", "/v2/storage/tables/some-totally-non-existent-table")
    assert odd.status in {400, 404}


# -- files -----------------------------------------------------------------------------------------


async def test_a_file_is_kept_byte_for_byte(site: Site) -> None:
    content = bytes(range(256)) * 5000
    path = "/vaka/files?name=a.bin&tags[]=one&tags[]=two&tags[]=one"
    stored = await site.ask("POST", path, data=content)
    assert stored.status == 201
    fits(schemas.File, stored.value)
    file = stored.value
    assert (file["name"], file["sizeBytes"]) == ("a.bin", len(content))
    assert file["tags"] == ["one", "two"]
    found = await site.get(f"/v2/storage/files/{file['id']}")
    assert {**found, "url": ""} == {**file, "url": ""}
    fetched = await site.ask("GET", f"/vaka/files/{file['id']}")
    assert fetched.value == content
    assert fetched.headers["Content-Length"] == str(len(content))
    assert "filename*=UTF-8''a.bin" in fetched.headers["Content-Disposition"]
    assert uploads(site) == []


async def test_files_are_found_by_tag_and_query(site: Site) -> None:
    ids = []
    for tag in ("a", "b"):
        stored = await site.ask("POST", f"/vaka/files?name={tag}.txt&tags[]={tag}", data=b"x")
        ids.append(stored.value["id"])

    async def found(query: str) -> list[int]:
        return [file["id"] for file in await site.get(f"/v2/storage/files?{query}")]

    assert await found("") == [ids[1], ids[0]]
    assert await found("tags[]=a") == [ids[0]]
    assert await found("q=tags:b") == [ids[1]]
    assert await found(f"sinceId={ids[0]}") == [ids[1]]
    assert await found("limit=1&offset=1") == [ids[0]]
    assert code(await site.ask("GET", "/v2/storage/files?q=((")) == (400, "query.syntax")


@pytest.mark.parametrize("name", ["", "a/b", "x" * 256, "a%0Ab"])
async def test_a_file_needs_a_name(site: Site, name: str) -> None:
    answer = await site.ask("POST", f"/vaka/files?name={name}", data=b"x")
    assert answer.status == 400
    assert await site.get("/v2/storage/files") == []


async def test_a_file_that_is_tried_again_is_stored_once(site: Site) -> None:
    key = {"Idempotency-Key": "k"}
    first = await site.ask("POST", "/vaka/files?name=a", data=b"x", headers=key)
    again = await site.ask("POST", "/vaka/files?name=a", data=b"x", headers=key)
    assert first.value["id"] == again.value["id"]


async def test_a_file_that_is_not_there(site: Site) -> None:
    for path in ("/v2/storage/files/999", "/vaka/files/999"):
        answer = await site.ask("GET", path)
        assert code(answer) == (404, "storage.files.notFound")
        assert answer.value["error"] == "File id: 999 not found"


async def test_an_upload_that_is_too_large_leaves_nothing(site: Site) -> None:
    site.app.settings = site.app.settings.model_copy(update={"max_upload_bytes": 10})
    answer = await site.ask("POST", "/vaka/files?name=a", data=b"x" * 11)
    assert code(answer) == (413, "requestTooLarge")
    assert uploads(site) == []
    assert await site.get("/v2/storage/files") == []


def uploads(site: Site) -> list[Path]:
    """What is left of requests' bodies and answers."""
    return list((site.engine.config.home / "uploads").glob("*"))
