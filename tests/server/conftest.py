"""A server with everything real but the daemon: store, catalog, tables and files are on disk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer.main
import typer.testing
from tests.keys import KEY_RING
from werkzeug.urls import iri_to_uri

from vaka import Engine
from vaka.hooks import ContainerRuntime, hookimpl
from vaka.models.catalog import Role
from vaka.testing import FakeHost, FakeRuntime, Script
from vaka_server.app import App, create_app
from vaka_server.cli.main import create_cli
from vaka_server.settings import Settings

IMAGE = "worker:1"
cli = cache(create_cli)
"""The command: made once, because that takes longer than most of what it does."""
COMPONENT: dict[str, Any] = {
    "id": "C",
    "type": "application",
    "name": "Worker",
    "data": {"definition": {"type": "dockerhub", "uri": "worker", "tag": "1"}},
}


def runtime_plugin(host: FakeHost) -> object:
    """Lets engines run their containers on `host`."""

    @hookimpl
    def vaka_container_runtime(url: str) -> ContainerRuntime:
        return FakeRuntime(host=host)

    return SimpleNamespace(vaka_container_runtime=vaka_container_runtime)


@dataclass
class Answer:
    status: int
    value: Any
    headers: Any = field(repr=False, default=None)


@dataclass
class Site:
    """A server with a project, its tokens by role, and a component `C`."""

    engine: Engine
    app: App
    host: FakeHost
    tokens: dict[str, str]

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = "admin",
        headers: dict[str, str] | None = None,
        data: bytes | None = None,
    ) -> Answer:
        sent = dict(headers or {})
        if token is not None:
            sent["X-StorageApi-Token"] = self.tokens.get(token, token)
        # Quart's client decodes the path, which is more than clients do
        raw_path = iri_to_uri(path.partition("?")[0]).encode()
        options: dict[str, Any] = {"scope_base": {"raw_path": raw_path}}
        if data is not None:
            options["data"] = data
        if body is not None:
            options["json"] = body
        response = await self.app.test_client().open(path, method=method, headers=sent, **options)
        raw = await response.get_data()
        is_json = response.content_type == "application/json" and raw
        value = await response.get_json() if is_json else raw
        return Answer(response.status_code, value, response.headers)

    async def get(self, path: str, **options: Any) -> Any:
        """The document at a path; fails unless it is there."""
        answer = await self.ask("GET", path, **options)
        assert answer.status == 200, answer
        return answer.value

    async def run(self, body: Any = None, **options: Any) -> int:
        """The id of a new job; an inline one unless `body` says otherwise."""
        answer = await self.ask("POST", "/docker/C/run", body or {"configData": {}}, **options)
        assert answer.status == 202, answer
        return int(answer.value["id"])

    async def job(self, id_: int, query: str = "") -> Any:
        return await self.get(f"/queue/job/{id_}{query}")

    async def finished(self, id_: int) -> Any:
        """A job's document once it has ended."""
        await (await self.engine.job(id_)).wait()
        return await self.job(id_)


@pytest.fixture(scope="session", autouse=True)
def one_command() -> Iterator[None]:
    """The runner of commands, which makes one anew for each call, does it once for `cli`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", cache(typer.main.get_command))
        yield


@pytest.fixture
def host() -> FakeHost:
    return FakeHost({IMAGE: Script()})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        home=tmp_path / "home", idle_poll=0.5, shutdown="stop", key_ring_document=KEY_RING
    )


@pytest.fixture
async def site(settings: Settings, host: FakeHost) -> AsyncIterator[Site]:
    async with Engine(settings.engine, plugins=[runtime_plugin(host)]) as engine:
        yield await make_site(engine, settings, host)


async def make_site(engine: Engine, settings: Settings, host: FakeHost) -> Site:
    catalog = engine.catalog
    projects = await catalog.projects()
    project = projects[0] if projects else await catalog.create_project("One")
    other = await catalog.create_project("Two")
    tokens = {}
    for role in Role:
        _, tokens[role.value] = await catalog.create_token(project.id, f"the {role}", role)
    _, tokens["other"] = await catalog.create_token(other.id, "the other", Role.ADMIN)
    await catalog.put_component(COMPONENT)
    return Site(engine, create_app(engine, settings), host, tokens)
