"""CSV goes in and comes out as it was, whatever it looks like."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vaka.errors import MappingFailed
from vaka_local.csvfiles import BUFFER, LONGEST_ROW, CsvFile, Dialect
from vaka_local.disk import open_regular
from vaka_local.reading import Batch, Files

Rows = list[tuple[str, ...]]
RFC = Dialect()


def read(
    paths: Sequence[Path],
    columns: int,
    *,
    dialect: Dialect = RFC,
    header: bool = False,
    in_order: bool = False,
    buffer_bytes: int = 1 << 16,
) -> Rows:
    """Rows as a load reads them: in parallel if that is safe, again one by one if it went wrong."""
    with TemporaryDirectory() as scratch, reader() as connection:
        files = Files(tuple(paths), dialect, header, Path(scratch), lambda: None)
        rows: Rows = []
        for batch in files.batches(in_order=in_order):
            rows += _read_batch(connection, batch, columns, in_order, buffer_bytes)
        return rows


@cache
def _duckdb() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(
        config={
            "threads": 4,
            "preserve_insertion_order": False,
            "enable_external_file_cache": False,
        }
    )


def reader() -> duckdb.DuckDBPyConnection:
    """A connection to a DuckDB that is set up as the plugin's."""
    return _duckdb().cursor()


def _read_batch(
    connection: duckdb.DuckDBPyConnection,
    batch: Batch,
    columns: int,
    in_order: bool,
    buffer_bytes: int,
) -> Rows:
    def rows(*, sequential: bool) -> Rows:
        scan = batch.scan(columns, sequential=sequential, buffer_bytes=buffer_bytes)
        return connection.execute(f"SELECT * FROM {scan}").fetchall()

    try:
        found = rows(sequential=in_order)
    except duckdb.Error:
        found = []
    else:
        if in_order or not batch.in_parallel or batch.is_complete(len(found), columns):
            return found
    try:
        return rows(sequential=True)
    except duckdb.Error as error:
        raise batch.failure(str(error), columns) from error


def written(
    rows: Rows, draw: st.DataObject, dialect: Dialect, line_ends: Sequence[str]
) -> tuple[bytes, int]:
    """The rows as CSV, quoted where they must be and here and there where not; the longest row."""
    quote, delimiter = dialect.enclosure, dialect.delimiter
    lines: list[str] = []
    for row in rows:
        fields = []
        for value in row:
            needed = bool(set(value) & {quote, delimiter, "\r", "\n", " "}) or row == ("",)
            if needed or draw.draw(st.booleans()):
                fields.append(quote + value.replace(quote, quote * 2) + quote)
            else:
                fields.append(value)
        lines.append(delimiter.join(fields))
    text = "".join(line + draw.draw(st.sampled_from(line_ends)) for line in lines)
    if draw.draw(st.booleans()) and lines:
        text = text[: text.rindex(lines[-1]) + len(lines[-1])]  # the last line does not end
    return text.encode(), max((len(line.encode()) for line in lines), default=0)


PIECES = ['"', '""', ",", "\n", "\r\n", "\r", '"\n', '\n"', ',"', '","', "1,2\n", '"a","b"\n', "x",
          "", "é", " ", "'", ";", "\0", "\\", "x" * 50]  # fmt: skip
LINE_ENDS: list[list[str]] = [["\n"], ["\r\n"], ["\r"], ["\n", "\r\n", "\r"]]
VALUES = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=20).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_rows_are_read_as_they_were_written(data: st.DataObject) -> None:
    """With tiny buffers, so that every place in a file is where DuckDB begins somewhere."""
    columns = data.draw(st.integers(1, 3))
    dialect = Dialect(data.draw(st.sampled_from(",;\t")), data.draw(st.sampled_from("\"'")))
    header = data.draw(st.booleans())
    expected: Rows = []
    longest = 0
    with TemporaryDirectory() as folder:
        paths = []
        for number in range(1 if header else data.draw(st.integers(1, 3))):
            rows = data.draw(st.lists(st.tuples(*[VALUES] * columns), min_size=header, max_size=40))
            line_ends = data.draw(st.sampled_from(LINE_ENDS))
            content, longest_here = written(rows, data, dialect, line_ends)
            longest = max(longest, longest_here)
            if data.draw(st.booleans()):
                content = b"\xef\xbb\xbf" + content
            if data.draw(st.integers(0, 4)) == 0:
                content = gzip.compress(content)
            paths.append(Path(folder, str(number)))
            paths[-1].write_bytes(content)
            expected += rows[header:]
        in_order = data.draw(st.booleans())

        found = read(
            paths,
            columns,
            dialect=dialect,
            header=header,
            in_order=in_order,
            buffer_bytes=max(longest + 4, data.draw(st.sampled_from([100, 500, 2_000]))),
        )

    assert found == expected if in_order else sorted(found) == sorted(expected)


