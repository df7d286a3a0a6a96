"""Who may call what, for every route that is served."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from tests.server.conftest import COMPONENT, IMAGE, Site

from vaka.models.storage import StorageScope
from vaka.testing import FakeImage, Printed, Script
from vaka_keyring import ring
from vaka_server.access import Access, requires
from vaka_server.problems import path_dialect
from vaka_server.route import BRANCH, Response, Route
from vaka_server.settings import Settings

REMARKS = {"provider": "user", "metadata": [{"key": "k", "value": "v"}]}
CSV = b"id,name\n1,a\n"


class World:
    """A project with one of everything, so that every route has something to be about."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.names: dict[str, str] = {}
        self.own_names: dict[str, dict[str, str]] = {}
        """What a rule means by a variable when it is not what the others do."""

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
            ("POST", "/v2/storage/buckets/in.c-b/metadata", REMARKS, None),
            ("POST", "/v2/storage/tables/in.c-b.t/metadata", REMARKS, None),
            ("POST", "/v2/storage/columns/in.c-b.t.name/metadata", REMARKS, None),
            ("POST", f"{base}/X/metadata", REMARKS, None),
            ("POST", "/v2/storage/branch/default/metadata", REMARKS, None),
        ):
            answer = await site.ask(method, path, body, data=data)
            assert answer.status in {200, 201, 204}, answer
        file = (await site.ask("POST", "/vaka/files?name=a.txt", data=b"abc")).value["id"]
        job = await site.run()
        await site.finished(job)
        made = await site.ask("POST", "/v2/storage/tokens", {"description": "spare"})
        branch = (await site.ask("GET", "/vaka/branches")).value[-1]
        operation = await site.ask("POST", "/v2/storage/dev-branches", {"name": "c"})
        workspace = await site.ask("POST", f"{base}/X/workspaces", {})
        event = await site.ask("POST", "/v2/storage/events", BODIES["NewStorageEvent"])
        trigger = await site.ask("POST", "/v2/storage/triggers", BODIES["NewTrigger"])
        await site.engine.operations.wait(operation.value["id"])
        taken = await site.ask("POST", "/v2/storage/tables/in.c-b.t/snapshots", {})
        snapshot = await site.engine.operations.wait(taken.value["id"])
        assert snapshot.results is not None, snapshot
        ended = await site.engine.operations.wait(workspace.value["id"])
        assert ended.results is not None, ended
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
            "workspace": str(ended.results.value["id"]),
            "event_id": event.value["id"],
            "trigger_id": trigger.value["id"],
            "snapshot": str(snapshot.results.value["id"]),
            "column": "name",
            "entry": (await site.get(f"{base}/X/metadata"))[0]["id"],
            "container": "exp-15-files-1-1-nowhere",
            "blob": "1.a.txt",
        }
        of_branch = await site.get("/v2/storage/branch/default/metadata")
        storage = "/v2/storage"

        async def entry(path: str) -> str:
            return str((await site.get(f"{storage}/{path}/metadata"))[0]["id"])

        of_column = {"column": "in.c-b.t.name", "entry": await entry("columns/in.c-b.t.name")}
        self.own_names = {
            f"{storage}/buckets/<bucket>/metadata/<entry>": {
                "entry": await entry("buckets/in.c-b")
            },
            f"{storage}/tables/<table>/metadata/<entry>": {"entry": await entry("tables/in.c-b.t")},
            f"{storage}/columns/<column>/metadata": of_column,
            f"{storage}/columns/<column>/metadata/<entry>": of_column,
            "/v2/storage/metadata/<entry>": {"entry": of_branch[0]["id"]},
            "/v2/storage/jobs/<job_id>": {"job_id": str(operation.value["id"])},
        }

    def path(self, route: Route) -> str:
        rule = route.rule
        if route.is_in_branch:
            rule = rule.replace("<branch>", "default")
        for name, value in (self.names | self.own_names.get(plain_rule(route), {})).items():
            for form in (f"<{name}>", f"<int:{name}>", f"<path:{name}>"):
                rule = rule.replace(form, value)
        assert "<" not in rule, f"the world has nothing for {rule}"
        if rule.endswith(("/encrypt", "/migrate", "/sync-actions/actions")):
            rule += "?componentId=C"
        if rule.endswith("/search/tables"):
            rule += "?metadataKey=k"
        if route.method == "DELETE":
            rule += "?allowTruncate=1&force=1"
        return rule

    async def photograph(self) -> dict[str, Any]:
        """All that can be read of the project."""
        seen: dict[str, Any] = {}
        for route in routes(self.site):
            if route.method == "GET" and route.access is not Access.PUBLIC:
                path = self.path(route)
                # the audit log has what is asked here, too
                if not path.endswith(("/tokens/verify", "/vaka/audit", "/events")):
                    answer = await self.site.ask("GET", path)
                    # signatures, and the names of occurrences of errors, are never the same
                    seen[path] = re.sub(r"\?sv=[^']*|docker-[0-9a-f]{32}", "", str(answer.value))
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
def settings(settings: Settings) -> Settings:
    """With keys, so that secrets can be encrypted."""
    settings.home.mkdir()
    ring.write(settings.home / "keys", ring.new_ring("first"), create=True)
    return settings


