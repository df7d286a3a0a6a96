"""Synchronous actions in the engine: nothing of them remains, whatever ended them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.engine.conftest import MakeEngine
from trio.testing import MockClock

from vaka import ActionSpec, Engine
from vaka.errors import RuntimeUnavailable, UserError
from vaka.testing import FakeHost, FakeImage, Printed, Script

SPEC = ActionSpec(component="x", action="look", config_data={})
INTERVAL = 61.0
"""A little more than the reconciler's default."""


async def declare(engine: Engine, **data: Any) -> None:
    definition = {"type": "dockerhub", "uri": "worker", "tag": "1"}
    data = {"definition": definition, "synchronous_actions": ["look"], **data}
    await engine.catalog.put_component({"id": "x", "type": "other", "name": "x", "data": data})


def folders(engine: Engine) -> list[Path]:
    parent = engine.config.home / "actions"
    return sorted(parent.iterdir()) if parent.is_dir() else []


def answering(host: FakeHost, **script: Any) -> None:
    host.images["worker:1"] = FakeImage(Script((Printed(b'{"a": 1}'),), **script))


async def test_a_caller_who_is_cancelled_leaves_nothing(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    answering(host, seconds=math.inf)
    async with make_engine() as engine:
        await declare(engine)
        with trio.move_on_after(5) as limit:
            await engine.act(SPEC)
        assert limit.cancelled_caught
        assert (host.containers, folders(engine)) == ([], [])
        assert len(host.created) == 1


async def test_a_container_that_is_made_after_its_caller_left_goes_too(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    answering(host)
    host.delays["create"] = 10
    async with make_engine() as engine:
        await declare(engine)
        with trio.move_on_after(5):
            await engine.act(SPEC)
        (folder,) = folders(engine)  # the daemon may make the container yet
        await trio.sleep(INTERVAL)
        assert (host.containers, folders(engine)) == ([], [])
        assert ("remove", folder.name) in host.calls[-3:]


async def test_what_a_killed_engine_left_goes_when_the_next_one_starts(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    answering(host, seconds=math.inf)
    async with make_engine() as engine:
        await declare(engine)
        with trio.move_on_after(5):
            host.fail("remove", RuntimeUnavailable("the process was killed"))
            await engine.act(SPEC)
        (name,) = host.containers
        assert [folder.name for folder in folders(engine)] == [name]
    async with make_engine() as engine:
        await trio.sleep(1)  # far less than any deadline of the action
        assert (host.containers, folders(engine)) == ([], [])


async def test_an_action_under_way_is_left_alone(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    answering(host, seconds=4 * INTERVAL)
    async with make_engine(action_timeout=10 * INTERVAL) as engine:
        await declare(engine)
        assert (await engine.act(SPEC)).value == {"a": 1}
        assert (host.containers, folders(engine)) == ([], [])


async def test_a_container_that_starts_late_is_left_alone(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    answering(host)
    host.delays["start"] = 4 * INTERVAL
    # by the label of its container it is nobody's as soon as it is made
    async with make_engine(action_timeout=0.001, stop_grace=0) as engine:
        await declare(engine)
        assert (await engine.act(SPEC)).value == {"a": 1}
        assert (host.containers, folders(engine)) == ([], [])


async def test_an_answer_is_given_also_when_its_container_cannot_be_removed(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    answering(host)
    async with make_engine() as engine:
        await declare(engine)
        host.fail("remove", RuntimeUnavailable("busy"))
        assert (await engine.act(SPEC)).value == {"a": 1}
        assert len(host.containers) == len(folders(engine)) == 1
        await trio.sleep(INTERVAL)
        assert (host.containers, folders(engine)) == ([], [])


async def test_a_failure_comes_bare_and_its_place_is_free_again(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    async with make_engine(action_concurrency=1) as engine:
        await declare(engine)
        host.images["worker:1"] = FakeImage(Script((Printed(b"x" * (1 << 20), times=17),)))
        for _ in range(2):
            with pytest.raises(UserError, match="answered with more than 16 MiB"):
                await engine.act(SPEC)
        host.images["worker:1"] = FakeImage(Script(start_error="no such command"))
        with pytest.raises(Exception, match="no such command") as failed:
            await engine.act(SPEC)
        assert not isinstance(failed.value, BaseExceptionGroup)
        assert (host.containers, folders(engine)) == ([], [])
        answering(host)
        assert (await engine.act(SPEC)).value == {"a": 1}


async def test_the_pull_of_the_image_is_no_part_of_the_time(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    script = Script((Printed(b"{}"),), seconds=40)
    host.images["worker:1"] = FakeImage(script, local=False, pull_seconds=100)
    async with make_engine() as engine:
        await declare(engine)
        began = trio.current_time()
        assert (await engine.act(SPEC)).value == {}
        assert 140 <= trio.current_time() - began < 150
