"""The one writer of archives of a component's files.

The tree may be hostile: it is walked by directory descriptors without following links, only regular
files and directories go in, and what is not one of them is left out and named.
"""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

CHUNK = 1 << 20
REWRITTEN_LIMIT = 64 << 20
"""Largest document, in bytes, that is rewritten on its way into an archive."""


def write_zip(
    source: Path,
    target: Path,
    *,
    rewrite: Callable[[bytes], bytes],
    rewritten: Collection[str],
) -> list[str]:
    """Write the tree below `source` to the new ZIP file `target`; paths in it are relative.

    Documents named in `rewritten` pass through `rewrite`. Memory does not grow with the size of a
    file. Returns the paths that were left out: links, devices, FIFOs, sockets, names that are not
    UTF-8, and documents too large to be rewritten.
    """
    left_out: list[str] = []
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with (
        os.fdopen(descriptor, "wb") as file,
        zipfile.ZipFile(
            file, "w", zipfile.ZIP_DEFLATED, compresslevel=1, strict_timestamps=False
        ) as archive,
    ):
        for path, entry in _entries(source, left_out):
            if entry is None:
                archive.writestr(zipfile.ZipInfo(path + "/"), b"")
                continue
            with os.fdopen(entry, "rb") as content:
                if path in rewritten:
                    data = content.read(REWRITTEN_LIMIT + 1)
                    if len(data) > REWRITTEN_LIMIT:
                        left_out.append(path)
                        continue
                    archive.writestr(path, rewrite(data))
                    continue
                with archive.open(path, "w", force_zip64=True) as member:
                    while chunk := content.read(CHUNK):
                        member.write(chunk)
    return left_out


def _entries(source: Path, left_out: list[str]) -> Iterator[tuple[str, int | None]]:
    """Relative paths, each with an open descriptor for a file and None for a directory."""
    for folder, folders, files, descriptor in os.fwalk(source, follow_symlinks=False):
        base = Path(folder).relative_to(source)
        folders.sort()
        for name in folders:
            path = (base / name).as_posix()
            if stat.S_ISDIR(os.lstat(name, dir_fd=descriptor).st_mode) and _is_text(path):
                yield path, None
            else:
                left_out.append(path)
        for name in sorted(files):
            path = (base / name).as_posix()
            opened = _open_regular(name, descriptor)
            if opened is None or not _is_text(path):
                left_out.append(path)
                if opened is not None:
                    os.close(opened)
                continue
            yield path, opened


def _open_regular(name: str, folder: int) -> int | None:
    """A descriptor of a regular file; None for anything else, without ever waiting on it."""
    try:
        descriptor = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY, dir_fd=folder
        )
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return descriptor


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
