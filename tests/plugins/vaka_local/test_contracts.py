"""The embedded Storage does what every mapping backend and every catalog does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from vaka.hooks import Catalog, MappingBackend
from vaka.testing.catalog import CatalogContract
from vaka.testing.catalog_versions import VersionsContract
from vaka.testing.mapping import MappingBackendContract
from vaka_local import vaka_catalog, vaka_mapping_backend
from vaka_local.catalog import LocalCatalog


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


class Modest(LocalCatalog):
    """Does no more itself than a catalog has to."""

    branches = Catalog.branches
    create_branch = Catalog.create_branch
    update_branch = Catalog.update_branch
    delete_branch = Catalog.delete_branch
    copy_configuration = Catalog.copy_configuration
    deleted_configurations = Catalog.deleted_configurations
    restore_configuration = Catalog.restore_configuration
    row_versions = Catalog.row_versions
    row_version = Catalog.row_version
    rollback_row = Catalog.rollback_row
    copy_row = Catalog.copy_row
    states = Catalog.states
    oauth_credentials_ids = Catalog.oauth_credentials_ids
    metadata = Catalog.metadata
    put_metadata = Catalog.put_metadata
    delete_metadata = Catalog.delete_metadata
    find_metadata = Catalog.find_metadata
    workspaces = Catalog.workspaces
    create_workspace = Catalog.create_workspace
    delete_workspace = Catalog.delete_workspace


class TestModestCatalog(VersionsContract):
    @pytest.fixture
    async def catalog(self, home: Path) -> AsyncIterator[Catalog]:
        catalog = Modest(home)
        await catalog.open()
        yield catalog
        await catalog.aclose()


def test_a_modest_catalog_has_every_default() -> None:
    defaults = {
        name
        for name, member in vars(Catalog).items()
        if callable(member) and not getattr(member, "__isabstractmethod__", False)
    }
    assert defaults - {"__init__"} == {
        name for name in vars(Modest) if callable(vars(Modest)[name])
    }
