"""`/openapi.json` describes the routes that are served, and nothing else."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.server.fakes import FakeEngine, make_app

from vaka_server.access import Access
from vaka_server.app import App
from vaka_server.route import Route


@pytest.fixture
def app(tmp_path: Path) -> App:
    return make_app(FakeEngine(tmp_path))


async def document(app: App) -> dict[str, Any]:
    response = await app.test_client().get("/openapi.json")
    assert response.status_code == 200
    found: dict[str, Any] = await response.get_json()
    return found


def operations(found: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in found["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for member in value.values():
            yield from references(member)
    elif isinstance(value, list):
        for member in value:
            yield from references(member)


async def test_every_route_is_described_and_nothing_else(app: App) -> None:
    found = await document(app)
    served = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if method not in {"HEAD", "OPTIONS"}
    }
    assert {(path, method) for path, method, _ in operations(found)} == served


async def test_the_document_is_whole(app: App) -> None:
    found = await document(app)
    assert found["openapi"] == "3.1.0"
    assert set(found) == {"openapi", "info", "servers", "paths", "components"}
    assert set(found["info"]) == {"title", "version", "description"}
    schemas = found["components"]["schemas"]
    used = set(references(found))
    assert used
    for reference in used:
        assert reference.removeprefix("#/components/schemas/") in schemas
    ids = [operation["operationId"] for _, _, operation in operations(found)]
    assert len(ids) == len(set(ids))
    for path, _, operation in operations(found):
        variables = set(re.findall(r"{(\w+)}", path))
        declared = [p for p in operation["parameters"] if p["in"] == "path"]
        assert {p["name"] for p in declared} == variables
        assert all(p["required"] for p in declared)
        names = [(p["in"], p["name"]) for p in operation["parameters"]]
        assert len(names) == len(set(names))
        assert all(set(p["schema"]) & {"type"} for p in operation["parameters"])
        assert operation["responses"]
        for code, response in operation["responses"].items():
            assert re.fullmatch(r"[2-5]\d\d|default", code)
            assert response["description"]
            for media in response.get("content", {}).values():
                assert set(media) == {"schema"}
        assert operation["summary"]


async def test_what_needs_a_token_says_so(app: App) -> None:
    found = await document(app)
    (scheme,) = found["components"]["securitySchemes"].values()
    assert scheme == {"type": "apiKey", "in": "header", "name": "X-StorageApi-Token"}
    by_operation = {
        (path, method): operation["security"] for path, method, operation in operations(found)
    }
    for view in app.view_functions.values():
        assert isinstance(view, Route)
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", view.rule)
        expected: list[Any] = [] if view.access is Access.PUBLIC else [{"token": []}]
        assert by_operation[path, view.method.lower()] == expected
