"""Many tables and many files: how often Storage and the disk are asked, and how much at a time."""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.engine.mapping.conftest import SCOPE, Reports

from vaka.datafolder import JobFolder
from vaka.mapping.branches import JobBranch
from vaka.mapping.inputs import PARALLEL, stage_files, stage_tables
from vaka.models.mapping import InputFile, InputTable
from vaka.models.state import FileState, JobState
from vaka.models.storage import BucketDetail, ExportResult, FileDetail, TableDetail

CREATED = datetime(2024, 1, 1, tzinfo=UTC)
BRANCH = JobBranch("123", "Mine", default="1", others={"123": "Mine"})


class Crowd:
    """A backend of as many tables and files as are asked for; it counts what it is asked."""

    backend_name = "crowd"

    def __init__(self, files: int = 0) -> None:
        self.tables: Any = self
        self.files: Any = self
        self.asked: Counter[str] = Counter()
        self.most = 0
        """How much was moved at a time."""
        self._moving = 0
        self._several = trio.Event()
        self._stored = range(1, files + 1)

    async def table(self, scope: object, table_id: str) -> TableDetail:
        self.asked["table"] += 1
        bucket, _, name = table_id.rpartition(".")
        return TableDetail(table_id, bucket, name, ("id",), (), CREATED)

    async def bucket(self, scope: object, bucket_id: str) -> BucketDetail:
        self.asked["bucket"] += 1
        return BucketDetail(bucket_id, bucket_id, "in", CREATED)

    async def export(
        self, scope: object, table_id: str, options: object, target: Path
    ) -> ExportResult:
        self.asked["export"] += 1
        await self._move(target)
        return ExportResult(1, 1)

    async def list_files(self, scope: object, query: Any) -> list[FileDetail]:
        self.asked["list_files"] += 1
        wanted = reversed(self._stored)
        if query.query.startswith("id:("):
            wanted = reversed([int(query.query[4:-1])])
        return [self._file(number) for number in wanted][: query.limit]

    async def download(self, scope: object, file_id: int, target: Path) -> FileDetail:
        self.asked["download"] += 1
        await self._move(target)
        return self._file(file_id)

    async def _move(self, target: Path) -> None:
        """Wait until as much is moved at a time as may be: who does less would wait for ever."""
        self._moving += 1
        self.most = max(self.most, self._moving)
        if self._moving == PARALLEL:
            self._several.set()
        with trio.fail_after(60):
            await self._several.wait()
        await trio.Path(target).write_bytes(b"x")
        self._moving -= 1

    def _file(self, number: int) -> FileDetail:
        return FileDetail(number, "f", CREATED, 1)


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    folder = JobFolder(tmp_path / "job", owner=None)
    folder.create()
    return folder


async def tables(folder: JobFolder, count: int, buckets: int, **options: Any) -> Crowd:
    crowd: Any = Crowd()
    await stage_tables(
        [
            InputTable.parse({"source": f"in.c-{number % buckets}.t{number}"})
            for number in range(count)
        ],
        backend=crowd,
        scope=SCOPE,
        folder=folder,
        state=JobState(),
        format="json",
        report=Reports(),
        **options,
    )
    assert isinstance(crowd, Crowd)
    return crowd


async def files(
    folder: JobFolder, stored: int, *items: Any, state: JobState | None = None, **options: Any
) -> Crowd:
    crowd: Any = Crowd(stored)
    result = await stage_files(
        [InputFile.parse(item) for item in items],
        backend=crowd,
        scope=SCOPE,
        folder=folder,
        state=state or JobState(),
        format="json",
        report=Reports(),
        **options,
    )
    assert result.files == stored
    assert isinstance(crowd, Crowd)
    return crowd


async def test_each_of_many_tables_is_asked_for_once(folder: JobFolder) -> None:
    crowd = await tables(folder, 200, buckets=10)
    assert crowd.asked == {"table": 200, "bucket": 10, "export": 200}
    assert crowd.most == PARALLEL
    assert len(list((folder.data / "in/tables").iterdir())) == 400


async def test_a_branch_asks_once_for_its_own_of_many_tables(folder: JobFolder) -> None:
    crowd = await tables(folder, 50, buckets=1, branch=BRANCH)
    assert crowd.asked == {"table": 50, "export": 50}


async def test_each_of_many_files_is_asked_for_once(folder: JobFolder) -> None:
    crowd = await files(folder, 2_000, {"tags": ["t"], "limit": 5_000})
    assert crowd.asked == {"list_files": 1, "download": 2_000}
    assert crowd.most == PARALLEL
    assert len(list((folder.data / "in/files").iterdir())) == 4_000


async def test_many_items_of_one_file_are_read_side_by_side(folder: JobFolder) -> None:
    items = [{"file_ids": [number]} for number in range(1, 201)]
    crowd = await files(folder, 200, *items)
    assert crowd.asked == {"list_files": 200, "download": 200}
    assert crowd.most == PARALLEL


async def test_a_file_that_many_items_find_is_read_once(folder: JobFolder) -> None:
    crowd = await files(folder, 5, *({"tags": [f"t{number}"]} for number in range(20)))
    assert crowd.asked == {"list_files": 20, "download": 5}


async def test_what_many_items_have_read_is_found_without_a_search() -> None:
    looks = Counter[str]()

    class Tag(dict[str, str]):
        def items(self) -> Any:
            looks["items"] += 1
            return super().items()

    entries = tuple(FileState((Tag(name=f"t{number}"),), "7") for number in range(1_000))
    assert len(JobState(input_files=entries).newest_files) == 1_000
    assert looks["items"] == 1_000


@pytest.mark.parametrize("kind", ["tables", "files"])
async def test_what_one_costs_on_the_disk_does_not_depend_on_how_many_there_are(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    calls = Counter[str]()

    def counted(call: Any, *args: Any, **options: Any) -> Any:
        calls["calls"] += 1
        return call(*args, **options)

    for name in ("open", "scandir", "listdir", "stat", "rename", "unlink", "mkdir", "rmdir"):
        monkeypatch.setattr(os, name, partial(counted, getattr(os, name)))

    async def cost(count: int) -> int:
        folder.create()
        calls.clear()
        if kind == "tables":
            await tables(folder, count, buckets=1)
        else:
            await files(folder, count, {"tags": ["t"]})
        return calls["calls"]

    ten, twenty, forty = [await cost(count) for count in (10, 20, 40)]
    assert twenty - ten > 0
    assert forty - twenty == 2 * (twenty - ten)
