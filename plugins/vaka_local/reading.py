"""DuckDB's CSV reader: which options it gets, and what its errors mean."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from vaka.errors import MappingFailed
from vaka_local.csvfiles import BUFFER, INVALID_CSV, CsvFile, Dialect
from vaka_local.disk import open_regular

_FILES_AT_A_TIME: Final = 64
"""Slices that are open together: a process may have a thousand descriptors or so."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Files that one call of DuckDB's reader can take."""

    files: tuple[CsvFile, ...]
    dialect: Dialect
    line_end: bytes
    in_parallel: bool
    has_header: bool
    lines: int
    blank_lines: int

    def joined(self, other: Batch) -> Batch:
        """The files of both, which must be alike."""
        return replace(
            self,
            files=self.files + other.files,
            lines=self.lines + other.lines,
            blank_lines=self.blank_lines + other.blank_lines,
        )

    def scan(self, columns: int, *, sequential: bool, buffer_bytes: int = BUFFER) -> str:
        """A table function of SQL that gives the rows, in columns `c0`, `c1`, ...

        With `sequential` rows come as they stand in the files, and no guess is made.
        """
        names = [f"c{index}" for index in range(columns)]
        options = {
            "auto_detect": "false",
            "columns": "{" + ", ".join(f"'{name}': 'VARCHAR'" for name in names) + "}",
            # an empty field is an empty string, quoted or not
            "force_not_null": "[" + ", ".join(f"'{name}'" for name in names) + "]",
            "header": _word(self.has_header),
            "skip": str(self.dialect.ignored_lines),
            "delim": literal(self.dialect.delimiter),
            "quote": literal(self.dialect.enclosure),
            "escape": literal(self.dialect.enclosure),
            "strict_mode": "true",
            "compression": "'gzip'" if self.files[0].gzipped else "'none'",
            "max_line_size": str(buffer_bytes),
            "buffer_size": str(buffer_bytes),
            "parallel": _word(self.in_parallel and not sequential),
        }
        if self.line_end != b"\r\n":  # DuckDB finds that one by itself, and errs when it is told
            options["new_line"] = r"'\r'" if self.line_end == b"\r" else r"'\n'"
        paths = ", ".join(literal(file.path) for file in self.files)
        return f"read_csv([{paths}], {', '.join(f'{key}={val}' for key, val in options.items())})"

    def is_complete(self, rows: int, columns: int) -> bool:
        """Whether `rows` is as many as lines were counted. Not to be asked of quoted line breaks."""
        blank = self.blank_lines if columns == 1 else 0  # with one column they are empty values
        skipped = (self.dialect.ignored_lines + self.has_header) * len(self.files)
        return rows == max(0, self.lines + blank - skipped)

    def failure(self, message: str, columns: int) -> MappingFailed:
        """What DuckDB's error about one of the files means for who wrote it. No data is in it."""
        where = ""
        if line := re.search(r"CSV Error on Line: (\d+)", message):
            where = f" on line {line[1]}"
        label = self.files[0].label
        if len(self.files) > 1:
            label = "One of the slices"
            if found := re.search(r"/proc/self/fd/(\d+)", message):
                labels = {str(file.fd): file.label for file in self.files}
                label = labels.get(found[1], label)
        if fields := re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", message):
            reason = (
                f"has a row with {fields[2]} fields{where}, expected are {columns}. Please check if "
                f'the expected delimiter "{self.dialect.delimiter}" is used in the csv file'
            )
        elif "unterminated quote" in message:
            reason = f"has a quoted field that does not end where it must{where}"
        elif "Invalid unicode" in message or "not utf-8" in message:
            reason = f"is not text in UTF-8: it has bytes that cannot be decoded{where}"
        elif "GZIP" in message or "gzip" in message:
            reason = "is a damaged gzip file"
        else:
            reason = f"is not a valid CSV file{where}: quotes or line ends are not as in RFC 4180"
        return MappingFailed(f"{label} {reason}.", code=INVALID_CSV)


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _word(flag: bool) -> str:
    return "true" if flag else "false"


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one load, in their order, opened a few at a time."""

    paths: tuple[Path, ...]
    dialect: Dialect
    has_header: bool
    scratch: Path
    """Folder for copies of files that DuckDB cannot read as they are."""
    check: Callable[[], None]
    """Called now and then; raises when the load is to end."""

    def header(self) -> list[str] | None:
        """The names in the first row, or None when the only file has no row."""
        with self._opened(0) as file:
            rows = file.records(self.dialect, self.dialect.ignored_lines + 1)
            return rows[-1] if len(rows) > self.dialect.ignored_lines else None

    def plain_bytes(self) -> int | None:
        """How many bytes all files have, or None when one of them is packed."""
        total = 0
        for index in range(len(self.paths)):
            with self._opened(index) as file:
                if file.gzipped:
                    return None
                total += os.fstat(file.fd).st_size
        return total

    def batches(self, *, in_order: bool = False) -> Iterator[Batch]:
        """The files, grouped by what the reader has to be told; with `in_order` one by one.

        The descriptors of a batch are open until the next one is asked for.
        """
        step = 1 if in_order else _FILES_AT_A_TIME
        for start in range(0, len(self.paths), step):
            with ExitStack() as stack:
                batches: dict[tuple[bytes, bool, bool], Batch] = {}
                for index in range(start, min(start + step, len(self.paths))):
                    one = self._prepared(stack.enter_context(self._opened(index)), stack)
                    key = (one.line_end, one.in_parallel, one.files[0].gzipped)
                    batches[key] = batches[key].joined(one) if key in batches else one
                yield from batches.values()

    def _prepared(self, file: CsvFile, stack: ExitStack) -> Batch:
        """A file that DuckDB's reader can take: itself, or a copy that `stack` closes."""
        dialect, header = self.dialect, self.has_header
        if dialect.escaped_by:
            file = file.rewritten(dialect, self.scratch, self.check)
            stack.callback(file.close)
            dialect = dialect.rewritten
        layout = file.layout(dialect, self.check)
        if layout.has_odd_quotes and file.ends_inside_quotes(dialect):
            raise MappingFailed(
                f"{file.label} has a quoted field that does not end.", code=INVALID_CSV
            )
        line_end = layout.line_end
        if line_end is None:
            file = file.rewritten(dialect, self.scratch, self.check)
            stack.callback(file.close)
        elif layout.has_bom:
            file = file.without_bom(self.scratch, self.check)
            stack.callback(file.close)
        return Batch(
            (file,),
            dialect,
            line_end or b"\n",
            not layout.has_quoted_breaks,
            header,
            layout.lines,
            layout.blank_lines,
        )

    @contextmanager
    def _opened(self, index: int) -> Iterator[CsvFile]:
        label = "The CSV file" if len(self.paths) == 1 else f"Slice {index + 1} of the CSV file"
        file = CsvFile(open_regular(self.paths[index], label), label)
        try:
            yield file
        finally:
            file.close()
