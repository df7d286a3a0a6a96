"""The one writer of archives of a component's files, and the one reader.

The tree may be hostile: it is walked by directory descriptors without following links, only regular
files and directories go in, and what is not one of them is left out and named. So may an archive:
nothing of it is believed, and one that holds anything but regular files and directories is refused.
"""

from __future__ import annotations

import errno
import gzip
import os
import stat
import struct
import tarfile
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, BinaryIO, Protocol, cast

import zstandard

from vaka.datafolder._descriptors import check_not_hollow, kind_of, mode_of, open_file, printable
from vaka.datafolder._zip import ZipWriter
from vaka.errors import InvalidInput
from vaka.models.job import ArchiveFormat

CHUNK = 1 << 20
HEADER_LIMIT = 1 << 20
"""Bytes that everything about one member of an archive, names and all, may take."""
DIRECTORY_LIMIT = 32 << 20
"""Bytes of the list of members at the end of a ZIP file: it is read into memory whole."""
MEMBERS = 100_000
"""Files and folders in an archive."""
DEPTH = 50
"""Levels of folders in an archive."""
NAME_BYTES = 255
REWRITTEN_LIMIT = 64 << 20
"""Largest document, in bytes, that is rewritten on its way into an archive."""
ZSTD_LEVEL = 1
ZSTD_THREADS = 2
ZSTD_WINDOW = 128 << 20
"""Memory that an archive may ask of who reads it."""
ZSTD_PIECE = 1 << 10
"""Bytes that are unpacked at a time: at most to 32 MiB."""
_NAMED = 100
_NO_NAME = "a name that is no plain text"
Entry = tuple[str, int | None]
"""A relative path, with an open descriptor for a file and None for a folder."""


# -- writing ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class LeftOut:
    """What did not go into an archive, and why; the first hundred by name."""

    count: int = 0
    named: list[tuple[str, str]] = field(default_factory=list)
    """Path, as messages may show it, and reason."""

    def add(self, path: str, reason: str) -> None:
        self.count += 1
        if len(self.named) < _NAMED:
            self.named.append((printable(path), reason))


@dataclass(frozen=True, slots=True)
class Written:
    """What went into an archive."""

    entries: int
    bytes: int
    """Of the files, before they were packed."""
    left_out: LeftOut


def write_archive(
    source: Path,
    target: Path,
    *,
    format: ArchiveFormat = "zip",  # noqa: A002 - the archive's format
    rewrite: Callable[[str, bytes], bytes],
    rewritten: Collection[str],
    limit: int,
    proceed: Callable[[], None] = lambda: None,
) -> Written:
    """Write the tree below `source` to the new file `target`; paths in it are relative.

    Documents named in `rewritten` pass through `rewrite`, with their path. Owners and rights are not
    kept. Memory does not grow with the size of a file. What cannot go in is left out: links, devices,
    FIFOs, sockets, files that cannot be read or are mostly holes, names that are no plain text,
    folders deeper than `DEPTH`, entries after the first `MEMBERS`, and files for which there is no
    room in `limit` bytes. A file that changes meanwhile is in the archive with the size it had.

    `proceed` is called once a megabyte and once an entry; what it raises ends the writing.
    """
    left_out, began = LeftOut(), time.time()
    entries = total = 0
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with ExitStack() as stack:
        file = stack.enter_context(os.fdopen(descriptor, "wb", buffering=CHUNK))
        writer = _writer(format, file, stack)
        for path, entry in _entries(source, left_out.add, left_out.add):
            if entry is None:
                proceed()
                writer.folder(path, began)
                entries += 1
                continue
            with os.fdopen(entry, "rb", buffering=0) as content:
                proceed()
                try:
                    size = check_not_hollow(entry, path)
                except InvalidInput:
                    left_out.add(path, "mostly holes")
                    continue
                if size > limit - total:
                    left_out.add(path, f"no room in the {limit} bytes that an archive may hold")
                    continue
                if path in rewritten and size > REWRITTEN_LIMIT:
                    left_out.add(path, "too large for secrets to be hidden in it")
                    continue
                modified = os.fstat(entry).st_mtime
                if path in rewritten:
                    writer.file(path, rewrite(path, _whole(content, size)), modified)
                elif size <= CHUNK:
                    writer.file(path, _whole(content, size), modified)
                elif writer.stream(path, size, _parts(content, size, proceed), modified) < size:
                    left_out.add(path, "its end: it became shorter meanwhile")
                entries += 1
                total += size
        writer.close()
    return Written(entries, total, left_out)


