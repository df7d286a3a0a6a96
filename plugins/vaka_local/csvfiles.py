"""CSV files as they come: what their line ends and quotes are like, before DuckDB reads them.

DuckDB's reader is fast and needs help in a few places, all seen on 1.5 and 2.0:

* It takes the line end of the first line break in the file, even one inside quotes. So the line end is
  found here, and given.
* It reads a file in parallel from guessed places, and guesses wrong now and then when there are line
  breaks inside quotes: rows are torn apart without an error. So a file is read in parallel only when
  no line break in it is quoted. Even then rows can be lost where lines end in CR LF, so they are
  counted: there must be one for each line.
* It refuses different line ends in one file, and a byte order mark before a header or a line to be
  ignored. Such a file is copied without them.

One pass over the bytes at about 1.5 GB/s tells all of that; it looks at bytes, not at rows.
"""

from __future__ import annotations

import codecs
import os
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vaka.errors import InvalidInput, MappingFailed
from vaka.models.storage import TableLoad

INVALID_CSV: Final = "invalidCsv"
"""Storage's word for a file that cannot be read as told, or a dialect that is none."""
_CHUNK: Final = 1 << 20
LONGEST_ROW: Final = 30 << 20
"""Bytes that one row may have."""
BUFFER: Final = LONGEST_ROW + 2 * _CHUNK
"""Bytes that DuckDB reads at once. It tears rows apart that are longer."""
_GZIP: Final = b"\x1f\x8b"
_CRLF: Final = b"\xff"
"""Stands for CR LF while bytes are looked at: it is in no text of UTF-8."""
_BREAKS: Final = b"\r\n" + _CRLF
_KINDS: Final = {ord("\n"): b"\n", ord("\r"): b"\r", ord(_CRLF): b"\r\n"}
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How fields and rows are told apart. Characters are of one byte; `enclosure` may be empty."""

    delimiter: str = ","
    enclosure: str = '"'
    escaped_by: str = ""
    ignored_lines: int = 0

    @classmethod
    def of(cls, load: TableLoad) -> Dialect:
        """The dialect of a load; `InvalidInput` when it cannot be."""
        delimiter = "\t" if load.delimiter == "\\t" else load.delimiter
        for option, value in (
            ("delimiter", delimiter),
            ("enclosure", load.enclosure),
            ("escapedBy", load.escaped_by),
        ):
            optional = option != "delimiter"
            if not value and optional:
                continue
            if len(value) != 1 or not value.isascii() or value in "\0\r\n":
                raise InvalidInput(
                    f'CSV {option} must be one character, it is "{value}".',
                    path=option,
                    code=INVALID_CSV,
                )
        if load.enclosure and load.escaped_by:
            raise InvalidInput(
                "Only one of the CSV options enclosure and escapedBy can be set.",
                path="escapedBy",
                code=INVALID_CSV,
            )
        if delimiter in {load.enclosure, load.escaped_by}:
            raise InvalidInput(
                "CSV delimiter must differ from enclosure and escapedBy.",
                path="delimiter",
                code=INVALID_CSV,
            )
        if load.ignored_lines < 0:
            raise InvalidInput("The number of ignored lines is negative.", path="ignored_lines")
        return cls(delimiter, load.enclosure, load.escaped_by, load.ignored_lines)

    @property
    def rewritten(self) -> Dialect:
        """The dialect of a rewritten file."""
        return Dialect(ignored_lines=self.ignored_lines) if self.escaped_by else self


@dataclass(frozen=True, slots=True)
class Layout:
    """What a file's bytes are like, as far as it matters for reading it."""

    line_ends: frozenset[bytes]
    """Which of LF, CR and CR LF end rows."""
    has_quoted_breaks: bool
    first_break: bytes | None
    """The line break that stands first in the file, quoted or not."""
    has_bom: bool
    lines: int
    """How many there are, without blank ones at the end. So many are the rows, when no break is quoted
    and no other line is blank."""
    blank_lines: int
    """How many blank ones are at the end: rows as well, when there is only one column."""
    has_odd_quotes: bool
    """The number of quotes is odd: one is not closed, or stands where it means nothing."""

    @property
    def line_end(self) -> bytes | None:
        """The one line end that DuckDB can be told, or None: the file has to be rewritten."""
        if not self.line_ends:
            return b"\n"
        if len(self.line_ends) > 1:
            return None
        (line_end,) = self.line_ends
        # DuckDB takes CR LF only by its own detection, which looks at the first break of all
        return line_end if line_end != b"\r\n" or self.first_break == b"\r\n" else None


