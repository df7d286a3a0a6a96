"""The container actor: create, listen, start, follow, wait.

It owns one container from its creation to the moment its end is known and everything it printed was
handed on. Removing it is its owner's business: the journal must know of the end first.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import trio

from vaka.actors.output import OutputReader
from vaka.actors.services import Services
from vaka.errors import ContainerLost
from vaka.models.container import (
    ContainerExit,
    ContainerPhase,
    ContainerSpec,
    OutputChunk,
    StreamName,
)

log = logging.getLogger(__name__)

CREATIONS = 3
"""Times that a container is made which somebody removes before it was started."""
DRAIN_TIMEOUT = 30.0
"""Seconds that output may still come after a container's end, before it is read again from the log."""


class Listener(Protocol):
    """Who is told what a container does."""

    def found(self, container_id: str) -> None:
        """It is there, made now or by an earlier engine; it has not been started by this one."""

    async def starting(self) -> None:
        """The container is about to be started: after this it may have run."""

    async def printed(self, stream: StreamName, lines: list[str], reader: OutputReader) -> None:
        """It printed these lines; `reader.told` says how far they reach."""

    def received(self, chunk: OutputChunk) -> None:
        """These bytes came, before they are cut into lines."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a container may run, and since when it does."""

    seconds: float
    """0 is no limit."""
    running_since: datetime | None = None
    """Set for a container that an earlier engine started."""

    def deadline(self, now: datetime) -> float:
        """When it must have ended, on Trio's clock."""
        if self.seconds <= 0:
            return math.inf
        spent = 0.0
        if self.running_since is not None:
            spent = max(0.0, (now - self.running_since).total_seconds())
        return trio.current_time() + self.seconds - spent


@dataclass(frozen=True, slots=True)
class Ending:
    """How a container's run came to its end."""

    exit: ContainerExit
    timed_out: bool
    stopped: bool
    """Somebody asked it to stop before it ended by itself."""


async def run_container(
    services: Services,
    spec: ContainerSpec,
    reader: OutputReader,
    listener: Listener,
    limits: Limits,
    *,
    stop: trio.Event,
    fresh: bool = True,
    may_create: bool = True,
) -> Ending | None:
    """Bring a container to its end, from wherever it is now, and hand on all it prints.

    `stop` asks it to end: None is returned when it was set before the container was started. `fresh`
    says that no earlier try can have made it. A cancelled call leaves the container as it is.

    A container that vanishes and certainly never ran is created again.

    Raises:
        ContainerLost: there is no such container, and it may not be created (again).
        ImageUnavailable: its image was removed since it was prepared.
    """
    attempt = 1
    while True:
        try:
            return await _run(services, spec, reader, listener, limits, stop, fresh, may_create)
        except ContainerLost as error:
            if not error.never_started or attempt == CREATIONS:
                raise
            log.warning("container.vanished", extra={"container": spec.name, "attempt": attempt})
        attempt += 1
        fresh, may_create = False, True


async def _run(
    services: Services,
    spec: ContainerSpec,
    reader: OutputReader,
    listener: Listener,
    limits: Limits,
    stop: trio.Event,
    fresh: bool,
    may_create: bool,
) -> Ending | None:
    runtime, name = services.runtime, spec.name
    async with AsyncExitStack() as stack:
        async with services.starting:
            found = None if fresh else await runtime.find(name)
            if found is None:
                if not may_create:
                    raise ContainerLost(
                        f"Container {name} had been started and is gone; it was removed by "
                        "somebody else, and how it ended is not known.",
                        name=name,
                    )
                if stop.is_set():
                    return None
                listener.found((await runtime.create(spec)).id)
            else:
                listener.found(found.id)
            is_new = found is None or found.phase is ContainerPhase.CREATED
            try:
                chunks = await stack.enter_async_context(runtime.output(name))
            except ContainerLost as error:
                error.never_started = is_new  # nobody but us starts it
                raise
            if is_new:
                if stop.is_set():
                    return None
                await listener.starting()
                await runtime.start(name)
        return await _follow(services, name, chunks, reader, listener, limits, stop)


async def _follow(
    services: Services,
    name: str,
    chunks: AsyncIterator[OutputChunk],
    reader: OutputReader,
    listener: Listener,
    limits: Limits,
    stop: trio.Event,
) -> Ending:
    """Follow a running container to its end, and end it when it must."""
    runtime = services.runtime
    deadline = limits.deadline(services.now())
    timed_out = stopped = False

    async def end_when_asked() -> None:
        nonlocal stopped
        await stop.wait()
        stopped = True
        await runtime.stop(name, grace=services.config.stop_grace)

    async def end_when_late() -> None:
        nonlocal timed_out
        await trio.sleep_until(deadline)
        timed_out = True
        await runtime.stop(name, grace=0)

    async with trio.open_nursery() as nursery:
        drained = trio.Event()
        nursery.start_soon(_collect, chunks, reader, listener, drained)
        nursery.start_soon(end_when_asked)
        nursery.start_soon(end_when_late)
        ending = await runtime.wait(name)
        with trio.move_on_after(DRAIN_TIMEOUT) as patience:
            await drained.wait()
        nursery.cancel_scope.cancel()
    if patience.cancelled_caught:
        # the stream hangs although the container has ended: what is missing is in its log
        log.warning("output.reread", extra={"container": name})
        async with runtime.output(name, skip=reader.received) as rest:
            await _collect(rest, reader, listener, drained)
    return Ending(ending, timed_out, stopped and not timed_out)


async def _collect(
    chunks: AsyncIterator[OutputChunk],
    reader: OutputReader,
    listener: Listener,
    drained: trio.Event,
) -> None:
    """Hand on what comes until the stream ends."""
    async for chunk in chunks:
        listener.received(chunk)
        lines = reader.feed(chunk)
        if lines:
            await listener.printed(chunk.stream, lines, reader)
    for stream, lines in reader.finish().items():
        if lines:
            await listener.printed(stream, lines, reader)
    drained.set()
