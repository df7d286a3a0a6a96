"""Files: what is known of them in the database, their content in a folder beside it.

The content is written while the transaction is open, to a name made of the new id, and is on the disk
before the transaction ends. If that never happens, the next upload gets the same id and writes over it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import trio

from vaka.errors import InvalidInput, NotFound
from vaka.hooks import FileBackend
from vaka.models.storage import FileDetail, FileQuery, FileUpload, StorageScope
from vaka_sqlite import disk, filequery
from vaka_sqlite.database import Database, bounded, moment, now
from vaka_sqlite.names import file_name, words

MAX_AGE_DAYS = 15
"""After this, files that are not permanent are gone."""
_COLUMNS = (
    "id, name, created, expires, bytes, is_public, is_encrypted, is_sliced, slices, run_id,"
    " token_id, token_description"
)


class SqliteFiles(FileBackend):
    """The files of all projects, their content in `folder`."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder

    async def remove_expired(self) -> None:
        """Remove the content of files that have expired; they stay listed as such."""

        def work(connection: sqlite3.Connection) -> None:
            expired = connection.execute("SELECT id FROM file WHERE expires <= ?", (now(),))
            for (file_id,) in expired:
                disk.remove(self._content(file_id))

        await self._database.read(work)

    async def list_files(self, scope: StorageScope, query: FileQuery) -> list[FileDetail]:
        if query.limit < 0 or query.offset < 0:
            raise InvalidInput("Limit and offset cannot be negative.", path="limit")
        terms = ["project = ?"]
        bound: list[str | int] = [scope.project]
        if not query.show_expired:
            terms.append("coalesce(expires > ?, TRUE)")
            bound.append(now())
        if query.tags:
            terms.append(
                "EXISTS (SELECT 1 FROM tag JOIN json_each(?) ON tag = value WHERE file = file.id)"
            )
            bound.append(json.dumps(query.tags))
        if query.query.strip():
            condition = filequery.parse(query.query)
            terms.append(condition.sql)
            bound += condition.values
        for term, value in (
            ("id > ?", None if query.since_id is None else bounded(query.since_id)),
            ("id < ?", None if query.max_id is None else bounded(query.max_id)),
            ("run_id = ?", query.run_id),
            ("token_id = ?", query.creator_token_id),
        ):
            if value is not None:
                terms.append(term)
                bound.append(value)
        sql = (
            f"SELECT {_COLUMNS} FROM file WHERE {' AND '.join(terms)}"
            " ORDER BY id DESC LIMIT ? OFFSET ?"
        )

        def work(connection: sqlite3.Connection) -> list[FileDetail]:
            rows = connection.execute(sql, (*bound, bounded(query.limit), bounded(query.offset)))
            return [_detail(connection, row) for row in rows.fetchall()]

        return await self._database.read(work)

    async def file(self, scope: StorageScope, file_id: int) -> FileDetail:
        return await self._database.read(partial(_find, scope=scope, file_id=file_id))

    async def upload(
        self,
        scope: StorageScope,
        upload: FileUpload,
        source: Path | Sequence[Path],
        *,
        import_key: str | None = None,
        move: bool = False,  # noqa: ARG002 - a copy is always right
    ) -> FileDetail:
        paths = [source] if isinstance(source, Path) else list(source)
        if len(paths) != 1 and not upload.is_sliced:
            raise InvalidInput(
                f'The file "{upload.name}" has {len(paths)} parts and is not sliced.', path="source"
            )

        def work(connection: sqlite3.Connection) -> FileDetail:
            if import_key is not None:
                first = connection.execute(
                    f"SELECT {_COLUMNS} FROM file WHERE project = ? AND import_key = ?",
                    (scope.project, import_key),
                ).fetchone()
                if first is not None:
                    return _detail(connection, first)
            file_id = _insert(connection, scope, upload, import_key)
            slices = [f"{number:05d}" for number in range(len(paths))] if upload.is_sliced else []
            size = self._write(file_id, paths, slices if upload.is_sliced else None)
            connection.execute(
                "UPDATE file SET bytes = ?, slices = ? WHERE id = ?",
                (size, json.dumps(slices), file_id),
            )
            _add_tags(connection, file_id, upload.tags)
            return _find(connection, scope=scope, file_id=file_id)

        return await self._database.write(work)

    async def download(self, scope: StorageScope, file_id: int, target: Path) -> FileDetail:
        def work(connection: sqlite3.Connection) -> FileDetail:
            file = _find(connection, scope=scope, file_id=file_id)
            content = self._content(file_id)
            if not content.exists():
                raise _not_found(file_id)  # deleted meanwhile
            with disk.new(target):
                if file.is_sliced:
                    target.mkdir()
                    for name in file.slices:
                        disk.copy(content / name, target / name)
                else:
                    disk.copy(content, target)
            return file

        return await self._database.read(work)

    async def delete(self, scope: StorageScope, file_id: int) -> None:
        def work(connection: sqlite3.Connection) -> None:
            _find(connection, scope=scope, file_id=file_id)
            connection.execute("DELETE FROM file WHERE id = ?", (file_id,))

        await self._database.write(work)
        await trio.to_thread.run_sync(disk.remove, self._content(file_id))

    async def add_tags(self, scope: StorageScope, file_id: int, tags: Sequence[str]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            _find(connection, scope=scope, file_id=file_id)
            _add_tags(connection, file_id, tags)

        await self._database.write(work)

    async def remove_tags(self, scope: StorageScope, file_id: int, tags: Sequence[str]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            _find(connection, scope=scope, file_id=file_id)
            connection.executemany(
                "DELETE FROM tag WHERE file = ? AND tag = ?", [(file_id, tag) for tag in tags]
            )

        await self._database.write(work)

    # -- content -----------------------------------------------------------------------------------

    def _content(self, file_id: int) -> Path:
        return self._folder / str(file_id)

    def _write(self, file_id: int, paths: Sequence[Path], slices: Sequence[str] | None) -> int:
        """Write a file's content, one file or a folder of slices; its size, once it is durable."""
        content = self._content(file_id)
        disk.remove(content)  # of an upload that was taken back
        self._folder.mkdir(exist_ok=True)
        with disk.new(content):
            targets = [content] if slices is None else [content / name for name in slices]
            if slices is not None:
                content.mkdir()
            for source, target in zip(paths, targets, strict=True):
                disk.copy(source, target)
                disk.sync(target)
            if slices is not None:
                disk.sync(content)
            disk.sync(self._folder)
            return sum(target.stat().st_size for target in targets)


def _insert(
    connection: sqlite3.Connection, scope: StorageScope, upload: FileUpload, import_key: str | None
) -> int:
    name = file_name(upload.name)
    created = now()
    age = timedelta(days=MAX_AGE_DAYS) // timedelta(microseconds=1)
    file_id = connection.execute(
        "INSERT INTO file (project, name, words, created, expires, bytes, is_public, is_encrypted,"
        " is_sliced, slices, run_id, token_id, token_description, import_key)"
        " VALUES (?, ?, ?, ?, ?, 0, ?, ?, ?, '[]', ?, ?, ?, ?)",
        (
            scope.project,
            name,
            f" {' '.join(words(name))} ",
            created,
            None if upload.is_permanent else created + age,
            upload.is_public,
            upload.is_encrypted,
            upload.is_sliced,
            scope.run_id,
            scope.token_id,
            scope.token_description,
            import_key,
        ),
    ).lastrowid
    assert file_id is not None
    return file_id


def _add_tags(connection: sqlite3.Connection, file_id: int, tags: Sequence[str]) -> None:
    connection.executemany(
        "INSERT INTO tag (file, tag) VALUES (?, ?) ON CONFLICT DO NOTHING",
        [(file_id, tag) for tag in tags],
    )


def _find(connection: sqlite3.Connection, *, scope: StorageScope, file_id: int) -> FileDetail:
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM file WHERE project = ? AND id = ? AND coalesce(expires > ?, TRUE)",
        (scope.project, bounded(file_id), now()),
    ).fetchone()
    if row is None:
        raise _not_found(file_id)
    return _detail(connection, row)


def _not_found(file_id: int) -> NotFound:
    return NotFound(f"File {file_id} not found", kind="file", id=str(file_id))


def _detail(connection: sqlite3.Connection, row: tuple[Any, ...]) -> FileDetail:
    file_id, name, created, expires, size, public, encrypted, sliced, slices, run_id, *token = row
    tags = connection.execute("SELECT tag FROM tag WHERE file = ? ORDER BY rowid", (file_id,))
    return FileDetail(
        id=file_id,
        name=name,
        created=moment(created),
        size_bytes=size,
        tags=tuple(tag for (tag,) in tags),
        is_public=bool(public),
        is_encrypted=bool(encrypted),
        is_sliced=bool(sliced),
        max_age_days=None if expires is None else MAX_AGE_DAYS,
        run_id=run_id,
        creator_token_id=token[0],
        creator_token_description=token[1],
        slices=tuple(json.loads(slices)),
    )
