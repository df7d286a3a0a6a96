"""Error bodies: what a caller is told, and what only the log has."""

import errno
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.server.fakes import FakeEngine, make_app

from vaka import Health
from vaka.errors import (
    AccessDenied,
    ApplicationError,
    Conflict,
    InvalidInput,
    MappingFailed,
    NotAllowed,
    NotFound,
    Overloaded,
    StoreUnavailable,
    UserError,
)
from vaka_server.documents import php_json
from vaka_server.problems import describe

RUN = "/docker/C/run"
CONFIG = {"config": "x"}


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    return FakeEngine(tmp_path)


async def ask(
    engine: FakeEngine, path: str = RUN, *, settings: dict[str, Any] | None = None, **options: Any
) -> Any:
    client = make_app(engine, **(settings or {})).test_client()
    options.setdefault("method", "POST")
    options.setdefault("headers", {"X-StorageApi-Token": "secret"})
    if options["method"] == "POST" and "data" not in options:
        options.setdefault("json", CONFIG)
    return await client.open(path, **options)


@pytest.mark.scenario("runner", 27)
@pytest.mark.scenario("runner", 28)
async def test_an_error_body_has_these_members_and_no_others(engine: FakeEngine) -> None:
    response = await ask(engine, json={})
    body = await response.get_json()
    assert response.content_type == "application/json"
    assert list(body) == ["status", "error", "code", "message", "exceptionId", "runId"]
    assert (response.status_code, body["code"], body["status"]) == (400, 400, "error")
    assert body["error"] == "User error"
    assert re.fullmatch("docker-[0-9a-f]{32}", body["exceptionId"])
    again = await (await ask(engine, json={})).get_json()
    assert again["exceptionId"] != body["exceptionId"]


@pytest.mark.scenario("runner", 29)
@pytest.mark.parametrize(
    "failure",
    [
        ApplicationError("the secret words"),
        StoreUnavailable("the secret words"),
        RuntimeError("the secret words"),
        KeyError("the secret words"),
    ],
)
async def test_an_internal_failure_is_told_to_the_log_only(
    engine: FakeEngine, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    engine.failure = failure
    response = await ask(engine)
    body = await response.get_json()
    assert response.status_code == 500
    assert body["error"] == "Application error"
    assert body["message"] == "Contact support@keboola.com and attach this exception id."
    assert "secret words" not in await response.get_data(as_text=True)
    (record,) = (each for each in caplog.records if each.levelno >= logging.ERROR)
    assert record.getMessage() == "request.failed"
    assert record.exception_id == body["exceptionId"]  # type: ignore[attr-defined]
    assert record.exc_info is not None
    assert record.exc_info[1] is failure


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (InvalidInput("told"), 400),
        (NotFound("told", kind="project", id="1"), 404),
        (Conflict("told"), 409),
        (NotAllowed("told"), 405),
    ],
)
async def test_a_users_error_is_told_as_it_is(
    engine: FakeEngine, failure: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    engine.failure = failure
    response = await ask(engine)
    body = await response.get_json()
    assert (response.status_code, body["code"], body["error"]) == (status, status, "User error")
    assert body["message"] == "told"
    assert "Retry-After" not in response.headers
    assert [each.levelname for each in caplog.records] == ["INFO"]


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (InvalidInput("told", code="storage.tables.validation.noColumns"), 400, None),
        (MappingFailed("told", code="invalidCsv"), 400, None),
        (NotFound("told", kind="token", id="1", code="storage.tokens.gone"), 404, None),
        (Conflict("told", code="storage.components.configurations.versionConflict"), 409, None),
        (InvalidInput("told"), 400, "storage.validation"),
        (NotFound("told", kind="bucket", id="in.c-a"), 404, "storage.buckets.notFound"),
    ],
)
def test_an_error_that_has_storages_word_goes_out_with_it(
    failure: UserError, status: int, code: str | None
) -> None:
    problem = describe(failure)
    assert (problem.status, problem.message) == (status, "told")
    assert problem.code == (code or failure.code)


async def test_who_comes_when_all_is_taken_is_told_when_to_come_again(
    engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    engine.failure = Overloaded("told", retry_after=6.2)
    response = await ask(engine)
    body = await response.get_json()
    assert (response.status_code, body["code"], body["message"]) == (503, 503, "told")
    assert response.headers["Retry-After"] == "7"
    assert [each.levelname for each in caplog.records] == ["INFO"]


async def test_a_refused_token_says_nothing_of_the_reason(engine: FakeEngine) -> None:
    engine.failure = AccessDenied("token 11 has no business here")
    body = await (await ask(engine)).get_json()
    assert body["message"] == "You don't have access to the resource."


@pytest.mark.scenario("runner", 26)
async def test_in_maintenance_every_route_with_a_token_says_so(engine: FakeEngine) -> None:
    closed = {"maintenance": "moving to a larger disk"}
    response = await ask(engine, settings=closed)
    body = await response.get_json()
    assert (response.status_code, body["error"]) == (503, "Project is disabled")
    assert body["message"] == "Project is disabled - moving to a larger disk"
    assert engine.records == {}
    storage = await ask(engine, "/v2/storage/tokens/verify", method="GET", settings=closed)
    assert storage.status_code == 503
    assert (await storage.get_json())["reason"] == "moving to a larger disk"
    healthy = await ask(engine, "/healthz", method="GET", settings=closed)
    assert healthy.status_code == 200


@pytest.mark.scenario("runner", 30)
@pytest.mark.parametrize(
    ("header", "number"),
    [
        ("123.456", 123),
        (None, 0),
        ("", 0),
        ("abc", 0),
        ("12abc", 12),
        (" 7", 7),
        ("9" * 40, 10**18 - 1),
    ],
)
async def test_the_run_id_of_an_error_is_a_whole_number(
    engine: FakeEngine, header: str | None, number: int
) -> None:
    headers = {"X-StorageApi-Token": "secret"}
    if header is not None:
        headers["X-KBC-RunId"] = header
    body = await (await ask(engine, json={}, headers=headers)).get_json()
    assert body["runId"] == number


@pytest.mark.scenario("runner", 32)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nothing"),
        ("GET", "/docker/C/run"),
        ("POST", "/docker/C/run/"),
        ("POST", "/docker//run"),
        ("POST", "/docker/a/b/run"),
        ("DELETE", "/queue/job"),
        ("PATCH", "/"),
        ("POST", "/v2/storage/tokens/verify"),
    ],
)
async def test_an_unknown_path_or_method_is_not_found(
    engine: FakeEngine, method: str, path: str
) -> None:
    response = await ask(engine, path, method=method, headers={})
    if path == "/docker/C/run/":  # the same path, written with a slash
        assert response.status_code == 400
        return
    body = await response.get_json()
    assert response.status_code == 404
    assert body.get("message", body["error"]) == "Route not found"


