"""Metadata of buckets, tables and columns over HTTP (storage-api.md section 8)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.server.conftest import Site
from tests.server.warehouse import TABLE, Warehouse, refused

ENTRY = {"key": "KBC.description", "value": "words"}


@pytest.fixture
def store(site: Site, tmp_path: Path) -> Warehouse:
    return Warehouse(site, tmp_path)


async def test_metadata_of_a_bucket(store: Warehouse) -> None:
    await store.bucket()
    path = "/buckets/in.c-b/metadata"
    body = {"provider": "user", "metadata": [ENTRY]}
    first = await store.ask("POST", path, body)
    assert first.status == 201
    (entry,) = first.value
    assert set(entry) == {"id", "key", "value", "provider", "timestamp"}
    assert (isinstance(entry["id"], str), entry["value"]) == (True, "words")
    more = {"provider": "system", "metadata[0][key]": "k", "metadata[0][value]": "v"}
    both = await store.form("POST", path, more)
    assert [each["key"] for each in both.value] == ["KBC.description", "k"]
    again = await store.ask("POST", path, {**body, "metadata": [{**ENTRY, "value": "new"}]})
    assert (again.value[0]["id"], again.value[0]["value"]) == (entry["id"], "new")
    assert again.value == await store.get(path)
    assert again.value == (await store.get("/buckets/in.c-b"))["metadata"]
    assert (await store.ask("DELETE", f"{path}/{entry['id']}")).status == 204
    missing = await store.ask("DELETE", f"{path}/{entry['id']}")
    assert refused(missing) == (404, "storage.metadata.notFound")
    assert missing.value["error"] == "The supplied metadata ID was not found"
    absent = await store.ask("POST", "/buckets/in.c-none/metadata", body)
    assert refused(absent) == (404, "storage.buckets.notFound")


@pytest.mark.parametrize(
    "columns",
    [
        {"id": [{"key": "k", "value": "v"}]},
        {"0": [{"key": "k", "value": "v", "columnName": "id"}]},
        [[{"key": "k", "value": "v", "columnName": "id"}]],
        {"name": [{"key": "k", "value": "v", "columnName": "id"}]},
    ],
)
async def test_metadata_of_columns_in_all_shapes(store: Warehouse, columns: Any) -> None:
    await store.table("id,name\n")
    body = {"provider": "user", "metadata": [ENTRY], "columnsMetadata": columns}
    path = f"/tables/{TABLE}/metadata"
    first = await store.ask("POST", path, body)
    second = await store.ask("POST", path, body)

    assert (first.status, list(first.value["columnsMetadata"])) == (201, ["id"])
    detail = await store.get(f"/tables/{TABLE}")
    assert detail["metadata"] == second.value["metadata"]
    assert detail["columnMetadata"] == second.value["columnsMetadata"]
    (entry,) = detail["columnMetadata"]["id"]
    assert (entry["key"], entry["value"], entry["provider"]) == ("k", "v", "user")
    assert entry["id"] == first.value["columnsMetadata"]["id"][0]["id"]
    only = {"provider": "user", "columnsMetadata": columns}
    assert (await store.ask("POST", path, only)).status == 201


@pytest.mark.scenario("storage-api", 88)
async def test_the_answer_is_a_list_for_forms_and_an_object_for_json(store: Warehouse) -> None:
    await store.table("id,name\n")
    path = f"/tables/{TABLE}/metadata"
    form = {
        "provider": "user",
        "metadata[0][key]": "a",
        "metadata[0][value]": "1",
        "columnsMetadata[0][0][key]": "k",
        "columnsMetadata[0][0][value]": "v",
        "columnsMetadata[0][0][columnName]": "name",
    }
    as_list = await store.form("POST", path, form)
    assert (as_list.status, [each["key"] for each in as_list.value]) == (201, ["a"])
    as_object = await store.ask("POST", path, {"provider": "user", "metadata": [ENTRY]})
    assert set(as_object.value) == {"metadata", "columnsMetadata"}
    assert [each["key"] for each in as_object.value["metadata"]] == ["a", "KBC.description"]
    assert list(as_object.value["columnsMetadata"]) == ["name"]
    assert await store.get(path) == as_object.value["metadata"]
    removed = as_list.value[0]["id"]
    assert (await store.ask("DELETE", f"{path}/{removed}")).status == 204
    assert [each["key"] for each in await store.get(path)] == ["KBC.description"]


async def test_metadata_of_one_column(store: Warehouse) -> None:
    await store.table("id,name\n")
    path = f"/columns/{TABLE}.name/metadata"
    assert await store.get(path) == []
    made = await store.ask("POST", path, {"provider": "user", "metadata": [ENTRY]})
    assert (made.status, [each["value"] for each in made.value]) == (201, ["words"])
    assert await store.get(path) == made.value
    for missing in (f"/columns/{TABLE}.other/metadata", "/columns/in.c-b.none.id/metadata"):
        assert (await store.ask("GET", missing)).status == 404
    foreign = await store.ask("DELETE", f"/columns/{TABLE}.id/metadata/{made.value[0]['id']}")
    assert refused(foreign) == (404, "storage.metadata.notFound")
    assert (await store.ask("DELETE", f"{path}/{made.value[0]['id']}")).status == 204
    assert await store.get(path) == []


@pytest.mark.scenario("storage-api", 90)
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"provider": "user", "metadata": [{"key": "%+", "value": "x"}]}, "invalidKey"),
        ({"provider": "user", "metadata": [{"key": "", "value": "x"}]}, "invalidKey"),
        ({"provider": "user", "metadata": [{"key": "a" * 256, "value": "x"}]}, "invalidKey"),
        ({"metadata": [ENTRY]}, "invalidProvider"),
        ({"provider": "", "metadata": [ENTRY]}, "invalidProvider"),
        ({"provider": "%%", "metadata": [ENTRY]}, "invalidProvider"),
        ({"provider": "user", "metadata": "text"}, "invalidStructure"),
        ({"provider": "user", "metadata": ["text"]}, "invalidStructure"),
        ({"provider": "user", "metadata": [{"key": "k"}]}, "invalidStructure"),
        ({"provider": "user", "metadata": [{"key": "k", "value": {}}]}, "invalidStructure"),
        ({"provider": "user"}, "invalidStructure"),
    ],
)
async def test_metadata_that_cannot_be_are_refused(
    store: Warehouse, body: Any, expected: str
) -> None:
    await store.table("id\n")
    for path in ("/buckets/in.c-b", f"/tables/{TABLE}", f"/columns/{TABLE}.id"):
        answer = await store.ask("POST", f"{path}/metadata", body)
        assert refused(answer) == (400, f"storage.metadata.{expected}")
        assert await store.get(f"{path}/metadata") == []
        missing = await store.ask("DELETE", f"{path}/metadata/123456")
        assert refused(missing) == (404, "storage.metadata.notFound")


async def test_metadata_of_a_column_that_is_not_there(store: Warehouse) -> None:
    await store.table("id\n")
    body = {"provider": "user", "metadata": [ENTRY], "columnsMetadata": {"x": [ENTRY]}}
    answer = await store.ask("POST", f"/tables/{TABLE}/metadata", body)
    assert refused(answer) == (404, "storage.tables.columnNotExists")
    for wrong in ("text", {"id": "text"}, [ENTRY]):
        body = {"provider": "user", "metadata": [ENTRY], "columnsMetadata": wrong}
        answer = await store.ask("POST", f"/tables/{TABLE}/metadata", body)
        assert refused(answer) == (400, "storage.metadata.invalidStructure")
    assert await store.get(f"/tables/{TABLE}/metadata") == []


@pytest.mark.scenario("storage-api", 91)
async def test_metadata_go_with_what_they_are_about(store: Warehouse) -> None:
    await store.table("id,name\n")
    body = {
        "provider": "user",
        "metadata": [ENTRY],
        "columnsMetadata": {"id": [ENTRY], "name": [ENTRY]},
    }
    await store.ask("POST", f"/tables/{TABLE}/metadata", body)
    await store.done(await store.ask("DELETE", f"/tables/{TABLE}/columns/name"))
    await store.done(await store.ask("POST", f"/tables/{TABLE}/columns", {"name": "name"}))
    assert list((await store.get(f"/tables/{TABLE}"))["columnMetadata"]) == ["id"]
    await store.ask("DELETE", f"/tables/{TABLE}")
    made = await store.table("id,name\n")
    assert (made["metadata"], made["columnMetadata"]) == ([], {})
