"""The journal of a running job. Every write here asks first whether the job is still the caller's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import sqlalchemy as sa

from vaka.errors import ApplicationError
from vaka.models.job import JobRecord, Phase, StageRecord, StageStatus
from vaka.store import _records
from vaka.store._database import Transaction
from vaka.store._queue import require
from vaka.store.schema import definitions, jobs, stages
from vaka.store.values import NOTHING, Fence, Kept, StageChanges, of_status

_STAGE_FIELDS = tuple(each.name for each in fields(StageRecord))

# Made once, because making a statement costs as much as running it. Which columns are set follows from
# the values; the parameters of the conditions have names that no column has.
_UPDATE_JOB = sa.update(jobs).where(jobs.c.id == sa.bindparam("of_job"))
_OF_STAGE = (
    stages.c.job_id == sa.bindparam("of_job"),
    stages.c.attempt == sa.bindparam("of_attempt"),
    stages.c.definition == sa.bindparam("of_definition"),
    stages.c.stage == sa.bindparam("of_stage"),
)
_UPDATE_STAGE = sa.update(stages).where(*_OF_STAGE)
_STAGE_STATUS = sa.select(stages.c.status).where(*_OF_STAGE)
_INSERT_STAGE = sa.insert(stages)
_UPDATE_DEFINITION = sa.update(definitions).where(
    definitions.c.job_id == sa.bindparam("of_job"),
    definitions.c.attempt == sa.bindparam("of_attempt"),
    definitions.c.definition == sa.bindparam("of_definition"),
)
_INSERT_DEFINITION = sa.insert(definitions)


def advance(
    tx: Transaction, fence: Fence, phase: Phase, definition: int, keep: Kept = NOTHING
) -> None:
    """Write down what the job is about to do."""
    require(tx, fence)
    _keep(tx, fence, keep)
    tx.connection.execute(
        _UPDATE_JOB, {"of_job": fence.job_id, "phase": phase.value, "definition": definition}
    )


def plan_stage(tx: Transaction, fence: Fence, stage: StageRecord, keep: Kept = NOTHING) -> None:
    """Write down a container that is about to be made; again, as long as it was not started."""
    advance(tx, fence, Phase.STAGE, stage.definition, keep)
    if (stage.job_id, stage.attempt) != (fence.job_id, fence.attempt):
        raise ValueError("the stage is of another job or attempt than its fence")
    where = _stage(fence, stage.definition, stage.stage)
    status = tx.connection.execute(_STAGE_STATUS, where).scalar_one_or_none()
    if status not in {None, StageStatus.PLANNED.value}:
        raise ApplicationError(
            f"Stage {stage.stage} of definition {stage.definition} of job {fence.job_id} is "
            f"{status} already and cannot be planned again."
        )
    values = {name: getattr(stage, name) for name in _STAGE_FIELDS}
    values |= {"status": stage.status.value, "digests": list(stage.digests)}
    if status is None:
        tx.connection.execute(_INSERT_STAGE, values)
    else:
        tx.connection.execute(_UPDATE_STAGE, where | values)


def update_stage(
    tx: Transaction,
    fence: Fence,
    definition: int,
    stage: int,
    changes: StageChanges,
    keep: Kept = NOTHING,
    phase: Phase | None = None,
) -> None:
    """Write down what became of a stage, and what the job is about to do next."""
    if phase is None:
        require(tx, fence)
        _keep(tx, fence, keep)
    else:
        advance(tx, fence, phase, definition, keep)
    values: dict[str, Any] = dict(changes)
    unknown = values.keys() - StageChanges.__annotations__.keys()
    if unknown:
        raise TypeError(f"a stage has no {', '.join(sorted(unknown))} that may change")
    if "status" in values:
        values["status"] = StageStatus(values["status"]).value
    if not values:
        return
    changed = tx.connection.execute(_UPDATE_STAGE, _stage(fence, definition, stage) | values)
    if changed.rowcount == 0:
        raise _unplanned(fence, definition, stage)


def write_offsets(
    tx: Transaction, fence: Fence, offsets: Mapping[tuple[int, int], tuple[int, int]]
) -> None:
    """Write down how much of each stage's output is in the event log."""
    for (definition, stage), (stdout_bytes, stderr_bytes) in offsets.items():
        values = {"stdout_bytes": stdout_bytes, "stderr_bytes": stderr_bytes}
        changed = tx.connection.execute(_UPDATE_STAGE, _stage(fence, definition, stage) | values)
        if changed.rowcount == 0:
            raise _unplanned(fence, definition, stage)


def save_definition(tx: Transaction, fence: Fence, definition: int, data: Any) -> None:
    """Keep what a definition leaves for the job's end, in place of what it left before."""
    require(tx, fence)
    _keep(tx, fence, {definition: data})


def _keep(tx: Transaction, fence: Fence, kept: Kept) -> None:
    for definition, data in kept.items():
        of_this = {
            "of_job": fence.job_id,
            "of_attempt": fence.attempt,
            "of_definition": definition,
        }
        updated = tx.connection.execute(_UPDATE_DEFINITION, of_this | {"data": data})
        if updated.rowcount == 0:
            tx.connection.execute(
                _INSERT_DEFINITION,
                {
                    "job_id": fence.job_id,
                    "attempt": fence.attempt,
                    "definition": definition,
                    "data": data,
                },
            )


def save_usage(
    tx: Transaction, fence: Fence, entries: Sequence[Mapping[str, Any]], definition: int | None
) -> None:
    """Add a definition's usage to the job's. Saving the same definition's again replaces it."""
    require(tx, fence)
    row = tx.connection.execute(
        sa.select(jobs.c.definition, jobs.c.usage).where(jobs.c.id == fence.job_id)
    ).one()
    index = row.definition if definition is None else definition
    usage = (row.usage or {}) | {f"{fence.attempt}.{index}": [dict(entry) for entry in entries]}
    tx.connection.execute(_UPDATE_JOB, {"of_job": fence.job_id, "usage": usage})


def set_error_note(
    tx: Transaction, job_id: int, note: str | None, project: str | None
) -> JobRecord:
    """Attach a free text to a job, whatever its status."""
    _records.job(tx.connection, job_id, project)
    tx.connection.execute(_UPDATE_JOB, {"of_job": job_id, "error_note": note})
    tx.topics.update(of_status(job_id))
    return _records.job(tx.connection, job_id, project)


def _stage(fence: Fence, definition: int, stage: int) -> dict[str, Any]:
    """The parameters that name a stage."""
    return {
        "of_job": fence.job_id,
        "of_attempt": fence.attempt,
        "of_definition": definition,
        "of_stage": stage,
    }


def _unplanned(fence: Fence, definition: int, stage: int) -> ApplicationError:
    return ApplicationError(
        f"Stage {stage} of definition {definition} of job {fence.job_id} was never planned at "
        f"attempt {fence.attempt}."
    )
