"""Clients that hold what others need: connections, bodies that trickle, answers that nobody takes."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
import trio
from hypercorn.trio import serve as serve_http
from tests.server.fakes import FakeEngine, make_app
from trio.testing import MockClock, wait_all_tasks_blocked

from vaka_server import body, connections
from vaka_server.access import Access
from vaka_server.app import App
from vaka_server.problems import Refused
from vaka_server.route import Call, Response, Route
from vaka_server.serve import hypercorn_config, listen
from vaka_server.settings import Settings

ASK = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def app(tmp_path: Path) -> App:
    return make_app(FakeEngine(tmp_path))


async def serving(app: App, nursery: trio.Nursery, **options: str) -> int:
    """The port at which an application answers."""
    settings = Settings(home=app.settings.home, port=0, **options)  # type: ignore[arg-type]
    listener = listen(settings)
    port: int = listener.getsockname()[1]
    config = hypercorn_config(settings, listener)
    config.graceful_timeout = 0
    listener.close()
    await nursery.start(serve_http, app, config)
    return port


async def connect(port: int, source: str = "127.0.0.1") -> trio.SocketStream:
    client = trio.socket.socket()
    await client.bind((source, 0))
    await client.connect(("127.0.0.1", port))
    return trio.SocketStream(client)


async def is_served(stream: trio.SocketStream) -> bool:
    try:
        await stream.send_all(ASK)
        return (await stream.receive_some()).startswith(b"HTTP/1.1 200")
    except trio.BrokenResourceError:
        return False


@pytest.mark.parametrize("proxies", ["", "127.0.0.1"])
async def test_one_address_has_half_of_all_connections_unless_it_is_a_proxy(
    app: App, monkeypatch: pytest.MonkeyPatch, proxies: str
) -> None:
    monkeypatch.setattr(connections, "MOST", 8)
    async with trio.open_nursery() as nursery:
        port = await serving(app, nursery, trusted_proxies=proxies)
        async with AsyncExitStack() as stack:
            for _ in range(8 if proxies else 4):
                stream = await stack.enter_async_context(await connect(port))
                assert await is_served(stream)
            async with await connect(port) as one_more:
                assert not await is_served(one_more)
            async with await connect(port, "127.0.0.2") as other:
                assert await is_served(other) is not bool(proxies)
        nursery.cancel_scope.cancel()


async def test_who_connects_for_every_request_is_always_served(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MOST", 8)
    async with trio.open_nursery() as nursery:
        port = await serving(app, nursery)
        for _ in range(40):
            async with await connect(port) as stream:
                assert await is_served(stream)
                await wait_all_tasks_blocked(0.01)  # it waits for the next request
        nursery.cancel_scope.cancel()


async def test_a_connection_that_ends_makes_room() -> None:
    counted = connections.Connections(2, lambda _: False)
    for _ in range(3):
        with counted.room("a") as is_there:
            assert is_there
            with counted.room("a") as is_there_too:
                assert not is_there_too
    with counted.room("a"), counted.room("b") as is_there, counted.room("c") as is_third:
        assert is_there
        assert not is_third


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /docker/C/run HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /docker/C/run HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"F" * 99,
        b"POST /docker/C/run HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n{}" + ASK * 9,
        b"\x16\x03\x01" * 99,
    ],
)
async def test_a_broken_request_ends_its_connection_and_nothing_else(app: App, sent: bytes) -> None:
    async with trio.open_nursery() as nursery:
        port = await serving(app, nursery)
        for _ in range(5):
            async with await connect(port) as broken:
                await broken.send_all(sent)
                await broken.send_eof()
                with trio.move_on_after(1), suppress(trio.BrokenResourceError):
                    while await broken.receive_some():
                        pass
            async with await connect(port) as other:
                assert await is_served(other)
        nursery.cancel_scope.cancel()


async def test_a_websocket_is_refused(app: App) -> None:
    wanted = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    async with trio.open_nursery() as nursery:
        port = await serving(app, nursery)
        async with await connect(port) as stream:
            await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + wanted + key)
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 403")
        nursery.cancel_scope.cancel()


async def test_a_body_that_trickles_is_given_up(autojump_clock: MockClock) -> None:
    incoming = body.Body(None, None)

    async def trickle() -> None:
        while True:
            await trio.sleep(1)
            incoming.append(b"x")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trickle)
        with pytest.raises(Refused, match="less than 1024 bytes a second") as caught:
            await incoming.read(1 << 20)
        nursery.cancel_scope.cancel()
    assert caught.value.status == 408
    assert body.SILENCE - 1 < trio.current_time() < body.SILENCE + 2


async def test_a_body_that_comes_slowly_but_steadily_is_taken(autojump_clock: MockClock) -> None:
    incoming = body.Body(None, None)

    async def send() -> None:
        for _ in range(10):
            await trio.sleep(body.SILENCE - 1)
            incoming.append(bytes(int(body.SILENCE) * body.LEAST_RATE))
        incoming.set_complete()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        content = await incoming.read(1 << 30)
    assert len(content) == 10 * body.SILENCE * body.LEAST_RATE


async def test_an_answer_that_nobody_takes_is_given_up(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "UNREAD", 1)
    ended = trio.Event()

    async def endless(call: Call) -> Response:
        async def content() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield bytes(1 << 20)
            finally:
                ended.set()

        return Response(content(), 200)

    app.add_routes([Route("GET", "/endless", Access.PUBLIC, endless, "endless")])
    async with trio.open_nursery() as nursery:
        port = await serving(app, nursery)
        client = trio.socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await client.connect(("127.0.0.1", port))
        async with trio.SocketStream(client) as stream:
            await stream.send_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
            with trio.fail_after(60):
                await ended.wait()
        nursery.cancel_scope.cancel()
