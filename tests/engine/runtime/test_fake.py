"""The fake runtime: its contract, and what a test can make it do."""

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from vaka.errors import ApplicationError, ContainerLost, ImageUnavailable, RuntimeUnavailable
from vaka.hooks import ContainerRuntime
from vaka.models.container import ContainerPhase, ContainerSpec, Mount
from vaka.testing import (
    ContainerRuntimeContract,
    FakeHost,
    FakeImage,
    FakeRuntime,
    Printed,
    Script,
    SpecFor,
    host_path,
    image_id,
    shell,
)
from vaka.testing.runtime_contract import read, run


def run_simulated(main: Callable[[], Awaitable[None]], **arguments: Any) -> None:
    """Run a test, an inherited one too, on a clock that leaps ahead when everybody waits."""
    arguments["clock"] = arguments.get("clock") or MockClock(autojump_threshold=0)
    trio.run(main, **arguments)


@pytest.mark.trio(run=run_simulated)
class TestFakeRuntime(ContainerRuntimeContract):
    @pytest.fixture
    async def runtime(self) -> AsyncIterator[ContainerRuntime]:
        runtime = FakeRuntime()
        await runtime.open()
        yield runtime
        await runtime.aclose()

    @pytest.fixture
    def spec_for(self, runtime: ContainerRuntime) -> SpecFor:
        assert isinstance(runtime, FakeRuntime)
        images = runtime.host.images

        def spec(script: Script) -> ContainerSpec:
            reference = f"script:{len(images)}"
            images[reference] = FakeImage(script)
            return ContainerSpec("", reference)

        return spec


def spec(name: str = "one", image: str = "image:1") -> ContainerSpec:
    return ContainerSpec(name, image, labels={"of": name})


async def test_two_hours_pass_at_once(autojump_clock: MockClock) -> None:
    runtime = FakeRuntime({"image:1": Script([Printed(b"done\n", at=7_000)], seconds=7_200)})
    began = runtime.host.now()

    await runtime.create(spec())
    async with runtime.output("one") as chunks:
        await runtime.start("one")
        printed = [chunk.data async for chunk in chunks]
    ended = await runtime.wait("one")

    assert printed == [b"done\n"]
    assert ended.seconds == 7_200
    assert runtime.host.now() - began == timedelta(hours=2)


async def test_containers_run_on_while_nobody_looks(autojump_clock: MockClock) -> None:
    script = Script([Printed(b"a", at=1), Printed(b"b", at=50), Printed(b"c", at=150)], seconds=200)
    first = FakeRuntime({"image:1": script})
    await first.create(spec())
    await first.start("one")
    await trio.sleep(100)

    second = FakeRuntime(host=first.host)
    found = await second.find("one")
    rest = await read(second, "one", skip={"stdout": 1})
    ended = await second.wait("one")

    assert found is not None
    assert found.phase is ContainerPhase.RUNNING
    assert rest["stdout"] == b"bc"
    assert ended.seconds == 200


async def test_an_unanswered_create_may_have_made_the_container(autojump_clock: MockClock) -> None:
    runtime = FakeRuntime({"image:1": Script()})
    runtime.host.fail("create", RuntimeUnavailable("no answer"), after=True)

    with pytest.raises(RuntimeUnavailable):
        await runtime.create(spec())

    assert runtime.host.containers == ["one"]
    assert (await runtime.create(spec())).phase is ContainerPhase.CREATED


async def test_a_failure_can_be_for_one_container_and_some_times(autojump_clock: MockClock) -> None:
    runtime = FakeRuntime({"image:1": Script()})
    runtime.host.fail("create", ApplicationError("no"), name="two", times=2)

    await runtime.create(spec("one"))
    for _ in range(2):
        with pytest.raises(ApplicationError):
            await runtime.create(spec("two"))
    await runtime.create(spec("two"))

    assert runtime.host.containers == ["one", "two"]


async def test_a_container_can_vanish(autojump_clock: MockClock) -> None:
    runtime = FakeRuntime({"image:1": Script(seconds=math.inf, vanishes_at=30)})
    await runtime.create(spec())
    await runtime.start("one")

    with pytest.raises(ContainerLost):
        await runtime.wait("one")

    assert runtime.host.containers == []


