"""One publisher, any number of subscribers in the same program."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio

if TYPE_CHECKING:
    from typing import Self

Fetch: TypeAlias = Callable[["ChannelSubscriber"], Awaitable[None]]


class Channel:
    """What is published goes to everybody who subscribed before.

    With a `limit`, publishing waits while a subscriber has that many items to read; without one, a
    subscriber that does not read collects them. One that nobody holds any more is forgotten.
    """

    def __init__(self, *, limit: int | None = None) -> None:
        self._limit = limit
        self._subscribers: weakref.WeakSet[ChannelSubscriber] = weakref.WeakSet()

    async def publish(self, obj: Any) -> None:
        """Give `obj` to every subscriber; None tells them that nothing more comes."""
        limit = None if obj is None else self._limit
        for reference in [weakref.ref(subscriber) for subscriber in self._subscribers]:
            while (subscriber := reference()) is not None and subscriber.holds(limit):
                changed = subscriber._changed
                del subscriber  # while this waits, the subscriber's owner may forget it
                await changed.wait()
            if subscriber is not None:
                subscriber._put(obj)

    def subscribe(self, fetch: Fetch | None = None) -> ChannelSubscriber:
        """A subscriber of what is published from now on.

        A reader with nothing to read awaits `fetch`, which is to publish something; without one it
        waits for somebody else to.
        """
        return ChannelSubscriber(self, fetch)


class ChannelSubscriber:
    """One reader: `get` gives item after item, an `async for` does until the end."""

    def __init__(self, channel: Channel, fetch: Fetch | None = None) -> None:
        self.channel = channel
        self._fetch = fetch
        self._items: deque[Any] = deque()
        self._ended = False
        self._changed = anyio.Event()
        channel._subscribers.add(self)

    def holds(self, count: int | None = 1) -> bool:
        """Whether at least `count` items are waiting to be read."""
        return count is not None and len(self._items) >= count

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes than is waiting."""
        return self._ended

    async def get(self) -> Any:
        """The next item; None once nothing more comes. Cancelling it loses nothing.

        Raises what the publisher failed with, if it did.
        """
        while not self._items:
            if self._ended:
                return None
            if self._fetch is not None:
                await self._fetch(self)
            else:
                await self._changed.wait()
        item = self._items.popleft()
        self._notify()
        if isinstance(item, Exception):
            raise item
        return item

    def _put(self, obj: Any) -> None:
        if obj is None:
            self._ended = True
        else:
            self._items.append(obj)
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        item = await self.get()
        if item is None:
            raise StopAsyncIteration
        return item

    def __del__(self) -> None:
        self._changed.set()  # a publisher may be waiting for a reader who will not come
