"""The collector: what is old and nobody needs, found by `plan` and removed by `apply`.

It looks only at what is this installation's: containers and images that carry its name, images that
this engine has pulled, folders and logs of its jobs, files that its debug jobs have made. Everything
else on the daemon stays, whatever its age. Just before a thing is removed it is asked again whether
somebody needs it by now.

Source: runner.md section 12.1.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import trio

from vaka.actors.ledger import Pulled
from vaka.actors.reconciler import (
    LABEL_INSTANCE,
    is_needed,
    job_folders,
    jobs_folder,
)
from vaka.actors.services import Services
from vaka.datafolder import JobFolder
from vaka.errors import EngineError, NotFound
from vaka.models.container import ContainerPhase, HostImage
from vaka.models.garbage import Garbage, GarbageKind, GarbagePlan, GarbageReport
from vaka.models.storage import FileQuery, StorageScope

log = logging.getLogger(__name__)

LABEL_ORIGIN = "com.keboola.docker.runner.origin"
BUILDER = "builder"
TITLES = {
    GarbageKind.CONTAINER: "Clearing old containers",
    GarbageKind.DANGLING_IMAGE: "Clearing dangling images",
    GarbageKind.BUILDER_IMAGE: "Clearing builder images",
    GarbageKind.PULLED_IMAGE: "Clearing pulled images",
    GarbageKind.FOLDER: "Clearing job folders",
    GarbageKind.LOG: "Clearing logs of old jobs",
    GarbageKind.SNAPSHOT: "Clearing snapshots of debug jobs",
}
IMAGES = (GarbageKind.DANGLING_IMAGE, GarbageKind.BUILDER_IMAGE, GarbageKind.PULLED_IMAGE)
TIMEOUT_REACHED = "Timeout reached, terminating"
FINISHED = "Finished"
LOG_BATCH = 100
"""Jobs whose logs are removed in one transaction."""
PAGE = 1_000


async def collect_forever(services: Services, interval: float) -> None:
    """Remove what nobody needs at every interval, until cancelled."""
    while True:
        await trio.sleep(interval)
        try:
            await apply(services, await plan(services), timeout=services.config.gc_timeout)
        except Exception:
            log.exception("garbage.failed")  # of a plugin, say: jobs are not ended by it


async def plan(services: Services) -> GarbagePlan:
    """All that may go now. What cannot be looked at is named and left out."""
    items: list[Garbage] = []
    failures: dict[GarbageKind, str] = {}
    finders: tuple[tuple[GarbageKind, Callable[[], AsyncIterator[Garbage]]], ...] = (
        (GarbageKind.CONTAINER, partial(_containers, services)),
        (GarbageKind.PULLED_IMAGE, partial(_images, services)),
        (GarbageKind.FOLDER, partial(_folders, services)),
        (GarbageKind.LOG, partial(_logs, services)),
        (GarbageKind.SNAPSHOT, partial(_snapshots, services)),
    )
    for kind, find in finders:
        try:
            items += [item async for item in find()]
        except (EngineError, OSError) as error:
            failures[kind] = str(error)
    order = list(GarbageKind)
    items.sort(key=lambda item: order.index(item.kind))
    return GarbagePlan(tuple(items), failures)


async def apply(
    services: Services,
    planned: GarbagePlan,
    *,
    timeout: float,
    say: Callable[[str], None] = lambda line: None,  # noqa: ARG005
) -> GarbageReport:
    """Remove what a plan names, and nothing else, for at most about `timeout` seconds.

    The time is looked at before each thing; one that is being removed is removed. What fails is told,
    and the next one comes. `say` is given a line for each step.
    """
    deadline = trio.current_time() + timeout
    removed: list[Garbage] = []
    failures: list[str] = []
    timed_out = False
    for kind, title in TITLES.items():
        say(title)
        if kind in planned.failures:
            failures.append(f"{title} failed {planned.failures[kind]}")
            say(failures[-1])
        for item in (each for each in planned.items if each.kind is kind):
            if trio.current_time() >= deadline:
                say(TIMEOUT_REACHED)
                timed_out = True
                break
            say(f"Removing {_called(item)}: {item.reason}")
            try:
                kept = await _remove(services, item, deadline)
            except (EngineError, OSError, trio.TooSlowError) as error:
                failures.append(f"Error occurred when processing {_called(item)}: {error}")
                say(failures[-1])
            else:
                if kept is None:
                    removed.append(item)
                else:
                    say(f"Kept {_called(item)}: {kept}")
    say(FINISHED)
    report = GarbageReport(tuple(removed), tuple(failures), timed_out)
    log.info(
        "garbage.collected",
        extra={
            "count": len(removed),
            "bytes": sum(item.bytes or 0 for item in removed),
            "failures": len(failures),
            "timed_out": timed_out,
        },
    )
    return report


def _called(item: Garbage) -> str:
    if item.kind in IMAGES:
        return f"image {item.name}"
    return f"{item.kind.value} {item.name}"


async def _remove(services: Services, item: Garbage, deadline: float) -> str | None:
    """Remove a thing, unless it is needed by now; then return why it stays."""
    remove: Callable[[], Awaitable[str | None]]
    match item.kind:
        case GarbageKind.CONTAINER:
            remove = partial(_remove_container, services, item.name)
        case GarbageKind.DANGLING_IMAGE | GarbageKind.BUILDER_IMAGE | GarbageKind.PULLED_IMAGE:
            remove = partial(_remove_image, services, item)
        case GarbageKind.FOLDER:
            remove = partial(_remove_folder, services, int(item.name))
        case GarbageKind.LOG:
            remove = partial(_remove_logs, services, item, deadline)
        case GarbageKind.SNAPSHOT:
            remove = partial(_remove_snapshot, services, item)
    return await remove()


# -- containers ------------------------------------------------------------------------------------


async def _containers(services: Services) -> AsyncIterator[Garbage]:
    """Ended containers of this installation that no job needs, when they are old enough."""
    now = services.now()
    found = await services.runtime.list_containers({LABEL_INSTANCE: services.config.instance})
    active = await services.store.active_jobs()
    for each in found:
        if each.phase is ContainerPhase.RUNNING or is_needed(each, active, now.timestamp()):
            continue
        container = await services.runtime.find(each.name)
        if container is None or container.phase is ContainerPhase.RUNNING:
            continue
        since = container.finished or container.created
        if since is None or now - since < timedelta(seconds=services.config.gc_container_age):
            continue
        what = "ended" if container.finished else "was created and never started"
        yield Garbage(
            GarbageKind.CONTAINER,
            each.name,
            f"it {what} {_age(now - since)} ago, and no job needs it",
        )


async def _remove_container(services: Services, name: str) -> str | None:
    container = await services.runtime.find(name)
    if container is None:
        return "it is gone already"
    active = await services.store.active_jobs()
    if is_needed(container, active, services.now().timestamp()):
        return "a job needs it"
    with trio.fail_after(services.config.cleanup_timeout):
        await services.runtime.remove(name)
    return None


# -- images ----------------------------------------------------------------------------------------


async def _images(services: Services) -> AsyncIterator[Garbage]:
    """Images of ours: made for this installation, or pulled by this engine."""
    config, now = services.config, services.now()
    pulled = await services.images.read()
    own = {LABEL_INSTANCE: config.instance}
    here = await services.runtime.images([each.id for each in pulled], own)
    used = await services.store.images_used()
    for image in here:
        if own.items() <= image.labels.items():
            garbage = _made(image, now, config.gc_image_age)
            if garbage is not None:
                yield garbage
    by_id = {image.id: image for image in here}
    for each in pulled:
        found = by_id.get(each.id)
        if found is None:
            await services.images.forget(each)  # somebody has removed it
            continue
        is_named = each.reference in (*found.references, *found.digests)
        if found.references and not is_named:
            await services.images.forget(each)  # it has another's names only
            continue
        uses = (each.pulled, used.get(each.id), services.images.last_use(each.id))
        last = max(moment for moment in uses if moment is not None)
        if not is_named:
            if now - last >= timedelta(seconds=config.action_timeout + config.lease):
                yield Garbage(
                    GarbageKind.DANGLING_IMAGE,
                    found.id,
                    f"{each.reference} is another image by now",
                    found.bytes,
                )
        elif now - last >= timedelta(seconds=config.gc_image_age):
            yield Garbage(
                GarbageKind.PULLED_IMAGE,
                each.reference,
                f"it was pulled by this engine and last used {_age(now - last)} ago",
                found.bytes,
            )


def _made(image: HostImage, now: datetime, age: float) -> Garbage | None:
    """An image that carries this installation's name, if it may go."""
    if not image.references:
        return Garbage(GarbageKind.DANGLING_IMAGE, image.id, "it has no name", image.bytes)
    if image.labels.get(LABEL_ORIGIN) != BUILDER or image.created is None:
        return None
    if now - image.created < timedelta(seconds=age):
        return None
    return Garbage(
        GarbageKind.BUILDER_IMAGE,
        image.references[0],
        f"it was built {_age(now - image.created)} ago",
        image.bytes,
    )


