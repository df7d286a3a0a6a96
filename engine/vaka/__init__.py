"""Vaka runs container images as data workers: this is what an embedder imports."""

from vaka.config import EngineConfig
from vaka.engine import Engine, Health, Job
from vaka.errors import ApplicationError, EngineError, UserError
from vaka.models.event import Event
from vaka.models.job import (
    ActionResult,
    ActionSpec,
    JobQuery,
    JobRecord,
    JobSpec,
    Mode,
    Outcome,
    Status,
)

__all__ = [
    "ActionResult",
    "ActionSpec",
    "ApplicationError",
    "Engine",
    "EngineConfig",
    "EngineError",
    "Event",
    "Health",
    "Job",
    "JobQuery",
    "JobRecord",
    "JobSpec",
    "Mode",
    "Outcome",
    "Status",
    "UserError",
]