class CsvFile:
    """A file that is open for reading. Nothing is opened a second time by its name."""

    def __init__(self, fd: int, label: str) -> None:
        """Take the descriptor `fd`; `label` is what messages call the file."""
        self.fd = fd
        self.label = label
        self.gzipped = os.pread(fd, 2, 0) == _GZIP

    def close(self) -> None:
        os.close(self.fd)

    @property
    def path(self) -> str:
        """A path that leads to the open file, whatever happens to its name."""
        return f"/proc/self/fd/{self.fd}"

    def chunks(self) -> Iterator[bytes]:
        """The file's bytes, unpacked.

        Raises:
            MappingFailed: it is packed and damaged.
        """
        packed = self._packed_chunks()
        if not self.gzipped:
            yield from packed
            return
        member = None
        for data in packed:
            rest = data
            while rest:
                if member is None:
                    member = zlib.decompressobj(wbits=31)
                try:
                    plain = member.decompress(rest, _CHUNK)
                except zlib.error as error:
                    raise MappingFailed(
                        f"{self.label} is not a valid gzip file.", code=INVALID_CSV
                    ) from error
                if plain:
                    yield plain
                rest = member.unused_data if member.eof else member.unconsumed_tail
                if member.eof:  # another member may follow
                    member = None
        if member is not None:
            raise MappingFailed(
                f"{self.label} is a gzip file that ends too early.", code=INVALID_CSV
            )

    def _packed_chunks(self) -> Iterator[bytes]:
        position = 0
        while data := os.pread(self.fd, _CHUNK, position):
            position += len(data)
            yield data

    def layout(self, dialect: Dialect, check: Callable[[], None]) -> Layout:
        """What the file's bytes are like; `check` is called now and then and may raise.

        Raises:
            MappingFailed: it is damaged, or has a row that is too long.
        """
        quote = dialect.enclosure.encode()
        boring = bytes(set(range(256)) - set(_BREAKS + quote))
        ends: set[bytes] = set()
        first: bytes | None = None
        has_bom: bool | None = None
        quoted_breaks = inside = False
        lines = row_bytes = 0
        breaks = 1  # how many end what was read so far, as if a line had ended before the first one
        for raw in _whole_breaks(self.chunks()):
            check()
            if has_bom is None:
                has_bom = raw.startswith(_BOM)
            if first is None and (found := re.search(rb"\r\n|\r|\n", raw)):
                first = found[0]
            chunk = raw.replace(b"\r\n", _CRLF) if b"\r" in raw else raw
            text = len(chunk.rstrip(_BREAKS))
            breaks = len(chunk) - text + (0 if text else breaks)
            marks = chunk.translate(None, boring)
            # two quotes with nothing but text between them change nothing for what follows
            parts = marks.replace(quote + quote, b"").split(quote) if quote else [marks]
            row_bytes += len(chunk)
            for part in parts:
                if part:
                    lines += len(part)
                    if inside:
                        quoted_breaks = True
                    else:
                        ends.update(_KINDS[byte] for byte in set(part))
                        row_bytes = 0
                inside = not inside
            inside = not inside  # there is one quote less than there are parts
            if row_bytes > LONGEST_ROW:
                raise MappingFailed(
                    f"{self.label} has a row of more than {LONGEST_ROW} bytes.", code=INVALID_CSV
                )
        blank = max(0, breaks - 1)
        lines += (not breaks) - blank
        return Layout(frozenset(ends), quoted_breaks, first, bool(has_bom), lines, blank, inside)

    def ends_inside_quotes(self, dialect: Dialect) -> bool:
        """Whether a quoted field is not closed. DuckDB takes it when it is the last one."""
        quote = dialect.enclosure.encode()
        before = _before_fields(dialect)
        inside, fresh = False, True
        for chunk in _without_bom(self.chunks()):
            parts = chunk.split(quote)
            for part in parts[:-1]:
                if inside:
                    inside, fresh = False, True  # or it is the first one of two, which opens again
                else:
                    inside = fresh = part.endswith(before) if part else fresh
            if not inside and parts[-1]:
                fresh = parts[-1].endswith(before)
        return inside

    def records(self, dialect: Dialect, count: int) -> list[list[str]]:
        """The first `count` rows, or fewer when there are not as many.

        Raises:
            MappingFailed: they are not text in UTF-8, or longer than a row may be.
        """
        decoder = codecs.getincrementaldecoder("utf-8")()
        chunks = self.chunks()
        text = ""
        while True:
            chunk = next(chunks, None)
            try:
                text += decoder.decode(chunk or b"", final=chunk is None)
            except UnicodeDecodeError as error:
                raise MappingFailed(
                    f"{self.label} is not text in UTF-8: its first row cannot be decoded.",
                    code=INVALID_CSV,
                ) from error
            rows = _parse(text.removeprefix("\ufeff"), dialect, count, at_end=chunk is None)
            if chunk is None or len(rows) == count:
                return rows
            if len(text) > LONGEST_ROW:
                raise MappingFailed(
                    f"The first row of {self.label} has more than {LONGEST_ROW} bytes.",
                    code=INVALID_CSV,
                )

    def rewritten(self, dialect: Dialect, scratch: Path, check: Callable[[], None]) -> CsvFile:
        """A copy with LF at the end of every row, in a file without a name in the folder `scratch`.

        A file with an escape character becomes one with quotes: see `Dialect.rewritten`.

        Raises:
            MappingFailed: quotes stand where none may be, so that rows cannot be told apart.
        """
        plain = _without_bom(_whole_breaks(self.chunks()))
        rows = _unescaped(plain, dialect) if dialect.escaped_by else self._with_lf(plain, dialect)
        return self._copied(rows, scratch, check)

    def without_bom(self, scratch: Path, check: Callable[[], None]) -> CsvFile:
        """A copy without the mark at its beginning, in a file without a name in `scratch`."""
        return self._copied(_without_bom(self.chunks()), scratch, check)

    def _copied(self, chunks: Iterator[bytes], scratch: Path, check: Callable[[], None]) -> CsvFile:
        with tempfile.TemporaryFile(dir=scratch, buffering=_CHUNK) as target:
            for chunk in chunks:
                check()
                target.write(chunk)
            target.flush()
            return CsvFile(os.dup(target.fileno()), self.label)

    def _with_lf(self, chunks: Iterator[bytes], dialect: Dialect) -> Iterator[bytes]:
        quote = dialect.enclosure.encode()
        if not quote:
            yield from map(_lf, chunks)
            return
        before = _before_fields(dialect)
        inside = False
        fresh = True
        for chunk in chunks:
            parts = chunk.split(quote)
            last = len(parts) - 1
            for index, part in enumerate(parts):
                if not inside:
                    # between the two quotes of a doubled one there is nothing
                    fresh = part.endswith(before) if part else fresh
                    if index < last and not fresh:
                        raise MappingFailed(
                            f"{self.label} has different line ends and a quote inside a field that "
                            "is not quoted: its rows cannot be told apart.",
                            code=INVALID_CSV,
                        )
                    parts[index] = _lf(part)
                if index < last:
                    inside = not inside
                    fresh = True
            yield quote.join(parts)


