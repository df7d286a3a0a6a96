"""Network namespaces that are made once, and used by one container after another.

More than half of what a container costs the daemon is its network namespace, also where it has nothing
but a loopback: 224 ms and 227 ms CPU for a container of its own namespace, 139 and 126 for one that
joins another's (Docker Engine 20.10, two cores). So containers without a network join the namespace of
a *holder*: a container that does nothing, of an image of 150 bytes. It is as isolated as its own would
be, because a namespace has one container at a time, and nothing of that one outlives it.

Two invariants are kept here. A holder never outlives its engine: its program ends when its standard
input does, which is a connection of ours, and the daemon removes it then. And nothing depends on one:
without a holder a container gets a namespace of its own, as ever.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import secrets
import struct
import tarfile
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import trio

from vaka.docker import Docker, DockerError, DockerNotFound
from vaka.docker.containers import DockerContainer
from vaka.docker.stream import Stream
from vaka.models.container import ContainerSpec

log = logging.getLogger(__name__)

LABEL = "vaka.holder"
A_MINUTE = 60.0
"""Seconds after which a holder that nobody has used goes, and one that was never started is nobody's."""
BUSY = 4
"""Containers within a minute before holders are worth their own start: one saves 90 ms a use."""
LET_GO_TIMEOUT = 5.0

# read(0, …, 1) until it gives nothing, then exit(0)
_PROGRAMS = {
    "linux/amd64": (62, "31c031ff488d7424f8ba010000000f054885c07febb83c00000031ff0f05"),
    "linux/arm64": (
        183,
        "000080d2e14300d1220080d2e80780d2010000d41f0000f14cffff54000080d2a80b80d2010000d4",
    ),
}
_ADDRESS = 0x400000
_HEADERS = 64 + 56


@dataclass(slots=True, eq=False)
class Holder:
    """A namespace that is there, and the connection that keeps it."""

    container: DockerContainer
    keeps: Stream
    idle_since: float = field(default_factory=trio.current_time)


