"""The action actor: one container that runs while its caller waits (runner.md section 8).

An action has no job and no journal. It has its own limit and its own deadline, and nothing of it
remains: not when it failed, not when its caller went away.
"""

from __future__ import annotations

import json
import logging
import secrets
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import trio

from vaka.actors.container import Limits, run_container
from vaka.actors.images import prepare_image
from vaka.actors.limits import ResourceLimits, resource_limits
from vaka.actors.listeners import heard
from vaka.actors.output import OutputReader, sanitise
from vaka.actors.reconciler import LABEL_DEADLINE, LABEL_INSTANCE
from vaka.actors.services import Services
from vaka.actors.stages import LABEL_PREFIX, Stage, mounts, profile, shared_environment
from vaka.actors.verdicts import raise_for_ending
from vaka.datafolder import JobFolder
from vaka.errors import AccessDenied, NotFound, Overloaded, UserError
from vaka.gelf import Unreadable
from vaka.hooks import SpecContext
from vaka.masking import Masker
from vaka.models.component import ComponentDefinition
from vaka.models.configuration import JobConfiguration, dumps_config
from vaka.models.container import ContainerSpec, OutputChunk, StreamName
from vaka.models.event import Level
from vaka.models.job import ActionResult, ActionSpec
from vaka.oauth import fetch_credentials, wanted_credentials

log = logging.getLogger(__name__)

ANSWER_BYTES = 16 << 20
"""Longest answer of an action."""


class Actions:
    """Runs synchronous actions, as many at a time as the settings allow."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._running = 0

    async def act(self, spec: ActionSpec) -> ActionResult:
        """Run one action and return what it answered.

        Raises:
            NotFound: no such component, or it declares no such action.
            AccessDenied: the action is `run`.
            Overloaded: too many run already.
            UserError: the action failed, took too long or answered no JSON.
        """
        definition = await self._definition(spec)
        configuration = JobConfiguration.parse(spec.config_data)
        if self._running >= self._services.config.action_concurrency:
            raise Overloaded(
                f"{self._running} actions are running, which is as many as may; try again shortly.",
                retry_after=1,
            )
        self._running += 1
        try:
            return await self._run(spec, definition, configuration)
        finally:
            self._running -= 1

    async def _definition(self, spec: ActionSpec) -> ComponentDefinition:
        try:
            component = await self._services.catalog.component(spec.component)
        except NotFound as error:
            raise NotFound(
                f"Component '{spec.component}' not found", kind="component", id=spec.component
            ) from error
        definition = ComponentDefinition.parse(component)
        if spec.action not in definition.synchronous_actions:
            raise NotFound(f"Action '{spec.action}' not found", kind="action", id=spec.action)
        if spec.action == "run":
            raise AccessDenied("Action 'run' not allowed")
        return definition

    async def _run(
        self, spec: ActionSpec, definition: ComponentDefinition, configuration: JobConfiguration
    ) -> ActionResult:
        services, config = self._services, self._services.config
        project = await services.catalog.project(spec.project)
        credentials = None
        wanted = wanted_credentials(configuration)
        if wanted is not None:
            credentials = await fetch_credentials(
                config.oauth_url,
                services.catalog,
                project=spec.project,
                component=definition.id,
                credentials_id=wanted,
                token=spec.token,
            )
        run_id = spec.run_id or secrets.token_hex(8)
        name = f"vaka-{config.instance}-action-{secrets.token_hex(8)}"
        folder = JobFolder(config.home.absolute() / "actions" / name, owner=config.owner)
        stage = Stage(
            index=0,
            kind="action",
            definition=definition,
            reference=definition.image_reference(spec.tag, replica=config.replicated_registry),
            document=configuration.config_file(
                image_parameters=definition.image_parameters,
                action=spec.action,
                oauth_credentials=credentials,
                format=definition.configuration_format,
            ),
            timeout=config.action_timeout,
            timeout_setting="action_timeout of the engine",
        )
        limits = resource_limits(config, project, definition)
        image = await prepare_image(services, definition, stage.reference, _log_notice)
        deadline = services.now().timestamp() + 2 * config.action_timeout + config.stop_grace
        container = services.plugins.container_spec(
            profile(
                config,
                stage,
                limits,
                name=name,
                image=image,
                mounts=mounts(folder),
                environment={
                    **shared_environment(config, project, stage, spec.token),
                    "KBC_RUNID": run_id,
                    "KBC_COMPONENT_RUN_MODE": "run",
                },
                labels={
                    LABEL_INSTANCE: config.instance,
                    LABEL_DEADLINE: str(int(deadline)),
                    LABEL_PREFIX + "jobId": "0",
                    LABEL_PREFIX + "runId": run_id,
                    LABEL_PREFIX + "rowId": "",
                    LABEL_PREFIX + "containerName": f"{definition.sanitised_id}-0-{run_id}-0",
                    LABEL_PREFIX + "projectId": project.id,
                },
            ),
            SpecContext(
                job_id=0,
                project=project.id,
                component=definition.id,
                kind="action",
                features=definition.features,
            ),
        )
        started = trio.current_time()
        try:
            await trio.to_thread.run_sync(partial(_lay_out, folder, stage))
            answer = await self._answer(container, stage, limits)
        finally:
            with trio.move_on_after(config.cleanup_timeout, shield=True) as cleanup:
                await services.runtime.remove(name)
                await trio.to_thread.run_sync(folder.remove)
            if cleanup.cancelled_caught:
                log.error("container.leaked", extra={"container": name})
        return ActionResult(_decode(answer), stage.reference, trio.current_time() - started)

    async def _answer(
        self, container: ContainerSpec, stage: Stage, limits: ResourceLimits
    ) -> bytes:
        """Standard output of the action's container."""
        reader = OutputReader(self._services.config.event_line_length, {})
        answer = _Answer()
        async with AsyncExitStack() as stack:
            settings = stage.definition.logging
            if settings.type == "gelf":
                hearing = heard(
                    self._services, container, settings.gelf_server_type, _discard, _log_notice
                )
                container = await stack.enter_async_context(hearing)
            ending = await run_container(
                self._services,
                container,
                reader,
                answer,
                Limits(stage.timeout),
                stop=trio.Event(),
            )
        if ending is None:
            raise UserError("The action was stopped before it was started.")
        raise_for_ending(stage, limits, container.name, ending, reader, Masker())
        return bytes(answer.stdout)


