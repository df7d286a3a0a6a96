"""Programs that use a job store as an engine does; tests run several of them, and kill some."""

import sys
import time
from datetime import UTC, datetime

import trio

from vaka.models.event import Event
from vaka.models.job import Status
from vaka.store import Fence, JobStore, NewJob, Owner

MIB = 1 << 20


def say(*words: object) -> None:
    print(*words, flush=True)


async def run_jobs(url: str, name: str) -> None:
    """Claim and finish jobs until none is left, and say when each was ours."""
    me = Owner(id=name, instance="vaka", host="host", pid=1)
    async with JobStore(url) as store:
        say("ready")
        await trio.to_thread.run_sync(sys.stdin.readline)  # all begin together
        while True:
            claimed = await store.claim(
                me, lease=60, concurrency=3, memory_bytes=1000 * MIB, limit=3
            )
            begun = time.monotonic()
            for record in claimed:
                right = Fence(record.id, name, record.attempt)
                ended = time.monotonic()
                await store.finish(right, Status.SUCCESS, result={"message": "done"})
                say("ran", record.id, record.attempt, record.lock_name, begun, ended)
            if not claimed and not (await store.counts())[Status.WAITING]:
                return


async def write(url: str, name: str) -> None:
    """Submit jobs, claim them and write events, and say what was acknowledged, without end."""
    me = Owner(id=name, instance="vaka", host="host", pid=1)

    async def one(store: JobStore, number: int) -> None:
        while True:
            made = await store.submit(
                NewJob(
                    project="1",
                    component="acme.extractor",
                    spec={"number": number, "filler": "x" * 500},
                    memory_bytes=MIB,
                )
            )
            say("job", made.id)
            [record] = await store.claim(
                me, lease=60, concurrency=10**6, memory_bytes=10**12, limit=1
            )
            right = Fence(record.id, name, record.attempt)
            seq = 0
            for size in (1, 30, 3):
                said = [
                    Event(
                        seq=seq + i,
                        time=datetime.now(UTC),
                        kind="log",
                        level="info",
                        message=f"line {seq + i}",
                    )
                    for i in range(1, size + 1)
                ]
                await store.append_events(record.id, said, fence=right)
                seq += size
                say("events", record.id, seq)

    async with JobStore(url) as store, trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(one, store, number)


if __name__ == "__main__":
    trio.run({"run": run_jobs, "write": write}[sys.argv[1]], sys.argv[2], sys.argv[3])
