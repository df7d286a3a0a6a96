"""A component that a plugin gives another OCI runtime, on a Docker Engine that nobody else uses.

Settings of the daemon and plugin are those of `docs/guides/operate.md`.
"""

from __future__ import annotations

import platform
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.acceptance.images import Images
from tests.chaos.daemons import OwnDaemon, own_daemon
from tests.examples.test_operate_guide import TEXT

from vaka import Engine, EngineConfig, JobSpec, Outcome, Status

pytestmark = pytest.mark.docker

LOOK = """
set -e
cat /proc/version; stat -c %u:%g /data/config.json; id -u; grep CapEff /proc/self/status
cat /proc/net/dev | grep -v -e lo: -e Inter -e face || echo alone
printf 'id\\n1\\n' > /data/out/tables/a.csv
"""
OUTPUT = {"storage": {"output": {"tables": [{"source": "a.csv", "destination": "out.c-b.a"}]}}}


@pytest.fixture(scope="module")
def daemon(
    docker_host: str, busybox_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OwnDaemon]:
    (document,) = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    settings = tmp_path_factory.mktemp("daemon") / "daemon.json"
    settings.write_text(document)
    with own_daemon(busybox_image, docker_host, "--config-file", str(settings)) as daemon:
        yield daemon


@pytest.fixture
def components(daemon: OwnDaemon, busybox_image: str) -> Iterator[Images]:
    with closing(Images(daemon.host, busybox_image)) as images:
        yield images


@pytest.fixture
async def engine(daemon: OwnDaemon, tmp_path: Path) -> AsyncIterator[Engine]:
    (program,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    program = program.replace('{"vendor.unknown"}', '{"test.strange"}')
    plugin: dict[str, Any] = {"__name__": "of_the_guide"}
    exec(program, plugin)
    config = EngineConfig(
        home=tmp_path / "home",
        instance=f"test-{secrets.token_hex(4)}",
        runtime_url=f"docker+{daemon.host}",
    )
    async with Engine(config, plugins=[SimpleNamespace(**plugin)]) as engine:
        yield engine
    assert daemon.containers() == []


async def run(engine: Engine, component: str) -> tuple[Outcome, list[str]]:
    """A job's outcome, and what its container printed."""
    job = await engine.submit(JobSpec(component=component, config_data=OUTPUT))
    outcome = await job.wait()
    return outcome, [event.message async for event in job.events() if event.kind == "log"]


async def test_a_component_runs_on_a_kernel_of_its_own_and_its_neighbour_on_the_hosts(
    engine: Engine, components: Images
) -> None:
    for name in ("test.strange", "test.usual"):
        await engine.catalog.put_component(components.component(name, LOOK))

    strange, (version, *seen) = await run(engine, "test.strange")
    usual, (host_version, *usually_seen) = await run(engine, "test.usual")

    assert (strange.status, usual.status) == (Status.SUCCESS, Status.SUCCESS), strange.message
    assert platform.release() in host_version
    assert platform.release() not in version
    assert seen == usually_seen == ["1000:1000", "1000", "CapEff:\t0000000000000000", "alone"]
    (table,) = strange.result["output"]["tables"]
    assert table["id"] == "out.c-b.a"
