"""Named locks that tasks share or have for themselves."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio


@dataclass(slots=True, eq=False)
class _Waiter:
    exclusive: bool
    turn: trio.Event = field(default_factory=trio.Event)


@dataclass(slots=True)
class _Lock:
    """Held by one exclusively or by several together; whoever came first is first."""

    holders: int = 0
    is_exclusive: bool = False
    queue: deque[_Waiter] = field(default_factory=deque)

    def admit(self) -> None:
        """Let in from the head of the queue who fits beside the holders."""
        while (
            self.queue and not self.is_exclusive and not (self.queue[0].exclusive and self.holders)
        ):
            waiter = self.queue.popleft()
            self.holders += 1
            self.is_exclusive = waiter.exclusive
            waiter.turn.set()

    def release(self) -> None:
        self.holders -= 1
        self.is_exclusive = False
        self.admit()


class Locks:
    """Locks by name. All that one operation needs it takes in one call, in the order of names.

    The order is what keeps two operations from waiting for each other: no call inside another's block.
    """

    def __init__(self) -> None:
        self._locks: dict[str, _Lock] = {}

    @asynccontextmanager
    async def hold(
        self, *, exclusive: Iterable[str] = (), shared: Iterable[str] = ()
    ) -> AsyncGenerator[None, None]:
        """Have the locks of these names while the block runs."""
        alone = set(exclusive)
        held: list[str] = []
        try:
            for name in sorted(alone | set(shared)):
                await self._acquire(name, exclusive=name in alone)
                held.append(name)
            yield
        finally:
            for name in held:
                self._locks[name].release()
                self._forget(name)

    async def _acquire(self, name: str, *, exclusive: bool) -> None:
        lock = self._locks.setdefault(name, _Lock())
        waiter = _Waiter(exclusive)
        lock.queue.append(waiter)
        lock.admit()
        try:
            await waiter.turn.wait()
        except trio.Cancelled:
            if waiter.turn.is_set():
                lock.release()
            else:
                lock.queue.remove(waiter)
                lock.admit()  # who stood behind may fit now
            self._forget(name)
            raise

    def _forget(self, name: str) -> None:
        lock = self._locks[name]
        if not lock.holders and not lock.queue:
            del self._locks[name]
