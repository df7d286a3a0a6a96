"""What a container prints and reads, as messages: out of its log, or over a connection to it."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import anyio

from vaka.docker._frames import Message, MessageReader

if TYPE_CHECKING:
    from typing import Self

    from vaka.docker.docker import Docker

__all__ = ["Message", "Output", "Stream"]


class Source(Protocol):
    """What gives bytes, none at the end, and can be let go of."""

    async def receive(self) -> bytes: ...
    async def aclose(self) -> None: ...


class Duplex(Source, Protocol):
    """What takes bytes too."""

    async def send(self, data: bytes) -> None: ...
    async def send_eof(self) -> None: ...


_S = TypeVar("_S", bound=Source)


class _Messages(Generic[_S]):
    """Messages from a source that is connected when it is first needed, and once only."""

    def __init__(self, docker: Docker, connect: Callable[[], Awaitable[tuple[_S, bool]]]) -> None:
        """`connect` gives the source, and whether it comes from a terminal."""
        self.docker = docker
        self._connect = connect
        self._connecting = anyio.Lock()
        self._connected: tuple[_S, MessageReader] | None = None
        self._closed = False
        self._entered = False

    async def read_out(self) -> Message | None:
        """The next message; None at the end. Cancelling it loses nothing: call it again.

        Raises:
            DockerError: the daemon refuses to connect, or reports an error in the stream.
            DockerStreamTruncated: the output ended inside a frame or an unfinished answer.
            DockerConnectionLost: the connection broke.
        """
        _, reader = self._connected or await self._open()
        return await reader.read()

    async def aclose(self) -> None:
        """Let go of the connection; what was not read is given up."""
        self._closed = True
        connected, self._connected = self._connected, None
        if connected is not None:
            await connected[0].aclose()

    async def _open(self) -> tuple[_S, MessageReader]:
        async with self._connecting:
            if self._closed:
                raise RuntimeError("this stream is closed: ask the container for another one")
            if self._connected is None:
                source, tty = await self._connect()
                address = self.docker.docker_host
                self._connected = source, MessageReader(source.receive, tty=tty, address=address)
            return self._connected

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        if self._closed:
            raise StopAsyncIteration
        try:
            message = await self.read_out()
        except BaseException:
            if not self._entered:  # as a generator would: nobody else will close it
                await self.aclose()
            raise
        if message is None:
            await self.aclose()
            raise StopAsyncIteration
        return message

    async def __aenter__(self) -> Self:
        await self._open()
        self._entered = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.aclose()


class Output(_Messages[Source]):
    """A container's output: iterate over it, and each `Message` comes as soon as it is there.

    As a context manager it is connected once the block is entered (so that nothing is missed of a
    container that is started inside) and let go of at the block's end; a read that is cancelled inside
    loses nothing and may be repeated. Without one, the first message connects, and the end, an error or
    cancelling lets go.
    """


class Stream(_Messages[Duplex]):
    """A connection to a container or an exec: its output to read, its standard input to write.

    One task may read while another writes.
    """

    async def write_in(self, data: bytes) -> None:
        """Write to standard input, at the pace at which it is read.

        Raises:
            RuntimeError: this side is closed.
            DockerConnectionLost: the other side is.
        """
        if self._closed:
            raise RuntimeError("Cannot write to closed transport")
        source, _ = self._connected or await self._open()
        await source.send(data)

    async def close_in(self) -> None:
        """End standard input; the output goes on."""
        source, _ = self._connected or await self._open()
        await source.send_eof()

    async def close(self) -> None:
        """End standard input and let go of the connection; what was not read is given up."""
        await self.aclose()

    def __del__(self) -> None:
        if self._connected is not None:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=1)
