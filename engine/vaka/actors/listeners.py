"""GELF listeners: where a component that logs by GELF sends its messages.

There is one for each container, on the host's address in the container's network, so that who else
may reach it is only who shares that network. What comes is data of an untrusted program: everything
that waits is bounded, and what cannot be read becomes a record of that, never an error of the job.

A listener is gone when its engine is killed, and the container goes on. The engine that takes the job
over listens on the same port again; what was sent meanwhile is lost, and it says so.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import h11
import trio

from vaka import gelf
from vaka._supervision import leaves
from vaka.actors.services import Services
from vaka.errors import ApplicationError
from vaka.models.container import ContainerPhase, ContainerSpec
from vaka.models.event import Level

log = logging.getLogger(__name__)

Transport = Literal["tcp", "udp", "http"]
Handler = Callable[[bytes | gelf.Unreadable], Awaitable[None]]
Note = Callable[[Level, str], Awaitable[None]]
LABEL_GELF = "vaka.gelf"
"""Address and port that a container was told."""

ATTEMPTS = 10
"""Ports that are tried."""
READ = 1 << 16
MOST_CONNECTIONS = 64
"""Connections at a time; a logger needs one, or one a thread. One more waits for a place, or is shut."""
CROWDED = 0.2
"""Seconds that a connection waits for a place."""
MOST_HEAD = 1 << 14
"""Bytes of the head of an HTTP request."""
DATAGRAM_BUFFER = 4 << 20
"""Bytes of datagrams that the kernel is asked to keep while the last ones are stored."""
QUIET = 0.5
"""Seconds without anything new after which a listener whose container has ended is done."""
PAUSE = 0.02
DRAIN_TIMEOUT = 30.0
"""Seconds that storing what came may take after the container's end."""
SOCKETS = Path("/proc/self/net/udp")


async def bound(transport: Transport, address: str, ports: range) -> trio.socket.SocketType:
    """A socket at `address`, at one of `ports` chosen by chance.

    Raises:
        ApplicationError: none of the ports tried is free, or there is no such address here.
    """
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    tried = random.sample(ports, min(ATTEMPTS, len(ports)))
    reason = "no port may be used"
    for port in tried:
        made = trio.socket.socket(socket.AF_INET, kind)
        try:
            if transport == "udp":
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DATAGRAM_BUFFER)
            else:
                # the port of an earlier container is free as soon as its listener is closed
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            await made.bind((address, port))
            if transport != "udp":
                made.listen(MOST_CONNECTIONS)
        except OSError as error:
            made.close()
            reason = str(error.strerror)
            if error.errno != errno.EADDRINUSE:
                break
        except BaseException:
            made.close()
            raise
        else:
            return made
    raise ApplicationError(
        f"Failed to start server for GELF messages ({transport}) at {address}, ports {tried}: "
        f"{reason}. If the engine does not run on the host of its containers, set gelf_address to "
        "the address at which they reach it."
    )


