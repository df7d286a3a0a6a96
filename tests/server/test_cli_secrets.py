"""`vaka encrypt`, `vaka migrate`, `vaka oauth`, and what becomes of secrets in configurations."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.server.test_cli import Shell, component, shell, write  # noqa: F401 - the fixtures


@pytest.mark.parametrize(
    ("ids", "family"),
    [
        (["--component", "C"], "ComponentSecure"),
        (["--component", "C", "--project", "1"], "ProjectSecure"),
        (["--component", "C", "--project", "1", "--config", "7"], "ConfigSecure"),
        (["--project", "1", "--branch-type", "dev"], "ProjectWideBranchTypeSecure"),
    ],
)
def test_a_document_or_a_text_is_encrypted(
    shell: Shell,  # noqa: F811
    tmp_path: Path,
    ids: list[str],
    family: str,
) -> None:
    file = write(tmp_path / "in.json", '{"n":1.50,"#x":"hunter2","#l":["a"]}')

    ran = shell.run("encrypt", file, *ids)

    assert ran.stdout.startswith(f'{{"n":1.50,"#x":"KBC::{family}::v1.')
    assert "#l[0] stays as it is" in ran.stderr
    text = shell.run("encrypt", "--text", *ids, input="hunter2\n").stdout
    assert text.startswith(f"KBC::{family}::v1.")
    assert "hunter2" not in ran.stdout + text
    told = json.loads(shell.run("encrypt", "--text", "--json", *ids, input="hunter2").stdout)
    assert told.startswith(f"KBC::{family}::v1.")


def test_what_cannot_be_encrypted_is_refused(shell: Shell) -> None:  # noqa: F811
    assert "Component Id is required" in shell.run("encrypt", code=1, input="{}").stderr
    assert "must not be empty" in shell.run("encrypt", "--component", "", code=2).stderr
    broken = shell.run("encrypt", "--component", "C", code=1, input="{hunter2")
    assert "Bad JSON format" in broken.stderr
    assert "hunter2" not in broken.stderr
    alone = shell.run("encrypt", "--component", "C", "--config", "1", code=1, input="{}")
    assert "together with projectId" in alone.stderr


def test_ciphers_are_migrated_all_or_none(shell: Shell) -> None:  # noqa: F811
    wide = shell.run("encrypt", "--text", "--component", "C", input="s").stdout.strip()
    ids = ("--component", "C", "--project", "1")

    moved = shell.run("migrate", *ids, input=json.dumps({"#x": wide, "y": 1})).stdout

    assert json.loads(moved)["#x"].startswith("KBC::ProjectSecure::v1.")
    assert shell.run("migrate", "--text", *ids, input=wide).stdout.startswith(
        "KBC::ProjectSecure::"
    )
    refused = shell.run("migrate", *ids, code=1, input=json.dumps({"#x": wide, "#y": "hunter2"}))
    assert "Invalid cipher text for key #y" in refused.stderr
    assert "hunter2" not in refused.stderr
    assert refused.stdout == ""


@pytest.mark.usefixtures("component")
def test_secrets_of_configurations_are_encrypted_before_they_are_sent(
    shell: Shell,  # noqa: F811
    tmp_path: Path,
) -> None:
    content = {"parameters": {"#password": "hunter2", "user": "me", "#p": "{{ name }}"}}
    file = write(tmp_path / "c.json", content)

    shell.run("config", "create", "C", "--id", "c", "--configuration", file)
    shell.run("row", "create", "C", "c", "--id", "r", "--configuration", file)

    stored = shell.json("config", "get", "C", "c")
    for found in (stored["configuration"], stored["rows"][0]["configuration"]):
        assert found["parameters"]["user"] == "me"
        assert found["parameters"]["#p"] == "{{ name }}"
        assert found["parameters"]["#password"].startswith("KBC::ProjectSecure::v1.")
    again = write(tmp_path / "d.json", stored["configuration"])
    shell.run("config", "put", "C", "c", "--configuration", again)
    assert shell.json("config", "get", "C", "c")["configuration"] == stored["configuration"]
    shell.run("config", "put", "C", "c", "--configuration", file, "--plain")
    assert shell.json("config", "get", "C", "c")["configuration"] == content
    shell.run("row", "put", "C", "c", "r", "--configuration", file, "--plain")
    row = shell.json("row", "get", "C", "c", "r")["configuration"]
    assert row == content


@pytest.mark.usefixtures("component")
def test_credentials_are_kept_and_shown_encrypted(shell: Shell) -> None:  # noqa: F811
    kept = shell.run("oauth", "put", "C", "main", "-", input='{"id":"main","#data":"hunter2"}')
    assert kept.stdout == "The credentials main of C are kept.\n"

    shown = json.loads(shell.run("oauth", "show", "C", "main").stdout)

    assert shown["id"] == "main"
    assert shown["#data"].startswith("KBC::ProjectSecure::")
    assert "JSON object" in shell.run("oauth", "put", "C", "main", "-", code=2, input="[]").stderr
    shell.run("oauth", "delete", "C", "main")
    assert "C" in shell.run("oauth", "show", "C", "main", code=1).stderr


def test_without_keys_nothing_is_encrypted_and_that_is_said(tmp_path: Path) -> None:
    home = ["--home", str(tmp_path / "home")]

    def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "vaka_server", *arguments, *home],
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )

    assert run("init", "--no-keys").returncode == 0
    definition = {"id": "C", "type": "other", "name": "C", "data": {}}
    assert run("component", "add", "-", given=json.dumps(definition)).returncode == 0
    refused = run("encrypt", "--component", "C", given="{}")
    assert refused.returncode == 1
    assert "vaka keys init" in refused.stderr
    stored = run("config", "create", "C", "--configuration", "-", given='{"#x":"y"}')
    assert stored.returncode == 0
    assert "there are no keys" in stored.stderr
    sealed = run("vault", "set", "x", "y", "--encrypted")
    assert (sealed.returncode, "Give its value encrypted" in sealed.stderr) == (1, True)
