"""Network namespaces that several containers have, one after another, on a real Docker Engine."""

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from uuid import uuid4

import pytest
import trio

from vaka import holders
from vaka.docker import Docker
from vaka.docker.events import DockerEvents
from vaka.holders import BUSY, LABEL, Holders, image_archive
from vaka.models.container import ContainerSpec
from vaka.runtime import DockerRuntime
from vaka.testing.runtime_contract import run

TIME_LIMIT = 60.0
NewContainer = Callable[..., ContainerSpec]


@pytest.fixture
async def docker(docker_host: str) -> AsyncIterator[Docker]:
    async with Docker(docker_host) as docker:
        yield docker


@pytest.fixture
async def runtime(docker_host: str) -> AsyncIterator[DockerRuntime]:
    runtime = DockerRuntime(docker_host)
    await runtime.open()
    yield runtime
    await runtime.aclose()


@pytest.fixture
async def new(docker: Docker, busybox_image: str) -> AsyncIterator[NewContainer]:
    """Containers by a command of the shell; gone after the test."""
    mark = uuid4().hex
    numbers = iter(range(1_000))

    def spec(command: str = "true", **settings: object) -> ContainerSpec:
        plain = ContainerSpec(f"vaka-holders-{mark}-{next(numbers)}", busybox_image)
        return replace(
            plain,
            command=("sh", "-c", command),
            labels={"vaka.holders": mark},
            **settings,  # type: ignore[arg-type]
        )

    yield spec
    with trio.fail_after(TIME_LIMIT):
        filters = {"label": [f"vaka.holders={mark}"]}
        for container in await docker.containers.list(all=True, filters=filters):
            await container.delete(force=True)


async def network_mode(docker: Docker, name: str) -> str:
    mode: str = (await docker.containers.container(name).show())["HostConfig"]["NetworkMode"]
    return mode


async def make_busy(runtime: DockerRuntime, new: NewContainer) -> None:
    """So many containers that holders are worth it."""
    for _ in range(BUSY):
        spec = new()
        await runtime.create(spec)
        await runtime.remove(spec.name)


async def is_there(docker: Docker, mode: str) -> bool:
    found = await docker.containers.list(filters={"id": [mode.removeprefix("container:")]})
    return bool(found)


@pytest.mark.docker
async def test_a_few_containers_have_namespaces_of_their_own_and_many_share(
    runtime: DockerRuntime, docker: Docker, new: NewContainer
) -> None:
    modes = []
    for _ in range(BUSY + 2):
        spec = new()
        await runtime.create(spec)
        modes.append(await network_mode(docker, spec.name))
        await runtime.remove(spec.name)

    assert modes[:BUSY] == ["none"] * BUSY
    assert modes[BUSY].startswith("container:")
    assert modes[BUSY + 1] == modes[BUSY]


@pytest.mark.docker
async def test_two_containers_at_a_time_never_share(
    runtime: DockerRuntime, docker: Docker, new: NewContainer
) -> None:
    await make_busy(runtime, new)
    one, other = new("sleep 60"), new("sleep 60")
    for spec in (one, other):
        await runtime.create(spec)
        await runtime.start(spec.name)

    modes = {await network_mode(docker, spec.name) for spec in (one, other)}

    assert len(modes) == 2
    assert all(mode.startswith("container:") for mode in modes)


@pytest.mark.docker
async def test_a_held_namespace_has_no_network_and_nothing_of_the_container_before(
    runtime: DockerRuntime, docker: Docker, new: NewContainer
) -> None:
    await make_busy(runtime, new)
    look = "ls /sys/class/net; cat /proc/net/tcp /proc/net/unix | wc -l; ping -c1 -W1 1.1.1.1 2>&1"
    before = await run(runtime, new(look))
    server = new("nc -l -p 8000 & nc -l -p 8001 & sleep 60")
    await runtime.create(server)
    await runtime.start(server.name)
    await runtime.remove(server.name)

    after = await run(runtime, new(look))

    assert before.stdout.startswith(b"lo\n")
    assert after.stdout == before.stdout


@pytest.mark.docker
async def test_what_asks_for_anything_of_a_namespace_has_its_own(
    runtime: DockerRuntime, docker: Docker, new: NewContainer
) -> None:
    await make_busy(runtime, new)
    connected = new(network="bridge")
    tuned = new(sysctls={"net.ipv4.tcp_keepalive_time": "77"})
    for spec in (connected, tuned):
        await runtime.create(spec)

    assert await network_mode(docker, connected.name) == "bridge"
    assert await network_mode(docker, tuned.name) == "none"


@pytest.mark.docker
async def test_no_holders_are_made_when_none_are_wanted(
    docker: Docker, docker_host: str, new: NewContainer
) -> None:
    runtime = DockerRuntime(docker_host, network_holders=0)
    await runtime.open()
    await make_busy(runtime, new)
    spec = new()
    await runtime.create(spec)
    mode = await network_mode(docker, spec.name)
    await runtime.aclose()

    assert mode == "none"


@pytest.mark.docker
async def test_holders_go_with_the_runtime_and_what_runs_goes_on(
    docker: Docker, docker_host: str, new: NewContainer
) -> None:
    runtime = DockerRuntime(docker_host)
    await runtime.open()
    await make_busy(runtime, new)
    spec = new("sleep 60")
    await runtime.create(spec)
    await runtime.start(spec.name)
    mode = await network_mode(docker, spec.name)
    await runtime.aclose()

    assert mode.startswith("container:")
    assert not await is_there(docker, mode)
    assert (await docker.containers.container(spec.name).show())["State"]["Running"]


