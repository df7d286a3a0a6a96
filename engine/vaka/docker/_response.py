"""What the daemon answers, with what goes wrong on the way as this package's errors."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any

import httpx

from vaka.docker.exceptions import (
    DockerConnectionLost,
    DockerError,
    DockerStreamError,
    DockerStreamTruncated,
)

if TYPE_CHECKING:
    from typing import Self

    from vaka.docker._transport import Body, TakenOver

CHUNK = 65536
MOST_ERROR = 1 << 20
"""Bytes that are read of an error's text; the rest is not worth waiting for."""
MOST_LINE = 16 << 20
"""Bytes of one JSON object in a stream; the daemon's largest, of statistics, are some KB."""


class Call:
    """One request, by the words that errors name it with."""

    __slots__ = ("address", "what")

    def __init__(self, method: str, path: str, address: str) -> None:
        self.what = f"{method} /{path}"
        self.address = address

    def lost(self, error: Exception) -> DockerConnectionLost:
        return DockerConnectionLost(
            f"{self.what}: the connection to Docker Engine via {self.address} broke ({error}). "
            "It may or may not have been done: look before you repeat it",
            address=self.address,
        )

    def truncated(self, error: Exception | str) -> DockerStreamTruncated:
        return DockerStreamTruncated(
            f"{self.what}: the answer of Docker Engine via {self.address} ended early ({error})",
            address=self.address,
        )


class Response:
    """An answer whose head has come and whose body is read as it is asked for.

    It holds a connection until the body has been read or it is closed: use it as a context manager.
    Reads may be cancelled and repeated, and lose nothing.
    """

    def __init__(self, response: httpx.Response, call: Call) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self.call = call
        self._body: Body = response.stream  # type: ignore[assignment]  # our transport's
        self._rest = b""

    async def receive(self) -> bytes:
        """The next bytes of the body, as they come; none at the end.

        Raises:
            DockerStreamTruncated: it ended before its promised length or its last chunk.
            DockerConnectionLost: the connection broke.
        """
        if self._rest:
            rest, self._rest = self._rest, b""
            return rest
        try:
            return await self._body.receive()
        except httpx.RemoteProtocolError as error:
            raise self.call.truncated(error) from error
        except httpx.TransportError as error:
            raise self.call.lost(error) from error

    async def read(self, n: int = -1) -> bytes:
        """`n` bytes at most, at least one before the end; all that is left when `n` is negative."""
        if n < 0:
            pieces = []
            while data := await self.receive():
                pieces.append(data)
            return b"".join(pieces)
        data = await self.receive() if n else b""
        self._rest = data[n:]
        return data[:n]

    async def iter_chunked(self, n: int) -> AsyncIterator[bytes]:
        """The body in pieces of at most `n` bytes."""
        while data := await self.read(n):
            yield data

    async def iter_any(self) -> AsyncIterator[bytes]:
        """The body in pieces as they come."""
        while data := await self.receive():
            yield data

    async def value(self) -> Any:
        """The whole body: what it says when it is JSON, its text when it is not."""
        body = await self.read()
        if "json" in self.headers.get("content-type", ""):
            return self.parse(body)
        return body.decode(errors="replace")

    def parse(self, body: bytes) -> Any:
        """What JSON says; `DockerError` when it is none, and so not from a Docker Engine."""
        try:
            return json.loads(body)
        except ValueError as error:
            raise DockerError(
                self.status,
                f"{self.call.what}: what answered via {self.call.address} is no Docker Engine: "
                f"it called this JSON: {body[:200]!r}",
            ) from error

    async def error_text(self) -> str:
        """Why the daemon refuses."""
        text = b""
        while len(text) < MOST_ERROR and (data := await self.receive()):
            text += data
        try:
            return str(json.loads(text)["message"])
        except (ValueError, TypeError, KeyError):
            return text.decode(errors="replace").strip() or f"{self.call.what}: no reason given"

    async def aclose(self) -> None:
        """Let go of the connection; what was not read is given up."""
        await self._body.aclose()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.iter_any()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.aclose()


class Hijacked:
    """A connection that an answer has turned into bytes both ways."""

    def __init__(self, stream: TakenOver, call: Call) -> None:
        self._stream = stream
        self._call = call

    async def receive(self) -> bytes:
        try:
            return await self._stream.receive()
        except httpx.TransportError as error:
            raise self._call.lost(error) from error

    async def send(self, data: bytes) -> None:
        try:
            await self._stream.send(data)
        except httpx.TransportError as error:
            raise self._call.lost(error) from error

    async def send_eof(self) -> None:
        try:
            await self._stream.send_eof()
        except httpx.TransportError as error:
            raise self._call.lost(error) from error

    async def aclose(self) -> None:
        await self._stream.aclose()


class JSONLines:
    """The objects of a body that has one a line, as they come."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self._lines: list[bytes] = []  # last one first
        self._partial = b""

    async def read(self) -> dict[str, Any] | None:
        """The next object; None at the end. Cancelling it loses nothing: call it again."""
        while True:
            while self._lines:
                if line := self._lines.pop().strip():
                    return self._response.parse(line)  # type: ignore[no-any-return]  # an object a line
            data = await self._response.receive()
            if not data:
                line, self._partial = self._partial.strip(), b""
                return self._response.parse(line) if line else None
            *self._lines, self._partial = (self._partial + data).split(b"\n")
            self._lines.reverse()
            if len(self._partial) > MOST_LINE:
                raise DockerError(
                    self._response.status,
                    f"{self._response.call.what}: one object of the stream is above {MOST_LINE} bytes",
                )


class Objects:
    """The objects of a stream, as they come: the stream is opened at the first, closed at the end.

    With `raise_errors`, an object that reports an error is raised instead of given: a daemon that has
    begun with status 200 can say only so that a pull, push, build or load failed. An error or cancelling
    ends it. A loop that is left early lets go of the connection at `aclose`, or when nobody holds this
    any more.
    """

    def __init__(self, connect: Callable[[], Awaitable[Response]], *, raise_errors: bool) -> None:
        self._connect = connect
        self._raise_errors = raise_errors
        self._response: Response | None = None
        self._lines: JSONLines | None = None
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        if self._closed:
            raise StopAsyncIteration
        try:
            item = await self._read()
        except BaseException:  # as a generator would: nobody else will close it
            await self.aclose()
            raise
        if item is None:
            await self.aclose()
            raise StopAsyncIteration
        return item

    async def _read(self) -> dict[str, Any] | None:
        if self._lines is None:
            self._response = await self._connect()
            self._lines = JSONLines(self._response)
        item = await self._lines.read()
        if self._raise_errors and item is not None and ("error" in item or "errorDetail" in item):
            raise stream_error(item)
        return item

    async def aclose(self) -> None:
        """Let go of the connection; what was not read is given up."""
        self._closed = True
        if self._response is not None:
            await self._response.aclose()

    async def all(self) -> list[dict[str, Any]]:
        """All of them."""
        async with aclosing(self):
            return [item async for item in self]


def stream_error(item: dict[str, Any]) -> DockerStreamError:
    """The error that an object of a stream reports."""
    detail = item.get("errorDetail")
    if not isinstance(detail, dict):
        detail = {} if detail is None else {"raw": detail}
    message = detail.get("message") or item.get("error") or "unknown error in Docker JSON stream"
    return DockerStreamError(str(message), error_detail=detail)
