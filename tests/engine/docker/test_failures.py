"""What goes wrong between a client and a daemon, shown by a daemon that misbehaves."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.streams.tls
import pytest
from anyio.abc import ByteStream

from vaka.docker import (
    Docker,
    DockerConflict,
    DockerConnectionLost,
    DockerContainerError,
    DockerError,
    DockerNotFound,
    DockerServerError,
    DockerStreamError,
    DockerStreamTruncated,
    DockerUnreachable,
)
from vaka.docker import _http as http_module
from vaka.docker._tls import TLSStream
from vaka.docker._transport import IDLE_SECONDS, MOST_IDLE
from vaka.docker.stream import Message, Stream

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n"
UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def answer(status: str, body: bytes, content_type: str = "application/json") -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def sending(data: bytes, *, hang_up: bool = False) -> Callable[[Any, ByteStream], Awaitable[None]]:
    """A daemon that answers everything with `data`."""

    async def send(_: Any, stream: ByteStream) -> None:
        await stream.send(data)
        if hang_up:
            await stream.aclose()

    return send


async def hang(_: Any, stream: ByteStream) -> None:
    """A daemon that never answers."""
    async for _ in stream:
        pass


async def hang_up(_: Any, stream: ByteStream) -> None:
    """A daemon that closes instead of answering."""
    await stream.aclose()


async def reset(_: Any, stream: ByteStream) -> None:
    """A daemon that is killed: the kernel resets its TCP connections."""
    raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.aclose()


# Connecting


def test_a_socket_that_is_not_there_is_named_with_advice(run: Any, tmp_path: Path) -> None:
    async def call() -> None:
        async with Docker(f"unix://{tmp_path}/none.sock") as docker:
            with pytest.raises(
                DockerUnreachable, match="no such socket; start the Docker"
            ) as caught:
                await docker.ping()
            assert caught.value.status == 900
            assert caught.value.address == f"unix://{tmp_path}/none.sock"
            assert f"via unix://{tmp_path}/none.sock" in caught.value.message

    run(call)


def test_a_socket_that_nobody_listens_at_is_told_apart(run: Any, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "x.sock"))

    async def call() -> None:
        async with Docker(f"unix://{tmp_path}/x.sock") as docker:
            with pytest.raises(DockerUnreachable, match="nothing listens there"):
                await docker.containers.list()

    run(call)


def test_a_tcp_port_that_nobody_listens_at_is_named(run: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    async def call() -> None:
        async with Docker(f"tcp://127.0.0.1:{port}") as docker:
            with pytest.raises(DockerUnreachable, match=f"via tcp://127.0.0.1:{port}") as caught:
                await docker.ping()
            assert "start the Docker Engine" in caught.value.message

    run(call)


def test_a_daemon_that_does_not_even_accept_is_given_up(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_module, "CONNECT_SECONDS", 0.05)
    with socket.socket(socket.AF_UNIX) as deaf, socket.socket(socket.AF_UNIX) as first:
        deaf.bind(str(tmp_path / "deaf.sock"))
        deaf.listen(0)
        first.connect(str(tmp_path / "deaf.sock"))  # the queue is full now

        async def call() -> None:
            async with Docker(f"unix://{tmp_path}/deaf.sock") as docker:
                with pytest.raises(DockerUnreachable, match=r"no answer in 0\.05 s"):
                    await docker.ping()

        run(call)


def test_what_is_no_http_is_said(run: Any, fake_daemon: Any) -> None:
    async def call() -> None:
        async with fake_daemon(sending(b"SSH-2.0-OpenSSH_9.2p1\r\n", hang_up=True)) as (_, docker):
            with pytest.raises(DockerConnectionLost, match="GET /_ping"):
                await docker.ping()

    run(call)


# Which API


@pytest.mark.parametrize(
    ("version", "spoken"),
    [
        ({"ApiVersion": "1.41", "MinAPIVersion": "1.12"}, "v1.41"),
        ({"ApiVersion": "1.60", "MinAPIVersion": "1.44"}, "v1.47"),
        ({"ApiVersion": "1.40"}, "v1.40"),
    ],
)
def test_the_newest_api_that_both_know_is_spoken(
    run: Any,
    fake_daemon: Any,
    monkeypatch: pytest.MonkeyPatch,
    version: dict[str, str],
    spoken: str,
) -> None:
    async def call() -> None:
        async with fake_daemon(sending(answer("200 OK", b"[]"))) as (daemon, docker):
            monkeypatch.setitem(daemon.serve.__func__.__globals__, "VERSION", version)
            assert docker.api_version == "auto"
            await docker.containers.list()
            assert docker.api_version == spoken
            assert daemon.requests[-1].target == f"/{spoken}/containers/json"

    run(call)


def test_a_daemon_that_is_too_new_is_said(
    run: Any, fake_daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def call() -> None:
        async with fake_daemon(sending(b"")) as (daemon, docker):
            version = {"ApiVersion": "2.1", "MinAPIVersion": "2.0"}
            monkeypatch.setitem(daemon.serve.__func__.__globals__, "VERSION", version)
            with pytest.raises(DockerError, match=r"speaks API 2\.0 and newer.*update the client"):
                await docker.containers.list()

    run(call)


@pytest.mark.parametrize("version", [[], {}, {"ApiVersion": "new"}])
def test_what_has_no_version_is_no_docker_engine(
    run: Any, fake_daemon: Any, monkeypatch: pytest.MonkeyPatch, version: Any
) -> None:
    async def call() -> None:
        async with fake_daemon(sending(b"")) as (daemon, docker):
            monkeypatch.setitem(daemon.serve.__func__.__globals__, "VERSION", version)
            with pytest.raises(DockerError, match="is no Docker Engine"):
                await docker.containers.list()

    run(call)


def test_the_version_is_asked_once_however_many_begin_together(run: Any, fake_daemon: Any) -> None:
    async def call() -> None:
        async with fake_daemon(sending(answer("200 OK", b"[]"))) as (daemon, docker):
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(docker.containers.list)
            targets = [request.target for request in daemon.requests]
            assert targets.count("/version") == 1
            assert targets.count("/v1.41/containers/json") == 20

    run(call)


# Refusals


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("400 Bad Request", DockerError),
        ("404 Not Found", DockerNotFound),
        ("409 Conflict", DockerConflict),
        ("500 Internal Server Error", DockerServerError),
        ("503 Service Unavailable", DockerServerError),
    ],
)
def test_a_create_that_is_refused_has_a_type_and_the_daemons_words(
    run: Any, fake_daemon: Any, status: str, error: type[DockerError]
) -> None:
    async def call() -> None:
        async with fake_daemon(sending(answer(status, b'{"message": "no, because"}'))) as (
            _,
            docker,
        ):
            with pytest.raises(DockerError, match="no, because") as caught:
                await docker.containers.create({"Image": "x"}, name="n")
            assert type(caught.value) is error
            assert (caught.value.status, caught.value.message) == (int(status[:3]), "no, because")

    run(call)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"page not found\n", "page not found"),
        (b"", "GET /info: no reason given"),
        (b'{"error": 5}', '{"error": 5}'),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_a_refusal_in_other_words_is_passed_on(
    run: Any, fake_daemon: Any, body: bytes, message: str
) -> None:
    async def call() -> None:
        async with fake_daemon(sending(answer("404 Not Found", body, "text/plain"))) as (_, docker):
            with pytest.raises(DockerNotFound) as caught:
                await docker.system.info()
            assert caught.value.message == message

    run(call)


def test_a_redirect_is_not_taken_for_an_answer(run: Any, fake_daemon: Any) -> None:
    async def call() -> None:
        moved = b"HTTP/1.1 301 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"
        async with fake_daemon(sending(moved)) as (_, docker):
            with pytest.raises(DockerError) as caught:
                await docker.containers.get("a/../b")
            assert caught.value.status == 301

    run(call)


def test_a_container_that_cannot_be_started_is_told_with_its_id(run: Any, fake_daemon: Any) -> None:
    async def daemon(request: Any, stream: ByteStream) -> None:
        if request.target.endswith("/containers/create"):
            await stream.send(answer("201 Created", b'{"Id": "abc"}'))
        else:
            await stream.send(answer("400 Bad Request", b'{"message": "no such program"}'))

    async def call() -> None:
        async with fake_daemon(daemon) as (_, docker):
            with pytest.raises(DockerContainerError) as caught:
                await docker.containers.run({"Image": "x"})
            assert caught.value.container_id == "abc"
            assert str(caught.value) == "[400] no such program (container: abc)"

    run(call)


# Breaks


def test_a_create_that_is_not_answered_is_not_repeated(run: Any, fake_daemon: Any) -> None:
    async def call() -> None:
        async with fake_daemon(hang_up) as (daemon, docker):
            with pytest.raises(DockerConnectionLost, match="look before you repeat it") as caught:
                await docker.containers.create({"Image": "x"})
            assert "POST /containers/create" in caught.value.message
            assert caught.value.address in caught.value.message
            asked = [r.target for r in daemon.requests if r.method == "POST"]
            assert asked == ["/v1.41/containers/create"]

    run(call)


def test_a_question_on_a_connection_that_has_grown_stale_is_asked_again(
    run: Any, fake_daemon: Any
) -> None:
    served: list[str] = []

    async def once_a_connection(request: Any, stream: ByteStream) -> None:
        served.append(request.target)
        if len(served) == 2:
            await stream.aclose()  # as it is used again: the race that no look can exclude
        else:
            await stream.send(answer("200 OK", b"[]"))

    async def call() -> None:
        async with fake_daemon(once_a_connection) as (daemon, docker):
            await docker.containers.list()
            assert await docker.containers.list() == []
            assert len(served) == 3
            assert daemon.connections == 2

    run(call)


def test_a_connection_that_the_daemon_has_closed_is_not_used_again(
    run: Any, fake_daemon: Any
) -> None:
    async def call() -> None:
        async with fake_daemon(sending(answer("201 Created", b'{"Id": "a"}'))) as (daemon, docker):
            await docker.containers.create({})
            assert daemon.connections == 1
            transport = docker._http._transport
            await daemon.hang_up()
            while transport._idle[-1].is_usable():
                await anyio.lowlevel.checkpoint()
            await docker.containers.create({})
            assert daemon.connections == 2

    run(call)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n[1, 2",
        CHUNKED + chunk(b"[1, 2"),
        CHUNKED + b"64\r\n[1, 2",
    ],
)
def test_an_answer_that_ends_early_is_not_taken_for_whole(
    run: Any, fake_daemon: Any, data: bytes
) -> None:
    async def call() -> None:
        async with fake_daemon(sending(data, hang_up=True)) as (daemon, docker):
            with pytest.raises(DockerStreamTruncated, match=r"POST /containers/prune.*ended early"):
                await docker.containers.prune()
            with pytest.raises(DockerStreamTruncated):
                await docker.containers.list()
            assert (
                daemon.connections == 2
            )  # a broken one is not used again, nor is the answer asked again

    run(call)


@pytest.mark.parametrize("cut", [4, 8, 10])
def test_a_log_that_ends_inside_a_frame_is_a_truncation(
    run: Any, fake_daemon: Any, cut: int
) -> None:
    frames = struct.pack(">BxxxL", 1, 5) + b"whole"
    part = (struct.pack(">BxxxL", 1, 5) + b"brok")[:cut]

    async def call() -> None:
        data = CHUNKED + chunk(frames + part) + END
        async with fake_daemon(sending(data)) as (_, docker):
            container = docker.containers.container("x", Config={"Tty": False})
            async with container.output() as output:
                assert await output.read_out() == Message(1, b"whole")
                with pytest.raises(DockerStreamTruncated, match="short of a whole frame"):
                    await output.read_out()

    run(call)


def test_a_log_whose_daemon_dies_between_frames_is_a_truncation_too(
    run: Any, fake_daemon: Any
) -> None:
    async def call() -> None:
        data = CHUNKED + chunk(struct.pack(">BxxxL", 2, 3) + b"one")
        async with fake_daemon(sending(data, hang_up=True)) as (_, docker):
            container = docker.containers.container("x", Config={"Tty": False})
            async with container.output() as output:
                assert await output.read_out() == Message(2, b"one")
                with pytest.raises(DockerStreamTruncated):
                    await output.read_out()

    run(call)


@pytest.mark.parametrize("cut", [3, 11])
def test_an_attached_output_that_ends_inside_a_frame_is_a_truncation(
    run: Any, fake_daemon: Any, cut: int
) -> None:
    data = (struct.pack(">BxxxL", 1, 5) + b"hello")[:cut]

    async def call() -> None:
        async with fake_daemon(sending(UPGRADED + data, hang_up=True)) as (daemon, docker):
            container = docker.containers.container("x", Config={"Tty": False})
            async with container.attach(stdout=True) as stream:
                with pytest.raises(DockerStreamTruncated):
                    await stream.read_out()
            request = daemon.requests[-1]
            assert (request.headers["upgrade"], request.headers["connection"]) == ("tcp", "Upgrade")

    run(call)


async def write_for_ever(stream: Stream) -> None:
    while True:
        await stream.write_in(b"x" * 65536)


def test_a_reset_connection_is_lost_wherever_it_happens(run: Any, tcp: Any) -> None:
    async def handler(stream: ByteStream) -> None:
        async with stream:
            request = await stream.receive()
            if b"attach" in request:
                await stream.send(UPGRADED + struct.pack(">BxxxL", 1, 2) + b"ok")
                await stream.receive()
            await reset(None, stream)

    async def call() -> None:
        async with (
            tcp(handler) as port,
            Docker(f"tcp://127.0.0.1:{port}", api_version="v1.41") as docker,
        ):
            with pytest.raises(DockerConnectionLost):
                await docker.containers.create({})
            container = docker.containers.container("x", Config={"Tty": False})
            async with container.attach(stdout=True, stdin=True) as stream:
                assert await stream.read_out() == Message(1, b"ok")
                await stream.write_in(b"go")
                with pytest.raises(DockerConnectionLost):
                    await stream.read_out()
                with pytest.raises(DockerConnectionLost):
                    await write_for_ever(stream)

    run(call)


def test_an_error_in_a_stream_that_began_well_is_raised_where_it_stands(
    run: Any, fake_daemon: Any
) -> None:
    lines = (
        b'{"status":"Pulling"}\r\n'
        b'{"errorDetail":{"code":1,"message":"toomanyrequests"},"error":"toomanyrequests"}\r\n'
    )

    async def call() -> None:
        async with fake_daemon(sending(CHUNKED + chunk(lines[:30]) + chunk(lines[30:]) + END)) as (
            _,
            docker,
        ):
            with pytest.raises(DockerStreamError, match="toomanyrequests") as caught:
                await docker.images.pull("r/x:1")
            assert caught.value.error_detail == {"code": 1, "message": "toomanyrequests"}
            assert caught.value.status == 0
            items = docker.images.push("r/x:1", stream=True)
            assert await anext(items) == {"status": "Pulling"}
            with pytest.raises(DockerStreamError):
                await anext(items)
            with pytest.raises(StopAsyncIteration):
                await anext(items)

    run(call)


def test_a_stream_that_is_no_json_is_no_docker_engines(run: Any, fake_daemon: Any) -> None:
    async def call() -> None:
        async with fake_daemon(sending(CHUNKED + chunk(b"<html>\n") + END)) as (_, docker):
            with pytest.raises(DockerError, match="is no Docker Engine"):
                await docker.images.pull("r/x:1")

    run(call)


def test_a_proxy_that_does_not_upgrade_is_named(run: Any, fake_daemon: Any) -> None:
    async def call() -> None:
        async with fake_daemon(sending(answer("200 OK", b"{}"))) as (_, docker):
            container = docker.containers.container("x", Config={"Tty": False})
            with pytest.raises(DockerError, match="does not let connections be upgraded"):
                await container.attach(stdout=True).read_out()

    run(call)


def test_an_upload_that_is_refused_on_the_way_says_why(run: Any, tcp: Any) -> None:
    sent = 0

    async def handler(stream: ByteStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(answer("404 Not Found", b'{"message": "no such path"}'))
            raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)
            raw.shutdown(socket.SHUT_RDWR)

    async def endless() -> AsyncGenerator[bytes, None]:
        nonlocal sent
        while True:
            sent += 65536
            yield b"x" * 65536

    async def call() -> None:
        async with (
            tcp(handler) as port,
            Docker(f"tcp://127.0.0.1:{port}", api_version="v1.41") as docker,
        ):
            container = docker.containers.container("x")
            upload = endless()
            with pytest.raises((DockerNotFound, DockerConnectionLost)):
                await container.put_archive("/nowhere", upload)
            await upload.aclose()
            assert sent < 64 << 20

    run(call)


def test_an_upload_whose_source_fails_fails_with_its_error(run: Any, fake_daemon: Any) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"begin"
        raise ZeroDivisionError

    async def call() -> None:
        async with fake_daemon(hang) as (daemon, docker):
            with pytest.raises(ZeroDivisionError):
                await docker.containers.container("x").put_archive("/", failing())
            assert docker._http._transport._idle == []
            assert daemon.connections == 1

    run(call)


@pytest.mark.parametrize("data", ["text", 5, [b"x"]])
def test_what_cannot_be_sent_is_refused_before_anything_is(
    run: Any, fake_daemon: Any, data: Any
) -> None:
    async def call() -> None:
        async with fake_daemon(hang) as (daemon, docker):
            with pytest.raises(TypeError, match="bytes, an open file or an async iterable"):
                await docker.containers.container("x").put_archive("/", data)
            assert [r.target for r in daemon.requests] == ["/version"]

    run(call)


# Slow daemons and cancelled calls


def test_the_callers_scope_ends_a_call_that_is_not_answered(run: Any, fake_daemon: Any) -> None:
    async def call() -> None:
        async with fake_daemon(hang) as (daemon, docker):
            await docker.version()
            for _ in range(3):
                with anyio.move_on_after(0.01) as scope:
                    await docker.containers.container("x").wait()
                assert scope.cancelled_caught
            assert await docker.version()
            await wait_until(lambda: daemon.open == 1)

    run(call)


def test_a_timeout_that_is_given_counts_for_the_whole_call(run: Any, fake_daemon: Any) -> None:
    class ClientTimeout:
        total = 0.02

    async def slow(request: Any, stream: ByteStream) -> None:
        if "archive" in request.target:
            await stream.send(CHUNKED)
            while True:
                await stream.send(chunk(b" "))
                await anyio.sleep(0.001)
        await hang(request, stream)

    async def call() -> None:
        async with fake_daemon(slow) as (_, docker):
            container = docker.containers.container("x", Config={"Tty": False})
            for timeout in (0.01, ClientTimeout()):
                with pytest.raises(TimeoutError):
                    await container.wait(timeout=timeout)
                with pytest.raises(TimeoutError):
                    await container.log(stdout=True, timeout=timeout)
                with pytest.raises(TimeoutError):
                    await docker.images.pull("r/x:1", timeout=timeout)
                with pytest.raises(TimeoutError):
                    await container.attach(timeout=timeout).read_out()
            short = Docker(docker.docker_host, timeout=0.02, api_version="v1.41")
            async with short:
                with pytest.raises(TimeoutError):
                    await short.containers.list()
                with pytest.raises(TimeoutError):
                    await short._http.call("GET", "archive")
                with anyio.move_on_after(
                    0.1
                ) as scope:  # long by nature: the client's does not count
                    await short.containers.container("x").wait()
                assert scope.cancelled_caught

    run(call)


async def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for happens in the kernel
        await anyio.sleep(0.001)


def test_wherever_a_call_is_cancelled_the_client_stays_usable(run: Any, fake_daemon: Any) -> None:
    async def dribble(request: Any, stream: ByteStream) -> None:
        """An answer byte by byte, so that a call can be cancelled at each of them."""
        data = CHUNKED + chunk(b'{"StatusCode"') + chunk(b": 0}") + END
        for at in range(len(data)):
            await stream.send(data[at : at + 1])
            await anyio.lowlevel.checkpoint()

    async def call() -> None:
        async with fake_daemon(dribble) as (daemon, docker):
            container = docker.containers.container("x")
            ended = cancelled = 0
            for checkpoints in range(0, 400, 3):
                with anyio.CancelScope() as scope:
                    async with anyio.create_task_group() as tasks:

                        async def cancel_later(count: int, scope: anyio.CancelScope) -> None:
                            for _ in range(count):
                                await anyio.lowlevel.checkpoint()
                            scope.cancel()

                        tasks.start_soon(cancel_later, checkpoints, scope)
                        assert (await container.wait())["StatusCode"] == 0
                        ended += 1
                        tasks.cancel_scope.cancel()
                cancelled += scope.cancelled_caught
                assert len(docker._http._transport._open) <= 1
            assert (await container.wait())["StatusCode"] == 0
            assert cancelled > 10
            await wait_until(lambda: daemon.open == 1)

    run(call)


def test_a_read_that_is_cancelled_loses_nothing(run: Any, fake_daemon: Any) -> None:
    words = [f"{number:05}".encode() for number in range(200)]

    async def dribble(_: Any, stream: ByteStream) -> None:
        raw = b"".join(struct.pack(">BxxxL", 1, len(word)) + word for word in words)
        await stream.send(UPGRADED)
        for at in range(0, len(raw), 7):
            await stream.send(raw[at : at + 7])
            await anyio.lowlevel.checkpoint()
        await stream.aclose()

    async def call() -> None:
        async with fake_daemon(dribble) as (_, docker):
            container = docker.containers.container("x", Config={"Tty": False})
            seen: list[bytes] = []
            cancelled = 0
            async with container.output(logs=False) as output:
                ended = False
                while not ended:
                    with anyio.CancelScope() as scope:
                        if not cancelled or len(seen) % 2:
                            scope.cancel()
                        message = await output.read_out()
                        ended = message is None
                        seen += [message.data] if message else []
                        continue
                    cancelled += 1
                    message = await output.read_out()
                    ended = message is None
                    seen += [message.data] if message else []
            assert cancelled
            assert seen == words

    run(call)


def test_a_loop_inside_an_entered_output_can_be_cancelled_and_go_on(
    run: Any, fake_daemon: Any
) -> None:
    said = anyio.Event()

    async def pause(_: Any, stream: ByteStream) -> None:
        await stream.send(UPGRADED + struct.pack(">BxxxL", 1, 1) + b"a")
        await said.wait()
        await stream.send(struct.pack(">BxxxL", 1, 1) + b"b")
        await stream.aclose()

    async def call() -> None:
        nonlocal said
        said = anyio.Event()
        async with fake_daemon(pause) as (_, docker):
            container = docker.containers.container("x", Config={"Tty": False})
            async with container.output(logs=False) as output:
                seen = []
                with anyio.move_on_after(0.01) as scope:
                    async for message in output:
                        seen.append(message.data)  # noqa: PERF401 - cancelled in the middle
                assert scope.cancelled_caught
                said.set()
                seen += [message.data async for message in output]
                assert seen == [b"a", b"b"]

    run(call)


def test_a_plain_loop_that_is_cancelled_lets_go_of_its_connection(
    run: Any, fake_daemon: Any
) -> None:
    async def silent(request: Any, stream: ByteStream) -> None:
        await stream.send(UPGRADED if "attach" in request.target else CHUNKED)
        await hang(request, stream)

    async def call() -> None:
        async with fake_daemon(silent) as (daemon, docker):
            container = docker.containers.container("x", Config={"Tty": False})
            for source in (
                container.output(logs=False),
                container.output(),
                container.log(stdout=True, follow=True),
                container.stats(),
                docker.images.pull("r/x:1", stream=True),
            ):
                with anyio.move_on_after(0.05) as scope:
                    async for _ in source:
                        pass
                assert scope.cancelled_caught
                await wait_until(lambda: daemon.open == 0)
                assert [item async for item in source] == []

    run(call)


def test_closing_the_client_ends_the_calls_of_other_tasks(run: Any, fake_daemon: Any) -> None:
    ended: list[type[BaseException]] = []

    async def wait(docker: Docker) -> None:
        try:
            await docker.containers.container("x").wait()
        except DockerError as error:
            ended.append(type(error))

    async def call() -> None:
        async with fake_daemon(hang) as (daemon, docker):
            await docker.version()
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(wait, docker)
                await wait_until(lambda: len(daemon.requests) >= 7)
                await docker.close()
            assert ended == [DockerConnectionLost] * 5
            await wait_until(lambda: daemon.open == 0)
            await docker.close()
            with pytest.raises(RuntimeError, match="this Docker client is closed"):
                await docker.containers.list()

    run(call)


def test_a_connection_that_is_made_as_the_client_closes_is_closed_too(
    run: Any, tcp: Any, certificates: Any
) -> None:
    async def ping(docker: Docker) -> None:
        with pytest.raises(DockerConnectionLost, match="closed by this client"):
            await docker.ping()

    async def call() -> None:
        accepted, closed, ended = anyio.Event(), anyio.Event(), anyio.Event()

        async def handler(stream: ByteStream) -> None:
            accepted.set()
            await closed.wait()
            context = certificates.server_context()
            async with stream:
                tls = await anyio.streams.tls.TLSStream.wrap(
                    stream, server_side=True, ssl_context=context, standard_compatible=False
                )
                with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                    await tls.receive()
            ended.set()

        client = certificates.client_context()
        async with (
            tcp(handler) as port,
            Docker(f"https://127.0.0.1:{port}", ssl_context=client) as docker,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(ping, docker)
            await accepted.wait()
            await docker.close()
            closed.set()
            await ended.wait()

    run(call)


def test_a_stream_that_nobody_holds_lets_go_of_its_connection(run: Any, fake_daemon: Any) -> None:
    async def endless(_: Any, stream: ByteStream) -> None:
        await stream.send(CHUNKED)
        while True:
            await stream.send(chunk(b'{"a": 1}\n'))

    async def call() -> None:
        async with fake_daemon(endless) as (daemon, docker):
            async for item in docker.containers.container("x").stats():
                assert item == {"a": 1}
                break
            await wait_until(lambda: daemon.open == 0)

    run(call)


def test_an_attached_stream_that_is_forgotten_is_warned_of(run: Any, fake_daemon: Any) -> None:
    async def call() -> None:
        async with fake_daemon(sending(UPGRADED)) as (daemon, docker):
            stream = docker.containers.container("x", Config={"Tty": True}).attach(stdin=True)
            await stream.write_in(b"x")
            with pytest.warns(ResourceWarning, match="unclosed"):
                del stream
            await wait_until(lambda: daemon.open == 0)

    run(call)


# Idle connections


def test_a_burst_leaves_no_more_idle_connections_than_are_of_use(
    run: Any, fake_daemon: Any
) -> None:
    count = MOST_IDLE + 20
    arrived = 0

    async def together(_: Any, stream: ByteStream) -> None:
        nonlocal arrived
        arrived += 1
        await wait_until(lambda: arrived >= count)
        await stream.send(answer("200 OK", b'{"StatusCode": 0}'))

    async def call() -> None:
        nonlocal arrived
        arrived = 0
        async with fake_daemon(together) as (daemon, docker):
            async with anyio.create_task_group() as tasks:
                for _ in range(count):
                    tasks.start_soon(docker.containers.container("x").wait)
            assert daemon.connections == count
            assert len(docker._http._transport._idle) == MOST_IDLE
            await wait_until(lambda: daemon.open == MOST_IDLE)

    run(call)


def test_an_old_idle_tcp_connection_is_not_trusted(
    run: Any, tcp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = 0

    async def handler(stream: ByteStream) -> None:
        nonlocal connections
        connections += 1
        async with stream:
            async for _ in stream:
                await stream.send(answer("200 OK", b"OK", "text/plain"))

    async def call() -> None:
        nonlocal connections
        connections = 0
        async with tcp(handler) as port, Docker(f"tcp://127.0.0.1:{port}") as docker:
            assert await docker.ping() == "OK"
            assert await docker.ping() == "OK"
            assert connections == 1
            raw = docker._http._transport._idle[0]._raw
            assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
            docker._http._transport._idle[0].idle_since -= IDLE_SECONDS + 1
            await docker.ping()
            assert connections == 2
            assert len(docker._http._transport._open) == 1

    run(call)


# TLS


def test_tls_asks_for_and_shows_certificates(
    run: Any, tcp: Any, certificates: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(stream: ByteStream) -> None:
        async with stream:
            async for _ in stream:
                await stream.send(answer("200 OK", b"OK", "text/plain"))

    async def call() -> None:
        async with tcp(handler, certificates.server_context()) as port:
            async with Docker(
                f"https://127.0.0.1:{port}", ssl_context=certificates.client_context()
            ) as docker:
                assert await docker.ping() == "OK"
            monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
            monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates.folder))
            async with Docker(f"tcp://127.0.0.1:{port}") as docker:
                assert [await docker.ping() for _ in range(3)] == ["OK"] * 3

    run(call)


def test_a_daemon_whose_certificate_nobody_vouches_for_is_not_spoken_to(
    run: Any, tcp: Any, certificates: Any
) -> None:
    received: list[bytes] = []

    async def handler(stream: ByteStream) -> None:
        async with stream:
            received.append(await stream.receive())

    async def call() -> None:
        async with (
            tcp(handler, certificates.server_context()) as port,
            Docker(f"https://127.0.0.1:{port}") as docker,
        ):
            with pytest.raises(
                DockerUnreachable, match=r"CERTIFICATE_VERIFY_FAILED.*DOCKER_CERT_PATH"
            ):
                await docker.ping()
        assert received == []

    run(call)


def test_a_handshake_that_is_cancelled_leaves_no_socket(
    run: Any, tcp: Any, certificates: Any
) -> None:
    open_now = 0

    async def silent(stream: ByteStream) -> None:
        nonlocal open_now
        open_now += 1
        async with stream:
            async for _ in stream:
                pass
        open_now -= 1

    async def call() -> None:
        async with (
            tcp(silent) as port,
            Docker(
                f"https://127.0.0.1:{port}", ssl_context=certificates.client_context()
            ) as docker,
        ):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(docker.ping)
                await wait_until(lambda: open_now == 1)
                tasks.cancel_scope.cancel()
            await wait_until(lambda: open_now == 0)

    run(call)


@pytest.mark.parametrize("polite", [True, False])
def test_over_tls_an_end_and_a_cut_line_are_told_apart(
    run: Any, tcp: Any, certificates: Any, polite: bool
) -> None:
    async def handler(stream: Any) -> None:
        await stream.receive()
        await stream.send(UPGRADED + struct.pack(">BxxxL", 1, 2) + b"ok")
        if polite:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):  # it waits for our goodbye
                await stream.unwrap()
        await stream.transport_stream.aclose()

    async def call() -> None:
        async with (
            tcp(handler, certificates.server_context()) as port,
            Docker(
                f"https://127.0.0.1:{port}",
                ssl_context=certificates.client_context(),
                api_version="v1.41",
            ) as docker,
        ):
            container = docker.containers.container("x", Config={"Tty": False})
            async with container.attach(stdout=True) as stream:
                assert await stream.read_out() == Message(1, b"ok")
                if polite:
                    assert await stream.read_out() is None
                else:
                    with pytest.raises(DockerConnectionLost):
                        await stream.read_out()

    run(call)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_over_tls_nothing_is_lost_of_what_had_come_before_the_half_close(
    run: Any, tcp: Any, certificates: Any, version: ssl.TLSVersion
) -> None:
    first = bytes(range(256)) * 200
    context = certificates.client_context()
    context.minimum_version = context.maximum_version = version

    async def handler(stream: ByteStream) -> None:
        async with stream:
            await stream.send(first)
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
            await stream.send(b"and goodbye")

    async def call() -> None:
        async with (
            tcp(handler, certificates.server_context()) as port,
            await anyio.connect_tcp("127.0.0.1", port) as transport,
        ):
            stream = TLSStream(transport, context, "127.0.0.1")
            await stream.handshake()
            received = await stream.receive(10)  # most of it is decrypted by now, or could be
            await stream.send_eof()
            while len(received) < len(first) + len(b"and goodbye"):
                received += await stream.receive(1000)
            assert received == first + b"and goodbye"

    run(call)


def test_a_client_without_a_certificate_is_told_so(run: Any, tcp: Any, certificates: Any) -> None:
    async def handler(stream: ByteStream) -> None:
        async with stream:
            await stream.receive()

    async def call() -> None:
        stranger = ssl.create_default_context(cafile=certificates.folder / "ca.pem")
        async with (
            tcp(handler, certificates.server_context()) as port,
            Docker(f"https://127.0.0.1:{port}", ssl_context=stranger) as docker,
        ):
            with pytest.raises(DockerError) as caught:
                await docker.ping()
            assert caught.value.status == 900

    run(call)


# Events


def test_one_event_answers_all_who_wait_for_it(run: Any, fake_daemon: Any) -> None:
    async def one(request: Any, stream: ByteStream) -> None:
        await stream.send(CHUNKED + chunk(b'{"Action": "start"}\n'))
        await hang(request, stream)

    async def call() -> None:
        async with fake_daemon(one) as (daemon, docker):
            seen: list[str] = []

            async def read(subscriber: Any) -> None:
                seen.append((await subscriber.get())["Action"])

            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(read, docker.events.subscribe())
            assert seen == ["start"] * 3
            assert [r.target.partition("?")[0] for r in daemon.requests[1:]] == ["/v1.41/events"]

    run(call)


def test_events_whose_daemon_goes_are_an_error_to_every_subscriber(
    run: Any, fake_daemon: Any
) -> None:
    async def call() -> None:
        data = CHUNKED + chunk(b'{"Action": "start", "time": 5}\n')
        async with fake_daemon(sending(data, hang_up=True)) as (_, docker):
            subscribers = [docker.events.subscribe() for _ in range(2)]
            for subscriber in subscribers:
                assert (await subscriber.get())["Action"] == "start"
            for subscriber in subscribers:
                with pytest.raises(DockerStreamTruncated):
                    await subscriber.get()
                assert await subscriber.get() is None

    run(call)
