"""An engine on simulated time with a project in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.engine.conftest import MakeEngine
from tests.engine.jobs.project import Project
from trio.testing import MockClock

from vaka.testing import FakeHost


@pytest.fixture
async def project(
    clock: MockClock, make_engine: MakeEngine, host: FakeHost, tmp_path: Path
) -> AsyncIterator[Project]:
    """A project in an open engine; a test takes `clock` as well, or time is real."""
    async with make_engine(stack_id="vaka.test", storage_api_url="http://vaka.test") as engine:
        yield Project(engine, host, tmp_path)