@pytest.mark.docker
async def test_holders_go_when_they_are_not_used(
    runtime: DockerRuntime, docker: Docker, new: NewContainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_busy(runtime, new)
    kept, spec = new(), new()
    for each in (kept, spec):
        await runtime.create(each)
    modes = [await network_mode(docker, each.name) for each in (kept, spec)]
    await runtime.remove(spec.name)
    await runtime.tidy()
    before = [await is_there(docker, mode) for mode in modes]
    monkeypatch.setattr(
        holders, "A_MINUTE", -1.0
    )  # that much later, and no other engine's are young
    await runtime.tidy()

    assert before == [True, True]
    assert [await is_there(docker, mode) for mode in modes] == [True, False]


@pytest.mark.docker
async def test_a_container_whose_holder_has_gone_starts_all_the_same(
    runtime: DockerRuntime, docker: Docker, new: NewContainer
) -> None:
    await make_busy(runtime, new)
    spec = new("echo out; hostname | wc -c; echo err >&2")
    await runtime.create(spec)
    mode = await network_mode(docker, spec.name)
    await docker.containers.container(mode.removeprefix("container:")).delete(force=True)

    with trio.fail_after(TIME_LIMIT):
        async with runtime.output(spec.name) as chunks:
            await runtime.start(spec.name)
            printed = {"stdout": b"", "stderr": b""}
            async for chunk in chunks:
                printed[chunk.stream] += chunk.data
        exit_ = await runtime.wait(spec.name)

    assert exit_.exit_code == 0
    assert printed == {"stdout": b"out\n13\n", "stderr": b"err\n"}
    assert await network_mode(docker, spec.name) == "none"


@pytest.mark.docker
async def test_another_engine_starts_what_one_that_died_had_created(
    runtime: DockerRuntime, docker: Docker, docker_host: str, new: NewContainer
) -> None:
    first = DockerRuntime(docker_host)
    await first.open()
    await make_busy(first, new)
    spec = new("echo out")
    await first.create(spec)
    assert (await network_mode(docker, spec.name)).startswith("container:")
    await first.aclose()

    await runtime.start(spec.name)
    exit_ = await runtime.wait(spec.name)

    assert exit_.exit_code == 0


PROGRAM = """
import sys, trio
from vaka.docker import Docker
from vaka.holders import BUSY, Holders
from vaka.models.container import ContainerSpec

async def main():
    async with Docker(sys.argv[1]) as docker:
        holders = Holders(docker, sys.argv[2], 1)
        for number in range(BUSY + 1):
            mode = await holders.take(ContainerSpec(str(number), "x"))
        print(mode, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


@pytest.mark.docker
async def test_a_holder_does_not_outlive_a_killed_engine(docker: Docker, docker_host: str) -> None:
    version = await docker.version()
    platform = f"{version['Os']}/{version['Arch']}"
    command = [sys.executable, "-c", PROGRAM, docker_host, platform]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        mode = (await process.stdout.receive_some()).decode().strip()
        assert await is_there(docker, mode)
        events = DockerEvents(docker)
        told = events.subscribe(
            filters={"container": [mode.removeprefix("container:")], "event": ["destroy"]}
        )
    finally:
        process.kill()
        await process.wait()
    with trio.fail_after(TIME_LIMIT):
        event = await told.get()
    await events.stop()

    assert event is not None
    assert not await is_there(docker, mode)


@pytest.mark.docker
async def test_what_was_made_and_never_started_is_removed(
    runtime: DockerRuntime, docker: Docker, monkeypatch: pytest.MonkeyPatch, busybox_image: str
) -> None:
    left = await docker.containers.create({"Image": busybox_image, "Labels": {LABEL: "x"}})
    await runtime.tidy()
    young = await docker.containers.list(all=True, filters={"id": [left.id]})
    monkeypatch.setattr(holders, "A_MINUTE", -1.0)
    await runtime.tidy()

    assert len(young) == 1
    assert not await docker.containers.list(all=True, filters={"id": [left.id]})


@pytest.mark.docker
async def test_a_daemon_that_cannot_have_holders_is_not_asked_again(
    docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Holders(docker, "linux/amd64", 8)
    tries = []

    async def no_image() -> str:
        tries.append("asked")
        return "no/such-image:1"

    monkeypatch.setattr(kept, "_prepare_image", no_image)

    modes = [await kept.take(ContainerSpec(str(number), "x")) for number in range(BUSY + 3)]

    assert modes == [None] * (BUSY + 3)
    assert tries == ["asked"]


async def test_a_platform_without_a_program_has_no_holders() -> None:
    kept = Holders(None, "linux/s390x", 8)  # type: ignore[arg-type]  # nothing is asked

    modes = [await kept.take(ContainerSpec(str(number), "x")) for number in range(BUSY + 3)]

    assert set(modes) == {None}


@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm64"])
def test_the_image_is_the_same_each_time(platform: str) -> None:
    assert image_archive(platform) == image_archive(platform)
    assert (
        image_archive(platform)[1] != image_archive("linux/amd64")[1] or platform == "linux/amd64"
    )
