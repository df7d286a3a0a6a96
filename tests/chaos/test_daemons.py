"""The short form of the daemon's deaths in `make chaos`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.chaos.daemons import SCRIPT, Death, OwnDaemon, judge, own_daemon, run_job

from vaka import Status
from vaka.models.job import CauseKind

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def daemon(docker_host: str, busybox_image: str) -> Iterator[OwnDaemon]:
    with own_daemon(busybox_image, docker_host) as daemon:
        yield daemon


@pytest.mark.parametrize(("method", "seconds"), [("create", 0.01), ("remove", 0.0)])
async def test_a_daemon_that_dies_when_nothing_runs_is_waited_for(
    daemon: OwnDaemon, busybox_image: str, tmp_path: Path, method: str, seconds: float
) -> None:
    ended = await run_job(Death(daemon, method, seconds), tmp_path, busybox_image, SCRIPT)

    assert ended.outcome.status is Status.SUCCESS
    assert judge(daemon, ended) == []


async def test_a_daemon_that_dies_while_it_starts_a_container_does_not_run_it_twice(
    daemon: OwnDaemon, busybox_image: str, tmp_path: Path
) -> None:
    ended = await run_job(Death(daemon, "start", 0.09), tmp_path, busybox_image, SCRIPT)

    assert judge(daemon, ended) == []


async def test_what_a_daemon_that_died_takes_with_it_is_told(
    daemon: OwnDaemon, busybox_image: str, tmp_path: Path
) -> None:
    script = f"{SCRIPT} & wait $!; sleep 1000 & wait $!"

    ended = await run_job(Death(daemon, "wait", 0.5), tmp_path, busybox_image, script)

    assert ended.outcome.status is Status.ERROR
    assert ended.outcome.cause is not None
    assert ended.outcome.cause.kind is CauseKind.RUNTIME_LOST
    assert ended.outcome.cause.evidence["exit_code"] in (137, 143)
    assert judge(daemon, ended) == []


async def test_what_ends_while_its_daemon_is_dead_has_ended_as_it_did(
    daemon: OwnDaemon, busybox_image: str, tmp_path: Path
) -> None:
    death = Death(daemon, "wait", 0.0)
    daemon_start = daemon.start
    ends = tmp_path / "jobs"

    def start_later() -> None:
        # the container's last line is in its log, of which the daemon knows nothing yet
        while not list(ends.glob("*/tmp/ended")):
            time.sleep(0.01)
        daemon_start()

    daemon.start = start_later  # type: ignore[method-assign]
    try:
        ended = await run_job(death, tmp_path, busybox_image, f"{SCRIPT}; touch /tmp/ended")
    finally:
        daemon.start = daemon_start  # type: ignore[method-assign]

    assert ended.outcome.status is Status.SUCCESS
    assert judge(daemon, ended) == []
