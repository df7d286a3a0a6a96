"""Everything about an engine that can be set."""

from __future__ import annotations

import math
import os
import socket
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from vaka.models.base import Model
from vaka.models.job import ArchiveFormat

Seconds = Annotated[float, Field(gt=0)]
MOST_CPUS = 96


def _cpu_count(value: object) -> object:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("This value should be a valid number.")
    if number > MOST_CPUS:
        raise ValueError(f"This value should be {MOST_CPUS} or less.")
    if number < 1:
        raise ValueError("This value should be 1 or more.")
    return number


class EngineConfig(Model):
    """Settings of one engine. Times are seconds, sizes bytes."""

    home: Path = Path("vaka-home")
    """Folder that holds everything the engine keeps: job store, job folders, embedded Storage."""
    instance: str = "vaka"
    """Name of the installation, in container names and labels. Engines that share a store share it;
    engines that share only a daemon must differ, because each collects what carries its name."""
    store_url: str | None = None
    """SQLAlchemy URL of the job store; None is SQLite in `home`. `postgresql+psycopg://…` for several
    engines on one store."""
    storage_url: str | None = None
    """Where mapping reads and writes, and where the catalog is; None is `local://` in `home`."""
    catalog_url: str | None = None
    """Where tokens, components and configurations are, when apart from `storage_url`."""
    runtime_url: str = "docker://"
    """What runs containers: `docker://` is the daemon of `DOCKER_HOST` or the system socket,
    `docker+unix:///path`, `docker+tcp://host:port` name one."""
    worker: bool = True
    """False: accept and show jobs, run none, nor actions; another engine on the same store runs them,
    and no container runtime is opened here."""
    stack_id: str = "localhost"
    """What components see as `KBC_STACKID`."""
    storage_api_url: str = "http://127.0.0.1:8080"
    """What components that are given the token see as `KBC_URL`."""

    concurrency: Annotated[int, Field(ge=1)] = 8
    """Jobs that run at a time. A running container costs the engine nearly nothing; what jobs need of
    the host is bounded by `memory_bytes`."""
    parallel_rows: Annotated[int, Field(ge=1)] = 8
    """Rows of one job that run at a time at most, when the job or its configuration asks for it
    (`parallelism`); each reserves the component's memory, so fewer run when less is free."""
    memory_bytes: Annotated[int, Field(ge=1)] | None = None
    """Memory that running jobs may reserve together; None is four fifths of the host's."""
    starting: Annotated[int, Field(ge=1)] = Field(default_factory=lambda: 2 * (os.cpu_count() or 1))
    """Containers that are being created or started at a time. More than twice the cores buys under
    15 % of throughput and costs latency linearly (measured on Docker Engine 20.10)."""
    network_holders: Annotated[int, Field(ge=0)] | None = None
    """Network namespaces that are kept for containers without a network, one for each that runs at a
    time: a container that is given one costs half (measured on Docker Engine 20.10). They are made when
    more than four containers a minute run, and go when unused. None is four times the daemon's cores, 0
    gives every container a namespace of its own."""
    cpus: Annotated[float, BeforeValidator(_cpu_count)] = Field(
        default_factory=lambda: float(min(os.cpu_count() or 1, MOST_CPUS))
    )
    """CPUs of one container, at most: 1 to 96. A project's own limit, which is 2 when it has none, is
    the other bound."""
    container_user: str | None = None
    """`uid:gid` of containers; None is the service's own, or 1000:1000 when the service is root."""
    container_log_bytes: Annotated[int, Field(ge=1 << 20)] = 1 << 30
    """Output of one container that the daemon keeps, so that it can be read after a restart."""

    lease: Seconds = 30.0
    """How long a claimed job stays its owner's without a sign of life."""
    reconcile_interval: Seconds = 60.0
    """How often the store is compared with what the daemon has."""
    idle_poll: Seconds = 5.0
    """How often the store is asked for jobs that another process put there, when nothing told us."""
    stop_grace: Annotated[float, Field(ge=0)] = 10.0
    """Between asking a container to stop and killing it."""
    cleanup_timeout: Seconds = 30.0
    """Bound on removing one container."""
    action_timeout: Seconds = 45.0
    """Container run time of one synchronous action (runner.md section 8)."""
    action_concurrency: Annotated[int, Field(ge=1)] = 50
    """Synchronous actions at a time; more are refused. Most of them wait for somebody else's server, so
    the bound is what their containers may take of the host, not how fast it is."""
    operation_concurrency: Annotated[int, Field(ge=1)] = 8
    """Operations on Storage, such as imports, that this engine does at a time; those of one table are
    done one after the other."""
    operation_timeout: Seconds = 14_400.0
    """How long one of them may take."""
    operation_age: Annotated[float, Field(ge=0)] | None = 2_592_000.0
    """How long it is shown after its end; None: for ever."""
    client_event_age: Annotated[float, Field(ge=0)] | None = 7_776_000.0
    """How long an event that a client sent is kept; None: for ever. A project never has more than
    100,000."""
    pull_attempts: Annotated[int, Field(ge=1)] = 5
    """Tries to pull an image (runner.md section 10.5)."""
    pull_timeout: Seconds = 3600.0
    """One try to pull an image."""
    docker_config: Path | None = None
    """Folder with the `config.json` of Docker's command, whose credentials images are pulled with; None
    is where the command itself looks: `DOCKER_CONFIG`, or `~/.docker`."""
    replicated_registry: str | None = None
    """Host and path, such as `registry.example.com/team`, that has a copy of every image that
    components keep in Amazon ECR; None or empty: they are pulled from there (runner.md section 10.6)."""
    replicated_registry_user: str | None = None
    replicated_registry_password: SecretStr | None = None
    shutdown: Literal["drain", "adopt", "stop"] = "drain"
    """What leaving the engine does to running jobs: wait for them, leave their containers to the next
    engine, or cancel them."""
    event_line_length: Annotated[int, Field(ge=256)] = 64_000
    """Characters of the longest line of output kept whole; what is beyond is cut and said so."""
    gelf_address: str | None = None
    """Address on which GELF messages of components are taken, and that they are told; None is the
    host's in the network of each container."""
    gelf_port_min: Annotated[int, Field(ge=1, le=65_535)] = 12_202
    """First of the ports for that; each running container that logs by GELF takes one."""
    gelf_port_max: Annotated[int, Field(ge=1, le=65_535)] = 13_202
    """Last of them."""
    job_log_bytes: Annotated[int, Field(ge=1 << 10)] = 1 << 30
    """Output of one job that is kept; what is beyond is read, so that no container waits, and left
    out."""
    secret_min_length: Annotated[int, Field(ge=1)] = 4
    """Characters below which a secret is not looked for in what is told of a job, because it would be
    found in every text; below 4 common words and small numbers are looked for as well."""
    strict_variables: bool = False
    """Whether a placeholder that no variable has a value for fails the job; else it becomes empty
    (runner.md sections 9.3 and 14)."""
    oauth_url: str | None = None
    """Where the OAuth broker answers; None: credentials come from the catalog (section 10.1)."""

    disk_stop_bytes: Annotated[int, Field(ge=0)] = 1 << 30
    """Free space of the home's disk below which no job starts: what runs needs room to end."""
    disk_warn_bytes: Annotated[int, Field(ge=0)] = 5 << 30
    """Free space of the home's disk below which the engine warns."""
    gc_interval: Seconds | None = None
    """How often what is old is removed by itself; None: only by `vaka gc apply`."""
    gc_timeout: Seconds = 600.0
    """How long one collection may take, about."""
    gc_container_age: Annotated[float, Field(ge=0)] = 259_200.0
    """Since when an ended container has to be nobody's."""
    gc_image_age: Annotated[float, Field(ge=0)] = 604_800.0
    """Since when an image that this engine pulled has to be unused."""
    gc_log_age: Annotated[float, Field(ge=0)] | None = 7_776_000.0
    """How long after a job's end its log is kept; None: for ever."""
    gc_snapshot_age: Annotated[float, Field(ge=0)] | None = 1_209_600.0
    """How long the snapshots of a debug job are kept; None: for ever."""
    idempotency_age: Seconds = 86_400.0
    """How long an idempotency key names the job that was made with it."""

    atomic_output: bool = False
    """Whether all output tables of a job definition land in Storage together or none does, where the
    configuration does not say (`runtime.atomic_output`). Components count on the tables that did not
    fail being there, as each has always been loaded by itself."""

    snapshot_format: ArchiveFormat = "zip"
    """How snapshots of debug jobs are packed where the job does not say: `zip` opens everywhere,
    `tar.zst` is smaller and written faster."""
    snapshot_bytes: Annotated[int, Field(ge=0)] = 10 << 30
    """Bytes of files that go into one snapshot, before they are packed; a file for which no room is left
    stays out, which the job's log says. Never more than half of what the disk has free."""

    key_ring: Path | None = None
    """File with the keys that secrets are encrypted with; None: `keys` in `home`, when it is there."""
    key_ring_document: SecretStr | None = None
    """The content of such a file itself, for an installation whose secrets come by the environment."""
    write_provider: str | None = None
    """The key provider that encrypts; needed when there are several, all of which decrypt."""
    errors_full_cipher: bool = False
    """Whether messages show ciphers whole: only for clients that compare the texts."""
    legacy_key_version1: SecretStr | None = None
    """Key of `KBC::…Encrypted==` ciphers; 16 bytes of it count."""
    legacy_key_version0: SecretStr | None = None
    """Key of ciphers without a prefix: 16, 24, or at least 32 bytes."""
    legacy_allow_unauthenticated: bool = False
    """Whether ciphers without a prefix are read at all; nothing shows whether they were changed."""
    legacy_use_in: Literal["migrate", "migrate+run"] = "migrate+run"
    """Where legacy ciphers are read: stored configurations may still hold some."""
    legacy_sunset: date | None = None
    """Day from which on legacy ciphers are read no more."""

    @model_validator(mode="after")
    def _some_port(self) -> EngineConfig:
        low, high = self.gelf_port_min, self.gelf_port_max
        if low > high:
            raise ValueError(f"Invalid port range min ({low}) is bigger than max ({high}).")
        return self

    @property
    def effective_store_url(self) -> str:
        return self.store_url or f"sqlite:///{self.home.absolute()}/vaka.db"

    @property
    def effective_storage_url(self) -> str:
        return self.storage_url or f"local://{self.home.absolute()}/storage"

    @property
    def effective_catalog_url(self) -> str:
        return self.catalog_url or self.effective_storage_url

    @property
    def effective_user(self) -> str:
        """`uid:gid` that containers run as, unless their component needs the image's own user."""
        if self.container_user is not None:
            return self.container_user
        uid, gid = os.geteuid(), os.getegid()
        return "1000:1000" if uid == 0 else f"{uid}:{gid}"

    @property
    def owner(self) -> tuple[int, int]:
        """Numeric user and group that containers run as."""
        uid, _, gid = self.effective_user.partition(":")
        return int(uid), int(gid or uid)

    @property
    def effective_memory_bytes(self) -> int:
        if self.memory_bytes is not None:
            return self.memory_bytes
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 4 // 5

    @property
    def host(self) -> str:
        return socket.gethostname()
