"""What a job gets from elsewhere: variables, shared code, credentials; seen from its container."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr
from tests.engine.conftest import MakeEngine
from tests.keys import KEY_RING, sealed
from trio.testing import MockClock

from vaka import ActionSpec, Engine, EngineConfig, Job, JobSpec, Outcome, Status
from vaka.errors import ApplicationError, UserError
from vaka.hooks import ContainerRuntime, hookimpl
from vaka.models.container import ContainerSpec
from vaka.oauth import DEPRECATED
from vaka.testing import FakeHost, FakeImage, FakeRuntime, Printed, Script, host_path
from vaka.variables import SHARED_CODE, VARIABLES

COMPONENT = "vendor.worker"
CREDENTIALS = {
    "id": "main",
    "authorizedFor": "me",
    "appKey": "key",
    "#appSecret": "app-hunter2",
    "#data": json.dumps({"access_token": "at-0123456789abcdef", "token_type": "bearer"}),
}


class Worker:
    """A component's container: keeps what it was given, prints what it is told to."""

    def __init__(self, *output: Printed) -> None:
        self.documents: list[Any] = []
        self._output = output

    def image(self) -> FakeImage:
        return FakeImage(Script(self._output, effect=self._read))

    def _read(self, spec: ContainerSpec) -> None:
        self.documents.append(json.loads(host_path(spec, "/data/config.json").read_text()))


async def register(engine: Engine, **data: Any) -> None:
    definition = {"type": "dockerhub", "uri": "worker", "tag": "1"}
    await engine.catalog.put_component(
        {
            "id": COMPONENT,
            "type": "application",
            "name": "W",
            "data": {"definition": definition, **data},
        }
    )


async def configure(engine: Engine, component: str, config: str, content: Any, **rows: Any) -> None:
    await engine.catalog.create_configuration(
        "1", component, config, config_id=config, configuration=content
    )
    for row_id, row in rows.items():
        await engine.catalog.create_row("1", component, config, row_id=row_id, configuration=row)


async def notes(job: Job) -> list[str]:
    return [event.message async for event in job.events(follow=False) if event.kind == "note"]


def values(**given: str) -> dict[str, Any]:
    return {"values": [{"name": name, "value": value} for name, value in given.items()]}


# -- variables -------------------------------------------------------------------------------------


