"""`vaka serve` as a process: start, signals, crashes, and what it says when it cannot start."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import trio
from tests.clients.authority import make_certificate
from tests.server.conftest import COMPONENT

from vaka.docker import Docker

TIME_LIMIT = 60
"""Seconds that a process may take for anything; on a quiet machine it takes less than two."""


class Process:
    """A running `vaka serve`."""

    def __init__(self, home: Path, *options: str, **environment: str) -> None:
        self._log = home.parent / "log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "vaka_server", "serve", "--port", "0", "--json", *options],
                env={**os.environ, "VAKA_HOME": str(home), **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        lines = ""
        for line in self._process.stdout:
            lines += line
            if line == "}\n":
                break
        if not lines:
            self.end()
            pytest.fail(self._log.read_text())
        self.said: dict[str, Any] = json.loads(lines)
        self.url: str = self.said["url"]
        self.pid = self._process.pid

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        return self._process.wait(TIME_LIMIT)

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(TIME_LIMIT)
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]


@contextmanager
def serving(home: Path, *options: str, **environment: str) -> Iterator[Process]:
    process = Process(home, *options, **environment)
    try:
        yield process
    finally:
        process.end()


def failing(home: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vaka_server", "serve", *options],
        env={**os.environ, "VAKA_HOME": str(home), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
        check=False,
    )


def until(condition: Any) -> None:
    """Wait for another process."""
    deadline = time.monotonic() + TIME_LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.mark.docker
def test_with_a_certificate_the_server_speaks_https(
    home: Path, tmp_path: Path, docker_host: str
) -> None:
    files = make_certificate(tmp_path, "127.0.0.1")
    tls = {"VAKA_TLS_CERTIFICATE": str(files.certificate), "VAKA_TLS_KEY": str(files.key)}

    with serving(home, **tls) as server:
        assert server.url.startswith("https://127.0.0.1:")
        trusting = ssl.create_default_context(cafile=files.authority)
        assert httpx.get(f"{server.url}/healthz", verify=trusting).json() == {"status": "ok"}
        index = httpx.get(f"{server.url}/v2/storage", verify=trusting).json()
        assert {each["url"].partition(":")[0] for each in index["services"]} == {"https"}
        with pytest.raises(httpx.ConnectError, match="certificate"):
            httpx.get(f"{server.url}/healthz")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"VAKA_TLS_KEY": "server.key"}, "only one of them is set"),
        ({"VAKA_TLS_CERTIFICATE": "server.pem"}, "only one of them is set"),
        (
            {"VAKA_TLS_CERTIFICATE": "server.pem", "VAKA_TLS_KEY": "none.key"},
            "none.key: .*No such file",
        ),
        (
            {"VAKA_TLS_CERTIFICATE": "authority.pem", "VAKA_TLS_KEY": "server.key"},
            "authority.pem and .*server.key: .*(?i:mismatch)",
        ),
    ],
    ids=["no certificate", "no key", "not there", "another key"],
)
def test_a_certificate_that_cannot_be_used_is_told_before_anything_is_made(
    home: Path, tmp_path: Path, settings: dict[str, str], reason: str
) -> None:
    make_certificate(tmp_path, "127.0.0.1")

    done = failing(home, **{name: str(tmp_path / file) for name, file in settings.items()})

    assert done.returncode != 0
    assert re.search(reason, done.stderr)
    assert not home.exists()


@pytest.mark.docker
@pytest.mark.scenario("runner", 35)
def test_a_new_home_gets_one_admin_token(home: Path, docker_host: str) -> None:
    with serving(home) as server:
        secret = server.said["token"]
        assert server.url.startswith("http://127.0.0.1:")
        assert server.said["pid"]
        headers = {"X-StorageApi-Token": secret}
        token = httpx.get(f"{server.url}/v2/storage/tokens/verify", headers=headers).json()
        assert (token["role"], token["isMasterToken"]) == ("admin", True)
        root = httpx.get(server.url).json()
        assert set(root) == {"host", "components", "documentation"}
        assert "vaka" in root["components"]
        assert httpx.get(f"{server.url}/healthz").json() == {"status": "ok"}
        ready = httpx.get(f"{server.url}/readyz")
        assert (ready.status_code, ready.json()) == (200, {"status": "ok"})
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert secret not in json.dumps(server.records)
    with serving(home) as server:
        assert server.said["token"] is None
        assert httpx.get(f"{server.url}/queue/job", headers=headers).json() == []


@pytest.mark.docker
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order(
    home: Path, number: signal.Signals, docker_host: str
) -> None:
    with serving(home) as server:
        # somebody who follows a job does not keep it from stopping
        headers = {"X-StorageApi-Token": server.said["token"]}
        httpx.put(f"{server.url}/v2/storage/components/C", headers=headers, json=COMPONENT)
        with httpx.Client(base_url=server.url, headers=headers) as client:
            id_ = client.post("/docker/C/run", json={"configData": {}}).json()["id"]
            follow = client.stream("GET", f"/queue/jobs/{id_}/events?follow=1", timeout=TIME_LIMIT)
            with follow as response:
                lines = response.iter_lines()
                next(lines)
                server.signal(number)
                assert server.wait() == 0
                for _ in lines:
                    pass
        events = [record["event"] for record in server.records]
        assert events[0] == "server.started"
        assert events[-1] == "server.stopped"
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.url)


@pytest.mark.docker
def test_a_second_signal_ends_it_at_once(home: Path, docker_host: str) -> None:
    # a request that does not end keeps it from stopping for as long as it may
    with serving(home, VAKA_GRACEFUL_TIMEOUT="1000") as server:
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        with socket.create_connection(address) as busy:
            secret = server.said["token"]
            busy.sendall(
                b"POST /vaka/files?name=a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n"
                b"X-StorageApi-Token: " + secret.encode() + b"\r\n\r\nhalf"
            )
            until(lambda: list((home / "uploads").glob("*")))
            server.signal(signal.SIGTERM)
            until(lambda: any(r["event"] == "server.stop_requested" for r in server.records))
            assert server.is_alive
            server.signal(signal.SIGTERM)
            assert server.wait() == -signal.SIGTERM
    with serving(home) as server:
        assert list((home / "uploads").glob("*")) == []
        assert any(record["event"] == "upload.forgotten" for record in server.records)


@pytest.mark.docker
def test_a_killed_server_can_be_started_again_with_all_it_had(home: Path, docker_host: str) -> None:
    with serving(home) as server:
        headers = {"X-StorageApi-Token": server.said["token"]}
        put = httpx.put(f"{server.url}/v2/storage/components/C", headers=headers, json=COMPONENT)
        assert put.status_code == 200
        server.signal(signal.SIGKILL)
        server.wait()
    with serving(home) as server:
        assert server.said["token"] is None
        found = httpx.get(f"{server.url}/v2/storage/components/C")
        assert found.json()["name"] == COMPONENT["name"]
        assert httpx.get(f"{server.url}/queue/job", headers=headers).status_code == 200


SLEEPER = "echo one; until [ -e /data/gate ]; do sleep 0.1; done; echo two"
"""Prints, waits until somebody opens the gate, prints again."""


@pytest.fixture
def sleeper(docker_host: str, busybox_image: str) -> Iterator[str]:
    """An image of this test's own, which plays `SLEEPER`."""
    repository = f"vaka-test-{uuid4().hex}"

    async def make() -> None:
        async with Docker(docker_host) as docker:
            container = await docker.containers.create({"Image": busybox_image})
            command = json.dumps(["sh", "-c", SLEEPER])
            try:
                await container.commit(repository=repository, tag="1", changes=f"CMD {command}")
            finally:
                await container.delete(force=True)

    async def remove() -> None:
        async with Docker(docker_host) as docker:
            await docker.images.delete(f"{repository}:1", force=True)

    trio.run(make)
    yield repository
    trio.run(remove)


