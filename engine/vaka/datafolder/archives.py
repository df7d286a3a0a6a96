"""The one writer of archives of a component's files, and the one reader.

The tree may be hostile: it is walked by directory descriptors without following links, only regular
files and directories go in, and what is not one of them is left out and named. So may an archive:
nothing of it is believed, and one that holds anything but regular files and directories is refused.
"""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

from vaka.datafolder._descriptors import check_not_hollow, printable
from vaka.errors import InvalidInput

CHUNK = 1 << 20
HEADER_LIMIT = 1 << 20
"""Bytes that everything about one member of an archive, names and all, may take."""
MEMBERS = 100_000
"""Files and folders in an archive."""
DEPTH = 50
"""Levels of folders in an archive."""
NAME_BYTES = 255
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


def write_tar(source: int, target: Path, *, limit: int) -> tuple[int, list[str]]:
    """Write the tree in the open folder `source` to the new tar.gz file `target`.

    Paths in it are relative; owners, times and rights are not kept. Memory does not grow with the size
    of a file. Returns how many files went in, and the paths that were left out: links, devices, FIFOs,
    sockets, and names that are not UTF-8 or have control characters.

    Raises:
        InvalidInput: the files have more than `limit` bytes together, or there is too much else.
    """
    left_out: list[str] = []
    files = 0
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with (
        os.fdopen(descriptor, "wb") as file,
        gzip.GzipFile("", "wb", 6, file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w:", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path, size, entry in bounded_entries(source, left_out, limit):
            header = tarfile.TarInfo(path)
            if entry is None:
                header.type, header.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(header)
            else:
                with os.fdopen(entry, "rb") as content:
                    header.size = size
                    archive.addfile(header, content)
                files += 1
            archive.members.clear()  # type: ignore[attr-defined]  # it would remember them all
    return files, left_out


def bounded_entries(
    source: int, left_out: list[str], limit: int
) -> Iterator[tuple[str, int, int | None]]:
    """Relative path, size and open descriptor of everything in an open folder.

    A directory's descriptor is None. Who gets a descriptor closes it.

    Raises:
        InvalidInput: the files have more than `limit` bytes together, there are more than `MEMBERS`
            files and folders, or they are nested deeper than `DEPTH`.
    """
    total = count = 0
    for path, entry in _entries(source, left_out):
        if not _is_plain(path):
            left_out.append(path)
            if entry is not None:
                os.close(entry)
            continue
        try:
            size = 0 if entry is None else check_not_hollow(entry, printable(path))
            total += size
            count += 1
            _check_bounds(total, limit, count + len(left_out), path)
        except InvalidInput:
            if entry is not None:
                os.close(entry)
            raise
        yield path, size, entry


def _check_bounds(total: int, limit: int, count: int, path: str) -> None:
    if total > limit:
        raise InvalidInput(f"There are more than {limit} bytes. Write less.")
    if count > MEMBERS or path.count("/") >= DEPTH:
        raise InvalidInput(
            f"There are more than {MEMBERS} files and folders, or more than {DEPTH} levels of them. "
            "Write fewer, or one archive."
        )


def read_tar(source: Path, target: Path, *, limit: int) -> None:
    """Unpack the tar.gz file `source` into the folder `target`, which nobody else may write to.

    What has a name already is replaced. Memory does not grow with what is in the archive. When it
    raises, part of the archive may be in `target`.

    Raises:
        InvalidInput: the archive is damaged or cut off, unpacks to more than `limit` bytes, holds links
            or special files, or a name that leads out of `target`.
    """
    try:
        with source.open("rb") as raw, gzip.GzipFile(fileobj=raw) as unpacked:
            stream = _Forward(cast("IO[bytes]", unpacked), limit)
            with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r:") as archive:
                _unpack(archive, stream, target)
            while stream.read(CHUNK):
                pass  # to the end, where the checksum is
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InvalidInput(f"It is no tar.gz file, or a damaged one: {error}.") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput("It is a damaged tar.gz file: a header cannot be read.") from error


def _unpack(archive: tarfile.TarFile, stream: _Forward, target: Path) -> None:
    made: set[tuple[str, ...]] = set()
    files = 0
    while (member := _next(archive, stream)) is not None:
        parts = tuple(part for part in member.name.split("/") if part not in {"", "."})
        shown = printable(member.name)
        is_file = member.type in {tarfile.REGTYPE, tarfile.AREGTYPE} and member.sparse is None
        if not is_file and not member.isdir():
            raise InvalidInput(f'"{shown}" in it is neither a regular file nor a folder.')
        if member.name.startswith("/") or ".." in parts or (is_file and not parts):
            raise InvalidInput(f'"{shown}" in it leads out of the folder.')
        if len(parts) > DEPTH or not _is_plain(member.name):
            raise InvalidInput(f'"{shown}" in it cannot be the name of a file.')
        ways = (parts[:depth] for depth in range(1, len(parts) + (0 if is_file else 1)))
        folders = [way for way in ways if way not in made]
        files += is_file
        if files + len(made) + len(folders) > MEMBERS:
            raise InvalidInput(f"It holds more than {MEMBERS} files and folders.")
        try:
            for folder in folders:
                target.joinpath(*folder).mkdir(exist_ok=True)
            made.update(folders)
            if is_file:
                _unpack_file(archive, member, target.joinpath(*parts))
        except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
            raise InvalidInput(f'"{shown}" in it is both a file and a folder.') from error
        except OSError as error:
            if isinstance(error, gzip.BadGzipFile):
                raise
            if max(map(len, map(os.fsencode, parts))) > NAME_BYTES:
                raise InvalidInput(f'"{shown}" in it cannot be the name of a file.') from error
            raise


def _next(archive: tarfile.TarFile, stream: _Forward) -> tarfile.TarInfo | None:
    """The header of the next member; None at the end."""
    stream.left = HEADER_LIMIT
    try:
        return archive.next()
    finally:
        stream.left = None
        archive.members.clear()  # type: ignore[attr-defined]  # it would remember them all


def _unpack_file(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    with suppress(FileNotFoundError):
        path.unlink()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        content = archive.extractfile(member)
        while content is not None and (chunk := content.read(CHUNK)):
            file.write(chunk)


class _Forward:
    """A stream as tarfile wants one, that goes forward only and bounds what is read of it."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self._position = 0
        self.left: int | None = HEADER_LIMIT
        """Bytes of a header that may still be read; None while no header is read."""

    def read(self, size: int) -> bytes:
        """The next bytes. `InvalidInput` when they are more than the limits allow."""
        if self.left is not None:
            self.left -= size
            if self.left < 0:
                raise InvalidInput(f"A header in it has more than {HEADER_LIMIT} bytes.")
        return self._read(size)

    def _read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._position += len(data)
        if self._position > self._limit:
            raise InvalidInput(f"It unpacks to more than {self._limit} bytes.")
        return data

    def tell(self) -> int:
        """Bytes read so far."""
        return self._position

    def seek(self, position: int) -> None:
        """Skip to a later position."""
        if position < self._position:
            raise InvalidInput("It is a damaged tar.gz file: a header points backwards.")
        while self._position < position and self._read(min(CHUNK, position - self._position)):
            pass


def _entries(source: Path | int, left_out: list[str]) -> Iterator[tuple[str, int | None]]:
    """Relative paths, each with an open descriptor for a file and None for a directory."""
    if isinstance(source, int):
        top, walk = Path(), os.fwalk(".", follow_symlinks=False, dir_fd=source)
    else:
        top, walk = source, os.fwalk(source, follow_symlinks=False)
    for folder, folders, files, descriptor in walk:
        base = Path(folder).relative_to(top)
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


def _is_plain(path: str) -> bool:
    """Whether there is nothing in a name that moves a cursor or is no text."""
    return not any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in path)


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