@pytest.fixture
async def world(site: Site, tmp_path: Any) -> World:
    made = World(site)
    await made.build(tmp_path)
    return made


BODIES: dict[str, Any] = {
    "RunRequest": {"configData": {}},
    "ActionRequest": {"configData": {}},
    "ErrorNote": {"errorNote": "changed"},
    "NewToken": {"description": "stolen"},
    "TokenChanges": {"description": "changed"},
    "NewProject": {"name": "stolen"},
    "SyncAction": {"componentId": "C", "action": "look", "configData": {}},
    "PrepareFile": {"name": "stolen"},
    "BucketChanges": {"displayName": "changed"},
    "FileTag": {"tag": "changed"},
    "BranchChanges": {"name": "changed"},
    "NewStorageEvent": {"component": "C", "message": "m"},
    "NewTrigger": {
        "component": "C",
        "configurationId": "X",
        "tableIds": ["in.c-b.t"],
        "coolDownPeriodMinutes": 5,
        "runWithTokenId": "1",
    },
    "TriggerChanges": {"coolDownPeriodMinutes": 7},
    "NewQueueJob": {"component": "C", "configData": {}},
    "Change": {"changeDescription": "changed"},
    "Copy": {"name": "changed"},
    "RowCopy": {"targetConfigId": "X"},
    "RowChanges": {"name": "changed"},
    "NewRemarks": {"provider": "stolen", "metadata": [{"key": "a", "value": "b"}]},
    "NewWorkspace": {},
    "application/json": {"plain": "value"},
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
    "NewTable": {"name": "stolen", "dataFileId": 1},
    "NewTableDefinition": {"name": "stolen", "columns": [{"name": "a"}]},
    "TableImport": {"dataFileId": 1},
    "TableExport": {},
    "TableChanges": {"displayName": "changed"},
    "TableDescription": {"description": "changed"},
    "TableSwap": {"targetTableId": "in.c-b.t"},
    "NewColumn": {"name": "changed"},
    "ColumnChanges": {"nullable": True},
    "KeyColumns": {"columns": ["a"]},
    "RowsToDelete": {"allowTruncate": True},
    "NewSnapshot": {"description": "stolen"},
    "NewMetadata": {"provider": "stolen", "metadata": [{"key": "a", "value": "b"}]},
    "NewTableMetadata": {"provider": "stolen", "metadata": [{"key": "a", "value": "b"}]},
    "ColumnNames": {"columnNames": ["a"]},
    "DisplayName": {"displayName": "a"},
}


async def call(world: World, route: Route, token: str | None) -> tuple[int, Any]:
    path = world.path(route)
    body, data = None, None
    headers = {}
    if route.body == "multipart/form-data":
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        data = b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nchanged\r\n--b--\r\n'
    elif route.body in BODIES:
        body = BODIES[route.body]
    elif route.body is not None and "/" in route.body:
        data = b"id,name\n9,changed\n"
        path += "?name=changed.csv" if "files" in path else ""
    elif route.body is not None:
        raise AssertionError(f"BODIES has no {route.body} for {route.rule}")
    answer = await world.site.ask(route.method, path, body, token=token, data=data, headers=headers)
    return answer.status, answer.value


