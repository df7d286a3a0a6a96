"""Any request that the API's own description allows, and many that it does not, is answered as it says.

`/openapi.json` says what there is; schemathesis makes requests of it, half of which name what is there.
No answer may be of 500 or above, but 501 for what is knowingly absent, and each must have the shape that
is described. VAKA_FUZZ_CASES requests are made of each part of the API, and at least one of each
operation, those of branches only when there are several; `make fuzz-api` makes a thousand of each part
and prints how they were answered. What one takes away is made again, so that those after it find it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

import httpx
import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
)
from tests.server.conftest import COMPONENT, IMAGE
from tests.server.test_cli import Server

from vaka.testing import FakeHost, FakeImage, Printed, Script
from vaka_keyring import ring
from vaka_server.routes import all_routes
from vaka_server.settings import Settings

CASES = int(os.environ.get("VAKA_FUZZ_CASES", "1"))
"""Requests for each part of the API."""
TIME_LIMIT = 60.0
"""Seconds for one answer."""
ENOUGH = 1_000
"""Requests of a part from which on some must have been granted."""
CHECKS = [response_schema_conformance, content_type_conformance]
REGISTER = "PUT /v2/storage/components/{component}"
DEFINITION = {**COMPONENT["data"], "synchronous_actions": ["look"]}
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
BLOB = "kbc.blob.core.windows.net"
REFUSED = {"listings"}
"""Parts of which there is nothing."""


class Target:
    """A server with one of everything."""

    def __init__(self, server: Server) -> None:
        self.url = server.url
        self.headers = {"X-StorageApi-Token": server.secret}
        self.client = httpx.Client(base_url=server.url, headers=self.headers, timeout=TIME_LIMIT)
        self.names: dict[str, Any] = {}
        """What paths can name, by the name of their parameter."""
        self.members: dict[str, Any] = {}
        """What bodies and queries can name, by the name of their member."""
        self.signature: dict[str, str] = {}
        """The query that allows to use the content of a file."""
        self.answered: Counter[int] = Counter()
        """How many answers of each status there were."""
        schema: Any = schemathesis.openapi.from_dict(self.client.get("/openapi.json").json())
        self.operations = [each.ok() for each in schema.get_all_operations()]
        self.own_token = self.send("GET", "/v2/storage/tokens/verify")["id"]

    def send(self, method: str, path: str, **options: Any) -> Any:
        answer = self.client.request(method, path, **options)
        assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def check_token(self) -> None:
        """Fails when the requests themselves have ended the token that they are made with."""
        assert self.send("GET", "/v2/storage/tokens/verify")["id"] == self.own_token

    def want(self, path: str, method: str = "", where: str = "", **options: Any) -> None:
        """Make what a path names unless it is there."""
        if self.client.get(path).status_code >= 300:
            self.send(method or "POST", where or path, **options)

    def fill(self) -> None:
        """Make what paths can name and is not there."""
        component, storage = "/v2/storage/components/C", "/v2/storage"
        self.send("PUT", component, json={**COMPONENT, "data": DEFINITION})
        configs = f"{component}/configs"
        self.want(f"{configs}/X", where=configs, json={"name": "X", "configurationId": "X"})
        self.want(f"{configs}/X/rows/R", where=f"{configs}/X/rows", json={"rowId": "R"})
        self.want(f"{storage}/buckets/in.c-b", where=f"{storage}/buckets", json={"name": "b"})
        for name in ("t", "u"):
            load, content = f"/vaka/tables/in.c-b.{name}/load", b"id,name\n1,a\n2,b\n"
            self.want(f"{storage}/tables/in.c-b.{name}", where=load, content=content)
        if "name" not in self.send("GET", f"{storage}/tables/in.c-b.t")["columns"]:
            self.send("POST", f"{storage}/tables/in.c-b.t/columns", json={"name": "name"})
        said = {"provider": "user", "metadata": [{"key": "k", "value": "v"}]}
        (entry, *_) = self.send("POST", f"{storage}/buckets/in.c-b/metadata", json=said)
        made = self.send("POST", "/vaka/files?name=a.txt", content=b"id,name\n3,c\n")
        file = self.send("GET", f"{storage}/files/{made['id']}?federationToken=1")
        _, _, query = file["absCredentials"]["SASConnectionString"].partition("Signature=")
        self.signature = dict(parse_qsl(query))
        token = self.send("POST", f"{storage}/tokens", json={"description": "spare"})
        trigger = self.send(
            "POST",
            f"{storage}/triggers",
            json={
                "component": "C",
                "configurationId": "X",
                "tableIds": ["in.c-b.t"],
                "coolDownPeriodMinutes": 20,
                "runWithTokenId": self.own_token,
            },
        )
        event = self.send("POST", f"{storage}/events", json={"component": "C", "message": "m"})
        deferred = self.send(
            "POST", f"{storage}/tables/in.c-b.u/snapshots", json={"description": ""}
        )
        self.send("PUT", "/vaka/vault/v", json={"value": "1"})
        self.send("PUT", "/vaka/oauth/C/O", json={"a": 1})
        job = self.send("POST", "/docker/C/run", json={"configData": {}})
        self.names = {
            "branch": "default",
            "component": "C",
            "config": "X",
            "row": "R",
            "version": 1,
            "bucket": "in.c-b",
            "table": "in.c-b.t",
            "column": "name",
            "entry": entry["id"],
            "file": file["id"],
            "container": file["absPath"]["container"],
            "blob": file["absPath"]["name"],
            "job_id": job["id"],
            "token_id": token["id"],
            "trigger_id": trigger["id"],
            "event_id": event["id"],
            "snapshot": (deferred["results"] or {}).get("id", "1"),
            "credentials": "O",
            "name": "v",
            "tag": "1",
            "action": "look",
        }
        self.members = {
            "component": "C",
            "componentId": "C",
            "config": "X",
            "configData": {},
            "configuration": {},
            "configurationId": "X",
            "configId": "X",
            "projectId": "1",
            "branchType": "default",
            "branchId": "default",
            "columnNames": ["a b"],
            "columns": ["id"],
            "column": "id",
            "whereColumn": "id",
            "changedSince": "-1 day",
            "changedUntil": "-1 day",
            "coolDownPeriodMinutes": 20,
            "dataFileId": file["id"],
            "runWithTokenId": self.own_token,
            "tableIds": ["in.c-b.t"],
            "targetTableId": "in.c-b.u",
            "primaryKey": ["id"],
            "provider": "user",
            "metadata": [{"key": "k", "value": "v"}],
            "action": "look",
            "limit": "10",
            "offset": "0",
            "tag": "1",
        }


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    host = FakeHost({IMAGE: FakeImage(Script((Printed(b"{}"),)))})
    home = tmp_path_factory.mktemp("fuzz") / "home"
    home.mkdir()
    ring.write(home / "keys", ring.new_ring(), create=True)
    settings = Settings(home=home, port=0, shutdown="stop", graceful_timeout=0, idle_poll=0.5)
    with Server(settings, host) as server:
        made = Target(server)
        made.fill()
        load_all_checks()
        yield made
        made.client.close()


def part(path: str) -> str:
    """The part of the API that a path belongs to: what it names first, its branch aside."""
    plain = path.replace("/branch/<branch>", "").replace("/branch/{branch}", "")
    words = re.findall(r"[A-Za-z][A-Za-z-]*", plain.removeprefix("/v2/storage"))
    return words[0] if words else "index"


PARTS = sorted({part(form.rule) for route in all_routes() for form in route.forms()})


def cases(operation: Any, target: Target) -> st.SearchStrategy[Any]:
    """Requests for an operation, half of them about what is there."""
    allowed = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    modes = [allowed, allowed]
    if operation.query or operation.body:
        modes.append(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))

    @st.composite
    def case(draw: st.DrawFn) -> Any:
        made = draw(st.one_of(modes))
        if draw(st.booleans()):
            known = {n: target.names[n] for n in made.path_parameters or {} if n in target.names}
            if operation.path.startswith("/v2/storage/columns/"):
                known["column"] = f"{target.names['table']}.{target.names['column']}"
            made.path_parameters = {**(made.path_parameters or {}), **known}
            if BLOB in operation.path:
                made.query = {**dict(made.query or {}), **target.signature}
        if draw(st.booleans()):
            made.query = sensible(made.query, target.members)
            made.body = sensible(made.body, target.members)
        return made

    return case()


def sensible(given: Any, members: Mapping[str, Any]) -> Any:
    """A body or a query whose members are such that the request can be granted."""
    if not isinstance(given, Mapping):
        return given
    return {name: members.get(name, value) for name, value in given.items()}


@pytest.mark.parametrize("name", PARTS)
def test_every_operation_answers_as_it_is_described(target: Target, name: str) -> None:
    found = [each for each in target.operations if part(each.path) == name]
    if CASES == 1:  # in a branch the same handlers answer
        found = [each for each in found if "/branch/" not in each.path] or found
    assert found
    failures: list[str] = []
    target.answered.clear()
    # of what takes nothing there is one request only: those that come after make up for it
    found.sort(key=lambda each: bool(each.query or each.body or each.path_parameters))
    for number, operation in enumerate(found):
        left = max(1, CASES - target.answered.total())
        try:
            exercise(operation, target, -(-left // (len(found) - number)))
        except (AssertionError, FailureGroup) as error:
            failures.append(f"{operation.label}: {error}")
    total = target.answered.total()
    granted = sum(count for status, count in target.answered.items() if status < 300)
    statuses = ", ".join(
        f"{status}: {target.answered[status]}" for status in sorted(target.answered)
    )
    print(f"{name}: {total} requests, {100 * granted // total} % granted ({statuses})")
    assert not failures, "\n\n".join(failures)
    target.check_token()
    assert total < ENOUGH or granted or name in REFUSED


def test_every_operation_belongs_to_a_part(target: Target) -> None:
    assert {part(each.path) for each in target.operations} == set(PARTS)
    assert len(target.operations) > 100


def exercise(operation: Any, target: Target, examples: int) -> None:
    """Make so many requests for an operation; fails with the first answer that is wrong."""

    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(cases(operation, target))
    def one(case: Any) -> None:
        spare(case, operation, target)
        answer = case.call(base_url=target.url, headers=target.headers, timeout=TIME_LIMIT)
        target.answered[answer.status_code] += 1
        assert answer.status_code < 500 or answer.status_code == 501, (
            f"{answer.status_code}: {answer.text[:500]}\n{case.as_curl_command()}"
        )
        if answer.status_code == 401:  # one that is wrong on purpose, or ours is worth nothing now
            target.check_token()
        case.validate_response(answer, checks=CHECKS)
        if answer.status_code < 300 and takes_away(operation):
            target.fill()

    one()


def spare(case: Any, operation: Any, target: Target) -> None:
    """Leave out what would end the walk, or is an application error by the specification."""
    if "follow" in (case.query or {}):
        case.query["follow"] = "0"  # else it is answered when the job ends
    named = case.path_parameters or {}
    if operation.method.upper() != "GET" and str(named.get("token_id")) == target.own_token:
        case.path_parameters["token_id"] = target.names["token_id"]
    body = case.body
    if (
        "action" in operation.path
        and isinstance(body, dict)
        and TAG.fullmatch(str(body.get("tag")))
    ):
        body["tag"] = "1"  # an image that cannot be had is an application error
    if operation.label == REGISTER and isinstance(body, dict):
        body["data"] = DEFINITION  # what cannot run is the operator's fault, with a 500


def takes_away(operation: Any) -> bool:
    """Whether a request that is granted leaves less than there was."""
    return bool(
        operation.method.upper() == "DELETE"
        or operation.label == REGISTER
        or operation.path.endswith(("/swap", "/gc"))
    )
