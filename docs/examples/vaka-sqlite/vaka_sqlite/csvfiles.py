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
from vaka_sqlite import disk

LONGEST_ROW = 32 << 20
"""Characters of one row. A file that is one endless row would fill the memory otherwise."""
_GZIP = b"\x1f\x8b"
_CHECK_EVERY = 10_000
"""Rows between two looks at whether we are cancelled."""


@contextmanager
def reading(path: Path, load: TableLoad) -> Iterator[Iterator[list[str]]]:
    """The rows of a CSV file, plain or gzip, less the lines that `load` ignores.

    Raises:
        InvalidInput: a file cannot be read as `load` says.
        MappingFailed: the file is damaged, is not CSV in UTF-8, or is no file.
    """
    if load.ignored_lines < 0:
        raise InvalidInput("The number of lines to ignore is negative.", path="ignored_lines")
    with disk.open_regular(path) as binary:
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
            yield row
    except csv.Error as error:
        raise MappingFailed(f"The file is not CSV as described: {error}.") from error
    except UnicodeDecodeError as error:
        raise MappingFailed(f"The file is not text in UTF-8: {error}.") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise MappingFailed(f"The file is not a whole gzip file: {error}.") from error


def _reader(lines: Iterable[str], load: TableLoad) -> Iterator[list[str]]:
    delimiter = "\t" if load.delimiter == "\\t" else load.delimiter
    characters = [delimiter, *filter(None, (load.enclosure, load.escaped_by))]
    possible = all(len(each) == 1 and (each == "\t" or " " <= each <= "~") for each in characters)
    both = load.enclosure and load.escaped_by
    if not possible or both or len(characters) != len(set(characters)):
        raise InvalidInput(
            f'Delimiter "{load.delimiter}", enclosure "{load.enclosure}" and escape character '
            f'"{load.escaped_by}" do not go together: each is one character of ASCII, the delimiter '
            "is needed, and only one of the other two can be.",
            path="delimiter",
        )
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_ROW))  # one for the whole process
    return csv.reader(
        lines,
        delimiter=delimiter,
        quotechar=load.enclosure or None,
        quoting=csv.QUOTE_MINIMAL if load.enclosure else csv.QUOTE_NONE,
        escapechar=load.escaped_by or None,
        strict=True,
    )


def checked(rows: Iterable[list[str]], width: int) -> Iterator[list[str]]:
    """The rows that are not blank, each of `width` fields."""
    for count, row in enumerate(rows, 1):
        if count % _CHECK_EVERY == 0:
            trio.from_thread.check_cancelled()
        if not row and width > 1:
            continue  # a blank line; in a table of one column it is an empty value
        if len(row or [""]) != width:
            raise MappingFailed(f"Row {count} of data has {len(row)} fields, not {width}.")
        yield row or [""]


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
