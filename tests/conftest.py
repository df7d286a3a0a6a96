"""What tests share: a Docker Engine, images that are made here, and a PostgreSQL of our own.

Everything is real. What is missing fails the tests that need it, each with one line that says what
to do; nothing is skipped.
"""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict
from uuid import uuid4

import psycopg
import pytest
from tests.registry import Registry, serve_registry

ROOT = Path(__file__).resolve().parent.parent

IMAGES_TIME_LIMIT = 600
"""Seconds for making all images from nothing; with everything there it is below one."""

POSTGRESQL_TIME_LIMIT = 60


@pytest.fixture(scope="session")
def docker_host(_images: dict[str, str]) -> str:
    """The address of a Docker Engine that answers, as in `DOCKER_HOST`."""
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


@pytest.fixture(scope="session")
def busybox_image(_images: dict[str, str]) -> str:
    """An image of 2 MB: busybox, a shell, no Python. Its command is `sh`."""
    return _images["busybox"]


@pytest.fixture(scope="session")
def pybase_image(_images: dict[str, str]) -> str:
    """An image with Debian's Python 3.11 and busybox, nothing else. Its command is `python3`."""
    return _images["pybase"]


@pytest.fixture(scope="session")
def demo_images(_images: dict[str, str]) -> dict[str, str]:
    """The demo's images: `demo-delays`, `demo-processor-drop-missing`, and the like."""
    return {name: image for name, image in _images.items() if name.startswith("demo-")}


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A private registry of images on this machine."""
    with serve_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture(scope="session")
def _images() -> dict[str, str]:
    try:
        made = subprocess.run(
            [sys.executable, str(ROOT / ".ci/images.py"), "--json"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=IMAGES_TIME_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.fail(f"making the images took more than {IMAGES_TIME_LIMIT} s", pytrace=False)
    if made.returncode != 0:
        pytest.fail(made.stderr.strip(), pytrace=False)
    references: dict[str, str] = json.loads(made.stdout)
    return references


@dataclass(frozen=True)
class _Cluster:
    """A running PostgreSQL that only this test run can reach."""

    folder: Path

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://vaka@/{database}?host={self.folder}"

    def execute(self, statement: str) -> None:
        target = f"host={self.folder} user=vaka dbname=postgres connect_timeout=5"
        with psycopg.connect(target, autocommit=True) as connection:
            connection.execute(statement.encode())


@pytest.fixture(scope="session")
def _cluster() -> Iterator[_Cluster]:
    programs = _postgresql_programs()
    # Not below pytest's own temporary folder: that is closed to other users, and a socket's path
    # may have 107 bytes only.
    folder = Path(tempfile.mkdtemp(prefix="vaka-pg-", dir="/tmp"))
    try:
        identity = _unprivileged(folder)
        data, log = folder / "data", folder / "log"
        made = subprocess.run(
            [
                *(str(programs / "initdb"), "--pgdata", str(data), "--username", "vaka"),
                *("--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
            ],
            cwd=folder,
            **identity,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=POSTGRESQL_TIME_LIMIT,
            check=False,
        )
        if made.returncode != 0:
            pytest.fail(f"initdb failed: {made.stderr.strip()}", pytrace=False)
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(folder),
            "fsync": "off",  # a crash loses the cluster, which is made anew anyway
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "max_connections": "200",
        }
        options = [part for item in settings.items() for part in ("-c", "=".join(item))]
        with log.open("wb") as output:
            server = subprocess.Popen(
                [str(programs / "postgres"), "-D", str(data), *options],
                cwd=folder,
                **identity,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            cluster = _Cluster(folder)
            _wait_until_it_answers(cluster, server, log)
            yield cluster
        finally:
            server.send_signal(signal.SIGINT)  # fast: ends sessions instead of waiting for them
            try:
                server.wait(POSTGRESQL_TIME_LIMIT)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    finally:
        shutil.rmtree(folder)


def _postgresql_programs() -> Path:
    """The folder with initdb and postgres, the newest of Debian's first."""
    folders = Path("/usr/lib/postgresql").glob("*/bin")
    newest_first = sorted(folders, key=lambda folder: int(folder.parent.name), reverse=True)
    path = os.pathsep.join([*map(str, newest_first), os.environ.get("PATH", "")])
    initdb = shutil.which("initdb", path=path)
    if initdb is None:
        pytest.fail(
            "PostgreSQL's server programs are missing: run `make test` as root, or "
            "apt-get install --no-install-recommends postgresql",
            pytrace=False,
        )
    return Path(initdb).resolve().parent


class _Identity(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


def _unprivileged(folder: Path) -> _Identity:
    """Who runs PostgreSQL, which refuses to be root; `folder` becomes theirs."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    pytest.fail("PostgreSQL does not run as root, and there is no user nobody", pytrace=False)


def _wait_until_it_answers(cluster: _Cluster, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + POSTGRESQL_TIME_LIMIT
    while True:
        try:
            cluster.execute("SELECT 1")
        except psycopg.OperationalError as error:
            if server.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            tail = log.read_text(errors="replace")[-1000:]
            pytest.fail(f"PostgreSQL did not start: {error}\n{tail}", pytrace=False)
        else:
            return


@pytest.fixture(scope="session")
def postgresql_url(_cluster: _Cluster) -> str:
    """An SQLAlchemy URL of a PostgreSQL of this test run, its database `postgres`."""
    return _cluster.url("postgres")


@pytest.fixture
def fresh_database(_cluster: _Cluster) -> Iterator[str]:
    """An SQLAlchemy URL of an empty PostgreSQL database that only this test has."""
    name = f"test_{uuid4().hex}"
    _cluster.execute(f"CREATE DATABASE {name}")
    yield _cluster.url(name)
    _cluster.execute(f"DROP DATABASE {name} WITH (FORCE)")
