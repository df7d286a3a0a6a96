"""The Docker runtime where connections break and answers get lost: nothing is lost, nothing doubled."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import trio
import trio.testing

from vaka.errors import ApplicationError, RuntimeUnavailable
from vaka.models.container import ContainerPhase, ContainerSpec, OutputChunk
from vaka.runtime import DockerRuntime
from vaka.testing import Printed, Script, SpecFor, shell
from vaka.testing.runtime_contract import LONG, LONG_BYTES, phase, read

if TYPE_CHECKING:
    from tests.engine.runtime.conftest import Proxy

pytestmark = pytest.mark.docker

TIME_LIMIT = 60.0
STEPS = 8


@pytest.fixture
async def runtime(proxy: Proxy) -> AsyncIterator[DockerRuntime]:
    """A runtime behind the proxy."""
    runtime = DockerRuntime(proxy.address, patience=20)
    await runtime.open()
    yield runtime
    await runtime.aclose()


@pytest.fixture
async def new(busybox_image: str, docker_host: str) -> AsyncIterator[SpecFor]:
    """Specs with names of their own; their containers are gone after the test."""
    mark = uuid4().hex
    numbers = iter(range(1_000))

    def spec(script: Script) -> ContainerSpec:
        name = f"vaka-breaks-{mark}-{next(numbers)}"
        labels = {"vaka.breaks": mark}
        return ContainerSpec(name, busybox_image, command=shell(script), labels=labels)

    yield spec
    runtime = DockerRuntime(docker_host)
    await runtime.open()
    with trio.fail_after(TIME_LIMIT):
        for container in await runtime.list_containers({"vaka.breaks": mark}):
            await runtime.remove(container.name)
    await runtime.aclose()


PACED = [Printed(f"step {step}\n".encode(), at=0.05 * step) for step in range(STEPS)]
PACED_BYTES = b"".join(printed.data for printed in PACED)
FRAMES = [8 + len(printed.data) for printed in PACED]


async def follow(runtime: DockerRuntime, spec: ContainerSpec) -> tuple[bytes, int]:
    """What a container prints on standard output while it is waited for, and its exit code."""
    received = bytearray()
    codes = []

    async def wait() -> None:
        codes.append((await runtime.wait(spec.name)).exit_code)

    with trio.fail_after(TIME_LIMIT):
        await runtime.create(spec)
        async with runtime.output(spec.name) as chunks, trio.open_nursery() as nursery:
            await runtime.start(spec.name)
            nursery.start_soon(wait)
            async for chunk in chunks:
                received += chunk.data
    return bytes(received), codes[0]


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(0, id="before the first byte"),
        pytest.param(3, id="in a frame's head"),
        pytest.param(8, id="after a frame's head"),
        pytest.param(11, id="in a frame's data"),
        pytest.param(FRAMES[0], id="after the first frame"),
        pytest.param(sum(FRAMES[:4]), id="after the fourth frame"),
        pytest.param(sum(FRAMES[:-1]), id="before the last frame"),
        pytest.param(sum(FRAMES) - 1, id="before the last byte"),
    ],
)
async def test_a_cut_connection_costs_no_byte_and_doubles_none(
    proxy: Proxy, runtime: DockerRuntime, new: SpecFor, after: int
) -> None:
    proxy.spoil("/attach", after=after)

    received, code = await follow(runtime, new(Script(PACED, seconds=0.6, exit_code=3)))

    assert received == PACED_BYTES
    assert code == 3
    assert proxy.asked("/attach")
    assert proxy.asked("/logs")


async def test_awkward_bytes_survive_cuts_of_the_connection_and_of_the_log(
    proxy: Proxy, runtime: DockerRuntime, new: SpecFor
) -> None:
    proxy.spoil("/attach", after=10_000)
    for after in (0, 5, 20_000):
        proxy.spoil("/logs", after=after)
    late = replace(LONG[0], at=0.5)
    script = Script([*LONG, *LONG, late, *(replace(each, at=0.5) for each in LONG[1:])])

    received, _ = await follow(runtime, new(script))

    assert received == LONG_BYTES * 3
    assert len(proxy.asked("/logs")) >= 4


async def test_both_streams_go_on_where_they_were(
    proxy: Proxy, runtime: DockerRuntime, new: SpecFor
) -> None:
    proxy.spoil("/attach", after=500)
    script = Script(
        [
            Printed(f"{stream} {step}\n".encode(), at=0.01 * step, stream=stream)
            for step in range(40)
            for stream in ("stdout", "stderr")
        ],
        seconds=0.6,
    )
    spec = new(script)
    received = {"stdout": b"", "stderr": b""}
    await runtime.create(spec)
    with trio.fail_after(TIME_LIMIT):
        async with runtime.output(spec.name) as chunks:
            await runtime.start(spec.name)
            async for chunk in chunks:
                received[chunk.stream] += chunk.data

    for stream, data in received.items():
        assert data == b"".join(f"{stream} {step}\n".encode() for step in range(40))


async def test_an_unbroken_connection_needs_no_log(
    proxy: Proxy, runtime: DockerRuntime, new: SpecFor
) -> None:
    received, _ = await follow(runtime, new(Script(PACED)))

    assert received == PACED_BYTES
    assert proxy.asked("/logs") == []


async def test_waiting_and_reading_survive_a_daemon_that_goes_away_for_a_while(
    proxy: Proxy, runtime: DockerRuntime, new: SpecFor, nursery: trio.Nursery
) -> None:
    spec = new(Script([*PACED, Printed(b"later\n", at=1.5)], seconds=2.0, exit_code=6))
    first = trio.Event()
    received = bytearray()
    codes = []

    async def wait() -> None:
        codes.append((await runtime.wait(spec.name)).exit_code)

    async def collect() -> None:
        await runtime.create(spec)
        async with runtime.output(spec.name) as chunks:
            await runtime.start(spec.name)
            async for chunk in chunks:
                received.extend(chunk.data)
                first.set()

    with trio.fail_after(TIME_LIMIT):
        async with trio.open_nursery() as tasks:
            tasks.start_soon(collect)
            await first.wait()
            tasks.start_soon(wait)
            await trio.sleep(0.1)
            proxy.go_down()
            await trio.sleep(0.5)
            await nursery.start(proxy.serve)

    assert received == PACED_BYTES + b"later\n"
    assert codes == [6]


async def test_a_daemon_that_stays_away_is_unavailable(
    proxy: Proxy, new: SpecFor, docker_host: str
) -> None:
    runtime = DockerRuntime(proxy.address, patience=0.2)
    await runtime.open()
    spec = new(Script([Printed(b"ready\n")], seconds=math.inf))
    await runtime.create(spec)
    with trio.fail_after(TIME_LIMIT):
        async with runtime.output(spec.name) as output:
            await runtime.start(spec.name)
            chunks = [await anext(aiter(output))]
            proxy.go_down()
            with pytest.raises(RuntimeUnavailable, match=r"proxy\.sock"):
                await anext(aiter(output))
        for call in (
            runtime.wait(spec.name),
            runtime.find(spec.name),
            runtime.stop(spec.name, grace=0),
            runtime.remove(spec.name),
            runtime.create(spec),
            runtime.info(),
        ):
            with pytest.raises(RuntimeUnavailable, match=r"proxy\.sock"):
                await call
    await runtime.aclose()
    assert chunks == [OutputChunk("stdout", b"ready\n")]


async def test_an_unanswered_create_gives_what_was_made(
    proxy: Proxy, runtime: DockerRuntime, new: SpecFor, docker_host: str
) -> None:
    proxy.spoil("/containers/create", after=None)
    spec = new(Script(exit_code=2))

    made = await runtime.create(spec)

    assert made.phase is ContainerPhase.CREATED
    assert len(proxy.asked("/containers/create")) == 1
    found = await runtime.find(spec.name)
    assert found is not None
    assert found.id == made.id
    assert await follow(runtime, spec) == (b"", 2)


async def test_a_create_that_is_said_to_have_failed_gives_what_was_made(
    proxy: Proxy, runtime: DockerRuntime, new: SpecFor
) -> None:
    body = b'{"message":"context deadline exceeded"}'
    answer = b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n"
    answer += b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    proxy.spoil("/containers/create", after=None, answer=answer)
    spec = new(Script())

    made = await runtime.create(spec)

    assert made.phase is ContainerPhase.CREATED
    assert len(proxy.asked("/containers/create")) == 1


@pytest.fixture
async def hasty(proxy: Proxy) -> AsyncIterator[DockerRuntime]:
    """A runtime that does not wait for ever for an answer."""
    runtime = DockerRuntime(proxy.address, timeout=3)
    await runtime.open()
    yield runtime
    await runtime.aclose()


async def test_a_create_that_never_answers_gives_what_was_made(
    proxy: Proxy, hasty: DockerRuntime, new: SpecFor
) -> None:
    proxy.spoil("/containers/create", holds=True)

    with trio.fail_after(TIME_LIMIT):
        made = await hasty.create(new(Script()))

    assert made.phase is ContainerPhase.CREATED
    assert len(proxy.asked("/containers/create")) == 1


async def test_a_start_that_never_answers_has_started_what_it_should(
    proxy: Proxy, hasty: DockerRuntime, new: SpecFor
) -> None:
    proxy.spoil("/start", holds=True)
    spec = new(Script([Printed(b"once\n")], exit_code=2))

    assert await follow(hasty, spec) == (b"once\n", 2)
    assert len(proxy.asked("/start")) == 1


async def test_a_daemon_that_never_answers_is_unavailable(proxy: Proxy, new: SpecFor) -> None:
    runtime = DockerRuntime(proxy.address, timeout=0.5)
    await runtime.open()
    proxy.spoil("/json", holds=True)

    with trio.fail_after(TIME_LIMIT), pytest.raises(RuntimeUnavailable, match=r"in 0\.5 s"):
        await runtime.find("anything")

    await runtime.aclose()


async def test_a_create_that_failed_in_truth_is_tried_again(
    proxy: Proxy, runtime: DockerRuntime, new: SpecFor
) -> None:
    body = b'{"message":"out of luck"}'
    answer = b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n"
    answer += b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    proxy.spoil("/containers/create", after=None, answer=answer, times=100, passes=False)
    spec = new(Script())

    with pytest.raises(ApplicationError, match="out of luck") as caught:
        await runtime.create(spec)

    assert "500" not in str(caught.value)
    assert 1 < len(proxy.asked("/containers/create")) < 10


async def test_an_unanswered_start_does_not_run_a_container_twice(
    proxy: Proxy, runtime: DockerRuntime, new: SpecFor
) -> None:
    proxy.spoil("/start", after=None)
    spec = new(Script([Printed(b"once\n")]))

    received, code = await follow(runtime, spec)

    assert (received, code) == (b"once\n", 0)
    assert len(proxy.asked("/start")) == 1
    assert await read(runtime, spec.name) == {"stdout": b"once\n", "stderr": b""}


async def test_an_unanswered_stop_is_seen_through(
    proxy: Proxy, runtime: DockerRuntime, new: SpecFor
) -> None:
    proxy.spoil("/stop", after=None)
    proxy.spoil("/kill", after=None)
    spec = new(Script(seconds=math.inf, stop_seconds=math.inf))
    await runtime.create(spec)
    await runtime.start(spec.name)
    with trio.fail_after(TIME_LIMIT):
        await runtime.stop(spec.name, grace=0.1)

    assert await phase(runtime, spec.name) is ContainerPhase.EXITED


async def test_an_unanswered_removal_is_seen_through(
    proxy: Proxy, runtime: DockerRuntime, new: SpecFor
) -> None:
    proxy.spoil("DELETE", after=None)
    spec = new(Script(seconds=math.inf))
    await runtime.create(spec)
    await runtime.start(spec.name)
    with trio.fail_after(TIME_LIMIT):
        await runtime.remove(spec.name)

    assert await runtime.find(spec.name) is None


async def test_no_connection_is_left_behind_by_what_was_cancelled(
    proxy: Proxy, runtime: DockerRuntime, new: SpecFor
) -> None:
    spec = new(Script([Printed(b"ready\n")], seconds=math.inf))
    await runtime.create(spec)
    with trio.move_on_after(TIME_LIMIT) as scope:
        async with runtime.output(spec.name) as chunks, trio.open_nursery() as nursery:
            await runtime.start(spec.name)
            nursery.start_soon(runtime.wait, spec.name)
            async for _ in chunks:
                scope.cancel()
    await runtime.find(spec.name)
    await trio.testing.wait_all_tasks_blocked()

    assert proxy.cut("/attach") == proxy.cut("/wait") == 0