def _whole_breaks(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes, no CR LF torn apart between two chunks."""
    held = b""
    for chunk in chunks:
        whole = held + chunk
        held = b"\r" if whole.endswith(b"\r") else b""
        if held:
            whole = whole[:-1]
        yield whole
    if held:
        yield held


def _before_fields(dialect: Dialect) -> tuple[bytes, ...]:
    """What stands before a field, unless it is the first one."""
    return b"\n", b"\r", dialect.delimiter.encode()


def _without_bom(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes without the mark; it is in the first chunk as a whole."""
    for first in chunks:
        yield first.removeprefix(_BOM)
        break
    yield from chunks


def _lf(part: bytes) -> bytes:
    return part.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in part else part


def _unescaped(chunks: Iterator[bytes], dialect: Dialect) -> Iterator[bytes]:
    """A file whose escape character makes the next character an ordinary one, in RFC 4180."""
    escape, delimiter = map(re.escape, (dialect.escaped_by.encode(), dialect.delimiter.encode()))
    token = re.compile(
        rb"(?P<escaped>%s.)|(?P<next>%s)|(?P<end>\r\n|\r|\n)|[^%s%s\r\n]+"
        % (escape, delimiter, escape, delimiter),
        re.DOTALL,
    )
    in_row = False
    held = b""
    for chunk in chunks:
        text = held + chunk
        held = b""
        out: list[bytes] = []
        position = 0
        while position < len(text):
            found = token.match(text, position)
            if found is None:  # an escape character, and what it escapes is in the next chunk
                held = text[position:]
                break
            position = found.end()
            if found["end"] is not None:
                out.append(b'"\n' if in_row else b"\n")
                in_row = False
                continue
            if not in_row:
                out.append(b'"')
                in_row = True
            if found["next"] is not None:
                out.append(b'","')
            else:
                value = found[0] if found["escaped"] is None else found["escaped"][1:]
                out.append(value.replace(b'"', b'""'))
        yield b"".join(out)
    if held:
        yield (b"" if in_row else b'"') + held.replace(b'"', b'""')
    if held or in_row:
        yield b'"\n'


def _parse(text: str, dialect: Dialect, count: int, *, at_end: bool) -> list[list[str]]:
    """The first `count` rows of `text` that are complete; at its end the last one is."""
    rows: list[list[str]] = []
    row: list[str] = []
    field: list[str] = []
    quoted = begun = False
    position = 0
    while position < len(text) and len(rows) < count:
        letter = text[position]
        position += 1
        begun = True
        if quoted:
            if letter != dialect.enclosure:
                field.append(letter)
            elif text[position : position + 1] == dialect.enclosure:
                field.append(letter)
                position += 1
            else:
                quoted = False
        elif letter == dialect.escaped_by:
            field.append(text[position : position + 1])
            position += 1
        elif letter == dialect.enclosure and not field:
            quoted = True
        elif letter == dialect.delimiter:
            row.append("".join(field))
            field = []
        elif letter in "\r\n":
            position += text[position - 1 : position + 1] == "\r\n"
            rows.append([*row, "".join(field)])
            row, field, begun = [], [], False
        else:
            field.append(letter)
    if at_end and begun and len(rows) < count:
        rows.append([*row, "".join(field)])
    return rows
