"""`vaka project export|import`: there and back, again without change, and nothing hostile."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.server.conftest import COMPONENT
from tests.server.test_cli import Shell, shell  # noqa: F401 - a fixture

from vaka.errors import InvalidInput
from vaka_server.cli import folder
from vaka_server.cli.folder import Config, Content, Row, Variable

CIPHER = "KBC::ProjectSecure::eJx"
EMPTY = Content({}, {}, {})


def config(config_id: str = "c", **members: Any) -> Config:
    values: dict[str, Any] = {
        "component": "C",
        "id": config_id,
        "name": "name",
        "description": "about",
        "is_disabled": False,
        "configuration": {"z": 1, "a": {}, "e": [], "#s": CIPHER, "ž": "U+2028"},
        "rows": (Row("2", "second", "", True, []), Row("1", "first", "", False, {"b": 1.5})),
        "metadata": {"KBC.configuration.folderName": "F"},
    }
    return Config(**values | members)


def content(*configs: Config) -> Content:
    return Content(
        {(each.component, each.id): each for each in configs},
        {"v": Variable("v", "1", False), "s": Variable("s", CIPHER, True)},
        {"KBC.projectDescription": "ours"},
    )


def tree(path: Path) -> dict[str, bytes]:
    return {
        str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()
    }


# -- the folder itself -----------------------------------------------------------------------------


def test_a_folder_says_what_was_written(tmp_path: Path) -> None:
    whole = content(config(), config("d", rows=(), metadata={}))

    assert folder.write(tmp_path / "p", whole) == (6, 0, 0)

    assert folder.read(tmp_path / "p") == whole
    assert set(tree(tmp_path / "p")) == {
        "project.json",
        "variables.json",
        "configurations/C/c/configuration.json",
        "configurations/C/c/rows/1.json",
        "configurations/C/c/rows/2.json",
        "configurations/C/d/configuration.json",
    }
    stored = (tmp_path / "p/configurations/C/c/configuration.json").read_text()
    assert list(json.loads(stored)["configuration"]) == ["z", "a", "e", "#s", "ž"]
    assert '  "description": "about",\n' in stored
    assert "ž" in stored
    assert stored.endswith("}\n")


def test_writing_again_touches_nothing(tmp_path: Path) -> None:
    folder.write(tmp_path, content(config()))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}

    assert folder.write(tmp_path, content(config())) == (0, 5, 0)

    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")} == before


def test_what_is_gone_from_the_project_goes_from_the_folder(tmp_path: Path) -> None:
    folder.write(tmp_path, content(config(), config("d")))
    (tmp_path / ".git").mkdir()
    (tmp_path / "README.md").write_text("ours")

    written, _, gone = folder.write(tmp_path, content(config(rows=())))

    assert (written, gone) == (1, 5)
    assert set(tree(tmp_path)) == {
        "README.md",
        "project.json",
        "variables.json",
        "configurations/C/c/configuration.json",
    }
    assert not (tmp_path / "configurations/C/d").exists()
    assert not (tmp_path / "configurations/C/c/rows").exists()


@pytest.mark.parametrize(
    "thing_id",
    ["..", ".", ".git", "a.b", "A%2F", "con", "~", "ž" * 100, "x" * 255, "a\\b", "*?", "-rf", "😀"],
)
def test_ids_of_any_kind_have_names(tmp_path: Path, thing_id: str) -> None:
    whole = content(config(thing_id, component=thing_id, rows=(Row(thing_id, "", "", False, {}),)))

    folder.write(tmp_path, whole)

    assert folder.read(tmp_path) == whole
    inside = [path.relative_to(tmp_path).parts for path in tmp_path.rglob("*.json")]
    assert all(len(part) < 150 and part.isascii() for parts in inside for part in parts)
    assert {parts[0] for parts in inside} == {"configurations", "project.json", "variables.json"}


def test_ids_that_differ_in_case_only_have_names_that_differ_in_more(tmp_path: Path) -> None:
    whole = content(config("a"), config("A"), config("b"))

    folder.write(tmp_path, whole)

    names = {path.name.lower() for path in (tmp_path / "configurations/C").iterdir()}
    assert (len(names), "b" in names) == (3, True)
    assert folder.read(tmp_path) == whole


_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT,
    lambda each: st.lists(each) | st.dictionaries(_TEXT.filter(lambda key: key[:1] != "#"), each),
)  # fmt: skip


@given(_JSON)
def test_json_comes_back_as_it_was(value: Any) -> None:
    files = folder._files(content(config(configuration=value)))
    text = files["configurations", "C", "c", "configuration.json"]
    assert json.dumps(json.loads(text)["configuration"]) == json.dumps(value)
    assert files == folder._files(content(config(configuration=value)))


@pytest.mark.parametrize(
    "bad",
    [
        content(config(configuration={"a": [{"#password": "hunter2"}]})),
        content(config(rows=(Row("r", "", "", False, {"#password": "hunter2"}),))),
        Content({}, {"v": Variable("v", "hunter2", True)}, {}),
    ],
)
def test_a_secret_in_the_clear_is_not_written(tmp_path: Path, bad: Content) -> None:
    folder.write(tmp_path, content(config("before")))
    before = tree(tmp_path)

    with pytest.raises(InvalidInput) as caught:
        folder.write(tmp_path, bad)

    assert "hunter2" not in str(caught.value)
    assert tree(tmp_path) == before


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InvalidInput, match=r"no project\.json"):
        folder.write(tmp_path, EMPTY)
    (tmp_path / "project.json").write_text('{"name": "of another tool"}')
    with pytest.raises(InvalidInput, match=r"project\.json"):
        folder.write(tmp_path, EMPTY)
    assert set(tree(tmp_path)) == {"thesis.txt", "project.json"}


# -- hostile folders -------------------------------------------------------------------------------


def rewrite(path: Path, **members: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **members}))


def outside(path: Path) -> Path:
    target = path.parent / "outside"
    target.mkdir(exist_ok=True)
    (target / "configuration.json").write_text("{}")
    return target


def link_root_file(path: Path) -> None:
    (path / "variables.json").unlink()
    (path / "variables.json").symlink_to(outside(path) / "configuration.json")


def link_configuration(path: Path) -> None:
    here = path / "configurations/C/c"
    (here / "configuration.json").unlink()
    (here / "configuration.json").symlink_to("/etc/passwd")


def link_folder(path: Path) -> None:
    (path / "configurations/C/other").symlink_to(outside(path))


def link_rows(path: Path) -> None:
    (path / "configurations/D").mkdir()
    (path / "configurations/D/x").mkdir()
    (path / "configurations/D/x/configuration.json").write_text("{}")
    (path / "configurations/D/x/rows").symlink_to(outside(path))


def link_all(path: Path) -> None:
    (path / "configurations").rename(path.parent / "moved")
    (path / "configurations").symlink_to(path.parent / "moved")


def pipe(path: Path) -> None:
    (path / "configurations/C/c/configuration.json").unlink()
    os.mkfifo(path / "configurations/C/c/configuration.json")


def traversal(path: Path) -> None:
    rewrite(path / "configurations/C/c/configuration.json", id="../../x")


def other_name(path: Path) -> None:
    (path / "configurations/C/c").rename(path / "configurations/C/%2e%2e")


def odd_file(path: Path) -> None:
    (path / "configurations/C/c/run.sh").write_text("")


def odd_row(path: Path) -> None:
    (path / "configurations/C/c/rows/x.txt").write_text("")


def extra_row(path: Path) -> None:
    (path / "configurations/C/c/rows/x.json").write_text(
        (path / "configurations/C/c/rows/1.json").read_text()
    )


def no_row(path: Path) -> None:
    (path / "configurations/C/c/rows/1.json").unlink()


def no_configuration(path: Path) -> None:
    (path / "configurations/C/c/configuration.json").unlink()


def deep(path: Path) -> None:
    (path / "variables.json").write_text("[" * 100_000)


def no_json(path: Path) -> None:
    (path / "project.json").write_text("{broken")


def no_text(path: Path) -> None:
    (path / "variables.json").write_bytes(b"\xff\xfe")


def other_members(path: Path) -> None:
    rewrite(path / "configurations/C/c/configuration.json", command="rm")


def wrong_kind(path: Path) -> None:
    rewrite(path / "configurations/C/c/configuration.json", isDisabled="no")


def newer(path: Path) -> None:
    rewrite(path / "project.json", version=2)


def secret(path: Path) -> None:
    rewrite(path / "configurations/C/c/configuration.json", configuration={"#x": "hunter2"})


@pytest.mark.parametrize(
    "spoil",
    [
        link_root_file, link_configuration, link_folder, link_rows, link_all, pipe, traversal,
        other_name, odd_file, odd_row, extra_row, no_row, no_configuration, deep, no_json, no_text,
        other_members, wrong_kind, newer, secret,
    ],
)  # fmt: skip
def test_a_folder_that_is_not_as_it_should_be_is_refused(tmp_path: Path, spoil: Any) -> None:
    path = tmp_path / "p"
    folder.write(path, content(config()))
    spoil(path)

    with pytest.raises(InvalidInput) as caught:
        folder.read(path)

    assert "hunter2" not in str(caught.value)
    assert (
        str(path) in str(caught.value) or spoil is secret or "configurations" in str(caught.value)
    )


def test_links_are_not_written_through(tmp_path: Path) -> None:
    path = tmp_path / "p"
    folder.write(path, content(config()))
    target = outside(path)
    (target / "keep").write_text("x")
    (path / "configurations/C/c").rename(tmp_path / "away")
    (path / "configurations/C/c").symlink_to(target)

    with pytest.raises(InvalidInput):
        folder.write(path, content(config(name="changed")))

    assert set(tree(target)) == {"configuration.json", "keep"}
    assert (target / "configuration.json").read_text() == "{}"


def test_a_folder_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write(tmp_path, content(config()))
    for name, limit in (("MOST_ENTRIES", 3), ("MOST_BYTES", 100), ("ALL_BYTES", 300)):
        with monkeypatch.context() as patch:
            patch.setattr(folder, name, limit)
            with pytest.raises(InvalidInput, match=f"more than {limit}"):
                folder.read(tmp_path)
    assert folder.read(tmp_path) == content(config())


# -- export and import -----------------------------------------------------------------------------


def fill(shell: Shell, tmp_path: Path) -> None:  # noqa: F811
    """A component, and a configuration of it with two rows, metadata and variables."""
    (tmp_path / "component.json").write_text(json.dumps(COMPONENT))
    (tmp_path / "config.json").write_text(json.dumps({"z": {}, "a": [], "#s": CIPHER}))
    (tmp_path / "row.json").write_text(json.dumps({"r": 1}))
    shell.run("component", "add", str(tmp_path / "component.json"))
    content_of = ("--configuration", str(tmp_path / "config.json"))
    shell.run("config", "create", "C", "--id", "c", "--name", "First", *content_of)
    for row in ("a", "b"):
        shell.run(
            "row", "create", "C", "c", "--id", row, "--configuration", str(tmp_path / "row.json")
        )
    shell.run("config", "metadata", "C", "c", "--set", "KBC.configuration.folderName=F")
    shell.run("vault", "set", "v", "1")
    shell.run("vault", "set", "s", CIPHER, "--encrypted")


def test_a_project_goes_to_a_folder_and_back(shell: Shell, tmp_path: Path) -> None:  # noqa: F811
    fill(shell, tmp_path)
    target = tmp_path / "out"
    first = shell.json("project", "export", str(target))
    assert first == {"written": 5, "unchanged": 0, "removed": 0}
    before = tree(target)
    assert shell.json("project", "export", str(target))["written"] == 0
    nothing = shell.json("project", "import", str(target), "--delete")
    assert nothing == {"steps": [], "left": 0, "applied": True}
    assert shell.json("config", "get", "C", "c")["version"] == 3

    # what happens to the project meanwhile
    shell.run("config", "put", "C", "c", "--name", "Changed")
    shell.run("row", "delete", "C", "c", "a")
    shell.run("row", "create", "C", "c", "--id", "late")
    shell.run("config", "create", "C", "--id", "other")
    shell.run("config", "metadata", "C", "c", "--set", "late=x", "--set",
              "KBC.configuration.folderName=G")  # fmt: skip
    shell.run("vault", "set", "v", "2")
    shell.run("vault", "set", "late", "x")

    dry = shell.json("project", "import", str(target), "--delete", "--dry-run")
    expected = {
        ("update", "variable", "v"),
        ("delete", "variable", "late"),
        ("update", "configuration", "C/c"),
        ("create", "row", "C/c/a"),
        ("delete", "row", "C/c/late"),
        ("update", "row order", "C/c"),
        ("update", "metadata", "C/c: KBC.configuration.folderName"),
        ("delete", "metadata", "C/c: late"),
        ("delete", "configuration", "C/other"),
    }
    assert {(step["action"], step["kind"], step["what"]) for step in dry["steps"]} == expected
    assert dry["applied"] is False
    assert shell.json("config", "get", "C", "c")["name"] == "Changed"

    some = shell.lines("project", "import", str(target))
    assert some[-1] == "5 done."
    assert "create  row            C/c/a" in some
    assert {row["id"] for row in shell.json("row", "list", "C", "c")} == {"a", "b", "late"}
    rest = shell.json("project", "import", str(target), "--delete", "--change", "why")
    assert {step["action"] for step in rest["steps"]} == {"delete"}
    assert shell.json("config", "versions", "C", "c")[0]["changeDescription"] == "why"
    assert [each["id"] for each in shell.json("config", "trash")] == ["other"]
    assert shell.json("project", "import", str(target), "--delete")["steps"] == []
    assert shell.json("project", "export", str(target))["written"] == 0
    assert tree(target) == before


def test_an_import_into_nothing_makes_everything(
    shell: Shell,  # noqa: F811
    tmp_path: Path,
) -> None:
    target = tmp_path / "in"
    folder.write(target, content(config()))
    unknown = shell.run("project", "import", str(target), code=1)
    assert "not registered: C" in unknown.stderr
    assert shell.json("vault", "list") == []
    (tmp_path / "component.json").write_text(json.dumps(COMPONENT))
    shell.run("component", "add", str(tmp_path / "component.json"))

    made = shell.json("project", "import", str(target))

    assert {step["action"] for step in made["steps"]} == {"create", "update"}
    assert [row["id"] for row in shell.json("row", "list", "C", "c")] == ["2", "1"]
    stored = shell.json("config", "get", "C", "c")
    assert json.dumps(stored["configuration"]) == json.dumps(config().configuration)
    assert shell.json("project", "export", str(target)) == {
        "written": 0,
        "unchanged": 5,
        "removed": 0,
    }


def test_a_folder_is_kept_in_a_repository(shell: Shell, tmp_path: Path) -> None:  # noqa: F811
    fill(shell, tmp_path)
    target = tmp_path / "repository"

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.test"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=target, check=True, capture_output=True, text=True
        ).stdout

    target.mkdir()
    git("init", "-q")
    shell.run("project", "export", str(target))
    git("add", ".")
    git("commit", "-qm", "first")
    shell.run("config", "put", "C", "c", "--name", "Second")
    shell.run("project", "export", str(target))

    assert [line for line in git("diff", "-U0").splitlines() if line[:1] in "+-"][2:] == [
        '-  "name": "First",',
        '+  "name": "Second",',
    ]
    assert git("status", "--short").splitlines() == [" M configurations/C/c/configuration.json"]
