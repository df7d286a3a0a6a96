"""The daemon as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vaka.docker.docker import Docker
    from vaka.docker.types import JSON


class DockerSystem:
    """What a daemon says of itself."""

    def __init__(self, docker: Docker) -> None:
        self.docker = docker

    async def info(self) -> JSON:
        """What `docker info` shows: resources, drivers, counts, warnings."""
        info: JSON = await self.docker._http.call("GET", "info")
        return info

    async def df(self) -> JSON:
        """What uses disk space: `LayersSize`, `Images`, `Containers`, `Volumes`, `BuildCache`.

        The daemon measures every container and volume for it: seconds, on a busy host.
        """
        usage: JSON = await self.docker._http.call("GET", "system/df", timeout=None)
        return usage
