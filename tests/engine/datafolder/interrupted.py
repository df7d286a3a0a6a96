"""Kills a process inside `advance` before each of its system calls, and lets another one go on.

Run by a test as a program of its own, because it forks: `interrupted.py FOLDER VARIANT`.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vaka.datafolder import JobFolder

CALLS = (
    *("open", "close", "stat", "fstat", "scandir", "rename", "unlink", "rmdir", "mkdir"),
    *("chown", "fchown", "fchmod"),
)
STEP = "0-1"


def fill(folder: JobFolder, variant: str) -> None:
    """What a container has left."""
    folder.create()
    data = folder.data
    (data / "in/tables/old").write_text("old")
    (data / "in/state.json").write_text("old")
    (data / "out/tables/new").write_text("new")
    (data / "out/tables/new.manifest").write_text("manifest")
    (data / "out/stray/deep").mkdir(parents=True)
    (data / "out/state.json").write_text("new")
    (data / "out/usage.json").write_text("usage")
    (data / "kept").write_text("kept")
    (folder.tmp / "scratch/deep").mkdir(parents=True)
    match variant:
        case "no in":
            shutil.rmtree(data / "in")
        case "in is a link":
            shutil.rmtree(data / "in")
            (data / "in").symlink_to("/etc")
        case "in is a file":
            shutil.rmtree(data / "in")
            (data / "in").write_text("file")
        case "no out":
            shutil.rmtree(data / "out")
        case "nothing":
            shutil.rmtree(data / "in")
            shutil.rmtree(data / "out")
        case "no subfolders":
            shutil.rmtree(data / "out/tables")
            (data / "out/files").rmdir()
        case "user folder":
            (data / "out/user").mkdir()
            (data / "out/user/mine").write_text("mine")


def look(folder: JobFolder) -> dict[str, str | None]:
    """Everything that is left of it, the engine's notes apart."""
    return {
        str(path.relative_to(folder.root)): path.read_text() if path.is_file() else None
        for root in (folder.data, folder.tmp)
        for path in sorted(root.rglob("*"))
    }


def expected(variant: str) -> dict[str, str | None]:
    """What the next container must find."""
    folders = ["in", "in/files", "in/tables", "in/user", "out", "out/files", "out/tables"]
    found: dict[str, str | None] = {f"data/{name}": None for name in folders}
    found["data/kept"] = "kept"
    if variant not in {"no out", "nothing"}:
        found |= {
            "data/in/usage.json": "usage",
            "data/in/stray": None,
            "data/in/stray/deep": None,
        }
        if variant != "no subfolders":
            found["data/in/tables/new"] = "new"
            found["data/in/tables/new.manifest"] = "manifest"
    if variant == "user folder":
        found["data/in/user/mine"] = "mine"
    return found


def in_child(work: Callable[[], None]) -> int:
    """Status of a forked process that does `work`."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - its process ends here
            print(f"{type(error).__name__}: {error}", flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def killed_before(call: int, work: Callable[[], None]) -> None:
    """Do `work`, but die of SIGKILL right before system call number `call`."""
    left = call

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return counted

    for name in CALLS:
        setattr(os, name, counting(getattr(os, name)))
    work()


def main(root: Path, variant: str) -> int:
    """Try every call; return how many there were."""
    folder = JobFolder(root, owner=None)
    call = 0
    while True:
        call += 1
        fill(folder, variant)
        status = in_child(lambda call=call: killed_before(call, lambda: folder.advance(STEP)))  # type: ignore[misc]
        if status not in {0, signal.SIGKILL}:
            raise SystemExit(f"call {call}: the first try ended with {status}")
        # a second crash at the same call of what is left to do
        in_child(lambda call=call: killed_before(call, lambda: folder.advance(STEP)))  # type: ignore[misc]
        folder.advance(STEP)
        if look(folder) != expected(variant):
            raise SystemExit(f"call {call}: {look(folder)} is not {expected(variant)}")
        (folder.data / "out/tables/later").write_text("later")
        folder.advance(STEP)
        if look(folder) != expected(variant) | {"data/out/tables/later": "later"}:
            raise SystemExit(f"call {call}: a completed move was done again")
        if status == 0:
            return call


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), sys.argv[2]))
