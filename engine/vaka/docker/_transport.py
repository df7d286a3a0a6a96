"""HTTP/1.1 to one Docker Engine: an httpx transport on anyio's sockets.

httpx gives the requests and responses, h11 the protocol; the connections are this module's own, for
what a Docker client needs and a general pool does not offer:

* A connection can be taken over with its write side (attach, exec), half-closed, on TLS too.
* However many calls wait (a `wait` a running container), the next one gets a connection at once.
* A call that is cancelled, wherever it is, closes its connection; no other call notices.
* Reading can be cancelled and resumed: what was received before is not lost.
* Half the processor time a call, which counts where a container's life is five of them.

There is no read time-out: how long a container may run is for the caller's cancel scope to say. Only
connecting is bounded, because a daemon that does not even accept is not busy but gone.
"""

from __future__ import annotations

import select
import socket
import time
import weakref
from collections.abc import AsyncIterable, AsyncIterator
from typing import TYPE_CHECKING, cast

import anyio
import h11
import httpx
from anyio.abc import ByteStream, SocketAttribute, UNIXSocketStream

from vaka.docker._tls import TLSStream

if TYPE_CHECKING:
    from vaka.docker._endpoint import Endpoint

CHUNK = 65536
MOST_IDLE = 64
"""Connections kept for the next calls. Each costs the daemon a thread of control and a few KB, so a
burst of a thousand is not kept; more than this many calls at the same instant are rare."""
IDLE_SECONDS = 60.0
"""How long an idle TCP connection is trusted: firewalls forget silently, after minutes."""
QUEUE_FULL_SECONDS = 0.005
"""How long to wait before knocking again at a socket with a full queue."""
MOST_HEADER = 65536
"""Bytes of a response's head."""

# A peer that vanishes without a word is noticed after 30 + 3 x 10 s, also in the middle of a wait.
KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", 0), 30),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPINTVL", 0), 10),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPCNT", 0), 3),
)


class Transport(httpx.AsyncBaseTransport):
    """Sends requests to `endpoint`, each on a connection of its own, reused when it is free.

    A request has its `Host` and the headers of its body; its `stream` is a `Whole`, or gives the body
    bit by bit. It may carry `extensions`: `target`, bytes to ask for instead of its URL's path and
    query; `deadline`, a time of anyio's clock after which what is done for it raises `TimeoutError`. An
    answer of status 101 has `extensions["network_stream"]`, a `TakenOver`.

    Raises httpx's errors: `ConnectError` and `ConnectTimeout` when nothing was sent; `ReadError`,
    `WriteError` and `RemoteProtocolError` when the connection broke or what came is no HTTP.
    """

    def __init__(self, endpoint: Endpoint, *, connect_timeout: float | None) -> None:
        self._endpoint = endpoint
        self._connect_timeout = connect_timeout
        self._idle: list[Connection] = []
        # Weak, so that a stream whose reader has forgotten it is closed by the garbage collector.
        self._open: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        while True:
            connection = await self._take_idle()
            reused = connection is not None
            if connection is None:
                connection = await self._connect(request.extensions.get("deadline"))
            try:
                await connection.send(request)
                head = await connection.receive_head()
            except httpx.TransportError:
                await self.discard(connection)
                # The daemon may close a connection just as it is used again. Asking twice is harmless.
                if reused and request.method == "GET" and not connection.answered:
                    await self._discard_idle()
                    continue
                raise
            except BaseException:
                await self.discard(connection)
                raise
            if head.status_code == 101:
                extensions = {"network_stream": TakenOver(self, connection)}
                return httpx.Response(101, headers=head.headers.raw_items(), extensions=extensions)
            return httpx.Response(
                head.status_code, headers=head.headers.raw_items(), stream=Body(self, connection)
            )

    async def aclose(self) -> None:
        """Close every connection, whoever reads it: they get an `httpx.ReadError`."""
        self._closed = True
        connections = list(self._open)
        self._idle.clear()
        for connection in connections:
            await self.discard(connection)

    async def discard(self, connection: Connection) -> None:
        """Close `connection`, without waiting for the other side, cancelled or not."""
        self._open.discard(connection)
        with anyio.CancelScope(shield=True):
            await connection.stream.aclose()

    async def keep(self, connection: Connection) -> None:
        """Take back a connection whose answer has been read to its end."""
        if self._closed or len(self._idle) >= MOST_IDLE:
            await self.discard(connection)
        else:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)

    async def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()  # the last used, so that a burst's others grow old and go
            if connection.is_usable():
                return connection
            await self.discard(connection)
        return None

    async def _discard_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await self.discard(connection)

    async def _connect(self, deadline: float | None) -> Connection:
        if self._closed:
            raise RuntimeError("this Docker client is closed: make another one")
        endpoint = self._endpoint
        left = None if deadline is None else deadline - anyio.current_time()
        try:
            with anyio.fail_after(left), anyio.fail_after(self._connect_timeout):
                stream = await _connect(endpoint)
        except TimeoutError as error:
            if left is not None and (self._connect_timeout is None or left < self._connect_timeout):
                raise
            raise httpx.ConnectTimeout(f"no answer in {self._connect_timeout:g} s") from error
        except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
            raise httpx.ConnectError(str(error) or type(error).__name__) from error
        connection = Connection(stream, is_tcp=endpoint.path is None)
        if self._closed:  # meanwhile
            await self.discard(connection)
            raise httpx.ReadError("it was closed by this client")
        self._open.add(connection)
        return connection


