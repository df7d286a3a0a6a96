"""Archives of what a component left, whatever it left; and archives that are not to be trusted."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import zstandard

from vaka.datafolder import _descriptors, archives
from vaka.datafolder._zip import ZipWriter
from vaka.datafolder.archives import DEPTH, REWRITTEN_LIMIT, Written, read_archive, write_archive
from vaka.errors import InvalidInput
from vaka.models.job import ArchiveFormat

LIMIT = 1 << 30
FORMATS: tuple[ArchiveFormat, ...] = ("zip", "tar.zst")


def write(
    source: Path,
    target: Path,
    *,
    form: ArchiveFormat = "zip",
    rewritten: tuple[str, ...] = (),
    limit: int = LIMIT,
) -> Written:
    return write_archive(
        source,
        target,
        format=form,
        rewrite=lambda path, data: data.replace(b"secret", path.encode()),
        rewritten=rewritten,
        limit=limit,
    )


@pytest.fixture
def source(workplace: Path) -> Path:
    source = workplace / "data"
    (source / "in/tables").mkdir(parents=True)
    (source / "out").mkdir()
    (source / "in/tables/t.csv").write_bytes(b"a secret\n" * 1_000)
    (source / "config.json").write_text('{"#password": "secret"}')
    return source


@pytest.fixture(params=FORMATS)
def form(request: pytest.FixtureRequest) -> ArchiveFormat:
    found: ArchiveFormat = request.param
    return found


def read(target: Path) -> dict[str, bytes | None]:
    """What everybody else's reader finds in an archive; None for folders."""
    if target.suffix == ".zip":
        with zipfile.ZipFile(target) as opened:
            assert opened.testzip() is None
            names = opened.namelist()
            return {n.rstrip("/"): None if n.endswith("/") else opened.read(n) for n in names}
    with (
        zstandard.open(target) as unpacked,
        tarfile.open(fileobj=unpacked, mode="r|") as stream,
    ):
        return {
            member.name: None if (data := stream.extractfile(member)) is None else data.read()
            for member in stream
        }


def unpacked(target: Path, *, limit: int = LIMIT) -> dict[str, bytes | None]:
    """What our own reader makes of it."""
    folder = target.parent / f"{target.name}-unpacked"
    folder.mkdir()
    read_archive(target, folder, limit=limit)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


# -- writing ---------------------------------------------------------------------------------------


def test_files_and_folders_are_there_also_empty_ones(
    source: Path, workplace: Path, form: ArchiveFormat
) -> None:
    target = workplace / f"a.{form}"
    big = os.urandom(1 << 20) + bytes(3 << 20) + b"end"
    (source / "in/ž 😀.bin").write_bytes(big)
    (source / "out/none").touch()
    found = write(source, target, form=form)
    expected = {
        "config.json": b'{"#password": "secret"}',
        "in": None,
        "in/tables": None,
        "in/tables/t.csv": b"a secret\n" * 1_000,
        "in/ž 😀.bin": big,
        "out": None,
        "out/none": b"",
    }
    assert read(target) == unpacked(target) == expected
    assert (found.entries, found.left_out.count) == (7, 0)
    assert found.bytes == sum(len(each or b"") for each in expected.values())


def test_only_the_documents_named_are_rewritten(
    source: Path, workplace: Path, form: ArchiveFormat
) -> None:
    target = workplace / f"a.{form}"
    write(source, target, form=form, rewritten=("config.json",))
    found = read(target)
    assert found["config.json"] == b'{"#password": "config.json"}'
    assert b"secret" in (found["in/tables/t.csv"] or b"")


def test_links_and_special_files_are_left_out_and_named(
    source: Path, workplace: Path, form: ArchiveFormat
) -> None:
    canary = workplace / "canary"
    canary.write_text("CANARY")
    (source / "out/link").symlink_to(canary)
    (source / "out/folder-link").symlink_to(workplace)
    (source / "out/dangling").symlink_to("/nowhere")
    os.mkfifo(source / "out/fifo")
    (source / "out/fine").write_text("fine")
    target = workplace / f"a.{form}"
    left_out = write(source, target, form=form).left_out
    assert sorted(left_out.named) == [
        ("out/dangling", "a symbolic link"),
        ("out/fifo", "a named pipe"),
        ("out/folder-link", "a symbolic link"),
        ("out/link", "a symbolic link"),
    ]
    assert left_out.count == 4
    found = read(target)
    assert found["out/fine"] == b"fine"
    assert b"CANARY" not in b"".join(each or b"" for each in found.values())


