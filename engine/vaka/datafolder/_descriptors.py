"""Files and folders that a component may have made, by descriptor and never by path.

The invariant: a name that a component controls is only ever resolved in the folder of an open
descriptor, as one step, without following a link; and what is done to a thing is done to the
descriptor that was checked. A name may be swapped between any two steps and nothing outside is read,
written, owned or removed. Hard links need no care: a component's mounts are its own, and a link
cannot be made across mounts.

A thing is first opened with `O_PATH`, which has no effect on it: opening a device or a FIFO does.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vaka.errors import ApplicationError, InvalidInput

_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH = 100
"""Levels of folders that are walked with one descriptor each (scandir takes a second)."""
_PASSES = 100_000
"""Rounds of emptying a folder. Each takes `_DEPTH` levels off a deep tree; a folder that takes more
is being filled as fast as it is emptied."""
_CHUNK = 1 << 20
_HOLES = 1 << 30
"""Bytes of holes in a file that is still read."""
_LONGEST_SHOWN = 200


def printable(name: str) -> str:
    r"""`name` as messages may show it.

    Bytes that are not UTF-8 are shown as `\xNN`, what would move the cursor or turn the text around as
    `\uNNNN`, and a long name is cut.
    """
    shown = "".join(_shown(character) for character in name[:_LONGEST_SHOWN])
    return shown + "…" if len(name) > _LONGEST_SHOWN else shown


def _shown(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte of a name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return character


def gone(shown: str) -> InvalidInput:
    """What to raise when something that was there has vanished."""
    return InvalidInput(f"{shown} is not there any more.", path=shown)


def refused(shown: str, mode: int, *, wanted: str) -> InvalidInput:
    """The error of a thing that is not what it must be; `mode` is its `st_mode`."""
    return InvalidInput(
        f"{shown} is {kind_of(mode)}, and must be {wanted}. "
        "Links, pipes, sockets and devices are not taken from the data folder.",
        path=shown,
    )


def kind_of(mode: int) -> str:
    """What a thing with this `st_mode` is, in words."""
    match stat.S_IFMT(mode):
        case stat.S_IFLNK:
            return "a symbolic link"
        case stat.S_IFIFO:
            return "a named pipe"
        case stat.S_IFSOCK:
            return "a socket"
        case stat.S_IFBLK | stat.S_IFCHR:
            return "a device"
        case stat.S_IFDIR:
            return "a folder"
        case _:
            return "a file"


@contextmanager
def closing(descriptor: int) -> Iterator[int]:
    """The descriptor, closed afterwards."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def path_of(descriptor: int) -> Path:
    """A path that leads to what a descriptor of this process holds, whatever its name has become."""
    return Path(f"/proc/self/fd/{descriptor}")


def open_folder(parent: int, name: str, shown: str) -> int:
    """A descriptor of the folder `name`, where its owner may have shut us out of it.

    Raises:
        FileNotFoundError: nothing has that name.
        InvalidInput: it is no folder, or not ours to read.
    """
    with closing(os.open(name, _PATH, dir_fd=parent)) as handle:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISDIR(mode):
            raise refused(shown, mode, wanted="a folder")
        if mode & 0o700 != 0o700:
            with suppress(PermissionError):  # not ours: opening it tells whether that matters
                path_of(handle).chmod(stat.S_IMODE(mode) | 0o700)
        try:
            return os.open(path_of(handle), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except PermissionError as error:
            raise _denied(shown) from error


def open_file(parent: int, name: str, shown: str) -> int:
    """A readable descriptor of the regular file `name`.

    Raises:
        FileNotFoundError: nothing has that name.
        InvalidInput: it is no regular file, is on another file system, or not readable.
    """
    with closing(os.open(name, _PATH, dir_fd=parent)) as handle:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise refused(shown, found.st_mode, wanted="a regular file")
        if found.st_dev != os.fstat(parent).st_dev:
            raise InvalidInput(f"{shown} is on a file system of its own.", path=shown)
        try:
            return os.open(path_of(handle), os.O_RDONLY | os.O_CLOEXEC)
        except PermissionError as error:
            raise _denied(shown) from error


def _denied(shown: str) -> InvalidInput:
    return InvalidInput(
        f"{shown}: Permission denied. Let the owner read what is left in the data folder.",
        path=shown,
    )


def mode_of(parent: int, name: str) -> int | None:
    """`st_mode` of what has this name, a link itself and not its target; None when nothing has."""
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None


def read_file(descriptor: int, limit: int, shown: str) -> bytes:
    """All bytes of a file, counted as they come.

    Raises:
        InvalidInput: there are more than `limit`.
    """
    parts: list[bytes] = []
    size = os.fstat(descriptor).st_size
    total = 0
    while size <= limit:
        part = os.read(descriptor, min(_CHUNK, limit + 1 - total))
        if not part:
            return b"".join(parts)
        parts.append(part)
        total += len(part)
        size = max(size, total)
    raise InvalidInput(f"{shown} has more than {limit} bytes.", path=shown)


def check_not_hollow(descriptor: int, shown: str) -> int:
    """The size of a file in bytes.

    Raises:
        InvalidInput: it consists of holes, so that a few bytes of disk pretend to be terabytes.
    """
    size = os.fstat(descriptor).st_size
    if size <= _HOLES:
        return size
    hollow = position = 0
    while position < size:
        try:
            data = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            data = size  # no data behind `position`
        hollow += data - position
        if hollow > _HOLES:
            raise InvalidInput(
                f"{shown} claims {size} bytes, and more than {_HOLES} of them were never written.",
                path=shown,
            )
        position = os.lseek(descriptor, data, os.SEEK_HOLE) if data < size else size
    os.lseek(descriptor, 0, os.SEEK_SET)
    return size


def make_folder(
    parent: int, name: str, shown: str, mode: int, owner: tuple[int, int] | None
) -> int:
    """A descriptor of the folder `name`, made when it is missing, with this mode and owner.

    Raises:
        InvalidInput: something else has that name, or it is taken away at once.
        ApplicationError: this process may not give folders away.
    """
    try:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
        descriptor = open_folder(parent, name, shown)
    except FileNotFoundError as error:
        raise gone(shown) from error
    try:
        if owner is not None:
            os.fchown(descriptor, *owner)
        os.fchmod(descriptor, mode)
    except PermissionError as error:
        os.close(descriptor)
        raise ApplicationError(
            f"{shown} cannot be given to the user of the containers, {owner}. Only root can do that: "
            "run the service as root, or containers as the service's own user (container_user)."
        ) from error
    return descriptor


def move(name: str, source: int, new_name: str, target: int) -> None:
    """Give what is called `name` another place, at once; nothing is followed.

    Raises:
        FileNotFoundError: nothing has that name.
    """
    try:
        os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
    except PermissionError:  # a folder that we may not write to keeps its place: it holds its `..`
        os.close(open_folder(source, name, printable(name)))
        os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)


