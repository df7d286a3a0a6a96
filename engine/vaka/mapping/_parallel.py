"""Several things of one kind at a time, with one result or one error at the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

T = TypeVar("T")
R = TypeVar("R")


async def in_parallel(
    limit: int, work: Callable[[int, T], Awaitable[R]], items: Sequence[T]
) -> list[R]:
    """Results of `work(index, item)` in the order of the items, at most `limit` under way.

    The first failure cancels the others, and is raised bare; of several, that of the first item.
    """
    results: dict[int, R] = {}
    failures: dict[int, Exception] = {}
    slots = trio.CapacityLimiter(limit)

    async def run(index: int, item: T) -> None:
        async with slots:
            try:
                results[index] = await work(index, item)
            except Exception as error:  # noqa: BLE001 - raised below, bare
                failures[index] = error
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for index, item in enumerate(items):
            nursery.start_soon(run, index, item)
    if failures:
        raise failures[min(failures)]
    return [results[index] for index in range(len(items))]
