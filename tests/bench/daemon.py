"""The reference for containers: Docker Engine over its socket with `http.client`, nothing on top."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

BASE_IMAGE = "vaka/busybox:1"
COPY = "cp /data/in/tables/*.csv /data/out/tables/"
"""All that the measured component does."""
LABEL = "vaka.bench"
TIMEOUT = 120.0


class Refused(Exception):
    """The daemon answered with an error; the text says to what and why."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass(frozen=True, slots=True)
class RawRun:
    """One container's life as this driver saw it."""

    seconds: float
    """Create, attach, start, read, wait and remove; looking at `started` is left out."""
    begun: float
    """When its creation was asked for, as `time.time()` tells it."""
    started: float
    """When it ran, by the daemon's clock, which is the same one."""


class Daemon:
    """One keep-alive connection to the daemon of `DOCKER_HOST`; for one thread."""

    def __init__(self) -> None:
        host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        if not host.startswith("unix://"):
            raise SystemExit(f"make bench compares over a unix socket, and DOCKER_HOST is {host}.")
        self._path = host.removeprefix("unix://")
        self._connection = _Connection(self._path)

    def close(self) -> None:
        self._connection.close()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """What the daemon answers, parsed; `Refused` from 400 on."""
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"} if data else {}
        self._connection.request(method, path, data, headers)
        response = self._connection.getresponse()
        answer = response.read()
        if response.status >= 400:
            raise Refused(f"{method} {path}: {response.status} {answer.decode(errors='replace')}")
        return json.loads(answer) if answer.strip() else None

    def run(self, name: str, body: Mapping[str, Any]) -> RawRun:
        """Create, attach, start, read the output to its end, wait, remove.

        Raises:
            Refused: the daemon did not do it, or the container's exit code is not 0.
        """
        begun, clock = time.time(), time.perf_counter()
        container = self.call("POST", f"/containers/create?name={name}", body)["Id"]
        attached = _Connection(self._path)
        attached.request("POST", f"/containers/{container}/attach?stream=1&stdout=1&stderr=1")
        output = attached.getresponse()
        self.call("POST", f"/containers/{container}/start")
        printed = output.read()
        attached.close()
        code = self.call("POST", f"/containers/{container}/wait")["StatusCode"]
        seconds = time.perf_counter() - clock
        state = self.call("GET", f"/containers/{container}/json")["State"]
        clock = time.perf_counter()
        self.call("DELETE", f"/containers/{container}?v=1")
        seconds += time.perf_counter() - clock
        if code != 0:
            raise Refused(f"container {name} ended with exit code {code}: {printed!r}")
        return RawRun(seconds, begun, datetime.fromisoformat(state["StartedAt"]).timestamp())

    def remove_all(self, label: str) -> None:
        """Remove whatever carries a label, running or not."""
        filters = quote(json.dumps({"label": [label]}))
        for found in self.call("GET", f"/containers/json?all=1&filters={filters}"):
            self.call("DELETE", f"/containers/{found['Id']}?force=1&v=1")


@contextmanager
def copying_image(tag: str) -> Iterator[str]:
    """An image whose command copies the tables of `/data/in` to `/data/out`; gone afterwards."""
    with made_image("vaka/bench-copy", tag, COPY) as image:
        yield image


@contextmanager
def made_image(repository: str, tag: str, script: str) -> Iterator[str]:
    """The repository of an image whose command is a shell script; gone afterwards."""
    daemon = Daemon()
    body = {"Image": BASE_IMAGE, "HostConfig": {"NetworkMode": "none"}, "Labels": {LABEL: tag}}
    try:
        container = daemon.call("POST", "/containers/create", body)["Id"]
    except Refused as error:
        raise SystemExit(f"{error}\nThe image is made by: make images") from error
    try:
        command = json.dumps(["sh", "-c", script])
        query = urlencode(
            {"container": container, "repo": repository, "tag": tag, "changes": f"CMD {command}"}
        )
        daemon.call("POST", f"/commit?{query}", {})
    finally:
        daemon.call("DELETE", f"/containers/{container}?force=1&v=1")
    try:
        yield repository
    finally:
        daemon.call("DELETE", f"/images/{repository}:{tag}?force=1")
        daemon.close()
