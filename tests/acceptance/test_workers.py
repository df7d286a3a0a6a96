"""An API without Docker, and several workers on one job store: real processes on one PostgreSQL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.acceptance.conftest import PATIENCE, Server
from tests.acceptance.images import Images

pytestmark = pytest.mark.docker

EXAMPLE = Path(__file__).resolve().parents[2] / "docs/examples/vaka-sqlite"
LEASE = 3
NOWHERE = "unix:///nowhere/docker.sock"
WORK = r"""
echo "begun by $KBC_CONFIGID"
printf 'id\n1\n' > /data/out/tables/out.csv
"""
SLEEPER = r"""
echo begun
while [ ! -e /tmp/wake ]; do sleep 0.1; done
"""


class Worker:
    """`vaka worker` with a home of its own, on the store and Storage of a server."""

    def __init__(self, server: Server, home: Path, docker_host: str) -> None:
        self.home = home
        self._log = home.with_suffix(".log")
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [*server.command, "worker", "--home", str(home), "--json"],
                env={**server.environment, "DOCKER_HOST": docker_host},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        told = ""
        while not told.endswith("}\n"):
            line = self.process.stdout.readline()
            assert line, f"the worker ended at once: {self._log.read_text()}"
            told += line

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return once the process has ended; its exit code."""
        assert self.process.stdout is not None
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        self.process.stdout.close()
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.end(signal.SIGKILL)

    @property
    def listens(self) -> bool:
        return listening(self.process.pid)


def sockets(pid: int) -> set[str]:
    """Inodes of the sockets that a process has open."""
    links = (str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir())
    return {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}


def listening(pid: int) -> bool:
    """Whether a process listens on any TCP port."""
    own = sockets(pid)
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in own:
                return True
    return False


@pytest.fixture
def front(server: Server, fresh_database: str, tmp_path: Path) -> Server:
    """A server without a worker and without Docker, on a store and a Storage that others can use."""
    shared = tmp_path / "shared"
    shared.mkdir()
    installed = tmp_path / "site/vaka_sqlite-1.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: vaka-sqlite\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[vaka]\nsqlite = vaka_sqlite\n")
    server.settings = {
        "VAKA_STORE_URL": fresh_database,
        "VAKA_STORAGE_URL": f"sqlite-tables://{shared}/tables.db",
        "VAKA_CATALOG_URL": f"local://{shared}/catalog",
        "VAKA_LEASE": str(LEASE),
        "VAKA_CONCURRENCY": "2",
        "VAKA_WORKER": "false",
        "DOCKER_HOST": NOWHERE,
        "PYTHONPATH": os.pathsep.join([str(EXAMPLE), str(installed.parent)]),
    }
    return server


@pytest.fixture
def workers(front: Server, docker_host: str, tmp_path: Path) -> Iterator[list[Worker]]:
    """The server, started, and two workers."""
    front.start()
    started = [Worker(front, tmp_path / f"worker-{number}", docker_host) for number in range(2)]
    yield started
    for each in started:
        each.close()


def register(front: Server, images: Images, component: str, script: str) -> None:
    answer = httpx.put(
        f"{front.url}/v2/storage/components/{component}",
        json=images.component(component, script),
        headers={"X-StorageApi-Token": front.token},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text


def submit(front: Server, component: str, config: str | None = None) -> str:
    body: dict[str, object] = {"config": config} if config else {"configData": {}}
    answer = front.post(f"/docker/{component}/run", body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def test_an_api_without_docker_accepts_jobs_and_workers_without_http_run_each_once(
    front: Server, workers: list[Worker], images: Images
) -> None:
    register(front, images, "test.work", WORK)
    for name in ("a", "b"):
        table = {"source": "out.csv", "destination": f"out.c-test.{name}"}
        body = {
            "configurationId": name,
            "name": name,
            "configuration": {"storage": {"output": {"tables": [table]}}},
        }
        made = front.post("/v2/storage/components/test.work/configs", body)
        assert made.status_code == 201, made.text

    jobs = {submit(front, "test.work", name): name for name in ("a", "b") * 3}

    for job, name in jobs.items():
        resource = front.wait(job)
        assert resource["status"] == "success", resource
        assert front.logged(job) == [f"begun by {name}"]
    for name in ("a", "b"):
        # each job has loaded its row once, over that of the one before
        assert front.get(f"/v2/storage/tables/out.c-test.{name}").json()["rowsCount"] == 1
    assert images.containers(front.instance) == []
    assert not any(worker.listens for worker in workers)
    assert [worker.end() for worker in workers] == [0, 0]


def test_the_job_of_a_killed_worker_is_taken_over_after_its_lease_and_told_truly(
    front: Server, workers: list[Worker], images: Images
) -> None:
    register(front, images, "test.sleeper", SLEEPER)
    job = submit(front, "test.sleeper")
    front.wait_for_line(job, "begun")
    (victim,) = [each for each in workers if (each.home / "jobs" / job).exists()]

    victim.end(signal.SIGKILL)

    resource = front.wait(job)
    assert resource["status"] == "error"
    shown = front.get(f"/queue/job/{job}", include="stages").json()
    assert shown["cause"]["kind"] == "container_lost"
    assert front.logged(job) == ["begun"]
    assert images.containers(front.instance) == []


def test_without_a_worker_jobs_wait_and_say_for_what(front: Server, images: Images) -> None:
    front.start()  # and is ready, though its Docker Engine is nowhere
    register(front, images, "test.work", WORK)

    job = submit(front, "test.work")

    shown = front.get(f"/queue/job/{job}", include="stages").json()
    assert shown["progress"]["waitsFor"] == "an engine that runs jobs"
    (warning,) = httpx.get(f"{front.url}/readyz").json()["warnings"]
    assert "1 job waits" in warning
    assert "vaka worker" in warning


@pytest.mark.parametrize("setting", ["VAKA_STORE_URL", "VAKA_STORAGE_URL"])
def test_a_worker_on_what_nobody_else_can_use_says_what_to_set(
    front: Server, setting: str, tmp_path: Path
) -> None:
    environment = front.environment
    del environment[setting]
    done = subprocess.run(
        [sys.executable, "-m", "vaka_server", "worker", "--home", str(tmp_path / "alone")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode != 0
    assert setting in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "alone").exists()
