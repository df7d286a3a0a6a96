"""Wake-ups: who waits for a change learns of it, whoever makes it and wherever.

A topic has a generation that grows with every change, and a watch remembers the one it has seen. So
a change between two waits is not lost: the next wait returns at once. Changes of this process arrive
at once. On PostgreSQL those of others arrive by NOTIFY; on SQLite nobody tells, so a watch that has
waited in vain looks whether the file has changed.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast
from weakref import WeakValueDictionary

import trio

from vaka.errors import StoreUnavailable
from vaka.store.values import Topic

log = logging.getLogger(__name__)

LOOK_INTERVAL = 5.0
"""Seconds after which a longer wait looks by itself for what nobody has told."""
RECONNECT = 1.0
"""Seconds between two tries to listen again."""


class _State:
    """A topic that somebody watches."""

    __slots__ = ("__weakref__", "changed", "generation")

    def __init__(self) -> None:
        self.generation = 0
        self.changed = trio.Event()

    def touch(self) -> None:
        self.generation += 1
        self.changed.set()
        self.changed = trio.Event()


class Hub:
    """All watched topics of one store."""

    def __init__(self, look: Callable[[], Awaitable[int | None]]) -> None:
        self._states: WeakValueDictionary[Topic, _State] = WeakValueDictionary()
        self._look = look
        self._looking = trio.Lock()
        self._version: int | None = None
        self.deaf = False
        """Whether changes of other processes are not told at the moment."""

    def watch(self, topic: Topic) -> Watch:
        state = self._states.get(topic)
        if state is None:
            state = self._states[topic] = _State()
        return Watch(self, state)

    def touch(self, topic: Topic) -> None:
        """Wake whoever watches the topic."""
        state = self._states.get(topic)
        if state is not None:
            state.touch()

    def touch_all(self) -> None:
        """Wake everybody: something may have changed, and nobody knows what."""
        for state in list(self._states.values()):
            state.touch()

    async def look(self) -> None:
        """Find out whether another process has written, where nobody tells us."""
        async with self._looking:
            try:
                version = await self._look()
            except StoreUnavailable:
                return  # whoever asks the store next is told so
            if self.deaf or version != self._version:
                self._version = version
                self.touch_all()


class Watch:
    """Waits for changes of one topic that come after it was made."""

    def __init__(self, hub: Hub, state: _State) -> None:
        self._hub = hub
        self._state = state
        self._seen = state.generation

    async def changed(self, timeout: float | None = None) -> bool:
        """Wait for a change since the last call, or since the watch was made.

        Make the watch, read, then wait: what happens in between is not missed. True also when
        there is only reason to look again. `timeout` is seconds, None waits without end.

        Returns:
            False when the time is over and nothing is known to have changed.
        """
        deadline = trio.current_time() + (float("inf") if timeout is None else timeout)
        while self._state.generation == self._seen:
            left = deadline - trio.current_time()
            with trio.move_on_after(max(0.0, min(left, LOOK_INTERVAL))):
                await self._state.changed.wait()
                break
            await self._hub.look()
            if self._state.generation == self._seen and trio.current_time() >= deadline:
                return False
        else:
            await trio.lowlevel.checkpoint()
        self._seen = self._state.generation
        return True


async def listen(connect: Callable[[], Any], connection: Any, own_pids: set[int], hub: Hub) -> None:
    """Hand on what other engines on this PostgreSQL notify, until cancelled.

    Begins with `connection`, and connects again whenever it is lost.
    """
    import psycopg  # noqa: PLC0415 - an extra

    while True:
        try:
            await _hand_on(connection, own_pids, hub)
        except psycopg.Error as error:
            log.warning("store.deaf", extra={"error": str(error)})
        finally:
            connection.close()
        hub.deaf = True
        connection = await _reconnect(connect)
        hub.deaf = False
        hub.touch_all()  # what was notified while nobody listened is lost


async def _reconnect(connect: Callable[[], Any]) -> Any:
    while True:
        try:
            return await trio.to_thread.run_sync(connect)
        except StoreUnavailable as error:
            log.warning("store.deaf", extra={"error": str(error)})
            await trio.sleep(RECONNECT)


async def _hand_on(connection: Any, own_pids: set[int], hub: Hub) -> None:
    wire = connection.pgconn
    while True:
        while (note := wire.notifies()) is not None:
            topic = _topic(note.extra.decode())
            if topic is not None and note.be_pid not in own_pids:
                hub.touch(topic)
        await trio.lowlevel.wait_readable(wire.socket)
        wire.consume_input()


def _topic(payload: str) -> Topic | None:
    """The topic that a payload names; None for one that this version does not know."""
    if payload in {"jobs", "operations"}:
        return cast("Topic", payload)
    kind, _, number = payload.partition(":")
    if not number.isdecimal():
        return None
    match kind:
        case "job" | "status" | "end" | "operation":
            return (kind, int(number))
        case _:
            return None
