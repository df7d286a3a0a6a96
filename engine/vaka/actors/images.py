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
    config = services.config
    attempt = 0
    while True:
        attempt += 1
        auth = services.plugins.registry_auth(reference)
        try:
            with trio.fail_after(config.pull_timeout):
                image = await services.runtime.prepare_image(
                    reference, digest=digest or None, auth=auth
                )
            break
        except (ImageUnavailable, trio.TooSlowError) as error:
            passing = isinstance(error, trio.TooSlowError) or error.transient
            if attempt >= config.pull_attempts or not passing:
                raise
            pause = min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE)
            await events.note(
                "notice",
                f"Image {reference} could not be pulled, trying again in {pause:g} s: {error}",
            )
            await trio.sleep(pause)
    await events.write(
        Entry(
            "image.prepared",
            "notice",
            f"Using image {reference} with repo-digest {', '.join(image.digests)}"
            if image.digests
            else f"Using image {reference}, which is only on this host",
            component=component,
            data={"image": reference, "id": image.id, "digests": list(image.digests)},
        )
    )
    return image