async def _connect(endpoint: Endpoint) -> ByteStream:
    if endpoint.path is not None:
        return await _connect_unix(endpoint.path)
    tcp = await anyio.connect_tcp(endpoint.host, endpoint.port)
    try:
        raw = tcp.extra(SocketAttribute.raw_socket)  # noqa: S610 - no SQL here
        for option in KEEPALIVE:
            if option[1]:
                raw.setsockopt(*option)
        if endpoint.ssl_context is None:
            return tcp
        tls = TLSStream(tcp, endpoint.ssl_context, endpoint.host)
        await tls.handshake()
    except BaseException:
        with anyio.CancelScope(shield=True):
            await tcp.aclose()
        raise
    return tls


async def _connect_unix(path: str) -> ByteStream:
    # Connecting to a socket of this machine never waits: it is done, refused, or, when the daemon's
    # queue is full, to be tried again. anyio takes that last answer for a connection under way, which
    # on Trio looks made when it is not, and on asyncio spins.
    while True:
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            raw.setblocking(False)
            raw.connect(path)
            return await UNIXSocketStream.from_socket(raw)
        except BlockingIOError:
            raw.close()
            await anyio.sleep(QUEUE_FULL_SECONDS)
        except BaseException:
            raw.close()
            raise


class Connection:
    """One connection and what HTTP/1.1 has to remember of it."""

    def __init__(self, stream: ByteStream, *, is_tcp: bool) -> None:
        self.stream = stream
        self.is_tcp = is_tcp
        self.http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MOST_HEADER)
        self.answered = False
        """Whether a byte has come since the last request."""
        self.deadline: float | None = None
        self.idle_since = 0.0
        self._raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - no SQL here
        self._fd = self._raw.fileno()
        self._news = select.poll()
        self._news.register(self._fd, select.POLLIN)

    def is_usable(self) -> bool:
        """Whether an idle connection may carry another request; one that has news has bad news."""
        if self.is_tcp and time.monotonic() - self.idle_since > IDLE_SECONDS:
            return False
        # A number that belongs to another socket by now would be asked for that one's news.
        return self._raw.fileno() == self._fd and not self._news.poll(0)

    async def send(self, request: httpx.Request) -> None:
        """Send `request` whole. A daemon that stops listening has answered early: that is no error."""
        self.deadline = request.extensions.get("deadline")
        self.answered = False
        http = self.http
        method, headers = request.method, request.headers.raw
        target = request.extensions.get("target") or request.url.raw_path
        try:
            head = http.send(h11.Request(method=method, target=target, headers=headers)) or b""
            if isinstance(request.stream, Whole):
                if request.stream.data:
                    head += http.send(h11.Data(data=request.stream.data)) or b""
                await self._send(head + (http.send(h11.EndOfMessage()) or b""))
                return
            await self._send(head)
            async for chunk in cast("AsyncIterable[bytes]", request.stream):
                await self._send(http.send(h11.Data(data=chunk)) or b"")
            if end := http.send(h11.EndOfMessage()):
                await self._send(end)
        except anyio.ClosedResourceError as error:
            raise httpx.WriteError(_reason(error)) from error
        except anyio.BrokenResourceError:
            return  # the answer, or the lack of one, says why

    def __del__(self) -> None:
        # Whoever read from it has forgotten it, and so has the transport: nothing waits for it. Closed
        # already it takes no notice; asyncio's own sockets (TCP) close themselves.
        if close := getattr(self._raw, "close", None):
            close()

    async def receive_head(self) -> h11.Response | h11.InformationalResponse:
        """The head of the answer; heads that only say "go on" are passed over."""
        while True:
            event = await self.next_event()
            if isinstance(event, h11.Response) or (
                isinstance(event, h11.InformationalResponse) and event.status_code == 101
            ):
                return event
            if isinstance(event, h11.ConnectionClosed):
                raise httpx.RemoteProtocolError("it was closed without an answer")

    async def next_event(self) -> h11.Event | type[h11.PAUSED]:
        try:
            while True:
                event = self.http.next_event()
                if event is not h11.NEED_DATA:
                    return cast("h11.Event | type[h11.PAUSED]", event)
                self.http.receive_data(await self.receive())
        except h11.RemoteProtocolError as error:
            raise httpx.RemoteProtocolError(str(error)) from error

    async def receive(self) -> bytes:
        """The next bytes; none at the end."""
        try:
            if self.deadline is None:
                data = await self.stream.receive(CHUNK)
            else:
                with anyio.fail_after(self.deadline - anyio.current_time()):
                    data = await self.stream.receive(CHUNK)
        except anyio.EndOfStream:
            return b""
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise httpx.ReadError(_reason(error)) from error
        self.answered = True
        return data

    async def _send(self, data: bytes) -> None:
        if self.deadline is None:
            await self.stream.send(data)
        else:
            with anyio.fail_after(self.deadline - anyio.current_time()):
                await self.stream.send(data)