class _Answer:
    """Keeps an action's standard output; its standard error goes nowhere but into a failure."""

    def __init__(self) -> None:
        self.stdout = bytearray()

    def found(self, container_id: str) -> None:
        """Which container it is does not matter to an action."""

    async def starting(self) -> None:
        """Nothing is journaled for an action."""

    async def printed(self, stream: StreamName, lines: list[str], reader: OutputReader) -> None:
        """Lines are of no interest: the answer is taken whole."""

    def received(self, chunk: OutputChunk) -> None:
        """Take the answer's next bytes; too long an answer ends the action."""
        if chunk.stream == "stdout":
            self.stdout += chunk.data
            if len(self.stdout) > ANSWER_BYTES:
                raise UserError(
                    f"The action answered with more than {ANSWER_BYTES >> 20} MiB; "
                    "answer with less, or run a job that stores the data."
                )


async def _log_notice(level: Level, message: str) -> None:
    """Actions have no events: what is told of an image or a listener goes to the service's log."""
    log.info("action.noted", extra={"level": level, "reason": message})


async def _discard(message: bytes | Unreadable) -> None:
    """An action's log goes nowhere: there is no job to read it with."""


def _lay_out(folder: JobFolder, stage: Stage) -> None:
    folder.create()
    kind = stage.definition.configuration_format
    folder.write_config(dumps_config(stage.document, kind), f"config.{stage.extension}")
    folder.write_state(dumps_config({}, kind), f"state.{stage.extension}")


def _decode(answer: bytes) -> Any:
    text = sanitise(answer).strip(" \t\n\r\0\x0b")
    if text in {"", "0"}:
        raise UserError("No response from component.")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError("Decoding JSON response from component failed: Syntax error") from error
    return {} if value is None else value
