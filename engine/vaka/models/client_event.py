"""What clients say has happened, kept for whoever asks (storage-api.md section 11.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

EventType = Literal["info", "success", "warn", "error"]


@dataclass(frozen=True, slots=True)
class NewClientEvent:
    """An event to be kept."""

    project: str
    component: str
    """As the client calls itself; it need not be registered."""
    message: str
    type: EventType = "info"
    description: str = ""
    configuration_id: str = ""
    run_id: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    duration: int | None = None
    """Seconds."""
    branch: str | None = None
    token_id: str | None = None
    token_description: str | None = None


@dataclass(frozen=True, slots=True)
class ClientEvent:
    """An event that is kept."""

    id: int
    uuid: str
    created: datetime
    said: NewClientEvent


@dataclass(frozen=True, slots=True)
class ClientEventQuery:
    """Which events to list, newest first; conditions combine with AND."""

    project: str
    run_id: str | None = None
    """Exactly, or the part after the last dot."""
    component: str | None = None
    configuration_id: str | None = None
    words: tuple[str, ...] = ()
    """All of them stand in the message, in any letter case."""
    since_id: int | None = None
    """Ids above this."""
    max_id: int | None = None
    """Ids below this."""
    limit: int = 100
    offset: int = 0
