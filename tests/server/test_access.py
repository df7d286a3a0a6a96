"""Who may call what, for every route that is served."""

from __future__ import annotations

from typing import Any

import pytest
from tests.server.conftest import COMPONENT, IMAGE, Site

from vaka.models.storage import StorageScope
from vaka.testing import FakeImage, Printed, Script
from vaka_server.access import Access, requires
from vaka_server.route import Response, Route

CSV = b"id,name\n1,a\n"


class World:
    """A project with one of everything, so that every route has something to be about."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.names: dict[str, str] = {}

    async def build(self, folder: Any) -> None:
        site = self.site
        site.host.images[IMAGE] = FakeImage(Script((Printed(b"{}"),)))
        acting = {**COMPONENT["data"], "synchronous_actions": ["look"]}
        await site.engine.catalog.put_component({**COMPONENT, "data": acting})
        base = "/v2/storage/components/C/configs"
        for method, path, body, data in (
            ("POST", base, {"name": "X", "configurationId": "X"}, None),
            ("POST", f"{base}/X/rows", {"rowId": "R"}, None),
            ("POST", "/v2/storage/buckets", {"name": "b", "stage": "in"}, None),
            ("POST", "/vaka/tables/in.c-b.t/load", None, CSV),
            ("PUT", "/vaka/vault/v", {"value": "1"}, None),
            ("PUT", "/vaka/oauth/C/o", {"id": "o"}, None),
            ("POST", "/vaka/branches", {"name": "b"}, None),
        ):
            answer = await site.ask(method, path, body, data=data)
            assert answer.status in {200, 201, 204}, answer
        file = (await site.ask("POST", "/vaka/files?name=a.txt", data=b"abc")).value["id"]
        job = await site.run()
        await site.finished(job)
        made = await site.ask("POST", "/v2/storage/tokens", {"description": "spare"})
        branch = (await site.ask("GET", "/vaka/branches")).value[-1]
        self.names = {
            "component": "C",
            "config": "X",
            "row": "R",
            "version": "1",
            "bucket": "in.c-b",
            "table": "in.c-b.t",
            "file": str(file),
            "job_id": str(job),
            "token_id": made.value["id"],
            "tag": "1",
            "action": "look",
            "name": "v",
            "credentials": "o",
            "branch": branch["id"],
        }

    def path(self, rule: str) -> str:
        for name, value in self.names.items():
            for form in (f"<{name}>", f"<int:{name}>"):
                rule = rule.replace(form, value)
        assert "<" not in rule, f"the world has nothing for {rule}"
        return rule

    async def photograph(self) -> dict[str, Any]:
        """All that can be read of the project."""
        seen: dict[str, Any] = {}
        for route in routes(self.site):
            if route.method == "GET" and route.access is not Access.PUBLIC:
                path = self.path(route.rule)
                seen[path] = (await self.site.ask("GET", path)).value
        for path in list(seen):
            if path.endswith("/tokens/verify"):
                del seen[path]
        return seen


def routes(site: Site) -> list[Route]:
    """Every route of the application itself: nothing is served that is none."""
    found = []
    for rule in site.app.url_map.iter_rules():
        view = site.app.view_functions[rule.endpoint]
        assert isinstance(view, Route)
        assert rule.methods is not None
        assert rule.methods - {"HEAD", "OPTIONS"} == {view.method}
        found.append(view)
    assert len(found) > 40
    return found


@pytest.fixture
async def world(site: Site, tmp_path: Any) -> World:
    made = World(site)
    await made.build(tmp_path)
    return made


OWN_NAMES = ("/docker", "/<component>/action", "/vaka/tables", "/vaka/vault", "/vaka/oauth")
"""Paths with names that each project has for itself."""
BODIES: dict[str, Any] = {
    "RunRequest": {"configData": {}},
    "ActionRequest": {"configData": {}},
    "ErrorNote": {"errorNote": "changed"},
    "NewToken": {"description": "stolen"},
    "NewComponent": {"type": "other", "name": "changed", "data": {}},
    "NewConfiguration": {"name": "changed"},
    "ConfigurationChanges": {"name": "changed"},
    "NewRow": {"name": "changed"},
    "NewState": {"state": {"a": "changed"}},
    "NewBucket": {"name": "changed"},
    "NewVaultVariable": {"value": "changed"},
    "Credentials": {"id": "changed"},
    "NewBranch": {"name": "stolen"},
    "GarbageRequest": {"timeout": 60},
}


async def call(world: World, route: Route, token: str | None) -> tuple[int, Any]:
    path = world.path(route.rule)
    body, data = None, None
    if route.body is not None and "/" in route.body:
        data = b"id,name\n9,changed\n"
        path += "?name=changed.csv" if "files" in path else ""
    elif route.body is not None:
        body = BODIES[route.body]
    answer = await world.site.ask(route.method, path, body, token=token, data=data)
    return answer.status, answer.value


async def test_without_a_token_only_public_routes_answer(world: World) -> None:
    before = await world.photograph()
    for route in routes(world.site):
        status, value = await call(world, route, None)
        if route.access is Access.PUBLIC:
            assert status == 200, route.endpoint
        elif route.rule.startswith(("/v2/storage", "/vaka")):
            assert (status, value["code"]) == (401, "storage.tokenInvalid"), route.endpoint
        else:
            assert (status, value["message"]) == (400, "Missing StorageAPI token"), route.endpoint
    assert await world.photograph() == before


async def test_a_token_that_nobody_knows_opens_nothing(world: World) -> None:
    before = await world.photograph()
    for route in routes(world.site):
        status, _ = await call(world, route, "1-2-unknown")
        assert status == (200 if route.access is Access.PUBLIC else 401), route.endpoint
    assert await world.photograph() == before


async def test_a_token_to_read_changes_nothing(world: World) -> None:
    before = await world.photograph()
    for route in routes(world.site):
        status, value = await call(world, route, "read")
        if route.access in {Access.RUN, Access.ADMIN}:
            assert status == 403, route.endpoint
            words = value.get("message", value["error"])
            assert words == "You don't have access to the resource."
        elif route.rule != "/docker/run":  # refused whoever asks
            assert status == 200, (route.endpoint, value)
    assert await world.photograph() == before


async def test_a_token_to_run_runs_and_changes_nothing_else(world: World) -> None:
    for route in routes(world.site):
        if route.access is Access.ADMIN:
            status, _ = await call(world, route, "run")
            assert status == 403, route.endpoint
    for route in routes(world.site):
        if route.access is Access.RUN:
            status, value = await call(world, route, "run")
            ended = route.rule.endswith("/kill")  # the world's only job has ended
            assert status == 400 if ended else status < 300, (route.endpoint, value)


async def test_the_token_of_another_project_reaches_nothing_of_this_one(world: World) -> None:
    before = await world.photograph()
    shared = {"/v2/storage/components/<component>"}  # components are the installation's
    for route in routes(world.site):
        if route.access is Access.PUBLIC or route.rule in shared:
            continue
        status, value = await call(world, route, "other")
        if route.rule == "/vaka/gc":  # the installation's, which the first project's admins clean
            assert status == 403, route.endpoint
            continue
        assert status not in {401, 403}, (route.endpoint, value)
        if "<" in route.rule and not route.rule.startswith(OWN_NAMES):
            # what it makes there is its own: the component is everybody's
            own = route.rule == "/v2/storage/components/<component>/configs"
            assert own or status == 404, (route.endpoint, status, value)
        if route.method == "GET" and status == 200:
            text = str(value)
            assert "in.c-b.t" not in text, route.endpoint
            assert "the admin" not in text, route.endpoint
    assert await world.photograph() == before


async def test_an_admin_may_call_everything(world: World) -> None:
    removals = []
    for route in routes(world.site):
        if route.method == "DELETE":
            removals.append(route)
            continue
        status, value = await call(world, route, "admin")
        assert status not in {401, 403, 404, 405, 500}, (route.endpoint, status, value)
    # the innermost first, so that each still has something to remove
    for route in sorted(removals, key=lambda each: -len(each.rule)):
        status, value = await call(world, route, "admin")
        assert status == 204, (route.endpoint, value)


async def test_a_route_that_does_not_say_who_may_call_it_answers_nobody(site: Site) -> None:
    async def open_to_all() -> str:
        return "secret"

    @requires(Access.READ)
    async def readable() -> str:
        return "read"

    @requires(Access.PUBLIC)
    async def public() -> Response:
        return Response(b"anybody")

    site.app.add_url_rule("/plugin/forgotten", "forgotten", open_to_all)
    site.app.add_url_rule("/plugin/readable", "readable", readable)
    site.app.add_url_rule("/plugin/public", "public", public)
    for token in (None, "read", "admin"):
        answer = await site.ask("GET", "/plugin/forgotten", token=token)
        assert answer.status == 403
        assert "secret" not in str(answer.value)
    assert (await site.ask("GET", "/plugin/readable", token=None)).status == 400
    assert (await site.ask("GET", "/plugin/readable", token="read")).value == b"read"
    assert (await site.ask("GET", "/plugin/public", token=None)).value == b"anybody"


async def test_a_token_for_some_components_sees_the_others_not(world: World) -> None:
    site = world.site
    await site.engine.catalog.put_component(
        {"id": "D", "type": "other", "name": "D", "data": {"definition": {}}}
    )
    made = await site.ask(
        "POST",
        "/v2/storage/tokens",
        {"description": "limited", "role": "admin", "componentAccess": ["D"]},
    )
    limited = made.value["token"]
    configs = "/v2/storage/components/C/configs"
    assert (await site.ask("GET", configs, token=limited)).status == 403
    assert (await site.ask("POST", configs, {"name": "x"}, token=limited)).status == 403
    assert (await site.ask("GET", f"{configs}/X/versions", token=limited)).status == 403
    assert (await site.ask("DELETE", f"{configs}/X", token=limited)).status == 403
    assert (await site.ask("GET", f"{configs}/X/rows/R/state", token=limited)).status == 403
    assert (await site.get("/v2/storage/components", token=limited)) == []
    path = f"/queue/job/{world.names['job_id']}/kill"
    assert (await site.ask("POST", path, token=limited)).status == 403
    # and it cannot make itself one that is not limited
    for method, path in (
        ("POST", "/v2/storage/tokens"),
        ("GET", "/v2/storage/tokens"),
        ("DELETE", f"/v2/storage/tokens/{world.names['token_id']}"),
    ):
        body = {"description": "free", "role": "admin"} if method == "POST" else None
        assert (await site.ask(method, path, body, token=limited)).status == 403


async def test_a_token_for_some_buckets_sees_the_others_not(world: World) -> None:
    site = world.site
    await site.engine.storage.tables.create_bucket(StorageScope("1"), "in", "mine")
    for permission, statuses in (("read", (200, 403)), ("write", (200, 200))):
        made = await site.ask(
            "POST",
            "/v2/storage/tokens",
            {
                "description": "limited",
                "role": "admin",
                "bucketPermissions": {"in.c-mine": permission},
            },
        )
        limited = made.value["token"]
        for path in (
            "/v2/storage/buckets/in.c-b",
            "/v2/storage/buckets/in.c-b/tables",
            "/v2/storage/tables/in.c-b.t",
            "/v2/storage/tables/in.c-b.t/data-preview",
            "/vaka/tables/in.c-b.t/export",
        ):
            assert (await site.ask("GET", path, token=limited)).status == 403, path
        assert [b["id"] for b in await site.get("/v2/storage/buckets", token=limited)] == [
            "in.c-mine"
        ]
        assert "in.c-b.t" not in str(await site.get("/v2/storage/tables", token=limited))
        load = "/vaka/tables/in.c-{}.t/load"
        other = await site.ask("POST", load.format("b"), token=limited, data=CSV)
        assert other.status == 403
        mine = await site.ask("POST", load.format("mine"), token=limited, data=CSV)
        read = await site.ask("GET", "/v2/storage/buckets/in.c-mine", token=limited)
        assert (read.status, mine.status) == statuses
