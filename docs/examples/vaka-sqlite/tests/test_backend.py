"""What the contract suite cannot know: our URL, our database file, and our limits."""

import sqlite3
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import pytest
import trio
from vaka_sqlite import SqliteBackend, csvfiles, vaka_mapping_backend

from vaka.errors import ApplicationError, InvalidInput, MappingFailed, NotFound
from vaka.hooks import MappingBackend
from vaka.models.storage import FileQuery, FileUpload, StorageScope, TableLoad

SCOPE = StorageScope(project="1")


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncIterator[SqliteBackend]:
    backend = SqliteBackend(tmp_path / "storage.db")
    await backend.open()
    try:
        yield backend
    finally:
        await backend.aclose()


def test_the_hook_answers_for_its_own_urls_only(tmp_path: Path) -> None:
    assert isinstance(vaka_mapping_backend(f"sqlite-tables://{tmp_path}/a.db"), SqliteBackend)
    assert vaka_mapping_backend(f"local://{tmp_path}") is None
    assert not (tmp_path / "a.db").exists()


@pytest.mark.parametrize("path", ["", "/", "relative.db"])
def test_a_url_without_an_absolute_path_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput, match="no absolute path"):
        vaka_mapping_backend(f"sqlite-tables://{path}")


async def test_everything_is_there_again_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "new" / "storage.db"
    (tmp_path / "t.csv").write_text("a\n1\n")
    first = SqliteBackend(path)
    await first.open()
    await first.tables.load(SCOPE, [TableLoad("in.c-b.t", (tmp_path / "t.csv",))])
    file = await first.files.upload(SCOPE, FileUpload("f", ("x",)), tmp_path / "t.csv")
    await first.aclose()

    second = SqliteBackend(path)
    await second.open()
    try:
        assert (await second.tables.table(SCOPE, "in.c-b.t")).rows_count == 1
        await second.files.download(SCOPE, file.id, tmp_path / "back")
    finally:
        await second.aclose()
    assert (tmp_path / "back").read_text() == "a\n1\n"


async def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "storage.db")
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    backend = SqliteBackend(tmp_path / "storage.db")

    with pytest.raises(ApplicationError, match="schema 2"):
        await backend.open()

    await backend.aclose()


async def test_a_database_that_cannot_be_made_is_an_application_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    backend = SqliteBackend(tmp_path / "file" / "storage.db")

    with pytest.raises(ApplicationError, match="cannot be opened"):
        await backend.open()

    await backend.aclose()


