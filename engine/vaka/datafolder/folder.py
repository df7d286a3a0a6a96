"""The folder of one job: what is mounted into its containers, and the engine's own area beside it.

```
<root>/                 0700, ours
    data/               mounted at /data
        config.json     in/{tables,files,user}/     out/{tables,files}/
    tmp/                mounted at /tmp
    engine/             never mounted: temporary files, and how far a move got
```

Below `data` and `tmp` everything may be a component's work, down to the names of the folders above.
Only `root` and `engine` are used by path. All methods block, and are meant for a worker thread.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import secrets
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vaka.datafolder._descriptors import (
    check_not_hollow,
    closing,
    empty,
    gone,
    make_folder,
    mode_of,
    move,
    open_file,
    open_folder,
    own,
    path_of,
    printable,
    read_file,
    refused,
    remove,
)
from vaka.datafolder.archives import bounded_entries, write_tar
from vaka.errors import ApplicationError, InvalidInput

__all__ = ["JobFolder", "Kind", "OpenSource", "Source", "Sources", "printable", "split_name"]

Kind = Literal["tables", "files"]
MANIFEST = ".manifest"

STATE_BYTES = 16 << 20
USAGE_BYTES = 1 << 20
RESULT_BYTES = 1 << 20
MANIFEST_BYTES = 16 << 20
MANIFESTS_BYTES = 32 << 20
"""All manifests of one folder together: they are in memory at the same time."""
ENTRIES = 100_000
"""Files and folders in one folder of outputs."""

_STATE_FILES = ("state.json", "state.yml")
_FOLDER_MODE = 0o755
_FILE_MODE = 0o644
_SCRATCH_MODE = 0o1777
_NAME_BYTES = 255
_STEP = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Source:
    """One thing that a component left to be stored."""

    name: str
    is_folder: bool
    """A sliced table; its regular files are the slices."""
    manifest: bytes | None
    """Content of `<name>.manifest`."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What is directly inside `out/tables` or `out/files`, sorted by name; hidden files left out."""

    entries: tuple[Source, ...]
    orphans: tuple[str, ...]
    """Names of manifests that nothing belongs to."""


@dataclass(frozen=True, slots=True)
class OpenSource:
    """Checked, and held open so that it stays what was checked."""

    paths: tuple[Path, ...]
    """One file or the slices sorted by name. They lead to the descriptors, so they end in numbers and
    work in this process only."""
    size: int
    """Bytes."""


def split_name(name: str) -> tuple[str, ...]:
    """The parts of a relative name of a file, checked to stay in the folder they are used in.

    Raises:
        InvalidInput: it is absolute, climbs up, is empty, has control characters, or is too long.
    """
    parts = tuple(name.split("/"))
    shown = printable(name)
    if any(part in {"", ".", ".."} for part in parts):
        raise InvalidInput(
            f'"{shown}" is no name for a file in the data folder. '
            'Use a relative name without "." and ".." as parts.'
        )
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in name):
        raise InvalidInput(f'The file name "{shown}" has control characters. Remove them.')
    longest = max(len(part.encode()) for part in parts)
    if longest > _NAME_BYTES - len(MANIFEST):
        raise InvalidInput(
            f'The file name "{shown}" has {longest} bytes, and a manifest beside it. '
            f"At most {_NAME_BYTES - len(MANIFEST)} are possible."
        )
    return parts


