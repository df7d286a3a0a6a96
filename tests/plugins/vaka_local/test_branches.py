"""What the embedded Storage keeps of branches: on the disk, beside other work, under any name."""

# ruff: noqa: ASYNC240 - small files

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio
from tests.plugins.vaka_local.conftest import SCOPE

from vaka.errors import NotFound
from vaka.models.storage import ExportOptions, FileQuery, FileUpload, TableLoad
from vaka_local.storage import LocalStorage

TABLE = "in.c-main.t"
HERE = replace(SCOPE, branch="7")


def content(home: Path) -> list[str]:
    """Names of what is kept for tables and files, less the locks of the former."""
    names = [path.name for kind in ("tables", "files/1") for path in (home / kind).glob("*")]
    return sorted(name for name in names if not name.endswith((".lock", ".wal")))


async def filled(storage: LocalStorage, path: Path) -> None:
    """A table and a file in the default branch and in a branch."""
    path.write_text("id\n1\n")
    for scope in (SCOPE, HERE):
        await storage.tables.load(scope, [TableLoad(TABLE, (path,))])
        await storage.files.upload(scope, FileUpload("f", is_permanent=True), path)


@pytest.mark.parametrize("reopened", [False, True])
async def test_a_branch_that_is_dropped_leaves_nothing_on_the_disk(
    storage: LocalStorage, home: Path, tmp_path: Path, reopened: bool
) -> None:
    await filled(storage, tmp_path / "src")
    assert len(content(home)) == 4
    if reopened:
        await storage.aclose()
        await storage.open()

    await storage.drop_branch("1", "7")

    assert "1.duckdb" in content(home)
    assert len(content(home)) == 2
    assert not list((home / "tables").glob("1~7*"))
    assert await storage.tables.list_buckets(HERE) == []
    assert len(await storage.tables.list_tables(SCOPE)) == 1
    assert len(await storage.files.list_files(SCOPE, FileQuery())) == 1


@pytest.mark.parametrize("branch", ["", "../1", "a/b", "7~8", "ž", "x" * 65])
async def test_what_cannot_be_a_branch_is_none(
    storage: LocalStorage, home: Path, branch: str
) -> None:
    scope = replace(SCOPE, branch=branch)
    with pytest.raises(NotFound):
        await storage.tables.list_buckets(scope)
    with pytest.raises(NotFound):
        await storage.drop_branch("1", branch)
    assert content(home) == []


async def test_branches_are_written_side_by_side(storage: LocalStorage, tmp_path: Path) -> None:
    path = tmp_path / "src"
    path.write_text("id\n1\n")
    scopes = [SCOPE, *(replace(SCOPE, branch=str(number)) for number in range(4))]

    async def load(number: int) -> None:
        load = TableLoad(TABLE, (path,), incremental=True, import_key=str(number % 2))
        await storage.tables.load(scopes[number % len(scopes)], [load])

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(load, number)

    for scope in scopes:  # an import key counts once in each
        _, rows = await storage.tables.preview(scope, TABLE, ExportOptions())
        assert rows == [("1",), ("1",)]
