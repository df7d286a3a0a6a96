"""Work in threads that cancellation can stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeVar

import trio
import trio.to_thread

T = TypeVar("T")

_INTERRUPT_INTERVAL = 0.02
"""Seconds between interrupts: one that comes between two statements is lost."""


class Stopped(Exception):
    """The task that waits for this work was cancelled."""


class Stop:
    """What tells a thread that nobody wants its result any more."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._over = threading.Event()
        self._guard = threading.Lock()
        self._interrupt: Callable[[], None] | None = None

    def check(self) -> None:
        """Raise `Stopped` if the work is to end. For the working thread, between its steps."""
        if self._asked.is_set():
            raise Stopped

    @contextmanager
    def interrupting(self, interrupt: Callable[[], None]) -> Generator[None, None, None]:
        """While the block runs, `interrupt` is called from another thread to make it end."""
        with self._guard:
            self._interrupt = interrupt
        try:
            self.check()
            yield
        finally:
            with self._guard:  # after this no interrupt hits what the thread does next
                self._interrupt = None

    def ask(self) -> None:
        """Make the work end soon. For the task that waits for it."""
        self._asked.set()
        threading.Thread(target=self._press, name="vaka-local-interrupt", daemon=True).start()

    def over(self) -> None:
        """Say that the work has ended."""
        self._over.set()

    def _press(self) -> None:
        while not self._over.is_set():
            with self._guard:
                if self._interrupt is not None:
                    self._interrupt()
            self._over.wait(_INTERRUPT_INTERVAL)


async def run(work: Callable[[Stop], T], limiter: trio.CapacityLimiter) -> T:
    """Call `work` in a thread, at most as many at a time as `limiter` has room for.

    When the caller is cancelled, `work` is asked to stop, and this returns only once it has ended: with
    its result, if it had passed the point of no return, else by being cancelled.
    """
    stop = Stop()
    results: list[T] = []
    failure: BaseException | None = None

    async def watch() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:  # kept here: whether it was in time is for the work to say
            if not results and failure is None:
                stop.ask()

    async with limiter:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            try:
                results.append(
                    await trio.to_thread.run_sync(work, stop, limiter=trio.CapacityLimiter(1))
                )
            except BaseException as error:  # noqa: BLE001 - raised below, out of the nursery's group
                failure = error
            stop.over()
            nursery.cancel_scope.cancel()
        if isinstance(failure, Stopped):
            await trio.lowlevel.checkpoint_if_cancelled()
        if failure is not None:
            raise failure
        return results[0]
