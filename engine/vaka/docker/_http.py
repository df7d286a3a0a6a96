"""Calls to the daemon: a method and a path in, an answer or an error of this package out."""

from __future__ import annotations

import io
import json
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import anyio
import httpx

from vaka.docker._response import Call, Hijacked, Response
from vaka.docker._transport import Transport, Whole
from vaka.docker.exceptions import DockerError, DockerUnreachable, refusal
from vaka.docker.types import SENTINEL
from vaka.docker.utils import httpize

if TYPE_CHECKING:
    from typing import Self

    from vaka.docker._endpoint import Endpoint
    from vaka.docker.types import Body, SupportsRead, Timeout

NEWEST_API = (1, 47)
"""The newest API version that what is sent and read here has been checked against; every field that
is sent is in 1.41 too."""

CONNECT_SECONDS = 10.0
"""How long the daemon may take to accept a connection. It takes far below a second, however busy; what
does not accept in ten is not there."""

CHUNK = 65536


class HTTP:
    """One daemon, as a place to send requests to. `address` is as it was given."""

    def __init__(self, endpoint: Endpoint, *, api_version: str, timeout: Timeout) -> None:
        if api_version != "auto" and _parse_version(api_version.removeprefix("v")) is None:
            raise ValueError(
                f"Invalid API version format: {api_version!r} is neither auto nor like v1.41"
            )
        self.address = endpoint.address
        self.api_version = api_version
        self._base_url = httpx.URL(endpoint.base_url)
        self._host = self._base_url.netloc.decode()
        self._timeout = _seconds(timeout, None)
        self._negotiating = anyio.Lock()
        self._transport = Transport(endpoint, connect_timeout=CONNECT_SECONDS)

    async def aclose(self) -> None:
        """Close every connection; calls under way and later ones fail."""
        await self._transport.aclose()

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: Timeout = SENTINEL,
        versioned: bool = True,
    ) -> Any:
        """The daemon's whole answer: parsed, where it is JSON; `""` where there is none."""
        response = await self.open(
            method,
            path,
            params=params,
            json=json,
            body=body,
            headers=headers,
            timeout=timeout,
            versioned=versioned,
        )
        try:
            return await response.value()
        finally:
            await response.aclose()

    async def open(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: Timeout = SENTINEL,
        versioned: bool = True,
    ) -> Response:
        """The daemon's answer, once its head has come and is no refusal; the caller closes it."""
        answer = await self._send(method, path, params, json, body, headers, timeout, versioned)
        call = Call(method, path, self.address)
        response = Response(answer, call)
        status = response.status
        if status < 300 or status == 304:  # 304: it is started, or stopped, already
            return response
        async with response:
            raise refusal(status, await response.error_text())

    async def hijack(
        self,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        timeout: Timeout = SENTINEL,
    ) -> Hijacked:
        """A connection that carries a container's input and output from now on."""
        headers = {"Connection": "Upgrade", "Upgrade": "tcp"}
        answer = await self._send("POST", path, params, json, None, headers, timeout, True)
        call = Call("POST", path, self.address)
        if answer.status_code == 101:
            return Hijacked(answer.extensions["network_stream"], call)
        async with Response(answer, call) as response:
            if response.status < 300:
                raise DockerError(
                    500,
                    f"{call.what}: the daemon answered {response.status} and not 101: something "
                    f"between here and {self.address} does not let connections be upgraded",
                )
            raise refusal(response.status, await response.error_text())

    async def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        json_body: Any,
        body: Body | None,
        headers: Mapping[str, str] | None,
        timeout: Timeout,
        versioned: bool,
    ) -> httpx.Response:
        if versioned and self.api_version == "auto":
            await self._negotiate()
        sent = {"Host": self._host}
        stream: Whole | _Upload
        if json_body is not None:
            stream = Whole(json.dumps(json_body).encode())
            sent["Content-Type"] = "application/json"
        elif body is None or isinstance(body, bytes | bytearray | memoryview):
            stream = Whole(bytes(body or b""))
        else:
            stream = _Upload(body)
            sent["Transfer-Encoding"] = "chunked"
        if isinstance(stream, Whole) and (stream.data or method != "GET"):
            sent["Content-Length"] = str(len(stream.data))
        if headers:
            sent.update(headers)
        target = f"/{self.api_version}/" if versioned else "/"
        target += quote(path, safe="/:@+=,~$!*'()")
        if params:
            target += "?" + urlencode(httpize(params) or {})
        seconds = _seconds(timeout, self._timeout)
        # Of a URL's parts only the target differs, and taking URLs apart costs as much as parsing JSON.
        extensions: dict[str, Any] = {"target": target.encode()}
        if seconds is not None:
            extensions["deadline"] = anyio.current_time() + seconds
        request = httpx.Request(
            method, self._base_url, headers=sent, stream=stream, extensions=extensions
        )
        try:
            return await self._transport.handle_async_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise self._unreachable(error) from error
        except httpx.TransportError as error:
            raise Call(method, path, self.address).lost(error) from error

    async def _negotiate(self) -> None:
        async with self._negotiating:
            if self.api_version != "auto":
                return
            answer = await self.call("GET", "version", versioned=False)
            try:
                newest = _parse_version(answer["ApiVersion"])
                oldest = _parse_version(answer.get("MinAPIVersion") or "1.0")
            except (TypeError, KeyError):
                newest = oldest = None
            if newest is None or oldest is None:
                raise DockerError(
                    0, f"what answers via {self.address} is no Docker Engine: {str(answer)[:200]}"
                )
            if oldest > NEWEST_API:
                raise DockerError(
                    0,
                    f"Docker Engine via {self.address} speaks API {oldest[0]}.{oldest[1]} and "
                    f"newer, this client {NEWEST_API[0]}.{NEWEST_API[1]} and older: update the client",
                )
            major, minor = min(newest, NEWEST_API)
            self.api_version = f"v{major}.{minor}"

    def _unreachable(self, error: Exception) -> DockerUnreachable:
        why: BaseException | None = error
        while why is not None and not isinstance(why, tuple(_ADVICE)):
            why = why.__cause__
        fallback = "start the Docker Engine, or set DOCKER_HOST to the address of one that runs"
        advice = next((text for kind, text in _ADVICE.items() if isinstance(why, kind)), fallback)
        return DockerUnreachable(
            f"Cannot connect to Docker Engine via {self.address} [{error}]: {advice}",
            address=self.address,
        )


