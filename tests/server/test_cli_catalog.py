"""Commands on versions, trash, copies and metadata, embedded and against a server."""

from __future__ import annotations

import json
from pathlib import Path

from tests.server.test_cli import Shell, component, shell, write  # noqa: F401 - the fixtures


def test_versions_are_taken_back_and_copied(shell: Shell, component: Path, tmp_path: Path) -> None:  # noqa: F811
    one, two = (write(tmp_path / f"{n}.json", {"n": n}) for n in (1, 2))
    shell.run("config", "create", "C", "--id", "X", "--configuration", one)
    shell.run("row", "create", "C", "X", "--id", "r", "--configuration", one)
    shell.run("config", "put", "C", "X", "--configuration", two)

    assert (
        shell.run("config", "rollback", "C", "X", "1", "--change", "why").stdout == "Version 4.\n"
    )
    full = shell.json("config", "get", "C", "X")
    assert (full["configuration"], full["rows"], full["changeDescription"]) == ({"n": 1}, [], "why")
    assert "Version 9" in shell.run("config", "rollback", "C", "X", "9", code=1).stderr

    copy = shell.run("config", "copy", "C", "X", "--version", "2", "--name", "copy").stdout.strip()
    made = shell.json("config", "get", "C", copy)
    assert (made["name"], [row["id"] for row in made["rows"]]) == ("copy", ["r"])
    current = shell.json("config", "copy", "C", "X")["id"]
    assert shell.json("config", "get", "C", current)["rows"] == []


def test_the_trash_gives_back(shell: Shell, component: Path) -> None:  # noqa: F811
    shell.run("config", "create", "C", "--id", "X", "--name", "N")
    assert shell.run("config", "delete", "C", "X").stdout == "Configuration X is deleted.\n"
    assert shell.json("config", "list") == []
    for arguments in (("config", "trash"), ("config", "trash", "C")):
        (line,) = shell.lines(*arguments)[1:]
        assert line.split() == ["C", "X", "2", "N"]
    assert shell.run("config", "restore", "C", "X").stdout == "Version 3.\n"
    assert shell.json("config", "list")[0]["id"] == "X"
    for _ in range(2):
        shell.run("config", "delete", "C", "X")
    assert shell.json("config", "trash") == []
    shell.run("config", "restore", "C", "X", code=1)


def test_rows_go_back_and_are_copied(shell: Shell, component: Path, tmp_path: Path) -> None:  # noqa: F811
    one, two = (write(tmp_path / f"{n}.json", {"n": n}) for n in (1, 2))
    for config in ("X", "Y"):
        shell.run("config", "create", "C", "--id", config)
    shell.run("row", "create", "C", "X", "--id", "r", "--configuration", one)
    shell.run("row", "put", "C", "X", "r", "--configuration", two, "--change", "second")

    lines = shell.lines("row", "versions", "C", "X", "r")
    assert [(line.split()[0], line.split()[-1]) for line in lines[1:]] == [
        ("2", "second"),
        ("1", "added"),
    ]
    assert shell.run("row", "rollback", "C", "X", "r", "1").stdout == "Version 3.\n"
    assert json.loads(shell.run("row", "get", "C", "X", "r").stdout) == {"n": 1}
    copy = shell.run("row", "copy", "C", "X", "r", "2", "--to", "Y").stdout.strip()
    assert json.loads(shell.run("row", "get", "C", "Y", copy).stdout) == {"n": 2}
    assert shell.run("row", "delete", "C", "X", "r", "--change", "why").stdout == (
        "Row r is deleted.\n"
    )
    assert shell.json("row", "list", "C", "X") == []
    assert shell.json("config", "get", "C", "X")["changeDescription"] == "why"
    shell.run("row", "versions", "C", "X", "r", code=1)


def test_state_of_a_row_is_read_and_set(shell: Shell, component: Path, tmp_path: Path) -> None:  # noqa: F811
    shell.run("config", "create", "C", "--id", "X")
    shell.run("row", "create", "C", "X", "--id", "r")
    file = write(tmp_path / "state.json", {"last": [1]})
    assert shell.run("state", "set", "C", "X", file, "--row", "r").stdout == "Version 1.\n"
    assert shell.json("state", "get", "C", "X", "--row", "r") == {
        "state": {"last": [1]},
        "version": 1,
    }
    assert shell.json("state", "get", "C", "X") == {"state": {}, "version": 0}
    shell.run("state", "set", "C", "X", file, "--row", "r", "--expected-version", "5", code=1)


def test_metadata_is_shown_set_and_removed(shell: Shell, component: Path) -> None:  # noqa: F811
    shell.run("config", "create", "C", "--id", "X")
    found = shell.json("config", "metadata", "C", "X", "--set", "a=1=2", "--set", "b=")
    assert [(each["key"], each["value"]) for each in found] == [("a", "1=2"), ("b", "")]
    found = shell.json("config", "metadata", "C", "X", "--delete", "b")
    assert [each["key"] for each in found] == ["a"]
    assert shell.run("config", "metadata", "C", "X", "--delete", "b", code=1).stderr.startswith(
        "Error: Configuration X has no metadata b."
    )
    shell.run("config", "metadata", "C", "X", "--set", "=x", code=2)
