"""Volumes: the collection, and one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vaka.docker.utils import clean_filters

if TYPE_CHECKING:
    from vaka.docker.docker import Docker
    from vaka.docker.types import JSON


class DockerVolumes:
    """The volumes of a daemon."""

    def __init__(self, docker: Docker) -> None:
        self.docker = docker

    async def list(self, *, filters: Mapping[str, Any] | None = None) -> JSON:
        """`Volumes` and `Warnings`; `filters` are `dangling`, `driver`, `label`, `name`."""
        params = None if filters is None else {"filters": clean_filters(filters)}
        found: JSON = await self.docker._http.call("GET", "volumes", params=params)
        return found

    async def get(self, id: str) -> DockerVolume:  # noqa: A002 - aiodocker's name
        """The volume of this name."""
        data = await self.docker._http.call("GET", f"volumes/{id}")
        return DockerVolume(self.docker, data["Name"])

    async def create(self, config: dict[str, Any]) -> DockerVolume:
        """A new volume, or the one there is of that `Name`; without a name it gets one."""
        made = await self.docker._http.call("POST", "volumes/create", json=config)
        return DockerVolume(self.docker, made["Name"])

    async def prune(self, *, filters: Mapping[str, Any] | None = None) -> JSON:
        """Remove the unused volumes that pass `filters` (`label`, `all`); says which."""
        params = None if filters is None else {"filters": clean_filters(filters)}
        answer: JSON = await self.docker._http.call("POST", "volumes/prune", params=params)
        return answer


class DockerVolume:
    """One volume."""

    def __init__(self, docker: Docker, name: str) -> None:
        self.docker = docker
        self.name = name

    async def show(self) -> JSON:
        """All that the daemon knows of it."""
        data: JSON = await self.docker._http.call("GET", f"volumes/{self.name}")
        return data

    async def delete(self, force: bool = False) -> None:
        """Remove it; with `force`, one whose driver has lost it too."""
        await self.docker._http.call("DELETE", f"volumes/{self.name}", params={"force": force})
