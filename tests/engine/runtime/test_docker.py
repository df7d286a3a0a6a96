"""The Docker runtime against a real Docker Engine."""

import logging
import math
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
import trio

from vaka._kernel import KernelLog
from vaka.errors import ApplicationError, RuntimeUnavailable
from vaka.hooks import ContainerRuntime
from vaka.models.container import ContainerPhase, ContainerSpec, Mount
from vaka.runtime import DockerRuntime, _gateway, container_body, docker_runtime
from vaka.testing import ContainerRuntimeContract, Script, SpecFor, shell
from vaka.testing.runtime_contract import Ended, phase, read, run

pytestmark = pytest.mark.docker

TIME_LIMIT = 60.0
NewContainer = Callable[..., ContainerSpec]


@pytest.fixture
async def runtime(docker_host: str) -> AsyncIterator[DockerRuntime]:
    runtime = DockerRuntime(docker_host)
    await runtime.open()
    yield runtime
    await runtime.aclose()


@pytest.fixture
def spec_for(busybox_image: str) -> SpecFor:
    return lambda script: ContainerSpec("", busybox_image, command=shell(script))


class TestDockerRuntime(ContainerRuntimeContract):
    @pytest.fixture
    async def runtime(self, runtime: DockerRuntime) -> ContainerRuntime:
        return runtime

    @pytest.fixture
    def spec_for(self, spec_for: SpecFor) -> SpecFor:
        return spec_for


@pytest.fixture
async def new(runtime: DockerRuntime, busybox_image: str) -> AsyncIterator[NewContainer]:
    """Containers by a command of the shell; gone after the test."""
    mark = uuid4().hex
    numbers = iter(range(1_000))

    def spec(command: str, **settings: object) -> ContainerSpec:
        return replace(
            ContainerSpec(f"vaka-docker-{mark}-{next(numbers)}", busybox_image),
            command=("sh", "-c", command),
            labels={"vaka.docker": mark},
            **settings,  # type: ignore[arg-type]
        )

    yield spec
    with trio.fail_after(TIME_LIMIT):
        for container in await runtime.list_containers({"vaka.docker": mark}):
            await runtime.remove(container.name)


def lines(ended: Ended) -> dict[str, str]:
    """What a container printed as `name: value`."""
    text = ended.stdout.decode()
    return {
        name: value.strip()
        for name, _, value in (line.partition(":") for line in text.splitlines())
    }


async def test_a_container_has_no_privilege_to_gain(
    runtime: DockerRuntime, new: NewContainer
) -> None:
    inside = lines(
        await run(runtime, new("grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid)' /proc/self/status"))
    )

    assert {inside[f"Cap{kind}"] for kind in ("Eff", "Prm", "Bnd")} == {"0" * 16}
    assert inside["NoNewPrivs"] == "1"
    assert inside["Seccomp"] == "2"


async def test_a_container_runs_as_it_was_told(runtime: DockerRuntime, new: NewContainer) -> None:
    spec = new(
        "echo user:$(id -u):$(id -g); echo init:$(cat /proc/1/comm); echo links:$(ls /sys/class/net);"
        "echo keepalive:$(cat /proc/sys/net/ipv4/tcp_keepalive_time)",
        user="1234:4321",
        sysctls={"net.ipv4.tcp_keepalive_time": "77"},
    )

    inside = lines(await run(runtime, spec))

    assert inside["user"] == "1234:4321"
    assert inside["init"] in ("docker-init", "tini")
    assert inside["links"] == "lo"
    assert inside["keepalive"] == "77"


async def test_a_read_only_root_has_a_place_for_temporary_files(
    runtime: DockerRuntime, new: NewContainer
) -> None:
    command = "touch /tmp/a && echo tmp: yes; touch /a 2>/dev/null || echo root: no"

    inside = lines(await run(runtime, new(command, read_only_root=True)))

    assert inside == {"tmp": "yes", "root": "no"}


async def test_environment_arrives_unchanged(runtime: DockerRuntime, new: NewContainer) -> None:
    value = "123 ščř =-'\"321 $HOME `id` \\ \t \n second line"
    spec = new('printf "%s" "$VALUE"', environment={"VALUE": value, "EMPTY": ""})

    ended = await run(runtime, spec)

    assert ended.stdout.decode() == value