def test_odd_names_are_left_out_with_what_they_hold(source: Path, workplace: Path) -> None:
    for name in (b"\xff\xfe", b"new\nline", b"esc\x1b[2J"):
        Path(os.fsdecode(os.fsencode(source / "out") + b"/" + name)).write_text("x")
    (source / "out/new\nfolder").mkdir()
    (source / "out/new\nfolder/file").touch()
    (source / "out/-rf \\ * $HOME").write_text("fine")
    target = workplace / "a.zip"
    left_out = write(source, target).left_out
    assert sorted(left_out.named) == [
        (r"out/\xff\xfe", "a name that is no plain text"),
        (r"out/esc\u001b[2J", "a name that is no plain text"),
        (r"out/new\u000afolder", "a name that is no plain text"),
        (r"out/new\u000aline", "a name that is no plain text"),
    ]
    assert unpacked(target)["out/-rf \\ * $HOME"] == b"fine"


def test_a_file_of_terabytes_that_were_never_written_is_left_out(
    source: Path, workplace: Path, form: ArchiveFormat
) -> None:
    with (source / "out/sparse").open("wb") as file:
        file.truncate(10 << 40)
    target = workplace / f"a.{form}"
    left_out = write(source, target, form=form, limit=1 << 60).left_out
    assert left_out.named == [("out/sparse", "mostly holes")]
    assert target.stat().st_size < 10_000


def test_what_has_no_room_is_left_out_and_the_rest_is_not(
    source: Path, workplace: Path, form: ArchiveFormat
) -> None:
    (source / "out/a").write_bytes(b"a" * 600)
    (source / "out/b").write_bytes(b"b" * 600)
    (source / "out/c").write_bytes(b"c" * 10)
    target = workplace / f"a.{form}"
    found = write(source, target, form=form, limit=9_000 + 23 + 1_000)
    reason = "no room in the 10023 bytes that an archive may hold"
    assert found.left_out.named == [("out/b", reason)]
    assert {"out/a", "out/c"} <= read(target).keys()
    assert found.bytes == 9_000 + 23 + 610


