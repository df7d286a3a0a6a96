"""Which route a host and a path lead to, and what the answers say of where the server is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.server.conftest import Site
from tests.server.fakes import FakeEngine, make_app

from vaka.errors import InvalidInput
from vaka_server.access import Access
from vaka_server.app import App
from vaka_server.hosts import Hosts
from vaka_server.problems import Refused
from vaka_server.route import Call, Response, Route, absent
from vaka_server.settings import Settings

HEADERS = {"X-StorageApi-Token": "secret"}


async def echo(call: Call, **arguments: str) -> Response:
    """What was understood of a request."""
    told = {"branch": call.branch, "scope": call.scope.branch, "run": call.scope.run_id}
    return call.storage({**told, "base": call.base, **arguments})


async def fail(call: Call, **_: str) -> Response:
    raise Refused(400, "no", code="storage.no", context={"why": "because"})


def add(app: App) -> App:
    """The application with some routes that say what they are given."""
    app.add_routes(
        [
            Route("GET", "/v2/storage/echo/<name>", Access.READ, echo, "Echo", branch=True),
            Route("GET", "/v2/storage/only/<name>", Access.READ, echo, "Only", branch="only"),
            Route("GET", "/v2/storage/anybody", Access.PUBLIC, fail, "Open", branch=True),
            Route("GET", "/queue/echo/<name>", Access.READ, echo, "Echo"),
            Route("GET", "/queue/fail", Access.READ, fail, "Fail", dialect="service"),
            absent("POST", "/v2/storage/absent", "An absent thing"),
        ]
    )
    return app


async def ask(
    app: App, method: str, path: str, headers: dict[str, str] | None = None, **scope: Any
) -> tuple[int, Any]:
    client: Any = app.test_client()
    sent = {**HEADERS, **(headers or {})}
    scope["raw_path"] = path.encode()  # the client of Quart's has decoded it already
    response = await client.open(path, method=method, headers=sent, scope_base=scope)
    assert response.headers.getlist("Content-Type") == ["application/json"]
    return response.status_code, await response.get_json()


def app_with(tmp_path: Path, **settings: Any) -> App:
    return add(make_app(FakeEngine(tmp_path), **settings))


# -- paths -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("in.c-main.users", "in.c-main.users"),
        ("a%20b", "a b"),
        ("a%2Fb%2fc", "a/b/c"),
        ("%2e%2e%2Fx", "../x"),
        ("a%252Fb", "a%2Fb"),
        ("%C4%8D", "č"),
        ("a+b", "a+b"),
    ],
)
async def test_each_part_of_a_path_is_decoded_once(tmp_path: Path, sent: str, name: str) -> None:
    app = app_with(tmp_path)
    for path in (f"/v2/storage/echo/{sent}", f"/v2/storage/echo/{sent}/"):
        status, value = await ask(app, "GET", path)
        assert (status, value["name"]) == (200, name)


@pytest.mark.scenario("storage-api", 5)
@pytest.mark.scenario("storage-api", 6)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
async def test_what_has_no_route_is_404_in_json(tmp_path: Path, method: str) -> None:
    app = app_with(tmp_path)
    unknown = ["/v2/storage/not-a-url", "/v2/storage//echo/a", "/v2/storage/echo/%FF"]
    unknown += ["/v2/storage/echo/a%00b", "/v2/storage/branch/default", "/v2/storage/only/a"]
    for path in unknown:
        status, value = await ask(app, method, path)
        assert (status, value["code"], value["status"]) == (404, "notFound", "error"), path
        assert value["error"]
        assert value["exceptionId"]
    if method != "GET":
        status, value = await ask(app, method, "/v2/storage/echo/a")
        assert (status, value["code"]) == (404, "notFound")


async def test_what_is_knowingly_absent_is_501_for_those_who_may_ask(tmp_path: Path) -> None:
    app = app_with(tmp_path)
    status, value = await ask(app, "POST", "/v2/storage/absent")
    assert (status, value["code"]) == (501, "notImplemented")
    assert value["error"] == "An absent thing is not supported by this server."
    status, value = await ask(app, "POST", "/v2/storage/absent", {"X-StorageApi-Token": ""})
    assert (status, value["code"]) == (401, "storage.tokenInvalid")


@pytest.mark.scenario("storage-api", 11)
async def test_there_are_no_workspaces_to_be_made(site: Site) -> None:
    for prefix in ("", "/branch/default"):
        assert await site.get(f"/v2/storage{prefix}/workspaces") == []
        answer = await site.ask("POST", f"/v2/storage{prefix}/workspaces", {"backend": "snowflake"})
        assert (answer.status, answer.value["code"]) == (501, "notImplemented")


async def test_the_run_of_a_caller_goes_with_what_it_does(tmp_path: Path) -> None:
    app = app_with(tmp_path)
    _, value = await ask(app, "GET", "/v2/storage/echo/a", {"X-KBC-RunId": "12.34"})
    assert value["run"] == "12.34"
    _, value = await ask(app, "GET", "/v2/storage/echo/a", {"X-KBC-RunId": ""})
    assert value["run"] is None
    status, value = await ask(app, "GET", "/v2/storage/echo/a", {"X-KBC-RunId": "1" * 201})
    assert (status, value["code"]) == (400, "storage.validation")


# -- branches --------------------------------------------------------------------------------------


async def test_a_branch_in_the_path_is_the_callers_branch(site: Site) -> None:
    add(site.app)
    catalog = site.engine.catalog
    (project, *_) = await catalog.projects()
    (main,) = await catalog.branches(project.id)
    made = await catalog.create_branch(project.id, "mine")
    for branch, expected in (("default", None), (main.id, None), (made.id, made.id)):
        for rule in ("echo", "only"):
            value = await site.get(f"/v2/storage/branch/{branch}/{rule}/a%2Fb")
            assert (value["branch"], value["name"]) == (expected, "a/b")
            # this project's tables and files are the same in every branch
            assert value["scope"] is None
    assert (await site.get("/v2/storage/echo/a"))["branch"] is None
    await catalog.update_project(project.id, features=["storage-branches"])
    site.app.gate.tokens_changed()
    assert (await site.get(f"/v2/storage/branch/{made.id}/echo/a"))["scope"] == made.id
    assert (await site.get("/v2/storage/branch/default/echo/a"))["scope"] is None


@pytest.mark.scenario("storage-api", 9)
async def test_a_branch_that_is_not_there_is_404(site: Site) -> None:
    add(site.app)
    catalog = site.engine.catalog
    other = (await catalog.projects())[1]
    foreign = await catalog.create_branch(other.id, "theirs")
    for branch in ("999999", "x", "%2F", foreign.id):
        answer = await site.ask("GET", f"/v2/storage/branch/{branch}/echo/a")
        assert (answer.status, answer.value["code"]) == (404, "devBranch.notFound")
        assert answer.value["error"] == "Branch not found"
    # nobody learns of branches without a token
    answer = await site.ask("GET", "/v2/storage/branch/default/anybody", token=None)
    assert answer.status == 401


# -- hosts -----------------------------------------------------------------------------------------


@pytest.mark.scenario("storage-api", 7)
async def test_a_service_has_its_path_on_every_host_and_a_host_of_its_own(tmp_path: Path) -> None:
    app = app_with(tmp_path, host_suffix="example.test")
    for host, path in (
        ("queue.example.test", "/echo/a"),
        ("QUEUE.example.test:8443", "/echo/a/"),
        ("connection.example.test", "/queue/echo/a"),
        ("docker-runner.example.test", "/queue/echo/a"),
        ("syrup.example.test", "/queue/echo/a"),
        ("127.0.0.1:8080", "/queue/echo/a"),
        ("queue.elsewhere.test", "/queue/echo/a"),
    ):
        status, value = await ask(app, "GET", path, {"Host": host})
        assert (status, value["name"]) == (200, "a"), host
    status, _ = await ask(app, "GET", "/queue/echo/a", {"Host": "queue.example.test"})
    assert status == 404


@pytest.mark.scenario("storage-api", 7)
async def test_a_service_that_is_not_here_says_so(tmp_path: Path) -> None:
    app = app_with(tmp_path, host_suffix="*")
    for service in ("ai", "metastore", "data-science", "query", "scheduler", "billing"):
        status, value = await ask(app, "GET", "/anything", {"Host": f"{service}.example.test"})
        assert (status, value["code"]) == (501, 501)
    host = {"Host": "ai.example.test"}
    status, value = await ask(app, "GET", "/docs/components/x", host)
    assert (status, value["code"], value["status"]) == (404, 404, "error")
    for path in ("/docs/question", "/suggest/component"):
        assert (await ask(app, "POST", path, host))[0] == 501


async def test_errors_are_told_as_the_service_tells_them(tmp_path: Path) -> None:
    app = app_with(tmp_path, host_suffix="example.test")
    nobody = {"X-StorageApi-Token": ""}
    for path, host in (
        ("/echo/a", "queue.example.test"),
        ("/queue/fail", "connection.example.test"),
    ):
        status, value = await ask(app, "GET", path, {**nobody, "Host": host})
        assert (status, value["code"], value["status"]) == (401, 401, "error")
        assert (value["error"], value["context"]) == ("Invalid access token", {})
    _, value = await ask(app, "GET", "/queue/fail")
    assert (value["error"], value["code"]) == ("no", 400)
    assert value["context"] == {"why": "because"}
    status, value = await ask(app, "GET", "/v2/storage/anybody", nobody)
    assert (status, value["code"]) == (400, "storage.no")
    assert value["context"] == {"why": "because"}
    status, value = await ask(app, "GET", "/queue/echo/a", nobody)
    assert (status, value["message"]) == (400, "Missing StorageAPI token")
    for path in ("/encryption/x", "/sync-actions/x"):
        _, value = await ask(app, "GET", path)
        assert value["code"] == 404


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "host", "base", "queue"),
    [
        ({}, "localhost:8080", "http://localhost:8080", "http://localhost:8080/queue"),
        ({}, "[::1]:80", "http://[::1]:80", "http://[::1]:80/queue"),
        ({}, "connection.a", "http://connection.a", "http://connection.a/queue"),
        (
            {"host_suffix": "a.test"},
            "connection.a.test:8443",
            "http://connection.a.test:8443",
            "http://queue.a.test:8443",
        ),
        (
            {"host_suffix": "*"},
            "queue.b.test",
            "http://connection.b.test",
            "http://queue.b.test",
        ),
        (
            {"public_url": "https://connection.c.test"},
            "127.0.0.1",
            "https://connection.c.test",
            "https://queue.c.test",
        ),
        (
            {"public_url": "https://d.test/vaka/"},
            "connection.d.test",
            "https://d.test/vaka",
            "https://d.test/vaka/queue",
        ),
    ],
)
async def test_the_server_says_where_it_is_reached(
    tmp_path: Path, settings: dict[str, Any], host: str, base: str, queue: str
) -> None:
    app = make_app(FakeEngine(tmp_path), **settings)
    hosts = Hosts(app.settings)
    async with app.test_request_context("/", headers={"Host": host}) as context:
        request: Any = context.request
        assert hosts.base(request) == base
        assert hosts.service_url(request, "queue") == queue
        runner = queue.replace("queue", "docker-runner") if "queue." in queue else base
        assert hosts.service_url(request, "docker-runner") == runner


async def test_only_a_trusted_proxy_says_what_the_client_asked(tmp_path: Path) -> None:
    said = {
        "Host": "inside:8080",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.test, outside.test",
    }
    path = "/v2/storage/echo/a"
    trusting = app_with(tmp_path, trusted_proxies="10.0.0.0/8, ::1", host_suffix="outside.test")
    for client, base in (
        (("10.1.2.3", 5), "https://outside.test"),
        (("::1", 5), "https://outside.test"),
        (("192.0.2.1", 5), "http://inside:8080"),
        (("a socket", 5), "http://inside:8080"),
        (None, "http://inside:8080"),
    ):
        _, value = await ask(trusting, "GET", path, said, client=client)
        assert value["base"] == base
    # the service follows the host that the client asked, not the one that the proxy did
    queue = {**said, "X-Forwarded-Host": "queue.outside.test"}
    status, _ = await ask(trusting, "GET", "/echo/a", queue, client=("10.1.2.3", 5))
    assert status == 200
    trusting_none = app_with(tmp_path)
    _, value = await ask(trusting_none, "GET", path, said, client=("10.1.2.3", 5))
    assert value["base"] == "http://inside:8080"


async def test_a_host_that_is_none_gets_into_no_address(tmp_path: Path) -> None:
    app = app_with(tmp_path, host_suffix="*")
    for host in ("a/b", "a b", 'a"', "a@b", "queue..", "a:b", ""):
        status, value = await ask(app, "GET", "/v2/storage/echo/a", {"Host": host})
        if status == 200:
            assert value["base"] == f"http://{host}"
        else:
            assert (status, value["error"]) == (400, "The request's Host is no host name.")


def test_a_proxy_that_is_none_is_refused(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, trusted_proxies="10.0.0.1, here")
    with pytest.raises(InvalidInput, match="VAKA_TRUSTED_PROXIES: here is no address"):
        Hosts(settings)


def test_a_route_in_branches_is_two(tmp_path: Path) -> None:
    route = Route("GET", "/v2/storage/x", Access.PUBLIC, echo, "X", branch=True)
    plain, within = route.forms()
    assert plain == replace(route, branch=False)
    assert within.rule == "/v2/storage/branch/<branch>/x"
    assert (within.access, within.is_in_branch) == (Access.READ, True)