class Holders:
    """The holders of one engine on one daemon."""

    def __init__(self, docker: Docker, platform: str, most: int) -> None:
        """At most `most` of them, for images of `platform` (`os/architecture`)."""
        self._docker = docker
        self._platform = platform
        self._most = most if platform in _PROGRAMS else 0
        self._image: str | None = None
        self._idle: list[Holder] = []
        self._used: dict[str, Holder] = {}
        self._making = 0
        self._recent: deque[float] = deque(maxlen=BUSY)

    async def take(self, spec: ContainerSpec) -> str | None:
        """The network mode that gives a new container a namespace made before; None without one.

        Until `give_back` nobody else is given that namespace.
        """
        if not self._most or not _may_share(spec):
            return None
        holder = self._idle.pop() if self._idle else await self._another()
        if holder is None:
            return None
        self._used[spec.name] = holder
        return f"container:{holder.container.id}"

    def give_back(self, name: str) -> None:
        """The container of this name is gone: nothing is in its namespace any more."""
        holder = self._used.pop(name, None)
        if holder is not None:
            holder.idle_since = trio.current_time()
            self._idle.append(holder)

    async def drop(self, name: str) -> None:
        """The namespace that a container was given is not there: nobody is given it again."""
        holder = self._used.pop(name, None)
        if holder is not None:
            await self._let_go(holder)

    async def tidy(self) -> None:
        """Let go of what was not used for a minute, and of what an engine that died left unstarted."""
        limit = trio.current_time() - A_MINUTE
        for holder in [each for each in self._idle if each.idle_since < limit]:
            self._idle.remove(holder)
            await self._let_go(holder)
        filters = {"label": [LABEL], "status": ["created", "exited", "dead"]}
        for container in await self._docker.containers.list(all=True, filters=filters):
            if container["Created"] < time.time() - A_MINUTE:
                with suppress(DockerError):
                    await container.delete(force=True, v=True)

    async def aclose(self) -> None:
        """Let go of all of them. Must not fail."""
        for holder in (*self._idle, *self._used.values()):
            await self._let_go(holder)
        self._idle.clear()
        self._used.clear()
        self._most = 0

    async def _another(self) -> Holder | None:
        """A new holder, if there are that many containers and not too many holders."""
        now = trio.current_time()
        is_busy = len(self._recent) == BUSY and self._recent[0] > now - A_MINUTE
        self._recent.append(now)
        if not is_busy or len(self._used) + self._making >= self._most:
            return None
        self._making += 1
        try:
            return await self._make()
        except (DockerError, TimeoutError) as error:
            log.warning("holder.failed", extra={"error": str(error)})
            self._most = 0  # a daemon that cannot have one is not asked before each container
            return None
        finally:
            self._making -= 1

    async def _make(self) -> Holder:
        if self._image is None:
            self._image = await self._prepare_image()
        body: dict[str, Any] = {
            "Image": self._image,
            "Entrypoint": ["/hold"],
            "Labels": {LABEL: "1"},
            "User": "65534:65534",
            "AttachStdin": True,
            "OpenStdin": True,
            "StdinOnce": True,
            "HostConfig": {
                "NetworkMode": "none",
                "AutoRemove": True,
                "ReadonlyRootfs": True,
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges"],
                "PidsLimit": 64,
                "LogConfig": {"Type": "none"},
            },
        }
        made = await self._docker.containers.create(
            body, name=f"vaka-holder-{secrets.token_hex(8)}"
        )
        container = self._docker.containers.container(made.id, Config={"Tty": False})
        keeps = container.attach(stdin=True)
        is_held = False
        try:
            await keeps.__aenter__()
            await container.start()
            is_held = True
        finally:
            if not is_held:
                await self._let_go(Holder(container, keeps))
        return Holder(container, keeps)

    async def _let_go(self, holder: Holder) -> None:
        """End a holder, and return when it is gone."""
        with trio.move_on_after(LET_GO_TIMEOUT, shield=True):
            with suppress(DockerError):
                await holder.keeps.aclose()
            with suppress(DockerError, TimeoutError):
                await holder.container.delete(force=True, v=True)

    async def _prepare_image(self) -> str:
        archive, image = image_archive(self._platform)
        try:
            await self._docker.images.inspect(image)
        except DockerNotFound:
            await self._docker.images.import_image(archive)
        return image


def _may_share(spec: ContainerSpec) -> bool:
    """Whether nothing that a container asks for has to do with its namespace."""
    return spec.network == "none" and not spec.sysctls and spec.oci_runtime is None


def image_archive(platform: str) -> tuple[bytes, str]:
    """The image of holders as `docker load` takes it, and its id. The same bytes each time."""
    layer = _tar({"hold": (_program(platform), 0o555)})
    system, _, architecture = platform.partition("/")
    config = json.dumps(
        {
            "architecture": architecture,
            "os": system,
            "created": "1970-01-01T00:00:00Z",
            "config": {"Entrypoint": ["/hold"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_digest(layer)}"]},
            "history": [{"created": "1970-01-01T00:00:00Z"}],
        },
        sort_keys=True,
    ).encode()
    name = _digest(config)
    manifest = [{"Config": f"{name}.json", "RepoTags": ["vaka/holder:1"], "Layers": ["layer.tar"]}]
    files = {
        f"{name}.json": (config, 0o444),
        "layer.tar": (layer, 0o444),
        "manifest.json": (json.dumps(manifest).encode(), 0o444),
    }
    return _tar(files), f"sha256:{name}"


def _program(platform: str) -> bytes:
    """The executable: an ELF header, one segment, and the code."""
    machine, code = _PROGRAMS[platform][0], bytes.fromhex(_PROGRAMS[platform][1])
    size = _HEADERS + len(code)
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    numbers = (2, machine, 1, _ADDRESS + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = (1, 5, 0, _ADDRESS, _ADDRESS, size, size, 0x1000)
    header = identity + struct.pack("<HHIQQQIHHHHHH", *numbers)
    return header + struct.pack("<IIQQQQQQ", *segment) + code


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
