"""Taking a folder back from a container that ran as its image's own user (runner.md section 4.12).

An engine that is root does it itself. Another one has no right to, and lets root in a container do
it, of the same image, which is certain to be on the host.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

import trio

from vaka.actors.services import Services
from vaka.datafolder import JobFolder
from vaka.errors import ApplicationError
from vaka.models.container import ContainerExit, ContainerSpec

log = logging.getLogger(__name__)

ATTEMPTS = 3
TIME_LIMIT = 120.0
"""Seconds that one try may take."""
PAUSE = (60.0, 180.0)
"""Shortest and longest pause before another try: what hung may need time to recover."""


async def take_back(
    services: Services,
    folder: JobFolder,
    spec: ContainerSpec,
    tell: Callable[[str], Awaitable[None]],
) -> None:
    """Make what a container of this spec has left readable to the engine and to the next container.

    Raises:
        ApplicationError: it cannot be done.
    """
    await tell("Normalizing working directory permissions")
    try:
        await trio.to_thread.run_sync(folder.normalise_permissions, *services.folder_owner)
    except PermissionError:
        log.info("folder.foreign", extra={"container": spec.name})
    else:
        return
    for attempt in range(1, ATTEMPTS + 1):
        if attempt > 1:
            await trio.sleep(random.uniform(*PAUSE))  # noqa: S311 - a pause is no secret
            await tell("Normalizing working directory permissions")
        helper = ownership_container(spec, services.config.owner, attempt)
        ending = await _run(services, helper)
        if ending is None:
            continue
        if ending.exit_code == 0:
            return
        raise ApplicationError(
            f"What container {spec.name} left in its folder belongs to others, and its image could "
            f"not give it back (exit code {ending.exit_code}): run the service as root, or add "
            "`sh`, `chown` and `chmod` to the image."
        )
    raise ApplicationError(
        f"What container {spec.name} left in its folder belongs to others, and giving it back did not "
        f"end within {TIME_LIMIT:g} s, {ATTEMPTS} times."
    )


def ownership_container(
    spec: ContainerSpec, owner: tuple[int, int], attempt: int = 1
) -> ContainerSpec:
    """A container that gives everything that is mounted in `spec`'s to `owner`, as it knows them."""
    targets = " ".join(mount.target for mount in spec.mounts)
    return replace(
        spec,
        name=f"{spec.name}-owner-{attempt}",
        entrypoint=("sh", "-c"),
        command=(f"chown -R {owner[0]}:{owner[1]} {targets} && chmod -R u+rwX {targets}",),
        environment={},
        user="0:0",
        network="none",
        sysctls={},
        drop_capabilities=False,
    )


async def _run(services: Services, spec: ContainerSpec) -> ContainerExit | None:
    """How a helper ended, or None when it did not in time. Nothing of it is left."""
    runtime = services.runtime
    try:
        async with services.starting:
            await runtime.create(spec)
            await runtime.start(spec.name)
        with trio.move_on_after(TIME_LIMIT):
            return await runtime.wait(spec.name)
        return None
    finally:
        with trio.move_on_after(services.config.cleanup_timeout, shield=True) as cleanup:
            await runtime.remove(spec.name)
        if cleanup.cancelled_caught:
            log.error("container.leaked", extra={"container": spec.name})
