"""What real containers may use, reach and leave behind."""

from __future__ import annotations

import secrets
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trio
from tests.acceptance.images import Images

from vaka import Engine, EngineConfig, Job, JobSpec, Status
from vaka.datafolder import JobFolder, Kind, Sources
from vaka.docker import Docker

pytestmark = pytest.mark.docker


@pytest.fixture
async def engine(docker_host: str, tmp_path: Path) -> AsyncIterator[Engine]:
    config = EngineConfig(
        home=tmp_path / "home",
        instance=f"test-{secrets.token_hex(4)}",
        runtime_url=f"docker+{docker_host}",
    )
    async with Engine(config) as engine:
        yield engine


async def run(engine: Engine, component: str, project: str = "1") -> Job:
    """A job of a component, ended."""
    job = await engine.submit(JobSpec(component=component, config_data={}, project=project))
    await job.wait()
    return job


async def run_together(engine: Engine, *jobs: tuple[str, str]) -> list[Job]:
    """Jobs of (component, project), side by side."""
    done: dict[int, Job] = {}

    async def one(index: int) -> None:
        done[index] = await run(engine, *jobs[index])

    async with trio.open_nursery() as nursery:
        for index in range(len(jobs)):
            nursery.start_soon(one, index)
    return [done[index] for index in range(len(jobs))]


@pytest.mark.scenario("runner", 122)
@pytest.mark.scenario("runner", 123)
@pytest.mark.scenario("runner", 124)
async def test_memory_is_limited_by_the_component_and_its_project(
    engine: Engine, images: Images
) -> None:
    hungry = images.component("test.hungry", "tail /dev/zero || true", memory="32m")
    await engine.catalog.put_component(hungry)
    poor = await engine.catalog.create_project(
        "Poor", limits={"runner.test.hungry.memoryLimitMBs": 10}
    )

    jobs = await run_together(engine, ("test.hungry", "1"), ("test.hungry", poor.id))

    for job, limit, megabytes in zip(jobs, ("32m", "10M"), (32, 10), strict=True):
        assert job.record.error == "user"
        assert job.record.result["message"] == f"Component out of memory (exceeded {limit})"
        assert job.record.cause is not None
        evidence = job.record.cause.evidence
        assert evidence["limit_bytes"] == megabytes << 20
        # the kernel tells it, where its log may be read and not too many are killed at a time
        assert evidence["peak_bytes"] in (None, megabytes << 20)


@pytest.fixture
def outside(docker_host: str) -> Iterator[int]:
    """Port of a host outside the containers, on every address of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"reached\n")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("0.0.0.0", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.scenario("runner", 125)
async def test_the_network_is_the_components(
    engine: Engine, images: Images, docker_host: str, outside: int
) -> None:
    async with Docker(docker_host) as docker:
        bridge = await (await docker.networks.get("bridge")).show()
    gateway = bridge["IPAM"]["Config"][0]["Gateway"]
    reach = f"wget -q -O - http://{gateway}:{outside}/ 2>&1"
    for name, network, script in (
        ("test.alone", "none", "wget -q -O - http://example.com/ 2>&1"),
        ("test.cut-off", "none", reach),
        ("test.bridged", "bridge", reach),
    ):
        await engine.catalog.put_component(images.component(name, script, network=network))

    alone, cut_off, bridged = await run_together(
        engine, *((name, "1") for name in ("test.alone", "test.cut-off", "test.bridged"))
    )

    assert (alone.record.error, cut_off.record.error) == ("user", "user")
    assert "bad address 'example.com'" in alone.record.result["message"]
    assert "Network is unreachable" in cut_off.record.result["message"]
    assert bridged.record.status is Status.SUCCESS, bridged.record.result
    assert "reached" in [event.message async for event in bridged.events()]


LOCKED = """
    echo 'id' > /data/out/tables/locked.csv
    chmod 000 /data/out/tables/locked.csv
    mkdir -m 000 /data/out/files/closed
    cat /data/out/tables/locked.csv
"""


@pytest.mark.scenario("runner", 110)
@pytest.mark.scenario("runner", 188)
async def test_an_image_that_needs_root_may_leave_files_that_nobody_may_read(
    engine: Engine, images: Images
) -> None:
    bucket = {"default_bucket": True}
    root = images.component("test.root", LOCKED, **bucket) | {"features": ["container-root-user"]}
    await engine.catalog.put_component(root)
    await engine.catalog.put_component(images.component("test.plain", LOCKED, **bucket))
    for component in ("test.root", "test.plain"):
        await engine.catalog.create_configuration("1", component, "C", config_id="c")
    configured = [
        await engine.submit(JobSpec(component=component, config="c"))
        for component in ("test.root", "test.plain")
    ]

    with_root, without = [await job.wait() for job in configured]

    assert with_root.status is Status.SUCCESS, with_root.message
    (table,) = with_root.result["output"]["tables"]
    assert table["id"] == "in.c-test-root-c.locked"
    assert without.error == "user"
    assert "Permission denied" in without.message


@pytest.mark.scenario("runner", 188)
async def test_an_engine_that_is_not_root_has_the_folder_given_back(
    engine: Engine, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    rights: list[tuple[int, int]] = []

    def refuse(*_: object) -> None:
        raise PermissionError("Operation not permitted")

    sources = JobFolder.sources

    def look(folder: JobFolder, kind: Kind) -> Sources:
        found = (folder.data / "out/tables/locked.csv").stat()
        rights.append((found.st_uid, found.st_mode & 0o600))
        return sources(folder, kind)

    monkeypatch.setattr(JobFolder, "normalise_permissions", refuse)
    monkeypatch.setattr(JobFolder, "sources", look)  # the first to read what the container left
    root = images.component("test.root", LOCKED, default_bucket=True)
    await engine.catalog.put_component(root | {"features": ["container-root-user"]})
    await engine.catalog.create_configuration("1", "test.root", "C", config_id="c")

    job = await engine.submit(JobSpec(component="test.root", config="c"))

    assert (await job.wait()).status is Status.SUCCESS
    assert set(rights) == {(engine.config.owner[0], 0o600)}
    assert images.containers(engine.config.instance) == []