class Whole(httpx.AsyncByteStream):
    """A request's body that is there at once, and so is sent with its head."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.data


class Body(httpx.AsyncByteStream):
    """The body of one answer, read as it comes; at its end the connection is free again."""

    def __init__(self, transport: Transport, connection: Connection) -> None:
        self._transport = transport
        self._connection: Connection | None = connection

    async def receive(self) -> bytes:
        """The next bytes; none at the end. Cancelling it loses nothing: call it again."""
        if self._connection is None:
            return b""
        event = await self._connection.next_event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        await self._release(self._connection)
        return b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self.receive():
            yield data

    async def aclose(self) -> None:
        """Let go of the connection: kept if the rest of the answer is already here, closed if not."""
        connection = self._connection
        if connection is None:
            return
        try:
            while isinstance(connection.http.next_event(), h11.Data):
                pass
        except h11.RemoteProtocolError:
            pass  # closed below, as whatever else is not at its end
        await self._release(connection)

    async def _release(self, connection: Connection) -> None:
        self._connection = None
        http = connection.http
        if http.our_state is h11.DONE and http.their_state is h11.DONE:
            http.start_next_cycle()
            await self._transport.keep(connection)
        else:
            await self._transport.discard(connection)


class TakenOver:
    """A connection that has stopped speaking HTTP: bytes both ways."""

    def __init__(self, transport: Transport, connection: Connection) -> None:
        self._transport = transport
        self._connection = connection
        connection.deadline = None  # it was for the answer, which has come
        self._early, _ = connection.http.trailing_data

    async def receive(self) -> bytes:
        """The next bytes; none once the other side has ended. Cancelling it loses nothing."""
        if self._early:
            early, self._early = self._early, b""
            return early
        return await self._connection.receive()

    async def send(self, data: bytes) -> None:
        try:
            await self._connection.stream.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise httpx.WriteError(_reason(error)) from error

    async def send_eof(self) -> None:
        """End what is sent, and leave what is received open."""
        try:
            await self._connection.stream.send_eof()
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise httpx.WriteError(_reason(error)) from error

    async def aclose(self) -> None:
        await self._transport.discard(self._connection)


def _reason(error: Exception) -> str:
    if isinstance(error, anyio.ClosedResourceError):
        return "it was closed by this client"
    return str(error.__cause__ or error) or "it was closed by the other side"
