"""A real daemon: streams, attached containers, archives, registries, events, many calls at once."""

from __future__ import annotations

import gc
import hashlib
import io
import os
import ssl
import tarfile
import time
import tracemalloc
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from vaka.docker import (
    Docker,
    DockerConflict,
    DockerContainerError,
    DockerError,
    DockerNotFound,
    DockerServerError,
    DockerStreamError,
    Message,
)
from vaka.docker.stream import Output

pytestmark = pytest.mark.docker


async def collect(output: Output) -> dict[int, bytes]:
    """All that each stream printed."""
    printed = {1: b"", 2: b""}
    async for message in output:
        printed[message.stream] += message.data
    return printed


# Output


def test_nothing_is_missed_of_a_container_that_is_started_once_its_output_is_open(
    run: Any, docker_host: str, create: Any
) -> None:
    async def call() -> None:
        command = "echo first; echo error >&2; echo last"
        async with Docker(docker_host) as docker, create(docker, command) as container:
            async with container.output(logs=False) as output, container.waiting() as end:
                await container.start()
                printed = await collect(output)
                assert await end.result() == {"StatusCode": 0, "Error": None}
            assert printed == {1: b"first\nlast\n", 2: b"error\n"}
            assert await collect(container.output()) == printed

    run(call)


def test_a_flood_on_both_streams_arrives_whole_in_little_memory(
    run: Any, docker_host: str, create: Any
) -> None:
    size = 16 << 20
    command = f"head -c {size} /dev/zero >&2 & head -c {size} /dev/zero | tr '\\0' x; wait"

    async def call() -> None:
        async with (
            Docker(docker_host) as docker,
            create(
                docker, command, HostConfig={"NetworkMode": "none", "LogConfig": {"Type": "none"}}
            ) as container,
            container.output(logs=False) as output,
        ):
            await container.start()
            counts = {1: 0, 2: 0}
            tracemalloc.start()
            try:
                async for stream, data in output:
                    counts[stream] += len(data)
                    assert data[:1] == data[-1:] == (b"x" if stream == 1 else b"\0")
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert counts == {1: size, 2: size}
            assert peak < 2 << 20

    run(call)


def test_a_log_can_be_cut_stamped_and_followed(run: Any, docker_host: str, create: Any) -> None:
    async def call() -> None:
        command = "echo one; echo two >&2; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo three"
        async with Docker(docker_host) as docker, create(docker, command) as container:
            await container.start()
            async with container.output() as output:
                messages = [await output.read_out(), await output.read_out()]
                assert sorted(messages) == [Message(1, b"one\n"), Message(2, b"two\n")]
                await (await container.exec(["touch", "/tmp/go"])).start(detach=True)
                assert await output.read_out() == Message(1, b"three\n")
                assert await output.read_out() is None
            await container.wait()
            last = await collect(container.output(follow=False, tail=1, stderr=False))
            assert last[1] == b"three\n"
            stamped = await collect(container.output(timestamps=True, stdout=False))
            time, _, text = stamped[2].partition(b" ")
            assert text == b"two\n"
            assert time.startswith(b"20")
            assert await collect(container.output(since=4_000_000_000)) == {1: b"", 2: b""}
            assert await collect(container.output(until=1)) == {1: b"", 2: b""}

    run(call)


@pytest.mark.parametrize(
    "options", [{"follow": False}, {"tail": 5}, {"timestamps": True}, {"since": 1}, {"until": 1}]
)
def test_what_only_a_log_can_do_is_refused_without_one(docker_host: str, options: Any) -> None:
    async def call() -> None:
        async with Docker(docker_host) as docker:
            with pytest.raises(ValueError, match="use logs=True"):
                docker.containers.container("x").output(logs=False, **options)

    anyio.run(call, backend="trio")


def test_the_log_of_several_subscribers_goes_to_each_line_by_line(
    run: Any, docker_host: str, create: Any
) -> None:
    async def call() -> None:
        command = "seq 1 3000; echo error >&2; printf end"
        async with Docker(docker_host) as docker, create(docker, command) as container:
            await container.start()
            await container.wait()
            subscribers = [container.logs.subscribe() for _ in range(2)]
            forgotten = container.logs.subscribe()
            seen: list[list[bytes]] = [[], []]

            async def read(index: int) -> None:
                async for line in subscribers[index]:
                    seen[index].append(line)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(container.logs.run)
                del forgotten
                tasks.start_soon(read, 0)
                tasks.start_soon(read, 1)
            assert seen[0] == seen[1]
            numbers = [line for line in seen[0] if line not in (b"error\n", b"end")]
            assert numbers == [b"%d\n" % number for number in range(1, 3001)]
            assert b"error\n" in seen[0]

    run(call)


