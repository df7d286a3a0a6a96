"""What becomes of what a stage's container says: levels, verbosity, and how much of it is kept.

Lines of output and GELF messages come here; events go on. A component decides by the verbosity of each
level what of it is shown. What is more than the settings keep is counted and left out, never waited
for: a container that floods its log is not slowed down by that.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from vaka import gelf
from vaka.actors.events import EventLog, Printed
from vaka.actors.output import TRIMMED, OutputReader
from vaka.models.component import Logging
from vaka.models.container import StreamName
from vaka.models.event import Level

log = logging.getLogger(__name__)

CAMOUFLAGE = "Application error"
CONTACT = "Contact support@keboola.com"
NOTICES = 5
"""Refused messages of one stage that the operator's log has word for word; the others are counted."""
SHORT_ID = 12
"""Characters of a container's id that it knows itself by, as its host name."""
MOST_DRIFT = 86_400.0
"""Seconds that a message's own time may be off; a time further away is a mistake, or a lie."""
REMEMBERED = 4
"""Least severe GELF level of a message that may explain a failure."""


@dataclass(frozen=True, slots=True)
class Severity:
    """A level, as verbosity names it and as an event does."""

    number: int
    level: Level


SYSLOG = {
    7: Severity(100, "info"),
    6: Severity(200, "info"),
    5: Severity(250, "warn"),
    4: Severity(300, "warn"),
    3: Severity(400, "error"),
    2: Severity(500, "error"),
    1: Severity(550, "error"),
    0: Severity(600, "error"),
}
INFO, ERROR = SYSLOG[6], SYSLOG[3]
OUTPUT: dict[StreamName, Severity] = {"stdout": INFO, "stderr": ERROR}


class StageLog:
    """Turns what one stage's container says into events."""

    def __init__(
        self,
        events: EventLog,
        settings: Logging,
        reader: OutputReader,
        *,
        definition: int,
        stage: int,
        component: str,
        longest: int,
    ) -> None:
        self._events = events
        self._settings = settings
        self._reader = reader
        self._definition = definition
        self._stage = stage
        self._component = component
        self._longest = longest
        self._told = sum(reader.told)
        self._left_out_lines = 0
        self._left_out_bytes = 0
        self._container_id: str | None = None
        self._refused = 0

    def found(self, container_id: str) -> None:
        """The container is the one of this id: only it may log here."""
        self._container_id = container_id

    async def lines(self, stream: StreamName, lines: Sequence[str], told: tuple[int, int]) -> None:
        """Tell lines of output, and how far into (stdout, stderr) they reach."""
        size = sum(told) - self._told
        self._told += size
        kept = self._events.room.take(lines, size)
        if len(kept) < len(lines):
            self._left_out_lines += len(lines) - len(kept)
            self._left_out_bytes += size - sum(map(len, kept))
        printed = self._printed(OUTPUT[stream], kept, stream) if kept else None
        await self._events.lines(printed, size, (self._definition, self._stage), told)

    async def message(self, data: bytes | gelf.Unreadable) -> None:
        """Tell the GELF messages in what one frame, datagram or request held."""
        found = [data] if isinstance(data, gelf.Unreadable) else gelf.messages(data)
        for each in found:
            if isinstance(each, gelf.Unreadable):
                await self._record(ERROR, f"Invalid message: {each}", {}, None)
            elif self._is_ours(each):
                await self._accept(each)

    async def close(self) -> None:
        """Say what was left out, once it is known how much."""
        if self._refused > NOTICES:
            await self._events.note("notice", f"{self._refused} GELF messages were refused.")
        if self._left_out_lines:
            await self._events.note(
                "warn",
                f"The log is full: a job keeps {self._events.room.limit} bytes of what its "
                f"containers print. {self._left_out_lines} lines of {self._left_out_bytes} bytes "
                f"of {self._component} were left out. The operator may raise job_log_bytes.",
            )

    def _is_ours(self, message: Mapping[str, Any]) -> bool:
        host = message.get("host")
        if not host:
            reason = "Missing required field from event."
        elif (
            isinstance(host, str)
            and self._container_id is not None
            and len(host) >= SHORT_ID
            and self._container_id.startswith(host)
        ):
            return True
        else:
            reason = f"Invalid container host {str(host)[:100]}"
        self._refused += 1
        if self._refused <= NOTICES:
            log.info(
                "message.refused",
                extra={"job_id": self._events.job_id, "reason": self._events.masker.text(reason)},
            )
        return False

    async def _accept(self, message: Mapping[str, Any]) -> None:
        # a number that is a secret is hidden too
        document = self._events.masker.document(message, numbers=True)
        text = document.get("short_message")
        text = text if isinstance(text, str) else "" if text is None else json.dumps(text)
        level = _whole(message.get("level"))
        severity = ERROR if level is None else SYSLOG.get(level, ERROR)
        if level is not None and level <= REMEMBERED and text.strip():
            self._reader.remark = text.strip()
        await self._record(severity, text, document, _moment(message.get("timestamp")))

    async def _record(
        self,
        severity: Severity,
        text: str,
        document: Mapping[str, Any],
        time: datetime | None,
    ) -> None:
        """One record of the container's logger. `document` is masked, `text` may be."""
        text = self._events.masker.text(text).strip(" \t\n\r\0\x0b")
        if not text:
            return
        size = len(text) + len(str(document))
        if not self._events.room.take([text], size):
            self._left_out_lines += 1
            self._left_out_bytes += size
            return
        if len(text) > self._longest:
            text = text[: self._longest] + TRIMMED
        await self._events.lines(self._printed(severity, [text], None, document, time), size)

    def _printed(
        self,
        severity: Severity,
        messages: Sequence[str],
        stream: StreamName | None,
        document: Mapping[str, Any] | None = None,
        time: datetime | None = None,
    ) -> Printed | None:
        """What is shown of it, None when nothing is."""
        verbosity = self._settings.verbosity[severity.number]
        data: Mapping[str, Any] = {}
        if verbosity == "none":
            return None
        if verbosity == "camouflage":
            messages, data = [CAMOUFLAGE], {"description": CONTACT}
        elif verbosity == "verbose" and document:
            data = {"results": document}
        return Printed(
            severity.level,
            messages,
            self._definition,
            self._stage,
            self._component,
            stream,
            data,
            time,
        )


def _whole(level: Any) -> int | None:
    """A level as a number; components also write it as text."""
    if isinstance(level, str) and level.strip().isdecimal() and len(level) < 10:
        return int(level)
    if isinstance(level, bool) or not isinstance(level, int | float) or level != level // 1:
        return None
    return int(level)


def _moment(timestamp: Any) -> datetime | None:
    """When a message says that it happened, if that can be."""
    try:
        seconds = float(timestamp)
    except (TypeError, ValueError, OverflowError):
        return None
    now = datetime.now(UTC)
    if not math.isfinite(seconds) or abs(seconds - now.timestamp()) > MOST_DRIFT:
        return None
    return datetime.fromtimestamp(seconds, UTC)
