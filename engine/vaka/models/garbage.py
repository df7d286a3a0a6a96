"""What an installation has kept and nobody needs any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class GarbageKind(StrEnum):
    """Kinds of garbage, in the order in which they are cleared."""

    CONTAINER = "container"
    DANGLING_IMAGE = "dangling_image"
    BUILDER_IMAGE = "builder_image"
    PULLED_IMAGE = "pulled_image"
    FOLDER = "folder"
    LOG = "log"
    SNAPSHOT = "snapshot"


@dataclass(frozen=True, slots=True)
class Garbage:
    """One thing that may go."""

    kind: GarbageKind
    name: str
    """A container's name, an image's reference or id, a job's id, a file's id."""
    reason: str
    bytes: int | None = None
    """What it takes, where that is known."""
    project: str | None = None
    """Whose file it is."""
    before: datetime | None = None
    """Of logs: those of jobs that ended before this moment."""

    def to_json(self) -> dict[str, Any]:
        document = asdict(self)
        document["kind"] = self.kind.value
        document["before"] = None if self.before is None else self.before.isoformat()
        return document


@dataclass(frozen=True, slots=True)
class GarbagePlan:
    """All that may go now, and what could not be looked at."""

    items: tuple[Garbage, ...]
    failures: Mapping[GarbageKind, str]

    def to_json(self) -> dict[str, Any]:
        return {
            "items": [item.to_json() for item in self.items],
            "bytes": sum(item.bytes or 0 for item in self.items),
            "failures": {kind.value: text for kind, text in self.failures.items()},
        }


@dataclass(frozen=True, slots=True)
class GarbageReport:
    """What was removed of a plan."""

    removed: tuple[Garbage, ...]
    failures: tuple[str, ...]
    timed_out: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "removed": [item.to_json() for item in self.removed],
            "bytes": sum(item.bytes or 0 for item in self.removed),
            "failures": list(self.failures),
            "timedOut": self.timed_out,
        }
