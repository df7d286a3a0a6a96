"""What a container may use: memory and CPUs (runner.md section 11).

Four have a say: the component, its project, the size of container that the job asks for, and the
engine's own setting. Everything here is computed from documents.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Final

from vaka.config import MOST_CPUS, EngineConfig
from vaka.errors import ApplicationError, UserError
from vaka.models.catalog import Project
from vaka.models.component import ComponentDefinition, parse_memory
from vaka.models.event import Level

PARALLELISM: Final = "runner.cpuParallelism"
DEFAULT_PARALLELISM: Final = 2
MOST_MEMORY: Final = 64_000
"""Megabytes that a project's limit may say."""
FEATURE_OWN_LIMITS: Final = "pay-as-you-go"
"""Projects whose own limits count even for jobs that ask for a size of container."""
CONTAINER_TYPES: Final[Mapping[str, tuple[Fraction, int]]] = {
    "xsmall": (Fraction(1, 2), 1),
    "small": (Fraction(1), 2),
    "medium": (Fraction(2), 4),
    "large": (Fraction(71, 10), 14),
}
"""Size of container to (factor of the component's memory, CPUs)."""
_UNKNOWN_TYPE: Final = (Fraction(1), 1)
_DECIMAL: Final[Mapping[str, int]] = {"m": 1, "g": 1000}
_SIZE = re.compile(r"(\d{1,12})([mg])", re.ASCII)


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """What one container may use, and what there is to tell about it."""

    memory: str
    """As Docker is told and as messages say it, for example `256m` or `7100M`."""
    memory_bytes: int
    cpus: float
    notes: tuple[tuple[Level, str], ...] = field(default=())


def resource_limits(
    config: EngineConfig,
    project: Project,
    definition: ComponentDefinition,
    container_type: str | None = None,
) -> ResourceLimits:
    """The limits of a component's containers in a project.

    A job that names a `container_type` gets the size that this makes of the component's memory,
    unless its project has limits of its own (feature `pay-as-you-go`). Every other job gets the
    project's limit for the component, or else what the component says.

    Raises:
        ApplicationError: a limit of the project or of the component cannot be.
    """
    if container_type and FEATURE_OWN_LIMITS not in project.features:
        return _by_type(definition, container_type)
    own = _megabytes(project, definition)
    memory = definition.memory if own is None else f"{own}M"
    shown = "NULL" if own is None else f"'{memory}'"
    parallelism = _parallelism(project)
    return ResourceLimits(
        memory=memory,
        memory_bytes=parse_memory(memory),
        cpus=min(config.cpus, parallelism),
        notes=(
            (
                "notice",
                f"Memory limits - component: '{definition.memory}' project: {shown}",
            ),
            ("notice", f"CPU limits - instance: {config.cpus:g} project: {parallelism:g}"),
        ),
    )


def reserved_memory(
    config: EngineConfig,
    project: Project,
    definition: ComponentDefinition,
    container_type: str | None = None,
) -> int:
    """Bytes to reserve for a job on a host; never raises, because a job fails only when it runs."""
    try:
        return resource_limits(config, project, definition, container_type).memory_bytes
    except (ApplicationError, UserError):
        return definition.memory_bytes


def _by_type(definition: ComponentDefinition, container_type: str) -> ResourceLimits:
    notes: list[tuple[Level, str]] = []
    if container_type not in CONTAINER_TYPES:
        notes.append(("warn", f'Unknown containerType "{container_type}"'))
    factor, cpus = CONTAINER_TYPES.get(container_type, _UNKNOWN_TYPE)
    size = definition.memory.strip().lower()
    found = _SIZE.fullmatch(size)
    if found is None:
        raise ApplicationError(f'Value "{size}" is not understood')
    megabytes = max(1, math.floor(int(found[1]) * _DECIMAL[found[2]] * factor))
    notes.append(("notice", f"CPU limit: {cpus}"))
    return ResourceLimits(
        memory=f"{megabytes}M",
        memory_bytes=parse_memory(f"{megabytes}M"),
        cpus=cpus,
        notes=tuple(notes),
    )


def _megabytes(project: Project, definition: ComponentDefinition) -> int | None:
    name = f"runner.{definition.id}.memoryLimitMBs"
    value = project.limits.get(name)
    return None if value is None else int(_in_range(value, MOST_MEMORY, f"'{name}'"))


def _parallelism(project: Project) -> float:
    value = project.limits.get(PARALLELISM)
    return DEFAULT_PARALLELISM if value is None else _in_range(value, MOST_CPUS, PARALLELISM)


def _in_range(value: object, most: int, name: str) -> float:
    """A number from 1 to `most`, or `ApplicationError` with the text of the documents."""
    try:
        number = math.nan if isinstance(value, bool) else float(Decimal(str(value).strip()))
    except InvalidOperation:
        number = math.nan
    wrong = None
    if not math.isfinite(number):
        wrong = "a valid number"
    elif number > most:
        wrong = f"{most} or less"
    elif number < 1:
        wrong = "1 or more"
    if wrong is not None:
        raise ApplicationError(f"{name} limit is set incorrectly: This value should be {wrong}.")
    return number
