"""What happens at the daemon, as it happens."""

from __future__ import annotations

import datetime as dt
import time
import warnings
from typing import TYPE_CHECKING, Any

import anyio

from vaka.docker.channel import Channel, ChannelSubscriber
from vaka.docker.exceptions import DockerError
from vaka.docker.types import SENTINEL, unless_given

if TYPE_CHECKING:
    from vaka.docker._response import JSONLines, Response
    from vaka.docker.docker import Docker
    from vaka.docker.types import JSON, Timeout


class DockerEvents:
    """The daemon's events: one connection, shared by all subscribers.

    No task is started behind anybody's back. A subscriber that has nothing to read reads from the
    daemon itself, for all of them; `run` does so for those who rather have it done by a task of theirs.
    A subscription counts from when it is made: what happens between then and the first read is asked of
    the daemon, which remembers the last 256 events.
    """

    def __init__(self, docker: Docker) -> None:
        self.docker = docker
        self.channel = Channel()
        self._params: dict[str, Any] | None = None
        self._timeout: Timeout = None
        self._response: Response | None = None
        self._lines: JSONLines
        self._reading = anyio.Lock()
        self._running = False

    def listen(self) -> ChannelSubscriber:
        """Deprecated: what `subscribe` gives, for a `run` that somebody else calls."""
        warnings.warn("use subscribe() method instead", DeprecationWarning, stacklevel=2)
        return self.channel.subscribe()

    def subscribe(self, *, create_task: bool = True, **params: Any) -> ChannelSubscriber:
        """A subscriber of the events from now on: `await get()` gives one, None after the last.

        An event is the daemon's object with `time` as a local `datetime`.

        Args:
            create_task: False for a subscriber that only waits for what a `run` publishes.
            params: `filters`, `since` and `until` (seconds since 1970). The first subscription's count
                for all: for others make another `DockerEvents(docker)`.

        Raises, when read:
            DockerConnectionLost: the daemon has gone; subscribe again.
        """
        if not create_task:
            return self.channel.subscribe()
        if self._params is None:
            self._params = {"since": f"{time.time():.9f}", **params}
        return self.channel.subscribe(self._fetch)

    async def run(self, *, timeout: Timeout = SENTINEL, **params: Any) -> None:
        """Read events for all subscribers, until the daemon has no more to tell (`until`) or `stop`."""
        if self._running:
            warnings.warn("already running", category=RuntimeWarning, stacklevel=2)
            return
        self._running = True
        if self._params is None:
            self._params, self._timeout = params, unless_given(timeout)
        try:
            goes_on = True
            while goes_on:
                async with self._reading:
                    goes_on = await self._read_one()
        finally:
            self._running = False
            await self.stop()

    async def stop(self) -> None:
        """End the events: subscribers read what has come, and then None. `subscribe` begins anew."""
        response, self._response, self._params = self._response, None, None
        if response is not None:
            await response.aclose()
        await self.channel.publish(None)

    async def _fetch(self, subscriber: ChannelSubscriber) -> None:
        async with self._reading:  # somebody who read meanwhile may have read for this one too
            if not subscriber.holds() and not subscriber.has_ended:
                try:
                    await self._read_one()
                except DockerError as error:
                    await self.channel.publish(error)
                    await self.stop()

    async def _read_one(self) -> bool:
        """Publish one event; False when no more come."""
        if self._response is None:
            if self._params is None:
                return False
            await self._connect(self._params)
        response = self._response
        try:
            event = await self._lines.read()
        except DockerError:
            if self._response is response:
                raise
            return False  # `stop` took it away
        if event is None:
            await self.stop()
            return False
        await self.channel.publish(_with_local_time(event))
        return True

    async def _connect(self, params: dict[str, Any]) -> None:
        from vaka.docker._response import JSONLines  # noqa: PLC0415 - HTTP is loaded with the client

        self._response = await self.docker._http.open(
            "GET", "events", params=params, timeout=self._timeout
        )
        self._lines = JSONLines(self._response)


def _with_local_time(event: JSON) -> JSON:
    if "time" in event:
        event["time"] = dt.datetime.fromtimestamp(event["time"])  # noqa: DTZ006 - as aiodocker's
    return event