# Attached containers and execs


async def sum_of_input(docker: Docker, create: Any, data: bytes) -> str:
    """Sends `data` to a container's input in pieces, ends it, and reads what the container says."""
    config = {"OpenStdin": True, "StdinOnce": True}
    async with (
        create(docker, "sha256sum; echo done >&2", **config) as container,
        container.attach(stdin=True, stdout=True, stderr=True) as stream,
    ):
        await container.start()
        printed: dict[int, bytes] = {}
        async with anyio.create_task_group() as tasks:

            async def read() -> None:
                printed.update(await collect(stream))

            tasks.start_soon(read)
            for at in range(0, len(data), 50_000):
                await stream.write_in(data[at : at + 50_000])
            await stream.close_in()
        assert printed[2] == b"done\n"
        return printed[1].split()[0].decode()


def test_input_that_is_ended_is_answered_after_its_end(
    run: Any, docker_host: str, create: Any
) -> None:
    data = os.urandom(3_000_000)

    async def call() -> None:
        async with Docker(docker_host) as docker:
            assert await sum_of_input(docker, create, data) == hashlib.sha256(data).hexdigest()

    run(call)


def test_input_is_ended_over_tcp_too(run: Any, tcp: Any, relay: Any, create: Any) -> None:
    data = os.urandom(3_000_000)

    async def call() -> None:
        async with tcp(relay) as port, Docker(f"tcp://127.0.0.1:{port}") as docker:
            assert await sum_of_input(docker, create, data) == hashlib.sha256(data).hexdigest()

    run(call)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_input_is_ended_over_tls_too(
    run: Any, tcp: Any, relay: Any, create: Any, certificates: Any, version: ssl.TLSVersion
) -> None:
    data = os.urandom(3_000_000)
    client = certificates.client_context()
    client.minimum_version = client.maximum_version = version

    async def call() -> None:
        async with (
            tcp(relay, certificates.server_context()) as port,
            Docker(f"https://127.0.0.1:{port}", ssl_context=client) as docker,
        ):
            assert await sum_of_input(docker, create, data) == hashlib.sha256(data).hexdigest()

    run(call)


def test_a_conversation_with_a_terminal(run: Any, docker_host: str, create: Any) -> None:
    async def call() -> None:
        config = {"OpenStdin": True, "Tty": True}
        async with (
            Docker(docker_host) as docker,
            create(
                docker, "stty -echo; echo ready; read x; stty size; echo $x", **config
            ) as container,
            container.attach(stdin=True, stdout=True) as stream,
        ):
            await container.start()
            printed = b""
            while b"ready" not in printed:
                message = await stream.read_out()
                assert message is not None
                printed += message.data
            await container.resize(h=33, w=44)
            await stream.write_in(b"hello\n")
            async for stream_number, data in stream:
                assert stream_number == 1
                printed += data
            assert printed == b"ready\r\n33 44\r\nhello\r\n"

    run(call)


def test_whether_there_is_a_terminal_is_found_out_where_it_is_not_known(
    run: Any, docker_host: str, create: Any
) -> None:
    async def call() -> None:
        async with Docker(docker_host) as docker, create(docker, "echo hi", Tty=True) as made:
            await made.start()
            await made.wait()
            for container in (
                docker.containers.container(made.id),
                await docker.containers.get(made.id),
            ):
                assert await container.log(stdout=True) == ["hi\r\n"]
                assert await collect(container.output()) == {1: b"hi\r\n", 2: b""}

    run(call)


def test_an_exec_has_its_own_input_output_and_exit_code(
    run: Any, docker_host: str, create: Any
) -> None:
    async def call() -> None:
        async with Docker(docker_host) as docker, create(docker, "sleep 60") as container:
            await container.start()
            execute = await container.exec(["sh", "-c", "cat; echo error >&2; exit 9"], stdin=True)
            async with execute.start() as stream:
                await stream.write_in(b"typed")
                await stream.close_in()
                assert await collect(stream) == {1: b"typed", 2: b"error\n"}
            assert (await execute.inspect())["ExitCode"] == 9
            with pytest.raises(DockerConflict):
                await execute.start(detach=True)
            with pytest.raises(DockerNotFound):
                await docker.containers.exec("0" * 64).start().read_out()

    run(call)


