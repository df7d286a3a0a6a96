"""Files: what is known of them in the database, their content in a folder beside it.

The content is written while the transaction is open, to a name made of the new id, and is on the disk
before the transaction ends. If that never happens, the next upload gets the same id and writes over it.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import trio

from vaka.errors import NotFound
from vaka.hooks import FileBackend
from vaka.models.storage import FileDetail, FileQuery, FileUpload, StorageScope
from vaka_sqlite import filequery
from vaka_sqlite.database import Database, moment, now
from vaka_sqlite.names import file_name, words

MAX_AGE_DAYS = 15
"""After this, files that are not permanent are gone."""
_CHUNK = 1 << 20
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
                self._remove(file_id)

        await self._database.read(work)

    async def list_files(self, scope: StorageScope, query: FileQuery) -> list[FileDetail]:
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
            ("id > ?", query.since_id),
            ("id < ?", query.max_id),
            ("run_id = ?", query.run_id),
        ):
            if value is not None:
                terms.append(term)
                bound.append(value)
        sql = (
            f"SELECT {_COLUMNS} FROM file WHERE {' AND '.join(terms)}"
            " ORDER BY id DESC LIMIT ? OFFSET ?"
        )

        def work(connection: sqlite3.Connection) -> list[FileDetail]:
            rows = connection.execute(sql, (*bound, query.limit, query.offset))
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
    ) -> FileDetail:
        def work(connection: sqlite3.Connection) -> FileDetail:
            if import_key is not None:
                first = connection.execute(
                    f"SELECT {_COLUMNS} FROM file WHERE project = ? AND import_key = ?",
                    (scope.project, import_key),
                ).fetchone()
                if first is not None:
                    return _detail(connection, first)
            paths = [source] if isinstance(source, Path) else list(source)
            is_sliced = upload.is_sliced or not isinstance(source, Path)
            file_id = _insert(connection, scope, upload, import_key)
            slices = [f"{number:05d}" for number in range(len(paths))] if is_sliced else []
            size = self._write(file_id, paths, slices if is_sliced else None)
            connection.execute(
                "UPDATE file SET bytes = ?, is_sliced = ?, slices = ? WHERE id = ?",
                (size, is_sliced, json.dumps(slices), file_id),
            )
            _add_tags(connection, file_id, upload.tags)
            return _find(connection, scope=scope, file_id=file_id)

        return await self._database.write(work)

    async def download(self, scope: StorageScope, file_id: int, target: Path) -> FileDetail:
        def work(connection: sqlite3.Connection) -> FileDetail:
            file = _find(connection, scope=scope, file_id=file_id)
            content = self._folder / str(file_id)
            try:
                if not file.is_sliced:
                    _copy(content, target)
                else:
                    target.mkdir()
                    for name in file.slices:
                        _copy(content / name, target / name)
            except FileNotFoundError as error:
                raise _not_found(file_id) from error  # deleted meanwhile
            return file

        return await self._database.read(work)

    async def delete(self, scope: StorageScope, file_id: int) -> None:
        def work(connection: sqlite3.Connection) -> None:
            _find(connection, scope=scope, file_id=file_id)
            connection.execute("DELETE FROM file WHERE id = ?", (file_id,))

        await self._database.write(work)
        await trio.to_thread.run_sync(self._remove, file_id)

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

    def _write(self, file_id: int, paths: Sequence[Path], slices: Sequence[str] | None) -> int:
        """Write a file's content so that it survives a power cut; its size."""
        self._remove(file_id)  # of an upload that was taken back
        self._folder.mkdir(exist_ok=True)
        content = self._folder / str(file_id)
        try:
            if slices is None:
                return _written(self._folder, [(paths[0], content)])
            content.mkdir()
            size = _written(
                content, [(path, content / name) for path, name in zip(paths, slices, strict=True)]
            )
            _sync(self._folder)
        except BaseException:
            self._remove(file_id)
            raise
        return size

    def _remove(self, file_id: int) -> None:
        content = self._folder / str(file_id)
        if content.is_dir():
            shutil.rmtree(content)
        else:
            content.unlink(missing_ok=True)


def _written(folder: Path, copies: Iterable[tuple[Path, Path]]) -> int:
    size = 0
    for source, target in copies:
        _copy(source, target)
        _sync(target)
        size += target.stat().st_size
    _sync(folder)
    return size


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("xb") as written:
        while chunk := read.read(_CHUNK):
            trio.from_thread.check_cancelled()
            written.write(chunk)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _insert(
    connection: sqlite3.Connection, scope: StorageScope, upload: FileUpload, import_key: str | None
) -> int:
    name = file_name(upload.name)
    created = now()
    age = timedelta(days=MAX_AGE_DAYS) // timedelta(microseconds=1)
    file_id = connection.execute(
        "INSERT INTO file (project, name, words, created, expires, bytes, is_public, is_encrypted,"
        " is_sliced, slices, run_id, token_id, token_description, import_key)"
        " VALUES (?, ?, ?, ?, ?, 0, ?, ?, FALSE, '[]', ?, ?, ?, ?)",
        (
            scope.project,
            name,
            f" {' '.join(words(name))} ",
            created,
            None if upload.is_permanent else created + age,
            upload.is_public,
            upload.is_encrypted,
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
        (scope.project, file_id, now()),
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
