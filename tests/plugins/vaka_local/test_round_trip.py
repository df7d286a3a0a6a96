"""What is loaded is what is exported: on values, whatever the dialect of the files was."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.plugins.vaka_local.conftest import SCOPE
from tests.plugins.vaka_local.test_csv import VALUES, written

from vaka.errors import MappingFailed
from vaka.models.storage import ExportOptions, TableLoad
from vaka_local.csvfiles import Dialect
from vaka_local.storage import LocalStorage

TABLE = "in.c-main.t"
Row = tuple[str, ...]


async def _through(storage: LocalStorage, load: TableLoad, target: Path, *, zipped: bool) -> bytes:
    await storage.tables.load(SCOPE, [load])
    await storage.tables.export(SCOPE, TABLE, ExportOptions(gzip=zipped), target)
    content = await trio.Path(target).read_bytes()
    return gzip.decompress(content) if zipped else content


def _rows(content: bytes) -> list[Row]:
    """An export, read by somebody else."""
    limit = csv.field_size_limit(len(content))
    try:
        with io.StringIO(content.decode(), newline="") as text:
            return [tuple(row) for row in csv.reader(text, strict=True)]
    finally:
        csv.field_size_limit(limit)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_values_survive_every_dialect(data: st.DataObject) -> None:
    columns = [f"c{number}" for number in range(data.draw(st.integers(1, 3)))]
    dialect = Dialect(data.draw(st.sampled_from(",;\t|")), data.draw(st.sampled_from("\"'")))
    line_ends = data.draw(st.sampled_from([["\n"], ["\r\n"], ["\n", "\r\n"]]))
    slices: list[list[Row]] = data.draw(
        st.lists(st.lists(st.tuples(*[VALUES] * len(columns)), max_size=20), min_size=1, max_size=3)
    )
    with TemporaryDirectory() as name:
        folder = Path(name)
        paths = []
        for number, rows in enumerate(slices):
            content, _ = written(rows, data, dialect, line_ends)
            paths.append(folder / f"{number}.csv")
            paths[-1].write_bytes(gzip.compress(content) if data.draw(st.booleans()) else content)
        load = TableLoad(
            TABLE,
            tuple(paths),
            columns=tuple(columns),
            delimiter=dialect.delimiter,
            enclosure=dialect.enclosure,
        )
        zipped = data.draw(st.booleans())

        async def run() -> bytes:
            storage = LocalStorage(folder / "home", memory_bytes=128 << 20, threads=2)
            await storage.open()
            try:
                return await _through(storage, load, folder / "out", zipped=zipped)
            finally:
                await storage.aclose()

        header, *found = _rows(trio.run(run))

    assert header == tuple(columns)
    assert sorted(found) == sorted(row for rows in slices for row in rows)


@pytest.mark.parametrize(
    "value",
    [
        "x" * (1 << 20),
        '"' * (1 << 20),
        "a\nb" * (1 << 18),
        "ž" * (1 << 19),
        "",
        '""',
        "NULL",
        "\\N",
    ],
    ids=[
        "1 MB",
        "1 MB of quotes",
        "1 MB of lines",
        "1 MB of UTF-8",
        "empty",
        "quotes",
        "NULL",
        "N",
    ],
)
async def test_odd_cells_survive(storage: LocalStorage, tmp_path: Path, value: str) -> None:
    rows: Sequence[Row] = [("1", value), ("2", "after")]
    with io.StringIO(newline="") as text:
        csv.writer(text).writerows([("id", "value"), *rows])
        await trio.Path(tmp_path / "in.csv").write_text(text.getvalue(), newline="")

    load = TableLoad(TABLE, (tmp_path / "in.csv",))
    content = await _through(storage, load, tmp_path / "out.csv", zipped=False)

    assert sorted(_rows(content)[1:]) == sorted(rows)


async def test_what_is_not_text_changes_nothing(storage: LocalStorage, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    await trio.Path(good).write_bytes(b"id\n1\n")
    await trio.Path(bad).write_bytes(b"id\n2\n\xff\xfe\n")
    await storage.tables.load(SCOPE, [TableLoad(TABLE, (good,))])

    with pytest.raises(MappingFailed, match="is not text in UTF-8"):
        await storage.tables.load(SCOPE, [TableLoad(TABLE, (bad,))])

    await storage.tables.export(SCOPE, TABLE, ExportOptions(), tmp_path / "out.csv")
    assert await trio.Path(tmp_path / "out.csv").read_bytes() == b'"id"\n"1"\n'
