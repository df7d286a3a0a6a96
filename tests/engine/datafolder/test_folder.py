import os
import shutil
import stat
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from vaka.datafolder import JobFolder, printable, split_name
from vaka.datafolder.folder import ENTRIES
from vaka.errors import InvalidInput

Tree = Callable[[Path], dict[str, str | None]]
EMPTY = dict.fromkeys(["in", "in/files", "in/tables", "in/user", "out", "out/files", "out/tables"])


@pytest.mark.scenario("mapping", 46)
def test_a_new_folder_has_the_layout_that_every_container_finds(
    folder: JobFolder, tree: Tree
) -> None:
    assert tree(folder.data) == EMPTY
    assert tree(folder.tmp) == {}


def test_what_containers_may_write_to_is_theirs_and_the_rest_is_ours(
    folder: JobFolder, owner: tuple[int, int]
) -> None:
    for path in (folder.data, folder.tmp, *folder.data.rglob("*")):
        assert (path.stat().st_uid, path.stat().st_gid) == owner
    for path in (folder.root, folder.engine):
        assert path.stat().st_uid == os.geteuid()
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.tmp.stat().st_mode) == 0o1777


def test_creating_a_folder_again_empties_it(folder: JobFolder, tree: Tree) -> None:
    (folder.data / "in/tables/left").write_text("over")
    folder.incoming("x").write_text("half")

    folder.create()

    assert tree(folder.data) == EMPTY
    assert tree(folder.engine) == {}


def test_modes_do_not_depend_on_the_umask(tmp_path: Path, owner: tuple[int, int]) -> None:
    before = os.umask(0o077)
    try:
        folder = JobFolder(tmp_path / "job", owner=owner)
        folder.create()
        folder.write_config("{}", "config.json")
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder.data / "in").stat().st_mode) == 0o755
    assert stat.S_IMODE((folder.data / "config.json").stat().st_mode) == 0o644


def test_a_configuration_file_replaces_what_has_its_name(
    folder: JobFolder, owner: tuple[int, int]
) -> None:
    folder.write_config('{"a": 1}', "config.json")
    folder.write_config(b'{"b": 2}', "config.json")

    config = folder.data / "config.json"
    assert config.read_text() == '{"b": 2}'
    assert config.stat().st_uid == owner[0]
    assert list(folder.engine.iterdir()) == []


def test_state_goes_in_and_comes_out(folder: JobFolder) -> None:
    folder.write_state("{}", "state.json")
    assert (folder.data / "in/state.json").read_text() == "{}"
    assert folder.read_state("state.json") is None

    (folder.data / "out/state.json").write_text('{"a": 1}')
    (folder.data / "out/state.yml").write_text("a: 1")
    assert folder.read_state("state.json") == b'{"a": 1}'

    folder.drop_state()
    assert folder.read_state("state.json") is None
    assert folder.read_state("state.yml") is None


def test_documents_are_read_up_to_their_limit(folder: JobFolder) -> None:
    (folder.data / "out/state.json").write_bytes(b"x" * 100)
    assert folder.read_state("state.json", limit=100) == b"x" * 100
    with pytest.raises(InvalidInput, match=r"/data/out/state\.json has more than 99 bytes"):
        folder.read_state("state.json", limit=99)

    (folder.data / "out/usage.json").write_text("[]")
    (folder.data / "out/result.yml").write_text("a: 1")
    assert folder.read_usage() == b"[]"
    assert folder.read_result("result.yml") == b"a: 1"
    assert folder.read_result() is None


def test_documents_of_a_component_that_removed_out_are_missing(folder: JobFolder) -> None:
    (folder.data / "out/tables").rmdir()
    (folder.data / "out/files").rmdir()
    (folder.data / "out").rmdir()
    assert folder.read_state("state.json") is None
    folder.drop_state()
    assert folder.sources("tables").entries == ()


