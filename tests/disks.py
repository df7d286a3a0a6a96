"""A file system of a few MB that a test can fill."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Disk:
    """A file system of its own, below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    @property
    def free_bytes(self) -> int:
        state = os.statvfs(self.folder)
        return state.f_bavail * state.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Leave so many bytes, in whole pages."""
        with self._ballast.open("ab", buffering=0) as ballast:
            while (surplus := self.free_bytes - leave) > 0:
                ballast.write(bytes(surplus))

    def free(self) -> None:
        """Give back what `fill` took."""
        self._ballast.unlink()


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Disk]:
    """A disk of so many bytes, mounted at `folder`, which is made. Takes root."""
    folder.mkdir()
    options = f"size={size},mode=0755"
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "vaka-small-disk", str(folder)], check=True
    )
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