def test_a_closed_stream_says_so(run: Any, docker_host: str, create: Any) -> None:
    async def call() -> None:
        async with (
            Docker(docker_host) as docker,
            create(docker, "cat", OpenStdin=True) as container,
        ):
            stream = container.attach(stdin=True, stdout=True)
            async with stream:
                await container.start()
                await stream.write_in(b"a\n")
                assert await stream.read_out() == Message(1, b"a\n")
            with pytest.raises(RuntimeError, match="closed transport"):
                await stream.write_in(b"b")
            with pytest.raises(RuntimeError, match="ask the container for another"):
                await stream.read_out()
            assert [message async for message in stream] == []
            await stream.close()

    run(call)


# Ends


def test_the_end_is_told_to_who_asked_before_the_start(
    run: Any, docker_host: str, create: Any
) -> None:
    async def call() -> None:
        async with Docker(docker_host) as docker, create(docker, "exit 3") as container:
            for _ in range(2):  # the next exit, not the last one
                async with container.waiting() as end:
                    with anyio.move_on_after(0.05) as scope:
                        await end.result()
                    assert scope.cancelled_caught
                    await container.start()
                    assert (await end.result())["StatusCode"] == 3
            async with container.waiting(condition="removed") as removed:
                await container.delete()
                assert (await removed.result())["StatusCode"] == 3

    with pytest.raises(DockerNotFound):  # the fixture finds it gone
        run(call)


def test_many_waits_do_not_keep_other_calls_waiting(
    run: Any, docker_host: str, create: Any
) -> None:
    waits = 200

    async def call() -> None:
        async with Docker(docker_host) as docker, create(docker, "sleep 60") as container:
            await container.start()
            codes: list[int] = []

            async def wait() -> None:
                codes.append((await container.wait())["StatusCode"])

            async with anyio.create_task_group() as tasks:
                for _ in range(waits):
                    tasks.start_soon(wait)
                while len(docker._http._transport._open) < waits:
                    await anyio.lowlevel.checkpoint()
                for _ in range(20):
                    assert (await container.show())["State"]["Running"]
                assert codes == []
                await container.kill()
            assert codes == [137] * waits

    run(call)


def test_cancelled_calls_leave_the_client_and_the_daemon_as_they_were(
    run: Any, docker_host: str, create: Any
) -> None:
    async def call() -> None:
        async with Docker(docker_host) as docker, create(docker, "sleep 60") as container:
            await container.start()
            for delay in range(12):
                with anyio.move_on_after(delay / 1000):
                    await container.wait()
                with anyio.move_on_after(delay / 1000):
                    async with container.attach(stdout=True) as stream:
                        await stream.read_out()
                with anyio.move_on_after(delay / 1000):
                    async for _ in container.stats():
                        pass
                with anyio.move_on_after(delay / 1000):
                    await docker.system.info()
            assert (await container.show())["State"]["Running"]
            assert len(docker._http._transport._open) <= 1

    run(call)


# Archives


def random_tar(size: int) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo("data.bin")
        member.size = size
        tar.addfile(member, io.BytesIO(os.urandom(size)))
    return packed.getvalue()


async def in_pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def test_an_archive_goes_in_and_comes_out_as_a_stream(
    run: Any, docker_host: str, create: Any, tmp_path: Path
) -> None:
    packed = random_tar(5_000_000)
    (tmp_path / "file.tar").write_bytes(packed)

    async def content(container: Any, *, step: int | None = None) -> bytes:
        async with container.get_archive_stream("/tmp/data.bin") as archive:
            assert archive.stat["name"] == "data.bin"
            assert archive.stat["size"] == 5_000_000
            pieces = archive.content if step is None else archive.content.iter_chunked(step)
            received = b"".join([piece async for piece in pieces])
        with tarfile.open(fileobj=io.BytesIO(received)) as tar:
            member = tar.extractfile("data.bin")
            assert member is not None
            return member.read()

    async def call() -> None:
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            member = tar.extractfile("data.bin")
            assert member is not None
            expected = member.read()
        async with Docker(docker_host) as docker:
            for source in ("stream", "file", "memory"):
                async with create(docker, "true") as container:
                    if source == "stream":
                        await container.put_archive("/tmp", in_pieces(packed, 100_001))
                    elif source == "memory":
                        await container.put_archive("/tmp", io.BytesIO(packed))
                    else:
                        with (tmp_path / "file.tar").open("rb") as file:
                            await container.put_archive("/tmp", file)
                    assert await content(container) == expected
                    assert await content(container, step=999) == expected
            async with create(docker, "true") as container:
                with pytest.raises(DockerNotFound):
                    await container.put_archive("/no/such/folder", packed)
                with pytest.raises(DockerNotFound):
                    async with container.get_archive_stream("/no/such/file"):
                        pass

    run(call)


