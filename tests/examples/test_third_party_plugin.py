"""The example of a third party's plugin, installed as a third party's users install it."""

import configparser
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from email.parser import Parser
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trio

from vaka.docker import Docker
from vaka.testing.mapping import MappingBackendContract

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs/examples/vaka-sqlite"
JOB = Path(__file__).with_name("third_party_job.py")
PACKAGES = {
    "vaka": ROOT / "engine",
    "vaka_keyring": ROOT / "plugins",
    "vaka_legacy": ROOT / "plugins",
    "vaka_local": ROOT / "plugins",
    "vaka_server": ROOT / "server",
}
TIME_LIMIT = 600
"""Seconds for one command. A bound, no measure: all of it takes a small part of that."""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """What a command prints; it sees nothing of the environment that the tests run in."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "PYTEST", "VAKA", "VIRTUAL_ENV"))
    }
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=kept,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIME_LIMIT,
        check=False,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


@dataclass(frozen=True)
class Wheels:
    vaka: Path
    example: Path

    @staticmethod
    def names(wheel: Path) -> list[str]:
        with zipfile.ZipFile(wheel) as archive:
            return archive.namelist()

    @staticmethod
    def text(wheel: Path, name: str) -> str:
        """A file of the wheel's `.dist-info`."""
        with zipfile.ZipFile(wheel) as archive:
            (path,) = (each for each in archive.namelist() if each.endswith(f".dist-info/{name}"))
            return archive.read(path).decode()


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Wheels:
    """The wheels of vaka and of the example, built from this checkout."""
    folder = tmp_path_factory.mktemp("wheels")
    # the build backend is here, at the locked version: nothing is fetched
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps")
    run(*pip, "--wheel-dir", folder, ROOT, EXAMPLE)
    (vaka,) = folder.glob("vaka-*.whl")
    (example,) = folder.glob("vaka_sqlite-*.whl")
    return Wheels(vaka, example)


@pytest.fixture(scope="session")
def python(wheels: Wheels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with both wheels, at the locked versions."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin/python"
    run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-input"),
        *("--no-compile", "--disable-pip-version-check", "--root-user-action", "ignore"),
        *("--constraint", ROOT / "constraints.txt"),
        # by path: a package of that name on an index is somebody else's
        *(f"{wheels.vaka}[local]", wheels.example, "pytest", "pytest-trio"),
    )
    return python


# -- what is in the wheels -------------------------------------------------------------------------


