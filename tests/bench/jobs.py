"""Jobs beside raw containers: `job overhead`, `submit to start` and `8 at a time`.

Our side is the embedded engine on a fresh home: a registered component, a stored configuration, one
small table in and one out. The other side is what no runner can do without: create, attach, start,
read, wait and remove, over the daemon's socket with `http.client`. Both run the same image with the
same options: the body that the other side sends is made, by the same function, of the container spec
that our side was seen to use, with a data folder that was prepared before. How the daemon comes by what
a spec asks for is each side's own affair: our side joins a network namespace that it has made before
(`vaka.holders`), which `8 at a time` also tells the figure without.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import trio
from tests.bench.daemon import LABEL, Daemon, RawRun, copying_image
from tests.bench.measuring import (
    Measure,
    at_least,
    at_most,
    interleave,
    median,
    paired_ratio,
    spread,
    temporary_folder,
)

from vaka import Engine, EngineConfig, JobSpec
from vaka.hooks import SpecContext, hookimpl
from vaka.models.container import ContainerSpec, Mount
from vaka.models.storage import StorageScope, TableLoad
from vaka.runtime import container_body

COMPONENT = "bench.copy"
ROWS = 100
PAIRS = 24
"""Jobs and raw containers of `job overhead`, one after the other."""
AT_A_TIME = 8
JOBS = 48
"""Of one round of `8 at a time`."""
ROUNDS = 3
START_ALLOWANCE = 0.040
"""Seconds that a job may start later than a raw container."""


@dataclass(frozen=True, slots=True)
class JobRun:
    """One job as its submitter saw it."""

    seconds: float
    """From `submit` until `wait` has returned."""
    cpu: float
    """Seconds of CPU that our process took."""
    to_start: float
    """Seconds from `submit` until the container ran, by the daemon's clock."""


class Seen:
    """A plugin that remembers what the engine asked its runtime for last."""

    spec: ContainerSpec

    @hookimpl
    def vaka_container_spec(self, spec: ContainerSpec, context: SpecContext) -> None:
        self.spec = spec


class Raw:
    """The raw side: connections and prepared data folders, one of each a thread."""

    def __init__(self, folder: Path, owner: tuple[int, int], table: bytes) -> None:
        self._folders = [folder / str(thread) for thread in range(AT_A_TIME)]
        self._daemons = [Daemon() for _ in self._folders]
        self._numbers = count()
        self._cpus: int = self._daemons[0].call("GET", "/info")["NCPU"]
        for each in self._folders:
            for name in ("data/in/tables", "data/out/tables", "tmp"):
                (each / name).mkdir(parents=True)
            (each / "data/in/tables/rows.csv").write_bytes(table)
            for path in each.rglob("*"):
                os.chown(path, *owner)

    def close(self) -> None:
        """Remove what may be left of the containers."""
        self._daemons[0].remove_all(f"{LABEL}={os.getpid()}")
        for daemon in self._daemons:
            daemon.close()

    async def run_one(self, spec: ContainerSpec) -> RawRun:
        """One container with the options of `spec`."""
        return (await trio.to_thread.run_sync(self._run, spec, 0, 1))[0]

    async def run_many(self, spec: ContainerSpec) -> float:
        """Containers a second, `JOBS` of them in `AT_A_TIME` threads."""
        clock = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for thread in range(AT_A_TIME):
                nursery.start_soon(
                    trio.to_thread.run_sync, self._run, spec, thread, JOBS // AT_A_TIME
                )
        return JOBS / (time.perf_counter() - clock)

    def _run(self, spec: ContainerSpec, thread: int, times: int) -> list[RawRun]:
        folder = self._folders[thread]
        # as many labels, but none that makes the engine think that the container is its own
        labels = {f"{LABEL}.{key}": value for key, value in spec.labels.items()}
        mine = replace(
            spec,
            labels={**labels, LABEL: str(os.getpid())},
            mounts=(Mount(folder / "data", "/data"), Mount(folder / "tmp", "/tmp")),
        )
        body = container_body(mine, cpus=self._cpus)
        return [
            self._daemons[thread].run(f"vaka-bench-{os.getpid()}-{next(self._numbers)}", body)
            for _ in range(times)
        ]


class Bench:
    """An open engine with everything that a job needs, and the raw side of the same."""

    def __init__(self, engine: Engine, project: str, seen: Seen, raw: Raw) -> None:
        self._engine = engine
        self._project = project
        self._seen = seen
        self._raw = raw

    async def run_job(self, config: int = 0) -> JobRun:
        """Submit one job and wait for its end."""
        began, clock, cpu = datetime.now(UTC), time.perf_counter(), time.process_time()
        job = await self._engine.submit(
            JobSpec(component=COMPONENT, config=str(config), project=self._project)
        )
        outcome = await job.wait()
        seconds, cpu = time.perf_counter() - clock, time.process_time() - cpu
        outcome.raise_for_status()
        (stage,) = job.record.stages
        assert stage.started_at is not None
        return JobRun(seconds, cpu, (stage.started_at - began).total_seconds())

    async def run_jobs(self) -> float:
        """Jobs a second, all submitted at once, each of a configuration of its own."""
        clock = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for config in range(JOBS):
                nursery.start_soon(self.run_job, config)
        return JOBS / (time.perf_counter() - clock)

    async def run_raw(self) -> RawRun:
        """One container as the last job had it."""
        return await self._raw.run_one(self._seen.spec)

    async def run_raw_many(self) -> float:
        """Containers a second, each as the last job had it."""
        return await self._raw.run_many(self._seen.spec)


