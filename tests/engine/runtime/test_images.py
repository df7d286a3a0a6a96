"""Preparing images: from this host alone, and from a registry of our own with a password."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import trio
import trio.lowlevel
from tests.registry import Registry, logged_in

import vaka.runtime
from vaka.docker import Docker, DockerNotFound
from vaka.errors import ImageUnavailable, RuntimeUnavailable
from vaka.models.container import RegistryAuth
from vaka.runtime import DockerRuntime

if TYPE_CHECKING:
    from tests.engine.runtime.conftest import Proxy

pytestmark = pytest.mark.docker

TIME_LIMIT = 60.0
Publish = Callable[[str, str], Any]


@pytest.fixture
async def runtime(proxy: Proxy) -> AsyncIterator[DockerRuntime]:
    """A runtime behind a proxy that knows what was asked."""
    runtime = DockerRuntime(proxy.address)
    await runtime.open()
    yield runtime
    await runtime.aclose()


@pytest.fixture
async def docker(docker_host: str) -> AsyncIterator[Docker]:
    async with Docker(docker_host) as docker:
        yield docker


@pytest.fixture
async def make_image(docker: Docker, busybox_image: str) -> AsyncIterator[Publish]:
    """Makes an image on the host: `make_image(reference, text)`; it is gone after the test."""
    made: list[str] = []

    async def make(reference: str, text: str) -> str:
        container = await docker.containers.create({"Image": busybox_image})
        repository, _, tag = reference.rpartition(":")
        changes = [f"LABEL text={text}"]
        done = await container.commit(repository=repository, tag=tag, changes=changes)
        await container.delete()
        made.append(reference)
        return str(done["Id"])

    yield make
    for reference in made:
        with suppress(DockerNotFound):
            await docker.images.delete(reference, force=True)


@pytest.fixture
async def publish(docker: Docker, registry: Registry, make_image: Publish) -> Publish:
    """Puts an image into the registry and returns its digest; the host keeps it only in layers."""

    async def publish(reference: str, text: str) -> str:
        await make_image(reference, text)
        return await registry.push(docker, reference)

    return publish


@pytest.fixture
def reference(registry: Registry) -> str:
    return f"{registry.server}/vaka-{uuid4().hex}/image:1"


async def test_an_image_made_here_is_used_without_asking_anybody(
    runtime: DockerRuntime, proxy: Proxy, busybox_image: str
) -> None:
    image = await runtime.prepare_image(busybox_image)

    assert image.id.startswith("sha256:")
    assert image.digests == ()
    assert image.platform.startswith("linux/")
    assert proxy.asked("/images/create") == proxy.asked("/distribution/") == []


async def test_an_image_is_pulled_by_its_tag_with_credentials(
    runtime: DockerRuntime, registry: Registry, publish: Publish, reference: str
) -> None:
    digest = await publish(reference, "one")
    seen: list[Mapping[str, Any]] = []

    image = await runtime.prepare_image(reference, login=registry.login, progress=seen.append)

    assert image.reference == reference
    assert image.digests == (f"{reference.rpartition(':')[0]}@{digest}",)
    assert any("Pulling" in str(item.get("status")) for item in seen)


async def test_a_digest_that_is_here_needs_no_registry(
    runtime: DockerRuntime, proxy: Proxy, registry: Registry, publish: Publish, reference: str
) -> None:
    digest = await publish(reference, "one")
    await runtime.prepare_image(reference, login=registry.login)
    before = len(proxy.asked("/images/create"))

    image = await runtime.prepare_image(reference, digest=digest)
    named = await runtime.prepare_image(image.digests[0])

    assert image.id == named.id
    assert len(proxy.asked("/images/create")) == before == 1


async def test_an_image_that_was_pulled_can_be_told_and_removed(
    runtime: DockerRuntime,
    docker: Docker,
    registry: Registry,
    publish: Publish,
    reference: str,
) -> None:
    await publish(reference, "one")
    first = await runtime.prepare_image(reference, login=registry.login)
    again = await runtime.prepare_image(reference, login=registry.login)
    await publish(reference, "two")
    second = await runtime.prepare_image(reference, login=registry.login)

    assert (first.pulled, again.pulled, second.pulled) == (True, False, True)
    found = {each.id: each for each in await runtime.images([first.id, second.id], {})}
    assert found[first.id].references == ()  # its name is the second one's by now
    assert found[second.id].references == (reference,)
    assert found[second.id].digests == second.digests
    assert found[second.id].labels == {"text": "two"}
    assert found[second.id].bytes
    assert found[second.id].created is not None
    (labelled,) = await runtime.images([], {"text": "two"})
    assert labelled.id == second.id

    user = await docker.containers.create({"Image": second.id})
    assert not await runtime.remove_image(reference)  # a container, even one that never ran
    await user.delete()
    assert await runtime.remove_image(reference)
    assert await runtime.remove_image(first.id)
    assert await runtime.images([first.id, second.id], {}) == []


async def test_another_digest_is_pulled(
    runtime: DockerRuntime, proxy: Proxy, registry: Registry, publish: Publish, reference: str
) -> None:
    await publish(reference, "one")
    first = await runtime.prepare_image(reference, login=registry.login)
    digest = await publish(reference, "two")
    await runtime.prepare_image(reference, login=registry.login)

    image = await runtime.prepare_image(reference, digest=digest)

    assert image.id != first.id
    assert len(proxy.asked("/images/create")) == 2


async def test_without_a_digest_the_tag_is_looked_up_every_time(
    runtime: DockerRuntime,
    docker: Docker,
    registry: Registry,
    publish: Publish,
    reference: str,
) -> None:
    await publish(reference, "one")
    first = await runtime.prepare_image(reference, login=registry.login)
    await docker.images.tag(first.id, first.id.replace("sha256:", "vaka-kept-"), tag="1")
    await publish(reference, "two")
    try:
        second = await runtime.prepare_image(reference, login=registry.login)
        again = await runtime.prepare_image(reference, login=registry.login)
    finally:
        await docker.images.delete(first.id.replace("sha256:", "vaka-kept-") + ":1", force=True)

    assert first.id != second.id == again.id


async def test_an_image_can_be_pulled_by_its_digest(
    runtime: DockerRuntime, docker: Docker, registry: Registry, publish: Publish, reference: str
) -> None:
    digest = await publish(reference, "one")
    exact = f"{reference.rpartition(':')[0]}@{digest}"

    image = await runtime.prepare_image(exact, login=registry.login)
    await docker.images.delete(exact, force=True)

    assert image.digests == (exact,)


@pytest.mark.parametrize("auth", [None, RegistryAuth("", "robot", "wrong-password")])
async def test_wrong_credentials_are_told_and_not_worth_a_second_try(
    runtime: DockerRuntime, publish: Publish, reference: str, auth: RegistryAuth | None
) -> None:
    await publish(reference, "one")

    with pytest.raises(ImageUnavailable) as caught:
        await runtime.prepare_image(reference, login=logged_in(auth))

    assert caught.value.message.startswith(f"Cannot pull image '{reference}': ")
    assert caught.value.reference == reference
    assert "wrong-password" not in caught.value.message
    assert not caught.value.transient


async def test_a_tag_that_is_not_there_is_told_and_not_worth_a_second_try(
    runtime: DockerRuntime, registry: Registry, publish: Publish, reference: str
) -> None:
    await publish(reference, "one")
    missing = f"{reference}.9"

    with pytest.raises(ImageUnavailable, match="unknown") as caught:
        await runtime.prepare_image(missing, login=registry.login)

    assert caught.value.message.startswith(f"Cannot pull image '{missing}': ")
    assert not caught.value.transient


async def test_a_name_that_cannot_be_is_told_and_not_worth_a_second_try(
    runtime: DockerRuntime,
) -> None:
    with pytest.raises(ImageUnavailable, match="Cannot pull image 'UPPER/case:1': ") as caught:
        await runtime.prepare_image("UPPER/case:1")

    assert not caught.value.transient


async def test_a_registry_that_does_not_answer_is_worth_another_try(
    runtime: DockerRuntime,
) -> None:
    with pytest.raises(ImageUnavailable, match="connection refused") as caught:
        await runtime.prepare_image("127.0.0.1:1/nobody/listens:1")

    assert caught.value.transient


async def test_an_image_of_a_registry_that_is_gone_is_not_taken_for_current(
    runtime: DockerRuntime,
    docker: Docker,
    registry: Registry,
    publish: Publish,
    reference: str,
) -> None:
    await publish(reference, "one")
    image = await runtime.prepare_image(reference, login=registry.login)

    with pytest.raises(ImageUnavailable):  # without credentials the registry says nothing
        await runtime.prepare_image(reference)

    assert (await docker.images.inspect(reference))["Id"] == image.id


async def test_one_image_is_pulled_once_for_all_who_want_it(
    runtime: DockerRuntime, proxy: Proxy, registry: Registry, publish: Publish, reference: str
) -> None:
    await publish(reference, "one")
    images, watched = [], [0] * 5

    async def prepare(number: int) -> None:
        def watch(_: Mapping[str, Any]) -> None:
            watched[number] += 1

        images.append(await runtime.prepare_image(reference, login=registry.login, progress=watch))

    with trio.fail_after(TIME_LIMIT):
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(prepare, number)

    assert len({image.id for image in images}) == 1
    assert len(proxy.asked("/images/create")) == 1
    assert all(watched)


async def test_all_who_want_an_image_learn_why_it_cannot_be_had(
    runtime: DockerRuntime, proxy: Proxy
) -> None:
    messages = []
    reference = "127.0.0.1:1/nobody/listens:1"
    everybody_waits = trio.Event()
    proxy.spoil("/images/create", until=everybody_waits)

    async def prepare() -> None:
        with pytest.raises(ImageUnavailable) as caught:
            await runtime.prepare_image(reference, progress=lambda _: None)
        messages.append(caught.value.message)

    def waiting() -> int:
        return sum(len(pull.watchers) for pull in runtime._pulls.values())

    with trio.fail_after(TIME_LIMIT):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(prepare)
            while waiting() < 3:
                await trio.lowlevel.checkpoint()
            everybody_waits.set()

    assert len(set(messages)) == 1
    assert len(messages) == 3
    assert len(proxy.asked("/images/create")) == 1


async def test_a_pull_that_was_cancelled_is_taken_over(
    runtime: DockerRuntime, proxy: Proxy, registry: Registry, publish: Publish, reference: str
) -> None:
    await publish(reference, "one")
    proxy.spoil("/images/create", holds=True)
    asked = trio.Event()
    proxy.when("/images/create", asked.set)
    first = trio.CancelScope()
    seen: list[Mapping[str, Any]] = []
    images = []

    async def pull_first() -> None:
        with first:
            await runtime.prepare_image(reference, login=registry.login)

    async def pull_second() -> None:
        images.append(
            await runtime.prepare_image(reference, login=registry.login, progress=seen.append)
        )

    with trio.fail_after(TIME_LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pull_first)
            await asked.wait()
            nursery.start_soon(pull_second)
            while not any(pull.watchers for pull in runtime._pulls.values()):  # noqa: ASYNC110
                await trio.sleep(0.005)  # until the second one waits for the first
            first.cancel()

    assert first.cancelled_caught
    assert len(images) == 1
    assert seen
    assert len(proxy.asked("/images/create")) == 2


async def test_a_connection_that_breaks_in_a_pull_is_the_runtimes_fault(
    runtime: DockerRuntime, proxy: Proxy, registry: Registry, publish: Publish, reference: str
) -> None:
    await publish(reference, "one")
    proxy.spoil("/images/create", after=20)

    with pytest.raises(RuntimeUnavailable, match="pull image"):
        await runtime.prepare_image(reference, login=registry.login)


@pytest.fixture
async def foreign_image(docker: Docker) -> AsyncIterator[str]:
    """An image for another architecture."""
    reference = f"vaka-foreign:{uuid4().hex}"
    layer = bytes(1024)  # an empty archive
    config = {
        "architecture": "arm64" if os.uname().machine == "x86_64" else "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in (
            ("layer.tar", layer),
            ("config.json", json.dumps(config).encode()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    await docker.images.import_image(content.getvalue())
    yield reference
    await docker.images.delete(reference, force=True)


@pytest.mark.parametrize(
    ("handlers", "refused"),
    [
        pytest.param(["status", "register"], True, id="no emulator"),
        pytest.param(["status", "register", "qemu-aarch64", "qemu-x86_64"], False, id="emulator"),
        pytest.param([], False, id="not known"),
    ],
)
async def test_an_image_for_another_kind_of_host_is_named_before_the_start(
    runtime: DockerRuntime,
    foreign_image: str,
    handlers: list[str],
    refused: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in handlers:
        (tmp_path / name).touch()
    monkeypatch.setattr(vaka.runtime, "BINFMT", tmp_path)
    info = await runtime.info()

    if refused:
        with pytest.raises(ImageUnavailable, match=info.platform) as caught:
            await runtime.prepare_image(foreign_image)
        assert not caught.value.transient
        assert foreign_image in caught.value.message
    else:
        image = await runtime.prepare_image(foreign_image)
        assert image.platform != info.platform
        assert foreign_image in image.warning
        assert info.platform in image.warning