def test_the_wheel_holds_the_packages_and_nothing_else(wheels: Wheels) -> None:
    there = {name for name in Wheels.names(wheels.vaka) if ".dist-info/" not in name}

    assert there == {
        str(path.relative_to(root))
        for package, root in PACKAGES.items()
        for path in (root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name.partition("/")[0] for name in there} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= there
    migrations = {name for name in there if name.startswith("vaka/store/migrations/")}
    assert "vaka/store/migrations/env.py" in migrations
    assert any(name.startswith("vaka/store/migrations/versions/r0001") for name in migrations)
    assert {Path(name).suffix for name in there} <= {".py", ".typed", ".mako"}


def test_the_wheel_has_its_licence_and_its_metadata(wheels: Wheels) -> None:
    metadata = Parser().parsestr(Wheels.text(wheels.vaka, "METADATA"))

    assert (metadata["Name"], metadata["License-Expression"]) == ("vaka", "Apache-2.0")
    assert Wheels.text(wheels.vaka, "licenses/LICENSE") == (ROOT / "LICENSE").read_text()
    assert {"local", "server", "postgresql"} <= set(metadata.get_all("Provides-Extra", []))
    without_extra = [
        re.split(r"[^a-z0-9-]", each.lower(), maxsplit=1)[0]
        for each in metadata.get_all("Requires-Dist", [])
        if "extra ==" not in each
    ]
    assert not {"quart-trio", "hypercorn", "typer", "duckdb", "psycopg"} & set(without_extra)


def test_the_entry_points_are_the_command_and_the_built_in_plugins(wheels: Wheels) -> None:
    assert entry_points(wheels.vaka) == {
        "console_scripts": {"vaka": "vaka_server.__main__:main"},
        "vaka": {"keyring": "vaka_keyring", "legacy": "vaka_legacy", "local": "vaka_local"},
    }


def test_the_example_is_a_plugin_by_its_entry_point_and_asks_for_vaka_below_2(
    wheels: Wheels,
) -> None:
    metadata = Parser().parsestr(Wheels.text(wheels.example, "METADATA"))
    there = {name for name in Wheels.names(wheels.example) if ".dist-info/" not in name}

    assert entry_points(wheels.example) == {"vaka": {"sqlite": "vaka_sqlite"}}
    assert "vaka<2,>=0.1" in metadata.get_all("Requires-Dist", [])
    assert "vaka_sqlite/py.typed" in there
    assert {name.partition("/")[0] for name in there} == {"vaka_sqlite"}


def entry_points(wheel: Path) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.read_string(Wheels.text(wheel, "entry_points.txt"))
    return {section: dict(parser[section]) for section in parser.sections()}


def test_the_example_uses_nothing_but_the_public_surface() -> None:
    imported = {
        module
        for path in (EXAMPLE / "vaka_sqlite").glob("*.py")
        for module in re.findall(
            r"^\s*(?:from|import) (vaka[\w.]*)", path.read_text(), re.MULTILINE
        )
        if not module.startswith("vaka_sqlite")
    }

    assert imported == {"vaka.errors", "vaka.hooks", "vaka.models.storage"}


# -- what it does where it is installed ------------------------------------------------------------


def test_the_examples_own_tests_pass_where_it_is_installed(
    python: Path, tmp_path: Path, memory: Path
) -> None:
    shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")  # the package itself stays behind
    shutil.copy(EXAMPLE / "pyproject.toml", tmp_path)

    options = ("-q", "-rA", "-p", "no:cacheprovider", f"--basetemp={memory / 'tests'}")
    said = run(python, "-m", "pytest", *options, cwd=tmp_path)

    passed = {
        module: set(re.findall(rf"^PASSED tests/{module}\.py::(?:\w+::)?(\w+)", said, re.MULTILINE))
        for module in ("test_contract", "test_backend")
    }
    contract = {name for name in vars(MappingBackendContract) if name.startswith("test_")}
    assert passed["test_contract"] == contract
    assert passed["test_backend"]
    assert re.search(r"^\d+ passed in ", said, re.MULTILINE), said[-1000:]  # and nothing else


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """An empty folder, in memory where there is such a thing.

    The example makes sure that all it stores is on the disk, some thousand times in its tests.
    """
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        dir=shared if os.access(shared, os.W_OK) else tmp_path
    ) as folder:
        yield Path(folder)


@pytest.mark.docker
async def test_the_engine_runs_a_stored_configuration_on_it(
    python: Path, copy_image: str, docker_host: str, tmp_path: Path
) -> None:
    home, database = tmp_path / "home", tmp_path / "storage.db"
    home.mkdir()
    settings = {
        "home": str(home),
        "database": str(database),
        "instance": f"example-{uuid4().hex[:8]}",
        "runtime_url": f"docker+{docker_host}",
        "image": copy_image,
    }

    program = partial(run, python, JOB, json.dumps(settings), cwd=tmp_path)
    said = await trio.to_thread.run_sync(program)

    told: dict[str, Any] = json.loads(said.splitlines()[-1])
    assert told["storage"] == "SqliteBackend"
    assert all(Path(file).is_relative_to(python.parents[1]) for file in told["files"])
    assert (told["status"], told["message"]) == ("success", "Component processing finished.")
    assert told["columns"] == ["id", "name"]
    assert told["rows"] == [["1", 'Ann, "A."'], ["2", "Bob"]]
    assert stored(database) == {("in.c-main.people", 3), ("out.c-main.copy", 2)}
    assert list((home / "jobs").iterdir()) == []


@pytest.fixture
async def copy_image(docker_host: str, busybox_image: str) -> AsyncIterator[str]:
    """An image whose command copies the tables it is given, without their manifests."""
    reference = f"vaka-example-copy:{uuid4().hex[:12]}"
    name, _, tag = reference.partition(":")
    command = ["sh", "-c", "cp /data/in/tables/*.csv /data/out/tables/"]
    async with Docker(docker_host) as docker:
        container = await docker.containers.create({"Image": busybox_image})
        try:
            await container.commit(repository=name, tag=tag, changes=[f"CMD {json.dumps(command)}"])
        finally:
            await container.delete(force=True)
        try:
            yield reference
        finally:
            await docker.images.delete(reference, force=True)


def stored(database: Path) -> set[tuple[str, int]]:
    """The tables in the database, and how many rows each has."""
    connection = sqlite3.connect(database)
    try:
        tables = connection.execute('SELECT id, number FROM "table"').fetchall()
        return {
            (table, connection.execute(f"SELECT count(*) FROM rows_{number}").fetchone()[0])
            for table, number in tables
        }
    finally:
        connection.close()