def test_inputs_are_placed_under_their_names(
    folder: JobFolder, tree: Tree, owner: tuple[int, int]
) -> None:
    table = folder.incoming("a")
    table.write_text("rows")
    folder.place(table, "tables", "sub/orders.csv")
    folder.write_manifest("tables", "sub/orders.csv", "{}")
    sliced = folder.incoming("b")
    sliced.mkdir()
    (sliced / "part").write_text("slice")
    folder.place(sliced, "files", "12_sliced")

    assert tree(folder.data / "in") == {
        "files": None,
        "files/12_sliced": None,
        "files/12_sliced/part": "slice",
        "tables": None,
        "tables/sub": None,
        "tables/sub/orders.csv": "rows",
        "tables/sub/orders.csv.manifest": "{}",
        "user": None,
    }
    for path in (folder.data / "in").rglob("*"):
        assert path.stat().st_uid == owner[0]
        assert path.stat().st_mode & 0o600 == 0o600


@pytest.mark.parametrize("first_is_folder", [True, False])
@pytest.mark.parametrize("second_is_folder", [True, False])
def test_an_input_replaces_what_has_its_name(
    folder: JobFolder, *, first_is_folder: bool, second_is_folder: bool
) -> None:
    for name, is_folder in (("first", first_is_folder), ("second", second_is_folder)):
        incoming = folder.incoming(name)
        if is_folder:
            incoming.mkdir()
            (incoming / name).write_text(name)
        else:
            incoming.write_text(name)
        folder.place(incoming, "files", "x")
    placed = folder.data / "in/files/x"
    if second_is_folder:
        assert [each.name for each in placed.iterdir()] == ["second"]
    else:
        assert placed.read_text() == "second"


def test_a_name_cannot_go_through_a_file(folder: JobFolder) -> None:
    folder.incoming("a").write_text("rows")
    folder.place(folder.engine / "incoming-a", "tables", "x")
    folder.incoming("b").write_text("rows")
    with pytest.raises(InvalidInput, match="/data/in/tables/x is a file, and must be a folder"):
        folder.place(folder.engine / "incoming-b", "tables", "x/y")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "..",
        "a/../b",
        "a/..",
        "./a",
        "a//b",
        "a/",
        "a\nb",
        "a\0b",
        "\x7f",
        "\udcff",
    ],
)
def test_names_that_leave_the_folder_or_break_lines_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        split_name(name)


def test_a_name_leaves_room_for_its_manifest(folder: JobFolder) -> None:
    assert split_name("é" * 123) == ("é" * 123,)
    with pytest.raises(InvalidInput, match="At most 246"):
        split_name("é" * 123 + "e")
    folder.incoming("x").write_text("")
    folder.place(folder.engine / "incoming-x", "tables", "n" * 246)
    folder.write_manifest("tables", "n" * 246, "{}")


def test_sources_are_what_lies_in_the_first_level(folder: JobFolder) -> None:
    tables = folder.data / "out/tables"
    (tables / "b.csv").write_text("b")
    (tables / "b.csv.manifest").write_text('{"b": 1}')
    (tables / "a").mkdir()
    (tables / "a.manifest").write_text("{}")
    (tables / "gone.csv.manifest").write_text("{}")
    (tables / ".hidden").write_text("h")
    (tables / ".hidden.manifest").write_text("{}")

    found = folder.sources("tables")

    assert [(each.name, each.is_folder, each.manifest) for each in found.entries] == [
        ("a", True, b"{}"),
        ("b.csv", False, b'{"b": 1}'),
    ]
    assert found.orphans == ("gone.csv.manifest",)


def test_a_folder_among_files_is_none_and_orphans_its_manifest(folder: JobFolder) -> None:
    files = folder.data / "out/files"
    (files / "folder").mkdir()
    (files / "folder.manifest").write_text("{}")
    (files / "file").write_text("f")

    found = folder.sources("files")

    assert [each.name for each in found.entries] == ["file"]
    assert found.orphans == ("folder.manifest",)


def test_a_source_is_held_open_while_its_name_is_gone(folder: JobFolder) -> None:
    path = folder.data / "out/tables/a.csv"
    path.write_text("rows")
    (source,) = folder.sources("tables").entries

    with folder.opened("tables", source) as opened:
        path.unlink()
        assert [each.read_text() for each in opened.paths] == ["rows"]
        assert opened.size == 4
    assert not opened.paths[0].exists()


