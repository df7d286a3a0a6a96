"""Group commit: whoever wants to write waits for one transaction together with all others.

One task takes what has gathered and has it committed in a worker thread; while it is under way the
next batch gathers. So a single write costs one commit, and many at a time share one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import trio

from vaka.errors import StoreUnavailable
from vaka.store._database import Database, Request, Transaction
from vaka.store._watch import Hub

T = TypeVar("T")

BATCH = 256
"""Requests in one transaction at most: the first of them waits for the last."""


@dataclass
class _Waiting(Generic[T]):
    request: Request[T]
    undo: Callable[[Transaction, T], None] | None
    done: trio.Event = field(default_factory=trio.Event)
    abandoned: bool = False


class Writer:
    """Takes writes from any number of tasks."""

    def __init__(self, database: Database, hub: Hub) -> None:
        self._database = database
        self._hub = hub
        self._pending: deque[_Waiting[Any]] = deque()
        self._more = trio.Event()
        self._closing = False
        self._thread = trio.CapacityLimiter(1)

    async def write(
        self,
        action: Callable[[Transaction], T],
        *,
        queue: bool = False,
        ids: int = 0,
        undo: Callable[[Transaction, T], None] | None = None,
    ) -> T:
        """Do `action` in a transaction; return what it returns once that is durable.

        A cancelled call that was not begun is not done; one that was begun is done, and `undo`
        takes back what must not stay without a caller who knows of it.
        """
        if self._closing:
            raise StoreUnavailable("The job store is closed.")
        waiting = _Waiting(Request(action, queue=queue, ids=ids), undo)
        self._pending.append(waiting)
        self._more.set()
        try:
            await waiting.done.wait()
        except trio.Cancelled:
            waiting.abandoned = True
            raise
        if waiting.request.error is not None:
            raise waiting.request.error
        return waiting.request.result  # type: ignore[return-value]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until closed. Cancellation does not end it: cleanups still have to write."""
        with trio.CancelScope(shield=True):
            task_status.started()
            while True:
                while batch := self._take():
                    requests = [waiting.request for waiting in batch]
                    await self.in_thread(self._database.commit, requests)
                    self._deliver(batch)
                if self._closing:
                    return
                self._more = trio.Event()
                await self._more.wait()

    def close(self) -> None:
        """Accept nothing more; `run` ends once everything accepted is written."""
        self._closing = True
        self._more.set()

    async def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call what needs the writing connection, one at a time."""
        return await trio.to_thread.run_sync(function, *arguments, limiter=self._thread)

    def _take(self) -> list[_Waiting[Any]]:
        """The next batch, oldest first.

        On PostgreSQL changes of the queue and others do not mix: the lock of the queue is not held
        while a megabyte of events is written.
        """
        batch: list[_Waiting[Any]] = []
        left: deque[_Waiting[Any]] = deque()
        while self._pending and len(batch) < BATCH:
            waiting = self._pending.popleft()
            if waiting.abandoned:
                continue
            if (
                batch
                and self._database.is_postgresql
                and waiting.request.queue != batch[0].request.queue
            ):
                left.append(waiting)
            else:
                batch.append(waiting)
        self._pending.extendleft(reversed(left))
        return batch

    def _deliver(self, batch: list[_Waiting[Any]]) -> None:
        for waiting in batch:
            request, undo = waiting.request, waiting.undo
            if waiting.abandoned and undo is not None and request.error is None:
                # before what others ask for: they must not see what nobody has
                self._pending.appendleft(_Waiting(_undoing(undo, request.result), None))
            waiting.done.set()
        for topic in {topic for waiting in batch for topic in waiting.request.topics}:
            self._hub.touch(topic)


def _undoing(undo: Callable[[Transaction, Any], None], result: Any) -> Request[None]:
    def action(tx: Transaction) -> None:
        undo(tx, result)

    return Request(action, queue=True)