@pytest.mark.scenario("runner", 33)
@pytest.mark.parametrize("path", ["/docker/C/run", "/queue/job", "/v2/storage", "/nowhere"])
async def test_a_preflight_is_answered_without_a_token(engine: FakeEngine, path: str) -> None:
    response = await ask(engine, path, method="OPTIONS", headers={})
    assert response.status_code == 200
    assert await response.get_data() == b""
    assert response.headers["Access-Control-Max-Age"] == "86400"
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.headers["Access-Control-Allow-Methods"] == (
        "GET, POST, PUT, PATCH, DELETE, OPTIONS"
    )
    assert "x-storageapi-token" in response.headers["Access-Control-Allow-Headers"]
    assert response.headers["Accept"] == "application/json"
    assert response.content_type == "application/json"


@pytest.mark.scenario("runner", 34)
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", RUN), ("POST", "/docker/nothing/run"), ("GET", "/"), ("GET", "/nowhere")],
)
async def test_every_answer_may_be_read_from_anywhere_and_kept_nowhere(
    engine: FakeEngine, method: str, path: str
) -> None:
    response = await ask(engine, path, method=method)
    for name in ("Origin", "Methods", "Headers"):
        assert response.headers[f"Access-Control-Allow-{name}"] == "*"
    kept = {part.strip() for part in response.headers["Cache-Control"].split(",")}
    assert kept == {"private", "no-cache", "no-store", "must-revalidate"}


async def test_an_answer_is_written_as_the_reference_writes_it(engine: FakeEngine) -> None:
    raw = await (await ask(engine, "/docker/<a>'&\"é/run")).get_data(as_text=True)
    assert "Component \\u0027\\u003Ca\\u003E\\u0027\\u0026\\u0022\\u00e9\\u0027 not found." in raw


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(alphabet="\\\"'<>&/ué\0\n", max_size=9),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text(alphabet='\\"<', max_size=3), inner)
        ),
    )
)
def test_what_is_written_as_the_reference_writes_it_is_still_the_same(value: Any) -> None:
    raw = php_json(value)
    assert json.loads(raw) == value
    assert not set(raw) & set(b"<>&'\0")
    assert not re.search(rb'(?<!\\)(?:\\\\)*\\"|(?<!\\)(?:\\\\)*/', raw)


async def test_errors_on_storage_paths_are_told_as_storage_does(engine: FakeEngine) -> None:
    response = await ask(engine, "/v2/storage/components/none", method="GET")
    body = await response.get_json()
    assert (response.status_code, body["code"]) == (404, "storage.components.notFound")
    assert list(body) == ["error", "code", "exceptionId", "status"]
    for headers in ({}, {"X-StorageApi-Token": "wrong"}):
        response = await ask(engine, "/v2/storage/tokens", method="GET", headers=headers)
        body = await response.get_json()
        assert (response.status_code, body["code"]) == (401, "storage.tokenInvalid")
        assert body["error"] == "Invalid access token"


async def test_a_full_disk_is_named_where_files_are_stored(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("vaka_server.body.spool_file", full)
    response = await ask(engine, "/vaka/files?name=a", data=b"abc")
    body = await response.get_json()
    assert (response.status_code, body["code"]) == (507, "storage.diskFull")
    assert body["error"] == "The server's disk is full; nothing was stored."


async def test_readiness_names_what_is_missing(engine: FakeEngine) -> None:
    ready = await ask(engine, "/readyz", method="GET", headers={})
    assert (ready.status_code, await ready.get_json()) == (200, {"status": "ok"})
    engine.state = Health(store=None, runtime=None, disk=None, warnings=("3 GiB free",))
    ready = await ask(engine, "/readyz", method="GET", headers={})
    assert (ready.status_code, await ready.get_json()) == (
        200,
        {"status": "ok", "warnings": ["3 GiB free"]},
    )
    engine.state = Health(store=None, runtime="no daemon", disk="1 MiB free")
    ready = await ask(engine, "/readyz", method="GET", headers={})
    assert ready.status_code == 503
    assert await ready.get_json() == {
        "status": "unavailable",
        "reasons": {"runtime": "no daemon", "disk": "1 MiB free"},
    }
    alive = await ask(engine, "/healthz", method="GET", headers={})
    assert (alive.status_code, await alive.get_json()) == (200, {"status": "ok"})
