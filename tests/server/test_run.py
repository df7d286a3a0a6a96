"""`POST /docker/{component}/run`: what is accepted, in which order it is refused."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.server.fakes import FakeEngine, make_app, token

from vaka.models.catalog import Role
from vaka.models.job import Status

HEADERS = {"X-StorageApi-Token": "secret"}
BOTH = "Specify both 'row' and 'config'."
MISSING = "Specify 'config' or 'configData'."


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    return FakeEngine(tmp_path)


async def post(
    engine: FakeEngine,
    body: Any = None,
    path: str = "/docker/C/run",
    headers: dict[str, str] | None = None,
    **settings: Any,
) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    client = make_app(engine, **settings).test_client()
    return await client.post(path, data=raw, headers=HEADERS if headers is None else headers)


async def refused(response: Any, status: int = 400) -> str:
    body = await response.get_json()
    assert (response.status_code, body["error"]) == (status, "User error")
    message: str = body["message"]
    return message


async def stored(engine: FakeEngine, response: Any) -> dict[str, Any]:
    """The parameters of the job that a response tells of, as the queue shows them."""
    assert response.status_code == 202, await response.get_data(as_text=True)
    id_ = (await response.get_json())["id"]
    client = make_app(engine).test_client()
    job = await (await client.get(f"/queue/job/{id_}", headers=HEADERS)).get_json()
    params: dict[str, Any] = job["params"]
    return params


@pytest.mark.scenario("runner", 1)
async def test_a_job_is_accepted(engine: FakeEngine) -> None:
    response = await post(engine, {"config": "dummy"})
    body = await response.get_json()
    assert response.status_code == 202
    assert body == {"id": "1", "url": "http://localhost/queue/job/1", "status": "waiting"}
    assert await stored(engine, response) == {"config": "dummy", "component": "C", "mode": "run"}


@pytest.mark.scenario("runner", 2)
async def test_a_row_of_a_configuration_is_accepted(engine: FakeEngine) -> None:
    params = await stored(engine, await post(engine, {"config": "x", "row": "r"}))
    assert (params["config"], params["row"]) == ("x", "r")


@pytest.mark.parametrize(
    ("given", "kept"), [("7", "7"), (7, "7"), ("default", None), (None, None), ("", None)]
)
async def test_a_branch_is_accepted(engine: FakeEngine, given: Any, kept: str | None) -> None:
    params = await stored(engine, await post(engine, {"config": "x", "branchId": given}))
    assert params.get("branchId") == kept


async def test_several_rows_and_how_many_at_a_time_are_accepted(engine: FakeEngine) -> None:
    body = {"config": "x", "configRowIds": ["a", 7], "parallelism": "2"}
    params = await stored(engine, await post(engine, body))
    assert (params["configRowIds"], params["parallelism"]) == (["a", "7"], 2)
    body = {"config": "x", "configRowIds": [], "parallelism": "infinity"}
    params = await stored(engine, await post(engine, body))
    assert ("configRowIds" in params, params["parallelism"]) == (False, "infinity")


@pytest.mark.scenario("runner", 3)
async def test_the_tag_of_the_path_is_stored(engine: FakeEngine) -> None:
    response = await post(engine, {"config": "x", "tag": "other"}, "/docker/C/run/tag/1.1.0")
    params = await stored(engine, response)
    assert (params["tag"], params["mode"]) == ("1.1.0", "run")


@pytest.mark.scenario("runner", 5)
async def test_an_unknown_component_is_a_bad_request(engine: FakeEngine) -> None:
    response = await post(engine, {"row": "x"}, "/docker/invalid-component/run")
    assert await refused(response) == "Component 'invalid-component' not found."


@pytest.mark.scenario("runner", 4)
async def test_a_debug_job_is_accepted(engine: FakeEngine) -> None:
    response = await post(engine, {"config": "x", "mode": "run", "tag": "2"}, "/docker/C/debug")
    assert (await response.get_json())["status"] == "waiting"
    params = await stored(engine, response)
    assert params == {"config": "x", "component": "C", "mode": "debug", "tag": "2"}
    client = make_app(engine).test_client()
    job = await (await client.get("/queue/job/1", headers=HEADERS)).get_json()
    assert job["command"] == "run"


@pytest.mark.scenario("runner", 6)
async def test_an_unknown_component_cannot_be_debugged(engine: FakeEngine) -> None:
    response = await post(engine, {"row": "x"}, "/docker/invalid-component/debug")
    assert await refused(response) == "Component 'invalid-component' not found."
    assert await refused(await post(engine, {"row": "x"}, "/docker/C/debug")) == BOTH


@pytest.mark.parametrize(
    ("given", "kept"), [("zip", "zip"), ("tar.zst", "tar.zst"), (None, None), ("", None)]
)
async def test_a_debug_job_says_how_its_snapshots_are_packed(
    engine: FakeEngine, given: Any, kept: str | None
) -> None:
    body = {"config": "x", "snapshotFormat": given}
    params = await stored(engine, await post(engine, body, "/docker/C/debug"))
    assert params.get("snapshotFormat") == kept


@pytest.mark.parametrize("given", ["rar", 7, ["zip"], True])
async def test_snapshots_are_packed_in_known_ways_only(engine: FakeEngine, given: Any) -> None:
    response = await post(engine, {"config": "x", "snapshotFormat": given}, "/docker/C/debug")
    assert await refused(response) == ('The "snapshotFormat" of a job must be "zip" or "tar.zst".')


@pytest.mark.scenario("runner", 7)
@pytest.mark.scenario("runner", 8)
@pytest.mark.scenario("runner", 9)
@pytest.mark.scenario("runner", 18)
@pytest.mark.parametrize(
    "body",
    [
        *({}, b"", b"null", [], 12, "words", True, [1, 2]),
        *({"config": None}, {"config": ""}, {"config": False}, {"configData": None}),
        {"unknown": 1},
    ],
)
async def test_a_configuration_is_needed(engine: FakeEngine, body: Any) -> None:
    assert await refused(await post(engine, body)) == MISSING


@pytest.mark.scenario("runner", 10)
@pytest.mark.scenario("runner", 11)
@pytest.mark.parametrize(
    "body", [{"row": "my-row"}, {"row": "r", "configData": {}}, {"row": "", "unknown": 1}]
)
async def test_a_row_needs_its_configuration(engine: FakeEngine, body: Any) -> None:
    assert await refused(await post(engine, body)) == BOTH


@pytest.mark.scenario("runner", 12)
@pytest.mark.scenario("runner", 13)
async def test_an_inline_configuration_is_stored_as_it_is(engine: FakeEngine) -> None:
    data = {"foo": "bar", "parameters": {"empty": {}, "list": [], "n": 1.50, "big": 10**25}}
    params = await stored(engine, await post(engine, {"configData": data}))
    assert params["configData"] == data
    params = await stored(engine, await post(engine, {"config": "dummy", "configData": data}))
    assert (params["config"], params["configData"]) == ("dummy", data)
    params = await stored(engine, await post(engine, {"config": "", "configData": []}))
    assert (params.get("config"), params["configData"]) == (None, {})


@pytest.mark.scenario("runner", 16)
@pytest.mark.parametrize("config", [{"a": 1}, [1], {}, []])
async def test_a_configuration_id_is_a_scalar(engine: FakeEngine, config: Any) -> None:
    message = await refused(await post(engine, {"config": config}))
    assert message == "Body parameter 'config' is not a number."


@pytest.mark.scenario("runner", 17)
@pytest.mark.parametrize(("config", "text"), [(123, "123"), (0, "0"), (1.5, "1.5"), (True, "1")])
async def test_a_number_is_a_configuration_id(engine: FakeEngine, config: Any, text: str) -> None:
    assert (await stored(engine, await post(engine, {"config": config})))["config"] == text


@pytest.mark.scenario("runner", 19)
async def test_an_unknown_member_is_refused(engine: FakeEngine) -> None:
    assert await refused(await post(engine, {"config": "x", "bull": "y", "cow": 1})) == (
        "Parameter 'bull' is not allowed. Allowed params are 'component,config,row,configData,mode,"
        "tag,format,variableValuesId,variableValuesData'"
    )


@pytest.mark.scenario("runner", 20)
async def test_the_tag_of_the_body_is_used(engine: FakeEngine) -> None:
    assert (await stored(engine, await post(engine, {"config": "x", "tag": "2.0"})))["tag"] == "2.0"
    no_tags: tuple[Any, ...] = ("", "0", 0, None, [], False)
    for tag in no_tags:
        response = await post(engine, {"config": "x", "tag": tag})
        assert "tag" not in await stored(engine, response)


@pytest.mark.scenario("runner", 21)
async def test_the_mode_and_the_component_of_the_body_have_no_effect(engine: FakeEngine) -> None:
    body = {"config": "x", "mode": "debug", "component": "other", "format": "yaml"}
    params = await stored(engine, await post(engine, body))
    assert (params["mode"], params["component"]) == ("run", "C")


@pytest.mark.scenario("runner", 22)
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{broken", "Syntax error"),
        (b" ", "Syntax error"),
        (b'{"config": NaN}', "Syntax error"),
        (b'{"config": "\xff"}', "Malformed UTF-8 characters, possibly incorrectly encoded"),
        (b'{"config": "\x01"}', "Control character error, possibly incorrectly encoded"),
        (b'{"config": "\\ud800"}', "Single unpaired high surrogate in Unicode escape"),
        (b"[" * 513 + b"]" * 513, "Maximum stack depth exceeded"),
        (b"[" * 100_000, "Maximum stack depth exceeded"),
        (b'{"config": ' + b"9" * 5000 + b"}", "Syntax error"),
    ],
)
async def test_broken_json_is_refused(engine: FakeEngine, body: bytes, reason: str) -> None:
    message = await refused(await post(engine, body, "/docker/invalid-component/run"))
    assert message == f"Bad JSON format of request body: {reason}"


async def test_deep_json_is_accepted_and_too_deep_json_is_the_callers_mistake(
    engine: FakeEngine,
) -> None:
    deep = b'{"config": "x", "row": ' + b"[" * 200 + b"]" * 200 + b"}"
    assert (await post(engine, deep)).status_code == 202
    deep = b'{"config": "x", "row": ' + b"[" * 511 + b"]" * 511 + b"}"
    assert (await refused(await post(engine, deep))).startswith("The job cannot be created: ")
    brackets = json.dumps({"config": "x", "tag": "[" * 600 + '"\\'})
    assert (await post(engine, brackets.encode())).status_code == 202


@pytest.mark.scenario("runner", 23)
async def test_a_run_without_a_component_is_refused(engine: FakeEngine) -> None:
    assert await refused(await post(engine, {"config": "x"}, "/docker/run")) == (
        "This api call without component name is not supported, perhaps you wanted to call "
        "/{component}/run"
    )


@pytest.mark.scenario("runner", 24)
@pytest.mark.parametrize("headers", [{}, {"X-StorageApi-Token": ""}])
async def test_the_token_is_asked_for_before_anything_else(
    engine: FakeEngine, headers: dict[str, str]
) -> None:
    response = await post(engine, b"{broken", "/docker/none/run", headers)
    assert await refused(response) == "Missing StorageAPI token"


@pytest.mark.scenario("runner", 25)
async def test_a_token_that_nobody_knows_is_refused(engine: FakeEngine) -> None:
    response = await post(engine, b"{broken", headers={"X-StorageApi-Token": "wrong"})
    assert await refused(response, 401) == "Invalid StorageApi Token"


async def test_who_asks_is_stored_with_the_job(engine: FakeEngine) -> None:
    headers = {**HEADERS, "X-KBC-RunId": "111.5", "Idempotency-Key": "once"}
    await post(engine, {"config": "x"}, headers=headers)
    spec = engine.records[1].spec
    assert (spec["project"], spec["token_id"], spec["token_description"]) == ("1", "11", "token 11")
    assert (spec["parent_run_id"], spec["idempotency_key"]) == ("111.5", "once")


@pytest.mark.parametrize("name", ["X-KBC-RunId", "Idempotency-Key"])
async def test_a_header_that_is_too_long_is_refused(engine: FakeEngine, name: str) -> None:
    message = await refused(
        await post(engine, {"config": "x"}, headers={**HEADERS, name: "9" * 201})
    )
    assert name in message
    assert engine.records == {}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"configData": "text"}, "Body parameter 'configData' is not an object."),
        ({"configData": [1]}, "Body parameter 'configData' is not an object."),
        ({"config": "x", "tag": {"a": 1}}, "Body parameter 'tag' is not a string."),
        (
            {"config": "x", "variableValuesData": "x"},
            "Body parameter 'variableValuesData' is not an object.",
        ),
        ({"configData": {}, "configRowIds": ["a"]}, "Specify both 'row' and 'config'."),
        ({"config": "x", "configRowIds": "a"}, 'Invalid type for path "job.configRowIds".'),
        (
            {"config": "x", "configRowIds": [["a"]]},
            "Body parameter 'configRowIds.0' is not a string.",
        ),
        ({"config": "x", "parallelism": "many"}, 'The "parallelism" of a job must be'),
    ],
)
async def test_a_member_of_the_wrong_kind_is_refused(
    engine: FakeEngine, body: Any, words: str
) -> None:
    assert (await refused(await post(engine, body))).startswith(words)


async def test_variables_are_stored(engine: FakeEngine) -> None:
    values = {"values": [{"name": "a", "value": "b"}]}
    body = {"config": "x", "variableValuesId": 12, "variableValuesData": values}
    params = await stored(engine, await post(engine, body))
    assert (params["variableValuesId"], params["variableValuesData"]) == ("12", values)
    nothing: dict[str, Any] = {"config": "x", "variableValuesId": "0", "variableValuesData": []}
    params = await stored(engine, await post(engine, nothing))
    assert not {"variableValuesId", "variableValuesData"} & set(params)


async def test_a_body_that_is_too_large_is_refused(engine: FakeEngine) -> None:
    body = {"configData": {"a": "b" * 2000}}
    response = await post(engine, body, max_body_bytes=1024)
    assert "larger than 1024 bytes" in await refused(response, 413)
    assert engine.records == {}


async def test_a_token_may_be_for_some_components_only(engine: FakeEngine) -> None:
    engine.catalog.known["secret"] = token(component_access=("D",))
    await refused(await post(engine, {"config": "x"}), 403)
    engine.catalog.known["secret"] = token(component_access=("C",), role=Role.RUN)
    assert (await post(engine, {"config": "x"})).status_code == 202


async def test_the_token_and_the_component_are_asked_for_once_in_a_while(
    engine: FakeEngine, autojump_clock: trio.abc.Clock
) -> None:
    client = make_app(engine).test_client()

    async def run() -> int:
        response = await client.post("/docker/C/run", json={"config": "x"}, headers=HEADERS)
        status: int = response.status_code
        return status

    assert [await run() for _ in range(20)] == [202] * 20
    assert engine.catalog.asked == ["token secret", "component C"]
    # what another process changes is noticed a second later
    del engine.catalog.known["secret"]
    await trio.sleep(1)
    assert await run() == 401


async def test_a_revoked_token_is_refused_at_once(engine: FakeEngine) -> None:
    engine.catalog.known["other"] = token("12")
    client = make_app(engine).test_client()
    other = {"X-StorageApi-Token": "other"}
    assert (await client.get("/queue/job", headers=other)).status_code == 200
    revoked = await client.delete("/v2/storage/tokens/12?force=1", headers=HEADERS)
    assert revoked.status_code == 204
    assert (await client.get("/queue/job", headers=other)).status_code == 401


async def test_a_token_revoked_while_it_is_verified_is_not_remembered(engine: FakeEngine) -> None:
    engine.catalog.known["other"] = token("12")
    app = make_app(engine)
    client = app.test_client()
    verifying, revoked = trio.Event(), trio.Event()

    async def slowly() -> None:
        engine.catalog.answering = None
        verifying.set()
        await revoked.wait()

    engine.catalog.answering = slowly
    other = {"X-StorageApi-Token": "other"}

    async def ask() -> None:
        assert (await client.get("/queue/job", headers=other)).status_code == 200

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await verifying.wait()
        assert (
            await client.delete("/v2/storage/tokens/12?force=1", headers=HEADERS)
        ).status_code == 204
        revoked.set()
    assert (await client.get("/queue/job", headers=other)).status_code == 401


async def test_a_token_that_expires_is_refused_though_it_is_remembered(engine: FakeEngine) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    engine.catalog.known["secret"] = token(expires=soon)
    app = make_app(engine)
    client = app.test_client()
    assert (await client.get("/queue/job", headers=HEADERS)).status_code == 200
    engine.catalog.known["secret"] = token(expires=datetime.now(UTC) - timedelta(seconds=1))
    app.gate.tokens_changed()
    assert (await client.get("/queue/job", headers=HEADERS)).status_code == 401


async def test_a_new_component_can_be_run_at_once(engine: FakeEngine) -> None:
    client = make_app(engine).test_client()
    body = {"config": "x"}
    assert (await client.post("/docker/D/run", json=body, headers=HEADERS)).status_code == 400
    document = {"type": "other", "name": "D", "data": {}}
    made = await client.put("/v2/storage/components/D", json=document, headers=HEADERS)
    assert made.status_code == 200
    assert (await client.post("/docker/D/run", json=body, headers=HEADERS)).status_code == 202


async def test_addresses_in_answers_are_the_ones_clients_use(engine: FakeEngine) -> None:
    client = make_app(engine, public_url="https://vaka.example").test_client()
    response = await client.post("/docker/C/run", json={"config": "x"}, headers=HEADERS)
    assert (await response.get_json())["url"] == "https://vaka.example/queue/job/1"
    assert engine.records[1].status is Status.WAITING
