"""What happens in a job, one event at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from vaka.models.container import StreamName

Level = Literal["debug", "info", "notice", "warn", "error"]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, already masked.

    `kind` is one of `job.submitted`, `job.claimed`, `job.resumed`, `job.restarted`, `job.finished`,
    `stage.planned`, `stage.started`, `stage.finished`, `image.prepared`, `input.table`, `input.file`,
    `output.table`, `output.file`, `state.stored`, `snapshot.stored`, `note` (the runner's own words)
    and `log` (a line that a container printed).
    """

    seq: int
    """Position in the job's history, from 1, without gaps."""
    time: datetime
    kind: str
    level: Level
    message: str
    definition: int | None = None
    stage: int | None = None
    component: str | None = None
    stream: StreamName | None = None
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line of JSON without its line break; members that are empty are left out."""
        document: dict[str, Any] = {
            "seq": self.seq,
            "time": self.time.isoformat(),
            "kind": self.kind,
            "level": self.level,
            "message": self.message,
        }
        for name in ("definition", "stage", "component", "stream"):
            value = getattr(self, name)
            if value is not None:
                document[name] = value
        if self.data:
            document["data"] = self.data
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str | bytes) -> Event:
        """The event that `to_json` wrote."""
        document = json.loads(line)
        document["time"] = datetime.fromisoformat(document["time"])
        return cls(**document)
