"""How a job comes by its images (runner.md sections 10.5 and 10.6)."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from tests.engine.conftest import MakeEngine
from trio.testing import MockClock

from vaka import Engine, Job, JobSpec, Status
from vaka.errors import ImageUnavailable, RuntimeUnavailable
from vaka.hooks import hookimpl
from vaka.models.container import RegistryAuth
from vaka.models.job import ActionSpec
from vaka.testing import FakeHost, FakeImage, Printed, Script

Noted = Callable[[], list[str]]

COMPONENT = "keboola.ex-one"
IMAGE = "one:latest"
DIGEST = "ab" * 32
KNOWN = f"one@sha256:{DIGEST}"
ECR = "147946154733.dkr.ecr.us-east-1.amazonaws.com"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials of the machine that the tests run on."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


def log_in(tmp_path: Path, *hosts: str) -> None:
    """Write down what `docker login` would."""
    auth = base64.b64encode(b"robot:pw1").decode()
    folder = tmp_path / "docker"
    folder.mkdir(exist_ok=True)
    document = {"auths": {host: {"auth": auth} for host in hosts}}
    (folder / "config.json").write_text(json.dumps(document))


async def run(engine: Engine, tag: str | None = None, **definition: Any) -> Job:
    """A job of a component of this definition, ended."""
    await engine.catalog.put_component(
        {
            "id": COMPONENT,
            "type": "extractor",
            "name": "One",
            "data": {"definition": {"type": "dockerhub", "uri": "one", **definition}},
        }
    )
    job = await engine.submit(JobSpec(component=COMPONENT, config_data={}, tag=tag))
    await job.wait()
    return job


async def told(job: Job) -> list[str]:
    """What whoever follows the job is told of images."""
    return [
        event.message
        async for event in job.events()
        if event.level == "warn" or event.kind == "image.prepared"
    ]


@pytest.fixture
def noted(caplog: pytest.LogCaptureFixture) -> Noted:
    """Gives the notices about images, which the operator sees."""
    caplog.set_level(logging.INFO)

    def noted() -> list[str]:
        records = [vars(record) for record in caplog.records if record.msg == "job.noted"]
        words = ("Digest ", "Failed to get hash ", "Retrying ")
        return [each["reason"] for each in records if each["reason"].startswith(words)]

    return noted


def pulls(host: FakeHost) -> list[str]:
    return [name for method, name in host.calls if method == "pull"]


@pytest.mark.scenario("runner", 131)
async def test_an_image_of_the_wanted_digest_is_not_pulled(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, noted: Noted
) -> None:
    host.images[IMAGE] = FakeImage(digests=(KNOWN,))
    async with make_engine() as engine:
        job = await run(engine, digest=DIGEST)
        notices = await told(job)
    assert pulls(host) == []
    assert noted() == []
    assert notices == [f"Using image {IMAGE} with repo-digest {KNOWN}"]


@pytest.mark.scenario("runner", 132)
@pytest.mark.scenario("runner", 133)
async def test_an_image_of_another_digest_is_told_of_and_pulled(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, noted: Noted
) -> None:
    host.images[IMAGE] = FakeImage(digests=(KNOWN,))
    async with make_engine() as engine:
        job = await run(engine, digest="cd" * 32)
        notices = await told(job)
    assert pulls(host) == [IMAGE]
    assert noted() == [f'Digest "{"cd" * 32}" for image "{IMAGE}" not found.']
    assert notices == [f"Using image {IMAGE} with repo-digest {KNOWN}"]
    assert job.record.result["images"] == [[{"id": IMAGE, "digests": [KNOWN]}]]


async def test_an_image_that_is_not_here_is_told_of_and_pulled(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, noted: Noted
) -> None:
    host.images[IMAGE] = FakeImage(digests=(KNOWN,), local=False)
    async with make_engine() as engine:
        job = await run(engine)
        notices = await told(job)
        everything = [event.message async for event in job.events()]
    assert f"Pulling image {IMAGE}." in everything
    assert noted() == [f"Failed to get hash for image {IMAGE}"]
    assert notices == [f"Using image {IMAGE} with repo-digest {KNOWN}"]


async def test_an_image_that_only_this_host_has_is_looked_at_once_a_second(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    def looked() -> int:
        return host.calls.count(("prepare_image", IMAGE))

    host.images[IMAGE] = FakeImage()
    async with make_engine() as engine:
        await run(engine)
        await trio.sleep(10)
        before = looked()
        for _ in range(3):
            await run(engine)
        assert looked() == before + 1
        await trio.sleep(1)
        await run(engine)
        assert looked() == before + 2

        host.images[IMAGE] = FakeImage(
            digests=(KNOWN,)
        )  # of a registry, which may have a newer one
        await trio.sleep(1)
        before = looked()
        for _ in range(3):
            await run(engine)
        assert looked() == before + 3


@pytest.mark.scenario("runner", 130)
async def test_an_image_that_does_not_exist_is_an_application_error(
    clock: MockClock, make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_engine() as engine:
        job = await run(engine, uri="nowhere/nothing")
    assert (job.record.status, job.record.error) == (Status.ERROR, "application")
    (failed,) = [vars(record) for record in caplog.records if record.msg == "job.failed"]
    assert failed["error"].startswith("Cannot pull image 'nowhere/nothing:latest'")


@pytest.mark.parametrize(
    "failure",
    [
        ImageUnavailable("no route to host", reference=IMAGE, transient=True),
        RuntimeUnavailable("the daemon restarts"),
    ],
)
async def test_what_may_pass_is_tried_again_with_growing_pauses(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, failure: Exception
) -> None:
    host.images[IMAGE] = FakeImage(digests=(KNOWN,))
    host.fail("prepare_image", failure, times=3)
    async with make_engine() as engine:
        before = trio.current_time()
        job = await run(engine)
        assert trio.current_time() - before >= 0.5 + 1 + 2
        notices = await told(job)
    assert job.record.status is Status.SUCCESS
    assert [notice.partition(" s: ")[0] for notice in notices[:3]] == [
        f"Image {IMAGE} could not be pulled, trying again in {pause}" for pause in ("0.5", "1", "2")
    ]


async def test_tries_come_to_an_end(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    host.images[IMAGE] = FakeImage(local=False, pull_seconds=100)
    async with make_engine(pull_attempts=3, pull_timeout=10) as engine:
        job = await run(engine)
    assert pulls(host) == [IMAGE] * 3
    assert job.record.cause is not None
    assert "pull_timeout" in str(job.record.cause.evidence)


async def test_an_image_for_another_kind_of_host_is_warned_of_before_its_start(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    host.images[IMAGE] = FakeImage(platform="linux/arm64")
    async with make_engine() as engine:
        job = await run(engine)
        kinds = {event.message: event.kind async for event in job.events()}
    warned = f"Image {IMAGE} is made for linux/arm64, and this host is linux/amd64."
    order = list(kinds.items())
    assert order.index((warned, "note")) < [kind for _, kind in order].index("stage.started")


# -- credentials -------------------------------------------------------------------------------


async def test_a_pull_uses_what_docker_login_has_written(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, tmp_path: Path
) -> None:
    log_in(tmp_path, "registry.example.com")
    reference = "registry.example.com/team/one:latest"
    host.images[reference] = FakeImage(local=False, digests=(KNOWN,))
    async with make_engine() as engine:
        await run(engine, uri="registry.example.com/team/one")
    assert host.logins == [(reference, RegistryAuth("registry.example.com", "robot", "pw1"))]


async def test_a_folder_of_dockers_command_can_be_named(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, tmp_path: Path
) -> None:
    log_in(tmp_path, "https://index.docker.io/v1/")
    (tmp_path / "docker").rename(tmp_path / "elsewhere")
    host.images[IMAGE] = FakeImage(local=False, digests=(KNOWN,))
    async with make_engine(docker_config=tmp_path / "elsewhere") as engine:
        await run(engine)
    assert host.logins == [(IMAGE, RegistryAuth("docker.io", "robot", "pw1"))]


async def test_credentials_that_cannot_be_read_are_warned_of_and_the_pull_is_anonymous(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, tmp_path: Path
) -> None:
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/config.json").write_text('{"credsStore": "not-installed"}')
    host.images[IMAGE] = FakeImage(local=False, digests=(KNOWN,))
    async with make_engine() as engine:
        job = await run(engine)
        warned, _ = await told(job)
    assert job.record.status is Status.SUCCESS
    assert "docker-credential-not-installed" in warned
    assert host.logins == [(IMAGE, None)]


async def test_a_plugins_credentials_come_first_and_only_where_a_registry_is_asked(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, tmp_path: Path
) -> None:
    asked: list[str] = []

    @hookimpl
    def vaka_registry_auth(reference: str) -> RegistryAuth:
        asked.append(reference)
        return RegistryAuth("docker.io", "plugin", "p")

    log_in(tmp_path, "https://index.docker.io/v1/")
    host.images["made:here"] = FakeImage()
    host.images[IMAGE] = FakeImage(local=False, digests=(KNOWN,))
    async with make_engine(SimpleNamespace(vaka_registry_auth=vaka_registry_auth)) as engine:
        await run(engine, uri="made", tag="here")
        await run(engine)
    assert asked == [IMAGE]
    assert host.logins == [(IMAGE, RegistryAuth("docker.io", "plugin", "p"))]


async def test_an_action_pulls_with_credentials_too(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, tmp_path: Path
) -> None:
    log_in(tmp_path, "https://index.docker.io/v1/")
    host.images[IMAGE] = FakeImage(Script([Printed(b'{"a": 1}')]), local=False, digests=(KNOWN,))
    async with make_engine() as engine:
        await engine.catalog.put_component(
            {
                "id": COMPONENT,
                "type": "extractor",
                "name": "One",
                "data": {
                    "definition": {"type": "dockerhub", "uri": "one"},
                    "synchronous_actions": ["test"],
                },
            }
        )
        answer = await engine.act(ActionSpec(component=COMPONENT, action="test", config_data={}))
    assert answer.value == {"a": 1}
    assert host.logins == [(IMAGE, RegistryAuth("docker.io", "robot", "pw1"))]


# -- Amazon ECR --------------------------------------------------------------------------------


@pytest.mark.scenario("runner", 135)
async def test_without_credentials_of_amazons_the_login_fails_after_retries(
    clock: MockClock, make_engine: MakeEngine, caplog: pytest.LogCaptureFixture, noted: Noted
) -> None:
    async with make_engine(pull_attempts=3) as engine:
        job = await run(engine, type="aws-ecr", uri=f"{ECR}/one")
    assert (job.record.status, job.record.error) == (Status.ERROR, "application")
    (failed,) = [vars(record) for record in caplog.records if record.msg == "job.failed"]
    assert failed["error"].startswith(f"Login to {ECR} failed: No AWS credentials: ")
    retries = [
        notice
        for notice in noted()
        if notice.startswith("Retrying AWS GetCredentials. error: No AWS credentials: ")
    ]
    assert len(retries) == 3


@pytest.mark.scenario("runner", 136)
async def test_a_tag_that_a_registry_of_amazons_does_not_have_is_the_users_error(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, tmp_path: Path
) -> None:
    log_in(tmp_path, ECR)
    words = f"manifest for {ECR}/one:no-such not found: manifest unknown"
    host.images[f"{ECR}/one:no-such"] = FakeImage(local=False, pull_error=words)
    async with make_engine(pull_attempts=1) as engine:
        job = await run(engine, "no-such", type="aws-ecr", uri=f"{ECR}/one")
    assert job.record.error == "user"
    assert job.record.result["message"] == (
        f'Image "{COMPONENT}:no-such" not found in the registry.'
    )


@pytest.mark.parametrize(
    ("uri", "pull_error", "expected"),
    [
        (f"{ECR}/one", "403 Forbidden", f"Login to {ECR} failed: Cannot pull image "),
        (f"{ECR}/one", "broken pipe", f"Cannot pull image '{ECR}/one:latest': broken pipe"),
        ("no-dot", "", 'Invalid image ID format: "no-dot".'),
    ],
)
async def test_other_failures_of_amazons_registry_are_application_errors(
    host: FakeHost,
    clock: MockClock,
    make_engine: MakeEngine,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    uri: str,
    pull_error: str,
    expected: str,
) -> None:
    log_in(tmp_path, ECR)
    host.images[f"{uri}:latest"] = FakeImage(local=False, pull_error=pull_error)
    async with make_engine(pull_attempts=1) as engine:
        job = await run(engine, type="aws-ecr", uri=uri)
    assert job.record.error == "application"
    (failed,) = [vars(record) for record in caplog.records if record.msg == "job.failed"]
    assert failed["error"].startswith(expected)


# -- a replicated registry ---------------------------------------------------------------------

REPLICA = "registry.example.com/keboola/"


@pytest.mark.scenario("runner", 138)
async def test_a_replica_stands_in_for_amazons_registry(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    reference = "registry.example.com/keboola/component:v1"
    host.images[reference] = FakeImage(local=False, digests=(KNOWN,))
    host.images["other:v1"] = FakeImage()
    settings = {
        "replicated_registry": REPLICA,
        "replicated_registry_user": "copy",
        "replicated_registry_password": "secret",
    }
    async with make_engine(**settings) as engine:
        job = await run(engine, type="aws-ecr", uri=f"{ECR}/one", name="component", tag="v1")
        other = await run(engine, uri="other", name="component", tag="v1")
    assert job.record.result["images"] == [[{"id": reference, "digests": [KNOWN]}]]
    assert host.logins == [(reference, RegistryAuth("registry.example.com", "copy", "secret"))]
    assert other.record.result["images"][0][0]["id"] == "other:v1"


@pytest.mark.scenario("runner", 138)
async def test_without_a_replica_amazons_registry_is_asked(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, tmp_path: Path
) -> None:
    log_in(tmp_path, ECR)
    host.images[f"{ECR}/one:v1"] = FakeImage(local=False)
    async with make_engine(replicated_registry="") as engine:
        job = await run(engine, type="aws-ecr", uri=f"{ECR}/one", name="component", tag="v1")
    assert job.record.result["images"][0][0]["id"] == f"{ECR}/one:v1"


@pytest.mark.scenario("runner", 138)
async def test_a_replica_needs_the_name_of_the_image(
    clock: MockClock, make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_engine(replicated_registry=REPLICA) as engine:
        job = await run(engine, type="aws-ecr", uri=f"{ECR}/one")
    assert job.record.error == "application"
    (failed,) = [vars(record) for record in caplog.records if record.msg == "job.failed"]
    assert failed["error"] == (
        f'Component "{COMPONENT}" is missing definition.name, cannot resolve replicated registry '
        "image id."
    )


async def test_a_replicas_missing_tag_is_no_error_of_the_users(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    reference = "registry.example.com/keboola/component:v1"
    host.images[reference] = FakeImage(local=False, pull_error="manifest not found")
    async with make_engine(replicated_registry=REPLICA, pull_attempts=1) as engine:
        job = await run(engine, type="aws-ecr", uri=f"{ECR}/one", name="component", tag="v1")
    assert job.record.error == "application"