def _writer(format: ArchiveFormat, file: BinaryIO, stack: ExitStack) -> _Writer:  # noqa: A002
    if format == "zip":
        return ZipWriter(file)
    return _TarWriter(stack.enter_context(_zstd(file)))


class _Writer(Protocol):
    def folder(self, path: str, modified: float) -> None: ...
    def file(self, path: str, data: bytes, modified: float) -> None: ...
    def stream(self, path: str, size: int, parts: Iterator[bytes], modified: float) -> int:
        """Bytes that came; when there are fewer than `size`, the format says what is there."""

    def close(self) -> None: ...


class _TarWriter:
    """A tar stream; what it is written to packs it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._waiting = bytearray()
        self._at = 0

    def folder(self, path: str, modified: float) -> None:
        header = tarfile.TarInfo(path)
        header.type, header.mode, header.mtime = tarfile.DIRTYPE, 0o755, int(modified)
        self._write(header.tobuf(tarfile.PAX_FORMAT))

    def file(self, path: str, data: bytes, modified: float) -> None:
        self.stream(path, len(data), iter((data,)), modified)

    def stream(self, path: str, size: int, parts: Iterator[bytes], modified: float) -> int:
        header = tarfile.TarInfo(path)
        header.size, header.mtime = size, int(modified)
        self._write(header.tobuf(tarfile.PAX_FORMAT))
        came = 0
        for part in parts:
            self._write(part)
            came += len(part)
        missing = size - came
        while missing > 0:  # the header has promised them
            self._write(bytes(min(missing, CHUNK)))
            missing -= CHUNK
        self._fill(tarfile.BLOCKSIZE)
        return came

    def close(self) -> None:
        """Write the end of the archive."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._fill(tarfile.RECORDSIZE)
        self._flush()

    def _fill(self, block: int) -> None:
        self._write(bytes(-self._at % block))

    def _write(self, data: bytes) -> None:
        self._at += len(data)
        if len(data) >= CHUNK:
            self._flush()
            self._file.write(data)
            return
        self._waiting += data
        if len(self._waiting) >= CHUNK:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._file.write(self._waiting)
            self._waiting = bytearray()


def _zstd(file: IO[bytes]) -> zstandard.ZstdCompressionWriter:
    packer = zstandard.ZstdCompressor(ZSTD_LEVEL, threads=ZSTD_THREADS, write_checksum=True)
    return packer.stream_writer(file, closefd=False)


def _whole(content: IO[bytes], size: int) -> bytes:
    """All of a file, as far as it went when it was opened."""
    parts = list(_parts(content, size))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _parts(
    content: IO[bytes], size: int, proceed: Callable[[], None] = lambda: None
) -> Iterator[bytes]:
    while size > 0 and (part := content.read(min(CHUNK, size))):
        proceed()
        yield part
        size -= len(part)


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
    ):
        archive = _TarWriter(cast("IO[bytes]", packed))
        for path, size, entry in bounded_entries(source, left_out, limit):
            if entry is None:
                archive.folder(path, 0)
                continue
            with os.fdopen(entry, "rb", buffering=0) as content:
                if archive.stream(path, size, _parts(content, size), 0) < size:
                    raise InvalidInput(f"{printable(path)} became shorter while it was read.")
            files += 1
        archive.close()
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

    def leave_out(path: str, reason: str) -> None:  # noqa: ARG001 - artifacts name paths only
        left_out.append(path)

    def refuse(path: str, reason: str) -> None:  # noqa: ARG001
        raise InvalidInput(
            f"There are more than {MEMBERS} files and folders, or more than {DEPTH} levels of them. "
            "Write fewer, or one archive."
        )

    total = 0
    for path, entry in _entries(source, leave_out, refuse):
        size = 0
        if entry is not None:
            with _closed_on_error(entry):
                size = check_not_hollow(entry, printable(path))
                total += size
                _check_total(total, limit)
        yield path, size, entry