_ADVICE: dict[type[BaseException], str] = {
    ssl.SSLError: "one side does not accept the other's certificate, or it is no TLS; check "
    "DOCKER_CERT_PATH, the context's certificates or ssl_context",
    FileNotFoundError: "there is no such socket; start the Docker Engine, or set DOCKER_HOST",
    PermissionError: "this user may not use the socket; add it to the group that owns it "
    "(usermod -aG docker USER), then log in again",
    ConnectionRefusedError: "nothing listens there; start the Docker Engine, or set DOCKER_HOST",
    TimeoutError: "nothing accepts connections there; check the address and the daemon's health",
}


def _parse_version(text: str) -> tuple[int, int] | None:
    major, dot, minor = text.partition(".")
    if dot and major.isdecimal() and minor.isdecimal():
        return int(major), int(minor)
    return None


def _seconds(timeout: Timeout, default: float | None) -> float | None:
    if timeout is SENTINEL:
        return default
    if timeout is None or isinstance(timeout, int | float):
        return timeout
    return timeout.total


class _Upload(httpx.AsyncByteStream):
    """What a caller sends bit by bit, as a request's body."""

    def __init__(self, body: SupportsRead[bytes] | AsyncIterable[bytes]) -> None:
        if not isinstance(body, AsyncIterable) and not hasattr(body, "read"):
            raise TypeError(
                f"bytes, an open file or an async iterable of bytes is needed, not {body!r}"
            )
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._body) if isinstance(self._body, AsyncIterable) else _Reads(self._body)


class _Reads:
    """An open file, read in a worker thread unless it is in memory anyway.

    A call that is cancelled waits for the read under way.
    """

    def __init__(self, file: SupportsRead[bytes]) -> None:
        self._file = file

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if isinstance(self._file, io.BytesIO):
            data = self._file.read(CHUNK)
        else:
            data = await anyio.to_thread.run_sync(self._file.read, CHUNK)
        if not data:
            raise StopAsyncIteration
        return data
