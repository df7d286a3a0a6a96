"""Components that fill the file system of the jobs' folders, which is one of its own and small."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
from tests.acceptance.images import Images

from vaka import Engine, EngineConfig, Job, JobSpec, Status
from vaka.models.job import CauseKind

pytestmark = pytest.mark.docker

FILL = "dd if=/dev/zero of=/data/out/files/a bs=1M 2>&1"
NEIGHBOUR = "touch /data/here; echo ready; while [ -e /data/here ]; do sleep 0.1; done; echo woken"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home whose jobs have 16 MiB together."""
    jobs = tmp_path / "home/jobs"
    jobs.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "jobs", str(jobs)], check=True)
    yield tmp_path / "home"
    subprocess.run(["umount", str(jobs)], check=True)


@pytest.fixture
async def engine(docker_host: str, home: Path, images: Images) -> AsyncIterator[Engine]:
    config = EngineConfig(
        home=home,
        instance=f"test-{secrets.token_hex(4)}",
        runtime_url=f"docker+{docker_host}",
        disk_stop_bytes=0,
    )
    async with Engine(config) as engine:
        yield engine
    assert images.containers(config.instance) == []
    assert list((home / "jobs").iterdir()) == []


async def begin(engine: Engine, images: Images, name: str, script: str) -> Job:
    """A job of a component that is this script, under way."""
    await engine.catalog.put_component(images.component(name, script))
    return await engine.submit(JobSpec(component=name, config_data={}))


async def test_who_fills_the_disk_ends_and_its_neighbour_goes_on(
    engine: Engine, images: Images, home: Path
) -> None:
    neighbour = await begin(engine, images, "test.neighbour", NEIGHBOUR)
    async for event in neighbour.events():
        if event.message == "ready":
            break

    hog = await (await begin(engine, images, "test.hog", f"{FILL}; exit 1")).wait()
    (home / f"jobs/{neighbour.id}/data/here").unlink()
    other = await neighbour.wait()
    later = await (
        await begin(engine, images, "test.later", "dd if=/dev/zero of=/tmp/a bs=1M count=8")
    ).wait()

    assert (hog.error, hog.cause and hog.cause.kind) == ("user", CauseKind.USER_ERROR)
    assert "No space left on device" in hog.message
    assert other.status is Status.SUCCESS, other.message
    assert later.status is Status.SUCCESS, later.message


async def test_who_leaves_no_room_for_the_engine_is_told_of_the_disk(
    engine: Engine, images: Images, home: Path
) -> None:
    processor = images.component("test.after", "true")
    await engine.catalog.put_component({**processor, "type": "processor"})
    await engine.catalog.put_component(images.component("test.hog", f"{FILL}; true"))
    # what the processor is given is more than the last page of a file has room for
    given = {"definition": {"component": "test.after"}, "parameters": {"a": "x" * 100_000}}
    after = {"processors": {"after": [given]}}

    with trio.fail_after(120):
        hog = await (await engine.submit(JobSpec(component="test.hog", config_data=after))).wait()

    assert hog.error == "application", hog
    assert hog.cause is not None
    assert hog.cause.kind is CauseKind.STORAGE
    assert hog.cause.evidence["detail"] == "The disk is full: free some of it."
