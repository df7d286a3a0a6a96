"""The files of the embedded Storage: content in a folder, everything else in SQL.

Content is complete and on the disk before the database knows of it, and goes after the database has
forgotten it. So what a crash leaves behind is content that nobody knows; it is swept up later.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import sqlalchemy as sa
import trio
import trio.from_thread
import trio.to_thread
from sqlalchemy.engine import Connection

from vaka.errors import ApplicationError, InvalidInput, NotFound
from vaka.hooks import FileBackend
from vaka.models.storage import FileDetail, FileQuery, FileUpload, StorageScope
from vaka_local import filequery, names
from vaka_local.database import Database, file_slices, file_tags, files
from vaka_local.disk import copy, new_file, new_folder, open_regular, remove, sync_folder

_MAX_AGE: Final = timedelta(days=15)
"""How long files are kept that are not permanent."""
_SWEEP_INTERVAL: Final = timedelta(hours=1)
_ABANDONED: Final = timedelta(days=1)
"""Age of content that nobody knows and that no upload can be working on any more."""
_TRANSFERS: Final = 4
_IDS_AT_A_TIME: Final = 500


class LocalFiles(FileBackend):
    """Files in a folder."""

    def __init__(self, folder: Path, database: Database, clock: Callable[[], datetime]) -> None:
        """Keep content in `folder`; `clock` gives the time in UTC."""
        self._folder = folder
        self._database = database
        self._clock = clock
        self._transfers = trio.CapacityLimiter(_TRANSFERS)
        self._swept: datetime | None = None

    async def list_files(self, scope: StorageScope, query: FileQuery) -> list[FileDetail]:
        if query.limit < 0 or query.offset < 0:
            raise InvalidInput("Limit and offset cannot be negative.", path="limit")
        conditions = [*_in(scope), filequery.condition(query.query)]
        if query.tags:
            tagged = sa.select(file_tags.c.file_id).where(file_tags.c.tag.in_(query.tags))
            conditions.append(files.c.id.in_(tagged))
        if query.since_id is not None:
            conditions.append(files.c.id > _bounded(query.since_id))
        if query.max_id is not None:
            conditions.append(files.c.id < _bounded(query.max_id))
        if query.run_id is not None:
            conditions.append(files.c.run_id == query.run_id)
        if not query.show_expired:
            conditions.append(self._is_alive())
        statement = (
            sa.select(files)
            .where(*conditions)
            .order_by(files.c.id.desc())
            .limit(query.limit)
            .offset(query.offset)
        )
        return await self._database.read(
            lambda connection: _details(connection, connection.execute(statement).all())
        )

    async def file(self, scope: StorageScope, file_id: int) -> FileDetail:
        found = await self._database.read(
            lambda connection: _details(connection, [self._row(connection, scope, file_id)])
        )
        return found[0]

    async def upload(
        self,
        scope: StorageScope,
        upload: FileUpload,
        source: Path | Sequence[Path],
        *,
        import_key: str | None = None,
    ) -> FileDetail:
        sources = [source] if isinstance(source, Path) else list(source)
        if not upload.is_sliced and len(sources) != 1:
            raise InvalidInput(
                f'The file "{upload.name}" is not sliced and has {len(sources)} parts.',
                path="is_sliced",
            )
        name = names.file_name(upload.name)
        folder = self._folder / names.project_folder(scope.project)
        await self._sweep_now_and_then()

        def store() -> FileDetail:
            def done(connection: Connection) -> FileDetail | None:
                return _imported(connection, scope, import_key)

            if (first := self._database.in_thread(done, writes=False)) is not None:
                return first
            content = uuid4().hex
            size, slices = _store(folder, content, sources, is_sliced=upload.is_sliced)

            def insert(connection: Connection) -> FileDetail | None:
                if done(connection) is not None:  # stored by someone else meanwhile
                    return None
                return self._insert(
                    connection, scope, upload, name, content, size, slices, import_key
                )

            stored = None
            try:
                stored = self._database.in_thread(insert, writes=True)
            finally:
                if stored is None:
                    remove(folder / content)
            return stored or store()

        return await trio.to_thread.run_sync(store, limiter=self._transfers)

    async def download(self, scope: StorageScope, file_id: int, target: Path) -> FileDetail:
        def find(connection: Connection) -> tuple[FileDetail, str]:
            row = self._row(connection, scope, file_id)
            return _details(connection, [row])[0], row.content

        detail, content = await self._database.read(find)
        path = self._folder / scope.project / content

        def fetch() -> None:
            if not detail.is_sliced:
                _fetch(path, target, file_id)
                return
            with new_folder(target):
                for name in detail.slices:
                    _fetch(path / name, target / name, file_id)

        await trio.to_thread.run_sync(fetch, limiter=self._transfers)
        return detail

    async def delete(self, scope: StorageScope, file_id: int) -> None:
        def forget(connection: Connection) -> str:
            row = self._row(connection, scope, file_id)
            connection.execute(files.delete().where(files.c.id == file_id))
            return str(row.content)

        content = await self._database.write(forget)
        await trio.to_thread.run_sync(remove, self._folder / scope.project / content)

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
            gone = sa.and_(*_in(scope))
            content = sa.select(files.c.content).where(gone, files.c.content.is_not(None))
            names = list(connection.scalars(content))
            connection.execute(files.delete().where(gone))
            return [name for name in names if name is not None]

        for content in await self._database.write(forget):
            await trio.to_thread.run_sync(remove, self._folder / scope.project / content)

    async def sweep(self) -> None:
        """Remove the content of expired files, and content that a crash has left behind."""
        now = self._clock()

        def expired(connection: Connection) -> list[Path]:
            gone = sa.and_(files.c.expires <= now, files.c.content.is_not(None))
            rows = connection.execute(sa.select(files).where(gone)).all()
            connection.execute(files.update().where(gone).values(content=None))
            return [self._folder / row.project / row.content for row in rows]

        for path in await self._database.write(expired):
            await trio.to_thread.run_sync(remove, path)
        if self._swept is None:  # only a crash leaves such things behind
            for path in await trio.to_thread.run_sync(self._abandoned, now - _ABANDONED):
                await trio.to_thread.run_sync(remove, path)
        self._swept = now

    async def _sweep_now_and_then(self) -> None:
        if self._swept is None or self._clock() - self._swept >= _SWEEP_INTERVAL:
            await self.sweep()

    def _abandoned(self, before: datetime) -> list[Path]:
        """Content that is older than `before` and in no database."""
        old = []
        for path in self._folder.glob("*/*"):
            with suppress(FileNotFoundError):
                if path.lstat().st_mtime < before.timestamp():
                    old.append(path)
        if not old:
            return []
        statement = sa.select(files.c.content).where(files.c.content.is_not(None))
        known = self._database.in_thread(
            lambda connection: set(connection.scalars(statement)), writes=False
        )
        return [path for path in old if path.name not in known]

    def _is_alive(self) -> sa.ColumnElement[bool]:
        return sa.or_(files.c.expires.is_(None), files.c.expires > self._clock())

    def _row(self, connection: Connection, scope: StorageScope, file_id: int) -> Any:
        wanted = (files.c.id == _bounded(file_id), *_in(scope))
        row = connection.execute(sa.select(files).where(*wanted, self._is_alive())).first()
        if row is None:
            raise NotFound(f"File id: {file_id} not found", kind="file", id=str(file_id))
        return row

    def _insert(
        self,
        connection: Connection,
        scope: StorageScope,
        upload: FileUpload,
        name: str,
        content: str,
        size: int,
        slices: Sequence[str],
        import_key: str | None,
    ) -> FileDetail:
        now = self._clock()
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
                content=content,
            )
            .returning(files.c.id)
        )
        file_id = connection.execute(insert).scalar_one()
        _add_tags(connection, file_id, upload.tags)
        if slices:
            connection.execute(
                file_slices.insert(),
                [
                    {"file_id": file_id, "position": position, "name": slice_name}
                    for position, slice_name in enumerate(slices)
                ],
            )
        row = connection.execute(sa.select(files).where(files.c.id == file_id)).one()
        return _details(connection, [row])[0]


def _in(scope: StorageScope) -> tuple[sa.ColumnElement[bool], ...]:
    """Files of a project's branch."""
    return files.c.project == scope.project, files.c.branch == (scope.branch or "")