def test_an_archive_that_is_not_read_to_its_end_costs_one_connection(
    run: Any, docker_host: str, create: Any
) -> None:
    packed = random_tar(5_000_000)

    async def call() -> None:
        async with Docker(docker_host) as docker, create(docker, "true") as container:
            await container.put_archive("/tmp", packed)
            async with container.get_archive_stream("/tmp/data.bin") as archive:
                assert len(await archive.content.read(512)) == 512
                assert await archive.content.read(0) == b""
            assert len(docker._http._transport._open) == 0
            assert await docker.ping() == "OK"

    run(call)


# Images and registries


def test_an_image_goes_to_a_registry_and_comes_back(
    run: Any, docker_host: str, busybox_image: str, registry: Any
) -> None:
    name = f"{registry.host}/team/busybox"

    async def call() -> None:
        async with Docker(docker_host) as docker:
            assert (await docker.auth(serveraddress=f"http://{registry.host}", **registry.auth))[
                "Status"
            ] == "Login Succeeded"
            await docker.images.tag(busybox_image, name, tag="1")
            try:
                pushed = await docker.push(name, tag="1", auth=registry.auth)
                digest = next(item["aux"]["Digest"] for item in pushed if "aux" in item)
                await docker.images.delete(f"{name}:1")

                there = await docker.images.distribution(f"{name}:1", auth=registry.auth)
                assert there["Descriptor"]["digest"] == digest

                progress = [
                    item async for item in docker.pull(f"{name}:1", auth=registry.auth, stream=True)
                ]
                assert any(item.get("status") == f"Digest: {digest}" for item in progress)
                again = await docker.images.pull(name, tag="1", auth=registry.auth)
                assert "Image is up to date" in again[-1]["status"]
                assert (
                    f"{name}@{digest}" in (await docker.images.inspect(f"{name}:1"))["RepoDigests"]
                )

                await docker.images.delete(f"{name}:1")
                await docker.images.pull(f"{name}@{digest}", auth=registry.auth)
                await docker.images.delete(f"{name}@{digest}")
            finally:
                for left in await docker.images.list(filters={"reference": [f"{name}:*"]}):
                    for tag in left["RepoTags"]:
                        if tag.startswith(name):
                            await docker.images.delete(tag)

    run(call)


def test_what_a_registry_refuses_has_a_type(
    run: Any, docker_host: str, busybox_image: str, registry: Any
) -> None:
    name = f"{registry.host}/team/busybox"
    wrong = registry.auth | {"password": "wrong"}

    async def call() -> None:
        async with Docker(docker_host) as docker:
            with pytest.raises(DockerServerError):
                await docker.auth(serveraddress=f"http://{registry.host}", **wrong)
            with pytest.raises(DockerServerError, match=r"no basic auth|unauthorized"):
                await docker.images.pull(f"{name}:1")
            with pytest.raises(DockerNotFound, match=r"manifest unknown|not found"):
                await docker.images.pull(f"{name}:9", auth=registry.auth)
            with pytest.raises(DockerNotFound):
                await docker.images.distribution(f"{name}:9", auth=registry.auth)
            with pytest.raises(DockerError) as caught:
                await docker.images.distribution(f"{name}:9", auth=wrong)
            assert caught.value.status in (401, 500)
            assert "wrong" not in str(caught.value)
            await docker.images.tag(busybox_image, name, tag="1")
            try:
                with pytest.raises(DockerStreamError, match="auth"):
                    await docker.images.push(name, tag="1")
            finally:
                await docker.images.delete(f"{name}:1")
            with pytest.raises(DockerServerError, match="connection refused"):
                await docker.images.pull("127.0.0.1:1/nothing:1")

    run(call)


def test_an_absent_image_is_pulled_by_run(
    run: Any, docker_host: str, busybox_image: str, registry: Any
) -> None:
    name = f"{registry.host}/team/run"

    async def call() -> None:
        async with Docker(docker_host) as docker:
            await docker.images.tag(busybox_image, name, tag="1")
            await docker.images.push(name, tag="1", auth=registry.auth)
            await docker.images.delete(f"{name}:1")
            config: dict[str, Any] = {
                "Image": f"{name}:1",
                "Cmd": ["true"],
                "HostConfig": {"NetworkMode": "none"},
            }
            container = await docker.containers.run(config, auth=registry.auth)
            try:
                assert (await container.wait())["StatusCode"] == 0
            finally:
                await container.delete(force=True)
                await docker.images.delete(f"{name}:1")
            missing: dict[str, Any] = {
                "Image": busybox_image,
                "HostConfig": {"NetworkMode": "no-such-network"},
            }
            with pytest.raises(DockerContainerError, match="no-such-network") as caught:
                await docker.containers.run(missing)
            await docker.containers.container(caught.value.container_id).delete()

    run(call)


