from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vaka.models.storage import StorageScope
from vaka_local.catalog import LocalCatalog
from vaka_local.storage import LocalStorage

# before any test imports them: an assertion that fails in a suite then shows its values
pytest.register_assert_rewrite("vaka.testing.mapping", "vaka.testing.catalog")

SCOPE = StorageScope("1", run_id="10.20", token_id="5", token_description="tests")


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = datetime(2024, 2, 28, 23, 59, 58, 250_000, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **units: float) -> None:
        self.now += timedelta(**units)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder for the storage, not made yet."""
    return tmp_path / "a home" / "storage"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def storage(home: Path, clock: Clock) -> AsyncIterator[LocalStorage]:
    """An open storage with simulated time."""
    storage = LocalStorage(home, clock=clock)
    await storage.open()
    yield storage
    await storage.aclose()


@pytest.fixture
async def catalog(home: Path, clock: Clock) -> AsyncIterator[LocalCatalog]:
    """An open catalog with simulated time."""
    catalog = LocalCatalog(home, clock=clock)
    await catalog.open()
    yield catalog
    await catalog.aclose()
