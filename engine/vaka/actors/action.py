"""The action actor: one container that runs while its caller waits (runner.md section 8).

An action has no job and no journal. It has its own limit and its own deadline, and nothing of it
remains: not when it failed, not when its caller went away. What an engine that was killed has left is
the reconciler's to remove, which finds it by its folder: that is made before the container, and removed
after it.
"""

from __future__ import annotations

import logging
import secrets as random
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from vaka._supervision import leaves
from vaka.actors.branch import branch_type
from vaka.actors.container import Limits, run_container
from vaka.actors.images import prepare_image
from vaka.actors.job_secrets import JobSecrets, write_uses
from vaka.actors.limits import ResourceLimits, resource_limits
from vaka.actors.listeners import heard
from vaka.actors.output import OutputReader, sanitise, shorten
from vaka.actors.reconciler import LABEL_DEADLINE, LABEL_INSTANCE, actions_folder
from vaka.actors.services import Services
from vaka.actors.stages import LABEL_PREFIX, Stage, mounts, profile, shared_environment
from vaka.actors.verdicts import raise_for_ending
from vaka.datafolder import JobFolder
from vaka.errors import EngineError, NotFound, Overloaded, UserError
from vaka.gelf import Unreadable
from vaka.hooks import SpecContext
from vaka.masking import Masker
from vaka.models.audit import AuditEntry
from vaka.models.catalog import Project
from vaka.models.component import ComponentDefinition
from vaka.models.configuration import JobConfiguration, dumps_config
from vaka.models.container import ContainerSpec, ImageInfo, OutputChunk, StreamName
from vaka.models.event import Level
from vaka.models.job import ActionResult, ActionSpec
from vaka.models.json_text import NotJson, parse_json_text
from vaka.oauth import fetch_credentials, own_credentials, tokens_within, wanted_credentials
from vaka.turns import beside

log = logging.getLogger(__name__)

ANSWER_BYTES = 16 << 20
"""Longest answer of an action."""
RETRY_AFTER = 1.0
"""Seconds after which a caller who was refused may try again: most actions take about as long."""


@dataclass(frozen=True, slots=True)
class _Call:
    """One action under way."""

    spec: ActionSpec
    name: str
    """Of its container and its folder."""
    run_id: str
    folder: JobFolder
    project: Project
    stage: Stage
    limits: ResourceLimits
    masker: Masker
    """For the log and for errors. The answer is the caller's, with whatever is in it."""


