"""Files on the disk that are there as a whole or not at all."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import trio

from vaka.errors import InvalidInput, MappingFailed

_CHUNK = 1 << 20


@contextmanager
def new(target: Path) -> Iterator[Path]:
    """A target that was not there before, and is not there when what is done within fails."""
    if os.path.lexists(target):  # a link that leads nowhere, too
        raise InvalidInput(f'"{target.name}" is there already, and nothing is overwritten.')
    try:
        yield target
    except BaseException:
        remove(target)
        raise


def open_regular(path: Path) -> BinaryIO:
    """An ordinary file, opened. A link is not followed, and nobody waits for a pipe's other end.

    The name of an open descriptor, `/proc/self/fd/<number>`, is such a file as well.

    Raises:
        MappingFailed: it is something else, or not there.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK
    if path.parent != Path("/proc/self/fd"):  # where all names are links
        flags |= os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise MappingFailed(f'"{path.name}" cannot be read: {error.strerror}.') from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise MappingFailed(f'"{path.name}" is not a file.')
    return os.fdopen(descriptor, "rb")


def copy(source: Path, target: Path) -> None:
    """Copy a file to a new one; ends early when the task that waits is cancelled."""
    with open_regular(source) as read, target.open("xb") as written:
        while chunk := read.read(_CHUNK):
            trio.from_thread.check_cancelled()
            written.write(chunk)


def sync(path: Path) -> None:
    """Return once a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file or a folder, or nothing."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
