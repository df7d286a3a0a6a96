"""What tests share: a Docker Engine, images that are made here, and a PostgreSQL of our own.

Everything is real. What is missing fails the tests that need it, each with one line that says what
to do; nothing is skipped.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from tests.postgresql import Cluster, postgresql_cluster
from tests.registry import Registry, serve_registry

ROOT = Path(__file__).resolve().parent.parent

IMAGES_TIME_LIMIT = 600
"""Seconds for making all images from nothing; with everything there it is below one."""

POSTGRESQL_TIME_LIMIT = 60

GZIP_MAGIC = b"\x1f\x8b\x08"


def pytest_make_parametrize_id(val: object) -> None:
    """Refuse a parameter that names its test after the second in which it was packed.

    Workers that collect in different seconds would not have the same tests.
    """
    if isinstance(val, bytes) and val.startswith(GZIP_MAGIC) and any(val[4:8]):
        raise pytest.UsageError(f"{val!r} holds the time: pack it with mtime=0.")


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


@pytest.fixture(scope="session")
def _cluster() -> Iterator[Cluster]:
    # a crash loses the cluster, which is made anew anyway
    with postgresql_cluster(
        fsync="off", full_page_writes="off", synchronous_commit="off"
    ) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def postgresql_url(_cluster: Cluster) -> str:
    """An SQLAlchemy URL of a PostgreSQL of this test run, its database `postgres`."""
    return _cluster.url("postgres")


@pytest.fixture
def fresh_database(_cluster: Cluster) -> Iterator[str]:
    """An SQLAlchemy URL of an empty PostgreSQL database that only this test has."""
    name = f"test_{uuid4().hex}"
    _cluster.execute(f"CREATE DATABASE {name}")
    yield _cluster.url(name)
    _cluster.execute(f"DROP DATABASE {name} WITH (FORCE)")
