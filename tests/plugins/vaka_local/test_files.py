"""What the embedded files do beyond the contract: expiry, crashes, names."""

# ruff: noqa: ASYNC240 - small files

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import trio
import trio.from_thread
from tests.plugins.vaka_local.conftest import SCOPE, Clock

from vaka.errors import ApplicationError, DiskFull, InvalidInput, NotFound
from vaka.models.storage import BlockRef, FileDetail, FileQuery, FileUpload
from vaka_local import disk, files
from vaka_local.blocks import Staged
from vaka_local.catalog import LocalCatalog
from vaka_local.contents import Contents, Stored
from vaka_local.database import Database
from vaka_local.names import file_name, words
from vaka_local.storage import LocalStorage

WITHOUT_RIGHTS = "".join(
    f"ALTER TABLE tokens DROP COLUMN {column}; "
    for column in (
        "can_manage_tokens",
        "can_read_all_file_uploads",
        "can_purge_trash",
        "refreshed",
        "creator_id",
        "creator_description",
    )
)
"""Makes tokens what they were before the sixth version."""


async def upload(
    storage: LocalStorage,
    path: Path,
    content: str = "x",
    name: str = "a",
    *,
    is_permanent: bool = False,
) -> FileDetail:
    path.write_text(content)
    wanted = FileUpload(name, is_permanent=is_permanent)
    return await storage.files.upload(SCOPE, wanted, path)


def contents(home: Path) -> list[Path]:
    """Everything in the folder of files."""
    return sorted(path for path in (home / "files").rglob("*") if path.is_file())


@pytest.mark.scenario("storage-api", 39)
async def test_a_file_expires_unless_it_is_permanent(
    storage: LocalStorage, clock: Clock, home: Path, tmp_path: Path
) -> None:
    passing = await upload(storage, tmp_path / "src", "passing")
    lasting = await upload(storage, tmp_path / "src", "lasting", is_permanent=True)
    clock.advance(days=14, hours=23)
    assert await storage.files.file(SCOPE, passing.id) == passing

    clock.advance(hours=1)

    found = await storage.files.list_files(SCOPE, FileQuery())
    assert [file.id for file in found] == [lasting.id]
    everything = await storage.files.list_files(SCOPE, FileQuery(show_expired=True))
    assert [file.id for file in everything] == [lasting.id, passing.id]
    with pytest.raises(NotFound) as caught:
        await storage.files.file(SCOPE, passing.id)
    assert caught.value.message == f"File id: {passing.id} not found"
    with pytest.raises(NotFound):
        await storage.files.download(SCOPE, passing.id, tmp_path / "out")


async def test_the_content_of_expired_files_is_removed_by_a_later_upload(
    storage: LocalStorage, clock: Clock, home: Path, tmp_path: Path
) -> None:
    await upload(storage, tmp_path / "src", "plain")
    (tmp_path / "slice").write_text("sliced")
    sliced = FileUpload("b", is_sliced=True)
    await storage.files.upload(SCOPE, sliced, [tmp_path / "slice", tmp_path / "slice"])
    assert len(contents(home)) == 3
    clock.advance(days=15)

    await upload(storage, tmp_path / "src", "new")

    assert [path.read_text() for path in contents(home)] == ["new"]
    assert len(await storage.files.list_files(SCOPE, FileQuery(show_expired=True))) == 3


async def test_what_a_crash_leaves_behind_is_swept_up(
    home: Path, clock: Clock, tmp_path: Path
) -> None:
    storage = LocalStorage(home, clock=clock)
    await storage.open()
    await upload(storage, tmp_path / "src", "known")
    await storage.aclose()
    for name in ("unknown", "half.part"):
        (home / "files/1" / name).write_text("left behind")
    (home / "files/1/young").write_text("an upload of another process")
    clock.advance(days=2)
    old = clock.now.timestamp() - 2 * 86_400
    for path in contents(home):
        os.utime(path, (old, old))
    os.utime(home / "files/1/young", (old + 2 * 86_400, old + 2 * 86_400))

    later = LocalStorage(home, clock=clock)
    await later.open()
    await upload(later, tmp_path / "src", "new")
    await later.aclose()

    found = sorted(path.read_text() for path in contents(home))
    assert found == ["an upload of another process", "known", "new"]


