"""CSV as it comes and goes: row by row, so that no file is ever in memory as a whole."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TextIO

import trio

from vaka.errors import InvalidInput, MappingFailed
from vaka.models.storage import TableLoad

LONGEST_ROW = 32 << 20
"""Characters of one row. A file that is one endless row would fill the memory otherwise."""
_GZIP = b"\x1f\x8b"
_CHECK_EVERY = 10_000
"""Rows between two looks at whether we are cancelled."""

csv.field_size_limit(max(csv.field_size_limit(), LONGEST_ROW))  # one for the whole process


@contextmanager
def reading(path: Path, load: TableLoad) -> Iterator[Iterator[list[str]]]:
    """The rows of a CSV file, plain or gzip, less the lines that `load` ignores.

    Raises:
        MappingFailed: the file is damaged or is not CSV in UTF-8.
    """
    with path.open("rb") as binary:
        packed = binary.read(len(_GZIP)) == _GZIP
        binary.seek(0)
        with (
            gzip.GzipFile(fileobj=binary) if packed else binary as plain,
            io.TextIOWrapper(plain, encoding="utf-8-sig", newline="") as text,
        ):
            yield islice(_rows(text, load), load.ignored_lines, None)


def _rows(file: TextIO, load: TableLoad) -> Iterator[list[str]]:
    taken = 0

    def lines() -> Iterator[str]:
        nonlocal taken
        for line in iter(partial(file.readline, LONGEST_ROW + 1), ""):
            taken += len(line)
            if taken > LONGEST_ROW:
                raise MappingFailed(f"A row has more than {LONGEST_ROW} characters.")
            yield line

    try:
        for row in _reader(lines(), load):
            taken = 0
            yield row or [""]  # an empty line is a row with one empty field
    except csv.Error as error:
        raise MappingFailed(f"The file is not CSV as described: {error}.") from error
    except UnicodeDecodeError as error:
        raise MappingFailed(f"The file is not text in UTF-8: {error}.") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise MappingFailed(f"The file is not a whole gzip file: {error}.") from error


def _reader(lines: Iterable[str], load: TableLoad) -> Iterator[list[str]]:
    delimiter = load.delimiter.replace("\\t", "\t")
    try:
        return csv.reader(
            lines,
            delimiter=delimiter,
            quotechar=load.enclosure or None,
            quoting=csv.QUOTE_MINIMAL if load.enclosure else csv.QUOTE_NONE,
            escapechar=load.escaped_by or None,
            strict=True,
        )
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f'Delimiter "{delimiter}", enclosure "{load.enclosure}" and escape character '
            f'"{load.escaped_by}" cannot be: {error}.',
            path="delimiter",
        ) from error


def checked(rows: Iterable[list[str]], width: int) -> Iterator[list[str]]:
    """The same rows, each of `width` fields."""
    for count, row in enumerate(rows, 1):
        if len(row) != width:
            raise MappingFailed(f"Row {count} of data has {len(row)} fields, not {width}.")
        if count % _CHECK_EVERY == 0:
            trio.from_thread.check_cancelled()
        yield row


def write(
    target: Path, header: Sequence[str] | None, rows: Iterable[Sequence[str]], *, packed: bool
) -> int:
    """Write rows to the new file `target`; how many."""
    count = 0
    with (
        target.open("xb") as binary,
        gzip.GzipFile(fileobj=binary, mode="wb", filename="") if packed else binary as plain,
        io.TextIOWrapper(plain, encoding="utf-8", newline="") as text,
    ):
        writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
        if header is not None:
            writer.writerow(header)
        for count, row in enumerate(rows, 1):
            writer.writerow(row)
            if count % _CHECK_EVERY == 0:
                trio.from_thread.check_cancelled()
    return count
