"""`Docker`, the client: one Docker Engine and the connections to it."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from vaka.docker.containers import DockerContainer, DockerContainers
from vaka.docker.events import DockerEvents
from vaka.docker.images import DockerImages
from vaka.docker.logs import DockerLog
from vaka.docker.networks import DockerNetwork, DockerNetworks
from vaka.docker.system import DockerSystem
from vaka.docker.volumes import DockerVolume, DockerVolumes

if TYPE_CHECKING:
    import ssl
    from typing import Self

    from vaka.docker.types import JSON, Timeout

__all__ = [
    "Docker",
    "DockerContainer",
    "DockerContainers",
    "DockerEvents",
    "DockerImages",
    "DockerLog",
    "DockerNetwork",
    "DockerNetworks",
    "DockerSystem",
    "DockerVolume",
    "DockerVolumes",
]


class Docker:
    """A client of one Docker Engine, on Trio or asyncio, whichever runs.

    Use it as an async context manager, or call `close`: either ends every connection, also those that
    other tasks read. It may be used by any number of tasks at the same time. Cancelling a call closes
    its connection and leaves the client as it was. A call takes as long as the caller's cancel scope
    lets it; only connecting is bounded, to ten seconds.

    Args:
        url: `unix:///path/to/docker.sock`, `tcp://host:port` or `https://host:port`; None takes, in
            this order, `context`, `DOCKER_HOST`, `DOCKER_CONTEXT`, the context that is current on the
            command line, the first of the usual sockets.
        connector, session: only None. aiodocker takes aiohttp's here, which do not run on Trio.
        timeout: seconds that a call may take unless it can run for long by nature (wait, logs, pull
            and the like); or an object with `total`, as `aiohttp.ClientTimeout` is.
        ssl_context: for TCP; None takes the context's certificates, those of `DOCKER_CERT_PATH` with
            `DOCKER_TLS_VERIFY`, or for `https` the system's authorities.
        api_version: `v1.41` and the like; `auto` asks the daemon once, at the first call, and takes
            the newer of what both know.
        context: the name of a context of the command line.

    Raises:
        ValueError: an argument, or `DOCKER_HOST`, cannot be used.
        DockerContextError: the context is missing or broken.
    """

    def __init__(
        self,
        url: str | None = None,
        connector: object | None = None,
        session: object | None = None,
        timeout: Timeout = None,
        ssl_context: ssl.SSLContext | None = None,
        api_version: str = "auto",
        context: str | None = None,
    ) -> None:
        # Importing `vaka.docker` is cheap; who makes a client pays for HTTP and TLS.
        from vaka.docker._endpoint import find_endpoint  # noqa: PLC0415
        from vaka.docker._http import HTTP  # noqa: PLC0415

        if connector is not None or session is not None:
            raise TypeError(
                "connector and session must be None: connections are this client's own; "
                "say where the daemon is with url, context and ssl_context"
            )
        endpoint = find_endpoint(url, context, ssl_context)
        self._http = HTTP(endpoint, api_version=api_version, timeout=timeout)

        self.containers = DockerContainers(self)
        self.events = DockerEvents(self)
        self.images = DockerImages(self)
        self.networks = DockerNetworks(self)
        self.system = DockerSystem(self)
        self.volumes = DockerVolumes(self)

        self.pull = self.images.pull
        self.push = self.images.push

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the events and every connection. Calling it again does nothing."""
        await self.events.stop()
        await self._http.aclose()

    @property
    def docker_host(self) -> str:
        """The daemon's address."""
        return self._http.address

    @property
    def api_version(self) -> str:
        """The API version that is spoken, as in `v1.41`; `auto` before the first call."""
        return self._http.api_version

    async def auth(self, **credentials: Any) -> JSON:
        """The registry's answer to `username`, `password` and `serveraddress`.

        Raises:
            DockerError: they are wrong, or the registry cannot be asked.
        """
        answer: JSON = await self._http.call("POST", "auth", json=credentials)
        return answer

    async def version(self) -> JSON:
        """The daemon's versions: `Version`, `ApiVersion`, `Os`, `Arch`, `Components` and more."""
        version: JSON = await self._http.call("GET", "version")
        return version

    async def ping(self) -> str:
        """The daemon's `OK`; the cheapest way to learn whether it answers."""
        return str(await self._http.call("GET", "_ping", versioned=False))
