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

    Items are begun in their order. The first failure cancels the others, and is raised bare; of
    several, that of the first item.
    """
    results: dict[int, R] = {}
    failures: dict[int, Exception] = {}
    waiting = iter(enumerate(items))

    async def run() -> None:
        for index, item in waiting:
            try:
                results[index] = await work(index, item)
            except Exception as error:  # noqa: BLE001 - raised below, bare
                failures[index] = error
                nursery.cancel_scope.cancel()
                return

    async with trio.open_nursery() as nursery:
        for _ in range(min(limit, len(items))):
            nursery.start_soon(run)
    if failures:
        raise failures[min(failures)]
    return [results[index] for index in range(len(items))]