async def test_folders_are_mounted_as_told(
    runtime: DockerRuntime, new: NewContainer, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir(mode=0o777)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file").write_text("given")
    spec = new(
        "cat /in/file > /data/copy; touch /in/new 2>/dev/null || echo in: read-only",
        mounts=(Mount(tmp_path / "data", "/data"), Mount(tmp_path / "in", "/in", read_only=True)),
    )

    ended = await run(runtime, spec)

    assert (tmp_path / "data/copy").read_text() == "given"
    assert lines(ended) == {"in": "read-only"}


async def test_a_folder_that_is_not_there_is_not_made(
    runtime: DockerRuntime, new: NewContainer, tmp_path: Path
) -> None:
    spec = new("true", mounts=(Mount(tmp_path / "nowhere", "/data"),))

    with pytest.raises(ApplicationError, match="nowhere"):
        await runtime.create(spec)

    assert not (tmp_path / "nowhere").exists()


async def test_an_entrypoint_replaces_that_of_the_image(
    runtime: DockerRuntime, new: NewContainer
) -> None:
    spec = replace(new(""), entrypoint=("echo", "a b"), command=("c",))

    assert (await run(runtime, spec)).stdout == b"a b c\n"


async def test_the_image_says_what_runs_where_the_spec_does_not(
    runtime: DockerRuntime, new: NewContainer
) -> None:
    ended = await run(runtime, replace(new(""), command=None))  # the image's: a shell without input

    assert (ended.exit.exit_code, ended.stdout, ended.stderr) == (0, b"", b"")


async def test_processes_are_limited(runtime: DockerRuntime, new: NewContainer) -> None:
    spec = new("for i in 1 2 3 4 5 6 7 8 9; do sleep 100 & done; echo all: started", pids=5)

    assert "can't fork" in (await run(runtime, spec)).stderr.decode()


async def test_memory_that_was_masked_by_the_exit_code_is_still_told(
    runtime: DockerRuntime, new: NewContainer
) -> None:
    spec = new("tail /dev/zero || true", memory_bytes=16 << 20, memory_swap_bytes=16 << 20)

    ended = await run(runtime, spec)

    assert (ended.exit.exit_code, ended.exit.oom_killed) == (0, True)
    # the kernel tells it, where its log may be read and not too many are killed at a time
    assert ended.exit.memory_peak_bytes in (None, 16 << 20)


async def test_many_containers_over_their_limit_are_all_told(
    runtime: DockerRuntime, new: NewContainer
) -> None:
    told: list[bool] = []

    async def one() -> None:
        spec = new("exec tail /dev/zero", memory_bytes=16 << 20, memory_swap_bytes=16 << 20)
        told.append((await run(runtime, spec)).exit.oom_killed)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(one)

    assert told == [True] * 8


@pytest.mark.parametrize("limit", [None, 64 << 20])
async def test_what_was_killed_for_another_reason_is_not_taken_for_memory(
    runtime: DockerRuntime, new: NewContainer, limit: int | None
) -> None:
    stopped = new("sleep 1000", memory_bytes=limit)
    await runtime.create(stopped)
    await runtime.start(stopped.name)
    await runtime.stop(stopped.name, grace=0)
    by_itself = await run(runtime, new("exit 137", memory_bytes=limit))
    ends = [await runtime.wait(stopped.name), by_itself.exit]

    assert [(end.exit_code, end.oom_killed) for end in ends] == [(137, False), (137, False)]


async def test_a_command_that_cannot_be_run_has_its_reason(
    runtime: DockerRuntime, new: NewContainer
) -> None:
    spec = replace(new(""), command=("/nowhere/command",), init=False)
    await runtime.create(spec)

    with pytest.raises(ApplicationError, match="no such file") as caught:
        await runtime.start(spec.name)

    assert spec.name in caught.value.message
    assert await phase(runtime, spec.name) is ContainerPhase.CREATED


async def test_a_refusal_has_the_daemons_words_and_no_status(
    runtime: DockerRuntime, new: NewContainer
) -> None:
    with pytest.raises(ApplicationError, match="6MB") as caught:
        await runtime.create(new("true", memory_bytes=1))

    assert "400" not in caught.value.message
    assert caught.value.__cause__ is not None


async def test_an_oci_runtime_that_the_daemon_does_not_have_is_named(
    runtime: DockerRuntime, new: NewContainer
) -> None:
    spec = replace(new("true"), oci_runtime="none-such")

    with pytest.raises(ApplicationError, match=r"OCI runtime 'none-such' .* daemon\.json"):
        await runtime.create(spec)

    assert await runtime.find(spec.name) is None


async def test_more_cpus_than_the_host_has_are_all_of_them(
    runtime: DockerRuntime, new: NewContainer
) -> None:
    assert (await run(runtime, new("true", cpus=10_000))).exit.exit_code == 0


async def test_what_the_log_has_dropped_is_said_to_be_missing(
    runtime: DockerRuntime, new: NewContainer, caplog: pytest.LogCaptureFixture
) -> None:
    line = "x" * 999
    spec = new(f"i=0; while [ $i -lt 400 ]; do echo {line}; i=$((i+1)); done", log_bytes=100_000)
    printed = (await run(runtime, spec)).stdout
    with caplog.at_level(logging.WARNING):
        kept = (await read(runtime, spec.name))["stdout"]
        quiet = not caplog.records
        nothing = (await read(runtime, spec.name, skip={"stdout": len(printed)}))["stdout"]

    assert len(printed) == 400_000
    assert printed.endswith(kept)
    assert 50_000 <= len(kept) <= 110_000
    assert quiet
    assert nothing == b""
    assert [record.message for record in caplog.records] == ["output.incomplete"]


async def test_another_engine_takes_a_running_container_over(
    runtime: DockerRuntime, new: NewContainer, docker_host: str
) -> None:
    spec = new("echo one; sleep 1; echo two; sleep 0.2; exit 4")
    first = DockerRuntime(docker_host)
    await first.open()
    await first.create(spec)
    async with first.output(spec.name) as chunks:
        await first.start(spec.name)
        seen = await anext(aiter(chunks))
    await first.aclose()

    found = await runtime.find(spec.name)
    rest = await read(runtime, spec.name, skip={"stdout": len(seen.data)})
    ended = await runtime.wait(spec.name)

    assert seen.data == b"one\n"
    assert found is not None
    assert found.phase is ContainerPhase.RUNNING
    assert rest["stdout"] == b"two\n"
    assert ended.exit_code == 4


async def test_a_container_removed_while_it_is_read_ends_the_output(
    runtime: DockerRuntime, new: NewContainer
) -> None:
    spec = new("echo one; sleep 1000")
    await runtime.create(spec)
    received = b""
    with trio.fail_after(TIME_LIMIT):
        async with runtime.output(spec.name) as chunks:
            await runtime.start(spec.name)
            async for chunk in chunks:
                received += chunk.data
                await runtime.remove(spec.name)

    assert received == b"one\n"


async def test_a_container_that_closes_its_output_and_runs_on_is_still_waited_for(
    runtime: DockerRuntime, new: NewContainer
) -> None:
    ended = await run(runtime, new("echo bye; exec >&- 2>&-; sleep 2; exit 3"))

    assert (ended.stdout, ended.exit.exit_code) == (b"bye\n", 3)
    assert (ended.exit.seconds or 0) > 1  # a busy daemon notes the start late


async def test_info_names_the_daemon(runtime: DockerRuntime) -> None:
    info = await runtime.info()

    assert info.name == "docker"
    assert "API 1." in info.version
    assert info.platform.startswith("linux/")
    assert info.cpus == len(os.sched_getaffinity(0)) or info.cpus >= 1
    assert not any(warning.startswith("WARNING") for warning in info.warnings)


async def test_no_daemon_is_told_with_its_address_and_what_to_do(tmp_path: Path) -> None:
    runtime = docker_runtime(f"docker+unix://{tmp_path}/none.sock")

    with pytest.raises(RuntimeUnavailable) as caught:
        await runtime.open()
    await runtime.aclose()

    assert f"{tmp_path}/none.sock" in caught.value.message
    assert "start the Docker Engine" in caught.value.message


@pytest.mark.parametrize(
    "url",
    ["", "docker", "docker:", "docker+ssh://host", "docker+unix://", "kubernetes://x", "unix:///x"],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ApplicationError, match="docker"):
        docker_runtime(url)


async def test_an_address_that_cannot_be_is_refused_when_opened() -> None:
    runtime = docker_runtime("docker+tcp://host/path")

    with pytest.raises(ApplicationError, match="host and a port"):
        await runtime.open()
    await runtime.aclose()


async def test_the_daemon_of_the_environment_is_the_default(
    docker_host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", docker_host)
    runtime = docker_runtime("docker://")
    await runtime.open()
    info = await runtime.info()
    await runtime.aclose()

    assert info.name == "docker"


def test_what_a_spec_leaves_open_is_left_to_the_image_and_the_daemon() -> None:
    body = container_body(ContainerSpec("name", "image:1"), cpus=2)

    assert not {"Cmd", "Entrypoint", "User"} & body.keys()
    assert (
        not {"Memory", "MemorySwap", "NanoCpus", "Runtime", "Tmpfs", "Sysctls"}
        & body["HostConfig"].keys()
    )
    assert body["HostConfig"]["CapDrop"] == ["ALL"]
    assert body["HostConfig"]["SecurityOpt"] == ["no-new-privileges"]
    assert body["HostConfig"]["NetworkMode"] == "none"
    assert body["HostConfig"]["PidsLimit"] == 4096
    assert body["HostConfig"]["Init"] is True


def test_what_a_spec_says_is_what_the_daemon_is_told() -> None:
    spec = ContainerSpec(
        "name",
        "image:1",
        command=("run", "it"),
        entrypoint=("/bin/entry",),
        environment={"A": "b=c"},
        labels={"l": "v"},
        mounts=(Mount(Path("/host/data"), "/data"), Mount(Path("/host/tmp"), "/tmp")),
        user="1000:1000",
        network="bridge",
        memory_bytes=256_000_000,
        memory_swap_bytes=256_000_000,
        cpus=1.5,
        pids=None,
        read_only_root=True,
        drop_capabilities=False,
        no_new_privileges=False,
        init=False,
        log_bytes=1 << 20,
        sysctls={"net.a": "1"},
        oci_runtime="runsc",
    )

    body = container_body(spec, cpus=2)
    host = body["HostConfig"]

    assert (body["Cmd"], body["Entrypoint"]) == (["run", "it"], ["/bin/entry"])
    assert (body["Env"], body["Labels"], body["User"]) == (["A=b=c"], {"l": "v"}, "1000:1000")
    assert [(m["Source"], m["Target"], m["ReadOnly"]) for m in host["Mounts"]] == [
        ("/host/data", "/data", False),
        ("/host/tmp", "/tmp", False),
    ]
    assert (host["Memory"], host["MemorySwap"]) == (256_000_000, 256_000_000)
    assert host["NanoCpus"] == 1_500_000_000
    assert host["NetworkMode"] == "bridge"
    assert host["ReadonlyRootfs"] is True
    assert "Tmpfs" not in host  # something is mounted there
    assert not {"PidsLimit", "SecurityOpt"} & host.keys()
    assert host["CapDrop"] == ["MKNOD", "NET_RAW"]
    assert host["Init"] is False
    assert host["LogConfig"]["Config"]["max-size"] == "524288"
    assert (host["Sysctls"], host["Runtime"]) == ({"net.a": "1"}, "runsc")


def test_the_kernels_log_tells_which_containers_it_killed() -> None:
    read_end, write_end = os.pipe2(os.O_DIRECT)  # one write is one record, as in the kernel's log
    killed, spared = "4d01" * 16, "eccd" * 16
    log = KernelLog(Path(f"/proc/self/fd/{read_end}"))
    try:
        os.write(write_end, b"6,1,1,-;eth0: link up\n")
        os.write(write_end, b"6,1,1,-;memory: usage 16384kB, limit 16384kB, failcnt 23\n")
        os.write(
            write_end,
            b"6,2,2,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=x,mems_allowed=0,"
            b"oom_memcg=/system.slice/docker-%b.scope,task_memcg=/docker/%b,task=tail,pid=1,uid=0\n"
            % (killed.encode(), spared.encode()),
        )
        assert log.has_killed(killed)
        assert not log.has_killed(spared)
        assert log.has_killed(killed)
        assert (log.peak(killed), log.peak(spared)) == (16 << 20, None)
    finally:
        log.close()
        os.close(read_end)
        os.close(write_end)
    assert log.has_killed(killed)


def test_a_kernels_log_that_cannot_be_read_tells_nothing(tmp_path: Path) -> None:
    log = KernelLog(tmp_path / "nothing")

    assert not log.has_killed("4d01" * 16)
    log.close()


def test_no_time_limit_is_needed_to_say_for_ever() -> None:
    assert "sleep 1000000.000" in shell(Script(seconds=math.inf))[-1]


@pytest.mark.parametrize(
    ("config", "address"),
    [
        ({"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.9"}, "172.18.0.9"),
        ({"Subnet": "172.17.0.0/16"}, "172.17.0.1"),
        ({"Subnet": "fd00::/64", "Gateway": "fd00::1"}, None),
    ],
)
def test_a_gateway_is_known_also_when_the_daemon_does_not_tell(
    config: dict[str, str], address: str | None
) -> None:
    assert _gateway(config) == address


async def test_a_container_reaches_this_host_at_the_gateway_of_its_network(
    runtime: DockerRuntime,
) -> None:
    address = await runtime.host_address("bridge")
    assert address is not None
    with trio.socket.socket() as listening:
        await listening.bind((address, 0))  # it is an address of this machine
    assert await runtime.host_address("none") is None
    assert await runtime.host_address("host") == "127.0.0.1"
    assert await runtime.host_address(f"no-such-{uuid4().hex}") is None