def test_an_image_is_built_from_a_context_that_streams(
    run: Any, docker_host: str, busybox_image: str
) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for file, content in {
            "Dockerfile": f"FROM {busybox_image}\nCOPY x /x\n",
            "x": "content",
        }.items():
            member = tarfile.TarInfo(file)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content.encode()))

    async def call() -> None:
        async with Docker(docker_host) as docker:
            context = in_pieces(packed.getvalue(), 100)
            steps = docker.images.build(
                fileobj=context, encoding="gzip", tag="vaka-test-streamed:1", stream=True
            )
            try:
                lines = [item["stream"] async for item in steps if "stream" in item]
                assert lines[0].startswith("Step 1/2 : FROM")
                assert "Successfully tagged vaka-test-streamed:1\n" in lines
                async with docker.images.export_image("vaka-test-streamed:1") as exported:
                    await docker.images.import_image(exported)
            finally:
                await docker.images.delete("vaka-test-streamed:1", force=True)

    run(call)


# Events


def test_events_come_in_order_and_a_cancelled_read_loses_none(
    run: Any, docker_host: str, create: Any
) -> None:
    async def call() -> None:
        async with Docker(docker_host) as docker:
            label = "vaka.test.events"
            subscriber = docker.events.subscribe(filters={"label": [label]})
            second = docker.events.subscribe()
            async with create(docker, "true", Labels={label: ""}) as container:
                await container.start()
                await container.wait()
            seen: list[str] = []
            cancelled = 0
            while "destroy" not in seen:
                with anyio.move_on_after(0) as scope:
                    seen.append((await subscriber.get())["Action"])
                if scope.cancelled_caught:
                    cancelled += 1
                    await anyio.sleep(0.002)
                    if cancelled % 3 == 0:
                        seen.append((await subscriber.get())["Action"])
            assert seen == ["create", "start", "die", "destroy"]
            assert [(await second.get())["Action"] for _ in seen] == seen
            await docker.events.stop()
            assert await subscriber.get() is None
            assert [event async for event in second] == []

    run(call)


def test_events_can_be_read_by_a_task_of_ones_own(run: Any, docker_host: str, create: Any) -> None:
    async def call() -> None:
        async with Docker(docker_host) as docker, create(docker, "true") as container:
            subscriber = docker.events.subscribe(create_task=False)
            since = int(time.time()) - 1
            filters = {"container": [container.id]}
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(docker.events.run, since=since, filters=filters))
                assert (await subscriber.get())["Action"] == "create"
                with pytest.warns(RuntimeWarning, match="already running"):
                    await docker.events.run()
                await container.start()
                assert (await subscriber.get())["Action"] == "start"
                await docker.events.stop()
            rest = [event["Action"] async for event in subscriber]
            assert rest in ([], ["die"])
            with pytest.warns(DeprecationWarning, match="subscribe"):
                listener = docker.events.listen()
            await docker.events.run(since=since, until=time.time(), filters=filters)
            heard = [event["Action"] async for event in listener]
            assert heard in (["create", "start"], ["create", "start", "die"])

    run(call)


# The daemon


def test_what_the_daemon_says_of_itself(run: Any, docker_host: str, busybox_image: str) -> None:
    async def call() -> None:
        async with Docker(docker_host) as docker:
            assert await docker.ping() == "OK"
            assert docker.api_version == "auto"
            usage = await docker.system.df()
            assert {"LayersSize", "Images", "Containers", "Volumes"} <= usage.keys()
            assert docker.api_version.startswith("v1.")
            image = await docker.images.inspect(busybox_image)
            assert image["RepoDigests"] == []

    run(call)


def test_a_client_that_is_never_closed_is_warned_of(run: Any, docker_host: str) -> None:
    async def use() -> None:
        await Docker(docker_host).ping()
        with pytest.warns(ResourceWarning, match="unclosed"):
            gc.collect()

    run(use)


def test_two_clients_share_nothing(run: Any, docker_host: str) -> None:
    async def call() -> None:
        async with Docker(docker_host) as one:
            async with Docker(docker_host) as other:
                await other.ping()
                await one.ping()
            assert await one.ping() == "OK"

    run(call)
