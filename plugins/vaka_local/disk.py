"""Reading and writing files without following links or overwriting anything."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from vaka.errors import ApplicationError, DiskFull, MappingFailed

_CHUNK: Final = 8 << 20
_WRITE: Final = 2  # SYNC_FILE_RANGE_WRITE
_SYNC_FILE_RANGE: Final = getattr(ctypes.CDLL(None), "sync_file_range", None)  # Linux has it
if _SYNC_FILE_RANGE is not None:
    _SYNC_FILE_RANGE.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_DESCRIPTORS: Final = Path("/proc/self/fd")
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def open_regular(path: Path, label: str) -> int:
    """A descriptor of a regular file. A name of a descriptor, `/proc/self/fd/N`, is taken as well.

    Raises:
        MappingFailed: it is something else, such as a link or a pipe, or not there.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    if path.parent != _DESCRIPTORS:  # those are links by nature
        flags |= os.O_NOFOLLOW
    try:
        fd = os.open(path, flags)
    except OSError as error:
        raise MappingFailed(f"{label} cannot be read: {error.strerror}.") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise MappingFailed(f"{label} is not a regular file.")
    return fd


@contextmanager
def new_file(target: Path) -> Generator[int, None, None]:
    """A descriptor of a file that was not there before; removed again if the block raises.

    Raises:
        MappingFailed: something of that name is there.
        ApplicationError: it cannot be made; `DiskFull` when that is the reason.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with _explained(target):
        fd = os.open(target, flags, 0o666)
    try:
        yield fd
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


@contextmanager
def new_folder(target: Path) -> Generator[None, None, None]:
    """A folder that was not there before; removed with all in it if the block raises.

    Raises:
        MappingFailed, ApplicationError: as `new_file`.
    """
    with _explained(target):
        target.mkdir()
    try:
        yield
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


@contextmanager
def _explained(target: Path) -> Generator[None, None, None]:
    try:
        yield
    except FileExistsError as error:
        raise MappingFailed(
            f'"{target.name}" exists already, and nothing is overwritten.'
        ) from error
    except OSError as error:
        raise _kind(error)(f"{target} cannot be written: {error.strerror}.") from error


def copy(
    source: int,
    target: int,
    check: Callable[[], None],
    *,
    offset: int | None = None,
    size: int | None = None,
) -> int:
    """Copy what is left of one descriptor to another, and say how many bytes that were.

    With an `offset` what follows it, and at most `size` bytes. `check` is called between steps and may
    raise.
    """
    count = 0
    while size is None or count < size:
        check()
        chunk = _CHUNK if size is None else min(_CHUNK, size - count)
        try:
            start = None if offset is None else offset + count
            step = os.sendfile(target, source, start, chunk)
        except OSError as error:
            raise not_stored(error) from error
        if not step:
            break
        count += step
    return count


def begin_writing(fd: int, offset: int, size: int) -> None:
    """Have the disk write a part of a file now, without waiting for it. Where that cannot be: nothing.

    A later `fsync` finds the work done, instead of all of it to do.
    """
    if _SYNC_FILE_RANGE is not None:
        _SYNC_FILE_RANGE(fd, offset, size, _WRITE)


def not_stored(error: OSError) -> ApplicationError:
    """What to raise in place of an error of the file system."""
    return _kind(error)(f"A file cannot be stored: {error.strerror}.")


def _kind(error: OSError) -> type[ApplicationError]:
    return DiskFull if error.errno in NO_ROOM else ApplicationError


def is_full(folder: Path) -> bool:
    """Whether a file system has no room at all."""
    state = os.statvfs(folder)
    return state.f_bavail == 0


def take(source: Path, target: Path, label: str) -> bool:
    """Give `source` the name `target`; False when it cannot be moved there, and has to be copied.

    Raises:
        MappingFailed: it is not a regular file, or not there.
        OSError: it cannot be moved anywhere.
    """
    if source.parent == _DESCRIPTORS:
        return False
    try:
        is_regular = stat.S_ISREG(source.lstat().st_mode)
    except OSError as error:
        raise MappingFailed(f"{label} cannot be read: {error.strerror}.") from error
    if not is_regular:
        raise MappingFailed(f"{label} is not a regular file.")
    try:
        source.rename(target)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return False
        raise
    return True


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def link(source: Path, target: Path, check: Callable[[], None]) -> None:
    """Give a file another name; where that cannot be, make a copy.

    Raises:
        FileNotFoundError: there is no `source`.
    """
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without such names, or too many of them
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with new_file(target) as new:
                copy(fd, new, check)
        finally:
            os.close(fd)


def remove(path: Path) -> None:
    """Remove a file or a folder, or what is left of it."""
    with suppress(FileNotFoundError):
        try:
            path.unlink()
        except IsADirectoryError:
            shutil.rmtree(path, ignore_errors=True)