async def _remove_image(services: Services, item: Garbage) -> str | None:
    pulled = [each for each in await services.images.read() if _is_of(each, item)]
    for each in pulled:
        last = services.images.last_use(each.id)
        if last is not None and services.now() - last < timedelta(hours=1):
            return "it was used just now"
    if not await services.runtime.remove_image(item.name):
        return "it is in use, or gone already"
    for each in pulled:
        await services.images.forget(each)
    return None


def _is_of(pulled: Pulled, item: Garbage) -> bool:
    return item.name in {pulled.id, pulled.reference}


# -- folders ---------------------------------------------------------------------------------------


async def _folders(services: Services) -> AsyncIterator[Garbage]:
    """Folders of jobs that do not run."""
    folders = await trio.to_thread.run_sync(job_folders, jobs_folder(services.config.home))
    active = await services.store.active_jobs()
    for job_id, folder in sorted(folders.items()):
        if job_id not in active and await _has_ended(services, job_id):
            size = await trio.to_thread.run_sync(_size, folder)
            yield Garbage(GarbageKind.FOLDER, str(job_id), "its job does not run", size)


async def _has_ended(services: Services, job_id: int) -> bool:
    """Whether a job can never use its folder again; one that waits may be claimed any moment."""
    try:
        return (await services.store.job(job_id)).status.is_finished
    except NotFound:
        return True


