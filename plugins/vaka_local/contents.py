"""Where the content of files lies: complete and on the disk under names that are never used again.

Content is below `files/<project>/`, one file a blob. Below `reading/` files that are being read have a
second name, so that they stay whatever becomes of the first.

A name appears at once: what is half written ends in `.part`. Content is on the disk (`fsync`) before its
name is given away.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from vaka_local import names
from vaka_local.blocks import Piece
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
        self._reading = home / "reading"

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

    def store_linked(self, project: str, source: Path, check: Callable[[], None]) -> Stored:
        """Keep a file that nobody changes any more, by another name for it.

        Raises:
            ApplicationError: as `store`.
        """
        with self._new(project) as unfinished:
            link(source, unfinished, check)
            fd = os.open(unfinished, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
                size = os.fstat(fd).st_size
            finally:
                os.close(fd)
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