async def test_a_test_can_play_the_container(autojump_clock: MockClock) -> None:
    runtime = FakeRuntime({"image:1": Script(seconds=math.inf)})
    await runtime.create(spec())

    async def play() -> None:
        await trio.sleep(5)
        runtime.host.print("one", b"hello", "stderr")
        await trio.sleep(5)
        runtime.host.finish("one", 2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(play)
        async with runtime.output("one") as chunks:
            await runtime.start("one")
            seen = [(chunk.stream, chunk.data) async for chunk in chunks]
        ended = await runtime.wait("one")

    assert seen == [("stderr", b"hello")]
    assert (ended.exit_code, ended.seconds) == (2, 10)


async def test_a_host_that_goes_down_breaks_the_output_and_not_the_container(
    autojump_clock: MockClock,
) -> None:
    runtime = FakeRuntime({"image:1": Script([Printed(b"a"), Printed(b"b", at=9)], seconds=10)})
    await runtime.create(spec())
    async with runtime.output("one") as chunks:
        await runtime.start("one")
        assert (await anext(aiter(chunks))).data == b"a"
        runtime.host.go_down()
        with pytest.raises(RuntimeUnavailable):
            await anext(aiter(chunks))
    with pytest.raises(RuntimeUnavailable):
        await runtime.find("one")

    runtime.host.come_back()

    assert (await read(runtime, "one", skip={"stdout": 1}))["stdout"] == b"b"


async def test_a_pull_takes_its_time_and_is_only_done_when_needed(
    autojump_clock: MockClock,
) -> None:
    runtime = FakeRuntime(
        {
            "local:1": FakeImage(),
            "remote:1": FakeImage(local=False, digests=("remote@sha256:1",), pull_seconds=90),
            "moved:1": FakeImage(digests=("moved@sha256:2",)),
            "broken:1": FakeImage(local=False, pull_error="no route to host"),
        }
    )
    before = trio.current_time()
    for reference, digest in (
        ("local:1", None),
        ("remote:1", "sha256:1"),
        ("remote:1", "sha256:1"),
        ("moved:1", None),
    ):
        assert (await runtime.prepare_image(reference, digest=digest)).id == image_id(reference)
    with pytest.raises(ImageUnavailable, match="Cannot pull image 'broken:1': no route to host"):
        await runtime.prepare_image("broken:1")

    assert trio.current_time() - before == 90
    pulls = [name for method, name in runtime.host.calls if method == "pull"]
    assert pulls == ["remote:1", "moved:1", "broken:1"]


async def test_a_container_leaves_its_work_in_its_folder(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    def work(spec: ContainerSpec) -> None:
        host_path(spec, "/data/out.csv").write_text("id\n1\n")

    runtime = FakeRuntime({"image:1": Script(seconds=5, effect=work)})
    mounted = replace(spec(), mounts=(Mount(tmp_path, "/data"),))
    await runtime.create(mounted)
    await runtime.start("one")
    early = (tmp_path / "out.csv").exists()
    await runtime.wait("one")

    assert not early
    assert (tmp_path / "out.csv").read_text() == "id\n1\n"


async def test_a_killed_container_leaves_no_work(autojump_clock: MockClock) -> None:
    done: list[str] = []
    script = Script(seconds=math.inf, effect=lambda spec: done.append(spec.name))
    runtime = FakeRuntime({"image:1": script})
    await runtime.create(spec())
    await runtime.start("one")
    await runtime.stop("one", grace=10)

    assert done == []


async def test_an_image_may_decide_for_each_container_what_it_does(
    autojump_clock: MockClock,
) -> None:
    runtime = FakeRuntime({"image:1": FakeImage(lambda spec: Script(exit_code=len(spec.name)))})

    codes = [(await run(runtime, spec(name))).exit.exit_code for name in ("a", "bb")]

    assert codes == [1, 2]


async def test_what_was_done_can_be_told_afterwards(autojump_clock: MockClock) -> None:
    host = FakeHost({"image:1": Script()})
    runtime = FakeRuntime(host=host)
    await run(runtime, spec())
    await runtime.remove("one")

    assert [method for method, _ in host.calls] == ["create", "output", "start", "wait", "remove"]
    assert host.created == [spec()]
    assert host.containers == []


async def test_calls_can_be_slow(autojump_clock: MockClock) -> None:
    runtime = FakeRuntime({"image:1": Script()})
    runtime.host.delays["create"] = 30
    before = trio.current_time()
    await runtime.create(spec())

    assert trio.current_time() - before == 30


def test_a_script_stands_in_the_order_of_time() -> None:
    with pytest.raises(ValueError, match="order of time"):
        Script([Printed(b"b", at=2), Printed(b"a", at=1)])


@pytest.mark.parametrize(
    "script", [Script(vanishes_at=1), Script(effect=print), Script(stop_seconds=2)]
)
def test_a_command_that_cannot_be_is_refused(script: Script) -> None:
    with pytest.raises(ValueError, match="command"):
        shell(script)
