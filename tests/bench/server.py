"""The server: `run requests`, `idle CPU`, `idle memory` and `cold start`.

It is `vaka serve` as anybody starts it, in a process and on a home of its own. The load client is a
third process (`http_load.py`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio
from tests.bench.jobs import COMPONENT, component_document, configuration
from tests.bench.measuring import (
    Measure,
    at_least,
    interleave,
    median,
    spread,
    temporary_folder,
    within,
)
from tests.bench.processes import (
    cpu_seconds,
    first_line,
    program,
    proportional_bytes,
    served,
    started,
)

from vaka import Engine, EngineConfig, JobSpec
from vaka.models.catalog import Role

HERE = Path(__file__).parent
WAITING = 5_000
CONNECTIONS = 8
SECONDS = 3.0
"""Of load, on one side, in one round."""
ROUNDS = 4
IDLE_SECONDS = 22.0
SETTLE_SECONDS = 3.0
COLD_STARTS = 5


async def measure_requests() -> list[Measure]:
    """`run requests`: `POST /docker/{component}/run` of a stored configuration, answered 202.

    The job is durable when it is answered. 5,000 jobs wait in the store, and the server runs none
    (`VAKA_WORKER=false`), so that only the requests are measured. Against `GET /` of a bare
    quart-trio application that answers a constant, on hypercorn with the same settings, by the same
    client: 8 keep-alive connections. Requests a second; 4 interleaved rounds of 3 s.
    """
    with temporary_folder() as folder:
        home = folder / "home"
        token = await _fill(home)
        log = folder / "log"
        with (
            served(home, log, worker="false") as (_, our_port),
            started(str(HERE / "hello.py"), log=folder / "hello.log") as hello,
        ):
            hello_port = int(first_line(hello, folder / "hello.log"))
            body = json.dumps({"config": "0"}).encode()
            ours, theirs = await interleave(
                ROUNDS,
                _load(our_port, 202, _post(f"/docker/{COMPONENT}/run", token, body)),
                _load(hello_port, 200, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            )
            waiting = await _count(home)
    errors = sum(each["errors"] for each in [*ours, *theirs])
    accepted = sum(each["requests"] for each in ours)
    found = at_least(
        "run requests",
        [each["requests"] / each["seconds"] for each in ours],
        [each["requests"] / each["seconds"] for each in theirs],
        "requests/s",
        0.3,
        f"p50 {median([each['p50'] for each in ours]):.1f} ms, "
        f"p99 {median([each['p99'] for each in ours]):.1f} ms; reference "
        f"{median([each['p50'] for each in theirs]):.1f} and "
        f"{median([each['p99'] for each in theirs]):.1f} ms",
        f"{errors} errors; {WAITING:,} jobs waited before, {waiting:,} after",
    )
    lost = waiting < WAITING + accepted
    if errors or lost:
        words = f"{errors} errors" if errors else "accepted jobs are not in the store"
        return [_short(found, words)]
    return [found]


async def measure_idle() -> list[Measure]:
    """`idle CPU` and `idle memory`: a server that nobody asks anything.

    The worker is on, the home new. CPU of the whole process over 22 s, from 3 s after it answers, in
    percent of one core (the kernel counts in 10 ms: 0.05 %). Memory is the proportional set size at
    the end of that time. Fixed limits, so there is no reference.
    """
    with temporary_folder() as folder, served(folder / "home", folder / "log") as (pid, _):
        await trio.sleep(SETTLE_SECONDS)
        before, clock = cpu_seconds(pid), time.perf_counter()
        await trio.sleep(IDLE_SECONDS)
        cpu = (cpu_seconds(pid) - before) / (time.perf_counter() - clock)
        memory = proportional_bytes(pid)
    return [
        within("idle CPU", cpu * 100, 0.5, "% of a core", f"over {IDLE_SECONDS:g} s"),
        within("idle memory", memory / 1e6, 120, "MB", "proportional set size"),
    ]


async def measure_cold_start() -> list[Measure]:
    """`cold start`: from the start of the process to the first 200 of `/readyz`.

    On an existing home, with the file cache warm; the asking side tries every 5 ms. Median of 5 starts
    in seconds, against a fixed limit.
    """

    def start(home: Path, log: Path) -> tuple[float, float]:
        clock = time.perf_counter()
        with served(home, log) as (pid, _):
            return time.perf_counter() - clock, cpu_seconds(pid)

    with temporary_folder() as folder:
        log = folder / "log"
        first, _ = start(folder / "home", log)
        starts = [start(folder / "home", log) for _ in range(COLD_STARTS)]
    taken = [seconds for seconds, _ in starts]
    return [
        within(
            "cold start",
            median(taken),
            2.0,
            "s",
            f"{spread(taken)} s, of it CPU {median([cpu for _, cpu in starts]):.2f} s; on a new home "
            f"{first:.2f} s",
        )
    ]


async def _fill(home: Path) -> str:
    """A home with a component, a configuration and jobs that wait; the secret of its token."""
    await trio.Path(home).mkdir()  # only an engine that works makes its home
    async with Engine(EngineConfig(home=home, worker=False)) as engine:
        project = (await engine.catalog.create_project("Bench")).id
        _, secret = await engine.catalog.create_token(project, "bench", Role.ADMIN)
        await engine.catalog.put_component(component_document("vaka/busybox", "1"))
        await engine.catalog.create_configuration(
            project, COMPONENT, "Waits", config_id="0", configuration=configuration("rows")
        )

        async def submit(times: int) -> None:
            for _ in range(times):
                await engine.submit(JobSpec(component=COMPONENT, config="0", project=project))

        async with trio.open_nursery() as nursery:  # side by side, so that commits are shared
            for _ in range(50):
                nursery.start_soon(submit, WAITING // 50)
    return secret


async def _count(home: Path) -> int:
    """Jobs in the store, as another process on it sees them."""
    async with Engine(EngineConfig(home=home, worker=False)) as engine:
        counts = await engine.services.store.counts()
    return sum(counts.values())


def _load(port: int, status: int, request: bytes) -> Callable[[int], Any]:
    def load() -> Any:
        arguments = (str(port), str(CONNECTIONS), str(SECONDS), str(status))
        return program(str(HERE / "http_load.py"), *arguments, given=request)

    async def run(_: int) -> Any:
        return await trio.to_thread.run_sync(load)

    return run


def _post(path: str, token: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nX-StorageApi-Token: {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _short(measure: Measure, reason: str) -> Measure:
    return Measure(
        measure.name,
        measure.ours,
        measure.reference,
        measure.unit,
        measure.ratio,
        f"{measure.target}, no error",
        met=False,
        notes=(reason, *measure.notes),
    )