# -- the matrix ------------------------------------------------------------------------------------


PROJECT = frozenset(
    {
        "branch",
        "bucket",
        "column",
        "config",
        "entry",
        "event_id",
        "file",
        "job_id",
        "row",
        "snapshot",
        "table",
        "token_id",
        "trigger_id",
        "version",
        "workspace",
    }
)
"""What a path may name that is one project's: another one's token finds nothing."""
SHARED = frozenset({"component", "tag", "action", "name", "credentials", "container", "blob"})
"""What a path may name that is the installation's, or that each project has for itself."""
INSTALLATION = frozenset(
    {
        "GET /vaka/gc",
        "POST /vaka/gc",
        "GET /vaka/projects",
        "POST /vaka/projects",
        "PUT /v2/storage/components/<component>",
    }
)
"""What only admins of the first project may do."""
LIMITED = frozenset({"bucket", "table", "column", "snapshot", "component", "trigger_id"})
"""What a limited token may use only when it was given the right to."""
UNLIMITED = frozenset(
    {
        "GET /v2/storage/tokens/verify",
        "GET /v2/storage/buckets",
        "GET /v2/storage/tables",
        "GET /v2/storage/search/tables",
        "GET /v2/storage/shared-buckets",
        "POST /v2/storage/webalize/column-names",
        "POST /v2/storage/webalize/display-name",
        "GET /v2/storage/files",
        "GET /queue/jobs",
        "GET /queue/job",
        "GET /queue/search/jobs",
        "GET /queue/search/grouped-jobs",
        "GET /queue/stats/project",
        "GET /v2/storage/search/component-configurations",
        "GET /v2/storage/workspaces",
        "GET /v2/storage/jobs",
        "GET /v2/storage/events",
        "POST /v2/storage/events",
        "GET /v2/storage/events/<event_id>",
        "GET /v2/storage/triggers",
        "GET /v2/storage/triggers/<trigger_id>",
        "POST /v2/storage/tickets",
        "GET /v2/storage/dev-branches",
        "GET /v2/storage/dev-branches/<branch>",
        "GET /v2/storage/metadata",
        "GET /v2/storage/components/<component>",
        "GET /v2/storage/global-search",
        "GET /queue/job/<job_id>",
        "GET /queue/jobs/<job_id>",
        "GET /queue/jobs/<job_id>/events",
        "GET /queue/jobs/<job_id>/log",
        "GET /docker/stats/project",
        "GET /docker/stats/project/daily",
        "GET /vaka/vault",
        "GET /vaka/branches",
        "POST /docker/run",
        "POST /docker/migrate",
        "POST /encryption/migrate",
        "POST /vaka/files",
        "POST /v2/storage/files/prepare",
    }
)
"""What a token without a bucket and without a component may use all the same: lists show it only what
is its own, and jobs are everybody's."""


def plain_rule(route: Route) -> str:
    """A route's rule without its branch."""
    return route.rule.replace(BRANCH, "/v2/storage")


def plain(route: Route) -> str:
    """A route's name without its branch."""
    return f"{route.method} {plain_rule(route)}"


def variables(route: Route) -> set[str]:
    """What a path names, its branch aside."""
    found = set(re.findall(r"<(?:\w+:)?(\w+)>", plain(route)))
    assert found <= PROJECT | SHARED, f"{route.endpoint}: say whose these are"
    return found


def dialect(route: Route) -> str:
    return route.dialect or path_dialect(route.rule)


def needs_signature(route: Route) -> bool:
    """Whether the signature in the address decides, and no token."""
    return "container" in variables(route)


def without_a_token(route: Route) -> set[int]:
    if route.access is Access.PUBLIC:
        return {route.status}
    return {400} if dialect(route) == "runner" else {401}


def unknown(route: Route) -> set[int]:
    return {route.status} if route.access is Access.PUBLIC else {401}


