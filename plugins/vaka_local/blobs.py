"""The blobs of files: written as a whole or block by block, and read.

A blob is content and a row that names it. Whoever replaces it writes new content first, then the row,
and removes the old content last, so that a reader sees one or the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Final

import sqlalchemy as sa
import trio
import trio.from_thread
import trio.to_thread
from sqlalchemy.engine import Connection

from vaka.errors import Conflict, InvalidInput, NotFound
from vaka.hooks import BlobBackend
from vaka.models.storage import Blob, BlockRef, FileDetail, StorageScope
from vaka_local.blocks import MOST_BLOCKS, Blocks, Piece, Staged
from vaka_local.contents import Contents, Stored
from vaka_local.database import Database, file_blobs, file_slices, files
from vaka_local.filerows import details, find_row

MOST_SLICES: Final = 100_000
_LONGEST_NAME: Final = 255
"""Bytes of a slice's name: it becomes the name of a file when the slices are fetched."""
_LONGEST_BLOCK: Final = 200
"""Characters of a block's id; the protocol's are at most 64 bytes in base64."""


class LocalBlobs(BlobBackend):
    """Blobs in the folders of `contents`."""

    def __init__(
        self,
        contents: Contents,
        blocks: Blocks,
        database: Database,
        clock: Callable[[], datetime],
        transfers: trio.CapacityLimiter,
    ) -> None:
        self._contents = contents
        self._blocks = blocks
        self._database = database
        self._clock = clock
        self._transfers = transfers

    async def list_blobs(self, scope: StorageScope, file_id: int) -> list[Blob]:
        def find(connection: Connection) -> list[Blob]:
            find_row(connection, scope, file_id, self._clock())
            statement = sa.select(file_blobs).where(file_blobs.c.file_id == file_id)
            rows = connection.execute(statement.order_by(file_blobs.c.name)).all()
            return [self._blob(scope, row) for row in rows]

        return await self._database.read(find)

    async def blob(self, scope: StorageScope, file_id: int, name: str) -> Blob:
        return await self._database.read(
            lambda connection: self._blob(scope, self._row(connection, scope, file_id, name))
        )

    async def open(self, scope: StorageScope, file_id: int, name: str) -> tuple[Blob, BinaryIO]:
        def find(connection: Connection) -> tuple[Blob, Path]:
            row = self._row(connection, scope, file_id, name)
            return self._blob(scope, row), self._contents.path(scope.project, row.content)

        def look_up() -> tuple[Blob, BinaryIO]:
            while True:
                found, path = self._database.in_thread(find, writes=False)
                with suppress(FileNotFoundError):  # replaced since it was looked up
                    return found, path.open("rb", buffering=0)

        return await trio.to_thread.run_sync(look_up)

    async def put(
        self,
        scope: StorageScope,
        file_id: int,
        name: str,
        source: Path,
        *,
        overwrite: bool = True,
    ) -> Blob:
        await self._check(scope, file_id, name, overwrite=overwrite)

        def store() -> Blob:
            stored = self._contents.store(
                scope.project,
                source,
                trio.from_thread.check_cancelled,
                move=True,
                label="The blob",
            )
            blob = self._replace(scope, file_id, name, stored, None, overwrite=overwrite)
            with self._blocks.of(scope.project, file_id, name) as staged:
                staged.discard()
            return blob

        return await trio.to_thread.run_sync(store, limiter=self._transfers)

    async def stage(
        self, scope: StorageScope, file_id: int, name: str, block: str, source: Path
    ) -> None:
        if not block or len(block) > _LONGEST_BLOCK:
            raise InvalidInput(
                f"The id of a block has 1 to {_LONGEST_BLOCK} characters.", path="blocks"
            )

        def keep() -> None:
            with self._blocks.of(scope.project, file_id, name) as staged:
                if (
                    staged.is_empty
                ):  # else it was looked up for the first, and nobody has deleted it
                    self._database.in_thread(
                        lambda connection: self._writable(
                            connection, scope, file_id, name, overwrite=True
                        ),
                        writes=False,
                    )
                staged.stage(block, source, trio.from_thread.check_cancelled)

        await trio.to_thread.run_sync(keep, limiter=self._transfers)

    async def commit(
        self,
        scope: StorageScope,
        file_id: int,
        name: str,
        blocks: Sequence[BlockRef],
        *,
        overwrite: bool = True,
    ) -> Blob:
        if len(blocks) > MOST_BLOCKS:
            raise InvalidInput(f"A blob has at most {MOST_BLOCKS} blocks.", path="blocks")
        present = await self._check(scope, file_id, name, overwrite=overwrite)
        committed = _layout(present)

        def assemble() -> Blob:
            with self._blocks.of(scope.project, file_id, name) as staged:
                found = {
                    block.id: piece
                    for block in blocks
                    if block.among != "committed" and (piece := staged.find(block.id))
                }
                is_repeated = not found and [each.id for each in blocks] == [
                    id_ for id_, _ in committed
                ]
                if is_repeated and committed:  # done before, and the answer was lost
                    return self._blob(scope, present)
                pieces = [
                    self._piece(scope.project, block, found, present, committed) for block in blocks
                ]
                stored = self._assembled(scope.project, staged, pieces)
                layout = [
                    (block.id, piece.size) for block, piece in zip(blocks, pieces, strict=True)
                ]
                blob = self._replace(scope, file_id, name, stored, layout, overwrite=overwrite)
                staged.discard()
                return blob

        return await trio.to_thread.run_sync(assemble, limiter=self._transfers)

    def _assembled(self, project: str, staged: Staged, pieces: list[Piece]) -> Stored:
        """Content made of pieces."""
        check = trio.from_thread.check_cancelled
        if staged.is_all(pieces):
            # nothing is added to it any more: it is discarded before anybody else can have it
            return self._contents.store_linked(project, pieces[0].path, check)
        try:
            return self._contents.store_pieces(project, pieces, check)
        except FileNotFoundError as error:  # the blob has been replaced meanwhile
            raise InvalidInput("A block has gone meanwhile.", path="blocks") from error

    def _piece(
        self,
        project: str,
        block: BlockRef,
        staged: dict[str, Piece],
        present: Any,
        committed: Sequence[tuple[str, int]],
    ) -> Piece:
        """Where a block is."""
        if block.among != "committed" and block.id in staged:
            return staged[block.id]
        if block.among != "staged":
            offset = 0
            for each, size in committed:
                if each == block.id:
                    return Piece(self._contents.path(project, present.content), offset, size)
                offset += size
        raise InvalidInput(f'There is no block "{block.id}".', path="blocks")

    async def remove(self, scope: StorageScope, file_id: int, name: str) -> None:
        def forget(connection: Connection) -> str:
            row = self._row(connection, scope, file_id, name)
            connection.execute(file_blobs.delete().where(*_named(file_id, name)))
            slices = sa.select(file_slices.c.name).where(file_slices.c.file_id == file_id)
            if name == "" or name in set(connection.scalars(slices)):
                connection.execute(
                    files.update().where(files.c.id == file_id).values(is_uploaded=False)
                )
            return str(row.content)

        content = await self._database.write(forget)
        await trio.to_thread.run_sync(self._contents.remove, scope.project, [content])

    async def arrange(self, scope: StorageScope, file_id: int, slices: Sequence[str]) -> FileDetail:
        if len(slices) > MOST_SLICES:
            raise InvalidInput(f"A file has at most {MOST_SLICES} slices.", path="slices")

        def work(connection: Connection) -> FileDetail:
            row = find_row(connection, scope, file_id, self._clock())
            if not row.is_sliced:
                raise InvalidInput(f"The file {file_id} is not sliced.", path="slices")
            connection.execute(file_slices.delete().where(file_slices.c.file_id == file_id))
            if slices:
                connection.execute(
                    file_slices.insert(),
                    [
                        {"file_id": file_id, "position": position, "name": name}
                        for position, name in enumerate(slices)
                    ],
                )
            self._complete(connection, file_id, is_sliced=True)
            row = connection.execute(sa.select(files).where(files.c.id == file_id)).one()
            return details(connection, [row])[0]

        return await self._database.write(work)

    # -- rows --------------------------------------------------------------------------------------

    async def _check(
        self, scope: StorageScope, file_id: int, name: str, *, overwrite: bool
    ) -> Any | None:
        """The row of a blob that may be written, if there is one; raises when it may not."""
        return await self._database.read(
            lambda connection: self._writable(connection, scope, file_id, name, overwrite=overwrite)
        )

    def _writable(
        self,
        connection: Connection,
        scope: StorageScope,
        file_id: int,
        name: str,
        *,
        overwrite: bool,
    ) -> Any | None:
        file = find_row(connection, scope, file_id, self._clock())
        _check_name(name, is_sliced=file.is_sliced)
        row = connection.execute(sa.select(file_blobs).where(*_named(file_id, name))).one_or_none()
        if row is not None and not overwrite:
            raise _there_already(name)
        return row

    def _replace(
        self,
        scope: StorageScope,
        file_id: int,
        name: str,
        stored: Stored,
        layout: Sequence[tuple[str, int]] | None,
        *,
        overwrite: bool,
    ) -> Blob:
        """Make stored content a blob's; in a thread."""
        values = {
            "content": stored.name,
            "size_bytes": stored.size,
            "modified": self._clock(),
            "blocks": None if layout is None else json.dumps(layout),
        }

        def write(connection: Connection) -> tuple[Blob, str | None]:
            file = find_row(connection, scope, file_id, self._clock())
            present = sa.select(file_blobs.c.content).where(*_named(file_id, name))
            old: str | None = connection.scalar(present)
            if old is None:
                connection.execute(file_blobs.insert().values(file_id=file_id, name=name, **values))
            elif overwrite:
                connection.execute(
                    file_blobs.update().where(*_named(file_id, name)).values(**values)
                )
            else:
                raise _there_already(name)
            if not file.is_sliced or file.is_uploaded:
                self._complete(connection, file_id, is_sliced=file.is_sliced)
            row = connection.execute(sa.select(file_blobs).where(*_named(file_id, name))).one()
            return self._blob(scope, row), old

        try:
            blob, old = self._database.in_thread(write, writes=True)
        except BaseException:
            self._contents.remove(scope.project, [stored.name])
            raise
        if old is not None:
            self._contents.remove(scope.project, [old])
        return blob

    def _complete(self, connection: Connection, file_id: int, *, is_sliced: bool) -> None:
        """A file's content is there: say so, and how large it is."""
        sizes = sa.select(sa.func.coalesce(sa.func.sum(file_blobs.c.size_bytes), 0))
        if is_sliced:
            sizes = sizes.join(
                file_slices,
                sa.and_(
                    file_slices.c.file_id == file_blobs.c.file_id,
                    file_slices.c.name == file_blobs.c.name,
                ),
            )
        size = connection.scalar(sizes.where(file_blobs.c.file_id == file_id))
        connection.execute(
            files.update().where(files.c.id == file_id).values(is_uploaded=True, size_bytes=size)
        )

    def _row(self, connection: Connection, scope: StorageScope, file_id: int, name: str) -> Any:
        find_row(connection, scope, file_id, self._clock())
        row = connection.execute(sa.select(file_blobs).where(*_named(file_id, name))).one_or_none()
        if row is None:
            raise NotFound(f'File {file_id} has no blob "{name}".', kind="blob", id=name)
        return row

    def _blob(self, scope: StorageScope, row: Any) -> Blob:
        size = row.size_bytes
        if size is None:  # of the time when it was not written down
            size = self._contents.path(scope.project, row.content).stat().st_size
        etag = sha256(row.content.encode()).hexdigest()[:16]
        return Blob(row.name, size, row.modified, etag)


def _named(file_id: int, name: str) -> tuple[sa.ColumnElement[bool], ...]:
    return file_blobs.c.file_id == file_id, file_blobs.c.name == name


def _layout(row: Any | None) -> list[tuple[str, int]]:
    """The blocks of which a blob is made, each with its size."""
    if row is None or row.blocks is None:
        return []
    return [(block, size) for block, size in json.loads(row.blocks)]


def _there_already(name: str) -> Conflict:
    return Conflict(f'The blob "{name}" is there already.')


def _check_name(name: str, *, is_sliced: bool) -> None:
    """`InvalidInput` unless a file's blob may have this name."""
    if not is_sliced and name:
        raise InvalidInput(f'"{name}" is not a blob of this file: it is not sliced.', path="name")
    if (
        name in {".", ".."}
        or "/" in name
        or not name.isprintable()
        or len(name.encode("utf-8", "surrogateescape")) > _LONGEST_NAME
    ):
        raise InvalidInput(
            f"The name of a slice is printable, has no slash and at most {_LONGEST_NAME} bytes.",
            path="name",
        )