@pytest.mark.docker
def test_a_job_and_who_follows_it_outlive_a_server_that_is_killed(
    home: Path, sleeper: str, docker_host: str
) -> None:
    definition = {"type": "dockerhub", "uri": sleeper, "tag": "1"}
    component = {**COMPONENT, "data": {"definition": definition, "network": "none"}}
    instance = {"VAKA_INSTANCE": f"test-{uuid4().hex[:8]}"}
    with serving(home, **instance) as server:
        secret = server.said["token"]
        headers = {"X-StorageApi-Token": secret}
        httpx.put(f"{server.url}/v2/storage/components/C", headers=headers, json=component)
        follower = subprocess.Popen(
            [
                *(sys.executable, "-m", "vaka_server", "run", "C", "--config-data", "{}"),
                *("--url", server.url, "--token", secret),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert follower.stdout is not None
            assert follower.stdout.readline().endswith(" one\n")
            server.signal(signal.SIGKILL)
            server.wait()
            port = server.url.rpartition(":")[2]
            with serving(home, "--port", port, **instance) as again:
                next(home.glob("jobs/*/data")).joinpath("gate").touch()
                out, err = follower.communicate(timeout=TIME_LIMIT)
                assert follower.returncode == 0, err
                assert [line.split()[-1] for line in out.splitlines()] == ["two"]
                assert "is success after" in err
                (job,) = httpx.get(f"{again.url}/queue/job", headers=headers).json()
                assert (job["status"], job["isFinished"]) == ("success", True)
                events = httpx.get(
                    f"{again.url}/queue/jobs/{job['id']}/events?kind=log", headers=headers
                )
                said = [json.loads(line)["message"] for line in events.text.splitlines()]
                assert said == ["one", "two"]
        finally:
            follower.kill()
            follower.communicate()


@pytest.mark.docker
def test_a_cancelled_job_leaves_no_container(home: Path, sleeper: str, docker_host: str) -> None:
    definition = {"type": "dockerhub", "uri": sleeper, "tag": "1"}
    component = {**COMPONENT, "data": {"definition": definition, "network": "none"}}
    instance = f"test-{uuid4().hex[:8]}"
    with serving(home, VAKA_INSTANCE=instance, VAKA_STOP_GRACE="0.2") as server:
        options = ["--url", server.url, "--token", server.said["token"]]

        def vaka(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "vaka_server", *arguments, *options],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TIME_LIMIT,
                check=False,
            )

        file = home.parent / "component.json"
        file.write_text(json.dumps(component))
        assert vaka("component", "add", str(file)).returncode == 0
        id_ = vaka("run", "C", "--config-data", "{}", "--no-wait").stdout.strip()
        until(lambda: vaka("logs", id_).stdout)
        ended = vaka("cancel", id_)
        assert ended.stdout.startswith(f"Job {id_} is terminated. It was stopped by admin")
        assert vaka("wait", id_).returncode == 4

    async def left() -> int:
        async with Docker(docker_host) as docker:
            names = {"name": [f"vaka-{instance}-"]}
            return len(await docker.containers.list(all=True, filters=names))

    assert trio.run(left) == 0


@pytest.mark.docker
@pytest.mark.parametrize(
    ("where", "code", "status"), [("server", 130, "processing"), ("embedded", 4, "terminated")]
)
def test_an_interrupt_cancels_an_embedded_job_and_leaves_one_on_a_server(
    home: Path, sleeper: str, docker_host: str, where: str, code: int, status: str
) -> None:
    definition = {"type": "dockerhub", "uri": sleeper, "tag": "1"}
    component = {**COMPONENT, "data": {"definition": definition, "network": "none"}}
    file = home.parent / "component.json"
    file.write_text(json.dumps(component))
    environment = {
        "VAKA_INSTANCE": f"test-{uuid4().hex[:8]}",
        "VAKA_STOP_GRACE": "0.2",
        "VAKA_SHUTDOWN": "stop",
    }

    def vaka(*arguments: str, options: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "vaka_server", *arguments, *options],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    with ExitStack() as stack:
        if where == "server":
            server = stack.enter_context(serving(home, **environment))
            options = ["--url", server.url, "--token", server.said["token"]]
        else:
            options = ["--home", str(home)]
            vaka("init", options=options).communicate(timeout=TIME_LIMIT)
        vaka("component", "add", str(file), options=options).communicate(timeout=TIME_LIMIT)
        with vaka("run", "C", "--config-data", "{}", options=options) as running:
            try:
                assert running.stdout is not None
                assert running.stdout.readline().endswith(" one\n")
                running.send_signal(signal.SIGINT)
                _, err = running.communicate(timeout=TIME_LIMIT)
            finally:
                running.kill()
        assert running.returncode == code, err
        listed = vaka("jobs", "--json", options=options)
        (job,) = json.loads(listed.communicate(timeout=TIME_LIMIT)[0])
        assert job["status"] == status
        if where == "server":
            assert f"Job {job['id']} goes on" in err
            ended = vaka("cancel", str(job["id"]), options=options)
            assert "is terminated" in ended.communicate(timeout=TIME_LIMIT)[0]


def test_a_home_that_is_in_use_is_not_taken(home: Path) -> None:
    with serving(home, VAKA_WORKER="false") as server:
        second = failing(home, "--port", "0")
        assert second.returncode == 5
        assert f"is in use by the server at {server.url}" in second.stderr
        assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_an_address_that_is_taken_is_told_and_leaves_the_home_alone(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        found = failing(home, "--port", port)
    assert found.returncode == 3
    assert f"Cannot listen on 127.0.0.1:{port}: Address already in use." in found.stderr
    assert "--port" in found.stderr
    assert not (home / "vaka.db").exists()


@pytest.mark.parametrize(
    ("options", "environment", "code", "words"),
    [
        (("--host", "nowhere.invalid"), {}, 3, "Cannot listen on nowhere.invalid:"),
        (("--host", "192.0.2.1"), {}, 3, "Cannot listen on 192.0.2.1:"),
        (("--port", "70000"), {}, 2, "VAKA_PORT"),
        ((), {"VAKA_STORE_URL": "nonsense"}, 3, "Error: "),
        (
            (),
            {"VAKA_RUNTIME_URL": "docker+unix:///nowhere.sock"},
            3,
            "Error: Cannot connect to Docker Engine via unix:///nowhere.sock",
        ),
    ],
)
def test_what_cannot_be_served_is_told_in_a_line(
    home: Path, options: tuple[str, ...], environment: dict[str, str], code: int, words: str
) -> None:
    found = failing(home, *(options or ("--port", "0")), **environment)
    assert found.returncode == code, found.stderr
    assert words in found.stderr
    assert "Traceback" not in found.stderr
    assert found.stdout == ""


def test_a_variable_without_effect_is_logged(home: Path) -> None:
    with serving(home, VAKA_WORKER="false", VAKA_CONCURENCY="3") as server:
        (record,) = (r for r in server.records if r["event"] == "setting.unknown")
        assert (record["variable"], record["meant"]) == ("VAKA_CONCURENCY", "VAKA_CONCURRENCY")
        assert record["level"] == "warning"


def test_a_server_for_people_says_where_it_is(home: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "vaka_server", "serve", "--port", "0"],
        env={**os.environ, "VAKA_HOME": str(home), "VAKA_WORKER": "false"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Vaka answers at http://127.0.0.1:")
        assert process.stdout.readline().startswith("Admin token, shown only now: 1-")
    finally:
        process.terminate()
        assert process.wait(TIME_LIMIT) == 0
        assert process.stdout is not None
        process.stdout.close()
