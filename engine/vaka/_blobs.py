"""Blobs of a file backend that has none of its own: they can be read, and not written."""

# ruff: noqa: ARG002 - what is refused needs none of it

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, NoReturn

import trio.to_thread

from vaka.errors import InvalidInput, NotFound
from vaka.hooks import BlobBackend, FileBackend
from vaka.models.storage import Blob, BlockRef, FileDetail, StorageScope


class WholeFiles(BlobBackend):
    """Opens blobs by `FileBackend.reading`, so each time at the cost of that."""

    def __init__(self, files: FileBackend) -> None:
        self._files = files

    async def list_blobs(self, scope: StorageScope, file_id: int) -> list[Blob]:
        detail = await self._files.file(scope, file_id)
        if not detail.is_uploaded:
            return []
        async with self._files.reading(scope, file_id) as paths:
            names = detail.slices if detail.is_sliced else ("",)
            found = [
                _blob(detail, name, path.stat()) for name, path in zip(names, paths, strict=True)
            ]
        return sorted(found, key=lambda blob: blob.name)

    async def blob(self, scope: StorageScope, file_id: int, name: str) -> Blob:
        found, content = await self.open(scope, file_id, name)
        content.close()
        return found

    async def open(self, scope: StorageScope, file_id: int, name: str) -> tuple[Blob, BinaryIO]:
        detail = await self._files.file(scope, file_id)
        names = detail.slices if detail.is_sliced else ("",)
        if name not in names or not detail.is_uploaded:
            raise no_blob(file_id, name)
        async with self._files.reading(scope, file_id) as paths:
            path = paths[names.index(name)]
            content = await trio.to_thread.run_sync(lambda: path.open("rb", buffering=0))
        return _blob(detail, name, os.fstat(content.fileno())), content

    async def put(
        self,
        scope: StorageScope,
        file_id: int,
        name: str,
        source: Path,
        *,
        overwrite: bool = True,
    ) -> Blob:
        _refuse()

    async def stage(
        self, scope: StorageScope, file_id: int, name: str, block: str, source: Path
    ) -> None:
        _refuse()

    async def commit(
        self,
        scope: StorageScope,
        file_id: int,
        name: str,
        blocks: Sequence[BlockRef],
        *,
        overwrite: bool = True,
    ) -> Blob:
        _refuse()

    async def remove(self, scope: StorageScope, file_id: int, name: str) -> None:
        _refuse()

    async def arrange(self, scope: StorageScope, file_id: int, slices: Sequence[str]) -> FileDetail:
        _refuse()


def no_blob(file_id: int, name: str) -> NotFound:
    return NotFound(f'File {file_id} has no blob "{name}".', kind="blob", id=name)


def _blob(detail: FileDetail, name: str, status: os.stat_result) -> Blob:
    # content of files that are written as a whole never changes
    etag = sha256(f"{detail.id} {detail.created.isoformat()} {name}".encode()).hexdigest()[:16]
    return Blob(name, status.st_size, detail.created, etag)


def _refuse() -> NoReturn:
    raise InvalidInput("The files of this Storage are written as a whole, not in blobs.")
