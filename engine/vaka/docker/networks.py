"""Networks: the collection, and one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vaka.docker.utils import clean_filters

if TYPE_CHECKING:
    from vaka.docker.docker import Docker
    from vaka.docker.types import JSON


class DockerNetworks:
    """The networks of a daemon."""

    def __init__(self, docker: Docker) -> None:
        self.docker = docker

    async def list(self, *, filters: Mapping[str, str | Sequence[str]] | None = None) -> list[JSON]:
        """The networks that pass `filters`.

        Those are `dangling`, `driver`, `id`, `label`, `name`, `scope` and `type`.
        """
        params = None if filters is None else {"filters": clean_filters(filters)}
        found: list[JSON] = await self.docker._http.call("GET", "networks", params=params)
        return found

    async def create(self, config: dict[str, Any]) -> DockerNetwork:
        """A new network; `config` has at least its `Name`."""
        made = await self.docker._http.call("POST", "networks/create", json=config)
        return DockerNetwork(self.docker, made["Id"])

    async def get(self, net_specs: str) -> DockerNetwork:
        """The network of this name, id or beginning of an id."""
        data = await self.docker._http.call("GET", f"networks/{net_specs}")
        return DockerNetwork(self.docker, data["Id"])

    async def prune(self, *, filters: Mapping[str, Any] | None = None) -> JSON:
        """Remove the unused networks that pass `filters` (`until`, `label`); says which."""
        params = None if filters is None else {"filters": clean_filters(filters)}
        answer: JSON = await self.docker._http.call("POST", "networks/prune", params=params)
        return answer


class DockerNetwork:
    """One network."""

    def __init__(self, docker: Docker, id_: str) -> None:
        self.docker = docker
        self.id = id_

    async def show(self) -> JSON:
        """All that the daemon knows of it, the containers in it included."""
        data: JSON = await self.docker._http.call("GET", f"networks/{self.id}")
        return data

    async def delete(self) -> bool:
        """Remove it; True when that is done."""
        async with await self.docker._http.open("DELETE", f"networks/{self.id}") as response:
            return response.status == 204

    async def connect(self, config: dict[str, Any]) -> None:
        """Put a container into it: `Container`, and perhaps `EndpointConfig`."""
        await self.docker._http.call("POST", f"networks/{self.id}/connect", json=config)

    async def disconnect(self, config: dict[str, Any]) -> None:
        """Take a container out of it: `Container`, and perhaps `Force`."""
        await self.docker._http.call("POST", f"networks/{self.id}/disconnect", json=config)
