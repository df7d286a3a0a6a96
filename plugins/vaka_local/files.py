"""The files of the embedded Storage: content in folders, everything else in SQL.

Content is complete and on the disk before the database knows of it, and goes after the database has
forgotten it. So what a crash leaves behind is content that nobody knows; it is swept up later.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any, Final

import sqlalchemy as sa
import trio
import trio.from_thread
import trio.to_thread
from sqlalchemy.engine import Connection

from vaka.errors import InvalidInput
from vaka.hooks import BlobBackend, FileBackend
from vaka.models.storage import FileDetail, FileQuery, FileUpload, StorageScope
from vaka_local import filequery, names
from vaka_local.blobs import LocalBlobs
from vaka_local.blocks import Blocks
from vaka_local.contents import Contents, Stored
from vaka_local.database import Database, file_blobs, file_slices, file_tags, files
from vaka_local.disk import copy, new_file, new_folder, remove
from vaka_local.filerows import bounded, details, find_row, in_scope, is_alive, not_found

_MAX_AGE: Final = timedelta(days=15)
"""How long files are kept that are not permanent."""
_SWEEP_INTERVAL: Final = timedelta(hours=1)
_ABANDONED: Final = timedelta(days=1)
"""Age of content that nobody knows and that no upload can be working on any more, and of blocks that
nobody has committed."""
_TRANSFERS: Final = 4
_LONGEST_ENDING: Final = 32
_FORGOTTEN_SECONDS: Final = 30
"""How long to go on removing what was read when whoever read it has gone."""


class LocalFiles(FileBackend):
    """Files in a folder."""

    def __init__(self, home: Path, database: Database, clock: Callable[[], datetime]) -> None:
        """Keep content below `home`; `clock` gives the time in UTC."""
        self._contents = Contents(home)
        self._database = database
        self._clock = clock
        self._transfers = trio.CapacityLimiter(_TRANSFERS)
        self._blocks = Blocks(home)
        self._blobs = LocalBlobs(self._contents, self._blocks, database, clock, self._transfers)
        self._swept: datetime | None = None

    @property
    def takes_uploads(self) -> bool:
        return True

    @property
    def blobs(self) -> BlobBackend:
        return self._blobs

    async def list_files(self, scope: StorageScope, query: FileQuery) -> list[FileDetail]:
        if query.limit < 0 or query.offset < 0:
            raise InvalidInput("Limit and offset cannot be negative.", path="limit")
        conditions = [*in_scope(scope), filequery.condition(query.query)]
        if query.tags:
            tagged = sa.select(file_tags.c.file_id).where(file_tags.c.tag.in_(query.tags))
            conditions.append(files.c.id.in_(tagged))
        if query.since_id is not None:
            conditions.append(files.c.id > bounded(query.since_id))
        if query.max_id is not None:
            conditions.append(files.c.id < bounded(query.max_id))
        if query.run_id is not None:
            conditions.append(files.c.run_id == query.run_id)
        if query.creator_token_id is not None:
            conditions.append(files.c.creator_id == query.creator_token_id)
        if not query.show_expired:
            conditions.append(is_alive(self._clock()))
        statement = (
            sa.select(files)
            .where(*conditions)
            .order_by(files.c.id.desc())
            .limit(query.limit)
            .offset(query.offset)
        )
        return await self._database.read(
            lambda connection: details(connection, connection.execute(statement).all())
        )

    async def file(self, scope: StorageScope, file_id: int) -> FileDetail:
        return await self._database.read(
            lambda connection: details(connection, [self._row(connection, scope, file_id)])[0]
        )

    async def upload(
        self,
        scope: StorageScope,
        upload: FileUpload,
        source: Path | Sequence[Path],
        *,
        import_key: str | None = None,
        move: bool = False,
    ) -> FileDetail:
        sources = [source] if isinstance(source, Path) else list(source)
        if not upload.is_sliced and len(sources) != 1:
            raise InvalidInput(
                f'The file "{upload.name}" is not sliced and has {len(sources)} parts.',
                path="is_sliced",
            )
        name = names.file_name(upload.name, of_table=upload.of_table)
        await self._sweep_now_and_then()

        def store() -> FileDetail:
            def done(connection: Connection) -> FileDetail | None:
                return _imported(connection, scope, import_key)

            if (first := self._database.in_thread(done, writes=False)) is not None:
                return first
            contents = self._keep(scope.project, upload, name, sources, move=move)

            def insert(connection: Connection) -> FileDetail | None:
                if done(connection) is not None:  # stored by someone else meanwhile
                    return None
                return self._insert(connection, scope, upload, name, contents, import_key)

            stored = None
            try:
                stored = self._database.in_thread(insert, writes=True)
            finally:
                if stored is None:
                    self._contents.remove(scope.project, [each.name for each in contents.values()])
            return stored or store()

        return await trio.to_thread.run_sync(store, limiter=self._transfers)

    def _keep(
        self, project: str, upload: FileUpload, name: str, sources: Sequence[Path], *, move: bool
    ) -> dict[str, Stored]:
        """Store sources; what each blob is made of, slices in order."""
        check = trio.from_thread.check_cancelled
        if not upload.is_sliced:
            only = self._contents.store(project, sources[0], check, move=move, label="The file")
            return {"": only}
        ending = PurePosixPath(name.removesuffix(".gz")).suffix[:_LONGEST_ENDING]
        slices = self._contents.store_slices(project, sources, ending, check, move=move)
        return {PurePosixPath(each.name).name: each for each in slices}

    async def prepare(self, scope: StorageScope, upload: FileUpload) -> FileDetail:
        name = names.file_name(upload.name, of_table=upload.of_table)
        await self._sweep_now_and_then()
        return await self._database.write(
            lambda connection: self._insert(connection, scope, upload, name, None, None)
        )

    async def download(self, scope: StorageScope, file_id: int, target: Path) -> FileDetail:
        detail, sources = await self._whole(scope, file_id)

        def fetch() -> None:
            if not detail.is_sliced:
                _fetch(sources[0], target, file_id)
                return
            with new_folder(target):
                for name, path in zip(detail.slices, sources, strict=True):
                    _fetch(path, target / name, file_id)

        await trio.to_thread.run_sync(fetch, limiter=self._transfers)
        return detail

    @asynccontextmanager
    async def reading(self, scope: StorageScope, file_id: int) -> AsyncGenerator[list[Path], None]:
        _, sources = await self._whole(scope, file_id)

        def hold() -> Path:
            try:
                return self._contents.hold(sources, trio.from_thread.check_cancelled)
            except FileNotFoundError as error:  # deleted since it was looked up
                raise not_found(file_id) from error

        folder = await trio.to_thread.run_sync(hold, limiter=self._transfers)
        try:
            yield [folder / f"{number:05d}" for number in range(len(sources))]
        finally:
            with trio.move_on_after(_FORGOTTEN_SECONDS, shield=True):
                await trio.to_thread.run_sync(remove, folder)

    async def _whole(self, scope: StorageScope, file_id: int) -> tuple[FileDetail, list[Path]]:
        """A file that is complete, and the paths of its content, slices in order."""

        def find(connection: Connection) -> tuple[FileDetail, dict[str, str]]:
            row = self._row(connection, scope, file_id)
            blobs = sa.select(file_blobs.c.name, file_blobs.c.content).where(
                file_blobs.c.file_id == file_id
            )
            known: dict[str, str] = dict(map(tuple, connection.execute(blobs)))
            return details(connection, [row])[0], known

        detail, known = await self._database.read(find)
        if not detail.is_uploaded:
            raise InvalidInput(
                f'The content of the file {file_id}, "{detail.name}", has not been uploaded.',
                code="storage.fileNotUploaded",
            )
        wanted = detail.slices if detail.is_sliced else ("",)
        if missing := [name for name in wanted if name not in known]:
            raise InvalidInput(
                f'The manifest of the file {file_id} names "{missing[0]}", which is not a slice of '
                "it. Slices lie in the file's own container.",
                path="slices",
            )
        return detail, [self._contents.path(scope.project, known[name]) for name in wanted]

    async def delete(self, scope: StorageScope, file_id: int) -> None:
        def forget(connection: Connection) -> list[str]:
            self._row(connection, scope, file_id)
            return _forget(connection, files.c.id == file_id)

        await self._remove(scope.project, await self._database.write(forget))
        await trio.to_thread.run_sync(self._blocks.discard, scope.project, file_id)

    async def _remove(self, project: str, contents: Sequence[str]) -> None:
        await trio.to_thread.run_sync(self._contents.remove, project, contents)

    async def add_tags(self, scope: StorageScope, file_id: int, tags: Sequence[str]) -> None:
        def add(connection: Connection) -> None:
            self._row(connection, scope, file_id)
            _add_tags(connection, file_id, tags)

        await self._database.write(add)

    async def remove_tags(self, scope: StorageScope, file_id: int, tags: Sequence[str]) -> None:
        def remove(connection: Connection) -> None:
            self._row(connection, scope, file_id)
            connection.execute(
                file_tags.delete().where(
                    file_tags.c.file_id == file_id, file_tags.c.tag.in_(list(tags))
                )
            )

        await self._database.write(remove)

    async def drop_branch(self, scope: StorageScope) -> None:
        """Remove all files of a branch."""

        def forget(connection: Connection) -> list[str]:
            return _forget(connection, sa.and_(*in_scope(scope)))

        await self._remove(scope.project, await self._database.write(forget))

    async def sweep(self) -> None:
        """Remove the content of expired files, and what nobody will come back for."""
        now = self._clock()

        def expired(connection: Connection) -> list[tuple[str, str]]:
            gone = sa.select(files.c.id).where(files.c.expires <= now)
            statement = (
                sa.select(files.c.project, file_blobs.c.content)
                .join(files, files.c.id == file_blobs.c.file_id)
                .where(files.c.expires <= now)
            )
            rows = [(project, content) for project, content in connection.execute(statement)]
            connection.execute(file_blobs.delete().where(file_blobs.c.file_id.in_(gone)))
            return rows

        for project, content in await self._database.write(expired):
            await self._remove(project, [content])
        before = (now - _ABANDONED).timestamp()
        await trio.to_thread.run_sync(self._blocks.sweep, before)
        if self._swept is None:  # only a crash leaves such things behind
            await trio.to_thread.run_sync(self._contents.sweep_readers, before)
            for path in await trio.to_thread.run_sync(self._abandoned, before):
                await trio.to_thread.run_sync(remove, path)
        self._swept = now

    async def _sweep_now_and_then(self) -> None:
        if self._swept is None or self._clock() - self._swept >= _SWEEP_INTERVAL:
            await self.sweep()

    def _abandoned(self, before: float) -> list[Path]:
        """Content that is older than `before` and in no database."""
        old = self._contents.older(before)
        if not old:
            return []
        statement = sa.select(file_blobs.c.content)
        known = self._database.in_thread(
            lambda connection: {each.partition("/")[0] for each in connection.scalars(statement)},
            writes=False,
        )
        return [path for path in old if path.name not in known]

    def _row(self, connection: Connection, scope: StorageScope, file_id: int) -> Any:
        return find_row(connection, scope, file_id, self._clock())

    def _insert(
        self,
        connection: Connection,
        scope: StorageScope,
        upload: FileUpload,
        name: str,
        contents: dict[str, Stored] | None,
        import_key: str | None,
    ) -> FileDetail:
        """Make a file known; its content, if there is any yet, by the names of the blobs."""
        now = self._clock()
        size = upload.size_bytes or 0
        if contents is not None:
            size = sum(each.size for each in contents.values())
        insert = (
            files.insert()
            .values(
                project=scope.project,
                branch=scope.branch or "",
                name=name,
                name_lower=name.lower(),
                name_words=f" {' '.join(names.words(name))} ",
                created=now,
                expires=None if upload.is_permanent else now + _MAX_AGE,
                size_bytes=size,
                is_public=upload.is_public,
                is_encrypted=upload.is_encrypted,
                is_sliced=upload.is_sliced,
                max_age_days=None if upload.is_permanent else _MAX_AGE.days,
                run_id=scope.run_id,
                creator_id=scope.token_id,
                creator_description=scope.token_description,
                import_key=import_key,
                is_uploaded=contents is not None,
            )
            .returning(files.c.id)
        )
        file_id = connection.execute(insert).scalar_one()
        _add_tags(connection, file_id, upload.tags)
        if contents:
            connection.execute(
                file_blobs.insert(),
                [
                    {
                        "file_id": file_id,
                        "name": blob,
                        "content": each.name,
                        "size_bytes": each.size,
                        "modified": now,
                    }
                    for blob, each in contents.items()
                ],
            )
        if contents and upload.is_sliced:
            connection.execute(
                file_slices.insert(),
                [
                    {"file_id": file_id, "position": position, "name": blob}
                    for position, blob in enumerate(contents)
                ],
            )
        row = connection.execute(sa.select(files).where(files.c.id == file_id)).one()
        return details(connection, [row])[0]


def _forget(connection: Connection, which: sa.ColumnElement[bool]) -> list[str]:
    """Forget files; the content that they had."""
    ids = sa.select(files.c.id).where(which)
    contents = list(
        connection.scalars(sa.select(file_blobs.c.content).where(file_blobs.c.file_id.in_(ids)))
    )
    connection.execute(files.delete().where(which))
    return contents


def _imported(
    connection: Connection, scope: StorageScope, import_key: str | None
) -> FileDetail | None:
    """The file that was stored with this key."""
    if import_key is None:
        return None
    row = connection.execute(
        sa.select(files).where(files.c.project == scope.project, files.c.import_key == import_key)
    ).first()
    return None if row is None else details(connection, [row])[0]


def _add_tags(connection: Connection, file_id: int, tags: Sequence[str]) -> None:
    position = sa.select(sa.func.coalesce(sa.func.max(file_tags.c.position), -1) + 1)
    present = set(
        connection.scalars(sa.select(file_tags.c.tag).where(file_tags.c.file_id == file_id))
    )
    first = connection.execute(position.where(file_tags.c.file_id == file_id)).scalar_one()
    new = [tag for tag in dict.fromkeys(tags) if tag not in present]
    if new:
        connection.execute(
            file_tags.insert(),
            [
                {"file_id": file_id, "tag": tag, "position": first + offset}
                for offset, tag in enumerate(new)
            ],
        )


def _fetch(source: Path, target: Path, file_id: int) -> None:
    try:
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:  # deleted since it was looked up
        raise not_found(file_id) from error
    try:
        with new_file(target) as new:
            copy(fd, new, trio.from_thread.check_cancelled)
    finally:
        os.close(fd)