class Listener:
    """Takes messages off one socket until it is drained."""

    def __init__(
        self, transport: Transport, listening: trio.socket.SocketType, handle: Handler
    ) -> None:
        self._transport = transport
        self._socket = listening
        self._handle = handle
        self._places = trio.Semaphore(MOST_CONNECTIONS)
        self.refused = 0
        """Connections that were closed because there was no place for them."""
        self._handling = 0
        self._last = trio.current_time()
        self._news = select.poll()
        self._news.register(listening.fileno(), select.POLLIN)
        self._tails: set[gelf.Frames] = set()
        self._datagrams = gelf.Datagrams()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._socket.getsockname()[1])

    async def run(self) -> None:
        """Take what comes. Ends by being cancelled."""
        if self._transport == "udp":
            await self._take_datagrams()
        else:
            await self._accept()

    async def drain(self) -> int:
        """Take what is under way of a container that has ended; how many messages are lost."""
        looks = 0
        with trio.move_on_after(DRAIN_TIMEOUT) as patience:
            # two looks: between them, what the kernel has just got comes to us
            while looks < 2 and (self._handling or trio.current_time() - self._last < QUIET):
                is_open = self._places.value < MOST_CONNECTIONS
                settled = not (self._handling or is_open or self._news.poll(0))
                looks = looks + 1 if settled else 0
                await trio.sleep(PAUSE)
        if patience.cancelled_caught:
            log.warning("messages.late", extra={"seconds": DRAIN_TIMEOUT})
        for frames in list(self._tails):
            for message in frames.finish():
                await self._handle(message)
        self._datagrams.finish()
        return self._datagrams.given_up + self._dropped()

    async def _hand_on(self, message: bytes | gelf.Unreadable) -> None:
        self._handling += 1
        try:
            await self._handle(message)
        finally:
            self._handling -= 1

    def _dropped(self) -> int:
        """Datagrams that the kernel had no room for, as it tells."""
        if self._transport != "udp":
            return 0
        inode = str(os.fstat(self._socket.fileno()).st_ino)
        for line in SOCKETS.read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] == inode:
                return int(fields[-1])
        return 0

    async def _take_datagrams(self) -> None:
        while True:
            try:
                data, sender = await self._socket.recvfrom(READ)
            except OSError:
                continue  # what an earlier answer of ours would have caused; we send none
            self._last = now = trio.current_time()
            message = self._datagrams.feed(data, sender, now)
            if message is not None:
                await self._hand_on(message)

    async def _accept(self) -> None:
        async with trio.open_nursery() as connections:
            while True:
                try:
                    connection, _ = await self._socket.accept()
                except OSError as error:
                    log.warning("connection.refused", extra={"reason": str(error)})
                    await trio.sleep(PAUSE)  # most likely out of descriptors
                    continue
                self._last = trio.current_time()
                with ExitStack() as stack:
                    stack.enter_context(connection)
                    if not await self._is_room():
                        self.refused += 1
                        continue
                    stack.pop_all()  # `_serve` closes it
                connections.start_soon(self._serve, connection)

    async def _is_room(self) -> bool:
        """Take a place for a connection, where one is free in time."""
        with trio.move_on_after(CROWDED):
            await self._places.acquire()
            return True
        await trio.lowlevel.checkpoint()  # others may have been closed while all of us were late
        try:
            self._places.acquire_nowait()
        except trio.WouldBlock:
            return False
        return True

    async def _serve(self, connection: trio.socket.SocketType) -> None:
        try:
            with connection:
                if self._transport == "http":
                    await self._take_requests(connection)
                else:
                    await self._take_frames(connection)
        except OSError as error:
            log.info("connection.broken", extra={"reason": str(error)})
        finally:
            self._places.release()

    async def _take_frames(self, connection: trio.socket.SocketType) -> None:
        frames = gelf.Frames()
        self._tails.add(frames)
        try:
            while data := await self._receive(connection):
                for message in frames.feed(data):
                    await self._hand_on(message)
        except OSError as error:
            log.info("connection.broken", extra={"reason": str(error)})
        for message in frames.finish():
            await self._hand_on(message)
        self._tails.discard(frames)

    async def _take_requests(self, connection: trio.socket.SocketType) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEAD)
        while True:
            status = await self._take_request(connection, http)
            if status is None:
                return
            headers = [("Content-Length", "0"), ("Connection", "Keep-Alive")]
            if status >= 400:
                headers[1] = ("Connection", "close")
            if http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                answer = http.send(h11.Response(status_code=status, headers=headers)) or b""
                answer += http.send(h11.EndOfMessage()) or b""
                await _send(connection, answer)
            if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
                return
            http.start_next_cycle()

    async def _take_request(
        self, connection: trio.socket.SocketType, http: h11.Connection
    ) -> int | None:
        """Hand on one request's message; the status to answer, None at the end of the connection."""
        body = bytearray()
        refused: int | None = None
        while True:
            try:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    if http.they_are_waiting_for_100_continue:
                        go_on = h11.InformationalResponse(status_code=100, headers=[])
                        await _send(connection, http.send(go_on) or b"")
                    http.receive_data(await self._receive(connection))
                    continue
            except h11.RemoteProtocolError as error:
                await self._hand_on(gelf.Unreadable(f"Cannot read HTTP request: {error}."))
                return error.error_status_hint
            match event:
                case h11.Request(method=b"POST"):
                    pass
                case h11.Request():
                    refused = 405
                case h11.Data():
                    body += event.data
                    if len(body) > gelf.MESSAGE_BYTES:
                        await self._hand_on(gelf.too_long(body))
                        return 413
                case h11.EndOfMessage():
                    if refused is None:
                        await self._hand_on(bytes(body))
                    return refused or 202
                case _:
                    return None

    async def _receive(self, connection: trio.socket.SocketType) -> bytes:
        data = await connection.recv(READ)
        self._last = trio.current_time()
        return data