def of_another_project(route: Route) -> set[int]:
    if route.access is Access.PUBLIC or route.status == 501:
        return {route.status}
    if plain(route) in INSTALLATION:
        return {403}
    own = re.match(r"/(vaka/tables|vaka/files$)", route.rule)  # its own table of that name
    if variables(route) & PROJECT and not own:
        # what is wrong with a body may be said before what it is for is looked for
        return {404} if route.method == "GET" else {400, 404}
    return {200, 201, 202, 204, 400, 404, 409}  # what it finds there is its own, or nothing


def to_read(route: Route) -> set[int]:
    if route.access in {Access.RUN, Access.ADMIN, Access.MASTER}:
        return {403}
    return {route.status}


def limited(route: Route) -> set[int]:
    """For a token that has the right to change things, and no bucket and no component."""
    if route.access is Access.PUBLIC or route.status == 501:
        return {route.status}
    if plain(route) in UNLIMITED:
        return {route.status}
    if route.access is Access.MASTER or variables(route) & LIMITED:
        return {403}
    if "file" in variables(route) or plain_rule(route) == "/v2/storage/jobs/<job_id>":
        return {403, 404}  # those of others are not there for it
    return {403}


CALLERS: dict[str, Callable[[Route], set[int]]] = {
    "nobody": without_a_token,
    "unknown": unknown,
    "other": of_another_project,
    "read": to_read,
    "limited": limited,
}


FILES = ("/v2/storage/files", "/v2/storage/branch/default/files", "/vaka/gc")
LEFT_BEHIND = {"read": (*FILES, "/v2/storage/jobs"), "limited": FILES}
"""Where is seen what a caller may leave: an export is a file, and files can be stored by everybody who
may change anything."""


@pytest.mark.parametrize("caller", CALLERS)
async def test_every_route_answers_every_caller_as_it_must(world: World, caller: str) -> None:
    """A route that is new falls under a rule here, or fails until it does."""
    made = await world.site.ask("POST", "/v2/storage/tokens", {"description": "the limited"})
    token = {"nobody": None, "unknown": "1-2-unknown", "limited": made.value["token"]}
    before = await world.photograph()
    wrong: dict[str, Any] = {}
    for route in routes(world.site):
        status, value = await call(world, route, token.get(caller, caller))
        text = str(value)
        expected = {403} if needs_signature(route) else CALLERS[caller](route)
        if status not in expected:
            wrong[route.endpoint] = status, expected, text[:200]
        if caller == "other" and route.method == "GET" and status == 200:
            assert "in.c-b.t" not in text, route.endpoint
            assert "the admin" not in text, route.endpoint
        if status == 403 and not needs_signature(route):
            words = value.get("message", value["error"])
            assert words == "You don't have access to the resource.", route.endpoint
        if status == 401 and dialect(route) != "runner":
            assert value["error"] == "Invalid access token", route.endpoint
    assert not wrong, json.dumps(wrong, default=list, indent=1)
    after = await world.photograph()
    changed = {path for path, seen in before.items() if after[path] != seen}
    assert changed <= set(LEFT_BEHIND.get(caller, ()))


async def test_a_token_to_run_runs_and_changes_nothing_else(world: World) -> None:
    for route in routes(world.site):
        if route.access is Access.ADMIN:
            status, _ = await call(world, route, "run")
            assert status == 403, route.endpoint
    for route in routes(world.site):
        if route.access is Access.RUN and route.status < 400:
            status, value = await call(world, route, "run")
            ended = route.rule.endswith("/kill")  # the world's only job has ended
            assert status == 400 if ended else status < 300, (route.endpoint, value)


async def test_an_admin_may_call_everything(world: World) -> None:
    removals = []
    for route in routes(world.site):
        if needs_signature(route) or route.rule.endswith("/rollback"):
            continue  # what came after the first version would be gone
        if route.method == "DELETE":
            removals.append(route)
            continue
        status, value = await call(world, route, "admin")
        if not route.rule.endswith("/restore"):  # nothing is in the trash
            assert status not in {401, 403, 404, 405, 500}, (route.endpoint, status, value)
    # the innermost first, so that each still has something to remove
    for route in sorted(removals, key=lambda each: -len(each.rule)):
        if route.is_in_branch:
            continue  # the default branch's is the same as without one
        status, value = await call(world, route, "admin")
        # a branch and what is below it may be gone with what was removed before
        assert status in {route.status, 404}, (route.endpoint, value)


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
