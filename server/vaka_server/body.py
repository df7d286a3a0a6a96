"""Request and response bodies: bounded in memory, whatever their size.

Quart keeps what a client sends until somebody reads it. Here a client that sends faster than it is
read is not read from, so that at most `WINDOW` bytes of a body wait in memory.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, cast
from uuid import uuid4

import trio
from quart.wrappers.response import ResponseBody
from quart_trio.asgi import TrioASGIHTTPConnection, TrioASGIWebsocketConnection
from quart_trio.wrappers.request import TrioBody, TrioRequest
from werkzeug.exceptions import RequestEntityTooLarge

from vaka.errors import InvalidInput
from vaka.models.json_text import NotJson, parse_json_text
from vaka_server.problems import Dialect, Refused

if TYPE_CHECKING:
    from types import TracebackType

    from hypercorn.typing import (
        ASGIReceiveCallable,
        ASGISendCallable,
        ASGISendEvent,
        HTTPScope,
    )
    from quart import Quart
    from quart.wrappers import Request as QuartRequest

log = logging.getLogger(__name__)

WINDOW = 1 << 18
"""Bytes of a request's body that wait in memory for their reader."""
CHUNK = 1 << 20
"""Bytes of a file that are read and sent, or taken and written, at a time."""
SILENCE = 60.0
"""Seconds that a client may stop sending in the middle of a body."""
LEAST_RATE = 1 << 10
"""Bytes a second with which it earns them back: who sends less is given up after a while."""


class Body(TrioBody):
    """The body of one request, read by `async for`, by `read`, or (by plugins) awaited."""

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        super().__init__(expected_content_length, None)  # limits are the reader's to set
        self._expected = expected_content_length
        self._whole_limit = max_content_length
        self._unbounded = False
        self._read = trio.Event()
        self._patience = SILENCE

    def append(self, data: bytes) -> None:
        """Take what came in; nothing once the body has been discarded."""
        if not (self._unbounded and self._complete.is_set()):
            super().append(data)

    async def room(self) -> None:
        """Wait until more may come in."""
        while len(self._data) > WINDOW and not self._unbounded:
            await self._read.wait()

    async def __anext__(self) -> bytes:
        if self._data or self._complete.is_set():
            return await self._next()
        with trio.move_on_after(self._patience):
            return await self._next()
        raise Refused(
            408,
            f"The request's body stopped coming for {SILENCE:g} seconds, or came with less than "
            f"{LEAST_RATE} bytes a second.",
        )

    async def _next(self) -> bytes:
        begun = trio.current_time()
        data = await super().__anext__()
        earned = len(data) / LEAST_RATE - (trio.current_time() - begun)
        self._patience = min(SILENCE, self._patience + earned)
        self._read.set()
        self._read = trio.Event()
        return data

    def __await__(self) -> Generator[Any, None, Any]:
        limit = self._whole_limit
        if limit is not None and max(self._expected or 0, len(self._data)) > limit:
            raise RequestEntityTooLarge
        self._max_content_length = limit
        self._unbounded = True
        self._read.set()
        return super().__await__()

    async def read(self, limit: int) -> bytes:
        """All of it; `RequestEntityTooLarge` when it has more than `limit` bytes."""
        if self._expected is not None and self._expected > limit:
            raise RequestEntityTooLarge(f"The request's body is larger than {limit} bytes.")
        parts: list[bytes] = []
        size = 0
        async for part in self:
            size += len(part)
            if size > limit:
                raise RequestEntityTooLarge(f"The request's body is larger than {limit} bytes.")
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def discard(self) -> None:
        """Nobody reads any further: let the client send the rest into nothing."""
        self._data.clear()
        self._unbounded = True
        self._complete.set()
        self._read.set()


class Request(TrioRequest):
    """A request whose body is a `Body`."""

    body_class = Body
    body: Body
    routed_path: str = ""
    """The path that chooses the route: of a service's own host, it begins with the service's path."""
    absent_service: str | None = None
    """The service that the host's name stands for, when there is none of it here."""
    dialect: Dialect | None = None
    """How errors are told; None: as the path says."""


