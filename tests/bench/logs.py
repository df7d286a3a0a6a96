"""A container that prints as fast as it can: `log lines` and `log CPU`.

Our side is a job of the embedded engine whose configuration has secrets to hide: every line is read,
masked, numbered and stored. The other side reads the same container over an attached connection with
`http.client` and does nothing with what it gets. Neither may lose a line.
"""

from __future__ import annotations

import os
import time
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import trio
from tests.bench.daemon import BASE_IMAGE, LABEL, Daemon
from tests.bench.jobs import Seen
from tests.bench.measuring import Measure, interleave, median, spread, temporary_folder, within
from tests.keys import KEY_RING

from vaka import Engine, EngineConfig, JobSpec
from vaka.runtime import container_body

LINE = "2026-01-02 03:04:05 INFO  a row of table out.c-main.orders was written in 17 ms"
LINES = 500_000
RATE = 100_000
"""Lines a second that one container may print without being slowed down."""
SECRETS = 10
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Logged:
    """One job that printed."""

    rate: float
    """Lines a second, from `submit` until `wait` has returned."""
    cpu: float
    """Seconds of CPU that our process took for `RATE` lines."""


async def measure() -> list[Measure]:
    """`log lines`: lines a second; `log CPU`: cores of our process at 100,000 lines a second."""
    tag = f"logs-{os.getpid()}"
    command = ("sh", "-c", f"yes '{LINE}' | head -n {LINES}")
    secrets = {
        f"#secret{number}": f"value-{number}-{os.urandom(8).hex()}" for number in range(SECRETS)
    }
    spec = JobSpec(image=BASE_IMAGE, command=command, config_data={"parameters": secrets})
    seen = Seen()
    with temporary_folder() as folder, closing(Daemon()) as daemon:
        config = EngineConfig(
            home=folder / "home", instance=f"bench-{tag}", key_ring_document=KEY_RING
        )
        async with Engine(config, plugins=[seen]) as engine:
            await _job(engine, spec)  # to be warm, and to see what a container is made of
            wanted = replace(seen.spec, mounts=(), labels={LABEL: tag})
            body = container_body(wanted, cpus=os.cpu_count() or 1)
            try:
                ours, others = await interleave(
                    ROUNDS,
                    lambda _: _job(engine, spec),
                    lambda index: trio.to_thread.run_sync(
                        partial(_raw, daemon, f"vaka-bench-{tag}-{index}", body)
                    ),
                )
            finally:
                daemon.remove_all(f"{LABEL}={tag}")
    rates = [each.rate for each in ours]
    cpu = median([each.cpu for each in ours])
    rate, reference = median(rates), median(others)
    lines = Measure(
        "log lines",
        rate,
        reference,
        "1/s",
        rate / reference,
        f">= {RATE:,} 1/s",
        rate >= RATE,
        (f"{LINES:,} lines of {len(LINE) + 1} bytes, {SECRETS} secrets; {spread(rates)}",),
    )
    return [lines, within("log CPU", cpu, 1.0, "cores", f"at {RATE:,} lines a second")]


async def _job(engine: Engine, spec: JobSpec) -> Logged:
    began, cpu = time.perf_counter(), time.process_time()
    job = await engine.submit(spec)
    outcome = await job.wait()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    outcome.raise_for_status()
    (stage,) = (await job.refresh()).stages
    stored = await engine.services.store.last_seq(job.id)
    if stage.stdout_bytes != LINES * (len(LINE) + 1) or stored < LINES:
        raise SystemExit(f"of {LINES} lines {stored} events are there: {stage.stdout_bytes} bytes")
    return Logged(LINES / seconds, cpu * RATE / LINES)


def _raw(daemon: Daemon, name: str, body: dict[str, object]) -> float:
    return LINES / daemon.run(name, body).seconds