async def test_a_cancelled_load_changes_nothing(
    backend: MappingBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.csv").write_text("a\n" * 20_000)
    load = TableLoad("in.c-b.t", (tmp_path / "t.csv",), ("a",))
    read = csvfiles.checked

    def cancelled(rows: Iterable[list[str]], width: int) -> Iterator[list[str]]:
        trio.from_thread.run_sync(scope.cancel)
        return read(rows, width)

    monkeypatch.setattr(csvfiles, "checked", cancelled)
    with trio.CancelScope() as scope:
        await backend.tables.load(SCOPE, [load])

    assert scope.cancelled_caught
    assert await backend.tables.list_buckets(SCOPE) == []


async def test_a_cancelled_statement_is_interrupted(backend: SqliteBackend) -> None:
    endless = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

    def work(connection: sqlite3.Connection) -> None:
        trio.from_thread.run_sync(scope.cancel)
        connection.execute(endless)

    with trio.CancelScope() as scope:
        await backend._database.read(work)

    assert scope.cancelled_caught


async def test_an_endless_row_is_refused_before_it_fills_the_memory(
    backend: MappingBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csvfiles, "LONGEST_ROW", 1_000)
    path = tmp_path / "t.csv"
    for row in ("x" * 1_001, '"' + "x\n" * 501 + '"'):
        path.write_text(f"a\nshort\n{row}\n")

        with pytest.raises(MappingFailed, match="more than 1000 characters"):
            await backend.tables.load(SCOPE, [TableLoad("in.c-b.t", (path,))])


async def test_an_upload_that_fails_leaves_no_content(
    backend: MappingBackend, tmp_path: Path
) -> None:
    (tmp_path / "s0").write_text("0")
    sliced = FileUpload("f", is_sliced=True)

    with pytest.raises(MappingFailed, match="s1"):
        await backend.files.upload(SCOPE, sliced, [tmp_path / "s0", tmp_path / "s1"])

    assert list((tmp_path / "storage.db.files").iterdir()) == []
    assert await backend.files.list_files(SCOPE, FileQuery()) == []


async def test_expired_files_lose_their_content_when_the_backend_opens(
    backend: MappingBackend, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("x")
    file = await backend.files.upload(SCOPE, FileUpload("f"), tmp_path / "f")
    kept = await backend.files.upload(SCOPE, FileUpload("g", is_permanent=True), tmp_path / "f")
    with sqlite3.connect(tmp_path / "storage.db") as connection:
        connection.execute("UPDATE file SET expires = 0 WHERE expires IS NOT NULL")
    connection.close()
    await backend.aclose()
    await backend.open()

    with pytest.raises(NotFound):
        await backend.files.file(SCOPE, file.id)
    assert [each.id for each in await backend.files.list_files(SCOPE, FileQuery())] == [kept.id]
    shown = await backend.files.list_files(SCOPE, FileQuery(show_expired=True))
    assert [each.id for each in shown] == [kept.id, file.id]
    assert [path.name for path in (tmp_path / "storage.db.files").iterdir()] == [str(kept.id)]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("name:report", ["Monthly_Report.csv"]),
        (".csv", ["other.csv", "Monthly_Report.csv"]),
        ("name:M*_rep?rt.csv", ["Monthly_Report.csv"]),
        ("tags:a", ["data.bin", "Monthly_Report.csv"]),
        ("tags: a AND tags:b", ["Monthly_Report.csv"]),
        ('tags:"a" AND NOT tags:"b"', ["data.bin"]),
        ("tags:(a AND b) OR tags:c", ["other.csv", "Monthly_Report.csv"]),
        ("tags:(a NOT b)", ["data.bin"]),
        ("tags:a -tags:b", ["data.bin"]),
        ("tags:b tags:c", ["other.csv", "Monthly_Report.csv"]),
        ('tags:"with \\"quotes\\": x"', ["data.bin"]),
        ("id:>1", ["data.bin", "other.csv"]),
        ("id:>1 AND (NOT tags:c)", ["data.bin"]),
        ("id:(1 OR 3)", ["data.bin", "Monthly_Report.csv"]),
        (f"id:>{2**70}", []),
        ("id:[2 TO *]", ["data.bin", "other.csv"]),
        ("sizeBytes:<=3", ["other.csv"]),
        (
            'created:["2001-01-01T00:00:00+00:00" TO *]',
            ["data.bin", "other.csv", "Monthly_Report.csv"],
        ),
        ('created:[* TO "2001-01-01T00:00:00"]', []),
        ("isPublic:true", []),
        ("runId:9", []),
    ],
)
async def test_queries_find_files(
    backend: MappingBackend, tmp_path: Path, query: str, found: list[str]
) -> None:
    for name, size, tags in (
        ("Monthly Report.csv", 5, ("a", "b")),
        ("other.csv", 3, ("c",)),
        ("data.bin", 4, ("a", 'with "quotes": x')),
    ):
        (tmp_path / "f").write_text("x" * size)
        await backend.files.upload(SCOPE, FileUpload(name, tags), tmp_path / "f")

    files = await backend.files.list_files(SCOPE, FileQuery(query=query))

    assert [file.name for file in files] == found


@pytest.mark.parametrize(
    "query",
    [
        *(
            "tags:",
            "tags[]:sd",
            "(tags:a",
            "tags:a)",
            "AND",
            "id:x",
            "tags:>1",
            'tags:"a',
            "id:[1 2]",
        ),
        *("created:[yesterday TO *]", "isPublic:maybe", "tags:a*", "name:...", "-"),
        *("(" * 60 + "a" + ")" * 60, " OR ".join(f"id:{number}" for number in range(600))),
    ],
)
async def test_queries_that_are_none_are_refused(backend: MappingBackend, query: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be parsed"):
        await backend.files.list_files(SCOPE, FileQuery(query=query))