def _size(folder: Path) -> int:
    """Bytes of the files below a folder; links are not followed."""
    total = 0
    for _, _, files, descriptor in os.fwalk(folder, follow_symlinks=False):
        for name in files:
            try:
                total += os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_size
            except OSError:
                continue  # it went meanwhile
    return total


async def _remove_folder(services: Services, job_id: int) -> str | None:
    if not await _has_ended(services, job_id):
        return "its job may run"
    folder = jobs_folder(services.config.home) / str(job_id)
    await trio.to_thread.run_sync(JobFolder(folder, owner=None).remove)
    return None


# -- logs ------------------------------------------------------------------------------------------


async def _logs(services: Services) -> AsyncIterator[Garbage]:
    """Logs and journals of jobs that ended long ago; the jobs themselves stay."""
    if services.config.gc_log_age is None:
        return
    before = services.now() - timedelta(seconds=services.config.gc_log_age)
    count, size = await services.store.old_logs(before)
    if count:
        yield Garbage(
            GarbageKind.LOG,
            f"of {count} jobs",
            f"they ended before {before:%Y-%m-%d %H:%M} UTC",
            size,
            before=before,
        )


async def _remove_logs(services: Services, item: Garbage, deadline: float) -> str | None:
    assert item.before is not None  # noqa: S101 - `_logs` has set it
    while trio.current_time() < deadline:
        if await services.store.forget_logs(item.before, LOG_BATCH) < LOG_BATCH:
            return None
    return "there was no time for all of them"


# -- snapshots -------------------------------------------------------------------------------------


async def _snapshots(services: Services) -> AsyncIterator[Garbage]:
    """Photographs of data folders that debug jobs made long ago."""
    if services.config.gc_snapshot_age is None:
        return
    now = services.now()
    for project in await services.catalog.projects():
        scope, below = StorageScope(project=project.id), None
        while True:
            query = FileQuery(tags=("debug",), max_id=below, limit=PAGE)
            found = await services.storage.files.list_files(scope, query)
            for file in found:
                age = now - file.created
                if _is_snapshot(file.name, file.tags) and age >= timedelta(
                    seconds=services.config.gc_snapshot_age
                ):
                    yield Garbage(
                        GarbageKind.SNAPSHOT,
                        str(file.id),
                        f"{file.name} of a debug job is {_age(age)} old",
                        file.size_bytes,
                        project=project.id,
                    )
            if len(found) < PAGE:
                break
            below = min(file.id for file in found)


def _is_snapshot(name: str, tags: Iterable[str]) -> bool:
    """Whether the runner made a file, and not somebody who likes the same tag."""
    return name.startswith("stage_") and any(tag.startswith("jobId:") for tag in tags)


async def _remove_snapshot(services: Services, item: Garbage) -> str | None:
    assert item.project is not None  # noqa: S101 - `_snapshots` has set it
    try:
        await services.storage.files.delete(StorageScope(project=item.project), int(item.name))
    except NotFound:
        return "it is gone already"
    return None


def _age(age: timedelta) -> str:
    hours = int(age.total_seconds() // 3_600)
    return f"{hours // 24} days" if hours >= 48 else f"{hours} hours"
