"""Triggers: run a configuration when tables have been loaded (storage-api.md section 11.2)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class NewTrigger:
    """A trigger to be kept."""

    project: str
    component: str
    config: str
    tables: tuple[str, ...]
    """Ids of the tables whose imports it waits for; they need not exist."""
    run_with_token_id: str
    """Whose rights its jobs have."""
    cool_down_minutes: int = 1
    """How long after a run no other one begins."""
    token_id: str | None = None
    """Who made it."""
    token_description: str | None = None


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger that is kept."""

    id: int
    created: datetime
    wanted: NewTrigger
    last_run: datetime | None = None


@dataclass(frozen=True, slots=True)
class TriggerChanges:
    """What is to be different; None is left as it is."""

    component: str | None = None
    config: str | None = None
    tables: tuple[str, ...] | None = None
    run_with_token_id: str | None = None
    cool_down_minutes: int | None = None
