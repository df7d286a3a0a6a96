"""Archives that are packed from a hostile folder, and hostile archives that are unpacked."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vaka.datafolder import JobFolder
from vaka.datafolder.archives import DEPTH, HEADER_LIMIT, MEMBERS, read_tar
from vaka.errors import InvalidInput

LIMIT = 1 << 24


@pytest.fixture
def left(folder: JobFolder) -> Path:
    """/data/artifacts/out/current of a job folder, as a component made it."""
    current = folder.data / "artifacts/out/current"
    current.mkdir(parents=True)
    return current


def pack(folder: JobFolder, limit: int = LIMIT) -> tuple[Path, int, list[str]]:
    target = folder.incoming("a.tar.gz")
    files, left_out = folder.pack_artifacts("current", target, limit=limit)
    return target, files, left_out


def unpack(source: Path, limit: int = LIMIT) -> dict[str, bytes]:
    target = source.parent / "unpacked"
    target.mkdir(exist_ok=True)
    read_tar(source, target, limit=limit)
    return content(target)


def content(target: Path) -> dict[str, bytes]:
    return {
        path.relative_to(target).as_posix(): path.read_bytes()
        for path in sorted(target.rglob("*"))
        if path.is_file()
    }


# -- packing ---------------------------------------------------------------------------------------


def test_what_is_packed_comes_out_again(folder: JobFolder, left: Path) -> None:
    (left / "sub/empty").mkdir(parents=True)
    (left / "sub/ž 😀\u00a0.txt").write_bytes(b"in a folder")
    (left / ".hidden").write_bytes(b"")
    (left / "big").write_bytes(os.urandom(3 << 20))

    target, files, left_out = pack(folder)

    assert (files, left_out) == (3, [])
    assert unpack(target) == content(left)
    assert (target.parent / "unpacked/sub/empty").is_dir()
    with tarfile.open(target) as archive:  # as everybody else reads it
        assert sorted(archive.getnames()) == [
            ".hidden",
            "big",
            "sub",
            "sub/empty",
            "sub/ž 😀\u00a0.txt",
        ]


def test_nothing_to_pack_is_told(folder: JobFolder) -> None:
    assert pack(folder)[1:] == (0, [])
    (folder.data / "artifacts/out/current/folder").mkdir(parents=True)
    assert pack(folder)[1:] == (0, [])


def test_links_and_special_files_are_not_packed(folder: JobFolder, left: Path) -> None:
    canary = folder.root / "engine/canary"
    canary.write_text("CANARY")
    (left / "link").symlink_to(canary)
    (left / "folder").symlink_to(folder.root / "engine")
    os.mkfifo(left / "pipe")
    (left / "new\nline").write_bytes(b"no archive with this name could be unpacked")
    (left / "file").write_bytes(b"fine")

    target, files, left_out = pack(folder)

    assert (files, sorted(left_out)) == (1, ["folder", "link", "new\nline", "pipe"])
    assert unpack(target) == {"file": b"fine"}


@pytest.mark.parametrize("replaced", ["artifacts", "artifacts/out", "artifacts/out/current"])
def test_a_link_on_the_way_is_not_followed(
    folder: JobFolder, tmp_path: Path, replaced: str
) -> None:
    outside = tmp_path / "outside"
    (outside / "out/current").mkdir(parents=True)
    (outside / "current").mkdir()
    for place in ("out/current/secret", "current/secret", "secret"):
        (outside / place).write_text("CANARY")
    link = folder.data / replaced
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)

    with pytest.raises(InvalidInput, match="symbolic link"):
        pack(folder)
    with pytest.raises(InvalidInput, match="symbolic link"):
        folder.artifacts("current", limit=LIMIT)


def test_too_much_is_not_packed(folder: JobFolder, left: Path) -> None:
    (left / "a").write_bytes(b"x" * 600)
    assert pack(folder, limit=1200)[1] == 1
    (left / "b").write_bytes(b"x" * 601)
    with pytest.raises(InvalidInput, match="more than 1200 bytes"):
        pack(folder, limit=1200)
    os.truncate(left / "b", 1 << 40)
    with pytest.raises(InvalidInput, match="never written"):
        pack(folder, limit=1 << 50)


def test_folders_nested_too_deep_are_not_packed(folder: JobFolder, left: Path) -> None:
    deep = left.joinpath(*["d"] * DEPTH)
    deep.mkdir(parents=True)
    assert pack(folder)[1] == 0
    (deep / "file").touch()
    with pytest.raises(InvalidInput, match=f"more than {DEPTH} levels"):
        pack(folder)


def test_files_can_be_had_one_by_one(folder: JobFolder, left: Path) -> None:
    (left / "sub").mkdir()
    (left / "sub/a.csv").write_bytes(b"a")
    (left / "b.csv").write_bytes(b"bb")
    (left / "link").symlink_to("b.csv")

    found, left_out = folder.artifacts("current", limit=3)

    assert (sorted(found), left_out) == (["b.csv", "sub/a.csv"], ["link"])
    with folder.opened_artifact("current", "sub/a.csv") as path:
        assert path.read_bytes() == b"a"
    (left / "b.csv").unlink()
    (left / "b.csv").symlink_to("/etc/passwd")
    with (
        pytest.raises(InvalidInput, match="symbolic link"),
        folder.opened_artifact("current", "b.csv"),
    ):
        pytest.fail("a link was opened")
    with pytest.raises(InvalidInput, match="more than 0 bytes"):
        folder.artifacts("current", limit=0)
    with (
        pytest.raises(InvalidInput, match="not there any more"),
        folder.opened_artifact("current", "c"),
    ):
        pytest.fail("nothing was opened")


def test_artifacts_are_placed_in_folders_that_are_ours(
    folder: JobFolder, owner: tuple[int, int]
) -> None:
    for text in ("first", "second"):
        incoming = folder.incoming("artifacts-runs")
        (incoming / "jobId-1").mkdir(parents=True)
        (incoming / f"jobId-1/{text}").write_text(text)
        folder.place_artifacts(incoming, "runs")
    runs = folder.data / "artifacts/in/runs"
    assert content(runs) == {"jobId-1/second": b"second"}
    for path in (runs, runs / "jobId-1", runs / "jobId-1/second"):
        status = path.lstat()
        assert (status.st_uid, status.st_gid) == owner


def test_artifacts_are_not_placed_through_a_link(folder: JobFolder, tmp_path: Path) -> None:
    (folder.data / "artifacts").symlink_to(tmp_path)
    incoming = folder.incoming("artifacts-runs")
    incoming.mkdir()
    with pytest.raises(InvalidInput, match="symbolic link"):
        folder.place_artifacts(incoming, "runs")
    assert not (tmp_path / "in").exists()


# -- unpacking -------------------------------------------------------------------------------------


@contextmanager
def hostile(target: Path) -> Iterator[tarfile.TarFile]:
    with tarfile.open(target, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        yield archive


def member(
    name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, io.BytesIO | None]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    if kind == tarfile.REGTYPE:
        info.size = len(data)
        return info, io.BytesIO(data)
    return info, None


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "in/a.tar.gz"


def make(target: Path, *members: tuple[tarfile.TarInfo, io.BytesIO | None]) -> None:
    target.parent.mkdir(exist_ok=True)
    with hostile(target) as opened:
        for info, data in members:
            opened.addfile(info, data)


@pytest.mark.parametrize(
    "one",
    [
        member("../outside"),
        member("a/../../outside"),
        member("/outside"),
        member("..", kind=tarfile.DIRTYPE),
        member("/outside", kind=tarfile.DIRTYPE),
        member("."),
        member("link", kind=tarfile.SYMTYPE, link="../outside"),
        member("link", kind=tarfile.LNKTYPE, link="../outside"),
        member("pipe", kind=tarfile.FIFOTYPE),
        member("disk", kind=tarfile.BLKTYPE),
        member("null", kind=tarfile.CHRTYPE),
        member("new\nline"),
        member("esc\x1b[2J"),
        member("x" * 256),
        member("not\udcff text"),
        member("/".join("d" * (DEPTH + 1))),
    ],
    ids=lambda one: repr(one[0].name[:20] + str(one[0].type)),
)
def test_a_member_that_must_not_be_is_refused(
    archive: Path, one: tuple[tarfile.TarInfo, io.BytesIO | None]
) -> None:
    if one[1] is not None:
        one[1].seek(0)  # the same object is in every run of the parameters
    make(archive, one)
    with pytest.raises(InvalidInput):
        unpack(archive)
    assert sorted(path.name for path in archive.parent.parent.iterdir()) == ["in"]
    assert sorted(path.name for path in archive.parent.iterdir()) == ["a.tar.gz", "unpacked"]


def test_a_link_is_not_there_to_be_written_through(archive: Path, tmp_path: Path) -> None:
    make(archive, member("out", kind=tarfile.SYMTYPE, link=str(tmp_path)), member("out/canary"))
    with pytest.raises(InvalidInput, match="neither a regular file nor a folder"):
        unpack(archive)
    assert not (tmp_path / "canary").exists()


def test_a_name_may_come_again_as_the_same_kind_only(archive: Path) -> None:
    make(archive, member("./a/b", b"one"), member("a/b", b"two"), member("a", kind=tarfile.DIRTYPE))
    assert unpack(archive) == {"a/b": b"two"}
    for first, second in (("a", "a/b"), ("a/b", "a")):
        make(archive, member(first), member(second))
        with pytest.raises(InvalidInput, match="both a file and a folder"):
            unpack(archive)
        for path in sorted(archive.parent.glob("unpacked/**/*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


def test_a_bomb_is_refused_before_it_goes_off(archive: Path) -> None:
    size = 1 << 28
    header = tarfile.TarInfo("zeros")
    header.size = size
    archive.parent.mkdir()
    with gzip.open(archive, "wb") as packed:
        packed.write(header.tobuf(tarfile.PAX_FORMAT))
        for _ in range(size >> 20):
            packed.write(bytes(1 << 20))
    assert archive.stat().st_size < 1 << 20
    with pytest.raises(InvalidInput, match=f"more than {LIMIT} bytes"):
        unpack(archive)
    assert (archive.parent / "unpacked/zeros").stat().st_size <= LIMIT


def _extended(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("././@Header")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK]
)
def test_a_header_is_bounded(archive: Path, kind: bytes) -> None:
    """It is read into memory whole."""
    archive.parent.mkdir()
    with gzip.open(archive, "wb") as packed:
        packed.write(_extended(kind, 8 << 30))
        packed.write(bytes(4 << 20))
    with pytest.raises(InvalidInput, match=f"more than {HEADER_LIMIT} bytes"):
        unpack(archive, limit=1 << 40)


def test_a_file_of_holes_is_refused(archive: Path) -> None:
    archive.parent.mkdir()
    info = tarfile.TarInfo("sparse")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 0
    with gzip.open(archive, "wb") as packed:
        packed.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(InvalidInput, match="neither a regular file nor a folder"):
        unpack(archive)


def test_headers_upon_headers_are_refused(archive: Path) -> None:
    archive.parent.mkdir()
    record = b"11 path=ab\n"
    with gzip.open(archive, "wb") as packed:
        for _ in range(20_000):
            packed.write(_extended(tarfile.XHDTYPE, len(record)) + record.ljust(512, b"\0"))
    with pytest.raises(InvalidInput):
        unpack(archive)


def test_too_many_members_are_refused(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MEMBERS >= 10_000
    monkeypatch.setattr("vaka.datafolder.archives.MEMBERS", 20)
    make(archive, *(member(f"{n}") for n in range(20)))
    assert len(unpack(archive)) == 20
    make(archive, *(member(f"{n}") for n in range(21)))
    with pytest.raises(InvalidInput, match="more than 20"):
        unpack(archive)
    make(archive, member("/".join("d" * 11)), member("/".join("e" * 11)))
    with pytest.raises(InvalidInput, match="more than 20"):
        unpack(archive)


def damage(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return change


@pytest.mark.parametrize(
    "change",
    [
        damage(lambda data: b""),
        damage(lambda data: b"not an archive"),
        damage(lambda data: data[: len(data) // 2]),
        damage(lambda data: data[:-4]),
        damage(lambda data: data[:-8] + b"\0" * 8),
        damage(lambda data: gzip.compress(b"not a tar" * 100)),
        damage(lambda data: gzip.compress(gzip.decompress(data)[:700])),
    ],
    ids=range(7),
)
def test_a_damaged_archive_is_refused(archive: Path, change: Callable[[bytes], bytes]) -> None:
    make(archive, member("a", os.urandom(5_000)), member("b", os.urandom(5_000)))
    archive.write_bytes(change(archive.read_bytes()))
    with pytest.raises(InvalidInput, match=r"tar\.gz"):
        unpack(archive)
