"""A ZIP file, written front to back by ISA-L's deflate.

`zipfile` compresses with zlib and cannot be told otherwise; the format itself is small. Sizes above
4 GiB, more than 65,535 members and names in UTF-8 are written as the format's later versions say.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable
from typing import BinaryIO

from isal import isal_zlib

LEVEL = 1
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_LARGE = 0xFFFFFFFF
_MANY = 0xFFFF
_UTF8 = 0x800
_STORED, _DEFLATED = 0, 8
_PLAIN, _ZIP64 = 20, 45
"""Version of the format that a reader needs."""
_UNIX = 3 << 8
_FILE, _FOLDER = 0o100644 << 16, (0o40755 << 16) | 0x10


class ZipWriter:
    """Writes members to `file`, which is new and empty, and at the end what is in it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._at = 0
        self._count = 0
        self._directory = bytearray()

    def folder(self, path: str, modified: float) -> None:
        """Add an empty folder."""
        self._member(f"{path}/", b"", b"", _FOLDER, _moment(modified))

    def file(self, path: str, data: bytes, modified: float) -> None:
        """Add a file whose content is at hand."""
        packed = isal_zlib.compress(data, LEVEL, -15) if data else b""
        self._member(path, data, packed, _FILE, _moment(modified))

    def stream(self, path: str, size: int, parts: Iterable[bytes], modified: float) -> int:  # noqa: ARG002
        """Add a file whose content comes in parts, of `size` bytes or fewer; how many came."""
        name, moment = path.encode(), _moment(modified)
        begin = self._at
        self._write(_local(name, moment, _DEFLATED, 0, _LARGE, _LARGE, is_large=True))
        crc = came = 0
        deflate = isal_zlib.compressobj(LEVEL, wbits=-15)
        body = self._at
        for part in parts:
            crc = isal_zlib.crc32(part, crc)
            came += len(part)
            self._write(deflate.compress(part))
        self._write(deflate.flush())
        packed = self._at - body
        header = _local(name, moment, _DEFLATED, crc, packed, came, is_large=True)
        self._file.flush()
        os.pwrite(self._file.fileno(), header, begin)
        self._enter(name, moment, _DEFLATED, crc, packed, came, begin, _FILE, _ZIP64)
        return came

    def close(self) -> None:
        """Write what is in the archive."""
        begin, size = self._at, len(self._directory)
        self._write(self._directory)
        if self._count >= _MANY or begin >= _LARGE or size >= _LARGE:
            end = self._at
            counts = (self._count, self._count, size, begin)
            self._write(_END_64.pack(b"PK\6\6", 44, _UNIX | _ZIP64, _ZIP64, 0, 0, *counts))
            self._write(_LOCATOR.pack(b"PK\6\7", 0, end, 1))
        count = min(self._count, _MANY)
        self._write(
            _END.pack(b"PK\5\6", 0, 0, count, count, min(size, _LARGE), min(begin, _LARGE), 0)
        )

    def _member(
        self, path: str, data: bytes, packed: bytes, kind: int, moment: tuple[int, int]
    ) -> None:
        name, begin, crc = path.encode(), self._at, isal_zlib.crc32(data)
        method = _DEFLATED if len(packed) < len(data) else _STORED
        body = packed if method == _DEFLATED else data
        self._write(_local(name, moment, method, crc, len(body), len(data), is_large=False))
        self._write(body)
        self._enter(name, moment, method, crc, len(body), len(data), begin, kind, _PLAIN)

    def _enter(
        self,
        name: bytes,
        moment: tuple[int, int],
        method: int,
        crc: int,
        packed: int,
        size: int,
        begin: int,
        kind: int,
        needs: int,
    ) -> None:
        large = [number for number in (size, packed, begin) if number >= _LARGE]
        extra = struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large) if large else b""
        needs = max(needs, _ZIP64) if large else needs
        self._directory += _CENTRAL.pack(
            b"PK\1\2",
            _UNIX | needs,
            needs,
            _UTF8,
            method,
            *moment,
            crc,
            min(packed, _LARGE),
            min(size, _LARGE),
            len(name),
            len(extra),
            0,
            0,
            0,
            kind,
            min(begin, _LARGE),
        )
        self._directory += name + extra
        self._count += 1

    def _write(self, data: bytes | bytearray) -> None:
        self._file.write(data)
        self._at += len(data)


def _local(
    name: bytes,
    moment: tuple[int, int],
    method: int,
    crc: int,
    packed: int,
    size: int,
    *,
    is_large: bool,
) -> bytes:
    """What stands before a member's data; as long before its sizes are known as after."""
    extra = struct.pack("<2H2Q", 1, 16, size, packed) if is_large else b""
    shown = (_LARGE, _LARGE) if is_large else (packed, size)
    needs = _ZIP64 if is_large else _PLAIN
    fixed = (needs, _UTF8, method, *moment, crc, *shown, len(name), len(extra))
    return _LOCAL.pack(b"PK\3\4", *fixed) + name + extra


def _moment(modified: float) -> tuple[int, int]:
    """Time and date as the format has them: in UTC, every other second, from 1980 to 2107."""
    found = time.gmtime(min(max(modified, 315_532_800), 4_354_819_198))
    return (
        found.tm_hour << 11 | found.tm_min << 5 | found.tm_sec // 2,
        (found.tm_year - 1980) << 9 | found.tm_mon << 5 | found.tm_mday,
    )
