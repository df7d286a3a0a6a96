"""A job: what is asked for, what is known of it while it lives, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, SecretStr, model_validator

from vaka.errors import ApplicationError, UserError
from vaka.models.base import Model

ArchiveFormat = Literal["zip", "tar.zst"]
"""How a snapshot is packed: for everybody's programs, or faster and smaller."""


class Mode(StrEnum):
    RUN = "run"
    FORCE_RUN = "forceRun"
    """As `RUN`, by who asks for a disabled configuration to run."""
    DEBUG = "debug"


class Status(StrEnum):
    """The public status of a job (runner.md section 2.2)."""

    WAITING = "waiting"
    PROCESSING = "processing"
    TERMINATING = "terminating"
    SUCCESS = "success"
    WARNING = "warning"
    ERROR = "error"
    TERMINATED = "terminated"
    CANCELLED = "cancelled"

    @property
    def is_finished(self) -> bool:
        return self not in {Status.WAITING, Status.PROCESSING, Status.TERMINATING}


class Phase(StrEnum):
    """Where in its journal a job is; each is written before the engine acts on it."""

    CLAIMED = "claimed"
    STAGING_IN = "staging_in"
    STAGE = "stage"
    STAGING_OUT = "staging_out"
    STATE = "state"
    RESULT = "result"


class StageStatus(StrEnum):
    """Where one container of a job is, in the journal's view."""

    PLANNED = "planned"
    """Its name is written down; it may or may not exist."""
    STARTED = "started"
    """It was about to be started: from here on an absent container is a lost one."""
    EXITED = "exited"
    """Its end is known; its output is not collected yet."""
    COLLECTED = "collected"
    """Everything it left behind is in the store or the folder; it may be removed."""


class CauseKind(StrEnum):
    """Why a job ended as it did: a closed list."""

    FINISHED = "finished"
    USER_ERROR = "user_error"
    APPLICATION_ERROR = "application_error"
    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    KILLED = "killed"
    CANCELLED = "cancelled"
    CONTAINER_LOST = "container_lost"
    RUNTIME_LOST = "runtime_lost"
    IMAGE_UNAVAILABLE = "image_unavailable"
    CONFIGURATION = "configuration"
    STORAGE = "storage"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why, with the evidence: exit code, limit and peak, the setting that applied, stderr's end."""

    kind: CauseKind
    evidence: Mapping[str, Any] = field(default_factory=dict)


class JobSpec(Model):
    """What a caller asks for: a component with a configuration, or a bare image."""

    component: str | None = None
    """Id of a component in the catalog."""
    image: Annotated[str, Field(min_length=1)] | None = None
    """Reference of an image to run without any registered component."""
    command: tuple[str, ...] | None = None
    """With `image` only: what to run instead of the image's own command."""
    timeout: Annotated[float, Field(ge=0)] | None = None
    """With `image` only: seconds that the container may run; 0 is no limit, None is 3600."""
    memory: str | None = None
    """With `image` only: memory limit such as `256m`."""
    network: Literal["none", "bridge"] = "none"
    """With `image` only."""
    config: str | None = None
    """Id of a stored configuration."""
    config_data: dict[str, JsonValue] | None = None
    """A whole configuration in place of the stored one."""
    skip_disabled: bool = False
    """Whether a configuration that is disabled is left alone, and the job ends with a warning; else it
    runs like any other."""
    row: JsonValue = None
    """Id of one row of `config`; other types fail when the job runs."""
    rows: tuple[str, ...] = ()
    """Ids of several rows of `config`."""
    parallelism: Annotated[int, Field(ge=0)] | Literal["infinity"] | None = None
    """How many rows may run at a time; 0 and 1: one after the other. None: as the configuration's
    `runtime.parallelism` says, which is one after the other when it says nothing."""
    tag: str | None = None
    """Image tag in place of the component's."""
    mode: Mode = Mode.RUN
    variable_values_id: str | None = None
    variable_values_data: dict[str, JsonValue] | None = None
    project: str = "1"
    branch: str | None = None
    token_id: str | None = None
    token_description: str | None = None
    token: SecretStr | None = None
    """Handed to components that ask for it; never stored in the clear, never shown."""
    buckets: dict[str, Literal["read", "write"]] | None = None
    """Buckets that mapping may read, or write; None: all. Those of a limited token, when it asked."""
    reads_all_files: bool = True
    """Whether mapping sees files that other tokens have made."""
    parent_run_id: str | None = None
    idempotency_key: str | None = None
    """A second submission with the same key and the same request gets the first one's job."""
    container_type: str | None = None
    """Size of the job's containers: `xsmall`, `small`, `medium` or `large` (runner.md section 11)."""
    orchestration: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")] | None = None
    """Id of the orchestration that the job is a part of: its jobs share artifacts."""
    snapshot_format: ArchiveFormat | None = None
    """With `mode` debug: how snapshots are packed; None is as the engine is set."""

    @model_validator(mode="after")
    def _one_subject(self) -> JobSpec:
        if (self.component is None) == (self.image is None):
            raise ValueError("give exactly one of 'component' and 'image'")
        if self.image is None and (self.command or self.timeout is not None or self.memory):
            raise ValueError("'command', 'timeout' and 'memory' go with 'image' only")
        return self


