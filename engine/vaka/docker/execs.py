"""Execs: further commands in a running container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

from vaka.docker.stream import Stream
from vaka.docker.types import SENTINEL, unless_given
from vaka.docker.utils import clean_map

if TYPE_CHECKING:
    from vaka.docker.docker import Docker
    from vaka.docker.stream import Duplex
    from vaka.docker.types import JSON, Timeout


class Exec:
    """One command that was prepared in a container; `start` runs it, once."""

    def __init__(self, docker: Docker, id: str, tty: bool | None = None) -> None:  # noqa: A002
        self.docker = docker
        self._id = id
        self._tty = tty

    @property
    def id(self) -> str:
        return self._id

    async def inspect(self) -> JSON:
        """What the daemon knows of it: `Running`, `ExitCode`, `ProcessConfig` and more."""
        data: JSON = await self.docker._http.call("GET", f"exec/{self._id}/json")
        self._tty = bool(data["ProcessConfig"]["tty"])
        return data

    async def resize(self, *, h: int | None = None, w: int | None = None) -> None:
        """Tell its terminal a new size, in characters; nothing when none is given."""
        if params := clean_map({"h": h, "w": w}):
            await self.docker._http.call("POST", f"exec/{self._id}/resize", params=params)

    @overload
    def start(self, *, timeout: Timeout = SENTINEL, detach: Literal[False] = False) -> Stream: ...
    @overload
    async def start(self, *, timeout: Timeout = SENTINEL, detach: Literal[True]) -> bytes: ...
    def start(self, *, timeout: Timeout = SENTINEL, detach: bool = False) -> Any:
        """Run it: a `Stream` of its output and input, or with `detach` nothing to await but the start.

        The stream ends with the command; `inspect` then has its `ExitCode`. The command starts when the
        stream is entered or first used. `timeout` is of starting.
        """
        if detach:
            return self._start_detached(timeout)

        async def connect() -> tuple[Duplex, bool]:
            tty = await self._has_tty()
            config = {"Detach": False, "Tty": tty}
            hijacked = await self.docker._http.hijack(
                f"exec/{self._id}/start", json=config, timeout=unless_given(timeout)
            )
            return hijacked, tty

        return Stream(self.docker, connect)

    async def _start_detached(self, timeout: Timeout) -> bytes:
        config = {"Detach": True, "Tty": await self._has_tty()}
        async with await self.docker._http.open(
            "POST", f"exec/{self._id}/start", json=config, timeout=unless_given(timeout)
        ) as response:
            return await response.read()

    async def _has_tty(self) -> bool:
        if self._tty is None:
            await self.inspect()
        return bool(self._tty)
