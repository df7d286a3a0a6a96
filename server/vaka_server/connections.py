"""How many connections clients may hold, so that who opens many keeps nobody else from being served.

Beside that bound each connection has others: one without a request, or whose request's head does not
come whole, is closed after `serve.KEEP_ALIVE` seconds; a body has to come at the pace that `body.Body`
asks for; and an answer that nobody takes is given up after `UNREAD` seconds, by the kernel.
"""

from __future__ import annotations

import logging
import resource
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, Updated
from hypercorn.trio import run as hypercorn_run
from hypercorn.trio import tcp_server

log = logging.getLogger(__name__)

MOST = 4_096
"""Connections at a time. One that waits costs about 30 kB."""
SHARE = 2
"""One address has at most one in so many of them, unless it is a proxy that is trusted."""
UNREAD = 600
"""Seconds for which a client may take nothing of what is sent to it: longer than a pause."""


class Connections:
    """Counts the connections of each address."""

    def __init__(self, most: int, is_proxy: Callable[[str], bool]) -> None:
        self._most = most
        self._is_proxy = is_proxy
        self._count: Counter[str] = Counter()

    @contextmanager
    def room(self, address: str) -> Iterator[bool]:
        """Whether there is room for one more of an address, which is counted within."""
        most = self._most if self._is_proxy(address) else self._most // SHARE
        if self._count[address] >= most or self._count.total() >= self._most:
            yield False
            return
        self._count[address] += 1
        try:
            yield True
        finally:
            self._count[address] -= 1
            if not self._count[address]:
                del self._count[address]


class BoundedConfig(Config):
    """hypercorn's settings, with the connections that are there."""

    connections: Connections


class BoundedServer(tcp_server.TCPServer):
    """hypercorn's server of one connection; closes it at once when there is no room for it.

    What fails in it ends this connection only. hypercorn lets it through to the task that all share: one
    broken chunk of a body, from a client without a token, would end the process.

    A connection that the client has left is over as soon as what it asked for is. hypercorn waits as
    long as for the next request of one that is there, and clients that make a connection for every
    request would soon have as many as they may.
    """

    _is_left = False

    async def _read_data(self) -> None:
        await super()._read_data()
        self._is_left = True
        await self.idle_task.stop()

    async def protocol_send(self, event: Event) -> None:
        if self._is_left and isinstance(event, Updated):
            return  # there is no next request to wait for
        try:
            await super().protocol_send(event)
        except trio.BusyResourceError:  # it is being closed, for what came was no HTTP
            await self.protocol.handle(Closed())

    async def run(self) -> None:
        try:
            await self._run()
        except* Exception as group:  # noqa: BLE001 - a connection's boundary
            errors = [repr(error)[:500] for error in group.exceptions]
            log.info("connection.failed", extra={"errors": errors})

    async def _run(self) -> None:
        stream = getattr(self.stream, "transport_stream", self.stream)
        try:
            address = str(stream.socket.getpeername()[0])
        except OSError:  # the client has gone already
            await stream.aclose()
            return
        if not isinstance(self.config, BoundedConfig):
            await super().run()
            return
        with self.config.connections.room(address) as is_there:
            if is_there:
                await super().run()
            else:
                await stream.aclose()


def prepare() -> int:
    """Have this process's servers bounded; how many connections its descriptors are enough for."""
    hypercorn_run.TCPServer = BoundedServer  # type: ignore[attr-defined]  # it has no setting for that
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * MOST
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MOST if soft == resource.RLIM_INFINITY else min(MOST, soft // 2)


def give_up_unread(listener: socket.socket) -> None:
    """Have the kernel break connections of this listener whose client takes nothing for too long."""
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD * 1_000)
