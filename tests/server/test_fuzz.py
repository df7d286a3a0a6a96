"""Any request that the API's own description allows, and many that it does not, is answered as it says.

`/openapi.json` says what there is; schemathesis makes requests of it, half of which name what is there.
No answer may be of 500 or above, but 501 for what is knowingly absent, and each must have the shape that
is described. VAKA_FUZZ_CASES requests are made of each part of the API, and at least one of each
operation; `make fuzz-api` makes a thousand of each part.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

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
CHECKS = [response_schema_conformance, content_type_conformance]
REGISTER = "PUT /v2/storage/components/{component}"
DEFINITION = {**COMPONENT["data"], "synchronous_actions": ["look"]}


class Target:
    """A server with one of everything."""

    def __init__(self, server: Server) -> None:
        self.url = server.url
        self.headers = {"X-StorageApi-Token": server.secret}
        self.client = httpx.Client(base_url=server.url, headers=self.headers, timeout=TIME_LIMIT)
        self.names: dict[str, Any] = {}
        """What paths can name, by the name of their parameter."""
        schema: Any = schemathesis.openapi.from_dict(self.client.get("/openapi.json").json())
        self.operations = [each.ok() for each in schema.get_all_operations()]

    def send(self, method: str, path: str, **options: Any) -> Any:
        answer = self.client.request(method, path, **options)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def fill(self) -> None:
        """Make what paths can name."""
        self.send("PUT", "/v2/storage/components/C", json={**COMPONENT, "data": DEFINITION})
        configs = "/v2/storage/components/C/configs"
        self.send("POST", configs, json={"name": "X", "configurationId": "X"})
        self.send("POST", f"{configs}/X/rows", json={"rowId": "R"})
        self.send("POST", "/v2/storage/buckets", json={"name": "b", "stage": "in"})
        self.send("POST", "/vaka/tables/in.c-b.t/load", content=b"id,name\n1,a\n")
        file = self.send("POST", "/vaka/files?name=a.txt", content=b"abc")
        token = self.send("POST", "/v2/storage/tokens", json={"description": "spare"})
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
            "file": file["id"],
            "job_id": job["id"],
            "token_id": token["id"],
            "action": "look",
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


def cases(operation: Any, names: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Requests for an operation, half of them about what is there."""
    allowed = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    modes = [allowed]
    if operation.query or operation.body:
        modes.append(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))

    @st.composite
    def case(draw: st.DrawFn) -> Any:
        made = draw(st.one_of(modes))
        if draw(st.booleans()):
            known = {name: names[name] for name in made.path_parameters or {} if name in names}
            made.path_parameters = {**(made.path_parameters or {}), **known}
        return made

    return case()


@pytest.mark.parametrize("name", PARTS)
def test_every_operation_answers_as_it_is_described(target: Target, name: str) -> None:
    found = [each for each in target.operations if part(each.path) == name]
    assert found
    failures: list[str] = []
    for operation in found:
        try:
            exercise(operation, target, -(-CASES // len(found)))
        except (AssertionError, FailureGroup) as error:
            failures.append(f"{operation.label}: {error}")
    assert not failures, "\n\n".join(failures)


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
    @hypothesis.given(cases(operation, target.names))
    def one(case: Any) -> None:
        if "follow" in (case.query or {}):
            case.query["follow"] = "0"  # else it is answered when the job ends
        if "action" in operation.path and isinstance(case.body, dict):
            case.body.pop("tag", None)  # an image that cannot be had is an application error, too
        if operation.label == REGISTER and isinstance(case.body, dict):
            case.body["data"] = DEFINITION  # what cannot run is the operator's fault, with a 500
        answer = case.call(base_url=target.url, headers=target.headers, timeout=TIME_LIMIT)
        assert answer.status_code < 500 or answer.status_code == 501, (
            f"{answer.status_code}: {answer.text[:500]}\n{case.as_curl_command()}"
        )
        case.validate_response(answer, checks=CHECKS)

    one()
