"""Reading and writing files without following links or overwriting anything."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from vaka.errors import ApplicationError, MappingFailed

_CHUNK: Final = 8 << 20
_DESCRIPTORS: Final = Path("/proc/self/fd")


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
        ApplicationError: it cannot be made.
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
        raise ApplicationError(f"{target} cannot be written: {error.strerror}.") from error


def copy(source: int, target: int, check: Callable[[], None]) -> int:
    """Copy what is left of one descriptor to another, and say how many bytes that were.

    `check` is called between steps and may raise.
    """
    count = 0
    while True:
        check()
        try:
            step = os.sendfile(target, source, None, _CHUNK)
        except OSError as error:
            raise ApplicationError(f"A file cannot be copied: {error.strerror}.") from error
        if not step:
            return count
        count += step


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove(path: Path) -> None:
    """Remove a file or a folder, or what is left of it."""
    with suppress(FileNotFoundError):
        try:
            path.unlink()
        except IsADirectoryError:
            shutil.rmtree(path, ignore_errors=True)
