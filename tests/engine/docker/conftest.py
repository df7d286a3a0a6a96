"""Both event loops, a daemon that misbehaves, certificates, a registry, and containers that go away."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import http.server
import ipaddress
import json
import ssl
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import anyio
import pytest
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from vaka.docker import Docker
from vaka.docker.containers import DockerContainer

TEST_LIMIT = 30.0
"""Seconds after which a test that should long be done is ended, so that a lost wake-up is seen."""


class Run(Protocol):
    """Runs an async function to its end and gives what it returns."""

    def __call__(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any: ...


@pytest.fixture(params=["trio", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs what the test gives it, once on Trio and once on asyncio."""

    def run(function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        async def limited() -> Any:
            with anyio.fail_after(TEST_LIMIT):
                return await function(*args)

        return anyio.run(limited, backend=request.param)

    return run


# A daemon that misbehaves


@dataclass(frozen=True)
class Request:
    """What a client asked for."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[Request, ByteStream], Awaitable[None]]

VERSION = {"ApiVersion": "1.41", "MinAPIVersion": "1.12", "Version": "20.10.0"}


def http_answer(status: str, body: bytes, *headers: str) -> bytes:
    """An answer of known length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def json_answer(status: str, value: Any) -> bytes:
    """An answer that is JSON."""
    return http_answer(status, json.dumps(value).encode(), "Content-Type: application/json")


@dataclass
class FakeDaemon:
    """Answers `/version` as a daemon does and leaves all else to `answer`.

    `answer` writes what it likes, on the bare connection; when it returns, the next request is read,
    unless it has closed the connection.
    """

    answer: Answer
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    """How many were made."""
    open: int = 0
    """How many there are."""
    _streams: set[ByteStream] = field(default_factory=set)

    async def serve(self, stream: ByteStream) -> None:
        self.connections += 1
        self.open += 1
        self._streams.add(stream)
        try:
            async with stream:
                while (request := await _read_request(stream)) is not None:
                    self.requests.append(request)
                    if request.target.endswith("/version"):
                        await stream.send(json_answer("200 OK", VERSION))
                    else:
                        await self.answer(request, stream)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, ssl.SSLError):
            pass  # the client is gone, or the answer hung up
        finally:
            self._streams.discard(stream)
            self.open -= 1

    async def hang_up(self) -> None:
        """Close every connection."""
        for stream in list(self._streams):
            await stream.aclose()


async def _read_request(stream: ByteStream) -> Request | None:
    data = b""
    while b"\r\n\r\n" not in data:
        try:
            data += await stream.receive()
        except anyio.EndOfStream:
            return None
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += await stream.receive()
    return Request(method, target, headers, body)


@asynccontextmanager
async def serving(
    listener: Any, handler: Callable[[ByteStream], Awaitable[None]]
) -> AsyncIterator[None]:
    """Serve connections with `handler` during the block."""
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(partial(listener.serve, handler))
        yield
        tasks.cancel_scope.cancel()


@pytest.fixture
def fake_daemon(
    tmp_path: Path,
) -> Callable[[Answer], Any]:
    """`async with fake_daemon(answer) as (daemon, docker)`: a fake, and a client of it."""

    @asynccontextmanager
    async def fake_daemon(answer: Answer) -> AsyncIterator[tuple[FakeDaemon, Docker]]:
        daemon = FakeDaemon(answer)
        path = tmp_path / f"{uuid.uuid4().hex[:8]}.sock"
        async with (
            serving(await anyio.create_unix_listener(path), daemon.serve),
            Docker(f"unix://{path}") as docker,
        ):
            yield daemon, docker

    return fake_daemon


# Certificates


@dataclass(frozen=True)
class Certificates:
    """A folder as `DOCKER_CERT_PATH` names one, and the server's side of it."""

    folder: Path

    def server_context(self) -> ssl.SSLContext:
        """For a server that asks its clients for certificates."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.folder / "ca.pem")
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server-key.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self) -> ssl.SSLContext:
        """For a client that such a server accepts."""
        context = ssl.create_default_context(cafile=self.folder / "ca.pem")
        context.load_cert_chain(self.folder / "cert.pem", self.folder / "key.pem")
        return context


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A certificate authority, a server's certificate for 127.0.0.1 and a client's."""
    folder = tmp_path_factory.mktemp("certificates")
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
    start = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)

    def certificate(name: str, file: str, key_file: str, *, is_authority: bool = False) -> None:
        key = authority_key if is_authority else ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .sign(authority_key, hashes.SHA256())
        )
        (folder / file).write_bytes(made.public_bytes(serialization.Encoding.PEM))
        (folder / key_file).write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    certificate("Test authority", "ca.pem", "ca-key.pem", is_authority=True)
    certificate("server", "server.pem", "server-key.pem")
    certificate("client", "cert.pem", "key.pem")
    return Certificates(folder)