class ActionSpec(Model):
    """One synchronous action: a container that runs while the caller waits."""

    component: Annotated[str, Field(min_length=1)]
    action: Annotated[str, Field(min_length=1)]
    config_data: dict[str, JsonValue]
    tag: str | None = None
    project: str = "1"
    branch: str | None = None
    run_id: str | None = None
    token_id: str | None = None
    token_description: str | None = None
    token: SecretStr | None = None


@dataclass(frozen=True, slots=True)
class ActionResult:
    """What an action answered: its standard output, decoded."""

    value: JsonValue
    image: str
    seconds: float


@dataclass(frozen=True, slots=True)
class StageRecord:
    """One container in a job's journal."""

    job_id: int
    attempt: int
    definition: int
    """Index of the job definition (configuration or row), from 0."""
    stage: int
    """Index in the chain of before-processors, main, after-processors, from 0."""
    kind: Literal["before", "main", "after"]
    component: str
    container: str
    """The container's name."""
    image: str
    """Reference with tag."""
    image_id: str
    digests: tuple[str, ...]
    status: StageStatus
    planned_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    memory_peak_bytes: int | None = None
    stdout_bytes: int = 0
    """How much of the output is in the event log, so that collecting can go on there."""
    stderr_bytes: int = 0


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as the store knows it. Times are UTC, `None` until they happened."""

    id: int
    run_id: str
    project: str
    spec: Mapping[str, Any]
    """The `JobSpec` as stored: JSON, secrets encrypted or left out."""
    component: str
    """Component id, or the image of a bare job."""
    config: str | None
    status: Status
    mode: Mode
    created: datetime
    lock_name: str
    memory_bytes: int
    """Memory that the job reserves while it runs."""
    token_id: str | None = None
    token_description: str | None = None
    started: datetime | None = None
    ended: datetime | None = None
    owner: str | None = None
    """Engine instance that has the job."""
    host: str | None = None
    pid: int | None = None
    attempt: int = 0
    """How often the job was started from scratch."""
    phase: Phase | None = None
    definition: int = 0
    """Index of the job definition that `phase` speaks of."""
    stop_requested: bool = False
    terminated_by: Mapping[str, Any] | None = None
    error: Literal["user", "application"] | None = None
    error_note: str | None = None
    result: Mapping[str, Any] = field(default_factory=dict)
    usage: tuple[Mapping[str, Any], ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    cause: Cause | None = None
    stages: tuple[StageRecord, ...] = ()
    """Filled when one job is asked for, empty in lists."""
    is_fresh: bool = field(default=False, compare=False)
    """Whether it was claimed just now for its first moment: nothing of its attempt is journaled."""

    @property
    def nesting_level(self) -> int:
        return self.run_id.count(".")

    @property
    def duration_seconds(self) -> int | None:
        if self.started is None or self.ended is None:
            return None
        return int((self.ended - self.started).total_seconds())

    @property
    def wait_seconds(self) -> int | None:
        """Seconds between creation and start; None until the job ended, and for terminated ones."""
        if self.started is None or self.ended is None or self.status is Status.TERMINATED:
            return None
        return int((self.started - self.created).total_seconds())


@dataclass(frozen=True, slots=True)
class JobQuery:
    """Which jobs to list; conditions combine with AND, newest first unless `order_by` says."""

    project: str | None = None
    statuses: tuple[Status, ...] = ()
    component: str | None = None
    config: str | None = None
    run_id: str | None = None
    created_since: datetime | None = None
    created_until: datetime | None = None
    ids: tuple[int, ...] = ()
    """Any of these; so are all below. Empty: no condition."""
    run_ids: tuple[str, ...] = ()
    parent_run_ids: tuple[str, ...] = ()
    """An empty one stands for jobs that nobody's run has started."""
    components: tuple[str, ...] = ()
    configs: tuple[str, ...] = ()
    """An empty one stands for jobs without."""
    rows: tuple[str, ...] = ()
    """Jobs that were asked for one of these rows."""
    branches: tuple[str, ...] = ()
    """An empty one stands for the default branch."""
    token_ids: tuple[str, ...] = ()
    modes: tuple[Mode, ...] = ()
    started_since: datetime | None = None
    started_until: datetime | None = None
    ended_since: datetime | None = None
    ended_until: datetime | None = None
    least_seconds: int | None = None
    """Of the run time of finished jobs; `most_seconds` is included."""
    most_seconds: int | None = None
    order_by: Literal[
        "id",
        "run_id",
        "branch",
        "status",
        "component",
        "config",
        "token_description",
        "created",
        "started",
        "ended",
        "duration",
    ] = "id"
    descending: bool = True
    limit: int = 100
    offset: int = 0
    search: str | None = None
    """A condition in the query language of runner.md section 1.11.2."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended."""

    job_id: int
    status: Status
    message: str
    """What the job's author is told."""
    error: Literal["user", "application"] | None = None
    exception_id: str | None = None
    """Names the occurrence in the engine's log."""
    cause: Cause | None = None
    result: Mapping[str, Any] = field(default_factory=dict)

    def raise_for_status(self) -> None:
        """Do nothing for a successful job.

        Raises:
            UserError: the job failed and its author can mend it, or it was cancelled.
            ApplicationError: the job failed otherwise.
        """
        if self.status in {Status.SUCCESS, Status.WARNING}:
            return
        raise (ApplicationError if self.error == "application" else UserError)(self.message)