class JobFolder:
    """The folder `root` of a job, there or not.

    What the engine makes in `data` and `tmp` belongs to `owner`, the numeric user and group of the
    containers; None leaves it the engine's own.
    """

    def __init__(self, root: Path, *, owner: tuple[int, int] | None) -> None:
        self.root = root
        self._owner = owner

    def part(self, name: str) -> JobFolder:
        """A folder of its own inside this one, for what runs beside others; removed with this one."""
        return JobFolder(self.root / name, owner=self._owner)

    @property
    def data(self) -> Path:
        """What is mounted at /data. For mounting only: nothing below it may be used by path."""
        return self.root / "data"

    @property
    def tmp(self) -> Path:
        """What is mounted at /tmp. For mounting only."""
        return self.root / "tmp"

    @property
    def engine(self) -> Path:
        """The engine's own area, on the same file system. Safe to use by path."""
        return self.root / "engine"

    # -- life ------------------------------------------------------------------------------------

    def create(self) -> None:
        """Make the empty layout; whatever was there is removed first. Safe to repeat."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._root() as root:
            os.fchmod(root, 0o700)
            empty(root)
            os.mkdir("engine", 0o700, dir_fd=root)
            self._make(root, "tmp", "/tmp", _SCRATCH_MODE)  # noqa: S108 - as containers call it
            with closing(self._open_made(root, "data", "/data")) as data:
                for name, children in (
                    ("in", ("tables", "files", "user")),
                    ("out", ("tables", "files")),
                ):
                    with closing(self._open_made(data, name, f"/data/{name}")) as folder:
                        for child in children:
                            self._make(folder, child, f"/data/{name}/{child}")

    def remove(self) -> None:
        """Remove the folder with everything in it; nothing when it is not there."""
        with (
            suppress(FileNotFoundError),
            closing(os.open(self.root.parent, os.O_RDONLY | os.O_DIRECTORY)) as parent,
        ):
            remove(parent, self.root.name)

    def advance(self, step: str) -> None:
        """Turn what a container left in `out` into the `in` of the next one.

        `step` names the move: called again with the same name, it goes on where it was interrupted,
        and does nothing once it was completed, even if a container has changed the folder since.

        Raises:
            InvalidInput: the component replaced a folder of the layout by something else, or something
                of it lives on and takes folders away.

        Source: mapping.md section 2.9.
        """
        if not _STEP.fullmatch(step):
            raise ValueError(f"a step is named by letters, digits, '.', '_' and '-', not {step!r}")
        moved, done = f"moved-{step}", f"advanced-{step}"
        with self._root() as root, self._engine() as engine:
            if mode_of(engine, done) is None:
                try:
                    self._advance(root, engine, moved)
                except FileNotFoundError as error:
                    raise gone(f"/data/{error.filename}") from error
                os.mkdir(done, 0o700, dir_fd=engine)
            remove(engine, moved)

    def _advance(self, root: int, engine: int, moved: str) -> None:
        with closing(self._open_made(root, "data", "/data")) as data:
            if mode_of(engine, moved) is None:
                try:
                    move("in", data, moved, engine)  # moves it away and notes that, in one step
                except FileNotFoundError:
                    os.mkdir(moved, 0o700, dir_fd=engine)
            # from here on, whatever is called `in` is the former `out`
            if mode_of(data, "in") is None:
                self._move_out(data)
            with closing(self._open_made(data, "in", "/data/in")) as folder:
                for child in ("tables", "files", "user"):
                    self._make(folder, child, f"/data/in/{child}")
            with closing(self._open_made(data, "out", "/data/out")) as folder:
                for child in ("tables", "files"):
                    self._make(folder, child, f"/data/out/{child}")
        with closing(self._open_made(root, "tmp", "/tmp", _SCRATCH_MODE)) as tmp:  # noqa: S108
            empty(tmp)

    def _move_out(self, data: int) -> None:
        try:
            folder = open_folder(data, "out", "/data/out")
        except FileNotFoundError:
            self._make(data, "in", "/data/in")
            return
        with closing(folder):
            for name in _STATE_FILES:
                remove(folder, name)
        move("out", data, "in", data)

    def normalise_permissions(self, user: int, group: int) -> None:
        """Give everything in `data` and `tmp` to this user, readable and writable to them.

        For images that ran as root. Needs root, or a folder that holds nothing of anybody else.
        """
        with self._root() as root:
            for name, shown in (("data", "/data"), ("tmp", "/tmp")):  # noqa: S108
                own(root, name, shown, (user, group))

    # -- documents -------------------------------------------------------------------------------

    def write_config(self, document: bytes | str, name: str) -> None:
        """Put the configuration file `name` into /data, in place of whatever has that name."""
        with self._folder(is_needed=True) as data:
            self._put(data, name, document)

    def write_state(self, document: bytes | str, name: str) -> None:
        """Put the state file `name` into /data/in."""
        with self._folder("in", is_needed=True) as folder:
            self._put(folder, name, document)

    def read_state(self, name: str, *, limit: int = STATE_BYTES) -> bytes | None:
        """Content of the component's new state, /data/out/`name`; None when there is none.

        Raises:
            InvalidInput: it is no regular file, or larger than `limit`.
        """
        return self._read_out(name, limit)

    def drop_state(self) -> None:
        """Remove the component's state files from /data/out."""
        try:
            with self._folder("out") as folder:
                for name in _STATE_FILES:
                    remove(folder, name)
        except FileNotFoundError:
            return

    def read_usage(self, name: str = "usage.json", *, limit: int = USAGE_BYTES) -> bytes | None:
        """Content of the usage file, as `read_state`."""
        return self._read_out(name, limit)

    def read_result(self, name: str = "result.json", *, limit: int = RESULT_BYTES) -> bytes | None:
        """Content of the file with the job's variables, as `read_state`."""
        return self._read_out(name, limit)

    def _read_out(self, name: str, limit: int) -> bytes | None:
        shown = f"/data/out/{name}"
        try:
            with (
                self._folder("out") as folder,
                closing(open_file(folder, name, shown)) as descriptor,
            ):
                return read_file(descriptor, limit, shown)
        except FileNotFoundError:
            return None

    # -- inputs ----------------------------------------------------------------------------------

    def incoming(self, name: str) -> Path:
        """A path in the engine's area for what is to be placed later; nothing is there."""
        with self._engine() as engine:
            remove(engine, f"incoming-{name}")
        return self.engine / f"incoming-{name}"

    def place(self, incoming: Path, kind: Kind, name: str) -> None:
        """Move a file or folder from the engine's area to /data/in/`kind`/`name`.

        Folders that `name` goes through are made; what has the name already is replaced.

        Raises:
            InvalidInput: `name` leaves the folder, or goes through a file.
        """
        self._place(incoming, kind, split_name(name))

    def write_manifest(self, kind: Kind, name: str, document: bytes | str) -> None:
        """Write the manifest of what was placed as `name`, beside it; see `place`."""
        *folders, last = split_name(name)
        incoming = self.incoming(secrets.token_hex(8))
        incoming.write_bytes(_encoded(document))
        self._place(incoming, kind, (*folders, last + MANIFEST))

    def place_artifacts(self, incoming: Path, kind: str) -> None:
        """Move a folder from the engine's area to /data/artifacts/in/`kind`, in place of any there.

        Raises:
            InvalidInput: the component replaced a folder on the way by something else.
        """
        with (
            self._folder(is_needed=True) as data,
            closing(self._open_made(data, "artifacts", "/data/artifacts")) as artifacts,
            closing(self._open_made(artifacts, "in", "/data/artifacts/in")) as folder,
            self._engine() as engine,
        ):
            if self._owner is not None:
                own(engine, incoming.name, f"/data/artifacts/in/{kind}", self._owner)
            _replace(engine, incoming.name, folder, kind)

    def _place(self, incoming: Path, kind: Kind, parts: tuple[str, ...]) -> None:
        *folders, last = parts
        with ExitStack() as stack:
            folder = stack.enter_context(self._folder("in", kind, is_needed=True))
            shown = f"/data/in/{kind}"
            for each in folders:
                shown += f"/{printable(each)}"
                folder = stack.enter_context(closing(self._open_made(folder, each, shown)))
            engine = stack.enter_context(self._engine())
            if self._owner is not None:
                own(engine, incoming.name, f"{shown}/{printable(last)}", self._owner)
            _replace(engine, incoming.name, folder, last)

    # -- outputs ---------------------------------------------------------------------------------

    def sources(self, kind: Kind) -> Sources:
        """What there is to be stored, with the manifests.

        In `files` folders are left out, so that a manifest beside one is an orphan.

        Raises:
            InvalidInput: there is a link or a special file, a name that is not UTF-8, a manifest that
                is too large, or too much of anything.
        """
        base = f"/data/out/{kind}"
        found: dict[str, bool] = {}
        manifests: dict[str, bytes] = {}
        budget = MANIFESTS_BYTES
        with ExitStack() as stack:
            try:
                folder = stack.enter_context(self._folder("out", kind))
            except FileNotFoundError:
                return Sources((), ())
            for entry in stack.enter_context(os.scandir(folder)):
                name = entry.name
                if name.startswith("."):
                    continue
                shown = f"{base}/{printable(name)}"
                _check_text(name, shown)
                if len(found) + len(manifests) >= ENTRIES:
                    raise InvalidInput(
                        f"{base} has more than {ENTRIES} entries. Write fewer, larger files.",
                        path=base,
                    )
                try:
                    if not name.endswith(MANIFEST):
                        found[name] = _is_folder(folder, name, shown)
                        continue
                    with closing(open_file(folder, name, shown)) as descriptor:
                        content = read_file(descriptor, MANIFEST_BYTES, shown)
                except FileNotFoundError as error:
                    raise gone(shown) from error
                budget -= len(content)
                if budget < 0:
                    raise InvalidInput(
                        f"The manifests in {base} have more than {MANIFESTS_BYTES} bytes together.",
                        path=base,
                    )
                manifests[name.removesuffix(MANIFEST)] = content
        if kind == "files":
            found = {name: is_folder for name, is_folder in found.items() if not is_folder}
        return Sources(
            tuple(
                Source(name, is_folder, manifests.get(name))
                for name, is_folder in sorted(found.items())
            ),
            tuple(name + MANIFEST for name in sorted(manifests.keys() - found.keys())),
        )

    def has_artifacts(self) -> bool:
        """Whether there is anything called /data/artifacts."""
        with self._folder(is_needed=True) as data:
            return mode_of(data, "artifacts") is not None

    def pack_artifacts(self, kind: str, target: Path, *, limit: int) -> tuple[int, list[str]]:
        """Write what a component left in /data/artifacts/out/`kind` to the new tar.gz file `target`.

        Returns how many files that were, and the paths that were left out. Nothing is written when there
        is no such folder.

        Raises:
            InvalidInput: there are more than `limit` bytes, or too much else, or no folder of that name
                but something else.
        """
        try:
            with self._folder("artifacts", "out", kind) as folder:
                return write_tar(folder, target, limit=limit)
        except FileNotFoundError:
            return 0, []

    def artifacts(self, kind: str, *, limit: int) -> tuple[list[str], list[str]]:
        """Relative paths of the files in /data/artifacts/out/`kind`, and of what is none.

        Raises:
            InvalidInput: as `pack_artifacts`.
        """
        left_out: list[str] = []
        found: list[str] = []
        try:
            with self._folder("artifacts", "out", kind) as folder:
                for path, _, entry in bounded_entries(folder, left_out, limit):
                    if entry is not None:
                        os.close(entry)
                        found.append(path)
        except FileNotFoundError:
            return [], []
        return found, left_out

    @contextmanager
    def opened_artifact(self, kind: str, path: str) -> Iterator[Path]:
        """A path to the data of one of `artifacts`, which stays what was checked until the block ends.

        Raises:
            InvalidInput: it is no regular file any more.
        """
        *folders, name = path.split("/")
        shown = f"/data/artifacts/out/{kind}/{printable(path)}"
        with ExitStack() as stack:
            try:
                folder = stack.enter_context(self._folder("artifacts", "out", kind, *folders))
                descriptor = stack.enter_context(closing(open_file(folder, name, shown)))
            except FileNotFoundError as error:
                raise gone(shown) from error
            yield path_of(descriptor)

    @contextmanager
    def opened(self, kind: Kind, source: Source) -> Iterator[OpenSource]:
        """The data of a source, held open until the block ends.

        Raises:
            InvalidInput: it is not what `sources` saw, or something in it is no regular file.
            ApplicationError: it has more slices than this process may open files.
        """
        shown = f"/data/out/{kind}/{printable(source.name)}"
        with ExitStack() as stack:
            try:
                folder = stack.enter_context(self._folder("out", kind))
                if not source.is_folder:
                    descriptors = [open_file(folder, source.name, shown)]
                    stack.enter_context(closing(descriptors[0]))
                else:
                    slices = stack.enter_context(closing(open_folder(folder, source.name, shown)))
                    descriptors = [
                        stack.enter_context(closing(open_file(slices, name, each)))
                        for name, each in _slices(slices, shown)
                    ]
            except FileNotFoundError as error:
                raise gone(shown) from error
            except OSError as error:
                if error.errno not in {errno.EMFILE, errno.ENFILE}:
                    raise
                limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
                raise ApplicationError(
                    f"{shown} has more slices than files can be open at a time ({limit}). "
                    "Raise the limit of open files of the service."
                ) from error
            size = sum(check_not_hollow(each, shown) for each in descriptors)
            yield OpenSource(tuple(path_of(each) for each in descriptors), size)

    # -- below -----------------------------------------------------------------------------------

    @contextmanager
    def _root(self) -> Iterator[int]:
        with closing(os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)) as root:
            yield root

    @contextmanager
    def _engine(self) -> Iterator[int]:
        with closing(os.open(self.engine, os.O_RDONLY | os.O_DIRECTORY)) as engine:
            yield engine

    @contextmanager
    def _folder(self, *names: str, is_needed: bool = False) -> Iterator[int]:
        """A descriptor of a folder below `data`, every step checked.

        Raises:
            FileNotFoundError: there is none.
            InvalidInput: it is no folder, or there is none though it `is_needed`.
        """
        with ExitStack() as stack:
            folder = stack.enter_context(self._root())
            shown = ""
            for name in ("data", *names):
                shown += f"/{name}"
                try:
                    folder = stack.enter_context(closing(open_folder(folder, name, shown)))
                except FileNotFoundError as error:
                    if is_needed:
                        raise gone(shown) from error
                    raise
            yield folder

    def _open_made(self, parent: int, name: str, shown: str, mode: int = _FOLDER_MODE) -> int:
        return make_folder(parent, name, shown, mode, self._owner)

    def _make(self, parent: int, name: str, shown: str, mode: int = _FOLDER_MODE) -> None:
        os.close(self._open_made(parent, name, shown, mode))

    def _put(self, folder: int, name: str, content: bytes | str) -> None:
        """Write the file `name` into an open folder; it is there whole or not at all."""
        with self._engine() as engine:
            temporary = f"put-{secrets.token_hex(8)}"
            with open(  # noqa: PTH123 - a descriptor
                os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=engine),
                "wb",
            ) as file:
                file.write(_encoded(content))
                if self._owner is not None:
                    os.fchown(file.fileno(), *self._owner)
                os.fchmod(file.fileno(), _FILE_MODE)
            _replace(engine, temporary, folder, name)


