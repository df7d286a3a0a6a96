"""Buckets over HTTP (storage-api.md section 6)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.server.conftest import Site
from tests.server.warehouse import SCOPE, Warehouse, refused

from vaka.models.catalog import Role


@pytest.fixture
def store(site: Site, tmp_path: Path) -> Warehouse:
    return Warehouse(site, tmp_path)


async def test_a_bucket_is_made_as_clients_make_it(store: Warehouse) -> None:
    fields = {"name": "py-test", "stage": "in", "description": "for tests"}
    made = await store.form("POST", "/buckets", fields)
    assert made.status == 201
    expected = {
        "uri": "http://localhost/v2/storage/buckets/in.c-py-test",
        "id": "in.c-py-test",
        "name": "c-py-test",
        "displayName": "py-test",
        "stage": "in",
        "description": "for tests",
        "tables": [],
        "lastChangeDate": None,
        "isReadOnly": False,
        "dataSizeBytes": 0,
        "rowsCount": 0,
        "tablesCount": 0,
        "isMaintenance": False,
        "backend": "snowflake",
        "sharing": None,
        "hasExternalSchema": False,
        "databaseName": None,
        "path": "main.in.c-py-test",
        "backendPath": ["MAIN", "in.c-py-test"],
        "color": None,
        "owner": None,
        "isLinkedBucket": False,
        "linkedBy": [],
        "bucketSharingAllowed": False,
        "attributes": [],
        "metadata": [],
    }
    detail = await store.get("/buckets/in.c-py-test")
    assert {key: value for key, value in detail.items() if key not in {"created", "updated"}} == (
        expected
    )
    assert made.value == detail
    verbatim = await store.ask("POST", "/buckets", {"name": "c-foo", "stage": "out"})
    assert verbatim.value["id"] == "out.c-c-foo"
    shown = await store.ask(
        "POST",
        "/buckets",
        {"name": "x", "displayName": "X-1", "color": "red", "backend": "snowflake"},
    )
    assert (shown.value["displayName"], shown.value["color"]) == ("X-1", "red")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"name": "a", "stage": "x"}, marks=pytest.mark.scenario("storage-api", 56)),
        pytest.param({"name": "a b"}, marks=pytest.mark.scenario("storage-api", 56)),
        pytest.param(
            {"name": "a", "backend": "abacus"}, marks=pytest.mark.scenario("storage-api", 56)
        ),
        {},
        {"name": "a" * 97},
        {"name": "a.b"},
        pytest.param(
            {"name": "a", "displayName": "$$$$$"}, marks=pytest.mark.scenario("storage-api", 55)
        ),
        {"name": "a", "displayName": ""},
    ],
)
async def test_a_bucket_that_cannot_be_is_refused(store: Warehouse, body: Any) -> None:
    answer = await store.ask("POST", "/buckets", body)
    assert refused(answer) == (400, "storage.buckets.validation")
    if body.get("displayName"):
        assert answer.value["error"] == (
            "Invalid data - displayName: Only alphanumeric characters dash and underscores are allowed."
        )
    assert await store.get("/buckets") == []


@pytest.mark.scenario("storage-api", 54)
async def test_names_are_given_once(store: Warehouse) -> None:
    await store.bucket("a")
    again = await store.form("POST", "/buckets", {"name": "a", "stage": "in"})
    assert refused(again) == (400, "storage.buckets.alreadyExists")
    assert again.value["error"] == "The bucket a already exists"
    same = await store.ask("POST", "/buckets", {"name": "b", "displayName": "a"})
    assert refused(same) == (400, "storage.buckets.alreadyExists")
    assert same.value["error"] == 'The display name "a" already exists in project.'
    assert (await store.ask("POST", "/buckets", {"name": "a", "stage": "out"})).status == 201
    assert (await store.ask("GET", "/buckets/in.c-b")).status == 404


async def test_a_missing_bucket_is_missing_at_once(store: Warehouse) -> None:
    for path in ("/buckets/in.c-none", "/buckets/nonsense", "/buckets/in.c-a%2Fb"):
        for method, query in (("GET", ""), ("PUT", ""), ("DELETE", ""), ("DELETE", "?async=True")):
            answer = await store.ask(method, path + query)
            assert refused(answer) == (404, "storage.buckets.notFound"), (method, path)
    missing = await store.ask("DELETE", "/buckets/in.c-none?force=True&async=True")
    assert missing.value["error"] == "Bucket in.c-none not found"
    assert refused(await store.ask("GET", "/buckets/in.c-none/tables")) == (
        404,
        "storage.buckets.notFound",
    )


@pytest.mark.scenario("storage-api", 52)
async def test_a_bucket_with_tables_is_deleted_by_force_only(store: Warehouse) -> None:
    await store.table("id\n1\n")
    for query in ("", "?async=1", "?force=False&async=True"):
        answer = await store.ask("DELETE", f"/buckets/in.c-b{query}")
        assert refused(answer) == (400, "buckets.deleteNotEmpty")
        assert answer.value["error"] == (
            "Only empty buckets can be deleted. There are 1 tables in the bucket."
        )
    assert (
        await store.done(await store.ask("DELETE", "/buckets/in.c-b?force=True&async=True")) is None
    )
    assert await store.get("/buckets") == []
    assert refused(await store.ask("GET", "/tables/in.c-b.t")) == (404, "storage.tables.notFound")
    await store.bucket()
    deleted = await store.ask("DELETE", "/buckets/in.c-b/?force=false")
    assert (deleted.status, deleted.value) == (204, b"")


@pytest.mark.scenario("storage-api", 57)
async def test_a_list_holds_what_is_to_be_included(store: Warehouse) -> None:
    await store.table("id\n1\n")

    (bare,) = await store.get("/buckets?include=")
    (usual,) = await store.get("/buckets")
    (said,) = await store.get("/buckets?include=metadata")

    assert not {"attributes", "metadata"} & set(bare)
    assert (usual["attributes"], "metadata" in usual) == ([], False)
    assert (said["metadata"], "attributes" in said) == ([], False)
    assert usual["tables"] == "http://localhost/v2/storage/buckets/in.c-b/tables"
    assert (usual["tablesCount"], usual["rowsCount"]) == (1, 1)
    assert usual["dataSizeBytes"] > 0
    assert usual["lastChangeDate"] == usual["updated"]


@pytest.mark.scenario("storage-api", 58)
async def test_a_bucket_gets_another_display_name(store: Warehouse) -> None:
    await store.bucket("a")
    await store.bucket("b")
    path = "/buckets/in.c-a"
    for name in ("One", "One"):  # its own name is no conflict
        changed = await store.ask("PUT", path, {"displayName": name, "color": "blue"})
        assert (changed.status, changed.value["displayName"]) == (200, "One")
    later = await store.done(await store.ask("PUT", f"{path}?async=true", {"displayName": "Two"}))
    assert (later["displayName"], later["color"]) == ("Two", "blue")
    in_body = await store.done(await store.form("PUT", path, {"displayName": "Two", "async": "1"}))
    assert in_body["displayName"] == "Two"
    assert (await store.get(path))["displayName"] == "Two"
    taken = await store.ask("PUT", path, {"displayName": "b"})
    assert refused(taken) == (400, "storage.buckets.alreadyExists")
    code, message = await store.failed(
        await store.ask("PUT", path, {"displayName": "b", "async": True})
    )
    assert (code, message) == (
        "storage.buckets.alreadyExists",
        'The display name "b" already exists in project.',
    )
    assert refused(await store.ask("PUT", path, {"displayName": "$"})) == (
        400,
        "storage.buckets.validation",
    )


async def test_what_is_shared_is_not_here(store: Warehouse) -> None:
    await store.bucket()
    assert await store.get("/shared-buckets") == []
    for method, path in (
        ("POST", "/buckets/in.c-b/share"),
        ("POST", "/buckets/register"),
        ("PUT", "/branch/default/buckets/in.c-b/owner"),
    ):
        assert refused(await store.ask(method, path)) == (501, "notImplemented")
    linked = await store.ask("POST", "/buckets", {"name": "l", "sourceProjectId": 2})
    assert refused(linked) == (501, "notImplemented")


async def test_buckets_are_in_the_default_branch(store: Warehouse) -> None:
    made = await store.ask("POST", "/branch/default/buckets", {"name": "a"})
    assert made.status == 201
    assert await store.get("/branch/default/buckets") == await store.get("/buckets")
    assert (await store.ask("DELETE", "/branch/default/buckets/in.c-a")).status == 204


async def test_a_token_for_some_buckets_manages_none(store: Warehouse) -> None:
    await store.table("id\n1\n")
    await store.bucket("other")
    _, limited = await store.site.engine.catalog.create_token(
        SCOPE.project, "limited", Role.ADMIN, bucket_permissions={"in.c-b": "write"}
    )
    _, reader = await store.site.engine.catalog.create_token(
        SCOPE.project, "reader", Role.ADMIN, bucket_permissions={"in.c-b": "read"}
    )

    for token in (limited, reader):
        buckets = await store.ask("GET", "/buckets", token=token)
        assert [each["id"] for each in buckets.value] == ["in.c-b"]
        for method, path, body in (
            ("POST", "/buckets", {"name": "new"}),
            ("PUT", "/buckets/in.c-b", {"displayName": "x"}),
            ("DELETE", "/buckets/in.c-b?force=1", None),
            ("GET", "/buckets/in.c-other", None),
            ("GET", "/buckets/in.c-other/tables", None),
            ("POST", "/buckets/in.c-other/metadata", {}),
        ):
            answer = await store.ask(method, path, body, token=token)
            assert refused(answer) == (403, "accessDenied"), (method, path)

    said = {"provider": "user", "metadata": [{"key": "k", "value": "v"}]}
    writes: list[tuple[str, str, Any]] = [
        ("POST", "/buckets/in.c-b/metadata", said),
        ("POST", "/tables/in.c-b.t/metadata", said),
        ("POST", "/columns/in.c-b.t.id/metadata", said),
        ("POST", "/tables/in.c-b.t/columns", {"name": "x"}),
        ("DELETE", "/tables/in.c-b.t/rows?allowTruncate=1", None),
        ("POST", "/buckets/in.c-b/tables-definition", {"name": "n", "columns": [{"name": "a"}]}),
        ("PUT", "/tables/in.c-b.t", {"displayName": "T"}),
        ("POST", "/tables/in.c-b.t/snapshots", {}),
        ("DELETE", "/tables/in.c-b.t", None),
    ]
    for method, path, given in writes:
        answer = await store.ask(method, path, given, token=reader)
        assert refused(answer) == (403, "accessDenied"), (method, path)
    for method, path, given in writes:
        answer = await store.ask(method, path, given, token=limited)
        assert answer.status in {200, 201, 202, 204}, (method, path, answer)
        if answer.status == 202:
            await store.done(answer)
