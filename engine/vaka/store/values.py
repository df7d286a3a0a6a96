"""What the job store takes and gives besides the job itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypedDict

from vaka.errors import ApplicationError
from vaka.models.event import Event, Lines
from vaka.models.job import Mode, StageStatus

Topic = Literal["jobs", "operations"] | tuple[Literal["job", "status", "end", "operation"], int]
"""What can be watched: that a job, or an operation, may have become claimable; that one job has changed
or has new events; that its status has changed; that it has ended; that an operation has ended."""


def of_status(job_id: int, *, ended: bool = False) -> set[Topic]:
    """The topics that change with a job's status; with `ended`, to a final one."""
    topics: set[Topic] = {("job", job_id), ("status", job_id)}
    return topics | {("end", job_id)} if ended else topics


Kept = Mapping[int, Any]
"""What definitions leave for the job's end, by index: JSON, in place of what they left before."""
NOTHING: Kept = {}


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be stored."""

    project: str
    component: str
    """Component id, or the image of a bare job."""
    spec: Mapping[str, Any]
    """The request as JSON, without secrets in the clear. Key order is kept."""
    memory_bytes: int
    """Memory that the job reserves while it runs."""
    config: str | None = None
    mode: Mode = Mode.RUN
    lock_name: str | None = None
    """Jobs of one name run one after the other, oldest first; None: nothing blocks this job."""
    project_parallelism: int | None = None
    """How many jobs of the project may run at a time; None is no limit (runner.md section 2.5.2)."""
    parent_run_id: str | None = None
    token_id: str | None = None
    token_description: str | None = None
    token: str | None = field(default=None, repr=False)
    """The token itself as a cipher, kept until the job ends; no record has it."""
    idempotency_key: str | None = None
    request_hash: str | None = None
    """Tells a repeated request from another one under the same idempotency key."""
    idempotency_seconds: float | None = None
    """A job that is older has lost its idempotency key; None: it keeps it."""
    host: str | None = None
    """Where it was submitted, until an engine has it."""
    pid: int | None = None

    def __post_init__(self) -> None:
        if self.idempotency_key is not None and self.request_hash is None:
            raise ValueError("an idempotency key needs the hash of its request")
        if self.memory_bytes < 0:
            raise ValueError("memory_bytes is below 0")


@dataclass(frozen=True, slots=True)
class Owner:
    """An engine that claims jobs."""

    id: str
    """Unique per engine process, also over time."""
    instance: str
    """Name of the installation."""
    host: str
    pid: int


@dataclass(frozen=True, slots=True)
class Fence:
    """What entitles to write to a running job: this owner, at this attempt."""

    job_id: int
    owner_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Blocker:
    """What keeps a waiting job from being claimed."""

    job_id: int | None = None
    """The older job of the same lock that has not ended."""
    project_running: int | None = None
    """Jobs of the project that run, as many as may."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """What an owner learns when it renews its leases: ids of jobs."""

    held: frozenset[int] = field(default_factory=frozenset)
    """Jobs that are the owner's still."""
    stopping: frozenset[int] = field(default_factory=frozenset)
    """Those of them that somebody asked to stop."""


@dataclass(frozen=True, slots=True)
class LogTail:
    """Events that are stored together with something else, or not at all."""

    events: Sequence[Event | Lines] = ()
    """What comes next in the job's log."""
    offsets: Mapping[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    """By definition and stage: how many bytes of (stdout, stderr) the log then holds."""


NO_EVENTS = LogTail()


class StageChanges(TypedDict, total=False):
    """What may change in a stage after it was planned."""

    status: StageStatus
    started_at: datetime | None
    finished_at: datetime | None
    exit_code: int | None
    oom_killed: bool
    memory_peak_bytes: int | None
    stdout_bytes: int
    stderr_bytes: int


class LeaseLost(ApplicationError):
    """A job is no longer this engine's at this attempt: what it wanted to write was not written."""

    def __init__(self, message: str, *, job_id: int) -> None:
        super().__init__(message)
        self.job_id = job_id


class EventsOutOfOrder(ApplicationError):
    """Events do not begin where the job's log ends; `expected` is the number that comes next."""

    def __init__(self, message: str, *, job_id: int, expected: int) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.expected = expected
