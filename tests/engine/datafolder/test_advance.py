import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vaka.datafolder import JobFolder
from vaka.errors import InvalidInput

Tree = Callable[[Path], dict[str, str | None]]


@pytest.mark.scenario("mapping", 69)
@pytest.mark.scenario("runner", 192)
def test_what_one_container_left_is_what_the_next_one_finds(
    folder: JobFolder, tree: Tree, owner: tuple[int, int]
) -> None:
    out = folder.data / "out"
    (out / "tables/table").write_bytes(b"id\r\n\xff")
    (out / "tables/table.manifest").write_bytes(b'{"a":  1}\n')
    (out / "state.json").write_text("{}")
    (out / "state.yml").write_text("{}")
    (out / "usage.json").write_text("[]")
    (folder.data / "in/tables/old").write_text("old")
    (folder.data / "in/state.json").write_text("{}")
    (folder.data / "artifacts").mkdir()
    (folder.tmp / "scratch").write_text("x")

    folder.advance("0-1")

    assert (folder.data / "in/tables/table").read_bytes() == b"id\r\n\xff"
    assert (folder.data / "in/tables/table.manifest").read_bytes() == b'{"a":  1}\n'
    assert sorted(str(path.relative_to(folder.data)) for path in folder.data.rglob("*")) == [
        *("artifacts", "in", "in/files", "in/tables", "in/tables/table"),
        *("in/tables/table.manifest", "in/usage.json", "in/user", "out", "out/files", "out/tables"),
    ]
    assert tree(folder.tmp) == {}
    for path in (folder.data, folder.tmp, *folder.data.rglob("*")):
        if path.is_dir() and path.name != "artifacts":
            assert path.stat().st_uid == owner[0]


def test_each_step_moves_once(folder: JobFolder, tree: Tree) -> None:
    (folder.data / "out/tables/a").write_text("1")
    folder.advance("0-1")
    folder.advance("0-1")
    assert (folder.data / "in/tables/a").exists()
    (folder.data / "out/tables/b").write_text("2")
    folder.advance("0-1")
    assert (folder.data / "in/tables/a").exists()

    folder.advance("0-2")

    assert "in/tables/a" not in tree(folder.data)
    assert tree(folder.data)["in/tables/b"] == "2"
    assert sorted(path.name for path in folder.engine.iterdir()) == ["advanced-0-1", "advanced-0-2"]


def test_a_new_attempt_moves_again(folder: JobFolder) -> None:
    folder.advance("0-1")
    folder.create()
    (folder.data / "out/tables/a").write_text("1")
    folder.advance("0-1")
    assert (folder.data / "in/tables/a").exists()


@pytest.mark.parametrize("name", ["tables", "files", "user"])
def test_a_file_where_the_next_container_needs_a_folder_is_refused_every_time(
    folder: JobFolder, name: str
) -> None:
    if name != "user":
        (folder.data / "out" / name).rmdir()
    (folder.data / "out" / name).write_text("file")
    for _ in range(2):
        with pytest.raises(InvalidInput, match=f"/data/in/{name} is a file, and must be a folder"):
            folder.advance("0-1")


@pytest.mark.parametrize("step", ["", "../x", "a/b", ".", "x" * 65, "a\n"])
def test_a_step_is_named_simply(folder: JobFolder, step: str) -> None:
    with pytest.raises(ValueError, match="a step is named"):
        folder.advance(step)


@pytest.mark.parametrize(
    "variant",
    [
        *("ordinary", "no in", "in is a link", "in is a file", "no out", "nothing"),
        *("no subfolders", "user folder"),
    ],
)
def test_a_move_killed_at_any_call_is_completed_by_the_next_try(
    workplace: Path, variant: str
) -> None:
    program = Path(__file__).with_name("interrupted.py")
    done = subprocess.run(
        [sys.executable, str(program), str(workplace / "job"), variant],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert int(done.stdout) > 40
