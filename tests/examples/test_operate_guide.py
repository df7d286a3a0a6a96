"""`docs/guides/operate.md` and its files: what they name is there, and what they say is so."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from vaka.hooks import SpecContext
from vaka.models.container import ContainerSpec
from vaka_server.cli.main import create_cli
from vaka_server.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs/guides/operate.md"
TEXT = GUIDE.read_text()
UNITS = sorted((ROOT / "docs/examples/systemd").glob("*.service"))


def unit(path: Path) -> dict[str, str]:
    """The service section of a unit; a name that stands twice has its last value."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(path)
    return dict(parser["Service"])


def test_the_settings_it_names_are_settings() -> None:
    named = set(re.findall(r"\bVAKA_([A-Z_]+)\b", TEXT))
    assert len(named) > 8
    assert named <= {name.upper() for name in Settings.model_fields}


def test_the_modes_of_stopping_are_the_settings() -> None:
    rows = re.findall(r"^\| `(\w+)`", TEXT.partition("## Stopping")[2], re.MULTILINE)
    assert rows == ["adopt", "drain", "stop"]
    assert Settings.model_fields["shutdown"].default == "adopt"


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_runs_a_command_with_a_home_that_it_may_write(path: Path) -> None:
    service = unit(path)
    program, command = service["ExecStart"].split()
    assert Path(program).name == "vaka"
    commands = typer.main.get_command(create_cli()).commands  # type: ignore[attr-defined]
    assert command in commands
    assert service["ProtectSystem"] == "strict"
    assert service["Environment"] == f"VAKA_HOME=/var/lib/{service['StateDirectory']}"
    assert int(service["TimeoutStopSec"]) > Settings.model_fields["graceful_timeout"].default


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_takes_a_unit_as_it_is(path: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.fail(
            "systemd-analyze is missing: run `make test` as root, or apt-get install systemd"
        )
    # the programs that it starts, and the units that it waits for, are of another machine
    program = tmp_path / "vaka"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "docker.service").write_text("[Service]\nExecStart=/bin/true\n")
    text = path.read_text().replace("/opt/vaka/bin/vaka", str(program))
    (tmp_path / path.name).write_text(text)
    found = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / path.name)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    said = [line for line in found.stderr.splitlines() if path.name in line]
    assert (found.returncode, said) == (0, [])


def test_the_two_units_differ_in_command_and_home_only() -> None:
    server, worker = (unit(path) for path in reversed(UNITS))
    differing = {name for name in server if server[name] != worker[name]}
    assert differing == {"ExecStart", "Environment", "StateDirectory"}


def test_what_it_refers_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", TEXT):
        assert (GUIDE.parent / target).exists(), target
    for path in re.findall(r"docs/examples/[\w./-]+\w", TEXT):
        assert (ROOT / path).exists(), path


def test_the_runtimes_settings_are_json() -> None:
    (document,) = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    assert json.loads(document)["runtimes"]["runsc"]["runtimeArgs"] == ["--network=none"]


def test_the_plugin_chooses_a_runtime_for_the_components_that_it_names() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    plugin: dict[str, Any] = {}
    exec(program, plugin)
    choose = SimpleNamespace(**plugin).vaka_container_spec
    spec = ContainerSpec(name="a", image="b")

    def context(component: str) -> SpecContext:
        return SpecContext(job_id=1, project="1", component=component, kind="main", features=())

    assert choose(spec, context("vendor.unknown")).oci_runtime == "runsc"
    assert choose(spec, context("vendor.known")) is None
