"""What a claim costs when many jobs wait: `claim 10000`.

The same store is asked for one job while 10,000 wait, and another one while ten do. Each claim is timed
as an engine waits for it, its commit included; what it took is put back between two of them.
"""

from __future__ import annotations

import time

from tests.bench.measuring import Measure, at_most, temporary_folder

from vaka.store import Fence, JobStore, NewJob, Owner, _queue
from vaka.store._database import Transaction

FEW, MANY = 10, 10_000
ROUNDS = 7
CLAIMS = 40
"""Claims of one round; it counts their mean."""
RATIO = 1.5
OWNER = Owner(id="bench", instance="bench", host="bench", pid=1)


async def measure() -> list[Measure]:
    """`claim 10000`: milliseconds a claim."""
    with temporary_folder() as folder:
        async with (
            JobStore(f"sqlite:///{folder}/few.db") as few,
            JobStore(f"sqlite:///{folder}/many.db") as many,
        ):
            await _fill(few, FEW)
            await _fill(many, MANY)
            found = [(await _round(many), await _round(few)) for _ in range(ROUNDS)]
    return [
        at_most(
            "claim 10000",
            [ours for ours, _ in found],
            [reference for _, reference in found],
            "ms",
            RATIO,
            f"the reference is a claim while {FEW} wait; {CLAIMS} claims a round",
        )
    ]


async def _fill(store: JobStore, count: int) -> None:
    new = NewJob(project="1", component="a.b", spec={"component": "a.b"}, memory_bytes=1)

    def submit(tx: Transaction) -> None:
        for _ in range(count):
            _queue.submit(tx, new)

    await store._writer.write(submit, queue=True, ids=count)


async def _round(store: JobStore) -> float:
    seconds = 0.0
    for _ in range(CLAIMS):
        began = time.perf_counter()
        [record] = await store.claim(OWNER, lease=60, concurrency=5, memory_bytes=1 << 30, limit=1)
        seconds += time.perf_counter() - began
        await store.requeue(Fence(record.id, OWNER.id, record.attempt))
    return seconds * 1e3 / CLAIMS
