"""The embedded Storage does what every mapping backend and every catalog does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from vaka.hooks import Catalog, MappingBackend
from vaka.testing.catalog import CatalogContract
from vaka.testing.mapping import MappingBackendContract
from vaka_local import vaka_catalog, vaka_mapping_backend


class TestLocalStorage(MappingBackendContract):
    @pytest.fixture
    async def backend(self, home: Path) -> AsyncIterator[MappingBackend]:
        backend = vaka_mapping_backend(f"local://{home}")
        assert backend is not None
        await backend.open()
        yield backend
        await backend.aclose()


class TestLocalCatalog(CatalogContract):
    @pytest.fixture
    async def catalog(self, home: Path) -> AsyncIterator[Catalog]:
        catalog = vaka_catalog(f"local://{home}")
        assert catalog is not None
        await catalog.open()
        yield catalog
        await catalog.aclose()
