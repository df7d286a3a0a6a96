"""Details of tables and buckets are kept in memory, and never older than the last change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from vaka.errors import MappingFailed, NotFound
from vaka.models.storage import ExportOptions, StorageScope, TableLoad
from vaka_local.duck import Session
from vaka_local.storage import LocalStorage
from vaka_local.tables import LocalTables

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


async def test_what_is_kept_is_what_is_stored(storage: LocalStorage, tmp_path: Path) -> None:
    """Lists are read from the file each time, single objects are kept."""
    tables = storage.tables
    file = tmp_path / "t.csv"
    file.write_text("id,name\n1,a\n")
    more = tmp_path / "more.csv"
    more.write_text("id,name,more\n1,a,x\n2,b,y\n")
    bad = tmp_path / "bad.csv"
    bad.write_text("other\n1\n")

    async def refused() -> None:
        with pytest.raises(MappingFailed):
            await tables.load(SCOPE, [TableLoad(TABLE, (bad,))])

    changes: list[Callable[[], Awaitable[object]]] = [
        partial(tables.load, SCOPE, [TableLoad(TABLE, (file,))]),
        partial(tables.load, SCOPE, [TableLoad("in.c-b.other", (file,), import_key="k")]),
        partial(tables.load, SCOPE, [TableLoad("in.c-b.other", (file,), import_key="k")]),
        partial(tables.write_metadata, SCOPE, "in.c-b", "p", {"a": "1", "b": "2"}),
        partial(tables.write_metadata, SCOPE, TABLE, "p", {"a": "1"}, {"name": {"c": "3"}}),
        partial(tables.write_metadata, SCOPE, TABLE, "q", {"a": "1"}),
        partial(tables.write_metadata, SCOPE, TABLE, "p", {"a": "2", "b": ""}),
        partial(tables.write_metadata, SCOPE, TABLE, "p", {"a": "2"}, {"name": {"c": "3"}}),
        partial(tables.load, SCOPE, [TableLoad(TABLE, (more,), incremental=True)]),
        partial(tables.load, SCOPE, [TableLoad(TABLE, (more,), primary_key=("id",))]),
        refused,
        partial(tables.drop_column, SCOPE, TABLE, "name"),
    ]
    for change in changes:
        for table in await tables.list_tables(SCOPE):  # everything that is there is kept
            assert await tables.table(SCOPE, table.id) == table
        for bucket in await tables.list_buckets(SCOPE):
            assert await tables.bucket(SCOPE, bucket.id) == bucket
        await change()
        for table in await tables.list_tables(SCOPE):
            assert await tables.table(SCOPE, table.id) == table
        for bucket in await tables.list_buckets(SCOPE):
            assert await tables.bucket(SCOPE, bucket.id) == bucket


async def test_an_export_begins_anew_when_columns_have_gone(
    storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await load(storage, tmp_path, "1,a")
    await storage.tables.table(SCOPE, TABLE)
    tables = storage.tables
    assert isinstance(tables, LocalTables)
    run = tables._duck.run
    dropped: list[None] = []

    async def drop_first(project: str, work: Callable[[Session], Any], kind: str) -> Any:
        if kind == "export" and not dropped:
            dropped.append(None)
            await storage.tables.drop_column(SCOPE, TABLE, "name")
        return await run(project, work, kind)

    monkeypatch.setattr(tables._duck, "run", drop_first)  # between looking and reading
    target = tmp_path / "out.csv"
    await storage.tables.export(SCOPE, TABLE, ExportOptions(), target)
    assert target.read_text() == '"id"\n"1"\n'
