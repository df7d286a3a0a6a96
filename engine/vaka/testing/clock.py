"""Simulated time for code that also uses worker threads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import trio
import trio.to_thread
from trio.testing import MockClock


@contextmanager
def thread_aware(clock: MockClock) -> Iterator[MockClock]:
    """While this is open, an autojump clock stands still for as long as a worker thread works.

    Trio's own autojump clock leaps when no task can run, and a task that waits for a thread cannot:
    deadlines would pass while a database writes. With this, simulated time passes only while nothing
    real is under way.
    """
    threshold = clock.autojump_threshold
    real = trio.to_thread.run_sync
    working = 0

    async def run_sync(*arguments: Any, **options: Any) -> Any:
        nonlocal working
        working += 1
        clock.autojump_threshold = math.inf
        try:
            return await real(*arguments, **options)
        finally:
            working -= 1
            if not working:
                clock.autojump_threshold = threshold

    with patch.object(trio.to_thread, "run_sync", run_sync):
        yield clock