def _check_total(total: int, limit: int) -> None:
    if total > limit:
        raise InvalidInput(f"There are more than {limit} bytes. Write less.")


@contextmanager
def _closed_on_error(descriptor: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(descriptor)
        raise


_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _entries(
    source: Path | int, leave_out: Callable[[str, str], None], refuse: Callable[[str, str], None]
) -> Iterator[Entry]:
    """Everything in a folder: what is in it, sorted, before what is in its folders.

    `leave_out` is told of what is no file or folder, and `refuse` of what is beyond the bounds; when
    that returns, the walk goes on without it. Who gets a descriptor closes it.
    """
    if isinstance(source, int):
        top = os.open(".", _OPEN_FOLDER, dir_fd=source)
    else:
        top = os.open(source, _OPEN_FOLDER)
    left = MEMBERS
    ways = [_Way(top, "")]
    """The folders on the way to where the walk is, each with those in it that are still to come."""
    try:
        while ways:
            way = ways[-1]
            if not way.is_listed:
                way.is_listed = True
                found, has_more = _listed(way.descriptor, left)
                left -= len(found)
                for name, is_folder in found:
                    path = way.base + name
                    if not _is_plain(name):
                        leave_out(path, _NO_NAME)
                    elif path.count("/") >= DEPTH:
                        refuse(path, f"deeper than {DEPTH} folders")
                    elif is_folder:
                        way.folders.append(name)
                        yield path, None
                    elif (entry := _opened(way.descriptor, name, path, leave_out)) is not None:
                        yield path, entry
                way.folders.reverse()
                if has_more:
                    refuse(f"{way.base}*", f"more than {MEMBERS} files and folders")
            elif way.folders:
                name = way.folders.pop()
                try:
                    inner = os.open(name, _OPEN_FOLDER, dir_fd=way.descriptor)
                except OSError as error:
                    leave_out(f"{way.base}{name}/", error.strerror or "not readable")
                else:
                    ways.append(_Way(inner, f"{way.base}{name}/"))
            else:
                os.close(ways.pop().descriptor)
    finally:
        for way in ways:
            os.close(way.descriptor)


@dataclass(slots=True)
class _Way:
    descriptor: int
    base: str
    """Its path, with a slash at the end."""
    is_listed: bool = False
    folders: list[str] = field(default_factory=list)


def _listed(folder: int, at_most: int) -> tuple[list[tuple[str, bool]], bool]:
    """Names in a folder, each with whether it is a folder's, and whether there are more."""
    with os.scandir(folder) as entries:
        names = islice(entries, at_most)
        found = sorted([(entry.name, entry.is_dir(follow_symlinks=False)) for entry in names])
        return found, next(entries, None) is not None


def _opened(folder: int, name: str, path: str, leave_out: Callable[[str, str], None]) -> int | None:
    """A descriptor of a regular file; None for anything else, which is never waited for."""
    try:
        return open_file(folder, name, path)
    except FileNotFoundError:
        leave_out(path, "gone meanwhile")
    except InvalidInput:
        mode = mode_of(folder, name)
        is_file = mode is None or stat.S_ISREG(mode)
        leave_out(path, "not readable" if is_file or mode is None else kind_of(mode))
    return None


def _is_plain(path: str) -> bool:
    """Whether there is nothing in a name that moves a cursor or is no text."""
    if path.isascii():
        return path.isprintable()
    return not any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in path)


# -- reading ---------------------------------------------------------------------------------------


