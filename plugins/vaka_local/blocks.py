"""Blocks of which blobs are going to be made.

The blocks of a blob are one after the other in one file, in the order in which they came, and a second
file says where each is. Nearly always that is the order in which they are wanted, too: the file is then
the blob, and nothing is copied. The disk writes it while the next blocks come, so that in the end there
is little to wait for.

A block is in the index only when all of it is in the data. A power cut may cost blocks, the end of a
process does not.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from vaka.errors import InvalidInput
from vaka_local import names
from vaka_local.disk import begin_writing, copy, new_file, not_stored, open_regular, remove

MOST_BLOCKS: Final = 50_000
"""Blocks of one blob, as in the protocol that they come by."""
MOST_WASTE: Final = 1 << 30
"""Bytes of blocks that were replaced by others of another size."""
_DATA: Final = "data"
_INDEX: Final = "index"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a file."""

    path: Path
    offset: int
    size: int


class Staged:
    """The blocks of one blob. Only for who has it from `Blocks.of`, in a thread."""

    def __init__(self, folder: Path) -> None:
        self.lock = threading.Lock()
        self.is_gone = False
        self._folder = folder
        self._data = folder / _DATA
        self._places: dict[str, tuple[int, int]] | None = None

    @property
    def is_empty(self) -> bool:
        return not self._known()

    def find(self, block: str) -> Piece | None:
        """A block, if there is one of that id."""
        place = self._known().get(_hashed(block))
        return None if place is None else Piece(self._data, *place)

    def stage(self, block: str, source: Path, check: Callable[[], None]) -> None:
        """Keep a block, in place of an earlier one of that id.

        Raises:
            InvalidInput: the blob has as many as it may have.
            MappingFailed: `source` is not a regular file.
            ApplicationError: it cannot be stored; `DiskFull` when that is the reason.
        """
        fd = open_regular(source, "The block")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._append(_hashed(block), fd, check)
        except OSError as error:
            raise not_stored(error) from error
        finally:
            os.close(fd)

    def _append(self, name: str, source: int, check: Callable[[], None]) -> None:
        known = self._known()
        size = os.fstat(source).st_size
        self._make_own(check)
        target = os.open(self._data, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            end = os.fstat(target).st_size
            offset = end
            if name in known and known[name][1] == size:
                offset = known[name][0]
                self._note(name, None)  # what is half replaced is no block
            else:
                self._check_bounds(name, end)
            os.lseek(target, offset, os.SEEK_SET)
            try:
                copy(source, target, check, size=size)
            except BaseException:
                os.ftruncate(target, end)
                raise
            begin_writing(target, offset, size)
        finally:
            os.close(target)
        self._note(name, (offset, size))

    def _make_own(self, check: Callable[[], None]) -> None:
        """See to it that the data are not a blob's, too: somebody was killed after making it one."""
        with suppress(FileNotFoundError):
            if self._data.stat().st_nlink > 1:
                copied = self._folder / f"{_DATA}.part"
                remove(copied)
                fd = os.open(self._data, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    with new_file(copied) as new:
                        copy(fd, new, check)
                finally:
                    os.close(fd)
                copied.rename(self._data)

    def _check_bounds(self, name: str, end: int) -> None:
        known = self._known()
        if len(known) >= MOST_BLOCKS and name not in known:
            raise InvalidInput(f"A blob has at most {MOST_BLOCKS} blocks.", path="blocks")
        if end - sum(size for _, size in known.values()) > MOST_WASTE:
            raise InvalidInput(
                "Too many blocks have been replaced. Commit those that there are, or begin again.",
                path="blocks",
            )

    def is_all(self, pieces: list[Piece]) -> bool:
        """Whether these are everything that is staged, in the order in which it lies."""
        end = 0
        for piece in pieces:
            if piece.path != self._data or piece.offset != end:
                return False
            end += piece.size
        return bool(pieces) and end == self._data.stat().st_size

    def discard(self) -> None:
        """Forget the blocks."""
        remove(self._folder)
        with suppress(OSError):
            self._folder.parent.rmdir()
        self._places = None
        self.is_gone = True

    # -- the index ---------------------------------------------------------------------------------

    def _known(self) -> dict[str, tuple[int, int]]:
        if self._places is None:
            self._places = self._read()
        return self._places

    def _note(self, name: str, place: tuple[int, int] | None) -> None:
        """Write down where a block is; None: it is no more."""
        line = f"{name} -\n" if place is None else f"{name} {place[0]} {place[1]}\n"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        fd = os.open(self._folder / _INDEX, flags, 0o600)
        try:
            end = os.fstat(fd).st_size
            if os.write(fd, line.encode()) < len(line):  # a disk that is full takes a part
                os.ftruncate(fd, end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(fd)
        if place is None:
            self._known().pop(name, None)
        else:
            self._known()[name] = place

    def _read(self) -> dict[str, tuple[int, int]]:
        try:
            lines = (self._folder / _INDEX).read_text("ascii").split("\n")
            end = self._data.stat().st_size
        except FileNotFoundError:
            return {}
        known: dict[str, tuple[int, int]] = {}
        for line in lines[:-1]:  # the last is empty, or was being written
            name, *place = line.split(" ")
            known.pop(name, None)
            if len(place) == 2 and int(place[0]) + int(place[1]) <= end:
                known[name] = (int(place[0]), int(place[1]))
        return known


class Blocks:
    """The blocks of all blobs, below `blocks/<project>/<file>/`. All methods are for threads."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "blocks"
        self._lock = threading.Lock()
        self._staged: dict[Path, Staged] = {}

    @contextmanager
    def of(self, project: str, file_id: int, blob: str) -> Generator[Staged, None, None]:
        """The blocks of a blob, for nobody else until the block is left."""
        folder = self._file(project, file_id) / _hashed(blob)
        with self._held(folder) as staged:
            yield staged

    def discard(self, project: str, file_id: int) -> None:
        """Forget the blocks of all blobs of a file."""
        for folder in self._file(project, file_id).glob("*"):
            with self._held(folder) as staged:
                staged.discard()

    def sweep(self, before: float) -> None:
        """Forget blocks of blobs that nobody has worked on since `before`, by the system's clock."""
        for folder in self._folder.glob("*/*/*"):
            with self._held(folder) as staged:
                times = [folder, folder / _INDEX]
                if all(_modified(path) < before for path in times):
                    staged.discard()

    @contextmanager
    def _held(self, folder: Path) -> Generator[Staged, None, None]:
        while True:
            with self._lock:
                staged = self._staged.setdefault(folder, Staged(folder))
            with staged.lock:
                if staged.is_gone:  # while we waited
                    continue
                try:
                    yield staged
                finally:
                    self._let_go(folder, staged)
            return

    def _let_go(self, folder: Path, staged: Staged) -> None:
        """Remember nothing of a blob that has no blocks."""
        if staged.is_gone or staged.is_empty:
            staged.is_gone = True
            with self._lock:
                del self._staged[folder]

    def _file(self, project: str, file_id: int) -> Path:
        return self._folder / names.project_folder(project) / str(file_id)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _hashed(name: str) -> str:
    """A name of our own for what somebody else has named."""
    return sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:40]