def _bounded(number: int) -> int:
    """A number that a database can compare with an id, and which is the same for all ids there are."""
    return max(-1, min(number, 2**63 - 1))


def _imported(
    connection: Connection, scope: StorageScope, import_key: str | None
) -> FileDetail | None:
    """The file that was stored with this key."""
    if import_key is None:
        return None
    row = connection.execute(
        sa.select(files).where(files.c.project == scope.project, files.c.import_key == import_key)
    ).first()
    return None if row is None else _details(connection, [row])[0]


def _details(connection: Connection, rows: Sequence[Any]) -> list[FileDetail]:
    """Rows of the table of files with their tags and slices."""
    ids = [row.id for row in rows]
    tags: dict[int, list[str]] = {}
    slices: dict[int, list[str]] = {}
    for start in range(0, len(ids), _IDS_AT_A_TIME):
        part = ids[start : start + _IDS_AT_A_TIME]
        for table, name, result in (
            (file_tags, file_tags.c.tag, tags),
            (file_slices, file_slices.c.name, slices),
        ):
            statement = (
                sa.select(table.c.file_id, name)
                .where(table.c.file_id.in_(part))
                .order_by(table.c.file_id, table.c.position)
            )
            for file_id, value in connection.execute(statement):
                result.setdefault(file_id, []).append(value)
    return [
        FileDetail(
            id=row.id,
            name=row.name,
            created=row.created,
            size_bytes=row.size_bytes,
            tags=tuple(tags.get(row.id, ())),
            is_public=row.is_public,
            is_encrypted=row.is_encrypted,
            is_sliced=row.is_sliced,
            max_age_days=row.max_age_days,
            run_id=row.run_id,
            creator_token_id=row.creator_id,
            creator_token_description=row.creator_description,
            slices=tuple(slices.get(row.id, ())),
        )
        for row in rows
    ]


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


