import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vaka.datafolder import JobFolder

OWNER = (1000, 1000) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
"""Who containers run as: only root can give files away."""


@pytest.fixture
def owner() -> tuple[int, int]:
    return OWNER


@pytest.fixture
def workplace(tmp_path: Path) -> Iterator[Path]:
    """An empty folder, in memory where there is such a thing.

    These tests make a hundred thousand files and folders; on a busy disk that takes minutes.
    """
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(dir=memory))
    try:
        yield folder
    finally:
        JobFolder(folder, owner=None).remove()


@pytest.fixture
def folder(workplace: Path) -> JobFolder:
    """A fresh job folder, not hostile yet."""
    made = JobFolder(workplace / "job", owner=OWNER)
    made.create()
    return made


class Canary:
    """A folder outside of the job's, which nothing may read, change or remove."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        (root / "secret").write_text(self.secret)
        (root / "tables").mkdir()
        (root / "tables" / "inner").write_text(self.secret)
        self._before = self._look()

    secret = "the canary sings"

    def _look(self) -> list[tuple[str, int, int, int, int, str]]:
        found = []
        for path in sorted([self.root, *self.root.rglob("*")]):
            status = path.lstat()
            content = path.read_text() if path.is_file() else ""
            facts = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
            found.append((str(path), *facts, content))
        return found

    def is_untouched(self) -> bool:
        return self._look() == self._before


@pytest.fixture
def canary(workplace: Path) -> Canary:
    return Canary(workplace / "canary")


@pytest.fixture
def tree() -> Callable[[Path], dict[str, str | None]]:
    """Everything below a folder: the content of files, None for folders."""

    def look(root: Path) -> dict[str, str | None]:
        return {
            str(path.relative_to(root)): path.read_text() if path.is_file() else None
            for path in sorted(root.rglob("*"))
        }

    return look