@settings(max_examples=150, deadline=None)
@given(
    content=st.one_of(st.binary(max_size=200), VALUES.map(str.encode)), columns=st.integers(1, 3)
)
@example(content=b'a,"b\n', columns=2)
@example(content=b'a,"b', columns=2)
@example(content=b'5" pipe,x\n', columns=2)
@example(content=b"\x1f\x8b", columns=1)
@example(content=b"\x1f\x8b\x08\x00", columns=1)
def test_whatever_is_in_a_file_it_is_read_or_refused(content: bytes, columns: int) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(content)
        with suppress(MappingFailed):
            assert all(len(row) == columns for row in read([path], columns))


def parallel(path: Path, columns: int, *, header: bool = True) -> bool:
    """Whether a file is read in parallel, and found complete."""
    with TemporaryDirectory() as scratch, reader() as connection:
        batches = Files((path,), RFC, header, Path(scratch), lambda: None).batches()
        batch = next(batches)  # its file is open until the next one is asked for
        if not batch.in_parallel:
            return False
        scan = batch.scan(columns, sequential=False)
        (count,) = connection.execute(f"SELECT count(*) FROM {scan}").fetchall()[0]
        return batch.is_complete(count, columns)


@pytest.mark.parametrize(
    "content",
    [
        "id,name\n1,a\n2,b\n",
        "id,name\n1,a\n2,b",
        "id,name\r\n1,a\r\n2,b\r\n",
        "id,name\r1,a\r2,b",
        "id,name\n",
        "id,name",
        'id,name\n1,"a ""b"", c"\n',
        "id,name\n1,a\n2,b\n\n\n",
        "id,name\r\n1,a\r\n\r\n",
    ],
)
def test_ordinary_files_are_read_in_parallel(tmp_path: Path, content: str) -> None:
    path = tmp_path / "file"
    path.write_text(content, newline="")

    assert parallel(path, 2)


@pytest.mark.parametrize("content", ['id,name\n1,"a\nb"\n', '"i\nd",name\n1,a\n'])
def test_files_with_quoted_line_breaks_are_not(tmp_path: Path, content: str) -> None:
    path = tmp_path / "file"
    path.write_text(content, newline="")

    assert not parallel(path, 2)


def test_lost_rows_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("1,a\n2,b\n")
    (batch,) = Files((path,), RFC, False, tmp_path, lambda: None).batches()

    assert batch.is_complete(2, 2)
    assert not batch.is_complete(1, 2)
    assert not batch.is_complete(3, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"1,a\n2,b,c\n",
            "The CSV file has a row with 3 fields on line 2, expected are 2. Please check if the "
            'expected delimiter "," is used in the csv file.',
        ),
        (
            b"1,a\n2\n",
            "The CSV file has a row with 1 fields on line 2, expected are 2. Please check if the "
            'expected delimiter "," is used in the csv file.',
        ),
        (b'1,"a\n', "The CSV file has a quoted field that does not end."),
        (
            b'1,a\n2,"b"c\n',
            "The CSV file has a quoted field that does not end where it must on line 2.",
        ),
        (
            b"1,a\n2,\xff\n",
            "The CSV file is not text in UTF-8: it has bytes that cannot be decoded on line 2.",
        ),
        (gzip.compress(b"1,a\n", mtime=0)[:-5], "The CSV file is a gzip file that ends too early."),
        (b"\x1f\x8bxxxx", "The CSV file is not a valid gzip file."),
    ],
)
def test_a_refusal_says_what_is_wrong_and_where(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)

    with pytest.raises(MappingFailed) as caught:
        read([path], 2)

    assert caught.value.message == message


