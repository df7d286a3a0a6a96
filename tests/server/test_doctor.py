"""`vaka doctor`: what is looked at, and what it advises."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from vaka.docker import Docker
from vaka_server.cli import doctor
from vaka_server.cli.doctor import Check, examine
from vaka_server.settings import Settings


async def checks(settings: Settings) -> dict[str, Check]:
    return {check.name: check async for check in examine(settings)}


@pytest.mark.docker
async def test_a_machine_that_can_run_jobs_passes(
    tmp_path: Path, docker_host: str, busybox_image: str
) -> None:
    home = private(tmp_path)
    found = await checks(Settings(home=home, runtime_url=runtime(docker_host)))
    assert {check.name: check for check in found.values() if check.state == "failed"} == {}
    assert found["mount"].state == "ok", found["mount"]
    assert {"home", "disk", "user", "docker", "version", "platform", "clock", "limits"} <= set(
        found
    )
    assert left_in(home) == []
    async with Docker(docker_host) as docker:
        left = await docker.containers.list(
            all=True, filters={"label": [f"{doctor.LABEL}={tmp_path}"]}
        )
        assert left == []


@pytest.mark.docker
async def test_a_folder_that_the_daemon_does_not_see_is_told(
    tmp_path: Path, docker_host: str, busybox_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as with a daemon on another machine: the name leads it to an empty folder of its own
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o777)
    elsewhere.chmod(0o777)

    @contextmanager
    def probe_folder(parent: Path, owner: tuple[int, int]) -> Iterator[tuple[Path, str]]:
        yield elsewhere, "token"

    monkeypatch.setattr(doctor, "probe_folder", probe_folder)
    async with Docker(docker_host) as docker:
        found = await doctor.check_mount(docker, Settings(home=tmp_path))
    assert found.state == "failed"
    assert "does not see" in found.detail
    assert "mount the home at the same path on both sides" in found.advice


@pytest.mark.docker
async def test_a_file_that_containers_may_not_read_is_told(
    tmp_path: Path, docker_host: str, busybox_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.fail("run as root: only root makes what its own containers may not read")
    monkeypatch.setattr("os.chown", lambda *_: None)
    async with Docker(docker_host) as docker:
        found = await doctor.check_mount(
            docker, Settings(home=tmp_path, container_user="1000:1000")
        )
    assert found.state == "failed"
    assert "user 1000:1000" in found.detail
    assert "VAKA_CONTAINER_USER" in found.advice


async def test_no_daemon_is_told_and_ends_the_examination(tmp_path: Path) -> None:
    missing = tmp_path / "docker.sock"
    found = await checks(Settings(home=tmp_path, runtime_url=f"docker+unix://{missing}"))
    assert list(found)[-1] == "docker"
    assert found["docker"].state == "failed"
    assert found["docker"].advice.startswith("Install Docker Engine and start it")


async def test_a_socket_that_nobody_serves_is_told(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    found = await checks(Settings(home=tmp_path, runtime_url=f"docker+unix://{path}"))
    assert found["docker"].advice.startswith("Start the Docker Engine")


@pytest.mark.parametrize(
    ("version", "state"),
    [("1.41", "ok"), ("1.54", "ok"), ("1.38", "failed"), (None, "failed"), ("x", "failed")],
)
def test_versions(version: str | None, state: str) -> None:
    assert doctor.check_version({"Version": "1", "ApiVersion": version}).state == state


@pytest.mark.parametrize(
    ("info", "state"),
    [
        ({"OSType": "linux", "Architecture": os.uname().machine}, "ok"),
        ({"OSType": "linux", "Architecture": "s390x"}, "warning"),
        ({"OSType": "windows", "Architecture": "x86_64"}, "failed"),
    ],
)
def test_platforms(info: dict[str, str], state: str) -> None:
    assert doctor.check_platform(info).state == state


class Clock:
    """A daemon whose clock is off."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.system = self

    async def info(self) -> dict[str, Any]:
        there = datetime.now(UTC) + timedelta(seconds=self._seconds)
        return {"SystemTime": there.strftime("%Y-%m-%dT%H:%M:%S.%f123Z")}


@pytest.mark.parametrize(("skew", "state"), [(0, "ok"), (30, "failed"), (-3600, "failed")])
async def test_clocks_that_differ_are_told(skew: float, state: str) -> None:
    found = await doctor.check_clock(Clock(skew))  # type: ignore[arg-type]
    assert found.state == state
    if skew:
        assert f"{abs(skew) - 1:.0f}"[:2] in found.detail or f"{abs(skew)}" in found.detail


@pytest.mark.parametrize(
    ("info", "state", "words"),
    [
        (
            {"MemoryLimit": True, "CpuCfsQuota": True, "PidsLimit": True, "SwapLimit": True},
            "ok",
            "",
        ),
        ({"MemoryLimit": True, "CpuCfsQuota": True, "PidsLimit": True}, "warning", "swap"),
        ({"MemoryLimit": False, "CpuCfsQuota": True, "PidsLimit": False}, "failed", "memory, proc"),
    ],
)
def test_limits(info: dict[str, Any], state: str, words: str) -> None:
    found = doctor.check_limits({"NCPU": 2, "MemTotal": 1000, **info})
    assert found.state == state
    assert words in found.detail


def test_a_home_is_private(tmp_path: Path) -> None:
    assert doctor.check_home(Settings(home=tmp_path / "none")).state == "warning"
    tmp_path.chmod(0o755)
    found = doctor.check_home(Settings(home=tmp_path))
    assert (found.state, found.advice) == (
        "warning",
        f"Run `chmod o= {tmp_path}`: jobs' data and the catalog are in it.",
    )
    tmp_path.chmod(0o700)
    assert doctor.check_home(Settings(home=tmp_path)).state == "ok"
    file = tmp_path / "file"
    file.touch()
    assert doctor.check_home(Settings(home=file)).state == "failed"


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LOW_DISK_BYTES", 1 << 62)
    assert doctor.check_disk("disk", tmp_path).state == "failed"


def test_who_containers_are(tmp_path: Path) -> None:
    assert doctor.check_user(Settings(home=tmp_path, container_user="0:0")).state == "warning"
    assert doctor.check_user(Settings(home=tmp_path)).state == "ok"


def test_a_daemon_that_remaps_users_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    found = doctor.check_users((200_000, 200_000))
    assert (found.state, "200000:200000" in found.detail) == ("ok", True)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    found = doctor.check_users((200_000, 200_000))
    assert (found.state, found.advice) == (
        "failed",
        "Run Vaka as root, or use a Docker Engine without userns-remap.",
    )


def test_settings_without_effect_are_told() -> None:
    assert doctor.check_settings({"VAKA_HOME": "/a"}).state == "ok"
    found = doctor.check_settings({"VAKA_CONCURENCY": "1"})
    assert (found.state, found.detail) == (
        "warning",
        "without effect: VAKA_CONCURENCY (did you mean VAKA_CONCURRENCY?)",
    )


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("docker://", None),
        ("docker+unix:///a/b", "unix:///a/b"),
        ("docker+tcp://h:1", "tcp://h:1"),
    ],
)
def test_addresses_of_daemons(url: str, address: str | None) -> None:
    assert doctor.docker_url(url) == address


def private(folder: Path) -> Path:
    folder.chmod(0o750)
    return folder


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def runtime(docker_host: str) -> str:
    return f"docker+{docker_host}"
