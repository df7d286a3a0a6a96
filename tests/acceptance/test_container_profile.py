"""The rights that a component has by default, as it finds them inside its own container."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.acceptance.images import Images

from vaka import Engine, EngineConfig, Job, JobSpec, Status
from vaka.docker import Docker

pytestmark = pytest.mark.docker

MEGABYTES = 48
LOOK = r"""
first() { for file; do if [ -e "$file" ]; then cat "$file"; return; fi; done; echo none; }
echo "user: $(id -u):$(id -g)"
echo "groups: $(id -G)"
grep -E '^(Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp):' /proc/self/status
echo "init: $(cat /proc/1/comm)"
echo "network: $(ls /sys/class/net)"
cg=/sys/fs/cgroup
echo "memory: $(first $cg/memory.max $cg/memory/memory.limit_in_bytes)"
echo "swap: $(first $cg/memory.swap.max $cg/memory/memory.memsw.limit_in_bytes)"
echo "pids: $(first $cg/pids.max $cg/pids/pids.max)"
echo "cpu: $(first $cg/cpu.max $cg/cpu/cpu.cfs_quota_us $cg/cpu,cpuacct/cpu.cfs_quota_us)"
echo "variables: $(env | sed 's/=.*//' | sort | tr '\n' ' ')"
echo "devices: $(ls /dev | tr '\n' ' ')"
echo "mounts: $(awk '{print $5}' /proc/self/mountinfo | tr '\n' ' ')"
try() { if "$@" 2>/dev/null; then echo "$1: allowed"; else echo "$1: refused"; fi; }
try mount -t tmpfs none /data
try mknod /data/disk b 8 0
try chown 0:0 /data/out/state.json
try touch /etc/passwd
try hostname changed
try kill -0 1
"""
DOCKERS_OWN = {"/etc/resolv.conf", "/etc/hostname", "/etc/hosts", "/sbin/docker-init"}
KERNELS_OWN = ("/proc", "/sys", "/dev")
HARMLESS_DEVICES = {
    *("core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin"),
    *("stdout", "tty", "urandom", "zero", "console"),
}


@pytest.fixture
async def engine(docker_host: str, tmp_path: Path) -> AsyncIterator[Engine]:
    config = EngineConfig(
        home=tmp_path / "home",
        instance=f"test-{secrets.token_hex(4)}",
        runtime_url=f"docker+{docker_host}",
        container_user="1000:1000",
        cpus=1,
    )
    async with Engine(config) as engine:
        yield engine


async def found(engine: Engine, images: Images, **definition: object) -> dict[str, str]:
    """What a component found in its container, by name."""
    component = images.component("test.look", LOOK, memory=f"{MEGABYTES}m", **definition)
    features = component["data"].pop("features", [])
    await engine.catalog.put_component({**component, "features": features})
    job = await engine.submit(JobSpec(component="test.look", config_data={}))
    assert (await job.wait()).status is Status.SUCCESS, job.record.result
    return await said(job)


async def said(job: Job) -> dict[str, str]:
    lines = [event.message async for event in job.events() if event.kind == "log"]
    pairs = (line.partition(":") for line in lines)
    return {name: value.strip() for name, _, value in pairs}


async def test_a_component_has_no_right_that_it_does_not_need(
    engine: Engine, images: Images
) -> None:
    inside = await found(engine, images)

    assert (inside["user"], inside["groups"]) == ("1000:1000", "1000")
    assert {inside[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert inside["NoNewPrivs"] == "1"
    assert inside["Seccomp"] == "2"  # a filter
    assert inside["init"] in ("docker-init", "tini")
    for attempt in ("mount", "mknod", "chown", "touch", "hostname", "kill"):
        # init is of the same user: it can be seen, as any process of the container
        assert inside[attempt] == ("allowed" if attempt == "kill" else "refused"), attempt


async def test_a_component_sees_nothing_of_the_host_but_its_own_folders(
    engine: Engine, images: Images
) -> None:
    inside = await found(engine, images)

    mounts = set(inside["mounts"].split())
    of_the_host = {
        each for each in mounts if each != "/" and not each.startswith(KERNELS_OWN)
    } - DOCKERS_OWN
    assert of_the_host == {"/data", "/tmp"}
    assert set(inside["devices"].split()) <= HARMLESS_DEVICES
    assert inside["network"] == "lo"
    variables = {each for each in inside["variables"].split() if not each.startswith("KBC_")}
    assert variables <= {"HOME", "HOSTNAME", "PATH", "PWD", "SHLVL", "PYTHONUNBUFFERED"}


async def test_memory_processes_and_cpus_of_a_component_are_limited(
    engine: Engine, images: Images, docker_host: str
) -> None:
    async with Docker(docker_host) as docker:
        host = await docker.system.info()

    usual = await found(engine, images)
    without_swap = await found(engine, images, features=["no-swap"])

    memory = MEGABYTES << 20
    assert usual["memory"] == without_swap["memory"] == str(memory)
    assert usual["pids"] == "4096"
    assert usual["cpu"].split()[0] == "100000"  # microseconds of each 100,000: one CPU
    if host["CgroupVersion"] == "2":
        swap = (str(memory), "0")
    elif host["SwapLimit"]:
        swap = (str(2 * memory), str(memory))  # memory and swap together
    else:
        swap = ("none", "none")  # a kernel that does not count swap: Docker warns at its start
    assert (usual["swap"], without_swap["swap"]) == swap
