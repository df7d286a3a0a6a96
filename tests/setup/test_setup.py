"""The scripts behind `make`: what counts as a scenario, and which processes are ours to stop."""

import importlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / ".ci"

DOCUMENT = """\
## 1. Rules

1. Not a scenario.

## 2. Acceptance scenarios

### 2.1 First

1. One.
2. Two,
   over two lines.

### 2.2 Second

3. Three.

## 3. Open points

1. Not a scenario either.
"""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    module = importlib.import_module("machine")
    monkeypatch.setattr(module, "PIDS", tmp_path / "pids")
    return module


@pytest.fixture
def scenarios(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("scenarios")


@pytest.fixture
def daemon() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_scenarios_are_the_numbered_lines_of_their_chapter(
    scenarios: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "some.md").write_text(DOCUMENT)

    assert scenarios.scenarios(tmp_path / "some.md") == [1, 2, 3]


def test_a_deviation_needs_a_document_a_number_and_a_reason(
    scenarios: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "deviations.md").write_text(
        "# Deviations\n\n- runner 12: 202 is wrong\n- storage-api 7: not served\n"
        "- runner 13:\n- runner: 14 says otherwise\n"
    )

    assert scenarios.deviations(tmp_path / "deviations.md") == {"runner": {12}, "storage-api": {7}}
    assert scenarios.deviations(tmp_path / "none.md") == {}


def test_down_stops_what_was_remembered(
    machine: ModuleType, daemon: subprocess.Popen[bytes]
) -> None:
    machine.remember("daemon", daemon.pid, None)

    machine.down()

    assert daemon.wait(10) == -15
    assert list(machine.PIDS.iterdir()) == []


def test_down_leaves_a_stranger_alone_that_got_the_number(
    machine: ModuleType, daemon: subprocess.Popen[bytes]
) -> None:
    machine.remember("daemon", daemon.pid, None)
    (note,) = machine.PIDS.iterdir()
    note.write_text(json.dumps({**json.loads(note.read_text()), "born": "before/1"}))

    machine.down()

    assert daemon.poll() is None
    assert list(machine.PIDS.iterdir()) == []


@pytest.mark.parametrize(
    ("program", "kept"), [("sleep", True), ("dockerd", False)], ids=["its own", "a stranger's"]
)
def test_a_pid_file_is_kept_only_while_it_names_its_program(
    machine: ModuleType,
    daemon: subprocess.Popen[bytes],
    tmp_path: Path,
    program: str,
    kept: bool,
) -> None:
    file = tmp_path / "some.pid"
    file.write_text(str(daemon.pid))

    machine.forget_dead(file, program)

    assert file.exists() is kept


def test_the_pid_file_of_a_dead_process_is_removed(machine: ModuleType, tmp_path: Path) -> None:
    ended = subprocess.Popen(["sleep", "0"])
    ended.wait()
    file = tmp_path / "some.pid"
    file.write_text(str(ended.pid))

    machine.forget_dead(file, "sleep")

    assert not file.exists()


def test_everything_missing_is_named_at_once_and_nothing_is_touched_without_root(
    machine: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "is_root", lambda: False)
    monkeypatch.setattr(
        machine,
        "NEEDS",
        {
            name: lambda name=name: [machine.Missing(f"no {name}", f"get {name}", (name,))]
            for name in ("docker", "postgresql")
        },
    )

    with pytest.raises(machine.Unready, match=r"(?s)without root.*no docker.*no postgresql"):
        machine.ensure(["docker", "postgresql"])


def test_an_address_without_a_daemon_is_named_with_the_reason(
    machine: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    (missing,) = machine.missing_docker()
    assert f"{tmp_path}/none.sock" in missing.what
    assert os.strerror(2) in missing.what

    monkeypatch.setenv("DOCKER_HOST", "ssh://elsewhere")
    (missing,) = machine.missing_docker()
    assert "must begin with unix:// or tcp://" in missing.what
    assert missing.packages == ()
