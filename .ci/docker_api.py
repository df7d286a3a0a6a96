"""The few calls of the Docker Engine API that setting up needs, with the standard library alone.

Setting up runs before any package is installed, and a `docker` command on the path may be newer or
older than the daemon; the API is neither. Every call has a time limit: a hanging daemon must not
hang `make`. Paths carry no API version: what is called here is the same in every version, and each
daemon then answers in its own (the oldest that daemons accept moves on with them).
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

DEFAULT_HOST = "unix:///var/run/docker.sock"


class DockerUnreachable(Exception):
    """No Docker Engine answers; the text is the reason."""

    def __init__(self, reason: str, *, absent: bool = False) -> None:
        super().__init__(reason)
        self.absent = absent
        """Nothing listens there, so one can be started."""


class DockerRefused(Exception):
    """The daemon answered a call with an error; the text is its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Docker:
    """A Docker Engine at `host`, by default at `$DOCKER_HOST` or the system's socket."""

    def __init__(self, host: str | None = None) -> None:
        self.host = host or os.environ.get("DOCKER_HOST") or DEFAULT_HOST
        self._url = urllib.parse.urlsplit(self.host)
        if self._url.scheme not in ("unix", "tcp", "http", "https"):
            raise DockerUnreachable(
                f"DOCKER_HOST is {self.host!r}: it must begin with unix:// or tcp://"
            )

    @property
    def socket_path(self) -> Path | None:
        """Where the daemon's socket is, or None when it is reached over TCP."""
        return Path(self._url.path) if self._url.scheme == "unix" else None

    def ping(self) -> None:
        """Return when the daemon answers within 5 s; `DockerUnreachable` says why it does not."""
        try:
            status, body = self._call("GET", "/_ping", timeout=5)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise DockerUnreachable(error.strerror or str(error), absent=True) from error
        except TimeoutError as error:
            raise DockerUnreachable("something listens but did not answer within 5 s") from error
        except OSError as error:
            raise DockerUnreachable(error.strerror or str(error)) from error
        except http.client.HTTPException as error:
            raise DockerUnreachable(f"what answers there is no Docker Engine: {error!r}") from error
        if status != 200:
            raise DockerUnreachable(f"it answered {status}: {body[:200]!r}")

    def get(self, path: str) -> Any:
        """What the daemon says at `path`, parsed."""
        return json.loads(self._expect("GET", path))

    def exists(self, path: str) -> bool:
        """Whether the daemon knows the object at `path`."""
        try:
            self._expect("GET", path)
        except DockerRefused as refusal:
            if refusal.status == 404:
                return False
            raise
        return True

    def post(self, path: str, body: Any = None, *, timeout: float = 60) -> Any:
        """Send `body` as JSON to `path`; what the daemon answers, parsed."""
        data = b"" if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        answer = self._expect("POST", path, data, headers, timeout)
        return json.loads(answer) if answer.strip() else None

    def put_tar(self, path: str, tar: Path) -> None:
        """Send the archive `tar` to `path`."""
        headers = {"Content-Type": "application/x-tar"}
        self._expect("PUT", path, _chunks(tar), headers, 120)

    def import_tar(self, tar: Path, query: Iterable[tuple[str, str]]) -> None:
        """Make an image of one layer from the archive `tar`."""
        path = "/images/create?" + urllib.parse.urlencode([("fromSrc", "-"), *query])
        headers = {"Content-Type": "application/x-tar"}
        answer = self._expect("POST", path, _chunks(tar), headers, 120)
        for line in answer.splitlines():  # a stream of JSON objects: an error may come in a 200
            if "error" in (event := json.loads(line)):
                raise DockerRefused(200, event["error"])

    def delete(self, path: str) -> None:
        """Remove the object at `path`; one that is not there is fine."""
        try:
            self._expect("DELETE", path)
        except DockerRefused as refusal:
            if refusal.status != 404:
                raise

    def _expect(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 30,
    ) -> bytes:
        try:
            status, answer = self._call(method, path, body, headers, timeout)
        except (OSError, http.client.HTTPException) as error:
            raise DockerUnreachable(f"{method} {path} at {self.host}: {error!r}") from error
        if status >= 400:
            try:
                message = str(json.loads(answer)["message"])
            except (ValueError, KeyError, TypeError):
                message = answer.decode(errors="replace")
            raise DockerRefused(status, f"{method} {path}: {status} {message}")
        return answer

    def _call(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 30,
    ) -> tuple[int, bytes]:
        connection = self._connection(timeout)
        try:
            chunked = body is not None and not isinstance(body, bytes)
            extra = {"Transfer-Encoding": "chunked"} if chunked else {}
            connection.request(
                method, path, body, {**(headers or {}), **extra}, encode_chunked=chunked
            )
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        if self._url.scheme == "unix":
            return _UnixConnection(self._url.path, timeout)
        host, port = self._url.hostname or "127.0.0.1", self._url.port
        if self._url.scheme == "https" or os.environ.get("DOCKER_TLS_VERIFY"):
            folder = Path(os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
            context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
            context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
            return http.client.HTTPSConnection(host, port or 2376, timeout=timeout, context=context)
        return http.client.HTTPConnection(host, port or 2375, timeout=timeout)


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 18):
            yield chunk