def read_archive(source: Path, target: Path, *, limit: int) -> None:
    """Unpack a ZIP, tar.gz or tar.zst file into the folder `target`, as `read_tar` does."""
    with source.open("rb") as file:
        if file.read(2) == b"PK":
            _read_zip(file, target, limit)
            return
    read_tar(source, target, limit=limit)


def read_tar(source: Path, target: Path, *, limit: int) -> None:
    """Unpack the tar.gz or tar.zst file `source` into `target`, which nobody else may write to.

    What has a name already is replaced. Memory does not grow with what is in the archive. When it
    raises, part of the archive may be in `target`.

    Raises:
        InvalidInput: the archive is damaged or cut off, unpacks to more than `limit` bytes, holds links
            or special files, or a name that leads out of `target`.
    """
    name = "tar.gz"
    try:
        with ExitStack() as stack:
            raw = stack.enter_context(source.open("rb"))
            is_zstd = raw.read(4) == zstandard.FRAME_HEADER
            raw.seek(0)
            unpacked: _Readable
            if is_zstd:
                name, unpacked = "tar.zst", _ZstdReader(raw)
            else:
                unpacked = stack.enter_context(gzip.GzipFile(fileobj=raw))
            stream = _Forward(unpacked, limit)
            with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r:") as archive:
                _unpack(archive, stream, _Target(target))
            while stream.read(CHUNK):
                pass  # to the end, where the checksum is
    except (
        tarfile.TarError,
        gzip.BadGzipFile,
        zstandard.ZstdError,
        EOFError,
        zlib.error,
    ) as error:
        raise InvalidInput(f"It is no {name} file, or a damaged one: {error}.") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"It is a damaged {name} file: a header cannot be read.") from error


def _unpack(archive: tarfile.TarFile, stream: _Forward, target: _Target) -> None:
    while (member := _next(archive, stream)) is not None:
        is_file = member.type in {tarfile.REGTYPE, tarfile.AREGTYPE} and member.sparse is None
        if not is_file and not member.isdir():
            raise InvalidInput(
                f'"{printable(member.name)}" in it is neither a regular file nor a folder.'
            )
        content = archive.extractfile(member) if is_file else None
        target.put(member.name, content)


def _next(archive: tarfile.TarFile, stream: _Forward) -> tarfile.TarInfo | None:
    """The header of the next member; None at the end."""
    stream.left = HEADER_LIMIT
    try:
        return archive.next()
    finally:
        stream.left = None
        archive.members.clear()  # type: ignore[attr-defined]  # it would remember them all


def _read_zip(file: BinaryIO, target: Path, limit: int) -> None:
    folder, left = _Target(target), limit
    try:
        _check_directory(file)
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                kind, shown = stat.S_IFMT(member.external_attr >> 16), printable(member.filename)
                is_file = not member.filename.endswith("/")
                if kind not in {0, stat.S_IFREG if is_file else stat.S_IFDIR}:
                    raise InvalidInput(f'"{shown}" in it is neither a regular file nor a folder.')
                if member.flag_bits & 1:
                    raise InvalidInput(f'"{shown}" in it is encrypted.')
                if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                    raise InvalidInput(f'"{shown}" in it is packed in a way that is not read here.')
                if not is_file:
                    folder.put(member.orig_filename, None)
                    continue
                with archive.open(member) as content:
                    bounded = _Forward(content, left, limit)
                    bounded.left = None
                    folder.put(member.orig_filename, cast("IO[bytes]", bounded))
                    left -= bounded.tell()
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        EOFError,
        struct.error,
        zlib.error,
        ValueError,
    ) as error:
        raise InvalidInput(f"It is no ZIP file, or a damaged one: {error}.") from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # an offset that leads to before the file's beginning
        raise InvalidInput("It is no ZIP file, or a damaged one: a place is not in it.") from error


