"""One publisher and its subscribers."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from vaka.docker.channel import Channel


async def test_every_subscriber_gets_what_is_published_after_it_came() -> None:
    channel = Channel()
    early = channel.subscribe()
    await channel.publish(1)
    late = channel.subscribe()
    await channel.publish(2)
    await channel.publish(None)
    assert [item async for item in early] == [1, 2]
    assert [item async for item in late] == [2]
    assert await late.get() is None


async def test_a_reader_waits_for_a_publisher_and_may_be_cancelled() -> None:
    channel = Channel()
    subscriber = channel.subscribe()
    with trio.CancelScope() as scope:
        scope.cancel()
        await subscriber.get()
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            assert await subscriber.get() == 1

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        await channel.publish(1)


async def test_an_error_is_raised_to_the_reader_once() -> None:
    channel = Channel()
    subscriber = channel.subscribe()
    await channel.publish(1)
    await channel.publish(KeyError("gone"))
    await channel.publish(None)
    assert await subscriber.get() == 1
    with pytest.raises(KeyError, match="gone"):
        await subscriber.get()
    assert await subscriber.get() is None


async def test_with_a_limit_the_slowest_reader_sets_the_pace_until_it_is_forgotten() -> None:
    channel = Channel(limit=2)
    slow, quick = channel.subscribe(), channel.subscribe()
    published: list[int] = []

    async def publish() -> None:
        for number in range(6):
            await channel.publish(number)
            published.append(number)
        await channel.publish(None)

    async with trio.open_nursery() as nursery:

        async def read_all() -> None:
            assert [item async for item in quick] == [0, 1, 2, 3, 4, 5]

        nursery.start_soon(publish)
        nursery.start_soon(read_all)
        await wait_all_tasks_blocked()
        assert published == [0, 1]
        assert await slow.get() == 0
        await wait_all_tasks_blocked()
        assert published == [0, 1, 2]
        del slow
        await wait_all_tasks_blocked()
        assert published == [0, 1, 2, 3, 4, 5]
