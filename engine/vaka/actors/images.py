"""Bringing images to the host: credentials, patience, and what is told of it (runner.md 10.5)."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace

import trio

from vaka.actors.services import Services
from vaka.ecr import authorization_token, registry_account
from vaka.errors import ApplicationError, ImageUnavailable, RuntimeUnavailable, UserError
from vaka.models.component import ComponentDefinition
from vaka.models.container import ImageInfo, RegistryAuth
from vaka.models.event import Level
from vaka.registries import registry_host, stored_credentials

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
SEEN = 1.0
"""Seconds for which an image on the host is not looked at again. A container is made of the image that
was seen, by its id, so what is told of it is true whoever moves its tag meanwhile."""
MOST_SEEN = 1_000
TOKEN_LIFE = 6 * 3600.0
"""Seconds for which a token of Amazon's is used again; it is good for twelve hours."""

Tell = Callable[[Level, str], Awaitable[None]]
"""Takes what there is to say: warnings for whoever follows the job, notices for the operator."""


async def prepare_image(
    services: Services, definition: ComponentDefinition, reference: str, tell: Tell
) -> ImageInfo:
    """The image, on the host; failures that may pass are tried again with growing pauses.

    A registry is asked, and logged in to, only when the host has not what the definition wants.

    Raises:
        UserError: a registry of Amazon's does not have the tag.
        ImageUnavailable: it does not exist, may not be pulled, or could not be pulled in all tries.
        RuntimeUnavailable: the container runtime does not answer.
    """
    key, now = (reference, definition.digest), trio.current_time()
    seen, image = services.seen_images.get(key, (-math.inf, None))
    if image is not None and now - seen < SEEN:
        await services.images.note(image, services.now())
        return image
    preparation = _Preparation(services, definition, reference, tell)
    try:
        image = await preparation.run()
    except ImageUnavailable as error:
        if definition.image_type == "aws-ecr":
            services.registry_tokens.pop(registry_host(reference), None)  # it may be of no use
            _raise_for_ecr(services, definition, reference, error)
        raise
    await services.images.note(image, services.now())
    if not image.digests or definition.digest:  # no registry has the last word on it
        if len(services.seen_images) >= MOST_SEEN:
            services.seen_images.clear()
        services.seen_images[key] = (now, replace(image, pulled=False))
    return image


def forget_image(services: Services, definition: ComponentDefinition, reference: str) -> None:
    """Have the host asked for this image again, however short ago that was."""
    services.seen_images.pop((reference, definition.digest), None)


class _Preparation:
    def __init__(
        self, services: Services, definition: ComponentDefinition, reference: str, tell: Tell
    ) -> None:
        self._services = services
        self._definition = definition
        self._reference = reference
        self._tell = tell
        self._is_told = False

    async def run(self) -> ImageInfo:
        config, reference = self._services.config, self._reference
        pause = FIRST_PAUSE
        for attempts_left in range(config.pull_attempts - 1, -1, -1):
            try:
                with trio.fail_after(config.pull_timeout):
                    return await self._services.runtime.prepare_image(
                        reference, digest=self._definition.digest or None, login=self._login
                    )
            except trio.TooSlowError as error:
                failure: ApplicationError = ImageUnavailable(
                    f"Cannot pull image '{reference}': it took more than the "
                    f"{config.pull_timeout:g} s of pull_timeout",
                    reference=reference,
                    transient=True,
                )
                failure.__cause__ = error
            except RuntimeUnavailable as error:
                failure = error
            except ImageUnavailable as error:
                if not error.transient:
                    raise
                failure = error
            if not attempts_left:
                raise failure
            await self._tell(
                "warn",
                f"Image {reference} could not be pulled, trying again in {pause:g} s: {failure}",
            )
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        raise AssertionError("pull_attempts is at least 1")

    async def _login(self, found: ImageInfo | None) -> RegistryAuth | None:
        """Credentials for the registry that is going to be asked; `found` is what the host has."""
        digest, reference = self._definition.digest, self._reference
        if not self._is_told:
            self._is_told = True
            if found is None:
                await self._tell("notice", f"Failed to get hash for image {reference}")
                await self._tell("info", f"Pulling image {reference}.")
            if digest:
                await self._tell("notice", f'Digest "{digest}" for image "{reference}" not found.')
        services, config = self._services, self._services.config
        given = services.plugins.registry_auth(reference)
        if given is not None:
            return given
        host = registry_host(reference)
        is_ecr = self._definition.image_type == "aws-ecr"
        if is_ecr and config.replicated_registry:
            if config.replicated_registry_user and config.replicated_registry_password:
                password = config.replicated_registry_password.get_secret_value()
                return RegistryAuth(host, config.replicated_registry_user, password)
            is_ecr = False
        if is_ecr:
            registry_account(self._definition.uri)  # refuse what can be no image of Amazon's
        try:
            stored = await stored_credentials(host, config.docker_config)
        except ApplicationError as error:
            # the image may be open to all: a helper that somebody else has set up must not stop it
            await self._tell("warn", str(error))
            stored = None
        if stored is None and is_ecr:
            return await self._ask_amazon(host)
        return stored

    async def _ask_amazon(self, host: str) -> RegistryAuth:
        """A token of Amazon's, patiently; one that was given a while ago is as good."""
        tokens = self._services.registry_tokens
        asked, auth = tokens.get(host, (-math.inf, None))
        if auth is not None and trio.current_time() - asked < TOKEN_LIFE:
            return auth
        pause = FIRST_PAUSE
        for attempts_left in range(self._services.config.pull_attempts - 1, -1, -1):
            try:
                auth = await authorization_token(
                    self._definition.uri, self._definition.region, os.environ
                )
            except ApplicationError as error:
                await self._tell("notice", f"Retrying AWS GetCredentials. error: {error}")
                if not attempts_left:
                    raise ImageUnavailable(
                        f"Login to {host} failed: {error}", reference=self._reference
                    ) from error
            else:
                tokens[host] = (trio.current_time(), auth)
                return auth
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        raise AssertionError("pull_attempts is at least 1")


def _raise_for_ecr(
    services: Services, definition: ComponentDefinition, reference: str, error: ImageUnavailable
) -> None:
    """Name the failures that registries of Amazon's, and what stands in for them, have of their own.

    Raises:
        UserError: the tag is not there.
        ImageUnavailable: the registry does not let us in.
    """
    if "403 Forbidden" in error.message:
        raise ImageUnavailable(
            f"Login to {registry_host(reference)} failed: {error.message}", reference=reference
        ) from error
    if "not found" in error.message and not services.config.replicated_registry:
        tag = reference.rpartition(":")[2]
        raise UserError(f'Image "{definition.id}:{tag}" not found in the registry.') from error