def _replace(source: int, name: str, target: int, new_name: str) -> None:
    """Move, also where something that cannot be replaced at once is in the way.

    Raises:
        InvalidInput: the folder that it is to go to was removed.
    """
    try:
        move(name, source, new_name, target)
    except OSError as error:
        if error.errno == errno.ENOENT and not os.fstat(target).st_nlink:
            raise gone(f"The folder of {printable(new_name)}") from error
        if error.errno not in {errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST}:
            raise
        remove(target, new_name)
        move(name, source, new_name, target)


def _encoded(content: bytes | str) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _check_text(name: str, shown: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"The name of {shown} is not UTF-8. Rename it.", path=shown) from error


def _is_folder(folder: int, name: str, shown: str) -> bool:
    """Whether a name is a folder's, for now: `opened` looks again, at what it has opened."""
    mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise refused(shown, mode, wanted="a regular file or a folder")
    return stat.S_ISDIR(mode)


def _slices(folder: int, shown: str) -> list[tuple[str, str]]:
    """Names of the slices in a folder, and as messages show them."""
    slices: list[tuple[str, str]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.is_dir(follow_symlinks=False):
                continue
            if len(slices) >= ENTRIES:
                raise InvalidInput(
                    f"{shown} has more than {ENTRIES} slices. Write fewer, larger ones.", path=shown
                )
            slices.append((entry.name, f"{shown}/{printable(entry.name)}"))
    return sorted(slices)