@pytest.mark.scenario("mapping", 200)
def test_slices_are_the_regular_files_of_the_first_level_in_order(folder: JobFolder) -> None:
    sliced = folder.data / "out/tables/sliced"
    (sliced / "deeper").mkdir(parents=True)
    (sliced / "deeper/part3").write_text("3")
    (sliced / "part2").write_text("22")
    (sliced / "part1.manifest").write_text("1")
    (sliced / ".part2.crc").write_text("no")
    (source,) = folder.sources("tables").entries

    with folder.opened("tables", source) as opened:
        assert [each.read_text() for each in opened.paths] == ["1", "22"]
        assert opened.size == 3


def test_a_source_that_vanished_is_said_to_be_gone(folder: JobFolder) -> None:
    (folder.data / "out/tables/a").write_text("")
    (source,) = folder.sources("tables").entries
    (folder.data / "out/tables/a").unlink()
    with (
        pytest.raises(InvalidInput, match="/data/out/tables/a is not there any more"),
        folder.opened("tables", source),
    ):
        pass


def test_a_source_that_vanishes_while_it_is_listed_is_said_to_be_gone(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (folder.data / "out/files" / name).write_text(name)
    real = os.scandir

    def removing(descriptor: int) -> object:
        entries = list(real(descriptor))
        (folder.data / "out/files/b").unlink()
        return nullcontext(entries)

    monkeypatch.setattr(os, "scandir", removing)
    with pytest.raises(InvalidInput, match="/data/out/files/b is not there any more"):
        folder.sources("files")


@pytest.mark.parametrize("name", ["data", "data/in", "data/in/files"])
def test_a_folder_that_somebody_takes_away_is_said_to_be_gone(folder: JobFolder, name: str) -> None:
    def writes() -> None:
        folder.incoming("a").write_text("a")
        if name == "data":
            folder.write_config("{}", "config.json")
        elif name == "data/in":
            folder.write_state("{}", "state.json")
        else:
            folder.place(folder.engine / "incoming-a", "files", "a")

    writes()
    shutil.rmtree(folder.root / name)
    with pytest.raises(InvalidInput, match=f"^/{name} is not there any more"):
        writes()


def test_opening_a_source_leaves_no_descriptor(folder: JobFolder) -> None:
    sliced = folder.data / "out/tables/sliced"
    sliced.mkdir()
    for number in range(20):
        (sliced / str(number)).write_text("x")
    (sliced / "z").symlink_to("0")
    (source,) = folder.sources("tables").entries
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(InvalidInput, match="symbolic link"), folder.opened("tables", source):
        pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_more_entries_than_anyone_needs_are_refused(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ENTRIES == 100_000
    monkeypatch.setattr("vaka.datafolder.folder.ENTRIES", 3)
    tables = folder.data / "out/tables"
    for name in ("a", "b", "c"):
        (tables / name).write_text("")
    assert len(folder.sources("tables").entries) == 3
    (tables / "d").mkdir()
    with pytest.raises(InvalidInput, match="/data/out/tables has more than 3 entries"):
        folder.sources("tables")


def test_removing_a_folder_leaves_nothing_and_may_be_repeated(folder: JobFolder) -> None:
    folder.remove()
    assert not folder.root.exists()
    folder.remove()
    JobFolder(folder.root / "in/no/folder", owner=None).remove()


def test_names_are_shown_without_what_would_fool_a_reader() -> None:
    assert printable("řádek.csv") == "řádek.csv"
    assert printable("a\nb\x1b[31m") == "a\\u000ab\\u001b[31m"
    assert printable("\u202egpj.exe\u2066") == "\\u202egpj.exe\\u2066"
    assert printable(os.fsdecode(b"\xff\xfe.csv")) == "\\xff\\xfe.csv"
    assert printable("\U000e0041") == "\\U000e0041"
    assert printable("x" * 500) == "x" * 200 + "…"
