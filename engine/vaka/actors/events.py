"""The event writer: one a job, ordered, bounded, masked.

Whoever has something to say sends it and goes on; the writer stores what has gathered in one
transaction. The channel is bounded, so a job cannot produce faster than the store takes: that
backpressure reaches the container through its output stream, and nothing is dropped.

What a container prints comes here masked already, many lines at a time, and stays together until
somebody reads it. The runner's own notices and details are for the operator's log, not for the job's.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import trio

from vaka.actors.services import Services
from vaka.errors import StoreUnavailable
from vaka.masking import Masker
from vaka.models.container import StreamName
from vaka.models.event import Event, Level, Lines
from vaka.store import Fence, LeaseLost, LogTail

log = logging.getLogger(__name__)

BACKLOG = 64
"""Messages under way to the writer; one message is one note, or the lines of one read."""
BATCH_EVENTS = 20_000
"""Events stored in one transaction, at most about that many."""
BATCH_CHARACTERS = 1 << 20
"""Text stored in one transaction, at most about that much."""
GATHER = 0.1
"""Seconds that events wait for others, or for an entry of the journal, to be stored with: a commit
costs more than an event."""
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
class Printed:
    """Lines that a container printed together, masked, before they have their numbers."""

    level: Level
    messages: Sequence[str]
    definition: int
    stage: int
    component: str
    stream: StreamName | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    """What is told of each of them, masked."""
    time: datetime | None = None
    """When it happened; None is now."""


class LogRoom:
    """How much of what a job's containers print is kept."""

    def __init__(self, limit: int, used: int = 0) -> None:
        self.limit = limit
        """Bytes."""
        self._used = used

    def take(self, lines: Sequence[str], size: int) -> Sequence[str]:
        """Those of `lines`, which took `size` bytes to print, that there is room for."""
        free = self.limit - self._used
        self._used += size
        if size <= free:
            return lines
        kept: list[str] = []
        for line in lines:
            free -= len(line) + 1
            if free < 0:
                break
            kept.append(line)
        return kept


@dataclass(frozen=True, slots=True)
class _Message:
    time: datetime
    entries: Sequence[Entry | Printed]
    size: int = 0
    """Characters of what was printed."""
    offsets: tuple[tuple[int, int], tuple[int, int]] | None = None
    """(definition, stage) and how much of (stdout, stderr) is told once these entries are."""
    journal: _Journal | None = None


@dataclass(slots=True)
class _Journal:
    """An entry of the journal that the events before it are stored together with."""

    write: Callable[[LogTail], Awaitable[object]]
    done: trio.Event = field(default_factory=trio.Event)
    error: Exception | None = None


class EventLog:
    """The sending end: what the tasks of a job write events with."""

    def __init__(
        self,
        send: trio.MemorySendChannel[_Message],
        masker: Masker,
        services: Services,
        job_id: int,
        room: LogRoom,
    ) -> None:
        self._send = send
        self.job_id = job_id
        self.room = room
        self._services = services
        self.masker = masker

    async def write(self, *entries: Entry) -> None:
        """Hand over events. Returns when the writer has room for them, not when they are stored.

        Notes that are only notices or details go to the operator's log (runner.md section 4.10.4).
        """
        told: list[Entry] = []
        for entry in entries:
            if entry.kind == "note" and entry.level in {"debug", "notice"}:
                text = self.masker.text(entry.message)
                log.info("job.noted", extra={"job_id": self.job_id, "reason": text})
            else:
                told.append(entry)
        if told:
            await self._send.send(_Message(self._services.now(), told))

    async def note(self, level: Level, message: str, **data: Any) -> None:
        """Hand over something the runner itself has to say."""
        await self.write(Entry("note", level, message, data=data))

    async def lines(
        self,
        printed: Printed | None,
        size: int = 0,
        stage: tuple[int, int] | None = None,
        offsets: tuple[int, int] = (0, 0),
    ) -> None:
        """Hand over what a container printed, and how far it reaches into its two streams.

        `size` is about how many characters it is. Without anything printed, only how far is stored.
        """
        where = None if stage is None else (stage, offsets)
        entries = () if printed is None else (printed,)
        await self._send.send(_Message(self._services.now(), entries, size, where))

    async def store_with(self, write: Callable[[LogTail], Awaitable[object]]) -> None:
        """Have everything handed over so far stored by `write`, in one transaction with its own.

        Raises what `write` raises; the events are stored all the same, unless the job is lost.
        """
        journal = _Journal(write)
        await self._send.send(_Message(self._services.now(), (), journal=journal))
        await journal.done.wait()
        if journal.error is not None:
            raise journal.error

    async def __aenter__(self) -> EventLog:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._send.aclose()


