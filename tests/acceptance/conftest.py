"""A real server as a process of its own, that a test may kill."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from tests.acceptance.images import Images

STARTS = 60.0
"""Seconds within which a server answers: a bound, no measure."""
PATIENCE = 120.0


@cache
def initialised() -> tuple[TemporaryDirectory[str], str]:
    """A home as `vaka init` makes it, to be copied by whoever needs one; its admin token."""
    folder = TemporaryDirectory(prefix="vaka-home-")
    made = Server(Path(folder.name), "template").run("init", "--json")
    return folder, json.loads(made.stdout)["token"]


class Server:
    """`vaka serve` on one home. `start` it, `kill` it, start it again; `vaka` runs the command."""

    command = (sys.executable, "-m", "vaka_server")

    def __init__(self, home: Path, instance: str) -> None:
        self.home = home
        self.instance = instance
        self.token = ""
        self.url = ""
        self.settings: dict[str, str] = {}
        """More environment variables."""
        # one client for all calls, as each would load all certificates anew; and no connection is kept,
        # as servers are killed
        self.http = httpx.Client(timeout=PATIENCE, limits=httpx.Limits(max_keepalive_connections=0))
        self._process: subprocess.Popen[str] | None = None

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("VAKA_")}
        return {
            **kept,
            "VAKA_HOME": str(self.home),
            "VAKA_INSTANCE": self.instance,
            "VAKA_RECONCILE_INTERVAL": "1",
            "VAKA_PULL_ATTEMPTS": "1",
            **self.settings,
        }

    @property
    def pid(self) -> int:
        """Of the server's process, while it runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def client_environment(self) -> dict[str, str]:
        """What makes `command` talk to the server."""
        return {**self.environment, "VAKA_URL": self.url, "VAKA_TOKEN": self.token}

    def start(self) -> None:
        """Start the server and return once it answers."""
        if not self.token:
            self.token = self._initialise()
        log = (self.home / "server.log").open("a")
        self._process = subprocess.Popen(
            [*self.command, "serve", "--port", "0", "--json"],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        log.close()
        assert self._process.stdout is not None
        told = ""
        while not told.endswith("}\n"):
            line = self._process.stdout.readline()
            assert line, f"the server ended at once: {(self.home / 'server.log').read_text()}"
            told += line
        self.url = json.loads(told)["url"]
        deadline = time.monotonic() + STARTS
        while self.http.get(f"{self.url}/readyz").status_code != 200:
            assert time.monotonic() < deadline, "the server does not become ready"

    def _initialise(self) -> str:
        """Make the home what `vaka init` makes of it; its admin token."""
        if {"VAKA_STORE_URL", "VAKA_CATALOG_URL"} & self.settings.keys():
            token: str = json.loads(self.run("init", "--json").stdout)["token"]
            return token
        made, token = initialised()
        shutil.copytree(made.name, self.home, dirs_exist_ok=True)
        return token

    def kill(self, with_signal: signal.Signals = signal.SIGKILL) -> int:
        """End the server's process, and only that; its exit code."""
        self.send(with_signal)
        return self.ended()

    def send(self, with_signal: signal.Signals) -> None:
        """Send a signal to the server's process."""
        assert self._process is not None
        self._process.send_signal(with_signal)

    @property
    def is_alive(self) -> bool:
        """Whether the server's process runs."""
        return self._process is not None and self._process.poll() is None

    def wait_for_log(self, event: str) -> None:
        """Return once the server has logged an event of this name."""
        deadline = time.monotonic() + PATIENCE
        while f'"{event}"' not in (self.home / "server.log").read_text():
            assert time.monotonic() < deadline, f"{event} was never logged"

    def ended(self) -> int:
        """Return once the server's process has ended; its exit code."""
        assert self._process is not None
        code = self._process.wait(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None
        return code

    def close(self) -> None:
        if self._process is not None:
            self.kill()
        self.http.close()

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`vaka` without a server, as one finished process; fails the test when it fails."""
        return self._vaka(self.environment, words)

    def vaka(self, *words: str) -> Any:
        """`vaka --json` against the server; what it answered."""
        done = self._vaka(self.client_environment, (*words, "--json"))
        return json.loads(done.stdout or "null")

    def _vaka(
        self, environment: dict[str, str], words: tuple[str, ...]
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.command, *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"vaka {words}: {done.stdout}\n{done.stderr}"
        return done

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        return self.http.get(
            self.url + path, params=parameters, headers={"X-StorageApi-Token": self.token}
        )

    def post(self, path: str, body: Any = None) -> httpx.Response:
        return self.http.post(
            self.url + path, json=body, headers={"X-StorageApi-Token": self.token}
        )

    def events(self, job: str) -> list[dict[str, Any]]:
        answer = self.get(f"/queue/jobs/{job}/events")
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.text.splitlines()]

    def logged(self, job: str) -> list[str]:
        return [event["message"] for event in self.events(job) if event["kind"] == "log"]

    def wait_for_line(self, job: str, line: str) -> None:
        """Return once a job's container has printed this line and it is stored."""
        deadline = time.monotonic() + PATIENCE
        while line not in self.logged(job):
            assert time.monotonic() < deadline, f"{line!r} never came: {self.events(job)}"

    def wait(self, job: str) -> dict[str, Any]:
        """Return once a job has ended; its resource."""
        deadline = time.monotonic() + PATIENCE
        while True:
            resource: dict[str, Any] = self.get(f"/queue/job/{job}").json()
            if resource["isFinished"]:
                return resource
            assert time.monotonic() < deadline, f"job {job} does not end: {resource}"


@pytest.fixture
def server(docker_host: str, tmp_path: Path) -> Iterator[Server]:
    """A server on a new home; not started."""
    home = tmp_path / "home"
    home.mkdir()
    server = Server(home, f"test-{secrets.token_hex(4)}")
    yield server
    server.close()


@pytest.fixture(scope="session")
def images(docker_host: str, busybox_image: str) -> Iterator[Images]:
    """Makes images for components of the tests."""
    images = Images(docker_host, busybox_image)
    yield images
    images.close()
