"""A Docker Engine that gives containers users of their own (`userns-remap`), which nobody else uses."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.acceptance.images import Images
from tests.chaos.daemons import OwnDaemon, own_daemon

from vaka import Engine, EngineConfig, JobSpec, Outcome, Status
from vaka_server.cli.doctor import examine
from vaka_server.settings import Settings

pytestmark = pytest.mark.docker

FIRST = 200_000
"""Who the root of containers is on the host."""
RANGES = f"""
ranges=$(mktemp); echo nobody:{FIRST}:65536 > $ranges
mount --bind $ranges /etc/subuid; mount --bind $ranges /etc/subgid; rm $ranges
exec dockerd --userns-remap nobody:nogroup "$@"
"""
IN_AND_OUT = f"""
set -e
stat -c %u:%g /data/config.json; id -u; grep -q parameters /data/config.json && echo read
grep -q " {FIRST} " /proc/self/uid_map && echo apart
printf 'id\\n1\\n' > /data/out/tables/a.csv
"""
ADDS = "set -e; cp /data/in/tables/a.csv /data/out/tables/a.csv; echo 2 >> /data/out/tables/a.csv"
LOCKED = "printf 'id\\n1\\n' > /data/out/tables/a.csv; chmod 600 /data/out/tables/a.csv; id -u"


class RemappedDaemon(OwnDaemon):
    """One with ranges of users that only it sees."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o711)  # its containers' users go through it to their images
        super().__init__(folder)

    command = ("unshare", "--net", "--mount", "--", "sh", "-euc", RANGES, "dockerd")


@pytest.fixture(scope="module")
def daemon(docker_host: str, busybox_image: str) -> Iterator[OwnDaemon]:
    with own_daemon(busybox_image, docker_host, kind=RemappedDaemon) as daemon:
        yield daemon


@pytest.fixture
def components(daemon: OwnDaemon, busybox_image: str) -> Iterator[Images]:
    with closing(Images(daemon.host, busybox_image)) as images:
        yield images


@pytest.fixture
async def engine(daemon: OwnDaemon, tmp_path: Path) -> AsyncIterator[Engine]:
    config = EngineConfig(
        home=tmp_path / "home",
        instance=f"test-{secrets.token_hex(4)}",
        runtime_url=f"docker+{daemon.host}",
    )
    async with Engine(config) as engine:
        yield engine
    assert daemon.containers() == []
    assert list((config.home / "jobs").iterdir()) == []


async def run(engine: Engine, component: str, **spec: object) -> tuple[Outcome, list[str]]:
    """A job's outcome, and what its containers printed."""
    job = await engine.submit(JobSpec.model_validate({"component": component, **spec}))
    outcome = await job.wait()
    return outcome, [event.message async for event in job.events() if event.kind == "log"]


async def test_a_chain_reads_and_writes_its_folder_as_a_user_that_is_nobody_on_the_host(
    engine: Engine, components: Images
) -> None:
    await engine.catalog.put_component(components.component("test.a", IN_AND_OUT))
    adds = components.component("test.adds", ADDS)
    await engine.catalog.put_component({**adds, "type": "processor"})
    configuration = {
        "parameters": {},
        "storage": {"output": {"tables": [{"source": "a.csv", "destination": "out.c-b.a"}]}},
        "processors": {"after": [{"definition": {"component": "test.adds"}}]},
    }

    outcome, printed = await run(engine, "test.a", config_data=configuration)

    assert outcome.status is Status.SUCCESS, outcome.message
    assert printed == ["1000:1000", "1000", "read", "apart"]
    (table,) = outcome.result["output"]["tables"]
    assert table["id"] == "out.c-b.a"


async def test_what_root_of_a_container_leaves_is_taken_back(
    engine: Engine, components: Images
) -> None:
    root = components.component("test.root", LOCKED)
    await engine.catalog.put_component({**root, "features": ["container-root-user"]})
    configuration = {
        "storage": {"output": {"tables": [{"source": "a.csv", "destination": "out.c-b.root"}]}}
    }

    outcome, printed = await run(engine, "test.root", config_data=configuration)

    assert (outcome.status, printed) == (Status.SUCCESS, ["0"]), outcome.message


async def test_the_doctor_tells_that_users_are_remapped_and_that_folders_can_be_used(
    daemon: OwnDaemon, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, runtime_url=f"docker+{daemon.host}")

    found = {check.name: check async for check in examine(settings)}

    assert found["users"].state == "ok"
    assert f"{FIRST}:{FIRST}" in found["users"].detail
    assert found["mount"].state == "ok", found["mount"]