async def keep_events(
    services: Services,
    fence: Fence,
    masker: Masker,
    told: int = 0,
    *,
    task_status: trio.TaskStatus[EventLog] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Store a job's events in the order they come, until every sender is closed.

    `told` is how many bytes of output an earlier engine has stored.
    """
    room = LogRoom(services.config.job_log_bytes, told)
    send, inbox = trio.open_memory_channel[_Message](BACKLOG)
    seq = await services.store.last_seq(fence.job_id)
    async with inbox:
        task_status.started(EventLog(send, masker, services, fence.job_id, room))
        async for first in inbox:
            messages = await _gather(inbox, first)
            events: list[Event | Lines] = []
            offsets: dict[tuple[int, int], tuple[int, int]] = {}
            for message in messages:
                for entry in message.entries:
                    events.append(_event(entry, seq + 1, message.time, masker))
                    seq += events[-1].count
                if message.offsets is not None:
                    offsets[message.offsets[0]] = message.offsets[1]
            await _store(services, fence, LogTail(events, offsets), messages[-1].journal)
            if events and services.plugins.observes_events:
                await _tell_observers(services, fence.job_id, events)


async def _store(services: Services, fence: Fence, tail: LogTail, journal: _Journal | None) -> None:
    if journal is not None:
        try:
            await journal.write(tail)
        except (StoreUnavailable, LeaseLost):
            raise  # nothing can be stored any more, and whoever waits for it is cancelled
        except Exception as error:  # noqa: BLE001 - handed to whoever asked for it
            journal.error = error
        else:
            tail = LogTail()
        journal.done.set()
    if tail.events or tail.offsets:
        await services.store.append_events(
            fence.job_id, tail.events, offsets=tail.offsets or None, fence=fence
        )


async def _gather(inbox: trio.MemoryReceiveChannel[_Message], first: _Message) -> list[_Message]:
    """`first` and what comes within a moment, up to a batch; at once when somebody waits for it."""
    messages = [first]
    count, size = len(first.entries), first.size
    with trio.move_on_after(GATHER):
        while messages[-1].journal is None and count < BATCH_EVENTS and size < BATCH_CHARACTERS:
            try:
                message = await inbox.receive()
            except trio.EndOfChannel:
                break
            messages.append(message)
            count += len(message.entries)
            size += message.size
    return messages


def _event(entry: Entry | Printed, seq: int, time: datetime, masker: Masker) -> Event | Lines:
    if isinstance(entry, Printed):
        return Lines(
            seq,
            entry.time or time,
            entry.level,
            entry.messages,
            entry.definition,
            entry.stage,
            entry.component,
            entry.stream,
            entry.data,
        )
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


async def _tell_observers(services: Services, job_id: int, events: Sequence[Event | Lines]) -> None:
    with trio.move_on_after(OBSERVERS) as patience:
        await trio.to_thread.run_sync(_observe, services, job_id, events, abandon_on_cancel=True)
    if patience.cancelled_caught:
        log.warning("observer.late", extra={"job_id": job_id, "seconds": OBSERVERS})


def _observe(services: Services, job_id: int, events: Sequence[Event | Lines]) -> None:
    for event in events:
        for each in event.events() if isinstance(event, Lines) else (event,):
            services.plugins.job_event(job_id, each)
