"""What the engine tells a container runtime, and what it learns from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal

StreamName = Literal["stdout", "stderr"]


@dataclass(frozen=True, slots=True)
class Mount:
    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container, fully decided: a runtime adds nothing but its own plumbing."""

    name: str
    """Deterministic: the same stage of the same attempt always has the same name."""
    image: str
    """An image id or a reference that the runtime has prepared."""
    command: tuple[str, ...] | None = None
    """None: the image's own."""
    entrypoint: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    user: str | None = None
    """`uid:gid`; None: the image's own user."""
    network: str = "none"
    memory_bytes: int | None = None
    memory_swap_bytes: int | None = None
    """Memory and swap together; equal to `memory_bytes` means no swap."""
    cpus: float | None = None
    pids: int | None = 4096
    read_only_root: bool = False
    drop_capabilities: bool = True
    no_new_privileges: bool = True
    init: bool = True
    log_bytes: int = 1 << 30
    """What the runtime keeps of the output, so that it can be read again after a restart."""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    oci_runtime: str | None = None
    """Alternative OCI runtime such as `runsc`; None: the daemon's default."""


class ContainerPhase(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class ContainerStatus:
    """A container as the runtime sees it now."""

    id: str
    name: str
    phase: ContainerPhase
    labels: Mapping[str, str]
    created: datetime | None = None
    finished: datetime | None = None
    """When it ended, as far as it is known without asking for this one."""


@dataclass(frozen=True, slots=True)
class ContainerExit:
    """How a container ended, with the evidence there is."""

    exit_code: int
    oom_killed: bool = False
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: str = ""
    """The runtime's own words, when it could not run the command."""
    memory_peak_bytes: int | None = None
    """The most that it is known to have used, cached files included."""
    event: str = ""
    """What the runtime tells of who ended it, such as `kill signal=9 at 2026-01-31T12:00:00Z`."""
    runtime_was_away: bool = False
    """It ended while the runtime did not answer. A daemon that was killed ends what runs when it is
    back, and may have lost what was printed meanwhile."""

    @property
    def seconds(self) -> float | None:
        """How long it ran, or None where the runtime does not tell."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()


@dataclass(frozen=True, slots=True)
class OutputChunk:
    """Bytes of one of the two output streams, as they came; borders mean nothing."""

    stream: StreamName
    data: bytes


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """An image that is on the host."""

    id: str
    reference: str
    digests: tuple[str, ...] = ()
    """Repository digests; empty for images that no registry knows."""
    platform: str = ""
    """`os/architecture`."""
    warning: str = ""
    """What may keep it from running on this host, for whoever follows the job."""
    pulled: bool = False
    """It was not on the host before it was prepared."""


@dataclass(frozen=True, slots=True)
class HostImage:
    """An image that is on the host, as seen by who wants to remove it."""

    id: str
    references: tuple[str, ...]
    """Its names with tag; none for one whose name is another image's by now."""
    digests: tuple[str, ...] = ()
    """Its names with digest, which it keeps when a tag has moved on."""
    labels: Mapping[str, str] = field(default_factory=dict)
    created: datetime | None = None
    bytes: int | None = None


IDENTITY_TOKEN = "<token>"  # noqa: S105 - a user name
"""User name of credentials whose password is an identity token, as Docker's helpers have it."""


@dataclass(frozen=True, slots=True)
class RegistryAuth:
    """What to log in to a registry with."""

    server: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """What a runtime says of itself."""

    name: str
    version: str
    platform: str
    cpus: int
    memory_bytes: int
    warnings: tuple[str, ...] = ()