@asynccontextmanager
async def tcp_server(
    handler: Callable[[ByteStream], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve `handler` at a port of 127.0.0.1, which the block gets."""

    async def handshake_first(stream: ByteStream) -> None:
        async with stream:
            try:
                wrapped = await TLSStream.wrap(
                    stream, server_side=True, ssl_context=tls, standard_compatible=False
                )
            except (ssl.SSLError, anyio.BrokenResourceError, anyio.EndOfStream):
                return  # refused, by one side or the other
            await handler(wrapped)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port: int = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with serving(listener, handler if tls is None else handshake_first):
        yield port


@pytest.fixture
def tcp() -> Callable[..., Any]:
    """`async with tcp(handler, tls) as port`: a TCP server."""
    return tcp_server


@pytest.fixture
def relay(docker_host: str) -> Callable[[ByteStream], Awaitable[None]]:
    """Carries a connection to the real daemon and back, half-closes included."""
    assert docker_host.startswith("unix://")

    async def relay(client: ByteStream) -> None:
        async with client, await anyio.connect_unix(docker_host.removeprefix("unix://")) as daemon:

            async def there() -> None:
                try:
                    async for data in client:
                        await daemon.send(data)
                    await daemon.send_eof()
                except anyio.BrokenResourceError:
                    pass

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(there)
                try:
                    async for data in daemon:
                        await client.send(data)
                    if isinstance(client, TLSStream):
                        await client.unwrap()  # as a daemon does; a cut line is something else
                except (anyio.BrokenResourceError, anyio.EndOfStream):
                    pass
                tasks.cancel_scope.cancel()

    return relay


# The real daemon


@pytest.fixture
def create(docker_host: str, busybox_image: str) -> Callable[..., Any]:
    """`async with create(docker, "echo hi", Tty=True) as container`: one that goes away."""

    @asynccontextmanager
    async def create(
        docker: Docker, command: str, *, name: str | None = None, **config: Any
    ) -> AsyncIterator[DockerContainer]:
        container = await docker.containers.create(
            {
                "Image": busybox_image,
                "Cmd": ["sh", "-c", command],
                "HostConfig": {"NetworkMode": "none"},
                "Labels": {"vaka.test": "docker-client"},
                **config,
            },
            name=name,
        )
        try:
            yield container
        finally:
            with anyio.CancelScope(shield=True):
                await container.delete(force=True, v=True)

    return create


# A registry


class Registry:
    """An image registry with one user, on this machine, in memory.

    It holds whatever is pushed; nothing is checked but the password.
    """

    username = "robot"
    password = "correct horse"

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                registry.get(self)

            def do_HEAD(self) -> None:
                registry.get(self)

            def do_POST(self) -> None:
                registry.store(self)

            def do_PATCH(self) -> None:
                registry.store(self)

            def do_PUT(self) -> None:
                registry.store(self)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        self._uploads: dict[str, bytes] = {}

    @property
    def auth(self) -> dict[str, str]:
        return {"username": self.username, "password": self.password}

    def get(self, request: http.server.BaseHTTPRequestHandler) -> None:
        if not self._is_let_in(request):
            return
        *name, kind, key = request.path.split("/")[2:] if request.path != "/v2/" else ["", "", ""]
        if request.path == "/v2/":
            self._answer(request, 200, b"{}")
        elif kind == "manifests" and ("/".join(name), key) in self.manifests:
            media_type, body = self.manifests["/".join(name), key]
            self._answer(request, 200, body, media_type)
        elif kind == "blobs" and key in self.blobs:
            self._answer(request, 200, self.blobs[key])
        else:
            self._answer(
                request, 404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}'
            )

    def store(self, request: http.server.BaseHTTPRequestHandler) -> None:
        body = self._body(request)
        if not self._is_let_in(request):
            return
        path, _, query = request.path.partition("?")
        if request.command == "POST":
            upload = f"{path}{uuid.uuid4().hex}"
            self._uploads[upload] = b""
            self._answer(request, 202, b"", location=upload)
        elif request.command == "PATCH":
            self._uploads[path] += body
            received = len(self._uploads[path])
            self._answer(request, 202, b"", location=path, received=received)
        elif "/manifests/" in path:
            name, _, reference = path.removeprefix("/v2/").partition("/manifests/")
            media_type = request.headers["Content-Type"]
            digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
            for key in (reference, digest):
                self.manifests[name, key] = (media_type, body)
            self._answer(request, 201, b"", digest=digest)
        else:
            digest = query.removeprefix("digest=").replace("%3A", ":")
            self.blobs[digest] = self._uploads.pop(path) + body
            self._answer(request, 201, b"", digest=digest)

    def _is_let_in(self, request: http.server.BaseHTTPRequestHandler) -> bool:
        right = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        if request.headers.get("Authorization") == f"Basic {right}":
            return True
        self._answer(
            request,
            401,
            b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}',
        )
        return False

    @staticmethod
    def _body(request: http.server.BaseHTTPRequestHandler) -> bytes:
        if request.headers.get("Transfer-Encoding") != "chunked":
            return request.rfile.read(int(request.headers.get("Content-Length", "0")))
        body = b""
        while size := int(request.rfile.readline(), 16):
            body += request.rfile.read(size)
            request.rfile.readline()
        request.rfile.readline()
        return body

    @staticmethod
    def _answer(
        request: http.server.BaseHTTPRequestHandler,
        status: int,
        body: bytes,
        media_type: str = "application/json",
        *,
        location: str = "",
        received: int = 0,
        digest: str = "",
    ) -> None:
        request.send_response(status)
        request.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        if status == 401:
            request.send_header("WWW-Authenticate", 'Basic realm="test"')
        if location:
            request.send_header("Location", location)
            request.send_header("Range", f"0-{max(received - 1, 0)}")
        digest = digest or f"sha256:{hashlib.sha256(body).hexdigest()}"
        request.send_header("Docker-Content-Digest", digest)
        request.send_header("Content-Type", media_type)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A registry that the daemon on this machine can reach."""
    registry = Registry()
    thread = threading.Thread(target=registry.server.serve_forever, args=(0.02,))
    thread.start()
    yield registry
    registry.server.shutdown()
    thread.join()
    registry.server.server_close()
