"""The suite that every container runtime passes, the fake one and the real ones."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias
from uuid import uuid4

import pytest
import trio

from vaka.errors import ApplicationError, ContainerLost, ImageUnavailable
from vaka.hooks import ContainerRuntime
from vaka.models.container import (
    ContainerExit,
    ContainerPhase,
    ContainerSpec,
    ImageInfo,
    RegistryAuth,
    StreamName,
)
from vaka.testing.runtime import KILLED, Printed, Script

SpecFor: TypeAlias = Callable[[Script], ContainerSpec]
"""What a runtime needs to run a script: image, command, limits. Name and labels are replaced."""

LABEL = "vaka.contract"
TIMEOUT = 120.0
"""Seconds that one test of the contract may take. Far above what any takes: a bound, no measure."""
SMALL_MEMORY = 16 << 20
AWKWARD = b"caf\xc3\xa9 \xff\xfe \x00 <&>\r\n\n\n"
"""Bytes that are no UTF-8, a zero, and empty lines."""
WIDE = "\u0161".encode() * 50
LONG = [Printed(AWKWARD), Printed(b"!"), Printed(WIDE, times=400), Printed(b"\n")]
"""Ends with a line of more than 16 KiB whose characters have two bytes: logs cut it somewhere."""
LONG_BYTES = AWKWARD + b"!" + WIDE * 400 + b"\n"
LAST = b"no newline at the end"


@dataclass(frozen=True, slots=True)
class Ended:
    """What was seen of a container that has ended."""

    exit: ContainerExit
    stdout: bytes
    stderr: bytes


class ContainerRuntimeContract:
    """What every container runtime does. Inherit, and give the fixtures `runtime` and `spec_for`.

    ```python
    class TestMyRuntime(ContainerRuntimeContract):
        @pytest.fixture
        async def runtime(self) -> AsyncIterator[ContainerRuntime]:
            runtime = MyRuntime()
            await runtime.open()
            yield runtime
            await runtime.aclose()

        @pytest.fixture
        def spec_for(self) -> SpecFor:
            return lambda script: ContainerSpec("", "busybox:1", command=shell(script))
    ```

    Needs pytest-trio with `trio_mode`. Nothing is left behind: containers carry the label
    `vaka.contract`, and are removed after each test.
    """

    @pytest.fixture
    async def runtime(self) -> AsyncIterator[ContainerRuntime]:
        """The runtime, opened."""
        raise NotImplementedError("inherit from the contract and give it a fixture `runtime`")
        yield  # noqa: PT022 - who inherits closes it after this

    @pytest.fixture
    def spec_for(self) -> SpecFor:
        """From a script to a container that does what it says."""
        raise NotImplementedError("inherit from the contract and give it a fixture `spec_for`")

    @pytest.fixture
    async def new(self, runtime: ContainerRuntime, spec_for: SpecFor) -> AsyncIterator[SpecFor]:
        """Specs with names of their own; their containers are gone after the test."""
        mark = uuid4().hex
        numbers = iter(range(1_000))

        def spec(script: Script) -> ContainerSpec:
            made = replace(
                spec_for(script),
                name=f"vaka-contract-{mark}-{next(numbers)}",
                labels={LABEL: mark, "vaka.kind": "contract"},
            )
            if script.oom_killed:
                made = replace(made, memory_bytes=SMALL_MEMORY, memory_swap_bytes=SMALL_MEMORY)
            return made

        yield spec
        with trio.fail_after(TIMEOUT):
            for container in await runtime.list_containers({LABEL: mark}):
                await runtime.remove(container.name)

    async def test_it_says_what_it_is(self, runtime: ContainerRuntime) -> None:
        info = await runtime.info()

        assert info.name
        assert info.version
        assert "/" in info.platform
        assert info.cpus >= 1
        assert info.memory_bytes > 0

    async def test_from_no_network_nothing_is_reached(self, runtime: ContainerRuntime) -> None:
        assert await runtime.host_address("none") is None

    async def test_output_entered_before_the_start_misses_nothing(
        self, runtime: ContainerRuntime, new: SpecFor
    ) -> None:
        spec = new(Script([Printed(b"out\n"), Printed(b"err\n", stream="stderr")], exit_code=3))

        ended = await run(runtime, spec)

        assert (ended.exit.exit_code, ended.stdout, ended.stderr) == (3, b"out\n", b"err\n")

    async def test_output_arrives_byte_by_byte_as_it_was_written(
        self, runtime: ContainerRuntime, new: SpecFor
    ) -> None:
        ended = await run(runtime, new(Script([*LONG, *LONG, Printed(LAST)])))

        assert ended.stdout == LONG_BYTES * 2 + LAST

    async def test_output_can_be_read_again_after_the_end(
        self, runtime: ContainerRuntime, new: SpecFor
    ) -> None:
        spec = new(Script([*LONG, *LONG, Printed(b"oops\n", stream="stderr"), Printed(LAST)]))
        await run(runtime, spec)

        again = await read(runtime, spec.name)
        assert again == {"stdout": LONG_BYTES * 2 + LAST, "stderr": b"oops\n"}

    @pytest.mark.parametrize("length", [16_383, 16_384, 16_385, 32_768])
    async def test_lines_as_long_as_a_log_entry_can_be_read_again(
        self, runtime: ContainerRuntime, new: SpecFor, length: int
    ) -> None:
        spec = new(Script([Printed(b"x", times=length), Printed(b"\nnext\n")]))
        await run(runtime, spec)

        again = await read(runtime, spec.name)
        assert again == {"stdout": b"x" * length + b"\nnext\n", "stderr": b""}

    async def test_skipping_leaves_out_so_many_bytes_of_each_stream(
        self, runtime: ContainerRuntime, new: SpecFor
    ) -> None:
        spec = new(Script([Printed(b"err\n", stream="stderr"), *LONG, Printed(b"last\n")]))
        await run(runtime, spec)

        rest = await read(runtime, spec.name, skip={"stdout": 20_000, "stderr": 1})
        none = await read(runtime, spec.name, skip={"stdout": 10**9, "stderr": 10**9})

        assert rest == {"stdout": (LONG_BYTES + b"last\n")[20_000:], "stderr": b"rr\n"}
        assert none == {"stdout": b"", "stderr": b""}

    async def test_output_of_a_running_container_begins_at_its_first_byte_and_goes_on(
        self, runtime: ContainerRuntime, new: SpecFor
    ) -> None:
        spec = new(Script([Printed(b"early\n"), Printed(b"late\n", at=1.0)]))
        await runtime.create(spec)
        with trio.fail_after(TIMEOUT):
            async with runtime.output(spec.name) as chunks:
                await runtime.start(spec.name)
                await anext(aiter(chunks))
            again = await read(runtime, spec.name)

        assert again["stdout"] == b"early\nlate\n"

    async def test_a_slow_reader_loses_nothing(
        self, runtime: ContainerRuntime, new: SpecFor
    ) -> None:
        line = bytes(range(33, 127)) * 40 + b"\n"
        spec = new(Script([Printed(line, times=2_000)]))
        await runtime.create(spec)
        received = bytearray()
        with trio.fail_after(TIMEOUT):
            async with runtime.output(spec.name) as chunks:
                await runtime.start(spec.name)
                async for chunk in chunks:
                    received += chunk.data
                    if len(received) < 100_000:
                        await trio.sleep(0.05)

        assert received == line * 2_000

    async def test_many_containers_at_once_keep_their_output_apart(
        self, runtime: ContainerRuntime, new: SpecFor
    ) -> None:
        specs = [
            new(Script([Printed(f"{number}\n".encode())], exit_code=number)) for number in range(8)
        ]
        ends: dict[str, Ended] = {}

        async def one(spec: ContainerSpec) -> None:
            ends[spec.name] = await run(runtime, spec)

        async with trio.open_nursery() as nursery:
            for spec in specs:
                nursery.start_soon(one, spec)

        seen = [(ends[spec.name].exit.exit_code, ends[spec.name].stdout) for spec in specs]
        assert seen == [(number, f"{number}\n".encode()) for number in range(8)]

    async def test_an_end_tells_when_the_container_ran(
        self, runtime: ContainerRuntime, new: SpecFor
    ) -> None:
        ended = await run(runtime, new(Script(seconds=0.5)))

        assert ended.exit.started_at is not None
        assert ended.exit.finished_at is not None
        assert ended.exit.started_at.tzinfo is not None
        assert ended.exit.seconds is not None
        # a daemon may note the start a little after it
        assert ended.exit.seconds > 0.25
        assert not ended.exit.oom_killed

    async def test_waiting_may_begin_before_the_start(
        self, runtime: ContainerRuntime, new: SpecFor
    ) -> None:
        spec = new(Script(seconds=0.2, exit_code=5))
        await runtime.create(spec)
        ends = []

        async def wait() -> None:
            ends.append(await runtime.wait(spec.name))

        with trio.fail_after(TIMEOUT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.sleep(0.1)
                await runtime.start(spec.name)

        assert [end.exit_code for end in ends] == [5]

    async def test_waiting_for_what_has_ended_tells_the_same_again(
        self, runtime: ContainerRuntime, new: SpecFor
    ) -> None:
        spec = new(Script(exit_code=1))
        ended = await run(runtime, spec)

        assert await runtime.wait(spec.name) == ended.exit

    async def test_waiting_for_nothing_says_that_it_is_lost(
        self, runtime: ContainerRuntime
    ) -> None:
        with pytest.raises(ContainerLost) as caught:
            await runtime.wait("vaka-contract-nothing")

        assert caught.value.name == "vaka-contract-nothing"

    async def test_a_container_removed_while_it_is_waited_for_is_lost(
        self, runtime: ContainerRuntime, new: SpecFor
    ) -> None:
        spec = new(Script(seconds=math.inf))
        await runtime.create(spec)
        await runtime.start(spec.name)
        lost = []

        async def wait() -> None:
            with pytest.raises(ContainerLost):
                await runtime.wait(spec.name)
            lost.append(spec.name)

        with trio.fail_after(TIMEOUT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.sleep(0.1)
                await runtime.remove(spec.name)

        assert lost == [spec.name]

    async def test_a_container_over_its_memory_limit_is_said_to_be(
        self, runtime: ContainerRuntime, new: SpecFor
    ) -> None:
        ended = await run(runtime, new(Script(oom_killed=True)))

        assert ended.exit.oom_killed
        assert ended.exit.exit_code == KILLED

    async def test_stopping_lets_a_container_end_by_itself(
        self, runtime: ContainerRuntime, new: SpecFor
    ) -> None:
        spec = new(Script([Printed(b"ready\n")], seconds=math.inf, stop_exit_code=7))
        await start_and_see(runtime, spec, b"ready\n")
        with trio.fail_after(TIMEOUT):
            await runtime.stop(spec.name, grace=TIMEOUT)

        assert await phase(runtime, spec.name) is ContainerPhase.EXITED
        assert (await runtime.wait(spec.name)).exit_code == 7

    @pytest.mark.parametrize("grace", [0.0, 0.3, 1.0])
    async def test_stopping_kills_a_container_that_does_not_listen(
        self, runtime: ContainerRuntime, new: SpecFor, grace: float
    ) -> None:
        spec = new(Script([Printed(b"ready\n")], seconds=math.inf, stop_seconds=math.inf))
        await start_and_see(runtime, spec, b"ready\n")
        with trio.fail_after(TIMEOUT):
            await runtime.stop(spec.name, grace=grace)

        assert await phase(runtime, spec.name) is ContainerPhase.EXITED
        assert (await runtime.wait(spec.name)).exit_code == KILLED

    async def test_stopping_what_does_not_run_does_nothing(
        self, runtime: ContainerRuntime, new: SpecFor
    ) -> None:
        created, ended = new(Script(seconds=math.inf)), new(Script(exit_code=4))
        await runtime.create(created)
        await run(runtime, ended)
        with trio.fail_after(TIMEOUT):
            for name in (created.name, ended.name, "vaka-contract-nothing"):
                await runtime.stop(name, grace=10)

        assert await phase(runtime, created.name) is ContainerPhase.CREATED
        assert (await runtime.wait(ended.name)).exit_code == 4

    async def test_removing_is_done_in_every_phase_and_is_verified(
        self, runtime: ContainerRuntime, new: SpecFor
    ) -> None:
        created, running, ended = (new(Script(seconds=s)) for s in (0, math.inf, 0))
        await runtime.create(created)
        await runtime.create(running)
        await runtime.start(running.name)
        await run(runtime, ended)
        for name in (created.name, running.name, ended.name, "vaka-contract-nothing"):
            with trio.fail_after(TIMEOUT):
                await runtime.remove(name)

            assert await runtime.find(name) is None

    async def test_removing_twice_at_the_same_time_is_no_error(
        self, runtime: ContainerRuntime, new: SpecFor
    ) -> None:
        spec = new(Script(seconds=math.inf))
        await runtime.create(spec)
        await runtime.start(spec.name)
        with trio.fail_after(TIMEOUT):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(runtime.remove, spec.name)

        assert await runtime.find(spec.name) is None

    async def test_creating_again_gives_what_is_there(
        self, runtime: ContainerRuntime, new: SpecFor
    ) -> None:
        spec = new(Script(seconds=math.inf))

        first = await runtime.create(spec)
        second = await runtime.create(spec)
        await runtime.start(spec.name)
        third = await runtime.create(spec)

        assert first.id == second.id == third.id
        assert (first.phase, third.phase) == (ContainerPhase.CREATED, ContainerPhase.RUNNING)

    async def test_a_name_that_somebody_else_uses_is_refused(
        self, runtime: ContainerRuntime, new: SpecFor
    ) -> None:
        spec = new(Script())
        await runtime.create(spec)

        with pytest.raises(ApplicationError, match=spec.name):
            await runtime.create(replace(spec, labels={**spec.labels, "vaka.kind": "other"}))

    async def test_a_container_of_an_unknown_image_is_refused(
        self, runtime: ContainerRuntime, new: SpecFor
    ) -> None:
        spec = replace(new(Script()), image="vaka-contract/nothing:1")

        with pytest.raises(ApplicationError, match="vaka-contract/nothing:1"):
            await runtime.create(spec)

        assert await runtime.find(spec.name) is None

    async def test_starting_what_runs_or_has_run_does_nothing(
        self, runtime: ContainerRuntime, new: SpecFor
    ) -> None:
        running = new(Script([Printed(b"once\n")], seconds=math.inf))
        ended = new(Script([Printed(b"once\n")]))
        await start_and_see(runtime, running, b"once\n")
        await run(runtime, ended)

        await runtime.start(running.name)
        await runtime.start(ended.name)

        assert await phase(runtime, ended.name) is ContainerPhase.EXITED
        assert await read(runtime, ended.name) == {"stdout": b"once\n", "stderr": b""}
        await runtime.stop(running.name, grace=0)
        assert await read(runtime, running.name) == {"stdout": b"once\n", "stderr": b""}

    async def test_a_container_that_cannot_start_says_why_and_can_be_removed(
        self, runtime: ContainerRuntime, new: SpecFor
    ) -> None:
        # with an init process it starts, and ends with code 127
        spec = replace(new(Script(start_error="no such command")), init=False)
        await runtime.create(spec)

        with pytest.raises(ApplicationError, match=spec.name):
            await runtime.start(spec.name)

        await runtime.remove(spec.name)
        assert await runtime.find(spec.name) is None

    async def test_starting_nothing_says_that_it_is_lost(self, runtime: ContainerRuntime) -> None:
        with pytest.raises(ContainerLost):
            await runtime.start("vaka-contract-nothing")

    async def test_finding_tells_the_phase(self, runtime: ContainerRuntime, new: SpecFor) -> None:
        spec = new(Script(seconds=math.inf))
        phases: list[ContainerPhase | None] = [await phase(runtime, spec.name)]
        created = await runtime.create(spec)
        phases.append(await phase(runtime, spec.name))
        await runtime.start(spec.name)
        phases.append(await phase(runtime, spec.name))
        await runtime.stop(spec.name, grace=0)
        found = await runtime.find(spec.name)

        assert phases == [None, ContainerPhase.CREATED, ContainerPhase.RUNNING]
        assert found is not None
        assert found.phase is ContainerPhase.EXITED
        assert (found.id, found.name) == (created.id, spec.name)
        assert spec.labels.items() <= found.labels.items()

    async def test_listing_gives_those_that_carry_all_the_labels(
        self, runtime: ContainerRuntime, new: SpecFor
    ) -> None:
        created, ended = new(Script()), new(Script())
        other = replace(
            created, name=f"{created.name}-other", labels={LABEL: created.labels[LABEL]}
        )
        await runtime.create(created)
        await runtime.create(other)
        await run(runtime, ended)

        found = await runtime.list_containers(created.labels)
        none = await runtime.list_containers({**created.labels, "vaka.kind": "nobody"})

        assert {(each.name, each.phase) for each in found} == {
            (created.name, ContainerPhase.CREATED),
            (ended.name, ContainerPhase.EXITED),
        }
        assert all(created.labels.items() <= each.labels.items() for each in found)
        assert none == []

    async def test_an_image_that_is_there_is_used(
        self, runtime: ContainerRuntime, new: SpecFor
    ) -> None:
        spec = new(Script())

        async def login(_: ImageInfo | None) -> RegistryAuth | None:
            raise AssertionError("no registry need be asked")

        image = await runtime.prepare_image(spec.image, login=login)

        ended = await run(runtime, replace(spec, image=image.id))

        assert image.reference == spec.image
        assert ended.exit.exit_code == 0

    async def test_an_image_that_is_nowhere_cannot_be_pulled(
        self, runtime: ContainerRuntime
    ) -> None:
        reference = "127.0.0.1:1/vaka-contract/nothing:1"  # nobody listens there

        found: list[ImageInfo | None] = []

        async def login(image: ImageInfo | None) -> RegistryAuth | None:
            found.append(image)
            return None

        with pytest.raises(ImageUnavailable) as caught, trio.fail_after(TIMEOUT):
            await runtime.prepare_image(reference, login=login)

        assert found == [None]
        assert caught.value.reference == reference
        assert str(caught.value).startswith(f"Cannot pull image '{reference}': ")

    async def test_images_that_are_not_there_are_neither_listed_nor_removed(
        self, runtime: ContainerRuntime
    ) -> None:
        nothing = f"sha256:{'0' * 64}"

        assert await runtime.images([nothing], {"vaka.instance": "nobody's"}) == []
        assert not await runtime.remove_image(nothing)
        assert not await runtime.remove_image("vaka-contract/nothing:1")

    async def test_a_cancelled_wait_leaves_the_container_as_it_is(
        self, runtime: ContainerRuntime, new: SpecFor
    ) -> None:
        spec = new(Script([Printed(b"still here\n", at=1.0)], seconds=1.2, exit_code=9))
        await runtime.create(spec)
        with trio.move_on_after(0.3):
            async with runtime.output(spec.name):
                await runtime.start(spec.name)
                await runtime.wait(spec.name)
        after = await phase(runtime, spec.name)
        with trio.fail_after(TIMEOUT):
            ended = await runtime.wait(spec.name)

        assert after is ContainerPhase.RUNNING
        assert ended.exit_code == 9
        assert (await read(runtime, spec.name))["stdout"] == b"still here\n"


async def run(runtime: ContainerRuntime, spec: ContainerSpec) -> Ended:
    """Create a container, start it, and see it to its end; it stays there."""
    received = {"stdout": bytearray(), "stderr": bytearray()}
    with trio.fail_after(TIMEOUT):
        await runtime.create(spec)
        async with runtime.output(spec.name) as chunks:
            await runtime.start(spec.name)
            async for chunk in chunks:
                received[chunk.stream] += chunk.data
        ended = await runtime.wait(spec.name)
    return Ended(ended, bytes(received["stdout"]), bytes(received["stderr"]))


async def read(
    runtime: ContainerRuntime, name: str, *, skip: Mapping[StreamName, int] | None = None
) -> dict[StreamName, bytes]:
    """All that a container prints, until it ends."""
    received: dict[StreamName, bytes] = {"stdout": b"", "stderr": b""}
    with trio.fail_after(TIMEOUT):
        async with runtime.output(name, skip=skip) as chunks:
            async for chunk in chunks:
                received[chunk.stream] += chunk.data
    return received


async def start_and_see(runtime: ContainerRuntime, spec: ContainerSpec, expected: bytes) -> None:
    """Start a container and return once it has printed `expected`."""
    await runtime.create(spec)
    received = b""
    with trio.fail_after(TIMEOUT):
        async with runtime.output(spec.name) as chunks:
            await runtime.start(spec.name)
            async for chunk in chunks:
                received += chunk.data
                if received == expected:
                    return
    raise AssertionError(f"{spec.name} ended after printing {received!r}, not {expected!r}")


async def phase(runtime: ContainerRuntime, name: str) -> ContainerPhase | None:
    """The phase that a container is in; None when there is none of this name."""
    found = await runtime.find(name)
    return None if found is None else found.phase
