"""Published clients of Storage, unmodified, as processes of their own against a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.acceptance.images import Images
from tests.clients.authority import make_certificate
from tests.clients.kbagent import Kbagent
from tests.clients.kbcstorage import Kbcstorage
from tests.clients.mcp import Mcp
from tests.clients.network import Network, private_network
from tests.clients.site import (
    HOSTS,
    STORED_COMPONENTS,
    SUFFIX,
    Site,
    make_home,
    serving_plainly,
    serving_securely,
    worker_components,
)

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = ("Alpha", "Beta", "Gamma")
INSTALL_TIME_LIMIT = 900


@pytest.fixture(scope="session")
def clients() -> dict[str, Path]:
    """The environments that the published clients are installed in, by name."""
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci/clients.py"), "--json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INSTALL_TIME_LIMIT,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(done.stderr.strip(), pytrace=False)
    return {name: Path(folder) for name, folder in json.loads(done.stdout).items()}


@pytest.fixture(scope="session")
def images(docker_host: str, busybox_image: str) -> Iterator[Images]:
    """Makes images for the components that clients run."""
    images = Images(docker_host, busybox_image)
    yield images
    images.close()


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    """A network in which the services' names lead to an address that a server listens at."""
    with private_network(HOSTS) as network:
        yield network


@pytest.fixture(scope="session")
def plain(docker_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server on the loopback, by HTTP, with one project."""
    home = tmp_path_factory.mktemp("plain") / "home"
    accounts = make_home(home, PROJECTS[:1], STORED_COMPONENTS)
    with serving_plainly(home, accounts) as site:
        yield site


@pytest.fixture(scope="session")
def secure(
    network: Network, images: Images, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A server at hosts of its own, by HTTPS on port 443, with three projects."""
    folder = tmp_path_factory.mktemp("secure")
    certificate = make_certificate(folder, f"*.{SUFFIX}")
    components = [*STORED_COMPONENTS, *worker_components(images)]
    accounts = make_home(folder / "home", PROJECTS, components)
    with serving_securely(folder / "home", accounts, network, certificate) as site:
        yield site


@pytest.fixture(scope="session")
def kbcstorage(
    clients: dict[str, Path], plain: Site, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kbcstorage]:
    """kbcstorage in the project Alpha of the plain server."""
    with Kbcstorage(
        clients["kbcstorage"], plain, plain.accounts["Alpha"], tmp_path_factory.mktemp("kbcstorage")
    ) as client:
        yield client


@pytest.fixture(scope="session")
def kbagent(
    clients: dict[str, Path],
    secure: Site,
    network: Network,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Kbagent]:
    """keboola-cli, to be used with the project Alpha of the secure server."""
    with Kbagent(
        clients["keboola-cli"],
        secure,
        secure.accounts["Alpha"],
        tmp_path_factory.mktemp("kbagent"),
        network,
    ) as client:
        yield client


@pytest.fixture(scope="session")
def mcp(
    clients: dict[str, Path],
    secure: Site,
    network: Network,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Mcp]:
    """keboola-mcp-server in the project Beta of the secure server."""
    with Mcp(
        clients["keboola-mcp-server"],
        secure,
        secure.accounts["Beta"],
        network,
        tmp_path_factory.mktemp("mcp"),
    ) as client:
        yield client