def test_more_entries_than_there_is_room_for_are_left_out(
    source: Path, workplace: Path, form: ArchiveFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        (source / f"out/{number}").touch()
    monkeypatch.setattr("vaka.datafolder.archives.MEMBERS", 25)
    target = workplace / f"a.{form}"
    found = write(source, target, form=form)
    assert found.entries == 25
    assert found.left_out.named == [("out/*", "more than 25 files and folders")]
    assert len(read(target)) == 25


def test_of_many_links_all_are_counted_and_a_hundred_named(source: Path, workplace: Path) -> None:
    for number in range(300):
        (source / f"out/{number}").symlink_to("/")
    left_out = write(source, workplace / "a.zip").left_out
    assert (left_out.count, len(left_out.named)) == (300, 100)


def test_folders_nested_too_deep_are_left_out(
    source: Path, workplace: Path, form: ArchiveFormat
) -> None:
    """In a bounded number of descriptors, however deep they are."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    (source / "out").joinpath(*["d"] * 200).mkdir(parents=True)
    target = workplace / f"a.{form}"
    left_out = write(source, target, form=form).left_out
    assert [reason for _, reason in left_out.named] == [f"deeper than {DEPTH} folders"]
    assert max(name.count("/") for name in unpacked(target)) == DEPTH - 1
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_document_too_large_to_be_rewritten_is_left_out(source: Path, workplace: Path) -> None:
    with (source / "config.json").open("wb") as file:
        file.truncate(REWRITTEN_LIMIT + 1)
    target = workplace / "a.zip"
    left_out = write(source, target, rewritten=("config.json",)).left_out
    assert left_out.named == [("config.json", "too large for secrets to be hidden in it")]
    assert "config.json" not in read(target)


def test_a_file_has_the_size_that_it_had_when_it_was_opened(
    source: Path, workplace: Path, form: ArchiveFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever becomes of it: the archive stays readable."""
    shrinks, grows = source / "out/shrinks", source / "out/grows"
    shrinks.write_bytes(b"s" * (3 << 20))
    grows.write_bytes(b"g" * (3 << 20))
    check = _descriptors.check_not_hollow

    def and_then(descriptor: int, shown: str) -> int:
        size = check(descriptor, shown)
        if shown == "out/shrinks":
            os.truncate(shrinks, 1 << 20)
        elif shown == "out/grows":
            os.truncate(grows, 9 << 20)
        return size

    monkeypatch.setattr(archives, "check_not_hollow", and_then)
    target = workplace / f"a.{form}"
    left_out = write(source, target, form=form).left_out
    assert left_out.named == [("out/shrinks", "its end: it became shorter meanwhile")]
    found = read(target)
    assert found["out/grows"] == b"g" * (3 << 20)
    assert (found["out/shrinks"] or b"").rstrip(b"\0") == b"s" * (1 << 20)
    assert found["in/tables/t.csv"] == b"a secret\n" * 1_000


def test_a_folder_that_is_swapped_for_a_link_is_not_followed(
    source: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "outside").mkdir()
    (workplace / "outside/canary").write_text("CANARY")
    (source / "out/folder").mkdir()
    listed = archives._listed

    def and_then(folder: int, at_most: int) -> tuple[list[tuple[str, bool]], bool]:
        found = listed(folder, at_most)
        if ("folder", True) in found[0]:
            (source / "out/folder").rmdir()
            (source / "out/folder").symlink_to(workplace / "outside")
        return found

    monkeypatch.setattr(archives, "_listed", and_then)
    left_out = write(source, workplace / "a.zip").left_out
    assert [path for path, _ in left_out.named] == ["out/folder/"]
    assert "out/folder/canary" not in read(workplace / "a.zip")


@pytest.mark.parametrize("after", [0, 3, 12, 40])
def test_writing_can_be_ended_at_any_moment(
    source: Path, workplace: Path, form: ArchiveFormat, after: int
) -> None:
    for number in range(20):
        (source / f"out/{number}").touch()
    (source / "zzz").write_bytes(bytes(40 << 20))
    before = len(list(Path("/proc/self/fd").iterdir()))
    calls = iter(range(after))

    def proceed() -> None:
        if next(calls, None) is None:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        write_archive(
            source,
            workplace / f"a.{form}",
            format=form,
            rewrite=lambda _, data: data,
            rewritten=(),
            limit=LIMIT,
            proceed=proceed,
        )
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_archive_replaces_nothing(source: Path, workplace: Path) -> None:
    target = workplace / "a.zip"
    target.write_text("mine")
    with pytest.raises(FileExistsError):
        write(source, target)
    assert target.read_text() == "mine"


def test_a_zip_file_may_have_more_members_than_its_first_version_counts(workplace: Path) -> None:
    target = workplace / "a.zip"
    with target.open("w+b") as file:
        writer = ZipWriter(file)
        for number in range(70_000):
            writer.folder(f"{number}", 0)
        writer.file("last", b"content", 0)
        writer.close()
    with zipfile.ZipFile(target) as opened:
        assert len(opened.namelist()) == 70_001
        assert opened.read("last") == b"content"


_MEASURED = """
import resource, sys
from pathlib import Path
from vaka.datafolder.archives import read_archive, write_archive
source, target, form = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
before = peak()
write_archive(source, target, format=form, rewrite=lambda p, d: d, rewritten=(), limit=1 << 40)
written = peak()
folder = target.with_suffix(".unpacked")
folder.mkdir()
read_archive(target, folder, limit=1 << 40)
print(written - before, peak() - written)
"""


def test_memory_does_not_grow_with_the_folder(
    source: Path, workplace: Path, form: ArchiveFormat
) -> None:
    """200 MB in one file, and 64 MB in many: both go through a few buffers."""
    block = os.urandom(1 << 19) + bytes(1 << 19)
    with (source / "out/large").open("wb") as file:
        for _ in range(200):
            file.write(block)
    for number in range(64):
        (source / f"out/{number}").write_bytes(block)
    target = workplace / f"a.{form}"
    command = [sys.executable, "-c", _MEASURED, str(source), str(target), form]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    written, unpacked = map(int, done.stdout.split())
    assert target.stat().st_size > 100 << 20
    assert written < 48 << 20
    assert unpacked < 48 << 20


# -- reading ---------------------------------------------------------------------------------------


def hostile(target: Path, *members: tuple[str, int, bytes]) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, mode, data in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            opened.writestr(info, data)
    return target


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("../outside", 0),
        ("a/../../outside", 0),
        ("/outside", 0),
        ("/outside/", 0),
        ("../", 0),
        (".", 0),
        ("link", stat.S_IFLNK),
        ("link/", stat.S_IFLNK),
        ("pipe", stat.S_IFIFO),
        ("disk", stat.S_IFBLK),
        ("null", stat.S_IFCHR),
        ("file/", stat.S_IFREG),
        ("new\nline", 0),
        ("esc\x1b[2J", 0),
        ("x" * 256, 0),
        ("/".join("d" * (DEPTH + 1)), 0),
    ],
)
def test_a_member_that_must_not_be_is_refused(workplace: Path, name: str, mode: int) -> None:
    target = hostile(workplace / "a.zip", (name, mode, b"../outside"))
    with pytest.raises(InvalidInput):
        unpacked(target)
    assert sorted(each.name for each in workplace.iterdir()) == ["a.zip", "a.zip-unpacked"]
    assert list((workplace / "a.zip-unpacked").iterdir()) == []


