"""Bringing images to the host, patiently (runner.md section 10.5)."""

from __future__ import annotations

import trio

from vaka.actors.events import Entry, EventLog
from vaka.actors.services import Services
from vaka.errors import ImageUnavailable
from vaka.models.container import ImageInfo

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0


async def prepare_image(
    services: Services, reference: str, digest: str, events: EventLog, component: str
) -> ImageInfo:
    """The image, on the host; failures that may pass are tried again with growing pauses.

    Raises:
        ImageUnavailable: it does not exist, may not be pulled, or could not be pulled in all tries.
    """
    image = await _patiently(services, reference, digest, events)
    await events.write(
        Entry(
            "image.prepared",
            "info",
            f"Using image {reference} with repo-digest {', '.join(image.digests)}"
            if image.digests
            else f"Using image {reference}, which is only on this host",
            component=component,
            data={"image": reference, "id": image.id, "digests": list(image.digests)},
        )
    )
    return image


async def _patiently(
    services: Services, reference: str, digest: str, events: EventLog
) -> ImageInfo:
    config = services.config
    pause = FIRST_PAUSE
    for attempts_left in range(config.pull_attempts - 1, -1, -1):
        auth = services.plugins.registry_auth(reference)
        try:
            with trio.fail_after(config.pull_timeout):
                return await services.runtime.prepare_image(
                    reference, digest=digest or None, auth=auth
                )
        except (ImageUnavailable, trio.TooSlowError) as error:
            passing = isinstance(error, trio.TooSlowError) or error.transient
            if not passing or not attempts_left:
                raise
            await events.note(
                "warn",
                f"Image {reference} could not be pulled, trying again in {pause:g} s: {error}",
            )
        await trio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    raise AssertionError("pull_attempts is at least 1")
