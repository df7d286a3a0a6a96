"""`docs/examples/container`: the image of the server is made as the guide says, and runs."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import typer

from vaka_server.cli.main import create_cli

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "docs/examples/container"
STEPS = re.findall(r"^([A-Z]+) (.*)$", (RECIPE / "Dockerfile").read_text(), re.MULTILINE)
TIME_LIMIT = 120
SITE = "/usr/local/lib/python3.11/dist-packages"


def docker(*arguments: str) -> str:
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=TIME_LIMIT, check=False
    )
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def image(pybase_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image without what pip puts into it: that is mounted, as this environment has it."""
    context = tmp_path_factory.mktemp("context")
    script = (RECIPE / "build.sh").read_text()
    (copies,) = [line for line in script.splitlines() if "libstdc++.so.6" in line and "cp" in line]
    subprocess.run(["sh", "-euc", f"context={shlex.quote(str(context))}; {copies}"], check=True)
    (context / "Dockerfile").write_bytes((RECIPE / "Dockerfile").read_bytes())
    (context / "site").mkdir()
    name = f"vaka-test/server:{uuid4().hex}"
    subprocess.run(
        ["docker", "build", "-q", "--network", "none", "-t", name, str(context)],
        env={"DOCKER_BUILDKIT": "0", "PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(context)},
        check=True,
        capture_output=True,
        timeout=TIME_LIMIT,
    )
    yield name
    docker("rmi", name)


def test_its_script_installs_what_there_is(pybase_image: str) -> None:
    script = (RECIPE / "build.sh").read_text()
    subprocess.run(["sh", "-n", str(RECIPE / "build.sh")], check=True)
    (extras,) = re.findall(r'"\$root\[(.*?)\]"', script)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert (ROOT / "constraints.txt").exists()
    assert dict(STEPS)["FROM"] == f"{pybase_image.partition(':')[0]}:1"
    assert [step.split()[-1] for name, step in STEPS if name == "COPY"] == ["/usr/lib/", SITE]


def test_its_command_is_the_servers(image: str) -> None:
    (config,) = json.loads(docker("image", "inspect", image, "--format", "[{{json .Config}}]"))
    assert config["Entrypoint"] == ["python3", "-m", "vaka_server"]
    (command,) = config["Cmd"]
    assert command in typer.main.get_command(create_cli()).commands  # type: ignore[attr-defined]
    assert "VAKA_HOME=/var/lib/vaka" in config["Env"]


def test_it_has_what_the_server_needs_of_a_system(image: str) -> None:
    probe = "import ctypes, ssl, sqlite3; ctypes.CDLL('libstdc++.so.6'); print('all there')"
    run = ("run", "--rm", "--network", "none", "--entrypoint", "python3", image, "-c", probe)
    assert docker(*run) == "all there\n"
    if sys.version_info[:2] != (3, 11):
        return  # what this environment has is not for the image's Python
    site = sysconfig.get_paths()["purelib"]
    mounts = ("-v", f"{site}:{SITE}:ro", "-v", f"{ROOT}:{ROOT}:ro")
    made = json.loads(docker("run", "--rm", "--network", "none", *mounts, image, "init", "--json"))
    assert made["token"]