class Actions:
    """Runs synchronous actions, as many at a time as the settings allow."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def act(self, spec: ActionSpec) -> ActionResult:
        """Run one action and return what it answered. Cancelled, it leaves nothing either.

        Raises:
            NotFound: no such component, or it declares no such action.
            NotAllowed: the action is `run`.
            InvalidInput: the configuration is not valid.
            CipherRefused: it has a cipher that the component may not read here.
            Overloaded: too many run already.
            UserError: the action failed, took too long or answered no JSON.
            ComponentCrashed: it ended with another exit code than 0 and 1.
        """
        definition = await self._definition(spec)
        given = spec.config_data
        configuration = await beside(given, partial(JobConfiguration.parse, given))
        acting, most = self._services.acting, self._services.config.action_concurrency
        if len(acting) >= most:
            raise Overloaded(
                f"{len(acting)} actions are running, which is as many as may; "
                f"try again in {RETRY_AFTER:g} s.",
                retry_after=RETRY_AFTER,
            )
        name = f"vaka-{self._services.config.instance}-action-{random.token_hex(8)}"
        acting.add(name)
        try:
            call = await self._call(spec, name, definition, configuration)
            return await self._run(call)
        finally:
            acting.discard(name)

    async def _definition(self, spec: ActionSpec) -> ComponentDefinition:
        try:
            component = await self._services.catalog.component(spec.component)
        except NotFound as error:
            raise NotFound(
                f"Component '{spec.component}' not found", kind="component", id=spec.component
            ) from error
        definition = ComponentDefinition.parse(component)
        definition.check_action(spec.action)
        return definition

    async def _call(
        self,
        spec: ActionSpec,
        name: str,
        definition: ComponentDefinition,
        configuration: JobConfiguration,
    ) -> _Call:
        services, config = self._services, self._services.config
        project = await services.catalog.project(spec.project)
        try:
            kind = await branch_type(services.catalog, spec.project, spec.branch)
        except NotFound:
            kind = "dev"  # the component is told it, and has to know what it is
        masker = Masker(shortest=config.secret_min_length)
        if spec.token is not None:
            masker.add([spec.token.get_secret_value()])
        opener = JobSecrets(
            services.encryption,
            masker,
            project=project,
            component=definition.id,
            branch_type=kind,
        )
        # checked before it is opened, so that no message can show a secret
        configuration = JobConfiguration(await opener.given(configuration.data))
        credentials = None
        wanted = wanted_credentials(configuration)
        if wanted is not None:
            fetched = await fetch_credentials(
                config.oauth_url,
                services.catalog,
                project=spec.project,
                component=definition.id,
                credentials_id=wanted,
                token=spec.token,
            )
            credentials = await opener.opened(fetched, "authorization.oauth_api.credentials")
        document = configuration.config_file(
            image_parameters=await opener.image_parameters(definition),
            action=spec.action,
            oauth_credentials=credentials,
            format=definition.configuration_format,
        )
        entry = AuditEntry(
            "secrets.decrypted",
            spec.project,
            spec.token_id,
            spec.token_description,
            subject={"action": spec.action, "component": definition.id},
        )
        await write_uses(opener, services.audit, entry)
        opener.hide(tokens_within(credentials))
        opener.hide(tokens_within(own_credentials(configuration)))
        return _Call(
            spec=spec,
            name=name,
            run_id=spec.run_id or random.token_hex(8),
            folder=JobFolder(actions_folder(config.home) / name, owner=services.folder_owner),
            project=project,
            stage=Stage(
                index=0,
                kind="action",
                definition=definition,
                reference=definition.image_reference(spec.tag, replica=config.replicated_registry),
                document=document,
                timeout=config.action_timeout,
                timeout_setting="action_timeout of the engine",
            ),
            limits=resource_limits(config, project, definition),
            masker=masker,
        )

    async def _run(self, call: _Call) -> ActionResult:
        services, stage = self._services, call.stage
        image = await prepare_image(services, stage.definition, stage.reference, _log_notice)
        container = services.plugins.container_spec(
            await beside(stage.document, partial(self._container, call, image)),
            SpecContext(
                job_id=0,
                project=call.project.id,
                component=stage.definition.id,
                kind="action",
                features=stage.definition.features,
            ),
        )
        began = trio.current_time()
        log.info(
            "action.started",
            extra={
                "component": stage.definition.id,
                "action": call.spec.action,
                "run_id": call.run_id,
                "container": call.name,
            },
        )
        answer = _Answer()
        try:
            await trio.to_thread.run_sync(partial(_lay_out, call.folder, stage))
            await self._answer(call, container, answer)
        finally:
            await self._remove(call, answer)
        value = self._decode(call, bytes(answer.stdout))
        return ActionResult(value, stage.reference, trio.current_time() - began)

    def _container(self, call: _Call, image: ImageInfo) -> ContainerSpec:
        """The container of an action: that of a job, with the job id 0 (runner.md section 8)."""
        services, config = self._services, self._services.config
        definition, project = call.stage.definition, call.project
        variables = {
            **shared_environment(config, project, call.stage, call.spec.token),
            "KBC_RUNID": call.run_id,
            "KBC_COMPONENT_RUN_MODE": "run",
        }
        if call.spec.branch:
            variables["KBC_BRANCHID"] = call.spec.branch
        if definition.forward_token_details:
            variables["KBC_PROJECTNAME"] = project.name
            variables["KBC_TOKENID"] = call.spec.token_id or ""
            variables["KBC_TOKENDESC"] = call.spec.token_description or ""
        deadline = services.now().timestamp() + 2 * config.action_timeout + config.stop_grace
        return profile(
            config,
            call.stage,
            call.limits,
            name=call.name,
            image=image,
            mounts=mounts(call.folder),
            environment=variables,
            labels={
                LABEL_INSTANCE: config.instance,
                LABEL_DEADLINE: str(int(deadline)),
                LABEL_PREFIX + "jobId": "0",
                LABEL_PREFIX + "runId": call.run_id,
                LABEL_PREFIX + "rowId": "",
                LABEL_PREFIX + "containerName": f"{definition.sanitised_id}-0-{call.run_id}-0",
                LABEL_PREFIX + "projectId": project.id,
            },
        )

    async def _answer(self, call: _Call, container: ContainerSpec, answer: _Answer) -> None:
        """Run the container to its good end, its standard output in `answer`."""
        stage = call.stage
        reader = OutputReader(self._services.config.event_line_length, {})
        try:
            async with AsyncExitStack() as stack:
                settings = stage.definition.logging
                if settings.type == "gelf":
                    hearing = heard(
                        self._services, container, settings.gelf_server_type, _discard, _log_notice
                    )
                    container = await stack.enter_async_context(hearing)
                answer.may_exist = True
                ending = await run_container(
                    self._services,
                    container,
                    reader,
                    answer,
                    Limits(stage.timeout),
                    stop=trio.Event(),
                )
        except BaseExceptionGroup as group:
            found = list(leaves(group))
            if len(found) == 1:
                raise found[0] from found[0].__cause__
            raise
        if ending is None:
            raise UserError("The action was stopped before it was started.")
        raise_for_ending(stage, call.limits, container.name, ending, reader, call.masker)
        if said := reader.excerpts["stderr"].text(call.masker):
            self._log_output(call, "stderr", said)

    async def _remove(self, call: _Call, answer: _Answer) -> None:
        """Leave nothing of an action; what cannot be removed now is the reconciler's."""
        with trio.move_on_after(self._services.config.cleanup_timeout, shield=True) as cleanup:
            try:
                await self._services.runtime.remove(call.name)
            except EngineError as error:
                log.warning(
                    "container.leaked", extra={"container": call.name, "error": error.message}
                )
                return
            if answer.may_exist and not answer.is_found:
                return  # it may be made yet: its folder says that it has to go
            await trio.to_thread.run_sync(call.folder.remove)
        if cleanup.cancelled_caught:
            log.warning("container.leaked", extra={"container": call.name, "error": "time-out"})

    def _decode(self, call: _Call, answer: bytes) -> Any:
        """The answer's value (runner.md section 8)."""
        text = sanitise(answer).strip(" \t\n\r\0\x0b")
        if text in {"", "0"}:
            raise UserError("No response from component.")
        try:
            value = parse_json_text(text)
        except NotJson as error:
            self._log_output(call, "stdout", shorten(call.masker.text(text)))
            raise UserError(f"Decoding JSON response from component failed: {error}") from error
        return {} if value is None else value

    def _log_output(self, call: _Call, stream: StreamName, text: str) -> None:
        """Tell the operator's log what is no part of the answer."""
        log.info(
            "action.printed",
            extra={
                "component": call.stage.definition.id,
                "action": call.spec.action,
                "run_id": call.run_id,
                "stream": stream,
                "text": text,
            },
        )


class _Answer:
    """Keeps an action's standard output, and whether there is a container."""

    def __init__(self) -> None:
        self.stdout = bytearray()
        self.may_exist = False
        """The container has been asked for."""
        self.is_found = False
        """The container is there."""

    def found(self, container_id: str) -> None:  # noqa: ARG002 - which one does not matter
        """It has been made."""
        self.is_found = True

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