async def test_a_deleted_file_frees_its_space(
    storage: LocalStorage, home: Path, tmp_path: Path
) -> None:
    file = await upload(storage, tmp_path / "src")

    await storage.files.delete(SCOPE, file.id)

    assert contents(home) == []


async def test_a_source_that_fails_leaves_nothing(
    storage: LocalStorage, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "sendfile", full)

    with pytest.raises(ApplicationError, match="No space left on device"):
        await upload(storage, tmp_path / "src")

    assert contents(home) == []
    assert await storage.files.list_files(SCOPE, FileQuery()) == []


async def test_a_database_that_fails_leaves_no_content(
    storage: LocalStorage, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ApplicationError("no")

    monkeypatch.setattr(files, "_add_tags", fail)

    with pytest.raises(ApplicationError, match="no"):
        await upload(storage, tmp_path / "src")

    assert contents(home) == []


async def test_a_cancelled_transfer_leaves_nothing(
    storage: LocalStorage, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = await upload(storage, tmp_path / "src", "x" * 100)
    sendfile = os.sendfile
    scope = trio.CancelScope()

    def cancelled(*arguments: int) -> int:
        for _ in range(3):  # when the last one returns, who is cancelled has had its turn
            trio.from_thread.run_sync(scope.cancel)
        return sendfile(*arguments)

    monkeypatch.setattr(os, "sendfile", cancelled)
    with scope:
        await storage.files.upload(SCOPE, FileUpload("b"), tmp_path / "src")
    assert scope.cancelled_caught
    scope = trio.CancelScope()
    with scope:
        await storage.files.download(SCOPE, file.id, tmp_path / "out")
    assert scope.cancelled_caught

    assert not (tmp_path / "out").exists()
    assert len(contents(home)) == 1
    assert len(await storage.files.list_files(SCOPE, FileQuery())) == 1


async def test_of_two_uploads_with_one_key_at_once_one_is_stored(
    storage: LocalStorage, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "src").write_text("x")
    found: list[FileDetail] = []
    both = [trio.Event(), trio.Event()]
    arrivals = iter(both)
    store = Contents.store

    async def everybody() -> None:
        next(arrivals).set()
        for event in both:
            await event.wait()

    def slowly(*arguments: Any, **options: Any) -> Stored:
        trio.from_thread.run(everybody)
        return store(*arguments, **options)

    monkeypatch.setattr(Contents, "store", slowly)

    async def one() -> None:
        found.append(
            await storage.files.upload(SCOPE, FileUpload("a"), tmp_path / "src", import_key="k")
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        nursery.start_soon(one)

    assert found[0] == found[1]
    assert len(contents(home)) == 1


async def test_the_catalog_can_be_read_by_its_owner_only(storage: LocalStorage, home: Path) -> None:
    assert (home / "catalog.db").stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o777 == 0o700


async def test_a_catalog_of_the_first_version_gets_its_branches(home: Path) -> None:
    catalog = LocalCatalog(home)
    await catalog.open()
    project = await catalog.create_project("old")
    await catalog.aclose()
    with closing(sqlite3.connect(home / "catalog.db")) as connection:
        connection.executescript(
            "DROP TABLE branch_states; DROP TABLE branches; ALTER TABLE files DROP COLUMN branch; "
            "DROP TABLE file_blobs; ALTER TABLE files DROP COLUMN is_uploaded; "
            "ALTER TABLE files ADD COLUMN content VARCHAR; "
            f"{WITHOUT_RIGHTS}"
            "DELETE FROM vaka_local_schema; INSERT INTO vaka_local_schema VALUES (1);"
        )

    for _ in range(2):
        await catalog.open()
        (main,) = await catalog.branches(project.id)
        assert (main.name, main.is_default, main.created) == ("Main", True, project.created)
        await catalog.aclose()

    storage = LocalStorage(home)
    await storage.open()
    (home / "src").write_text("x")
    stored = await storage.files.upload(SCOPE, FileUpload("a"), home / "src")
    assert await storage.files.list_files(SCOPE, FileQuery()) == [stored]
    await storage.aclose()


async def test_a_catalog_of_a_newer_version_is_left_alone(home: Path) -> None:
    database = Database(home)
    await database.open()
    statement = sa.text("INSERT INTO vaka_local_schema VALUES (1000)")
    await database.write(lambda connection: connection.execute(statement))
    await database.aclose()

    with pytest.raises(ApplicationError, match="newer version"):
        await database.open()

    await database.aclose()


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    storage = LocalStorage(tmp_path / "file" / "home")

    with pytest.raises(ApplicationError, match="cannot be made"):
        await storage.open()

    await storage.aclose()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("my-file.dat", "my_file.dat"),
        ("my-table.csv", "my_table.csv"),
        ("žluťoučký kůň.csv", "zlutoucky_kun.csv"),
        ("a/../b", "a_.._b"),
        (".hidden", ".hidden"),
        ("two  words", "two_words"),
    ],
)
def test_names_of_files_are_tidied(given: str, kept: str) -> None:
    assert file_name(given) == kept


def test_the_file_of_an_export_is_named_as_its_table() -> None:
    assert file_name("in.c-main.users.csv", of_table=True) == "in.c-main.users.csv"


@pytest.mark.parametrize("name", ["", "---", "..", "/", "😀"])
def test_names_without_letters_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        file_name(name)


def test_words_of_a_name_are_compared_without_case_and_marks() -> None:
    assert words("My-Žluť_2.CSV") == ["my", "zlut", "2", "csv"]


def test_a_folder_is_removed_with_all_in_it(tmp_path: Path) -> None:
    (tmp_path / "folder/inner").mkdir(parents=True)
    (tmp_path / "folder/inner/file").write_text("x")

    disk.remove(tmp_path / "folder")
    disk.remove(tmp_path / "folder")

    assert list(tmp_path.iterdir()) == []


# -- blobs -----------------------------------------------------------------------------------------


async def staged_file(storage: LocalStorage, path: Path) -> int:
    """The id of a file of whose content one block is there."""
    file = await storage.files.prepare(SCOPE, FileUpload("a"))
    path.write_text("block")
    await storage.files.blobs.stage(SCOPE, file.id, "", "1", path)
    return file.id


def blocks(home: Path) -> list[Path]:
    return [path for path in (home / "blocks").rglob("*") if path.is_file()]


async def test_blocks_survive_a_restart(home: Path, tmp_path: Path) -> None:
    storage = LocalStorage(home)
    await storage.open()
    file = await staged_file(storage, tmp_path / "src")
    await storage.aclose()

    later = LocalStorage(home)
    await later.open()
    await later.files.blobs.commit(SCOPE, file, "", [BlockRef("1")])

    async with later.files.reading(SCOPE, file) as paths:
        assert paths[0].read_text() == "block"
    await later.aclose()
    assert blocks(home) == []
    assert list((home / "reading").iterdir()) == []


async def test_blocks_that_nobody_commits_are_swept_up(
    storage: LocalStorage, clock: Clock, home: Path, tmp_path: Path
) -> None:
    file = await staged_file(storage, tmp_path / "src")
    clock.advance(hours=2)
    await upload(storage, tmp_path / "src")
    assert blocks(home) != []
    old = clock.now.timestamp() - 2 * 86_400
    for path in (home / "blocks").rglob("*"):
        os.utime(path, (old, old))
    clock.advance(hours=2)

    await upload(storage, tmp_path / "src")

    assert blocks(home) == []
    with pytest.raises(InvalidInput):
        await storage.files.blobs.commit(SCOPE, file, "", [BlockRef("1")])


async def test_a_deleted_file_takes_its_blocks_with_it(
    storage: LocalStorage, home: Path, tmp_path: Path
) -> None:
    file = await staged_file(storage, tmp_path / "src")

    await storage.files.delete(SCOPE, file)

    assert blocks(home) == []


async def test_a_blob_may_have_so_many_blocks_and_no_more(
    storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaka_local.blocks.MOST_BLOCKS", 2)
    monkeypatch.setattr("vaka_local.blobs.MOST_BLOCKS", 2)
    file = await staged_file(storage, tmp_path / "src")
    stage = storage.files.blobs.stage
    for _ in range(3):
        (tmp_path / "src").write_text("again")
        await stage(SCOPE, file, "", "2", tmp_path / "src")
    (tmp_path / "src").write_text("too many")

    with pytest.raises(InvalidInput, match="at most 2 blocks"):
        await stage(SCOPE, file, "", "3", tmp_path / "src")
    with pytest.raises(InvalidInput, match="at most 2 blocks"):
        await storage.files.blobs.commit(SCOPE, file, "", [BlockRef("1")] * 3)


async def test_content_that_is_replaced_frees_its_space(
    storage: LocalStorage, home: Path, tmp_path: Path
) -> None:
    file = await staged_file(storage, tmp_path / "src")
    await storage.files.blobs.commit(SCOPE, file, "", [BlockRef("1")])

    (tmp_path / "src").write_text("new")
    await storage.files.blobs.put(SCOPE, file, "", tmp_path / "src")

    assert [path.read_text() for path in contents(home)] == ["new"]
    assert not (tmp_path / "src").exists()
    await storage.files.delete(SCOPE, file)
    assert contents(home) == []


async def test_blocks_that_come_in_order_are_not_copied(
    storage: LocalStorage, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = storage.files.blobs
    file = await staged_file(storage, tmp_path / "src")
    for number, content in ((2, "second"), (3, "third"), (2, "SECOND")):
        (tmp_path / "src").write_text(content)
        await blobs.stage(SCOPE, file, "", str(number), tmp_path / "src")
    (data,) = (home / "blocks").rglob("data")
    inode = data.stat().st_ino

    await blobs.commit(SCOPE, file, "", [BlockRef("1"), BlockRef("2"), BlockRef("3")])

    (path,) = contents(home)
    assert (path.stat().st_ino, path.read_text()) == (inode, "blockSECONDthird")
    assert blocks(home) == []


async def test_a_block_that_was_being_written_is_none(home: Path, tmp_path: Path) -> None:
    storage = LocalStorage(home)
    await storage.open()
    file = await staged_file(storage, tmp_path / "src")
    await storage.aclose()
    (data,) = (home / "blocks").rglob("data")
    (index,) = (home / "blocks").rglob("index")
    known = index.read_text()
    for torn in (
        known + f"{'a' * 40} 5 100\n",  # the data went with the power
        known + f"{'a' * 40} 5 1",  # the line was being written
    ):
        index.write_text(torn)
        data.write_text("block" + "half")
        later = LocalStorage(home)
        await later.open()
        (tmp_path / "src").write_text("next")
        await later.files.blobs.stage(SCOPE, file, "", "2", tmp_path / "src")
        listed = [BlockRef("1"), BlockRef("2")]
        await later.files.blobs.commit(SCOPE, file, "", listed)
        async with later.files.reading(SCOPE, file) as paths:
            assert paths[0].read_text() == "blocknext"
        await later.aclose()
        data.parent.mkdir(parents=True)


async def test_blocks_that_became_a_blob_are_not_changed_after_a_crash(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = LocalStorage(home)
    await storage.open()
    file = await staged_file(storage, tmp_path / "src")
    with monkeypatch.context() as killed:
        killed.setattr(Staged, "discard", lambda _: None)
        await storage.files.blobs.commit(SCOPE, file, "", [BlockRef("1")])
    await storage.aclose()

    later = LocalStorage(home)
    await later.open()
    (tmp_path / "src").write_text("BLOCK")
    await later.files.blobs.stage(SCOPE, file, "", "1", tmp_path / "src")

    async with later.files.reading(SCOPE, file) as paths:
        assert paths[0].read_text() == "block"
    await later.files.blobs.commit(SCOPE, file, "", [BlockRef("1")])
    async with later.files.reading(SCOPE, file) as paths:
        assert paths[0].read_text() == "BLOCK"
    await later.aclose()


async def test_what_is_replaced_again_and_again_is_bounded(
    storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaka_local.blocks.MOST_WASTE", 10)
    file = await staged_file(storage, tmp_path / "src")
    for content in ("x" * 20, "y"):
        (tmp_path / "src").write_text(content)
        await storage.files.blobs.stage(SCOPE, file, "", "1", tmp_path / "src")

    (tmp_path / "src").write_text("zz")
    with pytest.raises(InvalidInput, match="Too many blocks have been replaced"):
        await storage.files.blobs.stage(SCOPE, file, "", "1", tmp_path / "src")

    await storage.files.blobs.commit(SCOPE, file, "", [BlockRef("1")])


async def test_a_full_disk_is_said_and_leaves_nothing(
    storage: LocalStorage, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = await staged_file(storage, tmp_path / "src")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "sendfile", full)
    (tmp_path / "src").write_text("next")
    with pytest.raises(DiskFull, match="No space left on device"):
        await storage.files.blobs.stage(SCOPE, file, "", "2", tmp_path / "src")
    with pytest.raises(DiskFull, match="No space left on device"):
        await storage.files.blobs.commit(SCOPE, file, "", [BlockRef("1"), BlockRef("1")])
    monkeypatch.undo()

    assert contents(home) == []
    await storage.files.blobs.commit(SCOPE, file, "", [BlockRef("1")])
    assert [path.read_text() for path in contents(home)] == ["block"]


async def test_files_of_the_third_version_keep_their_content(home: Path, tmp_path: Path) -> None:
    storage = LocalStorage(home)
    await storage.open()
    plain = await upload(storage, tmp_path / "src", "plain")
    sliced = await storage.files.upload(
        SCOPE, FileUpload("b.csv", is_sliced=True), [tmp_path / "src", tmp_path / "src"]
    )
    await storage.aclose()
    with closing(sqlite3.connect(home / "catalog.db")) as connection:
        connection.executescript(
            "ALTER TABLE files ADD COLUMN content VARCHAR; "
            "UPDATE files SET content = (SELECT rtrim(replace(content, name, ''), '/')"
            " FROM file_blobs WHERE file_id = id LIMIT 1); "
            "DROP TABLE file_blobs; ALTER TABLE files DROP COLUMN is_uploaded; "
            f"{WITHOUT_RIGHTS}"
            "UPDATE vaka_local_schema SET version = 3;"
        )

    later = LocalStorage(home)
    await later.open()
    for file, count in ((plain, 1), (sliced, 2)):
        assert await later.files.file(SCOPE, file.id) == file
        async with later.files.reading(SCOPE, file.id) as paths:
            assert [path.read_text() for path in paths] == ["plain"] * count
    listed = await later.files.blobs.list_blobs(SCOPE, sliced.id)
    assert [(blob.name, blob.size_bytes) for blob in listed] == [
        ("part.00000.csv", 5),
        ("part.00001.csv", 5),
    ]
    await later.files.delete(SCOPE, sliced.id)
    assert len(contents(home)) == 1
    await later.aclose()
