"""The contract that every mapping backend keeps."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from vaka_sqlite import SqliteBackend

from vaka.hooks import MappingBackend
from vaka.testing.mapping import MappingBackendContract


class TestSqliteBackend(MappingBackendContract):
    """Everything that is asked of a mapping backend."""

    has_aliases = False
    has_parquet = False

    @pytest.fixture
    async def backend(self, tmp_path: Path) -> AsyncIterator[MappingBackend]:
        backend = SqliteBackend(tmp_path / "storage.db")
        await backend.open()
        try:
            yield backend
        finally:
            await backend.aclose()
