"""Archives of what a component left, whatever it left."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from vaka.datafolder.archives import REWRITTEN_LIMIT, write_zip


def archive(source: Path, target: Path, *, rewritten: tuple[str, ...] = ()) -> list[str]:
    return write_zip(
        source,
        target,
        rewrite=lambda data: data.replace(b"secret", b"[hidden]"),
        rewritten=rewritten,
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "data"
    (source / "in/tables").mkdir(parents=True)
    (source / "out").mkdir()
    (source / "in/tables/t.csv").write_bytes(b"a secret\n" * 1_000)
    (source / "config.json").write_text('{"#password": "secret"}')
    return source


def names(target: Path) -> list[str]:
    with zipfile.ZipFile(target) as opened:
        assert opened.testzip() is None
        return sorted(opened.namelist())


def test_files_and_folders_are_there_also_empty_ones(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.zip"
    assert archive(source, target) == []
    assert names(target) == ["config.json", "in/", "in/tables/", "in/tables/t.csv", "out/"]
    with zipfile.ZipFile(target) as opened:
        assert opened.read("in/tables/t.csv") == b"a secret\n" * 1_000


def test_only_the_documents_named_are_rewritten(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.zip"
    archive(source, target, rewritten=("config.json",))
    with zipfile.ZipFile(target) as opened:
        assert opened.read("config.json") == b'{"#password": "[hidden]"}'
        assert b"secret" in opened.read("in/tables/t.csv")


def test_links_and_special_files_are_left_out_and_named(source: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("CANARY")
    (source / "out/link").symlink_to(canary)
    (source / "out/folder-link").symlink_to(tmp_path)
    (source / "out/dangling").symlink_to("/nowhere")
    os.mkfifo(source / "out/fifo")
    (source / "out/fine").write_text("fine")
    target = tmp_path / "a.zip"
    left_out = archive(source, target)
    assert sorted(left_out) == ["out/dangling", "out/fifo", "out/folder-link", "out/link"]
    assert "out/fine" in names(target)
    assert b"CANARY" not in target.read_bytes()


def test_names_that_are_no_text_are_left_out(source: Path, tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(source / "out") + b"/\xff\xfe")).write_text("x")
    target = tmp_path / "a.zip"
    assert len(archive(source, target)) == 1
    assert len(names(target)) == 5


def test_a_document_too_large_to_be_rewritten_is_left_out(source: Path, tmp_path: Path) -> None:
    with (source / "config.json").open("wb") as file:
        file.truncate(REWRITTEN_LIMIT + 1)
    target = tmp_path / "a.zip"
    assert archive(source, target, rewritten=("config.json",)) == ["config.json"]
    assert "config.json" not in names(target)


def test_an_archive_replaces_nothing(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.zip"
    target.write_text("mine")
    with pytest.raises(FileExistsError):
        archive(source, target)
    assert target.read_text() == "mine"
