"""Details of tables and buckets are kept in memory, and never older than the last change."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from vaka.errors import NotFound
from vaka.models.storage import StorageScope, TableLoad
from vaka_local.storage import LocalStorage

SCOPE = StorageScope("1")
OTHER = StorageScope("2")
TABLE = "in.c-b.t"


async def load(
    storage: LocalStorage, folder: Path, *rows: str, scope: StorageScope = SCOPE
) -> None:
    file = folder / f"{scope.project}.csv"
    file.write_text("\n".join(["id,name", *rows, ""]))
    await storage.tables.load(scope, [TableLoad(TABLE, (file,))])


async def test_every_change_is_seen_at_once(storage: LocalStorage, tmp_path: Path) -> None:
    tables = storage.tables
    await load(storage, tmp_path, "1,a")
    assert (await tables.table(SCOPE, TABLE)).rows_count == 1
    await load(storage, tmp_path, "1,a", "2,b")
    assert (await tables.table(SCOPE, TABLE)).rows_count == 2
    await tables.add_columns(SCOPE, TABLE, ["more"])
    assert (await tables.table(SCOPE, TABLE)).columns == ("id", "name", "more")
    await tables.set_primary_key(SCOPE, TABLE, ["id"])
    assert (await tables.table(SCOPE, TABLE)).primary_key == ("id",)
    await tables.write_metadata(SCOPE, TABLE, "p", {"k": "v"})
    (entry,) = (await tables.table(SCOPE, TABLE)).metadata
    assert (entry.key, entry.value) == ("k", "v")
    await tables.write_metadata(SCOPE, "in.c-b", "p", {"k": "v"})
    assert (await tables.bucket(SCOPE, "in.c-b")).metadata
    await tables.delete_rows(SCOPE, TABLE, None)
    assert (await tables.table(SCOPE, TABLE)).rows_count == 0


async def test_a_bucket_that_is_dropped_takes_its_tables_along(
    storage: LocalStorage, tmp_path: Path
) -> None:
    await load(storage, tmp_path, "1,a")
    await load(storage, tmp_path, "1,a", scope=OTHER)
    await storage.tables.table(SCOPE, TABLE)
    await storage.tables.table(OTHER, TABLE)
    await storage.tables.drop_bucket(SCOPE, "in.c-b", force=True)
    for question in (storage.tables.table(SCOPE, TABLE), storage.tables.bucket(SCOPE, "in.c-b")):
        with pytest.raises(NotFound):
            await question
    assert (await storage.tables.table(OTHER, TABLE)).rows_count == 1


async def test_a_look_during_a_load_leaves_nothing_stale_behind(
    storage: LocalStorage, tmp_path: Path
) -> None:
    await load(storage, tmp_path, "1,a")
    for count in range(2, 12):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(storage.tables.table, SCOPE, TABLE)
            await load(storage, tmp_path, *(f"{number},x" for number in range(count)))
        assert (await storage.tables.table(SCOPE, TABLE)).rows_count == count
