"""Tokens over HTTP: what they may, how long, and what becomes of their secrets."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.server.conftest import IMAGE, Answer, Site

from vaka.models.container import ContainerSpec
from vaka.models.storage import StorageScope
from vaka.testing import FakeImage, Script

TOKENS = "/v2/storage/tokens"
CSV = b"id,name\n1,a\n"
DENIED = (403, "accessDenied", "You don't have access to the resource.")


def told(answer: Answer) -> tuple[int, str, str]:
    return answer.status, answer.value["code"], answer.value["error"]


def write_a_table(spec: ContainerSpec) -> None:
    """What a container does that leaves a table."""
    (data,) = [mount.source for mount in spec.mounts if mount.target == "/data"]
    (Path(data) / "out" / "tables" / "t.csv").write_bytes(CSV)


async def make(site: Site, body: dict[str, Any] | None = None, **options: Any) -> Any:
    answer = await site.ask("POST", TOKENS, body or {}, **options)
    assert answer.status == 201, answer
    return answer.value


async def make_by_form(site: Site, form: str) -> Any:
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await site.ask("POST", TOKENS, data=form.encode(), headers=kind)
    assert answer.status == 201, answer
    return answer.value


async def bucket(site: Site, name: str) -> str:
    """A bucket with a table `t`."""
    bucket_id = f"in.c-{name}"
    await site.engine.storage.tables.create_bucket(StorageScope("1"), "in", name)
    loaded = await site.ask("POST", f"/vaka/tables/{bucket_id}.t/load", data=CSV)
    assert loaded.status == 200, loaded
    return bucket_id


async def test_a_token_tells_how_much_its_project_has(site: Site) -> None:
    owner = (await site.get(f"{TOKENS}/verify"))["owner"]
    assert (owner["rowsCount"], owner["dataSizeBytes"]) == (0, 0)
    sizes = [
        (await site.get(f"/v2/storage/tables/{await bucket(site, name)}.t"))["dataSizeBytes"]
        for name in ("a", "b")
    ]
    limited = await make(site, {"bucketPermissions": {"in.c-a": "read"}})
    for token in ("admin", limited["token"]):
        owner = (await site.get(f"{TOKENS}/verify", token=token))["owner"]
        assert (owner["rowsCount"], owner["dataSizeBytes"]) == (2, sum(sizes))
    other = await site.get(f"{TOKENS}/verify", token="other")
    assert other["owner"]["rowsCount"] == 0


@pytest.mark.scenario("storage-api", 13)
async def test_a_token_that_is_none_is_refused_without_being_told(site: Site) -> None:
    deleted = await make(site)
    await site.ask("DELETE", f"{TOKENS}/{deleted['id']}")
    for secret in (None, "1-1-wrong", deleted["token"]):
        answer = await site.ask("GET", f"{TOKENS}/verify", token=secret)
        assert told(answer) == (401, "storage.tokenInvalid", "Invalid access token")
        assert answer.value["status"] == "error"
        assert secret is None or secret not in str(answer.value)


@pytest.mark.scenario("storage-api", 20)
async def test_a_token_ends_when_it_is_said_to(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await make(site, {"expiresIn": "1"})
    assert (await site.ask("GET", f"{TOKENS}/verify", token=made["token"])).status == 200

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Later:
            return cls.fromtimestamp(datetime.now(UTC).timestamp() + 2, tz)

    monkeypatch.setattr("vaka_server.access.datetime", Later)
    answer = await site.ask("GET", f"{TOKENS}/verify", token=made["token"])
    assert told(answer)[:2] == (401, "storage.tokenInvalid")


@pytest.mark.scenario("storage-api", 21)
async def test_a_token_without_a_description_names_who_made_it(site: Site) -> None:
    made = await make(site)
    assert made["description"] == "Created by the admin"
    assert made["creatorToken"]["description"] == "the admin"
    assert made["isMasterToken"] is made["canManageTokens"] is made["canManageBuckets"] is False
    assert (made["bucketPermissions"], made["componentAccess"]) == ({}, [])


@pytest.mark.scenario("storage-api", 18)
async def test_a_refreshed_token_has_another_secret_at_once(site: Site) -> None:
    made = await make(site, {"role": "read"})
    old = made["token"]
    assert (await site.ask("GET", f"{TOKENS}/verify", token=old)).status == 200
    fresh = await site.ask("POST", f"{TOKENS}/{made['id']}/refresh")
    assert fresh.status == 200
    assert fresh.value["token"] != old
    assert (await site.ask("GET", f"{TOKENS}/verify", token=old)).status == 401
    verified = await site.get(f"{TOKENS}/verify", token=fresh.value["token"])
    assert (verified["id"], verified["role"]) == (made["id"], "read")


@pytest.mark.scenario("storage-api", 19)
async def test_what_a_token_cannot_be_is_refused(site: Site) -> None:
    await bucket(site, "a")
    for permissions in ({"in.c-a": "manage"}, {"in.c-a": ""}, {"in.c-none": "read"}):
        answer = await site.ask("POST", TOKENS, {"bucketPermissions": permissions})
        assert told(answer)[:2] == (400, "storage.tokens.invalidPermissions")
        form = "&".join(f"bucketPermissions[{k}]={v}" for k, v in permissions.items())
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await site.ask("POST", TOKENS, data=form.encode(), headers=kind)
        assert told(answer)[:2] == (400, "storage.tokens.invalidPermissions")
    other_master = await make(site, {"role": "admin"})
    for token_id in (other_master["id"], (await site.get(f"{TOKENS}/verify"))["id"]):
        assert (await site.ask("DELETE", f"{TOKENS}/{token_id}")).status == 400
    limited = {"canManageBuckets": "0"}
    answer = await site.ask("PUT", f"{TOKENS}/{other_master['id']}", limited)
    assert answer.status == 400
    assert (await site.ask("DELETE", f"{TOKENS}/{other_master['id']}?force=1")).status == 204
    assert (await site.ask("POST", f"{TOKENS}/1/share")).status == 501


async def test_a_token_for_a_bucket_reads_it_and_nothing_else(site: Site) -> None:
    mine, other = await bucket(site, "a"), await bucket(site, "b")
    made = await make_by_form(site, quote("bucketPermissions[in.c-a]", safe="") + "=read")
    assert made["bucketPermissions"] == {mine: "read"}
    secret = made["token"]
    listed = await site.get("/v2/storage/buckets", token=secret)
    assert [each["id"] for each in listed] == [mine]
    assert (await site.ask("GET", f"/v2/storage/tables/{mine}.t", token=secret)).status == 200
    preview = f"/v2/storage/tables/{mine}.t/data-preview"
    assert (await site.ask("GET", preview, token=secret)).status == 200
    load = await site.ask("POST", f"/vaka/tables/{mine}.t/load", token=secret, data=CSV)
    assert load.status == 403
    for path in (f"buckets/{other}", f"tables/{other}.t", f"tables/{other}.t/data-preview"):
        assert (await site.ask("GET", f"/v2/storage/{path}", token=secret)).status == 403
    # nor a component, nor another token
    for method, path in (
        ("GET", "/v2/storage/components/C/configs"),
        ("POST", "/docker/C/run"),
        ("GET", TOKENS),
        ("POST", TOKENS),
        ("POST", f"{TOKENS}/{made['id']}/refresh"),
        ("DELETE", f"{TOKENS}/{made['id']}"),
        ("PUT", "/vaka/vault/x"),
    ):
        body: Any = {"configData": {}} if method in {"POST", "PUT"} else None
        answer = await site.ask(method, path, body, token=secret)
        assert answer.status == 403, (method, path)
    # what it may is changed at once
    changed = await site.ask(
        "PUT", f"{TOKENS}/{made['id']}", {"bucketPermissions": {mine: "write"}, "description": "d"}
    )
    assert (changed.status, changed.value["description"]) == (200, "d")
    load = await site.ask("POST", f"/vaka/tables/{mine}.t/load", token=secret, data=CSV)
    assert load.status == 200


async def test_a_token_that_manages_buckets_has_also_new_ones(site: Site) -> None:
    made = await make_by_form(site, "canManageBuckets=1&description=m")
    mine = await bucket(site, "a")
    secret = made["token"]
    verified = await site.get(f"{TOKENS}/verify", token=secret)
    assert verified["bucketPermissions"] == {mine: "manage"}
    assert (verified["canManageBuckets"], verified["isMasterToken"]) == (True, False)
    body = {"name": "new", "stage": "out"}
    assert (await site.ask("POST", "/v2/storage/buckets", body, token=secret)).status == 201
    configs = "/v2/storage/components/C/configs"
    assert (await site.ask("POST", configs, {"name": "x"}, token=secret)).status == 201
    assert told(await site.ask("POST", TOKENS, {}, token=secret)) == DENIED
    # and none of them once it manages them no more
    path = f"{TOKENS}/{made['id']}"
    changed = await site.ask("PUT", path, {"canManageBuckets": False})
    assert (changed.value["bucketPermissions"], changed.value["componentAccess"]) == ({}, [])
    assert await site.get("/v2/storage/buckets", token=secret) == []


@pytest.mark.scenario("storage-api", 16)
async def test_a_token_for_a_component_sees_its_configurations_only(site: Site) -> None:
    await site.engine.catalog.put_component({"id": "D", "type": "other", "name": "D", "data": {}})
    for component in ("C", "D"):
        path = f"/v2/storage/components/{component}/configs"
        assert (await site.ask("POST", path, {"name": component})).status == 201
    made = await make_by_form(site, "componentAccess%5B%5D=D")
    assert made["componentAccess"] == ["D"]
    listed = await site.get("/v2/storage/components", token=made["token"])
    assert [each["id"] for each in listed] == ["D"]
    path = "/v2/storage/components/D/configs"
    assert (await site.ask("POST", path, {"name": "x"}, token=made["token"])).status == 201
    path = "/v2/storage/components/C/configs"
    assert told(await site.ask("POST", path, {"name": "x"}, token=made["token"])) == DENIED
    assert told(await site.ask("GET", path, token=made["token"])) == DENIED


@pytest.mark.scenario("storage-api", 17)
async def test_a_token_without_rights_sees_no_components(site: Site) -> None:
    made = await make(site)
    answer = await site.ask("GET", "/v2/storage/components", token=made["token"])
    assert told(answer) == DENIED


async def test_a_master_token_lists_and_shows_tokens_without_secrets(site: Site) -> None:
    made = await make(site, {"description": "one"})
    for path in (TOKENS, "/v2/storage/branch/default/tokens/"):
        listed = await site.get(path)
        (found,) = [each for each in listed if each["id"] == made["id"]]
        assert not {"token", "owner", "organization"} & set(found)
    one = await site.get(f"{TOKENS}/{made['id']}")
    assert one["description"] == "one"
    assert "token" not in one
    for method in ("GET", "PUT", "DELETE"):
        answer = await site.ask(method, f"{TOKENS}/{made['id']}", token="other")
        assert told(answer)[:2] == (404, "storage.tokens.notFound")


async def test_a_job_may_what_its_token_may(site: Site) -> None:
    mine, other = await bucket(site, "a"), await bucket(site, "b")
    made = await make(
        site,
        {
            "componentAccess": ["C"],
            "bucketPermissions": {mine: "read", other: "write"},
        },
    )

    async def run(source: str, target: str | None = None) -> Any:
        storage: dict[str, Any] = {
            "input": {"tables": [{"source": f"{source}.t", "destination": "t.csv"}]}
        }
        if target is not None:
            storage["output"] = {"tables": [{"source": "t.csv", "destination": f"{target}.out"}]}
        body = {"configData": {"storage": storage}}
        return await site.finished(await site.run(body, token=made["token"]))

    assert (await run(mine))["status"] == "success"
    made = await make(site, {"componentAccess": ["C"], "bucketPermissions": {mine: "read"}})
    refused = await run(other)
    assert refused["status"] == "error"
    assert f'no right to read bucket "{other}"' in refused["result"]["message"]
    site.host.images[IMAGE] = FakeImage(Script(effect=write_a_table))
    refused = await run(mine, mine)
    assert refused["status"] == "error"
    assert f'no right to write to bucket "{mine}"' in refused["result"]["message"]
    refused = await run(mine, "out.c-new")
    assert 'no right to write to bucket "out.c-new"' in refused["result"]["message"]