@pytest.mark.scenario("runner", 218)
@pytest.mark.scenario("runner", 226)
@pytest.mark.scenario("runner", 227)
@pytest.mark.scenario("runner", 228)
async def test_a_container_sees_a_configuration_without_placeholders(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    worker = Worker(Printed(b"quoted: hunter-2-hunter\n"))
    host.images["worker:1"] = worker.image()
    async with make_engine() as engine:
        await register(engine)
        declared = {"variables": [{"name": "foo", "type": "string"}]}
        await configure(engine, VARIABLES, "v", declared, a=values(foo='say "hi"\n'))
        await configure(engine, SHARED_CODE, "s", {}, row1={"code_content": ["one {{ foo }}", "2"]})
        await engine.catalog.put_vault_variable("1", "x", "from the vault")
        secret = await sealed({"#": "hunter-2-hunter"}, None)
        await engine.catalog.put_vault_variable("1", "s", secret["#"], is_encrypted=True)
        await configure(
            engine,
            COMPONENT,
            "c",
            {
                "parameters": {
                    "#secret": "{{ vault.s }}",
                    "said": "{{ foo }}",
                    "vault": "{{ vault.x }}",
                    "script": ["{{ row1 }}", "3"],
                },
                "variables_id": "v",
                "variables_values_id": "a",
                "shared_code_id": "s",
                "shared_code_row_ids": ["row1"],
            },
        )
        job = await engine.submit(JobSpec(component=COMPONENT, config="c"))
        outcome = await job.wait()
        assert outcome.status is Status.SUCCESS, outcome
        told = await notes(job)
        inline = await engine.submit(
            JobSpec(component=COMPONENT, config="c", variable_values_data=values(foo="inline"))
        )
        assert (await inline.wait()).status is Status.SUCCESS
        logged = [event.message async for event in job.events() if event.kind == "log"]
    first, second = worker.documents
    assert first["parameters"] == {
        "#secret": "hunter-2-hunter",
        "said": 'say "hi"\n',
        "vault": "from the vault",
        "script": ['one say "hi"\n', "2", "3"],
    }
    assert (first["variables_id"], first["variables_values_id"]) == ("v", "a")
    assert second["parameters"]["script"] == ["one inline", "2", "3"]
    assert told[:3] == [
        'Loaded shared code snippets with ids: "row1".',
        'Replacing variables using default values with ID: "a"',
        'Replaced values for variables: "foo".',
    ]
    assert outcome.result["variables"] == [
        {"name": "vault.s", "value": "[hidden]"},
        {"name": "vault.x", "value": "from the vault"},
        {"name": "foo", "value": 'say "hi"\n'},
    ]
    assert logged == ["quoted: [hidden]"]


@pytest.mark.scenario("runner", 217)
@pytest.mark.scenario("runner", 219)
@pytest.mark.scenario("runner", 222)
async def test_what_cannot_be_replaced_fails_the_job_before_anything_runs(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    host.images["worker:1"] = Worker().image()
    async with make_engine(strict_variables=True) as engine:
        await register(engine)
        await configure(engine, VARIABLES, "v", {"variables": []}, a=values(foo="1"))

        async def run(content: Any, **spec: Any) -> Outcome:
            job = JobSpec(component=COMPONENT, config_data=content, **spec)
            return await (await engine.submit(job)).wait()

        here = {"variables_id": "v", "variables_values_id": "a"}
        outcomes = [
            await run({"parameters": {"a": "{{ foo }} {{ bar }}"}, **here}),
            await run({}, variable_values_id="a", variable_values_data=values(foo="1")),
            await run({"variables_id": "non-existent"}),
        ]
    assert [(each.error, each.message) for each in outcomes] == [
        ("user", "Missing values for placeholders: bar"),
        ("user", "Only one of variables_id and variableValuesId can be entered"),
        ("user", "Variable configuration cannot be read: Configuration non-existent not found"),
    ]
    assert host.created == []


# -- authorization ---------------------------------------------------------------------------------


@pytest.mark.scenario("runner", 236)
async def test_a_configuration_cannot_use_its_components_secret(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    worker = Worker()
    host.images["worker:1"] = worker.image()
    async with make_engine() as engine:
        parameters = {"deep": {"#key": "hunter2", "#pin": "123"}}
        await register(engine, image_parameters=await sealed(parameters, COMPONENT, None))

        async def run(parameters: Any) -> Outcome:
            spec = JobSpec(component=COMPONENT, config_data={"parameters": parameters})
            return await (await engine.submit(spec)).wait()

        stolen = await run({"credentials": {"#other": "hunter2"}})
        fine = await run({"other": "mine", "#pin": "123", "#mine": "hunter3"})
    assert (stolen.error, stolen.message) == (
        "user",
        'Component secrets cannot be used in configurations (used in "parameters.credentials.#other"'
        "). Please contact support if you need further explanation.",
    )
    assert fine.status is Status.SUCCESS
    assert len(worker.documents) == 1


PROXY: dict[str, Any] = {
    "auth_providers": [{"id": "simple", "type": "password", "extra": {"kept": []}}],
    "auth_rules": [
        {"type": "pathPrefix", "value": "/", "auth_required": True, "auth": ["simple"]},
        {"type": "pathPrefix", "value": "/open", "auth_required": False},
    ],
}


@pytest.mark.scenario("runner", 237)
async def test_app_proxy_and_context_reach_the_container_or_are_refused(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    worker = Worker()
    host.images["worker:1"] = worker.image()
    async with make_engine() as engine:
        await register(engine)

        async def run(proxy: Any, **runtime: Any) -> Outcome:
            content = {"authorization": {"app_proxy": proxy}, "runtime": {"backend": runtime}}
            spec = JobSpec(component=COMPONENT, config_data=content)
            return await (await engine.submit(spec)).wait()

        fine = await run(PROXY, context="wlm")
        rule = {"type": "pathPrefix", "auth_required": True}
        no_auth = await run({**PROXY, "auth_rules": [rule]})
        unknown = await run({**PROXY, "auth_rules": [{**rule, "auth": ["foo"]}]})
    assert fine.status is Status.SUCCESS
    (document,) = worker.documents
    assert document["authorization"] == {"app_proxy": PROXY, "context": "wlm"}
    assert (no_auth.error, no_auth.message) == (
        "user",
        'Invalid configuration for path "app_proxy.auth_rules.0": "auth" value must be configured '
        '(only) when "auth_required" is true',
    )
    assert unknown.message == (
        'Invalid configuration for path "app_proxy": auth_rules.0.auth contains unknown auth '
        "providers: foo"
    )


# -- OAuth -----------------------------------------------------------------------------------------


class Broker:
    """An OAuth broker of the test's own."""

    def __init__(self) -> None:
        self.status = 200
        self.body = b""
        self.asked: list[tuple[str, str | None]] = []
        broker = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                broker.asked.append((self.path, self.headers.get("X-StorageApi-Token")))
                self.send_response(broker.status)
                self.send_header("Content-Length", str(len(broker.body)))
                self.end_headers()
                self.wfile.write(broker.body)

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/oauth-v3/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
async def broker(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Broker]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    broker = Broker()
    broker.body = json.dumps(await sealed(CREDENTIALS, COMPONENT)).encode()
    yield broker
    broker.close()


def make_real_engine(home: Path, host: FakeHost, **settings: Any) -> Engine:
    """An engine on real time, which a real connection needs."""

    @hookimpl
    def vaka_container_runtime(url: str) -> ContainerRuntime:
        return FakeRuntime(host=host)

    return Engine(
        EngineConfig(home=home, key_ring_document=KEY_RING, **settings),
        plugins=[SimpleNamespace(vaka_container_runtime=vaka_container_runtime)],
    )


async def run_with(engine: Engine, oauth_api: Any, *, token: str | None = "the-token") -> Job:
    content = {"authorization": {"oauth_api": oauth_api}}
    job = await engine.submit(
        JobSpec(
            component=COMPONENT,
            config_data=content,
            token=None if token is None else SecretStr(token),
        )
    )
    await job.wait()
    await job.refresh()
    return job


@pytest.mark.scenario("runner", 229)
@pytest.mark.scenario("runner", 230)
@pytest.mark.scenario("runner", 231)
@pytest.mark.scenario("runner", 232)
async def test_credentials_are_the_brokers_or_the_configurations_own(
    tmp_path: Path, broker: Broker
) -> None:
    printed = b"app-hunter2 and at-0123456789abcdef, bearer\n"
    worker = Worker(Printed(printed))
    host = FakeHost({"worker:1": worker.image()})
    async with make_real_engine(tmp_path, host, oauth_url=broker.url) as engine:
        await register(engine, synchronous_actions=["accounts"])

        fetched = await run_with(engine, {"id": "ma/in", "version": 3})
        assert fetched.record.status is Status.SUCCESS, fetched.record.result
        assert worker.documents[-1]["authorization"] == {"oauth_api": {"credentials": CREDENTIALS}}
        assert broker.asked == [(f"/oauth-v3/credentials/{COMPONENT}/ma%2Fin", "the-token")]
        logged = [event.message async for event in fetched.events() if event.kind == "log"]
        assert logged == ["[hidden] and [hidden], bearer"]

        for given in (
            {"id": "main", "version": 2},
            {"id": "main"},
            {"id": "main", "version": "4"},
            {},
        ):
            refused = await run_with(engine, given)
            assert (refused.record.error, refused.record.result["message"]) == ("user", DEPRECATED)
        nothing = await run_with(engine, {"version": "3"})
        assert nothing.record.status is Status.SUCCESS
        assert worker.documents[-1]["authorization"] == {}
        own = await run_with(engine, {"id": "main", "version": 2, "credentials": {"#data": "mine"}})
        assert own.record.status is Status.SUCCESS
        assert worker.documents[-1]["authorization"] == {
            "oauth_api": {"credentials": {"#data": "mine"}}
        }
        assert len(broker.asked) == 1
        whole = await run_with(engine, {"credentials": CREDENTIALS})
        logged = [event.message async for event in whole.events() if event.kind == "log"]
        assert logged == ["[hidden] and [hidden], bearer"]

        forgotten = await run_with(engine, {"id": "main", "version": 3}, token=None)
        assert "with the Storage token, and this job has none" in forgotten.record.result["message"]
        broker.body = json.dumps({"#data": "KBC::ProjectSecure::abc"}).encode()
        broken = await run_with(engine, {"id": "main", "version": 3})
        assert (broken.record.error, broken.record.result["message"]) == (
            "user",
            "Encryption error: Invalid cipher text for key #data Value KBC::ProjectSecure::abc is not "
            "an encrypted value.",
        )

        ran = len(host.created)
        for status, body, error, message in (
            (400, {"message": "No data found for api x"}, "user", "No data found for api x"),
            (404, {"error": "Unknown"}, "user", "Unknown"),
            (403, "<html>", "user", "The OAuth broker refused with status 403."),
            (500, {"message": "internal words"}, "application", "Internal error occurred"),
            (302, {}, "application", "Internal error occurred"),
            (200, ["no", "object"], "application", "Internal error occurred"),
            (200, {"a": "x" * (1 << 20)}, "application", "Internal error occurred"),
        ):
            broker.status, broker.body = status, json.dumps(body).encode()
            failed = await run_with(engine, {"id": "main", "version": 3})
            assert failed.record.error == error, status
            assert failed.record.result["message"].startswith(message)
        assert len(host.created) == ran  # nothing was started without its credentials


async def test_an_action_gets_credentials_as_well(tmp_path: Path, broker: Broker) -> None:
    worker = Worker(Printed(b"{}"))
    host = FakeHost({"worker:1": worker.image()})
    async with make_real_engine(tmp_path, host, oauth_url=broker.url) as engine:
        await register(engine, synchronous_actions=["accounts"])
        spec = ActionSpec(
            component=COMPONENT,
            action="accounts",
            config_data={"authorization": {"oauth_api": {"id": "main", "version": 3}}},
            token=SecretStr("t"),
        )
        await engine.act(spec)
        assert worker.documents[0]["authorization"] == {"oauth_api": {"credentials": CREDENTIALS}}
        broker.status = 500
        with pytest.raises(ApplicationError, match="status 500"):
            await engine.act(spec)
        old = {"authorization": {"oauth_api": {"id": "main", "version": 2}}}
        with pytest.raises(UserError, match="deprecated"):
            await engine.act(spec.model_copy(update={"config_data": old}))


async def test_a_broker_that_is_not_there_is_an_application_error(
    tmp_path: Path, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    host = FakeHost({"worker:1": FakeImage()})
    async with make_real_engine(tmp_path, host, oauth_url="http://127.0.0.1:9/") as engine:
        await register(engine)
        job = await run_with(engine, {"id": "main", "version": 3})
    assert job.record.error == "application"
    (failed,) = [record for record in caplog.records if record.msg == "job.failed"]
    told = vars(failed)["exception"]
    assert "ApplicationError: The OAuth broker at http://127.0.0.1:9/ does not answer" in told


@pytest.mark.scenario("runner", 232)
async def test_without_a_broker_credentials_are_the_catalogs(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    worker = Worker()
    host.images["worker:1"] = worker.image()
    async with make_engine() as engine:
        await register(engine)
        await engine.catalog.put_oauth_credentials("1", COMPONENT, "open", {"id": "open"})
        await engine.catalog.put_oauth_credentials(
            "1", COMPONENT, "sealed", await sealed({"#data": "hunter-2-hunter"}, COMPONENT)
        )
        found = await run_with(engine, {"id": "open", "version": 3}, token=None)
        await run_with(engine, {"id": "sealed", "version": 3})
        gone = await run_with(engine, {"id": "gone", "version": 3})
    assert found.record.status is Status.SUCCESS
    assert worker.documents[0]["authorization"] == {"oauth_api": {"credentials": {"id": "open"}}}
    assert worker.documents[1]["authorization"] == {
        "oauth_api": {"credentials": {"#data": "hunter-2-hunter"}}
    }
    assert (gone.record.error, gone.record.result["message"]) == (
        "user",
        f"No data found for api {COMPONENT}",
    )


# -- another engine --------------------------------------------------------------------------------


async def test_an_engine_that_takes_a_job_over_knows_its_variables_and_its_secrets(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def fetch(*args: Any, credentials_id: str, **kwargs: Any) -> Any:
        asked.append(credentials_id)
        return await sealed(CREDENTIALS, COMPONENT)

    monkeypatch.setattr("vaka.actors.definition.fetch_credentials", fetch)
    output = (Printed(b"begun\n"), Printed(b"later: app-hunter2\n", at=50))
    processor = FakeImage(Script((Printed(b"from the processor\n"),)))
    host.images |= {"worker:1": FakeImage(Script(output, seconds=100)), "after:1": processor}
    content = {
        "parameters": {"a": "{{ vault.x }}"},
        "authorization": {"oauth_api": {"id": "main", "version": 3}},
        "processors": {"after": [{"definition": {"component": "vendor.after"}}]},
    }
    async with make_engine(shutdown="adopt") as engine:
        await register(engine)
        definition = {"type": "dockerhub", "uri": "after", "tag": "1"}
        await engine.catalog.put_component(
            {"id": "vendor.after", "type": "p", "name": "A", "data": {"definition": definition}}
        )
        await engine.catalog.put_vault_variable("1", "x", "as it was")
        job = await engine.submit(JobSpec(component=COMPONENT, config_data=content))
        async for event in job.events():
            if event.message == "begun":
                break
        await engine.catalog.put_vault_variable("1", "x", "changed")
    async with make_engine() as engine:
        job = await engine.job(job.id)
        outcome = await job.wait()
        logged = [event.message async for event in job.events() if event.kind == "log"]
        stored = json.dumps(await engine.services.store.definitions(job.id, 1))
    assert outcome.status is Status.SUCCESS, outcome
    assert outcome.result["variables"] == [{"name": "vault.x", "value": "as it was"}]
    assert logged == ["begun", "later: [hidden]", "from the processor"]
    assert asked == ["main", "main"]
    assert "hunter2" not in stored


async def test_an_action_sees_its_placeholders_as_they_are(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    worker = Worker(Printed(b"{}"))
    host.images["worker:1"] = worker.image()
    content = {"parameters": {"a": "{{ foo }} {{ vault.x }}"}, "variables_id": "v"}
    async with make_engine() as engine:
        await register(engine, synchronous_actions=["look"])
        await engine.act(ActionSpec(component=COMPONENT, action="look", config_data=content))
    assert worker.documents[0]["parameters"] == content["parameters"]


@pytest.mark.scenario("runner", 230)
async def test_a_row_that_counts_on_the_old_broker_is_told_before_any_row_runs(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    host.images["worker:1"] = Worker().image()
    old = {"authorization": {"oauth_api": {"id": "main", "version": 2}}}
    async with make_engine() as engine:
        await register(engine)
        await configure(engine, COMPONENT, "c", {}, fine={}, old=old)
        outcome = await (await engine.submit(JobSpec(component=COMPONENT, config="c"))).wait()
    assert (outcome.error, outcome.message) == ("user", DEPRECATED)
    assert host.created == []
