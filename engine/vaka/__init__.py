"""Vaka runs container images as data workers: this is what an embedder imports.

Names are loaded when they are first used, so that a plugin or a command that needs only
`vaka.errors` does not load the engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vaka.actors.health import Health
    from vaka.config import EngineConfig
    from vaka.engine import Engine, Job
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

_ELSEWHERE = {
    "EngineConfig": "vaka.config",
    "Engine": "vaka.engine",
    "Health": "vaka.actors.health",
    "Job": "vaka.engine",
    "ApplicationError": "vaka.errors",
    "EngineError": "vaka.errors",
    "UserError": "vaka.errors",
    "Event": "vaka.models.event",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'vaka' has no attribute {name!r}")
    value = getattr(import_module(_ELSEWHERE.get(name, "vaka.models.job")), name)
    globals()[name] = value
    return value
