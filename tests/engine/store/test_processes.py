"""Several engines on one store, as processes of their own, and engines that are killed."""

import signal
import subprocess
import sys
from collections import defaultdict
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import IO

import trio

from vaka.models.job import JobQuery, Status
from vaka.store import JobStore

from .support import new_job

ENGINES = Path(__file__).with_name("engines.py")
TIME_LIMIT = 120


def _start(stack: ExitStack, program: str, url: str, name: str) -> subprocess.Popen[str]:
    process = stack.enter_context(
        subprocess.Popen(
            [sys.executable, str(ENGINES), program, url, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    )
    stack.callback(process.kill)
    return process


def _output(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


async def test_engines_share_jobs_and_none_runs_twice(store_url: str) -> None:
    names = ["a", "b", "c"]
    async with JobStore(store_url) as store:
        made = [
            await store.submit(
                new_job(
                    memory_bytes=(1 + i % 3) << 28, lock_name=f"lock-{i % 7}" if i % 2 else None
                )
            )
            for i in range(120)
        ]
    ran: dict[str, list[list[str]]] = {}
    with ExitStack() as stack:
        processes = {name: _start(stack, "run", store_url, name) for name in names}

        for process in processes.values():
            await trio.to_thread.run_sync(_output(process).readline)  # it is ready

        def listen(name: str) -> None:
            output, _ = processes[name].communicate("go\n", timeout=TIME_LIMIT)
            ran[name] = [line.split() for line in output.splitlines() if line.startswith("ran ")]

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(trio.to_thread.run_sync, listen, name)

    assert [process.returncode for process in processes.values()] == [0, 0, 0]
    runs = [run for name in names for run in ran[name]]
    assert sorted(int(run[1]) for run in runs) == [job.id for job in made]
    assert {run[2] for run in runs} == {"1"}
    by_lock = defaultdict(list)
    for _, _, _, lock, begun, ended in runs:
        by_lock[lock].append((float(begun), float(ended)))
    for times in by_lock.values():
        for (_, end), (following, _) in pairwise(sorted(times)):
            assert end <= following
    async with JobStore(store_url) as store:
        assert (await store.counts())[Status.SUCCESS] == len(made)
        assert await store.active_jobs() == {}


async def test_a_killed_engine_loses_nothing_that_was_acknowledged(store_url: str) -> None:
    with ExitStack() as stack:
        process = _start(stack, "write", store_url, "victim")
        output = _output(process)

        def read_and_kill() -> list[str]:
            lines = [output.readline() for _ in range(400)]
            process.send_signal(signal.SIGKILL)
            lines += output.readlines()
            process.wait(TIME_LIMIT)
            return lines

        lines = await trio.to_thread.run_sync(read_and_kill)
    told = [line.split() for line in lines if line.endswith("\n")]
    submitted = {int(words[1]) for words in told if words[0] == "job"}
    logged = {int(words[1]): int(words[2]) for words in told if words[0] == "events"}
    assert len(submitted) > 50
    assert len(logged) > 50

    async with JobStore(store_url) as store:
        stored = {job.id for job in await store.jobs(JobQuery(limit=10**6))}
        assert submitted <= stored
        for job_id in stored:
            log = await store.events(job_id)
            assert [event.seq for event in log] == list(range(1, len(log) + 1))
            assert [event.message for event in log] == [f"line {event.seq}" for event in log]
            assert len(log) == await store.last_seq(job_id)
            assert len(log) in {0, 1, 31, 34}  # whole appends only
            assert len(log) >= logged.get(job_id, 0)
        await store.submit(new_job())