def remove(parent: int, name: str) -> None:
    """Remove what is called `name`, whatever it is and holds; nothing when it is not there."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in {errno.EISDIR, errno.EPERM}:
            raise
        with closing(open_folder(parent, name, printable(name))) as folder:
            empty(folder)
        os.rmdir(name, dir_fd=parent)


def empty(folder: int) -> None:
    """Remove everything in a folder, in bounded memory and with a bounded number of descriptors."""
    for _ in range(_PASSES):
        if not _sweep(folder, folder, 1):
            return
    raise ApplicationError(
        "A folder is filled as fast as it is emptied: something still writes to it."
    )


def _sweep(folder: int, top: int, depth: int) -> bool:
    """Remove what is found in one go; return whether there was anything.

    What lies too deep is moved up into `top`, where the next round finds it.
    """
    found = False
    with os.scandir(folder) as entries:
        for entry in entries:
            found = True
            if not entry.is_dir(follow_symlinks=False):
                _unlink(folder, entry.name)
            elif not _rmdir(folder, entry.name):
                try:
                    child = open_folder(folder, entry.name, printable(entry.name))
                except (FileNotFoundError, InvalidInput):
                    continue  # swapped meanwhile: the next round sees what it is now
                with closing(child):
                    if depth < _DEPTH:
                        _sweep(child, top, depth + 1)
                    else:
                        _lift(child, top)
                _rmdir(folder, entry.name)
    return found


def _lift(folder: int, top: int) -> None:
    """Move the folders in a folder into `top`, and remove the rest."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    move(entry.name, folder, f"deep-{secrets.token_hex(16)}", top)
            else:
                _unlink(folder, entry.name)


def _unlink(parent: int, name: str) -> None:
    with suppress(FileNotFoundError, IsADirectoryError):
        os.unlink(name, dir_fd=parent)


def _rmdir(parent: int, name: str) -> bool:
    """Whether the folder is gone; False when something is in it."""
    try:
        os.rmdir(name, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        return False
    return True


def own(parent: int, name: str, shown: str, owner: tuple[int, int]) -> None:
    """Give what is called `name`, and everything in it, to `owner`, readable and writable to them.

    Links are given away themselves, never what they point to.

    Raises:
        FileNotFoundError: nothing has that name.
        InvalidInput: folders are nested too deep.
        PermissionError: only root can give away what others own.
    """
    _own(parent, name, shown, owner, 1)


def _own(parent: int, name: str, shown: str, owner: tuple[int, int], depth: int) -> None:
    os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
    with closing(os.open(name, _PATH, dir_fd=parent)) as handle:
        mode = os.fstat(handle).st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            wanted = 0o600 if stat.S_ISREG(mode) else 0o700
            if mode & wanted != wanted:
                path_of(handle).chmod(stat.S_IMODE(mode) | wanted)
        if not stat.S_ISDIR(mode):
            return
        folder = os.open(path_of(handle), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with closing(folder):
        if depth > _DEPTH:
            raise InvalidInput(f"{shown} holds folders nested deeper than {_DEPTH}.", path=shown)
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    _own(folder, entry.name, shown, owner, depth + 1)