def test_a_zip_bomb_is_refused_before_it_goes_off(workplace: Path) -> None:
    target = hostile(workplace / "a.zip", *((f"{n}", 0, bytes(8 << 20)) for n in range(8)))
    assert target.stat().st_size < 100_000
    with pytest.raises(InvalidInput, match="unpacks to more than"):
        unpacked(target, limit=20 << 20)
    written = (workplace / "a.zip-unpacked").rglob("*")
    assert sum(each.stat().st_size for each in written) <= 20 << 20


def test_a_zstd_bomb_is_refused_before_it_goes_off(workplace: Path) -> None:
    header = tarfile.TarInfo("zeros")
    header.size = 1 << 30
    target = workplace / "a.tar.zst"
    with zstandard.open(target, "wb") as packed:
        packed.write(header.tobuf(tarfile.PAX_FORMAT))
        for _ in range(256):
            packed.write(bytes(1 << 20))
    assert target.stat().st_size < 100_000
    with pytest.raises(InvalidInput, match="unpacks to more than"):
        unpacked(target, limit=20 << 20)


def test_a_zip_file_with_a_list_beyond_memory_is_refused(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = hostile(workplace / "a.zip", *((f"{n}", 0, b"") for n in range(100)))
    monkeypatch.setattr("vaka.datafolder.archives.DIRECTORY_LIMIT", 4_000)
    with pytest.raises(InvalidInput, match="list of members has more than 4000 bytes"):
        unpacked(target)


def test_too_many_members_are_refused(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = hostile(workplace / "a.zip", *((f"{n}", 0, b"") for n in range(21)))
    monkeypatch.setattr("vaka.datafolder.archives.MEMBERS", 20)
    with pytest.raises(InvalidInput, match="more than 20 files"):
        unpacked(target)


@pytest.mark.parametrize("damage", ["half", "end", "middle", "nothing"])
def test_a_damaged_archive_is_refused(
    source: Path, workplace: Path, form: ArchiveFormat, damage: str
) -> None:
    (source / "noise").write_bytes(os.urandom(300_000))
    target = workplace / f"a.{form}"
    write(source, target, form=form)
    data = target.read_bytes()
    half = len(data) // 2
    target.write_bytes(
        {
            "half": data[:half],
            "end": data[:-3],
            "middle": data[:half] + bytes(1_000) + data[half + 1_000 :],
            "nothing": b"",
        }[damage]
    )
    with pytest.raises(InvalidInput):
        unpacked(target)


def test_an_encrypted_or_rarely_packed_member_is_refused(workplace: Path) -> None:
    target = workplace / "a.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_LZMA) as opened:
        opened.writestr("file", b"x" * 1_000)
    with pytest.raises(InvalidInput, match="not read here"):
        unpacked(target)
    data = io.BytesIO(hostile(workplace / "b.zip", ("file", 0, b"x")).read_bytes()).getvalue()
    at = data.index(b"PK\1\2") + 8
    (workplace / "c.zip").write_bytes(data[:at] + b"\1" + data[at + 1 :])
    with pytest.raises(InvalidInput, match="encrypted"):
        unpacked(workplace / "c.zip")


def test_a_zip_file_that_points_to_before_its_beginning_is_refused(workplace: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a", b"b" * 100)
    whole = content.getvalue()
    source, target = workplace / "a.zip", workplace / "target"
    # without its middle the list of members is nearer to the beginning than it says
    source.write_bytes(whole[:10] + whole[60:])
    target.mkdir()
    with pytest.raises(InvalidInput, match="It is no ZIP file, or a damaged one"):
        read_archive(source, target, limit=1 << 20)
