"""What the tests of the job store share."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from vaka.models.event import Event
from vaka.models.job import JobRecord, StageRecord, StageStatus
from vaka.store import Fence, JobStore, NewJob, Owner

MIB = 1 << 20
LEASE = 30.0
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SOMEBODY = {"id": "12", "description": "somebody"}


class Clock:
    """Time that passes only when a test says so."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def owner(name: str = "first") -> Owner:
    return Owner(id=name, instance="vaka", host=f"host-of-{name}", pid=4711)


def new_job(**changes: Any) -> NewJob:
    values: dict[str, Any] = {
        "project": "1",
        "component": "acme.extractor",
        "spec": {"component": "acme.extractor"},
        "memory_bytes": 256 * MIB,
    }
    return NewJob(**(values | changes))


async def claim(
    store: JobStore,
    claimer: Owner | None = None,
    *,
    limit: int = 1,
    concurrency: int = 100,
    memory_bytes: int = 100_000 * MIB,
) -> list[JobRecord]:
    return await store.claim(
        claimer or owner(),
        lease=LEASE,
        concurrency=concurrency,
        memory_bytes=memory_bytes,
        limit=limit,
    )


async def claim_one(store: JobStore, claimer: Owner | None = None) -> tuple[JobRecord, Fence]:
    """The next job and the right to write to it."""
    [record] = await claim(store, claimer)
    return record, fence(record)


def fence(record: JobRecord) -> Fence:
    assert record.owner is not None
    return Fence(record.id, record.owner, record.attempt)


def ids(records: Sequence[JobRecord]) -> list[int]:
    return [record.id for record in records]


def stage(record: JobRecord, index: int = 0, **changes: Any) -> StageRecord:
    values: dict[str, Any] = {
        "job_id": record.id,
        "attempt": record.attempt,
        "definition": 0,
        "stage": index,
        "kind": "main",
        "component": "acme.extractor",
        "container": f"vaka-vaka-{record.id}-{record.attempt}-0-{index}",
        "image": "acme/extractor:1.2",
        "image_id": "sha256:0123",
        "digests": ("acme/extractor@sha256:4567",),
        "status": StageStatus.PLANNED,
        "planned_at": START,
    }
    return StageRecord(**(values | changes))


def events(first: int, count: int, text: str = "line") -> list[Event]:
    return [
        Event(
            seq=seq, time=START, kind="log", level="info", message=f"{text} {seq}", stream="stdout"
        )
        for seq in range(first, first + count)
    ]