def _check_directory(file: BinaryIO) -> None:
    """Refuse a ZIP file whose list of members would fill the memory of who reads it."""
    end = file.seek(0, os.SEEK_END)
    begin = file.seek(max(0, end - (1 << 16) - 100))
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    sizes = [int.from_bytes(tail[at + 12 : at + 16], "little")] if at >= 0 else []
    if at >= 20 and tail[at - 20 : at - 16] == b"PK\6\7":  # further back, as large files have it
        file.seek(min(int.from_bytes(tail[at - 12 : at - 4], "little"), begin + at))
        sizes.append(int.from_bytes(file.read(56)[40:48], "little"))
    if not sizes or sizes[-1] > DIRECTORY_LIMIT:
        raise InvalidInput(
            "It is no ZIP file, or a damaged one, or its list of members has more than "
            f"{DIRECTORY_LIMIT} bytes."
        )
    file.seek(0)


class _Target:
    """The folder that an archive is unpacked to: puts members in it, or refuses them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._made: set[tuple[str, ...]] = set()
        self._files = 0

    def put(self, name: str, content: IO[bytes] | None) -> None:
        """Make the folder `name`, or a file with this content.

        Raises:
            InvalidInput: it must not be.
        """
        is_file = content is not None
        parts = tuple(part for part in name.split("/") if part not in {"", "."})
        shown = printable(name)
        if name.startswith("/") or ".." in parts or (is_file and not parts):
            raise InvalidInput(f'"{shown}" in it leads out of the folder.')
        if len(parts) > DEPTH or not _is_plain(name):
            raise InvalidInput(f'"{shown}" in it cannot be the name of a file.')
        ways = (parts[:depth] for depth in range(1, len(parts) + (0 if is_file else 1)))
        folders = [way for way in ways if way not in self._made]
        self._files += is_file
        if self._files + len(self._made) + len(folders) > MEMBERS:
            raise InvalidInput(f"It holds more than {MEMBERS} files and folders.")
        try:
            for folder in folders:
                self._path.joinpath(*folder).mkdir(exist_ok=True)
            self._made.update(folders)
            if content is not None:
                _unpack_file(content, self._path.joinpath(*parts))
        except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
            raise InvalidInput(f'"{shown}" in it is both a file and a folder.') from error
        except OSError as error:
            if isinstance(error, gzip.BadGzipFile):
                raise
            if max(map(len, map(os.fsencode, parts))) > NAME_BYTES:
                raise InvalidInput(f'"{shown}" in it cannot be the name of a file.') from error
            raise


def _unpack_file(content: IO[bytes], path: Path) -> None:
    with suppress(FileNotFoundError):
        path.unlink()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        while chunk := content.read(CHUNK):
            file.write(chunk)


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _ZstdReader:
    """What a zstd frame unpacks to.

    The library's own stream ends as silently for a frame that is cut off as for one that is whole. So
    the frame is fed to it piece by piece; a piece is so small that no bomb in it fills the memory.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        unpacker = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
        self._frame = unpacker.decompressobj()
        self._ready = memoryview(b"")

    def read(self, size: int) -> bytes:
        """The next bytes. `EOFError` when the frame is cut off."""
        parts = [self._ready[:size]]
        self._ready = self._ready[size:]
        missing = size - len(parts[0])
        while missing and not self._frame.eof:
            piece = self._file.read(ZSTD_PIECE)
            if not piece:
                raise EOFError("it is cut off")
            data = memoryview(self._frame.decompress(piece))
            parts.append(data[:missing])
            self._ready = data[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)


class _Forward:
    """A stream as tarfile wants one, that goes forward only and bounds what is read of it."""

    def __init__(self, stream: _Readable, limit: int, told: int | None = None) -> None:
        self._stream = stream
        self._limit = limit
        self._told = limit if told is None else told
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
            raise InvalidInput(f"It unpacks to more than {self._told} bytes.")
        return data

    def tell(self) -> int:
        """Bytes read so far."""
        return self._position

    def seek(self, position: int) -> None:
        """Skip to a later position."""
        if position < self._position:
            raise InvalidInput("It is a damaged tar file: a header points backwards.")
        while self._position < position and self._read(min(CHUNK, position - self._position)):
            pass