def test_a_refusal_names_the_slice_and_shows_no_data(tmp_path: Path) -> None:
    paths = []
    for number, content in enumerate(["1,a\n", "2,b,SECRET\n", "3,c\n"]):
        paths.append(tmp_path / str(number))
        paths[-1].write_text(content)

    with pytest.raises(MappingFailed) as caught:
        read(paths, 2)

    assert caught.value.message.startswith("Slice 2 of the CSV file has a row with 3 fields")
    assert "SECRET" not in caught.value.message


@pytest.mark.parametrize("start", ["", '"', 'a,"b\n'])
def test_a_row_longer_than_the_limit_is_refused(tmp_path: Path, start: str) -> None:
    path = tmp_path / "file"
    path.write_text("1,a\n" + start + "x" * (LONGEST_ROW + (2 << 20)))

    with pytest.raises(MappingFailed, match="has a row of more than 31457280 bytes"):
        read([path], 2)


def test_a_row_may_be_nearly_as_long_as_the_limit(tmp_path: Path) -> None:
    value = "x\n" * (14 << 20)
    path = tmp_path / "file"
    path.write_text(f'1,a\n2,"{value}"\n3,b\n')

    rows = read([path], 2, buffer_bytes=BUFFER)

    assert sorted(rows) == [("1", "a"), ("2", value), ("3", "b")]


def test_lines_can_be_ignored(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text('a comment\n"another\none",x,y\nid,name\n1,a\n')

    assert read([path], 2, dialect=Dialect(ignored_lines=2), header=True) == [("1", "a")]
    assert read([path], 2, dialect=Dialect(ignored_lines=9)) == []


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"a\\,b,c\\\\\n", [("a,b", "c\\")]),
        (b"a\\\nb,c\\\r\\\nd\n", [("a\nb", "c\r\nd")]),
        (b'"a",b""c\r\n\\n,\\"\r\n', [('"a"', 'b""c'), ("n", '"')]),
        (b"\xef\xbb\xbfa,b\rc,d", [("a", "b"), ("c", "d")]),
        (b"a,b\\", [("a", "b\\")]),
        (b"a,b\n\nc,\n", [("a", "b"), ("c", "")]),
        (b"", []),
    ],
)
def test_an_escape_character_makes_the_next_one_ordinary(
    tmp_path: Path, content: bytes, rows: Rows
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)

    assert read([path], 2, dialect=Dialect(enclosure="", escaped_by="\\"), in_order=True) == rows


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.tuples(VALUES, VALUES), max_size=20))
def test_escaped_values_are_read_as_they_were_written(rows: Rows) -> None:
    def escaped(value: str) -> str:
        return "".join("\\" + letter if letter in "\\;\r\n" else letter for letter in value)

    content = "".join(";".join(map(escaped, row)) + "\n" for row in rows)
    with TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(content.encode())
        dialect = Dialect(";", "", "\\")

        assert read([path], 2, dialect=dialect, in_order=True) == rows


@pytest.mark.parametrize(
    ("content", "count", "rows"),
    [
        ("a,b\nc", 1, [["a", "b"]]),
        ("a,b", 1, [["a", "b"]]),
        ('\ufeff"a\nb","c""d"\r\n1', 1, [["a\nb", 'c"d']]),
        ("a\rb\n", 3, [["a"], ["b"]]),
        ("", 1, []),
        ("\n", 1, [[""]]),
        ('""', 1, [[""]]),
        (",", 1, [["", ""]]),
    ],
)
def test_first_rows_are_parsed(
    tmp_path: Path, content: str, count: int, rows: list[list[str]]
) -> None:
    path = tmp_path / "file"
    path.write_text(content, newline="")
    file = CsvFile(open_regular(path, "The CSV file"), "The CSV file")

    assert file.records(RFC, count) == rows
    file.close()


def test_a_header_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"id,\xff\n")
    file = CsvFile(open_regular(path, "The CSV file"), "The CSV file")

    with pytest.raises(MappingFailed, match="is not text in UTF-8"):
        file.records(RFC, 1)
    file.close()
