"""Jobs whose images are in a private registry."""

from __future__ import annotations

import base64
import json
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.images import Images
from tests.amazon import serve_amazon
from tests.registry import PASSWORD, USER, Registry

from vaka import Engine, EngineConfig, Job, JobSpec, Status
from vaka.docker import Docker, DockerNotFound

pytestmark = pytest.mark.docker

COMPONENT = "team.private"


@pytest.fixture
async def docker(docker_host: str) -> AsyncIterator[Docker]:
    async with Docker(docker_host) as docker:
        yield docker


@pytest.fixture
async def published(docker: Docker, registry: Registry, images: Images) -> AsyncIterator[str]:
    """Name of an image in the registry, tag `1`; the host does not have it. Gone after the test."""
    uri = f"{registry.server}/team-{secrets.token_hex(4)}/private"
    await docker.images.tag(images.script("echo from afar"), uri, tag="1")
    await registry.push(docker, f"{uri}:1")
    yield uri
    for image in await docker.images.list(filters={"reference": [uri]}):
        for name in [*(image["RepoTags"] or ()), *(image["RepoDigests"] or ())]:
            if name.startswith(uri):  # the image itself may have other names, of other tests
                with suppress(DockerNotFound):  # the last tag takes the digest along
                    await docker.images.delete(name)


def log_in(folder: Path, server: str) -> None:
    """Put the registry's password where `docker login` puts it."""
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"auths": {server: {"auth": auth}}}))


@pytest.fixture
async def engine(docker_host: str, tmp_path: Path) -> AsyncIterator[Engine]:
    """An engine that looks for passwords in `tmp_path/docker`."""
    config = EngineConfig(
        home=tmp_path / "home",
        instance=f"test-{secrets.token_hex(4)}",
        runtime_url=f"docker+{docker_host}",
        docker_config=tmp_path / "docker",
        pull_attempts=1,
    )
    async with Engine(config) as engine:
        yield engine


async def run(engine: Engine, **definition: Any) -> tuple[Job, list[str]]:
    """A job of a component of this definition, ended, and what it told."""
    await engine.catalog.put_component(
        {
            "id": COMPONENT,
            "type": "extractor",
            "name": "Private",
            "data": {"definition": definition, "network": "none"},
        }
    )
    return await ended(await engine.submit(JobSpec(component=COMPONENT, config_data={})))


async def ended(job: Job) -> tuple[Job, list[str]]:
    await job.wait()
    return job, [event.message async for event in job.events()]


@pytest.mark.scenario("runner", 131)
@pytest.mark.scenario("runner", 132)
@pytest.mark.scenario("runner", 133)
async def test_images_are_pulled_with_a_password_by_tag_and_digest(
    engine: Engine,
    docker: Docker,
    registry: Registry,
    published: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    log_in(tmp_path / "docker", registry.server)
    caplog.set_level(logging.INFO)

    def noted(digest: str) -> bool:
        text = f'Digest "{digest}" for image "{reference}" not found.'
        return text in [vars(each).get("reason") for each in caplog.records]

    reference = f"{published}:1"
    first, told = await run(engine, type="dockerhub", uri=published, tag="1")
    assert first.record.status is Status.SUCCESS, told
    assert "from afar" in told
    ((image,),) = first.record.result["images"]
    (digest,) = image["digests"]
    assert image["id"] == reference
    assert digest.startswith(f"{published}@sha256:")
    assert f"Using image {reference} with repo-digest {digest}" in told

    wanted = digest.rpartition(":")[2]
    second, _ = await run(engine, type="dockerhub", uri=published, tag="1", digest=wanted)
    assert second.record.status is Status.SUCCESS
    assert not noted(wanted)

    other = "cd" * 32
    third, _ = await run(engine, type="dockerhub", uri=published, tag="1", digest=other)
    assert third.record.status is Status.SUCCESS
    assert noted(other)

    await docker.images.delete(reference, force=True)
    exact, told = await ended(await engine.submit(JobSpec(image=digest)))
    assert exact.record.status is Status.SUCCESS, told
    assert exact.record.result["images"] == [[{"id": digest, "digests": [digest]}]]


@pytest.mark.scenario("runner", 130)
async def test_a_tag_that_the_registry_does_not_have_is_named(
    engine: Engine,
    registry: Registry,
    published: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    log_in(tmp_path / "docker", registry.server)
    plain, _ = await run(engine, type="dockerhub", uri=published, tag="2")
    assert plain.record.error == "application"
    (failed,) = [vars(record) for record in caplog.records if record.msg == "job.failed"]
    assert failed["error"].startswith(f"Cannot pull image '{published}:2': ")


@pytest.mark.scenario("runner", 136)
async def test_amazons_token_opens_its_registry(
    engine: Engine, published: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, _ = await run(engine, type="dockerhub", uri=published, tag="1")
    with serve_amazon(f"{USER}:{PASSWORD}") as amazon:
        for name, value in amazon.environment.items():
            monkeypatch.setenv(name, value)
        opened, told = await run(engine, type="aws-ecr", uri=published, tag="1")
        missing, _ = await run(engine, type="aws-ecr", uri=published, tag="2")
        assert len(amazon.requests) == 1  # the token was still good
        after, _ = await run(engine, type="aws-ecr", uri=published, tag="1")
        assert len(amazon.requests) == 2  # until something failed with it
    assert after.record.status is Status.SUCCESS
    assert closed.record.error == "application"  # nobody else knows the password
    assert opened.record.status is Status.SUCCESS, told
    assert missing.record.error == "user"
    assert missing.record.result["message"] == f'Image "{COMPONENT}:2" not found in the registry.'
