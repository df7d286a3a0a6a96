"""GELF listeners by themselves, on real sockets."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from vaka import gelf
from vaka.actors.listeners import Transport, bound, listener
from vaka.errors import ApplicationError

HOME = "127.0.0.1"
ANY = range(20_000, 60_000)
PATIENCE = 30.0


class Heard:
    """Takes messages, once it is let."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.may = trio.Event()

    async def take(self, message: bytes | gelf.Unreadable) -> None:
        await self.may.wait()
        self.messages.append(message if isinstance(message, bytes) else str(message).encode())


async def test_datagrams_that_there_was_no_room_for_are_counted() -> None:
    heard = Heard()
    sent = 12_000
    with trio.fail_after(PATIENCE):
        async with listener("udp", HOME, ANY, heard.take) as server:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for _ in range(sent):
                    sender.sendto(b"x" * 1_000, (HOME, server.port))
            heard.may.set()
            lost = await server.drain()
    assert lost > 0
    assert len(heard.messages) + lost == sent


@pytest.mark.parametrize("transport", ["tcp", "http"])
async def test_who_sends_too_fast_waits_and_loses_nothing(transport: Transport) -> None:
    heard = Heard()
    message = b"x" * 1_000
    frame = message + b"\0"
    if transport == "http":
        frame = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n" + message
    count = 20_000

    async def send(port: int) -> None:
        stream = await trio.open_tcp_stream(HOME, port)
        async with stream, trio.open_nursery() as reading:
            reading.start_soon(swallow, stream)
            await stream.send_all(frame * count)
            await stream.send_eof()

    with trio.fail_after(PATIENCE):
        async with listener(transport, HOME, ANY, heard.take) as server:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, server.port)
                await trio.testing.wait_all_tasks_blocked(0.1)
                assert heard.messages == []
                heard.may.set()
            assert await server.drain() == 0
    assert heard.messages == [message] * count


async def swallow(stream: trio.SocketStream) -> None:
    async for _ in stream:
        pass


async def test_what_the_block_raises_comes_bare_and_the_port_is_closed() -> None:
    ports: list[int] = []

    async def fail() -> None:
        async with listener("tcp", HOME, ANY, Heard().take) as server:
            ports.append(server.port)
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    (port,) = ports
    (await bound("tcp", HOME, range(port, port + 1))).close()


async def test_cancelling_closes_the_port() -> None:
    with trio.CancelScope() as scope:
        async with listener("tcp", HOME, ANY, Heard().take) as server:
            port = server.port
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    (await bound("tcp", HOME, range(port, port + 1))).close()


async def test_a_port_in_use_is_passed_over_and_none_free_is_an_error() -> None:
    first = await bound("tcp", HOME, ANY)
    port = first.getsockname()[1]
    with first:
        with pytest.raises(ApplicationError, match="Failed to start server"):
            await bound("tcp", HOME, range(port, port + 1))
        (await bound("udp", HOME, range(port, port + 1))).close()  # another protocol
        (await bound("tcp", HOME, range(port, port + 9))).close()
