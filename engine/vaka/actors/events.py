"""The event writer: one a job, ordered, bounded, masked.

Whoever has something to say sends it and goes on; the writer stores what has gathered in one
transaction. The channel is bounded, so a job cannot produce faster than the store takes: that
backpressure reaches the container through its output stream, and nothing is dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import trio

from vaka.actors.services import Services
from vaka.masking import Masker
from vaka.models.container import StreamName
from vaka.models.event import Event, Level
from vaka.store import Fence

log = logging.getLogger(__name__)

BACKLOG = 64
"""Messages under way to the writer; one message is one note, or the lines of one read."""
BATCH_EVENTS = 2_000
"""Events stored in one transaction, at most about that many."""
GATHER = 0.02
"""Seconds that events wait for others to be stored with: a commit costs more than an event."""
OBSERVERS = 5.0
"""Seconds that plugins have for events that were stored together."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An event before it has its number and is masked."""

    kind: str
    level: Level
    message: str
    definition: int | None = None
    stage: int | None = None
    component: str | None = None
    stream: StreamName | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Message:
    time: datetime
    entries: Sequence[Entry]
    offsets: tuple[tuple[int, int], tuple[int, int]] | None = None
    """(definition, stage) and how much of (stdout, stderr) is told once these entries are."""
    stored: trio.Event | None = None


class EventLog:
    """The sending end: what the tasks of a job write events with."""

    def __init__(
        self, send: trio.MemorySendChannel[_Message], masker: Masker, services: Services
    ) -> None:
        self._send = send
        self._services = services
        self.masker = masker

    async def write(self, *entries: Entry) -> None:
        """Hand over events. Returns when the writer has room for them, not when they are stored."""
        await self._send.send(_Message(self._services.now(), entries))

    async def note(self, level: Level, message: str, **data: Any) -> None:
        """Hand over something the runner itself has to say."""
        await self.write(Entry("note", level, message, data=data))

    async def lines(
        self, entries: Sequence[Entry], stage: tuple[int, int], offsets: tuple[int, int]
    ) -> None:
        """Hand over lines of output together with how far into the two streams they reach."""
        await self._send.send(_Message(self._services.now(), entries, (stage, offsets)))

    async def flush(self) -> None:
        """Return when everything handed over so far is durable."""
        stored = trio.Event()
        await self._send.send(_Message(self._services.now(), (), stored=stored))
        await stored.wait()

    async def __aenter__(self) -> EventLog:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._send.aclose()


async def keep_events(
    services: Services,
    fence: Fence,
    masker: Masker,
    *,
    task_status: trio.TaskStatus[EventLog] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Store a job's events in the order they come, until every sender is closed."""
    send, inbox = trio.open_memory_channel[_Message](BACKLOG)
    seq = await services.store.last_seq(fence.job_id)
    async with inbox:
        task_status.started(EventLog(send, masker, services))
        async for first in inbox:
            messages = await _gather(inbox, first)
            events: list[Event] = []
            offsets: dict[tuple[int, int], tuple[int, int]] = {}
            for message in messages:
                for entry in message.entries:
                    seq += 1
                    events.append(_event(entry, seq, message.time, masker))
                if message.offsets is not None:
                    offsets[message.offsets[0]] = message.offsets[1]
            if events or offsets:
                await services.store.append_events(
                    fence.job_id, events, offsets=offsets or None, fence=fence
                )
            for message in messages:
                if message.stored is not None:
                    message.stored.set()
            if events and services.plugins.observes_events:
                await _tell_observers(services, fence.job_id, events)


async def _gather(inbox: trio.MemoryReceiveChannel[_Message], first: _Message) -> list[_Message]:
    """`first` and what comes within a moment, up to a batch; at once when somebody waits for it."""
    messages = [first]
    count = len(first.entries)
    with trio.move_on_after(GATHER):
        while messages[-1].stored is None and count < BATCH_EVENTS:
            try:
                messages.append(await inbox.receive())
            except trio.EndOfChannel:
                break
            count += len(messages[-1].entries)
    return messages


def _event(entry: Entry, seq: int, time: datetime, masker: Masker) -> Event:
    return Event(
        seq=seq,
        time=time,
        kind=entry.kind,
        level=entry.level,
        message=masker.text(entry.message),
        definition=entry.definition,
        stage=entry.stage,
        component=entry.component,
        stream=entry.stream,
        data=masker.document(entry.data),
    )


async def _tell_observers(services: Services, job_id: int, events: Sequence[Event]) -> None:
    with trio.move_on_after(OBSERVERS) as patience:
        await trio.to_thread.run_sync(_observe, services, job_id, events, abandon_on_cancel=True)
    if patience.cancelled_caught:
        log.warning("observer.late", extra={"job_id": job_id, "seconds": OBSERVERS})


def _observe(services: Services, job_id: int, events: Sequence[Event]) -> None:
    for event in events:
        services.plugins.job_event(job_id, event)
