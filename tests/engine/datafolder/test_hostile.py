"""A component leaves the worst there is. Nothing outside is read, changed or removed, nothing hangs."""

import os
import resource
import shutil
import stat
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.engine.datafolder.conftest import Canary

from vaka.datafolder import JobFolder
from vaka.datafolder.folder import MANIFEST_BYTES, STATE_BYTES
from vaka.errors import ApplicationError, InvalidInput, UserError


def _device(number: int) -> Callable[[Path], None]:
    return lambda path: os.mknod(path, stat.S_IFCHR | 0o666, number)


TRAPS: dict[str, Callable[[Path], Any]] = {
    "link to a file": lambda path: path.symlink_to("/etc/passwd"),
    "link to a folder": lambda path: path.symlink_to("/etc"),
    "link to a process": lambda path: path.symlink_to("/proc/self/environ"),
    "link up": lambda path: path.symlink_to("../.."),
    "dangling link": lambda path: path.symlink_to("/nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "pipe": os.mkfifo,
    "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o666),
}
if os.geteuid() == 0:
    TRAPS["endless device"] = _device(os.makedev(1, 5))
    TRAPS["blocking device"] = _device(os.makedev(5, 1))
    TRAPS["missing device"] = _device(os.makedev(240, 7))


@pytest.fixture(params=list(TRAPS))
def trap(request: pytest.FixtureRequest) -> Callable[[Path], Any]:
    """Makes something at a path that must never be opened."""
    return TRAPS[request.param]


@pytest.mark.parametrize("kind", ["tables", "files"])
def test_a_special_thing_among_the_outputs_is_named_and_refused(
    folder: JobFolder, trap: Callable[[Path], Any], kind: Any
) -> None:
    trap(folder.data / "out" / kind / "orders.csv")
    with pytest.raises(InvalidInput, match=f"/data/out/{kind}/orders.csv is a ") as caught:
        folder.sources(kind)
    assert caught.value.path == f"/data/out/{kind}/orders.csv"


@pytest.mark.parametrize("kind", ["tables", "files"])
def test_a_special_thing_as_manifest_is_refused(
    folder: JobFolder, trap: Callable[[Path], Any], kind: Any
) -> None:
    (folder.data / "out" / kind / "a").write_text("x")
    trap(folder.data / "out" / kind / "a.manifest")
    with pytest.raises(InvalidInput, match=f"/data/out/{kind}/a.manifest is a "):
        folder.sources(kind)


def test_a_special_thing_among_slices_is_refused(
    folder: JobFolder, trap: Callable[[Path], Any]
) -> None:
    sliced = folder.data / "out/tables/sliced"
    sliced.mkdir()
    trap(sliced / "part")
    (source,) = folder.sources("tables").entries
    with (
        pytest.raises(InvalidInput, match="/data/out/tables/sliced/part is a "),
        folder.opened("tables", source),
    ):
        pass


@pytest.mark.parametrize("read", ["read_state", "read_usage", "read_result"])
def test_a_special_thing_as_document_is_refused(
    folder: JobFolder, trap: Callable[[Path], Any], read: str
) -> None:
    trap(folder.data / "out/a.json")
    with pytest.raises(InvalidInput, match=r"/data/out/a\.json is a .* must be a regular file"):
        getattr(folder, read)("a.json")


def test_a_folder_as_document_is_refused_and_dropped(folder: JobFolder) -> None:
    (folder.data / "out/state.json/deep").mkdir(parents=True)
    with pytest.raises(InvalidInput, match=r"/data/out/state\.json is a folder"):
        folder.read_state("state.json")
    folder.drop_state()
    assert folder.read_state("state.json") is None


def test_a_special_thing_in_place_of_a_folder_is_refused_everywhere(
    folder: JobFolder, trap: Callable[[Path], Any]
) -> None:
    (folder.data / "out").rename(folder.data / "elsewhere")
    trap(folder.data / "out")
    for call in (
        lambda: folder.sources("tables"),
        lambda: folder.read_state("state.json"),
        folder.drop_state,
        lambda: folder.advance("0-1"),
    ):
        with pytest.raises(InvalidInput, match=r"/data/out is a .* must be a folder"):
            call()


def test_documents_are_written_over_special_things_not_through_them(
    folder: JobFolder, trap: Callable[[Path], Any]
) -> None:
    before = Path("/etc/passwd").stat()
    trap(folder.data / "config.json")
    trap(folder.data / "in/state.json")

    folder.write_config("{}", "config.json")
    folder.write_state("{}", "state.json")

    for name in ("config.json", "in/state.json"):
        assert stat.S_ISREG((folder.data / name).lstat().st_mode)
        assert (folder.data / name).read_text() == "{}"
    assert Path("/etc/passwd").stat() == before


def test_documents_are_written_over_folders(folder: JobFolder) -> None:
    (folder.data / "config.json/deep").mkdir(parents=True)
    folder.write_config("{}", "config.json")
    assert (folder.data / "config.json").read_text() == "{}"


def test_state_is_not_written_through_a_replaced_folder(folder: JobFolder, canary: Canary) -> None:
    (folder.data / "in").rename(folder.data / "elsewhere")
    (folder.data / "in").symlink_to(canary.root)
    with pytest.raises(InvalidInput, match="/data/in is a symbolic link"):
        folder.write_state("{}", "state.json")
    assert canary.is_untouched()


def test_special_things_are_removed_and_never_opened(
    folder: JobFolder, trap: Callable[[Path], Any]
) -> None:
    for place in ("in/tables/x", "out/x", "x"):
        trap(folder.data / place)
    trap(folder.tmp / "x")
    folder.advance("0-1")
    assert list(folder.tmp.iterdir()) == []
    folder.remove()
    assert not folder.root.exists()


def test_removing_does_not_follow_links(folder: JobFolder, canary: Canary) -> None:
    for place in ("data/in/a", "data/out/tables/b", "tmp/c", "engine/d"):
        (folder.root / place).symlink_to(canary.root)
    shutil.rmtree(folder.data / "in/tables")
    (folder.data / "in/tables").symlink_to(canary.root)
    folder.remove()
    assert not folder.root.exists()
    assert canary.is_untouched()


def test_giving_files_away_does_not_follow_links(
    folder: JobFolder, canary: Canary, owner: tuple[int, int]
) -> None:
    (folder.data / "out/tables/folder").symlink_to(canary.root)
    (folder.data / "out/tables/file").symlink_to(canary.root / "secret")
    (folder.data / "out/tables/locked").write_text("x")
    (folder.data / "out/tables/locked").chmod(0)
    (folder.tmp / "shut").mkdir(mode=0)

    folder.normalise_permissions(*owner)

    assert canary.is_untouched()
    assert (folder.data / "out/tables/locked").stat().st_mode & 0o777 == 0o600
    assert (folder.tmp / "shut").stat().st_mode & 0o777 == 0o700
    for path in (*folder.data.rglob("*"), *folder.tmp.rglob("*")):
        assert (path.lstat().st_uid, path.lstat().st_gid) == owner


def test_hard_links_are_files_like_others(folder: JobFolder) -> None:
    """A container cannot link across its mounts: both names are the component's own."""
    (folder.data / "in/tables/a").write_text("rows")
    (folder.data / "out/tables/a").hardlink_to(folder.data / "in/tables/a")
    (source,) = folder.sources("tables").entries
    with folder.opened("tables", source) as opened:
        assert opened.paths[0].read_text() == "rows"
    folder.remove()
    assert not folder.root.exists()


ODD_NAMES = [
    b"new\nline",
    b"\x1b[2Jclear",
    "\u202egpj.exe".encode(),
    b"n" * 255,
    "é".encode() * 127,
    b"* [0-9] {a,b} ?",
    b"-rf",
    b"'\"; DROP",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_taken_as_they_are(folder: JobFolder, name: bytes) -> None:
    path = os.fsencode(folder.data) + b"/out/files/" + name
    Path(os.fsdecode(path)).write_text("content")
    (source,) = folder.sources("files").entries
    assert os.fsencode(source.name) == name
    with folder.opened("files", source) as opened:
        assert opened.paths[0].read_text() == "content"
    folder.advance("0-1")
    folder.remove()
    assert not folder.root.exists()


def test_a_name_that_is_no_text_is_refused_in_writing(folder: JobFolder) -> None:
    Path(os.fsdecode(os.fsencode(folder.data) + b"/out/tables/\xff\n")).write_text("x")
    with pytest.raises(InvalidInput, match=r"/data/out/tables/\\xff\\u000a is not UTF-8"):
        folder.sources("tables")


def test_special_things_with_odd_names_cannot_forge_a_message(folder: JobFolder) -> None:
    (folder.data / "out/tables/a\nAll went well").symlink_to("x")
    with pytest.raises(InvalidInput) as caught:
        folder.sources("tables")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", ["out/state.json", "out/tables/a.csv.manifest"])
def test_a_file_of_ten_terabytes_is_not_read(folder: JobFolder, name: str) -> None:
    with (folder.data / name).open("wb") as file:
        file.truncate(10 << 40)
    limit = STATE_BYTES if name.endswith("json") else MANIFEST_BYTES
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match=f"/data/{name} has more than {limit} bytes"):
            folder.read_state("state.json") if "state" in name else folder.sources("tables")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_manifests_are_limited_together(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaka.datafolder.folder.MANIFESTS_BYTES", 100)
    for name in ("a", "b"):
        (folder.data / f"out/tables/{name}.manifest").write_bytes(b" " * 50)
    assert len(folder.sources("tables").orphans) == 2
    (folder.data / "out/tables/c.manifest").write_bytes(b" ")
    with pytest.raises(InvalidInput, match="more than 100 bytes together"):
        folder.sources("tables")


def test_data_made_of_holes_are_refused(folder: JobFolder) -> None:
    with (folder.data / "out/tables/a").open("wb") as file:
        file.write(b"id\n")
        file.truncate(10 << 40)
        file.seek(5 << 40)
        file.write(b"1\n")
    (source,) = folder.sources("tables").entries
    with (
        pytest.raises(InvalidInput, match="claims 10995116277760 bytes"),
        folder.opened("tables", source),
    ):
        pass


def test_a_small_hole_is_nothing_to_worry_about(folder: JobFolder) -> None:
    with (folder.data / "out/files/a").open("wb") as file:
        file.truncate(1 << 20)
    (source,) = folder.sources("files").entries
    with folder.opened("files", source) as opened:
        assert opened.size == 1 << 20
        assert len(opened.paths[0].read_bytes()) == 1 << 20


def _dig(start: Path, depth: int) -> None:
    """A chain of folders that is too deep to be named by a path."""
    descriptor = os.open(start, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=descriptor)
        deeper = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = deeper
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.symlink("/etc", "link", dir_fd=descriptor)
    os.close(descriptor)


@contextmanager
def _few_descriptors(limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_tree_deeper_than_any_path_is_removed_with_few_descriptors(folder: JobFolder) -> None:
    for place in ("in", "out/tables"):
        _dig(folder.data / place, 3_000)
    _dig(folder.tmp, 3_000)
    with _few_descriptors(300):
        folder.advance("0-1")
        assert list(folder.tmp.iterdir()) == []
        folder.remove()
    assert not folder.root.exists()


def test_a_tree_too_deep_to_be_given_away_is_refused(
    folder: JobFolder, owner: tuple[int, int]
) -> None:
    _dig(folder.data / "out", 150)
    with pytest.raises(InvalidInput, match="/data holds folders nested deeper than 100"):
        folder.normalise_permissions(*owner)


def test_a_tree_of_many_entries_is_removed_in_little_memory(folder: JobFolder) -> None:
    for number in range(4_000):
        (folder.data / f"in/user/a rather long name of a file {number:060}").touch()
    tracemalloc.start()
    try:
        folder.remove()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert not folder.root.exists()
    assert peak < 100_000


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of an ordinary user, and the test being that user."""
    # not below pytest's own temporary folder, which is closed to other users
    root = Path(tempfile.mkdtemp(dir="/tmp"))
    user = os.geteuid()
    if user == 0:
        os.chown(root, 1000, 1000)
        os.setegid(1000)
        os.seteuid(1000)
    try:
        yield root
    finally:
        if user == 0:
            os.seteuid(0)
            os.setegid(0)
        shutil.rmtree(root)


def test_a_service_that_cannot_give_folders_away_says_so(unprivileged: Path) -> None:
    folder = JobFolder(unprivileged / "job", owner=(12345, 12345))
    with pytest.raises(ApplicationError, match=r"/tmp cannot be given to .*container_user"):
        folder.create()


def _shut(path: Path) -> None:
    for each in sorted(path.rglob("*"), reverse=True):
        each.chmod(0)
    path.chmod(0)


def test_folders_shut_by_their_owner_are_used_and_removed(unprivileged: Path) -> None:
    """Engine and containers are the same ordinary user."""
    folder = JobFolder(unprivileged / "job", owner=(os.geteuid(), os.getegid()))
    folder.create()
    (folder.data / "in/user/deep/er").mkdir(parents=True)
    (folder.data / "out/tables/a").write_text("rows")
    (folder.data / "out/state.json").write_text("{}")
    (folder.tmp / "x").mkdir()
    _shut(folder.data)
    _shut(folder.tmp)

    folder.drop_state()
    folder.advance("0-1")

    assert not (folder.data / "in/state.json").exists()
    assert (folder.data / "in/tables/a").exists()
    assert list(folder.tmp.iterdir()) == []
    _shut(folder.data)
    folder.write_config("{}", "config.json")
    _shut(folder.data)
    folder.remove()
    assert not folder.root.exists()


def test_a_file_that_the_engine_may_not_read_is_the_authors_error(unprivileged: Path) -> None:
    folder = JobFolder(unprivileged / "job", owner=(os.geteuid(), os.getegid()))
    folder.create()
    table = folder.data / "out/tables/a"
    table.write_text("rows")
    table.chmod(0)
    (source,) = folder.sources("tables").entries
    with (
        pytest.raises(UserError, match="/data/out/tables/a: Permission denied"),
        folder.opened("tables", source),
    ):
        pass

    folder.normalise_permissions(os.geteuid(), os.getegid())

    with folder.opened("tables", source) as opened:
        assert opened.paths[0].read_text() == "rows"


# -- swapping things while they are looked at ------------------------------------------------------

CALLS = ("open", "stat", "scandir", "rename", "unlink", "rmdir", "mkdir", "chown", "fchown")
"""Functions of `os` before each of which a component may act."""


class Swapper:
    """Acts once, right before call number `moment` to the operating system."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, moment: int, act: Callable[[], None]
    ) -> None:
        self.calls = 0
        self._moment = moment
        self._act = act
        self._busy = False
        for name in CALLS:
            monkeypatch.setattr(os, name, self._wrapped(getattr(os, name)))

    def _wrapped(self, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not self._busy:
                self.calls += 1
                if self.calls == self._moment:
                    self._busy = True
                    with suppress(OSError):
                        self._act()
                    self._busy = False
            return function(*args, **kwargs)

        return call


def _read_all(folder: JobFolder) -> list[str]:
    read: list[str] = []
    for kind in ("tables", "files"):
        for source in folder.sources(kind).entries:
            read.append((source.manifest or b"").decode())
            with folder.opened(kind, source) as opened:
                read += [path.read_text() for path in opened.paths]
    for name in ("state.json", "usage.json"):
        read.append((folder.read_state(name) or b"").decode())
    return read


def _write_all(folder: JobFolder) -> list[str]:
    folder.write_config("{}", "config.json")
    folder.write_state("{}", "state.json")
    folder.incoming("x").write_text("x")
    folder.place(folder.engine / "incoming-x", "tables", "sub/tables")
    folder.write_manifest("tables", "sub/tables", "{}")
    return []


def _give_away(folder: JobFolder) -> list[str]:
    folder.normalise_permissions(os.geteuid(), os.getegid())
    return []


def _advance_twice(folder: JobFolder) -> list[str]:
    folder.advance("0-1")
    return _read_all(folder)


def _remove(folder: JobFolder) -> list[str]:
    folder.remove()
    return []


SWAPS = {
    _read_all: (
        *("out", "out/tables", "out/tables/sliced", "out/tables/sliced/secret"),
        *("out/tables/secret", "out/tables/secret.manifest", "out/state.json"),
    ),
    _write_all: ("in", "in/tables", "in/tables/sub"),
    _advance_twice: ("in", "out", "out/tables", "out/state.json"),
    _give_away: ("out", "out/tables/sliced", "out/tables/secret"),
    _remove: ("in", "out/tables", "out/tables/sliced/secret"),
}
"""What is done, and the things that are worth swapping meanwhile."""


def _fill(folder: JobFolder) -> None:
    folder.create()
    (folder.data / "out/tables/sliced").mkdir()
    (folder.data / "in/tables/sub").mkdir()
    for name in (
        *("out/tables/secret", "out/tables/secret.manifest", "out/tables/sliced/secret"),
        *("out/state.json", "out/files/f", "in/tables/sub/secret"),
    ):
        (folder.data / name).write_text("mine")


@pytest.mark.parametrize(
    ("work", "victim"),
    [
        pytest.param(work, victim, id=f"{work.__name__}-{victim}")
        for work, victims in SWAPS.items()
        for victim in victims
    ],
)
def test_a_swap_at_any_moment_reaches_nothing_outside(
    folder: JobFolder,
    canary: Canary,
    monkeypatch: pytest.MonkeyPatch,
    work: Callable[[JobFolder], list[str]],
    victim: str,
) -> None:
    """Between any two system calls a thing becomes a link to the canary's thing of that name."""
    target = canary.root / victim.rpartition("/")[2].removesuffix(".manifest")
    if not target.exists():
        target = canary.root
    aside = folder.data / "aside"

    def swap() -> None:
        path = folder.data / victim
        path.rename(aside)
        path.symlink_to(target)

    def disturbed(moment: int) -> int:
        _fill(folder)
        with monkeypatch.context() as patch:
            swapper = Swapper(patch, moment, swap)
            with suppress(UserError, FileNotFoundError, NotADirectoryError):
                assert canary.secret not in work(folder)
        assert canary.is_untouched(), f"swapped before call {moment}"
        return swapper.calls

    calls = disturbed(0)
    assert calls > 10
    for moment in range(1, calls + 1):
        disturbed(moment)


def test_a_real_race_reaches_nothing_outside(folder: JobFolder, canary: Canary) -> None:
    """The same with a thread that knows no moments, only haste."""
    tables = folder.data / "out/tables"
    (tables / "a").write_text("mine")
    done = threading.Event()

    def flip() -> None:
        while not done.is_set():
            (tables / "link").symlink_to(canary.root / "secret")
            (tables / "link").rename(tables / "a")
            (tables / "file").write_text("mine")
            (tables / "file").rename(tables / "a")

    thread = threading.Thread(target=flip)
    thread.start()
    read: set[str] = set()
    try:
        for _ in range(300):
            with suppress(UserError, FileNotFoundError):
                for source in folder.sources("tables").entries:
                    with folder.opened("tables", source) as opened:
                        read.update(path.read_text() for path in opened.paths)
    finally:
        done.set()
        thread.join()
    assert read <= {"mine", ""}
    assert canary.is_untouched()