class Connection(TrioASGIHTTPConnection):
    """Stops reading from a client while its body's reader is behind.

    When an answer has been given before its request was read to the end, what still comes is thrown
    away, because hypercorn cannot close a connection while input waits that nobody takes.
    """

    def __init__(self, app: Quart, scope: HTTPScope) -> None:
        super().__init__(app, scope)
        self._is_answered = False

    async def handle_messages(  # type: ignore[override]
        self, nursery: trio.Nursery, request: QuartRequest, receive: ASGIReceiveCallable
    ) -> None:
        body = cast("Body", request.body)
        while True:
            message = await receive()
            if message["type"] == "http.request":
                body.append(message.get("body", b""))
                if not message.get("more_body", False):
                    body.set_complete()
                await body.room()
            elif message["type"] == "http.disconnect":
                break
        if not self._is_answered:
            nursery.cancel_scope.cancel()
        # else hypercorn itself says so while it ends the exchange, and must not be cancelled in that

    async def handle_request(  # type: ignore[override]
        self, nursery: trio.Nursery, request: QuartRequest, send: ASGISendCallable
    ) -> None:
        async def sending(message: ASGISendEvent) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self._is_answered = True
            await send(message)

        response = await self.app.handle_request(request)
        cast("Body", request.body).discard()
        await self._send_response(sending, response)
        nursery.cancel_scope.cancel()


class Refusal(TrioASGIWebsocketConnection):
    """Refuses a WebSocket before it is one: no route here speaks it, and hypercorn answers 403."""

    async def __call__(self, _: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send({"type": "websocket.close", "code": 1000, "reason": None})


def parse_json(raw: bytes) -> Any:
    """The value of a runner's JSON body: an empty one and `null` are an empty object.

    Raises:
        InvalidInput: with the words that clients of the runner know (runner.md section 1.5).
    """
    if not raw:
        return {}
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise _bad("Malformed UTF-8 characters, possibly incorrectly encoded") from error
    try:
        value = parse_json_text(text)
    except NotJson as error:
        raise _bad(str(error)) from error
    return {} if value is None else value


def parse_object(raw: bytes) -> dict[str, Any]:
    """The object of a Storage JSON body; `Refused` with Storage's word when it is none."""
    try:
        value = parse_json(raw)
    except InvalidInput as error:
        raise Refused(400, error.message, code="malformedRequest") from error
    if not isinstance(value, dict):
        raise Refused(400, "The request's body must be a JSON object.", code="malformedRequest")
    return value


def _bad(reason: str) -> InvalidInput:
    return InvalidInput(f"Bad JSON format of request body: {reason}")


@asynccontextmanager
async def spool(body: Body, folder: Path, *, limit: int | None = None) -> AsyncIterator[Path]:
    """A request's body in a new file below `folder`, removed on leaving.

    Raises:
        RequestEntityTooLarge: it has more than `limit` bytes.
        OSError: the disk is full.
    """
    path, stream = await trio.to_thread.run_sync(spool_file, folder)
    size = 0
    try:
        try:
            async with aclosing(_gathered(body)) as pieces:
                async for parts in pieces:
                    size += sum(map(len, parts))
                    if limit is not None and size > limit:
                        raise RequestEntityTooLarge(
                            f"The request's body is larger than {limit} bytes."
                        )
                    await trio.to_thread.run_sync(stream.writelines, parts)
        finally:
            stream.close()
        yield path
    finally:
        path.unlink(missing_ok=True)


async def _gathered(body: Body) -> AsyncGenerator[list[bytes], None]:
    """A body in pieces of `CHUNK` bytes or more: a thread costs more than to write what came at once."""
    parts: list[bytes] = []
    size = 0
    async for part in body:
        parts.append(part)
        size += len(part)
        if size >= CHUNK:
            yield parts
            parts, size = [], 0
    if parts:
        yield parts


def spool_file(folder: Path) -> tuple[Path, BinaryIO]:
    """A new file below `folder` that is there for nobody else; the caller removes it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / uuid4().hex
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    return path, os.fdopen(descriptor, "wb")


class FileContent(ResponseBody):
    """A part of an open file that is sent, and then closed."""

    def __init__(self, stream: BinaryIO) -> None:
        """All of it, unless `limit` says less."""
        self._stream = stream
        self._next, self._end = 0, self.size

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return os.fstat(self._stream.fileno()).st_size

    def limit(self, start: int, end: int) -> None:
        """Send what is from `start` to before `end`."""
        self._next, self._end = start, end

    def close(self) -> None:
        """Close the file that will not be sent."""
        self._stream.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._stream.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        count = min(CHUNK, self._end - self._next)
        data = b""
        if count > 0:
            fd = self._stream.fileno()
            data = await trio.to_thread.run_sync(os.pread, fd, count, self._next)
        if not data:
            raise StopAsyncIteration
        self._next += len(data)
        return data


class TemporaryFile(FileContent):
    """A file that is sent and then removed; it is removed also when nobody wants it any more."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.open("rb", buffering=0))
        # the name can go at once: the open file stays until it has been sent
        path.unlink()


def clear(folder: Path) -> None:
    """Remove what an earlier server that was killed has left in its folder."""
    for path in folder.glob("*"):
        log.info("upload.forgotten", extra={"path": str(path), "bytes": path.stat().st_size})
        path.unlink()
