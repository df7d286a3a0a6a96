"""Worker threads for what keeps Python itself busy.

Threads of Python run one at a time, whatever they do there; several that check large documents at once
are no faster than one after the other, and take the event loop's turn as many times over. Whoever
reads files, waits for a database or packs data needs none of this: that runs beside Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import trio

T = TypeVar("T")

_TURN: Final = trio.lowlevel.RunVar[trio.CapacityLimiter]("vaka turn")


async def in_turn(work: Callable[[], T]) -> T:
    """The result of `work`, done in a thread, when nothing else is done in turn."""
    try:
        turn = _TURN.get()
    except LookupError:
        turn = trio.CapacityLimiter(1)
        _TURN.set(turn)
    return await trio.to_thread.run_sync(work, limiter=turn)