async def _send(connection: trio.socket.SocketType, data: bytes) -> None:
    """Send an answer, which few loggers wait for."""
    view = memoryview(data)
    while view:
        view = view[await connection.send(view) :]


@asynccontextmanager
async def listener(
    transport: Transport, address: str, ports: range, handle: Handler
) -> AsyncIterator[Listener]:
    """A listener that takes messages while the block runs. What the block raises comes bare.

    Raises:
        ApplicationError: it cannot listen.
    """
    try:
        with await bound(transport, address, ports) as listening:
            async with trio.open_nursery() as nursery:
                server = Listener(transport, listening, handle)
                nursery.start_soon(server.run)
                yield server
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        found = list(leaves(group))
        if len(found) == 1:
            raise found[0] from found[0].__cause__
        raise


@asynccontextmanager
async def heard(
    services: Services,
    spec: ContainerSpec,
    transport: Transport,
    handle: Handler,
    note: Note,
    *,
    fresh: bool = True,
    may_create: bool = True,
) -> AsyncIterator[ContainerSpec]:
    """The spec of a container that logs by GELF, told where to; listened to while the block runs.

    `fresh` says that no earlier engine can have made the container, `may_create` that none can have
    started it. One that may run keeps the address that it was told. At the block's end, what the
    container sent last is taken.

    Raises:
        ApplicationError: no listener can be started.
    """
    config, runtime = services.config, services.runtime
    ports = range(config.gelf_port_min, config.gelf_port_max + 1)
    found = None if fresh else await runtime.find(spec.name)
    if found is not None and may_create and found.phase is ContainerPhase.CREATED:
        await runtime.remove(spec.name)  # it was told of a port that another may have by now
        found = None
    if found is not None:
        address, _, port = found.labels.get(LABEL_GELF, "").rpartition(":")
        if not address:
            yield spec
            return
        ports = range(int(port), int(port) + 1)
        if found.phase is not ContainerPhase.CREATED:
            await note(
                "warn",
                "The runner was restarted: GELF messages that the component sent meanwhile are lost.",
            )
    else:
        known = await runtime.host_address(spec.network)
        if known is None:
            await note(
                "warn",
                f"The component logs by GELF and its network is {spec.network!r}, from which nothing "
                "can be reached: its log is what it prints.",
            )
            yield spec
            return
        address = config.gelf_address or known
    async with AsyncExitStack() as stack:
        try:
            server = await stack.enter_async_context(listener(transport, address, ports, handle))
        except ApplicationError as error:
            if found is None:
                raise
            await note("warn", f"Further GELF messages are lost, too: {error}")
            yield spec
            return
        yield replace(
            spec,
            environment={
                **spec.environment,
                "KBC_LOGGER_ADDR": address,
                "KBC_LOGGER_PORT": str(server.port),
            },
            labels={**spec.labels, LABEL_GELF: f"{address}:{server.port}"},
        )
        if lost := await server.drain():
            await note("warn", f"{lost} GELF messages are lost: they came too fast, or in part.")
        if server.refused:
            await note(
                "warn",
                f"Connections for GELF messages were closed unread ({server.refused}): the component "
                f"had more than {MOST_CONNECTIONS} open.",
            )
