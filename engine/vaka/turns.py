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

MOST_VALUES: Final = 5_000
"""Values that are looked through on the event loop, in about ten milliseconds."""
MOST_BYTES: Final = 64 << 10
"""Bytes of a document in writing that are read there."""

_TURN: Final = trio.lowlevel.RunVar[trio.CapacityLimiter]("vaka turn")


async def in_turn(work: Callable[[], T]) -> T:
    """The result of `work`, done in a thread, when nothing else is done in turn."""
    try:
        turn = _TURN.get()
    except LookupError:
        turn = trio.CapacityLimiter(1)
        _TURN.set(turn)
    return await trio.to_thread.run_sync(work, limiter=turn)


async def beside(document: object, work: Callable[[], T]) -> T:
    """The result of `work` on a document: at once, or in turn when the document is large."""
    if is_large(document):
        return await in_turn(work)
    return work()


def is_large(document: object) -> bool:
    """Whether a document has more than `MOST_VALUES` values, or more than `MOST_BYTES` bytes."""
    if isinstance(document, bytes):
        return len(document) > MOST_BYTES
    left = MOST_VALUES
    containers = [document]
    while containers:
        value = containers.pop()
        if isinstance(value, dict):
            value = value.values()
        elif not isinstance(value, list | tuple):
            continue
        left -= len(value)
        if left < 0:
            return True
        containers += [each for each in value if isinstance(each, dict | list | tuple)]
    return False