def _store(
    folder: Path, content: str, sources: Sequence[Path], *, is_sliced: bool
) -> tuple[int, list[str]]:
    """Copy files to `folder/content`, durably; give the number of bytes and the slices' names."""
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(folder.parent)
    unfinished = folder / f"{content}.part"
    try:
        if is_sliced:
            unfinished.mkdir(mode=0o700)
            size, slices = 0, []
            for number, source in enumerate(sources):
                with _source(source, f"Slice {number + 1} of the file") as fd:
                    packed = os.pread(fd, 2, 0) == b"\x1f\x8b"
                    slices.append(f"part.{number:05d}{'.gz' if packed else ''}")
                    size += _write(fd, unfinished / slices[-1])
            sync_folder(unfinished)
        else:
            slices = []
            with _source(sources[0], "The file") as fd:
                size = _write(fd, unfinished)
        unfinished.rename(folder / content)
        sync_folder(folder)
    except OSError as error:
        remove(unfinished)
        raise ApplicationError(f"A file cannot be stored: {error.strerror}.") from error
    except BaseException:
        remove(unfinished)
        raise
    return size, slices


@contextmanager
def _source(path: Path, label: str) -> Generator[int, None, None]:
    fd = open_regular(path, label)
    try:
        yield fd
    finally:
        os.close(fd)


def _write(source: int, target: Path) -> int:
    with new_file(target) as fd:
        size = copy(source, fd, trio.from_thread.check_cancelled)
        os.fsync(fd)
    return size


def _fetch(source: Path, target: Path, file_id: int) -> None:
    try:
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:  # deleted since it was looked up
        raise NotFound(f"File id: {file_id} not found", kind="file", id=str(file_id)) from error
    try:
        with new_file(target) as new:
            copy(fd, new, trio.from_thread.check_cancelled)
    finally:
        os.close(fd)
