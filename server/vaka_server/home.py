"""The home folder of an installation, used by one process at a time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from vaka.errors import ApplicationError, HomeInUse, NotFound

LOCK = "vaka.lock"


class Home:
    """A home that this process holds."""

    def __init__(self, path: Path, file: IO[str]) -> None:
        self.path = path
        self._file = file

    def announce(self, **facts: Any) -> None:
        """Tell those who find the home taken who has it."""
        self._file.seek(0)
        self._file.truncate()
        json.dump({"pid": os.getpid(), **facts}, self._file)
        self._file.flush()


@contextmanager
def hold(path: Path, *, create: bool) -> Iterator[Home]:
    """Use a home until leaving; `create` makes it when it is not there.

    Raises:
        NotFound: there is none.
        HomeInUse: another process has it.
        ApplicationError: it cannot be read or written.
    """
    path = path.absolute()
    if not create and not (path / LOCK).exists():
        raise NotFound(
            f"There is no Vaka home at {path}. Run `vaka init`, name another one with --home or "
            "VAKA_HOME, or name a server with --url or VAKA_URL.",
            kind="home",
            id=str(path),
        )
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o750)
        file = (path / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise ApplicationError(
            f"The home {path} cannot be used: {error.strerror}. Choose another one with --home, or "
            "give this user the right to write there."
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _in_use(path, file) from error
        home = Home(path, file)
        home.announce()
        yield home


def _in_use(path: Path, file: IO[str]) -> HomeInUse:
    file.seek(0)
    try:
        holder = json.loads(file.read())
        pid, url = holder.get("pid"), holder.get("url")
    except (ValueError, AttributeError):
        pid = url = None  # it is about to write who it is
    if url:
        text = f"by the server at {url} (process {pid}); name it with --url or VAKA_URL"
    else:
        text = f"by process {pid or '?'}; wait for it, or run `vaka serve` and name it with --url"
    return HomeInUse(f"The home {path} is in use {text}.", pid=pid)
