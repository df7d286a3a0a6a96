"""Files on the disk that are there as a whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

_CHUNK = 1 << 20


@contextmanager
def new(target: Path) -> Iterator[Path]:
    """A target that was not there before, and is not there when what is done within fails."""
    if target.exists():
        raise FileExistsError(f"{target} is there already")
    try:
        yield target
    except BaseException:
        remove(target)
        raise


def copy(source: Path, target: Path) -> None:
    """Copy a file to a new one; ends early when the task that waits is cancelled."""
    with source.open("rb") as read, target.open("xb") as written:
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
