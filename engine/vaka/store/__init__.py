"""The journaled job store, on SQLite or PostgreSQL."""

from vaka.store._watch import Watch
from vaka.store.job_store import JobStore
from vaka.store.values import (
    Blocker,
    EventsOutOfOrder,
    Fence,
    LeaseLost,
    LogTail,
    NewJob,
    Owner,
    Renewal,
    StageChanges,
    Topic,
)

__all__ = [
    "Blocker",
    "EventsOutOfOrder",
    "Fence",
    "JobStore",
    "LeaseLost",
    "LogTail",
    "NewJob",
    "Owner",
    "Renewal",
    "StageChanges",
    "Topic",
    "Watch",
]
