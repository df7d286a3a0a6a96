"""`POST /{component}/action/{action}`: what is refused, in which order, and what is answered."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from tests.keys import keys_of
from tests.server.conftest import COMPONENT, IMAGE, Answer, Site
from tests.server.fakes import scope
from trio.testing import MockClock

from vaka.models.catalog import Role
from vaka.models.ciphers import Scope
from vaka.models.container import ContainerSpec
from vaka.testing import FakeImage, Printed, Script, host_path
from vaka.testing.clock import thread_aware

CANNED = "Contact support@keboola.com and attach this exception id."
PATHS = ("/C/action/look", "/docker/C/action/look")


@pytest.fixture
def clock(autojump_clock: MockClock) -> Iterator[MockClock]:
    """Simulated time that waits for worker threads."""
    with thread_aware(autojump_clock):
        yield autojump_clock


async def declare(site: Site, *actions: str, **data: Any) -> None:
    """Let the component `C` have these actions."""
    data = {**COMPONENT["data"], "synchronous_actions": list(actions), **data}
    await site.engine.catalog.put_component({**COMPONENT, "data": data})


async def act(site: Site, script: Script, config_data: Any = None, **options: Any) -> Answer:
    """Call the action `look` of `C`, whose container does what `script` says."""
    site.host.images[IMAGE] = FakeImage(script)
    path = options.pop("path", PATHS[0])
    answer = await site.ask("POST", path, {"configData": config_data or {}}, **options)
    assert site.host.containers == []
    assert list((site.engine.config.home / "actions").glob("*")) == []
    return answer


async def printing(site: Site, text: str, **options: Any) -> Answer:
    """Call the action `look` of `C`, which prints `text`."""
    return await act(site, Script((Printed(text.encode()),)), **options)


def failing(message: str, code: int, stream: Any = "stderr") -> Script:
    return Script((Printed(message.encode(), stream=stream),), exit_code=code)


def refused(answer: Answer, status: int = 400) -> str:
    """The message of a refusal with this status."""
    title = "User error" if status < 500 else "Application error"
    assert (answer.status, answer.value["error"]) == (status, title), answer
    assert answer.value["code"] == status
    message: str = answer.value["message"]
    return message


# -- what is asked for -----------------------------------------------------------------------------


@pytest.mark.scenario("runner", 58)
@pytest.mark.parametrize("prefix", ["", "/docker"])
async def test_an_unknown_component_is_not_found(site: Site, prefix: str) -> None:
    for data in (b'{"configData": {}}', b"no json"):  # the body is looked at last
        answer = await site.ask("POST", f"{prefix}/x/action/look", data=data)
        assert refused(answer, 404) == "Component 'x' not found"


@pytest.mark.scenario("runner", 59)
@pytest.mark.scenario("runner", 60)
async def test_only_declared_actions_are_found_and_run_is_none(site: Site) -> None:
    await declare(site, "look")
    for data in (b'{"configData": {}}', b"no json"):
        answer = await site.ask("POST", "/C/action/somethingelse", data=data)
        assert refused(answer, 404) == "Action 'somethingelse' not found"
        answer = await site.ask("POST", "/C/action/run", data=data)
        assert refused(answer, 404) == "Action 'run' not found"
    await declare(site, "look", "run")
    site.app.gate.components_changed()
    answer = await site.ask("POST", "/C/action/run", data=b"no json")
    assert refused(answer, 405) == "Action 'run' not allowed"
    assert site.host.created == []


@pytest.mark.scenario("runner", 61)
@pytest.mark.parametrize(
    "body", [{}, {"config": "x"}, {"configData": None}, [], 12, "words", None, {"config": {}}]
)
async def test_an_inline_configuration_is_needed(site: Site, body: Any) -> None:
    await declare(site, "look")
    for path in PATHS:
        answer = await site.ask("POST", path, data=json.dumps(body).encode())
        assert refused(answer) == "Attribute 'configData' missing in request body"


async def test_a_body_is_json_with_an_object(site: Site) -> None:
    await declare(site, "look")
    answer = await site.ask("POST", PATHS[0], data=b"no json")
    assert refused(answer) == "Bad JSON format of request body: Syntax error"
    answer = await site.ask("POST", PATHS[0], {"configData": "text"})
    assert refused(answer) == "Body parameter 'configData' is not an object."


@pytest.mark.scenario("runner", 76)
async def test_a_configuration_has_known_members_only(site: Site) -> None:
    await declare(site, "look")
    answer = await act(site, Script(), {"parameters": {}, "foo": 1})
    assert "Unrecognized option" in refused(answer)
    assert site.host.created == []


async def test_a_token_of_other_components_is_refused(site: Site) -> None:
    await declare(site, "look")
    project = (await site.engine.catalog.projects())[0]
    _, secret = await site.engine.catalog.create_token(
        project.id, "limited", Role.RUN, component_access=("other",)
    )
    answer = await act(site, Script(), token=secret)
    assert refused(answer, 403) == "You don't have access to the resource."


# -- what is answered ------------------------------------------------------------------------------


@pytest.mark.scenario("runner", 62)
@pytest.mark.scenario("runner", 64)
@pytest.mark.scenario("runner", 74)
@pytest.mark.scenario("mapping", 258)
@pytest.mark.parametrize(
    ("printed", "answered"),
    [
        ('{"test":"test"}', b'{"test":"test"}'),
        ('\n {"test": "test"}\0\r\n', b'{"test":"test"}'),
        ("{}", b"{}"),
        ("[]", b"[]"),
        ('{"a": {}, "b": []}', b'{"a":{},"b":[]}'),
        ("null", b"{}"),
        ("false", b"false"),
        ('"ř<"', b'"\\u0159\\u003C"'),
        ('{"component": "x", "a": {"component": "y"}}', b'{"a":{"component":"y"}}'),
        ('[{"component": "x"}]', b'[{"component":"x"}]'),
        (
            '[{"value": "a", "label": "A"}, {"value": "b", "label": "b"}]',
            b'[{"value":"a","label":"A"},{"value":"b","label":"b"}]',
        ),
    ],
)
async def test_what_the_container_prints_is_the_answer(
    site: Site, printed: str, answered: bytes
) -> None:
    await declare(site, "look")
    for path in PATHS:
        site.host.images[IMAGE] = FakeImage(Script((Printed(printed.encode()),)))
        response = await site.app.test_client().post(
            path,
            json={"configData": {}},
            headers={"X-StorageApi-Token": site.tokens["run"]},
        )
        assert response.status_code == 200
        assert response.content_type == "application/json"
        assert await response.get_data() == answered


@pytest.mark.scenario("runner", 65)
@pytest.mark.scenario("runner", 66)
@pytest.mark.scenario("runner", 67)
@pytest.mark.scenario("mapping", 258)
@pytest.mark.parametrize(
    ("printed", "message"),
    [
        ("", "No response from component."),
        (" \n", "No response from component."),
        ("0", "No response from component."),
        ("not json", "Syntax error"),
        ('{"a": NaN}', "Syntax error"),
        ('{"a": 1}{"b": 2}', "Syntax error"),
        ("9" * 5000, "Syntax error"),
        ('"\n"', "Control character error, possibly incorrectly encoded"),
        ('"\\ud800"', "Single unpaired high surrogate in Unicode escape"),
        ("1e999", "Inf and NaN cannot be JSON encoded"),
        ("[" * 513 + "]" * 513, "Maximum stack depth exceeded"),
        ("[" * 100_000, "Maximum stack depth exceeded"),
    ],
)
async def test_what_is_no_json_is_no_answer(site: Site, printed: str, message: str) -> None:
    await declare(site, "look")
    if not message.endswith("."):
        message = f"Decoding JSON response from component failed: {message}"
    assert refused(await printing(site, printed)) == message


@pytest.mark.scenario("runner", 63)
async def test_a_default_bucket_needs_no_configuration(site: Site) -> None:
    await declare(site, "look", default_bucket=True)
    assert (await printing(site, '{"ok": true}')).value == {"ok": True}


@pytest.mark.scenario("runner", 69)
@pytest.mark.scenario("mapping", 259)
async def test_a_users_error_is_told_as_the_component_said_it(site: Site) -> None:
    await declare(site, "look")
    assert refused(await act(site, failing("user error\n", 1))) == "user error"
    assert refused(await act(site, failing("user error\n", 1, "stdout"))) == "user error"


@pytest.mark.scenario("runner", 70)
@pytest.mark.parametrize("code", [2, 125, 137])
async def test_an_application_error_is_told_to_the_log_only(
    site: Site, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    await declare(site, "look")
    answer = await act(site, failing("application error", code))
    assert refused(answer, 500) == CANNED
    (record,) = (each for each in caplog.records if each.levelno >= logging.ERROR)
    assert f"failed: ({code}) application error" in vars(record)["detail"]
    assert vars(record)["exception_id"] == answer.value["exceptionId"]


async def test_a_component_may_have_no_application_errors(site: Site) -> None:
    await declare(site, "look", logging={"type": "standard", "no_application_errors": True})
    message = refused(await act(site, failing("application error", 2)))
    assert message.startswith(f"{IMAGE} container 'vaka-")
    assert message.endswith("failed: (2) application error")


async def test_a_container_without_memory_is_told_so(site: Site) -> None:
    await declare(site, "look", memory="32m")
    message = refused(await act(site, Script(oom_killed=True)))
    assert message == "Component out of memory (exceeded 32m)"


@pytest.mark.scenario("runner", 68)
async def test_an_action_ends_after_45_seconds(site: Site, clock: MockClock) -> None:
    await declare(site, "look")
    began = trio.current_time()
    answer = await act(site, Script((Printed(b"{}"),), seconds=math.inf))
    assert refused(answer) == f"Running {IMAGE} container exceeded the timeout of 45 seconds."
    assert 45 <= trio.current_time() - began < 46
    began = trio.current_time()
    assert (await act(site, Script((Printed(b"{}"),), seconds=44))).status == 200
    assert trio.current_time() - began >= 44


@pytest.mark.scenario("runner", 77)
async def test_a_secret_is_shown_in_the_answer_and_nowhere_else(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await declare(site, "look")
    config = {"parameters": {"#password": "hunter-2-hunter"}}
    told = Printed(b"of hunter-2-hunter", stream="stderr")
    script = Script((Printed(b'{"is": "hunter-2-hunter"}'), told))
    assert (await act(site, script, config)).value == {"is": "hunter-2-hunter"}
    answer = await act(site, failing("not hunter-2-hunter", 1), config)
    assert refused(answer) == "not [hidden]"
    assert refused(await act(site, failing("not hunter-2-hunter", 2), config), 500) == CANNED
    await act(site, Script((Printed(b"{hunter-2-hunter"),)), config)
    logged = [str(vars(record)) for record in caplog.records]
    assert not any("hunter-2-hunter" in line for line in logged)
    for text in ("of [hidden]", "failed: (2) not [hidden]", "{[hidden]"):
        assert any(text in line for line in logged), text


@pytest.mark.scenario("encryption", 76)
@pytest.mark.scenario("runner", 71)
@pytest.mark.scenario("runner", 72)
async def test_an_action_sees_its_secrets_whether_they_came_encrypted_or_not(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    vendor = await keys_of("localhost").encrypt({"#v": "vendor-secret"}, Scope("C"))
    await declare(site, "look", image_parameters=vendor)
    project = (await site.engine.catalog.verify_token(site.tokens["admin"])).project.id
    scope = Scope("C", project)
    seen: list[Any] = []

    def look(spec: ContainerSpec) -> None:
        seen.append(json.loads(host_path(spec, "/data/config.json").read_text()))

    ciphers = {}
    for family in ("ComponentSecure", "ProjectSecure", "ProjectWideSecure"):
        given = {"#": f"of {family}"}
        sealed = await site.engine.encryption.encrypt(given, scope, family=family)
        ciphers[f"#{family}"] = sealed["#"]
    plain = {"#a": "hunter-2-hunter", "#n": 12, "#yes": True, "#no": None, "#x": "{{ x }}", "b": 1}
    assert (
        await act(
            site, Script((Printed(b"{}"),), effect=look), {"parameters": {**plain, **ciphers}}
        )
    ).value == {}
    assert seen[0]["parameters"] == {
        "#a": "hunter-2-hunter",
        "#n": "12",
        "#yes": "1",
        "#no": "",
        "#x": "{{ x }}",
        "b": 1,
        **{name: f"of {name[1:]}" for name in ciphers},
    }
    assert seen[0]["image_parameters"] == {"#v": "vendor-secret"}
    logged = [str(vars(record)) for record in caplog.records]
    for secret in ("hunter-2-hunter", "of ProjectSecure", "vendor-secret"):
        assert not any(secret in line for line in logged)
    stolen = await act(site, Script(), {"parameters": {"#mine": "vendor-secret"}})
    assert refused(stolen).startswith("Component secrets cannot be used in configurations (used in")


@pytest.mark.scenario("runner", 73)
async def test_an_action_with_a_broken_cipher_is_refused(site: Site) -> None:
    await declare(site, "look")
    for cipher, shown in (
        ("KBC::ComponentEncrypted==broken", "KBC::ComponentEncrypted==broken"),
        ("KBC::ProjectSecure::v1.0123456789abcdef", "KBC::ProjectSecure::v1.012345678…"),
    ):
        answer = await act(site, Script(), {"parameters": {"#password": cipher}})
        assert refused(answer) == (
            f"Invalid cipher text for key #password Value {shown} is not an encrypted value."
        )
    assert site.host.created == []


async def test_tokens_in_an_actions_own_credentials_are_hidden_too(site: Site) -> None:
    await declare(site, "look")
    credentials = {"#data": json.dumps({"access_token": "at-0123456789abcdef"})}
    config = {"authorization": {"oauth_api": {"credentials": credentials}}}
    answer = await act(site, failing("no at-0123456789abcdef", 1), config)
    assert refused(answer) == "no [hidden]"


async def test_standard_error_is_for_the_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await declare(site, "look")
    script = Script((Printed(b"slow today", stream="stderr"), Printed(b"{}")))
    assert (await act(site, script)).value == {}
    (record,) = (each for each in caplog.records if each.msg == "action.printed")
    assert (vars(record)["stream"], vars(record)["text"]) == ("stderr", "slow today")


async def test_an_answer_has_a_bound(site: Site) -> None:
    await declare(site, "look")
    script = Script((Printed(b"x" * (1 << 20), times=17),), seconds=10_000)
    message = refused(await act(site, script))
    assert message.startswith("The action answered with more than 16 MiB")


# -- what the container sees -----------------------------------------------------------------------


@pytest.mark.scenario("runner", 75)
@pytest.mark.scenario("mapping", 92)
async def test_nothing_is_staged_and_no_processor_runs(site: Site) -> None:
    seen: dict[str, Any] = {}

    def look(spec: ContainerSpec) -> None:
        data = host_path(spec, "/data")
        seen["files"] = sorted(
            str(path.relative_to(data)) for path in data.rglob("*") if path.is_file()
        )
        seen["config"] = json.loads((data / "config.json").read_text())
        seen["state"] = json.loads((data / "in/state.json").read_text())
        assert (data / "in/files").is_dir()
        assert (data / "in/tables").is_dir()

    await declare(site, "look")
    stored = await site.ask("POST", "/vaka/files?name=a.txt&tags=here", data=b"abc")
    assert stored.status == 201, stored
    config = {
        "parameters": {"a": {}},
        "storage": {
            "input": {
                "files": [{"tags": ["here"]}],
                "tables": [{"source": "in.c-b.absent", "destination": "t.csv"}],
            }
        },
        "processors": {"before": [{"definition": {"component": "no-such-processor"}}]},
    }
    answer = await act(site, Script((Printed(b"{}"),), effect=look), config)
    assert answer.value == {}, answer
    assert seen["files"] == ["config.json", "in/state.json"]
    assert seen["config"]["action"] == "look"
    assert seen["config"]["parameters"] == {"a": {}}
    assert seen["state"] == {}
    assert len(site.host.created) == 1
    # a component that counts on its table says so itself
    script = failing("[Errno 2] No such file: '/data/in/tables/t.csv'", 1)
    assert "/data/in/tables/t.csv" in refused(await act(site, script, config))


async def test_a_container_is_that_of_a_job_with_the_id_0(site: Site) -> None:
    await declare(site, "look", forward_token=True, forward_token_details=True, memory="64m")
    header = {"X-KBC-RunId": "12.34"}
    await act(site, Script((Printed(b"{}"),)), headers=header)
    site.host.images["worker:2"] = FakeImage(Script((Printed(b"{}"),)))
    body = {"configData": {}, "tag": "2", "branchId": "7"}
    assert (await site.ask("POST", PATHS[0], body, headers=header)).status == 200
    spec, other = site.host.created
    assert spec.name != other.name  # the same run id is no conflict
    prefix = "com.keboola.docker-runner."
    assert spec.labels[f"{prefix}jobId"] == "0"
    assert spec.labels[f"{prefix}runId"] == spec.environment["KBC_RUNID"] == "12.34"
    assert spec.memory_bytes == 64 << 20
    assert spec.environment["KBC_TOKEN"] == site.tokens["admin"]
    assert spec.environment["KBC_TOKENDESC"] == "the admin"
    assert "KBC_BRANCHID" not in spec.environment
    assert other.environment["KBC_BRANCHID"] == "7"
    assert [method for method, name in site.host.calls if name == "worker:2"]


async def test_a_tag_that_no_image_can_have_is_the_callers_error(site: Site) -> None:
    await declare(site, "look")
    answer = await site.ask("POST", PATHS[0], {"configData": {}, "tag": "a b"})
    assert refused(answer) == 'Image "C:a b" not found in the registry.'
    assert site.host.created == []


# -- how many, and for how long --------------------------------------------------------------------


async def test_as_many_run_as_may_and_the_next_is_told_to_come_again(site: Site) -> None:
    await declare(site, "look")
    most = site.engine.config.action_concurrency
    site.host.images[IMAGE] = FakeImage(Script(seconds=math.inf))
    answers: list[Answer] = []

    async def ask() -> None:
        answers.append(await site.ask("POST", PATHS[0], {"configData": {}}))

    async with trio.open_nursery() as nursery:
        for _ in range(most):
            nursery.start_soon(ask)
        while len(running(site)) < most:  # noqa: ASYNC110 - containers tell of no event
            await trio.sleep(0.01)
        one_more = await site.ask("POST", PATHS[0], {"configData": {}})
        assert refused(one_more, 503).startswith(f"{most} actions are running")
        assert one_more.headers["Retry-After"] == "1"
        for name in running(site):
            site.host.print(name, b"{}")
            site.host.finish(name)
    assert [answer.status for answer in answers] == [200] * most
    assert (await printing(site, "{}")).status == 200


def running(site: Site) -> list[str]:
    """Names of the containers that have been started."""
    started = {name for method, name in site.host.calls if method == "start"}
    return [name for name in site.host.containers if name in started]


async def test_who_goes_away_cancels_the_action(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    await declare(site, "look")
    site.host.images[IMAGE] = FakeImage(Script(seconds=math.inf))
    send, receive = trio.open_memory_channel[Any](2)
    await send.send({"type": "http.request", "body": b'{"configData": {}}', "more_body": False})
    asked = scope(PATHS[0], method="POST", secret=site.tokens["admin"])

    async def answer(message: Any) -> None:
        raise AssertionError(f"nobody is there to be told {message}")

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(site.app, asked, receive.receive, answer)
            while not running(site):  # noqa: ASYNC110
                await trio.sleep(0.01)
            assert len(list((site.engine.config.home / "actions").iterdir())) == 1
            await send.send({"type": "http.disconnect"})
    assert site.host.containers == []
    assert list((site.engine.config.home / "actions").iterdir()) == []
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
