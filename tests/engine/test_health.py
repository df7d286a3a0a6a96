"""What an engine says of how it is, on simulated time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NoReturn

import pytest
import trio
from tests.engine.conftest import MakeEngine
from trio.testing import MockClock

from vaka import Engine, Health
from vaka.actors.health import GOOD_FOR, PATIENCE, PATIENCE_IF_BAD, TIMEOUT
from vaka.errors import ApplicationError
from vaka.testing import FakeHost


async def asked(engine: Engine) -> tuple[Health, float]:
    """What the engine says, and how long that took."""
    begun = trio.current_time()
    return await engine.health(), trio.current_time() - begun


async def test_health_names_what_does_not_work(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    async with make_engine() as engine:
        assert (await engine.health()).ok
        host.go_down()
        health = await engine.health()
        assert health.runtime
        assert not health.ok
        host.come_back()
        assert (await engine.health()).ok


async def test_a_slow_daemon_does_not_hold_a_good_answer_up(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    async with make_engine() as engine:
        assert (await engine.health()).ok
        host.delays["info"] = 2
        for _ in range(40):
            health, seconds = await asked(engine)
            assert health.ok
            assert seconds < 2 * PATIENCE
            await trio.sleep(0.3)


async def test_the_first_answer_waits_for_a_slow_daemon(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    async with make_engine() as engine:
        host.delays["info"] = 2
        health, seconds = await asked(engine)
        assert health.ok
        assert seconds == pytest.approx(2)


async def test_a_daemon_that_hangs_is_said_to_after_a_while(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    async with make_engine() as engine:
        assert (await engine.health()).ok
        hung = trio.current_time()
        host.delays["info"] = math.inf
        for _ in range(100):
            health = await engine.health()
            since = trio.current_time() - hung
            assert health.ok or since >= TIMEOUT
            assert not health.ok or since <= TIMEOUT + PATIENCE
            await trio.sleep(0.1)
        health, seconds = await asked(engine)
        assert health.runtime == f"no answer within {TIMEOUT:g} s"
        assert seconds <= PATIENCE_IF_BAD
        host.delays["info"] = 0
        await trio.sleep(GOOD_FOR)
        assert (await engine.health()).ok


async def test_a_good_answer_stands_in_for_so_long_only(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    async with make_engine() as engine:
        assert (await engine.health()).ok
        await trio.sleep(GOOD_FOR)
        host.delays["info"] = 3
        assert (await asked(engine))[1] == pytest.approx(3)


async def test_many_who_ask_at_once_ask_the_daemon_once(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    async with make_engine() as engine:
        host.delays["info"] = 1
        before = host.calls.count(("info", ""))
        async with trio.open_nursery() as callers:
            for _ in range(50):
                callers.start_soon(engine.health)
        assert host.calls.count(("info", "")) == before + 1


async def test_who_stops_waiting_does_not_stop_the_question(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    async with make_engine() as engine:
        host.delays["info"] = 2
        with trio.move_on_after(1):
            await engine.health()
        assert (await asked(engine))[1] == pytest.approx(1)


async def test_a_mistake_in_a_plugin_is_a_reason_and_no_end(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    async with make_engine() as engine:
        host.fail("info", ZeroDivisionError("by hand"))
        assert (await engine.health()).runtime == "ZeroDivisionError: by hand"
        assert (await engine.health()).ok


async def test_a_disk_that_cannot_be_looked_at_is_a_reason_and_no_end(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_engine(worker=False) as engine:
        with monkeypatch.context() as patched:
            patched.setattr(Path, "is_dir", fails)
            assert (await engine.health()).disk == "PermissionError: by hand"
        await trio.sleep(GOOD_FOR)
        assert (await engine.health()).ok


async def test_an_engine_that_was_closed_says_so(clock: MockClock, make_engine: MakeEngine) -> None:
    async with make_engine() as engine:
        assert (await engine.health()).ok
    with pytest.raises(ApplicationError, match="not open"):
        await engine.health()


async def test_an_error_of_the_callers_comes_back_as_itself(
    clock: MockClock, make_engine: MakeEngine
) -> None:
    for error in (ValueError("one"), ExceptionGroup("some", [ValueError("one"), KeyError("two")])):
        with pytest.raises(type(error)) as caught:
            async with make_engine(worker=False):
                raise error
        assert caught.value is error


def fails(*_: object) -> NoReturn:
    raise PermissionError("by hand")


async def test_an_engine_that_closes_leaves_nobody_waiting(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    async def ask(engine: Engine) -> None:
        with pytest.raises(ApplicationError, match="being closed"):
            await engine.health()

    async with trio.open_nursery() as callers:
        async with make_engine() as engine:
            host.delays["info"] = math.inf
            callers.start_soon(ask, engine)
            await trio.sleep(1)
        assert trio.current_time() < 2
