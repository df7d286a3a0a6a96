"""What happens in a job, one event at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from vaka.models.container import StreamName

MAX_SEQ = (1 << 63) - 1
_SEQ_BEGIN = len('{"seq":')
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

    @property
    def count(self) -> int:
        """How many events this is: one."""
        return 1

    def to_json(self) -> str:
        """One line of JSON without its line break; members that are empty are left out."""
        return _dumps(_members(self) | {"message": self.message})

    @classmethod
    def from_json(cls, line: str | bytes) -> Event:
        """The event that `to_json` wrote."""
        document = json.loads(line)
        document["time"] = datetime.fromisoformat(document["time"])
        return cls(**document)


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines that a container printed in one go: many events with everything in common but the text.

    A container may print a hundred thousand lines a second; they stay together until somebody reads.
    """

    seq: int
    """Position of the first line in the job's history."""
    time: datetime
    level: Level
    messages: Sequence[str]
    definition: int | None = None
    stage: int | None = None
    component: str | None = None
    stream: StreamName | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["log"] = "log"

    @property
    def count(self) -> int:
        """How many events this is."""
        return len(self.messages)

    def to_json(self) -> str:
        """One line of JSON without its line break."""
        return _dumps(_members(self) | {"messages": self.messages})

    def events(self, after: int = 0, last: int = MAX_SEQ) -> Iterator[Event]:
        """Each line as an event of its own; only those that come after `after`, up to `last`."""
        begin = max(after + 1 - self.seq, 0)
        messages = self.messages[begin : max(last + 1 - self.seq, 0)]
        for seq, message in enumerate(messages, self.seq + begin):
            yield Event(
                seq,
                self.time,
                self.kind,
                self.level,
                message,
                self.definition,
                self.stage,
                self.component,
                self.stream,
                self.data,
            )


def parse_events(line: str, after: int = 0, last: int = MAX_SEQ) -> Iterator[Event]:
    """The events after `after`, up to `last`, that `to_json` of an event, or of lines, wrote."""
    document = json.loads(line)
    document["time"] = datetime.fromisoformat(document["time"])
    if "messages" in document:
        yield from Lines(**document).events(after, last)
    elif after < document["seq"] <= last:
        yield Event(**document)


def first_seq(line: bytes) -> int:
    """The number of the first event that `to_json` wrote, without reading the rest."""
    return int(line[_SEQ_BEGIN : line.index(b",", _SEQ_BEGIN)])


def _members(each: Event | Lines) -> dict[str, Any]:
    document: dict[str, Any] = {
        "seq": each.seq,
        "time": each.time.isoformat(),
        "kind": each.kind,
        "level": each.level,
    }
    for name in ("definition", "stage", "component", "stream"):
        value = getattr(each, name)
        if value is not None:
            document[name] = value
    if each.data:
        document["data"] = each.data
    return document


def _dumps(document: Mapping[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))
