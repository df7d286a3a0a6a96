"""An engine on simulated time: a real store and embedded Storage, a host that plays scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.keys import KEY_RING
from trio.testing import MockClock

from vaka import Engine, EngineConfig
from vaka.hooks import ContainerRuntime, hookimpl
from vaka.testing import FakeHost, FakeRuntime
from vaka.testing.clock import thread_aware

MakeEngine = Callable[..., Engine]


@pytest.fixture
def clock(autojump_clock: MockClock) -> Iterator[MockClock]:
    """Simulated time that waits for worker threads."""
    with thread_aware(autojump_clock):
        yield autojump_clock


@pytest.fixture
def host() -> FakeHost:
    """The host that containers of `make_engine` run on."""
    return FakeHost()


@pytest.fixture
def seldom(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Settings of an engine that does nothing by itself for a day, so that days pass quickly."""
    day = 86_400.0
    monkeypatch.setattr("vaka.store._watch.LOOK_INTERVAL", day)
    return {"lease": day, "reconcile_interval": day, "idle_poll": day}


@pytest.fixture
def make_engine(clock: MockClock, host: FakeHost, tmp_path: Path) -> MakeEngine:
    """Makes engines on one home and one host, as restarts would; settings are EngineConfig's.

    They have keys, unless `key_ring_document` is None.
    """

    def make(*plugins: object, **settings: Any) -> Engine:
        @hookimpl
        def vaka_container_runtime(url: str) -> ContainerRuntime:
            return FakeRuntime(host=host)

        return Engine(
            EngineConfig(**{"home": tmp_path / "home", "key_ring_document": KEY_RING, **settings}),
            plugins=[SimpleNamespace(vaka_container_runtime=vaka_container_runtime), *plugins],
        )

    return make
