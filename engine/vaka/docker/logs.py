"""A container's log for several subscribers; for one reader `DockerContainer.output` is simpler."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from vaka.docker.channel import Channel, ChannelSubscriber

if TYPE_CHECKING:
    from vaka.docker.containers import DockerContainer
    from vaka.docker.docker import Docker
    from vaka.docker.stream import Output

MOST_AHEAD = 1024
"""Lines that a subscriber may be behind before the others wait for it."""
MOST_LINE = 65536
"""Bytes after which a line without an end is published in pieces."""


class DockerLog:
    """The log of one container, line by line: `run` reads it, every subscriber gets each line."""

    def __init__(self, docker: Docker, container: DockerContainer) -> None:
        self.docker = docker
        self.container = container
        self.channel = Channel(limit=MOST_AHEAD)
        self._output: Output | None = None

    def listen(self) -> ChannelSubscriber:
        """Deprecated: `subscribe`."""
        warnings.warn("use subscribe() method instead", DeprecationWarning, stacklevel=2)
        return self.channel.subscribe()

    def subscribe(self) -> ChannelSubscriber:
        """A subscriber of the lines that a `run` reads: bytes with their line end, None at the end."""
        return self.channel.subscribe()

    async def run(self, **params: Any) -> None:
        """Read the log until the container ends, or until `stop`.

        `params` are those of `DockerContainer.log`; both streams are read unless they say otherwise.
        """
        if self._output is not None:
            warnings.warn("already running", RuntimeWarning, stacklevel=2)
            return
        query = {"stdout": True, "stderr": True, **params, "follow": True}
        output = self._output = self.container._log_output(query, None)
        partial: dict[int, bytes] = {}
        try:
            async with output:
                async for stream, data in output:
                    *lines, rest = (partial.get(stream, b"") + data).split(b"\n")
                    for line in lines:
                        await self.channel.publish(line + b"\n")
                    if len(rest) >= MOST_LINE:
                        await self.channel.publish(rest)
                        rest = b""
                    partial[stream] = rest
            for rest in filter(None, partial.values()):
                await self.channel.publish(rest)
        finally:
            self._output = None
            await self.channel.publish(None)

    async def stop(self) -> None:
        """End `run`; what was read is still published."""
        if self._output is not None:
            await self._output.aclose()