@asynccontextmanager
async def open_bench(network_holders: int | None = None) -> AsyncIterator[Bench]:
    """An engine on a fresh home that has run one job, and the raw side with the same options."""
    tag = f"{os.getpid()}-{network_holders}"
    table, seen = _table(), Seen()
    with temporary_folder() as folder, copying_image(tag) as image:
        config = EngineConfig(
            home=folder / "home",
            instance=f"bench-{tag}",
            concurrency=AT_A_TIME,
            network_holders=network_holders,
            shutdown="stop",
        )
        with closing(Raw(folder / "raw", config.owner, table)) as raw:
            async with Engine(config, plugins=[seen]) as engine:
                project = await _set_up(engine, image, tag, folder, table)
                bench = Bench(engine, project, seen, raw)
                await bench.run_job()  # everything is loaded, connected and compiled
                await bench.run_raw()
                yield bench


async def measure_sequential() -> list[Measure]:
    """`job overhead` and `submit to start`: one job after the other on an engine that is idle else.

    Overhead: wall time from `submit` to the return of `wait` against the raw sequence. Start: from
    `submit` to the container's `StartedAt`, against the same from the raw side's create; both are the
    daemon's clock, which on one host is ours. Milliseconds, `PAIRS` interleaved pairs.
    """
    async with open_bench() as bench:
        jobs, raws = await interleave(PAIRS, lambda _: bench.run_job(), lambda _: bench.run_raw())
    cpu = [job.cpu * 1000 for job in jobs]
    overhead = at_most(
        "job overhead",
        [job.seconds * 1000 for job in jobs],
        [raw.seconds * 1000 for raw in raws],
        "ms",
        1.25,
        f"CPU of our process: {median(cpu):.0f} ms a job ({spread(cpu)})",
    )
    ours = [job.to_start * 1000 for job in jobs]
    theirs = [(raw.started - raw.begun) * 1000 for raw in raws]
    later = median([mine - other for mine, other in zip(ours, theirs, strict=True)])
    allowance = START_ALLOWANCE * 1000
    start = Measure(
        "submit to start",
        median(ours),
        median(theirs),
        "ms",
        paired_ratio(ours, theirs),
        f"<= reference + {allowance:g} ms",
        later <= allowance,
        (f"{later:+.0f} ms (median of n = {PAIRS} differences)",),
    )
    return [overhead, start]


async def measure_concurrent() -> list[Measure]:
    """`8 at a time`: `JOBS` jobs of as many configurations through an engine that runs 8 at a time.

    Against 8 threads that run as many raw containers. Containers a second from the first request to
    the last answer; `ROUNDS` interleaved rounds.
    """
    async with open_bench() as bench, open_bench(network_holders=0) as plain:
        await bench.run_jobs()  # the namespaces are made
        ours, theirs = await interleave(
            ROUNDS, lambda _: bench.run_jobs(), lambda _: bench.run_raw_many()
        )
        without = await plain.run_jobs()
    return [
        at_least(
            "8 at a time",
            ours,
            theirs,
            "containers/s",
            0.85,
            f"{JOBS} containers a round",
            f"without holders of namespaces: {without:.3g} (one round)",
        )
    ]


async def _set_up(engine: Engine, image: str, tag: str, folder: Path, table: bytes) -> str:
    """A project with the component, its configurations and the input table."""
    project = (await engine.catalog.create_project("Bench")).id
    await engine.catalog.put_component(component_document(image, tag))
    for config in range(JOBS):
        await engine.catalog.create_configuration(
            project,
            COMPONENT,
            f"Copy {config}",
            config_id=str(config),
            configuration=configuration(f"rows{config}"),
        )
    source = folder / "rows.csv"
    source.write_bytes(table)
    await engine.storage.tables.load(
        StorageScope(project), [TableLoad("in.c-bench.rows", (source,), primary_key=("id",))]
    )
    return project


def component_document(image: str, tag: str) -> dict[str, Any]:
    return {
        "id": COMPONENT,
        "type": "application",
        "name": "Copies tables",
        "data": {
            "definition": {"type": "dockerhub", "uri": image, "tag": tag},
            "network": "none",
            "memory": "64m",
            "process_timeout": 60,
        },
    }


def configuration(destination: str) -> dict[str, Any]:
    return {
        "storage": {
            "input": {"tables": [{"source": "in.c-bench.rows", "destination": "rows.csv"}]},
            "output": {
                "tables": [{"source": "rows.csv", "destination": f"out.c-bench.{destination}"}]
            },
        }
    }


def _table() -> bytes:
    rows = "".join(f'"{row}","name {row}","{row * 7 % 97}","2026-01-01"\n' for row in range(ROWS))
    return f'"id","name","amount","day"\n{rows}'.encode()
