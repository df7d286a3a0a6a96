"""Where the content of files lies: complete and on the disk under names that are never used again.

Content is below `files/<project>/`, one file a blob; blocks of which blobs are to be made are below
`blocks/<project>/<file>/`; and below `reading/` files that are being read have a second name, so that
they stay whatever becomes of the first.

A name appears at once: what is half written ends in `.part`. Content is on the disk (`fsync`) before its
name is given away. Blocks are not: a power cut may cost them, the end of a process does not.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final
from uuid import uuid4

from vaka.errors import InvalidInput
from vaka_local import names
from vaka_local.disk import (
    copy,
    link,
    new_file,
    not_stored,
    open_regular,
    remove,
    sync_folder,
    take,
)

MOST_BLOCKS: Final = 50_000
"""Blocks of one blob, as in the protocol that they come by."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a file."""

    path: Path
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Stored:
    """Content that nobody knows of yet: `name` is its name within the project's folder."""

    name: str
    size: int


class Contents:
    """The folders of content.

    All methods are for threads; `check` is called now and then, and may raise.
    """

    def __init__(self, home: Path) -> None:
        self._files = home / "files"
        self._blocks = home / "blocks"
        self._reading = home / "reading"
        self._lock = threading.Lock()
        self._counts: dict[Path, int] = {}

    def path(self, project: str, content: str) -> Path:
        return self._files / project / content

    def remove(self, project: str, contents: Iterable[str]) -> None:
        """Remove content; a folder goes with the last in it."""
        for content in contents:
            path = self.path(project, content)
            remove(path)
            if path.parent != self._files / project:
                with suppress(OSError):
                    path.parent.rmdir()

    # -- storing -----------------------------------------------------------------------------------

    def store(
        self, project: str, source: Path, check: Callable[[], None], *, move: bool, label: str
    ) -> Stored:
        """Keep one file.

        Raises:
            MappingFailed: `source` is not a regular file.
            ApplicationError: it cannot be stored; `DiskFull` when that is the reason.
        """
        with self._new(project) as unfinished:
            size = _keep(source, unfinished, check, move=move, label=label)
        return Stored(unfinished.stem, size)

    def store_slices(
        self,
        project: str,
        sources: Sequence[Path],
        ending: str,
        check: Callable[[], None],
        *,
        move: bool,
    ) -> list[Stored]:
        """Keep files together in a folder; `ending` is that of their names when they are not packed.

        Raises:
            MappingFailed, ApplicationError: as `store`.
        """
        stored: list[Stored] = []
        if not sources:
            return stored
        with self._new(project) as unfinished:
            unfinished.mkdir(mode=0o700)
            for number, source in enumerate(sources):
                label = f"Slice {number + 1} of the file"
                name = f"part.{number:05d}{ending}{_packed(source, label)}"
                size = _keep(source, unfinished / name, check, move=move, label=label)
                stored.append(Stored(f"{unfinished.stem}/{name}", size))
            sync_folder(unfinished)
        return stored

    def store_pieces(
        self, project: str, pieces: Sequence[Piece], check: Callable[[], None]
    ) -> Stored:
        """Keep what pieces of files make together.

        Raises:
            FileNotFoundError: one of them has gone.
            ApplicationError: as `store`.
        """
        size = 0
        with self._new(project) as unfinished, new_file(unfinished) as target:
            for piece in pieces:
                fd = os.open(piece.path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    size += copy(fd, target, check, offset=piece.offset, size=piece.size)
                finally:
                    os.close(fd)
            os.fsync(target)
        return Stored(unfinished.stem, size)

    @contextmanager
    def _new(self, project: str) -> Generator[Path, None, None]:
        """The name under which to write; what is there on leaving gets its own name, durably."""
        folder = self._files / names.project_folder(project)
        unfinished = folder / f"{uuid4().hex}.part"
        try:
            if not folder.is_dir():
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                sync_folder(folder.parent)
            yield unfinished
            unfinished.rename(folder / unfinished.stem)
            sync_folder(folder)
        except FileNotFoundError:
            remove(unfinished)
            raise
        except OSError as error:
            remove(unfinished)
            raise not_stored(error) from error
        except BaseException:
            remove(unfinished)
            raise

    # -- blocks ------------------------------------------------------------------------------------

    def stage(
        self,
        project: str,
        file_id: int,
        blob: str,
        block: str,
        source: Path,
        check: Callable[[], None],
    ) -> None:
        """Keep a block, in place of an earlier one of that id.

        Raises:
            InvalidInput: the blob has as many as it may have.
            ApplicationError: as `store`.
        """
        folder = self._staged(project, file_id, blob)
        target = folder / _hashed(block)
        with self._lock:
            if folder not in self._counts:
                self._counts[folder] = sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0
            if self._counts[folder] >= MOST_BLOCKS and not target.exists():
                raise InvalidInput(f"A blob has at most {MOST_BLOCKS} blocks.", path="blocks")
        unfinished = folder / f"{uuid4().hex}.part"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not take(source, unfinished, "The block"):
                fd = open_regular(source, "The block")
                try:
                    with new_file(unfinished) as new:
                        copy(fd, new, check)
                finally:
                    os.close(fd)
            with self._lock:
                self._counts[folder] = self._counts.get(folder, 0) + (not target.exists())
                unfinished.rename(target)
        except OSError as error:
            remove(unfinished)
            raise not_stored(error) from error
        except BaseException:
            remove(unfinished)
            raise

    def staged(self, project: str, file_id: int, blob: str, block: str) -> Piece | None:
        """A block, if there is one of that id."""
        path = self._staged(project, file_id, blob) / _hashed(block)
        try:
            return Piece(path, 0, path.stat().st_size)
        except FileNotFoundError:
            return None

    def discard(self, project: str, file_id: int, blob: str | None = None) -> None:
        """Forget the blocks of a blob, or those of all blobs of a file."""
        folder = self._blocks / project / str(file_id)
        if blob is not None:
            folder = self._staged(project, file_id, blob)
        remove(folder)
        with self._lock:
            for known in [
                each for each in self._counts if each == folder or folder in each.parents
            ]:
                del self._counts[known]
        if blob is not None:
            with suppress(OSError):
                folder.parent.rmdir()

    def _staged(self, project: str, file_id: int, blob: str) -> Path:
        return self._blocks / names.project_folder(project) / str(file_id) / _hashed(blob)

    # -- reading -----------------------------------------------------------------------------------

    def hold(self, paths: Sequence[Path], check: Callable[[], None]) -> Path:
        """A folder with second names of files, `00000`, `00001` and so on, for who removes it.

        Raises:
            FileNotFoundError: one of them has gone.
            ApplicationError: as `store`.
        """
        folder = self._reading / uuid4().hex
        try:
            folder.mkdir(mode=0o700, parents=True)
            for number, path in enumerate(paths):
                check()
                link(path, folder / f"{number:05d}", check)
        except FileNotFoundError:
            remove(folder)
            raise
        except OSError as error:
            remove(folder)
            raise not_stored(error) from error
        except BaseException:
            remove(folder)
            raise
        return folder

    # -- sweeping ----------------------------------------------------------------------------------

    def sweep_blocks(self, before: float) -> None:
        """Remove blocks of blobs that nobody has worked on since `before`, by the system's clock."""
        for folder in _older(self._blocks.glob("*/*/*"), before):
            remove(folder)
            with self._lock:
                self._counts.pop(folder, None)
            with suppress(OSError):
                folder.parent.rmdir()

    def sweep_readers(self, before: float) -> None:
        """Remove the second names that a crash has left."""
        for folder in _older(self._reading.glob("*"), before):
            remove(folder)

    def older(self, before: float) -> list[Path]:
        """Content that was written before that time."""
        return _older(self._files.glob("*/*"), before)


def _older(paths: Iterable[Path], before: float) -> list[Path]:
    old = []
    for path in paths:
        with suppress(FileNotFoundError):
            if path.lstat().st_mtime < before:
                old.append(path)
    return old


def _hashed(name: str) -> str:
    """A name of our own for what somebody else has named."""
    return sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:40]


def _keep(source: Path, target: Path, check: Callable[[], None], *, move: bool, label: str) -> int:
    """Make `source` the new file `target`, on the disk; its size."""
    if not (move and take(source, target, label)):
        fd = open_regular(source, label)
        try:
            with new_file(target) as new:
                size = copy(fd, new, check)
                os.fsync(new)
        finally:
            os.close(fd)
        if move:
            remove(source)
        return size
    fd = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(fd, 0o600)
        os.utime(fd)  # it is not as old as it may look
        os.fsync(fd)
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


def _packed(source: Path, label: str) -> str:
    """The ending that tells a file in gzip."""
    fd = open_regular(source, label)
    try:
        return ".gz" if os.pread(fd, 2, 0) == b"\x1f\x8b" else ""
    finally:
        os.close(fd)
