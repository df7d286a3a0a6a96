"""A registry of our own with a password, and images put into it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from vaka.docker import Docker
from vaka.hooks import Login
from vaka.models.container import ImageInfo, RegistryAuth

TIME_LIMIT = 60.0
USER, PASSWORD = "robot", "pw1"
HTPASSWD = "robot:$2y$05$Lo0ta9/L.Yil/L59WlNGRe/DMiaiCMdFh884a.o82r1.2lRhI.jKS\n"
CONFIG = """version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}
http: {{addr: 127.0.0.1:{port}}}
auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}
"""


def logged_in(auth: RegistryAuth | None) -> Login:
    """What gives a runtime these credentials."""

    async def login(_: ImageInfo | None) -> RegistryAuth | None:
        return auth

    return login


@dataclass(frozen=True, slots=True)
class Registry:
    """A registry on this machine that lets in `robot` only."""

    server: str

    @property
    def auth(self) -> RegistryAuth:
        return RegistryAuth(self.server, USER, PASSWORD)

    @property
    def login(self) -> Login:
        return logged_in(self.auth)

    async def push(self, docker: Docker, reference: str) -> str:
        """Put an image of the host into the registry; its digest. The host forgets its name."""
        auth = {"username": USER, "password": PASSWORD}
        items = await docker.images.push(reference, auth=auth)
        await docker.images.delete(reference, force=True)
        return str(next(item["aux"]["Digest"] for item in items if "aux" in item))


@contextmanager
def serve_registry(folder: Path) -> Iterator[Registry]:
    """Debian's docker-registry, running on an empty folder."""
    program = _registry_program()
    (folder / "htpasswd").write_text(HTPASSWD)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (folder / "config.yml").write_text(CONFIG.format(folder=folder, port=port))
    with (folder / "log").open("wb") as output:
        server = subprocess.Popen(
            [program, "serve", str(folder / "config.yml")], stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + TIME_LIMIT
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"docker-registry did not start: {(folder / 'log').read_text()}")
                time.sleep(0.02)
        yield Registry(f"127.0.0.1:{port}")
    finally:
        server.terminate()
        server.wait(TIME_LIMIT)


def _registry_program() -> str:
    program = shutil.which("docker-registry")
    if program is None and os.geteuid() == 0 and shutil.which("apt-get"):
        command = ["apt-get", "-qq", "install", "-y", "--no-install-recommends", "docker-registry"]
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(command, env=environment, capture_output=True, timeout=300, check=False)
        program = shutil.which("docker-registry")
    if program is None:
        pytest.fail("docker-registry is missing: apt-get install docker-registry", pytrace=False)
    return program
