"""The reconciler: what the store says against what the runtime and the disk have.

A container or a folder that carries this installation's name and belongs to no job that could still
need it is removed. It never touches a running job's or action's things: those are its actor's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import trio

from vaka.actors.services import Services
from vaka.datafolder import JobFolder
from vaka.errors import EngineError
from vaka.models.container import ContainerStatus

log = logging.getLogger(__name__)

LABEL_INSTANCE = "vaka.instance"
LABEL_JOB = "vaka.job"
LABEL_ATTEMPT = "vaka.attempt"
LABEL_DEFINITION = "vaka.definition"
LABEL_STAGE = "vaka.stage"
LABEL_DEADLINE = "vaka.deadline"
"""Unix time after which a container that belongs to no job is nobody's."""


async def reconcile_forever(services: Services) -> None:
    """Reconcile at once and then at every interval, until cancelled."""
    while True:
        try:
            await reconcile(services)
            await services.runtime.tidy()
        except EngineError as error:
            log.warning("reconcile.failed", extra={"error": str(error)})
        await trio.sleep(services.config.reconcile_interval)


async def reconcile(services: Services) -> None:
    """Remove what no job needs any more: containers first, then the folders they used."""
    # the containers are listed before the jobs: one that is created in between is not in the list
    containers = await services.runtime.list_containers({LABEL_INSTANCE: services.config.instance})
    folders = await trio.to_thread.run_sync(job_folders, jobs_folder(services.config.home))
    active = await services.store.active_jobs()
    await _end_actions(services)
    for container in containers:
        if container.name in services.acting:
            continue  # however long it had to wait for its start
        if not is_needed(container, active, services.now().timestamp()):
            log.warning(
                "container.orphaned", extra={"container": container.name, "phase": container.phase}
            )
            with trio.move_on_after(services.config.cleanup_timeout):
                await services.runtime.remove(container.name)
    for job_id, folder in folders.items():
        if job_id not in active:
            log.info("folder.orphaned", extra={"job_id": job_id})
            await trio.to_thread.run_sync(JobFolder(folder, owner=None).remove)


async def _end_actions(services: Services) -> None:
    """Remove what is left of actions whose caller nobody answers any more.

    A home has one engine that runs anything, so an action of it is under way here or nowhere. Its folder
    is there as long as its container may be.
    """
    parent = actions_folder(services.config.home)
    # the folders are listed before the actions: one that begins in between is not in the list
    for name in sorted(await trio.to_thread.run_sync(_entries, parent)):
        if name in services.acting:
            continue
        log.warning("action.orphaned", extra={"container": name})
        with trio.move_on_after(services.config.cleanup_timeout):
            await services.runtime.remove(name)
            await trio.to_thread.run_sync(JobFolder(parent / name, owner=None).remove)


def _entries(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []


def actions_folder(home: Path) -> Path:
    """Where the folders of actions are: one an action, named as its container."""
    return home.absolute() / "actions"


def jobs_folder(home: Path) -> Path:
    """Where the folders of jobs are: one a job, named by its id."""
    return home.absolute() / "jobs"


def job_folders(parent: Path) -> dict[int, Path]:
    """The folders of jobs below `parent`, by the ids of their jobs."""
    if not parent.is_dir():
        return {}
    return {int(entry.name): entry for entry in parent.iterdir() if entry.name.isdigit()}


def is_needed(container: ContainerStatus, active: Mapping[int, int], now: float) -> bool:
    """Whether a job at the attempt that made the container, or a waiting caller, may need it."""
    labels = container.labels
    try:
        if LABEL_DEADLINE in labels:
            return now < float(labels[LABEL_DEADLINE])
        return active.get(int(labels[LABEL_JOB])) == int(labels[LABEL_ATTEMPT])
    except (KeyError, ValueError):
        return False
