"""One job definition: inputs in, the chain of containers, outputs out.

Three steps, each journaled before it begins, each safe to repeat: staging in wipes the folder first,
a stage finds its container by name, and what staging out stores carries keys that count once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import trio

from vaka._supervision import leaves
from vaka.actors.artifacts import FEATURE as FEATURE_ARTIFACTS
from vaka.actors.artifacts import Artifacts
from vaka.actors.container import Ending, Limits, run_container
from vaka.actors.events import Entry, EventLog
from vaka.actors.images import forget_image, prepare_image
from vaka.actors.job_secrets import (
    JobSecrets,
    job_entry,
    named,
    tell_legacy,
    write_uses,
)
from vaka.actors.limits import ResourceLimits, resource_limits
from vaka.actors.listeners import heard
from vaka.actors.logs import StageLog
from vaka.actors.output import OutputReader
from vaka.actors.permissions import take_back
from vaka.actors.plan import DefinitionPlan
from vaka.actors.processor import processor_stages
from vaka.actors.services import Services
from vaka.actors.snapshot import keep_snapshot
from vaka.actors.stages import (
    DefinitionContext,
    JobContext,
    Stage,
    container_name,
    container_spec,
    is_debug,
)
from vaka.actors.storing import is_atomic, storing_options
from vaka.actors.verdicts import has_succeeded, raise_for_ending
from vaka.datafolder import JobFolder
from vaka.encryption import replace_secrets, secret_count
from vaka.errors import CipherRefused, EngineError, ImageUnavailable, InvalidInput, UserError
from vaka.hooks import SpecContext
from vaka.mapping.inputs import MAX_EXPORT_BYTES, stage_files, stage_tables
from vaka.mapping.outputs import store
from vaka.mapping.preparing import no_atomic_output
from vaka.mapping.staging import check_input_staging
from vaka.masking import HIDDEN, Masker
from vaka.models.catalog import Json
from vaka.models.component import ComponentDefinition
from vaka.models.configuration import JobConfiguration, dumps_config, secrets_with_paths
from vaka.models.container import ImageInfo, OutputChunk, StreamName
from vaka.models.event import Level
from vaka.models.job import Phase, StageRecord, StageStatus, Status
from vaka.models.mapping import InputFile, InputTable, OutputFile, OutputTable
from vaka.models.state import JobState, parse_result, parse_state_file, parse_usage
from vaka.models.storage import StorageRights, StorageScope
from vaka.models.tree import text
from vaka.oauth import (
    SUBMIT_AGAIN,
    fetch_credentials,
    own_credentials,
    tokens_within,
    wanted_credentials,
)
from vaka.store import Fence
from vaka.turns import beside, in_turn

log = logging.getLogger(__name__)

EXPORT_LIMIT = "components.max_export_size_bytes"
FEATURE_DEV_MAPPING = "dev-mapping-allowed"
LONGEST_TIMEOUT = 86_400
"""Seconds that a configuration may let its main container run."""
RESULT_FILE = "result.json"
TOLD_STATE = 10_000
"""Characters that a state may have to be told in the operator's log."""


NOTHING_MOVED = {"in": 0, "out": 0}
MOVES = {
    "input.table": "in",
    "input.file": "in",
    "output.table": "out",
    "output.file": "out",
}
"""Kinds of events that tell of data, and which way it went."""


class Stopped(Exception):
    """The job was asked to stop, and the container that ran then has ended."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What a definition says and finds again, with its secrets in the clear: in memory only."""

    configuration: JobConfiguration = field(repr=False)
    state: JobState = field(repr=False)


async def open_definition(plan: DefinitionPlan, secrets: JobSecrets) -> Opened:
    """Read and check a definition, then open what is encrypted in it.

    Checked while secrets are ciphers, so that no message can show one. Of the state only the component's
    part is opened, which is all that it is given.

    Raises:
        CipherRefused: a secret of it cannot be read; names all of them.
        UserError: its configuration or its state has not the shape it must have.
    """
    given = plan.configuration
    configuration = await beside(given, partial(JobConfiguration.parse, given))
    state = await beside(plan.state, partial(JobState.parse, plan.state))
    refusals: list[CipherRefused] = []
    data: Any = None
    component: Any = None
    try:
        data = await secrets.opened(configuration.data)
    except CipherRefused as refusal:
        refusals.append(refusal)
    try:
        component = await secrets.opened(state.component, "state.component")
    except CipherRefused as refusal:
        refusals.append(refusal)
    if refusals:
        raise all_refused(refusals)
    return Opened(JobConfiguration(data), replace(state, component=component))


def all_refused(refusals: Sequence[CipherRefused]) -> CipherRefused:
    """The first refusal, with the paths of all."""
    paths = dict.fromkeys(path for refusal in refusals for path in refusal.paths)
    return CipherRefused(refusals[0].message, reason=refusals[0].reason, paths=tuple(paths))


@dataclass(frozen=True, slots=True)
class DefinitionResult:
    """What a definition leaves for the end of its job."""

    images: tuple[Mapping[str, Any], ...]
    input_tables: tuple[Mapping[str, Any], ...]
    output_tables: tuple[Mapping[str, Any], ...]
    output_variables: tuple[Mapping[str, Any], ...]
    new_state: Mapping[str, Any]
    load_failures: tuple[str, ...]
    artifacts: Mapping[str, Sequence[str]]
    """Ids of files in Storage, `uploaded` and `downloaded`."""


class DefinitionActor:
    """Runs one definition of a job from wherever its journal says it is.

    `prepare` once, then `run` once; `stop` may come at any time.
    """

    def __init__(
        self,
        *,
        services: Services,
        job: JobContext,
        fence: Fence,
        main: ComponentDefinition,
        plan: DefinitionPlan,
        opened: Opened | None,
        secrets: JobSecrets,
        index: int,
        total: int,
        left: Mapping[str, Any],
        unsaved: dict[int, Any],
        events: EventLog,
        stop: trio.Event,
        containers: set[str],
        folder: JobFolder,
        is_alone: bool = True,
    ) -> None:
        """`opened` is what `plan` says; None when the journal has all that the definition leaves."""
        self.in_container = False
        """Whether a container is being followed; it then ends the definition by ending itself."""
        self.row_id = plan.row_id
        self.status = Status.ERROR
        """How it ended, once its turn has come."""
        self._ended_early = trio.CancelScope()
        self._services = services
        self._job = job
        self._fence = fence
        self._main = main
        self._plan = plan
        self._opened = opened
        self._secrets = secrets
        self._index = index
        self._total = total
        self._left: dict[str, Any] = dict(left)
        self._unsaved = unsaved
        self._events = events
        self._stop = stop
        self._containers = containers
        self._folder = folder
        self._is_alone = is_alone
        self._known = self._records()
        self.has_begun = bool(self._left) or bool(self._known)
        """Whether its turn has come, in this engine or an earlier one."""
        if self.is_done:
            self._end()
        self._exposed: dict[str, None] = {}
        self._unit: DefinitionContext | None = None
        self._stages: list[Stage] = []
        self._skipped: list[Stage] = []
        self._scope = job.branch.scope(
            StorageScope(
                project=job.record.project,
                run_id=job.record.run_id,
                token_id=job.spec.token_id,
                token_description=job.spec.token_description,
                rights=StorageRights(job.spec.buckets, job.spec.reads_all_files),
            )
        )

    @property
    def is_done(self) -> bool:
        """Whether the journal has all that it leaves."""
        return "output" in self._left

    @property
    def has_container(self) -> bool:
        """Whether an earlier engine left a container that has to be followed to its end."""
        return any(
            record.status is not StageStatus.COLLECTED for record in self._records().values()
        )

    @property
    def failure(self) -> Any:
        """The verdict that the journal has on it, or None."""
        return self._left.get("failure")

    async def journal_failure(self, verdict: Any) -> None:
        """Write down that it has failed: who resumes the job must not begin what comes after it."""
        self._keep(failure=verdict)
        await self._services.store.save_definition(self._fence, self._index, self._left)
        self._unsaved.pop(self._index, None)

    async def prepare(self) -> None:
        """See that what the definition says can be done. Nothing has run of a job in which one is wrong.

        Raises:
            UserError: its configuration or one of its processors cannot be used.
            ApplicationError: a limit of the project or of a component cannot be.
        """
        # what it told an earlier engine
        await self._secrets.hide_ciphers(self._left.get("component_state", {}))
        if self.is_done:
            return
        self._unit = unit = self._context()
        self._stages = await self._chain(unit, None)
        for stage in self._stages:
            self._limits(stage)
        self._check_token()
        stages_outputs = "none" not in {self._main.staging_input, self._main.staging_output}
        if stages_outputs and not unit.configuration.default_bucket:
            self._main.default_bucket_id(unit.config_id)
        if is_atomic(self._services.config, unit) and not self._services.storage.loads_together:
            raise no_atomic_output(self._services.storage)
        await self._hide_given(self._state.component)
        self._secrets.hide(tokens_within(own_credentials(unit.configuration)))
        wanted_credentials(unit.configuration)  # refuses what no broker is asked for any more

    def _check_token(self) -> None:
        """Refuse a container that needs the token when it is not known: nor could it be hidden.

        Raises:
            UserError: the job came without one, or it was in the memory of an engine that is gone.
        """
        if self._job.spec.token is not None:
            return
        for stage in self._stages:
            known = self._known.get(stage.index)
            is_over = known is not None and known.status is StageStatus.COLLECTED
            if stage.definition.forward_token and not is_over:
                raise UserError(
                    f"Component {stage.definition.id} asks for the Storage token, and this job has "
                    f"none. {SUBMIT_AGAIN}"
                )

    def stop(self) -> None:
        """End what is being done; a container that is followed is not cut off, but ends by itself."""
        if not self.in_container:
            self._ended_early.cancel()

    async def run(self) -> DefinitionResult:
        """Do what is left to do, and return what the end of the job needs.

        Raises:
            Stopped: the job was asked to stop.
            EngineError: the definition failed; later ones must not run.
        """
        self.has_begun = True
        if self.is_done:
            return self.result()
        with self._ended_early:
            try:
                await self._run()
            except Exception as error:
                if any(not isinstance(each, Stopped) for each in leaves(error)):
                    raise
                self.status = Status.TERMINATED
                raise Stopped from None
            self._end()
            return self.result()
        self.status = Status.TERMINATED
        raise Stopped

    def _end(self) -> None:
        failed = self._left["output"]["failures"]
        self.status = Status.ERROR if failed else Status.SUCCESS

    async def _run(self) -> None:
        records = self._records()
        if self._stop.is_set() and not self.has_container:
            raise Stopped
        unit = self._unit
        assert unit is not None  # noqa: S101 - `prepare` comes first
        credentials = await self._credentials(unit.configuration, records)
        if credentials is not None:
            self._stages = await self._chain(unit, credentials)
            await self._hide_given()
        if any(
            each.kind == "main" and each.status is StageStatus.COLLECTED
            for each in records.values()
        ):
            await trio.to_thread.run_sync(self._folder.drop_state)  # perhaps it was not any more
        await self._tell(
            f"Running component {self._main.id} (row {self._index + 1} of {self._total})"
        )
        if not records and not self._is_staging_out:
            await self._tell(
                f"Using configuration id: {unit.config_id or ''} version:{unit.config_version}, "
                f"row id: {unit.row_id or ''}, "
                f"state: {told(replace_secrets(self._plan.state, HIDDEN), self._events.masker)}",
                "notice",
            )
            await self._tell_exposed()
            await self._stage_in(unit, self._state)
        async with trio.open_nursery() as removals:
            if not self._is_staging_out:
                try:
                    await self._run_stages(unit, self._stages, records, self._state, removals)
                except EngineError:
                    await self._store_what_is_always_written(unit)
                    raise
            await self._stage_out(unit)
        if not self._is_alone:
            # what it has told before goes with it: nothing of that is told again
            await self._events.store_with(
                lambda tail: self._services.store.save_definition(
                    self._fence, self._index, self._left, tail=tail
                )
            )
            self._unsaved.clear()
            await trio.to_thread.run_sync(self._folder.remove)
        await self._tell(
            f"Finished component {self._main.id} (row {self._index + 1} of {self._total})"
        )

    # -- where the journal is --------------------------------------------------------------------

    @property
    def _is_staging_out(self) -> bool:
        """Whether the journal says that all stages have ended well."""
        return bool(self._left.get("staging_out"))

    def _records(self) -> dict[int, StageRecord]:
        record = self._job.record
        return {
            stage.stage: stage
            for stage in record.stages
            if stage.attempt == record.attempt and stage.definition == self._index
        }

    def _keep(self, **left: Any) -> None:
        """Leave something for the job's end; it is stored with the next entry of the journal."""
        self._left |= left
        self._unsaved[self._index] = self._left

    async def _advance(self, phase: Phase) -> None:
        await self._events.store_with(
            lambda tail: self._services.store.advance(
                self._fence, phase, self._index, keep=dict(self._unsaved), tail=tail
            )
        )
        self._unsaved.clear()

    # -- documents -------------------------------------------------------------------------------

    @property
    def _state(self) -> JobState:
        """What the definition finds again; its component's part is in the clear."""
        assert self._opened is not None  # noqa: S101 - it is not done
        return self._opened.state

    def _context(self) -> DefinitionContext:
        assert self._opened is not None  # noqa: S101 - it is not done
        return DefinitionContext(
            index=self._index,
            configuration=self._opened.configuration,
            config_id=self._job.spec.config,
            config_version=self._plan.version,
            row_id=self._plan.row_id,
            data_types_support=self._main.data_types_support,
        )

    async def _hide_given(self, *more: Any) -> None:
        """Hide everything secret that the stages are given, and in `more`."""
        documents = [*more, *(stage.document for stage in self._stages)]
        await beside(documents, partial(self._hide, *documents))

    def _hide(self, *documents: Any) -> None:
        """Hide everything secret that a container is given, or gives."""
        for document in documents:
            found = list(secrets_with_paths(document))
            self._secrets.hide(value for _, value in found)
            masker = self._events.masker
            self._exposed |= {path: None for path, value in found if not masker.hides(value)}

    async def _tell_exposed(self) -> None:
        """Warn of the secrets that are not hidden."""
        if self._exposed:
            await self._tell(
                "These secrets are not hidden in what is told of the job, because they are too "
                "short or too common and would be found in any text: "
                f"{named(list(self._exposed))}. Longer ones are hidden.",
                "warn",
            )

    async def _credentials(
        self, configuration: JobConfiguration, records: Mapping[int, StageRecord]
    ) -> Json:
        """OAuth credentials for the main container, hidden from now on; None when it needs none.

        They are written down nowhere, so who resumes the job asks again: what a container that runs on
        prints has to be hidden as well.
        """
        wanted = wanted_credentials(configuration)
        if wanted is None or any(
            each.kind == "main" and each.status is StageStatus.COLLECTED
            for each in records.values()
        ):
            return None
        fetched = await fetch_credentials(
            self._services.config.oauth_url,
            self._services.catalog,
            project=self._job.record.project,
            component=self._main.id,
            credentials_id=wanted,
            token=self._job.spec.token,
        )
        opened = await self._secrets.opened(fetched, "authorization.oauth_api.credentials")
        self._secrets.hide(tokens_within(opened))
        await tell_legacy(self._secrets, self._events)
        entry = job_entry(self._job.record, self._main.id)
        await write_uses(self._secrets, self._services.audit, entry)
        return opened

    async def _chain(self, unit: DefinitionContext, credentials: Json) -> list[Stage]:
        """All stages in the order they run."""
        configuration, main = unit.configuration, self._main
        main.check_staging(has_processors=configuration.has_processors)
        catalog, replica = self._services.catalog, self._services.config.replicated_registry
        opened = self._secrets.image_parameters
        before = await processor_stages(
            catalog,
            configuration.processors_before,
            "before",
            configuration,
            0,
            image_parameters=opened,
            replica=replica,
        )
        after = await processor_stages(
            catalog,
            configuration.processors_after,
            "after",
            configuration,
            len(before) + 1,
            image_parameters=opened,
            replica=replica,
        )
        if main.staging_input == "none":
            # told and pulled, but there is nothing that they could work on (runner.md section 5.4)
            self._skipped, before, after = [*before, *after], [], []
        timeout, setting = main.process_timeout, f"process_timeout of component {main.id}"
        if configuration.runtime.process_timeout:
            timeout = min(configuration.runtime.process_timeout, LONGEST_TIMEOUT)
            setting = "runtime.process_timeout of the configuration"
        middle = Stage(
            index=len(before),
            kind="main",
            definition=main,
            reference=main.image_reference(
                self._job.spec.tag or configuration.runtime.image_tag, replica=replica
            ),
            document=configuration.config_file(
                image_parameters=await opened(main),
                oauth_credentials=credentials,
                format=main.configuration_format,
            ),
            timeout=timeout,
            timeout_setting=setting,
        )
        return [*before, middle, *after]

    # -- staging in ------------------------------------------------------------------------------

    async def _stage_in(self, unit: DefinitionContext, state: JobState) -> None:
        await self._advance(Phase.STAGING_IN)
        self._left["moved"] = dict(NOTHING_MOVED)
        await trio.to_thread.run_sync(self._folder.create)
        left: dict[str, Any] = {"input_tables": [], "input_state": {"tables": [], "files": []}}
        if self._main.staging_input != "none":
            left = await self._read_inputs(unit.configuration, state)
        self._keep(**left)

    async def _read_inputs(
        self, configuration: JobConfiguration, state: JobState
    ) -> dict[str, Any]:
        common: dict[str, Any] = {
            "backend": self._services.storage,
            "scope": self._scope,
            "folder": self._folder,
            "state": state,
            "format": self._main.configuration_format,
            "report": self._report,
            "branch": self._job.branch,
        }
        limit = self._job.project.limits.get(EXPORT_LIMIT)
        items = [InputTable.parse(item) for item in configuration.input_tables]
        check_input_staging(self._main.staging_input, items, state)
        tables = await stage_tables(
            items,
            max_bytes=int(limit) if limit else MAX_EXPORT_BYTES,
            dev_mapping_allowed=FEATURE_DEV_MAPPING in self._main.features,
            **common,
        )
        files = await stage_files(
            [InputFile.parse(item) for item in configuration.input_files], **common
        )
        new_state = JobState(input_tables=tables.state, input_files=files.state).to_json()
        return {
            "input_tables": [table.to_json() for table in tables.tables],
            "input_state": new_state["storage"]["input"],
        }

    # -- stages ----------------------------------------------------------------------------------

    async def _run_stages(
        self,
        unit: DefinitionContext,
        stages: Sequence[Stage],
        records: Mapping[int, StageRecord],
        state: JobState,
        removals: trio.Nursery,
    ) -> None:
        images = await self._images(stages, records)
        await self._images(self._skipped, {})
        for stage in self._skipped:
            await self._tell(f"Running processor {stage.definition.id}")
        for stage in stages:
            if self._stop.is_set() and stage.index not in records:
                raise Stopped
            record = records.get(stage.index)
            if stage.index > 0:
                step = f"{self._index}-{stage.index}"
                await trio.to_thread.run_sync(self._folder.advance, step)
            if record is None or record.status is not StageStatus.COLLECTED:
                record = await self._run_stage(
                    unit, stage, images[stage.index], record, state, last=stage is stages[-1]
                )
            removals.start_soon(self._remove_container, record.container)

    async def _images(
        self, stages: Sequence[Stage], records: Mapping[int, StageRecord]
    ) -> dict[int, ImageInfo]:
        """The image of every stage, before any of them runs."""
        images: dict[int, ImageInfo] = {}
        for stage in stages:
            record = records.get(stage.index)
            if record is not None:
                images[stage.index] = ImageInfo(record.image_id, record.image, record.digests)
            else:
                images[stage.index] = await self._image(stage)
        return images

    def _limits(self, stage: Stage) -> ResourceLimits:
        return resource_limits(
            self._services.config,
            self._job.project,
            stage.definition,
            self._job.spec.container_type,
        )

    async def _image(self, stage: Stage) -> ImageInfo:
        """The image of a stage that was not planned yet, on the host."""

        async def tell(level: Level, message: str) -> None:
            await self._events.write(self._note(level, message, stage))

        image = await prepare_image(self._services, stage.definition, stage.reference, tell)
        if image.warning:
            await tell("warn", image.warning)
        text = f"Using image {stage.reference}, which is only on this host"
        if image.digests:
            text = f"Using image {stage.reference} with repo-digest {', '.join(image.digests)}"
        await self._events.write(
            Entry(
                "image.prepared",
                "info",
                text,
                component=stage.definition.id,
                data={"image": stage.reference, "id": image.id, "digests": list(image.digests)},
            )
        )
        return image

    async def _image_again(self, stage: Stage, wanted: ImageInfo) -> None:
        """Bring an image to the host that was removed after it was prepared.

        Raises:
            ImageUnavailable: it cannot be had, or its name is another image's by now: what the job
                has said that it runs is run, or nothing.
        """
        forget_image(self._services, stage.definition, stage.reference)
        found = await self._image(stage)
        if found.id != wanted.id:
            raise ImageUnavailable(
                f"Image {stage.reference} was removed from the host while the job ran, and is another "
                f"one by now ({found.id}, not {wanted.id}): run the job again.",
                reference=stage.reference,
            )

    async def _run_stage(
        self,
        unit: DefinitionContext,
        stage: Stage,
        image: ImageInfo,
        record: StageRecord | None,
        state: JobState,
        *,
        last: bool,
    ) -> StageRecord:
        services, events = self._services, self._events
        limits = self._limits(stage)
        spec = services.plugins.container_spec(
            await beside(
                stage.document,
                partial(container_spec, self._job, unit, stage, image, self._folder, limits),
            ),
            SpecContext(
                job_id=self._job.record.id,
                project=self._job.project.id,
                component=stage.definition.id,
                kind=stage.kind,
                features=stage.definition.features,
            ),
        )
        fresh = record is None
        if record is None or record.status is StageStatus.PLANNED:
            artifacts = self._artifacts(unit) if stage.kind == "main" else None
            if artifacts is not None:
                self._keep(artifacts={"downloaded": await artifacts.download(), "uploaded": []})
            await trio.to_thread.run_sync(partial(self._write_documents, stage, state))
            if is_debug(self._job.record):
                await keep_snapshot(
                    services,
                    self._folder,
                    self._scope,
                    self._job,
                    unit,
                    stage,
                    stage.definition.id,
                    events,
                )
        if record is None:
            record = self._known[stage.index] = self._planned(stage, image)
            await services.store.plan_stage(self._fence, record, keep=dict(self._unsaved))
            self._unsaved.clear()
            await events.write(
                *(self._note(level, text, stage) for level, text in limits.notes),
                self._entry(
                    "stage.planned",
                    f"Running processor {stage.definition.id}"
                    if stage.kind != "main"
                    else f"Executing docker process {record.image}.",
                    stage,
                ),
            )
        self._containers.add(record.container)
        reader = OutputReader(
            services.config.event_line_length,
            {"stdout": record.stdout_bytes, "stderr": record.stderr_bytes},
            events.masker,
        )
        stage_log = StageLog(
            events,
            self._main.logging,
            reader,
            definition=self._index,
            stage=stage.index,
            component=self._main.id,
            longest=services.config.event_line_length,
        )
        listener = _StageListener(self, stage, stage_log)
        self.in_container = True
        try:
            async with AsyncExitStack() as stack:
                stack.push_async_callback(stage_log.close)
                if stage.definition.logging.type == "gelf":
                    transport = stage.definition.logging.gelf_server_type
                    hearing = heard(
                        services,
                        spec,
                        transport,
                        stage_log.message,
                        events.note,
                        fresh=fresh,
                        may_create=record.status is StageStatus.PLANNED,
                    )
                    spec = await stack.enter_async_context(hearing)
                bring_to_end = partial(
                    run_container,
                    services,
                    spec,
                    reader,
                    listener,
                    Limits(stage.timeout, record.started_at),
                    stop=self._stop,
                    may_create=record.status is StageStatus.PLANNED,
                )
                try:
                    ending = await bring_to_end(fresh=fresh)
                except ImageUnavailable:
                    await self._image_again(stage, image)
                    ending = await bring_to_end(fresh=False)
        finally:
            self.in_container = False
        if ending is None:
            raise Stopped
        if ending.exit.runtime_was_away:
            await self._tell(
                "The container runtime was away when the container ended: what was printed meanwhile "
                "may be missing here.",
                "warn",
            )
        if stage.definition.runs_as_root:
            await take_back(services, self._folder, spec, self._notice)
        if stage.kind == "main" and has_succeeded(ending) and not ending.stopped:
            await self._upload_artifacts(unit)
        record = await self._collect(stage, record, ending, last=last)
        if ending.stopped:
            raise Stopped
        raise_for_ending(stage, limits, record.container, ending, reader, events.masker)
        return record

    @property
    def _keeps_state(self) -> bool:
        """Whether what the component wants to find again is stored at the job's end."""
        return self._plan.state_version is not None and not is_debug(self._job.record)

    def _artifacts(self, unit: DefinitionContext) -> Artifacts | None:
        """What moves the definition's artifacts; None when it has none: they go where state goes."""
        job = self._job
        if (
            FEATURE_ARTIFACTS not in job.project.features
            or unit.config_id is None
            or not self._keeps_state
        ):
            return None
        return Artifacts(
            self._services,
            self._folder,
            self._scope,
            self._report,
            settings=unit.configuration.data.get("artifacts", {}),
            component=self._main.id,
            config=unit.config_id,
            job=job,
            key=f"job-{job.record.id}-{self._index}-artifacts",
        )

    async def _upload_artifacts(self, unit: DefinitionContext) -> None:
        """Store what the main container left for others; each file once, however often it is tried."""
        artifacts = self._artifacts(unit)
        if artifacts is not None:
            uploaded = await artifacts.upload()
            self._keep(artifacts={**self._left.get("artifacts", {}), "uploaded": uploaded})

    async def _notice(self, message: str) -> None:
        await self._events.note("notice", message)

    async def _collect(
        self, stage: Stage, record: StageRecord, ending: Ending, *, last: bool
    ) -> StageRecord:
        """Take what the container has left, and write down that it may go.

        Of one that failed only its end is written down: who resumes the job must not take it for done.
        After the `last` one that went well the outputs come, which is written down together with it.
        """
        succeeded = has_succeeded(ending)
        if stage.kind == "main":
            usage = await self._usage(stage)
            if usage:
                await self._services.store.save_usage(self._fence, usage, self._index)
            if succeeded:
                component_state, variables = await self._left_over(stage)
                component_state = await self._secrets.sealed_state(
                    component_state, is_kept=self._keeps_state
                )
                if isinstance(variables, InvalidInput):
                    await self._tell(variables.message, "warn")
                    variables = []
                self._keep(component_state=component_state, variables=variables)
        exit_ = ending.exit
        changes: dict[str, Any] = {
            "status": StageStatus.COLLECTED if succeeded else StageStatus.EXITED,
            "exit_code": exit_.exit_code,
            "oom_killed": exit_.oom_killed,
            "memory_peak_bytes": exit_.memory_peak_bytes,
            "started_at": exit_.started_at or record.started_at,
            "finished_at": exit_.finished_at or self._services.now(),
        }
        phase = Phase.STAGING_OUT if last and succeeded and not ending.stopped else None
        if phase is not None:
            self._keep(staging_out=True)
        await self._events.store_with(
            lambda tail: self._services.store.update_stage(
                self._fence,
                self._index,
                stage.index,
                keep=dict(self._unsaved),
                phase=phase,
                tail=tail,
                **changes,
            )
        )
        self._unsaved.clear()
        if stage.kind == "main" and (not last or is_debug(self._job.record)):
            await trio.to_thread.run_sync(self._folder.drop_state)  # nobody else may see it
        seconds = exit_.seconds
        await self._events.write(
            self._entry(
                "stage.finished",
                f"Docker process {record.image} finished.",
                stage,
                exit_code=exit_.exit_code,
                seconds=seconds,
                oom_killed=exit_.oom_killed,
            )
        )
        return replace(record, **changes)

    async def journal_start(self, stage: Stage) -> None:
        """Write down that a stage's container is about to be started."""
        known = self._known[stage.index]
        self._known[stage.index] = replace(known, status=StageStatus.STARTED)
        if known.status is StageStatus.PLANNED:  # else an engine that died has told
            await self._events.write(
                self._entry("stage.started", f"Started {stage.definition.id}.", stage)
            )
        await self._events.store_with(
            lambda tail: self._services.store.update_stage(
                self._fence,
                self._index,
                stage.index,
                tail=tail,
                status=StageStatus.STARTED,
                started_at=self._services.now(),
            )
        )

    def _planned(self, stage: Stage, image: ImageInfo) -> StageRecord:
        record = self._job.record
        assert stage.kind != "action"  # noqa: S101 - actions have no journal
        return StageRecord(
            job_id=record.id,
            attempt=record.attempt,
            definition=self._index,
            stage=stage.index,
            kind=stage.kind,
            component=stage.definition.id,
            container=container_name(self._services.config, record, self._index, stage.index),
            image=stage.reference,
            image_id=image.id,
            digests=image.digests,
            status=StageStatus.PLANNED,
            planned_at=self._services.now(),
        )

    async def _remove_container(self, name: str) -> None:
        """Remove what has ended, beside the work that goes on. The job's end makes sure of it."""
        try:
            await self._services.runtime.remove(name)
        except EngineError as error:
            log.warning("container.kept", extra={"container": name, "error": str(error)})
        else:
            self._containers.discard(name)

    # -- staging out -----------------------------------------------------------------------------

    async def _stage_out(self, unit: DefinitionContext) -> None:
        """Store the outputs. That this comes next is in the journal."""
        self._left["moved"] = {**self.moved, "out": 0}
        if is_debug(self._job.record):
            await keep_snapshot(
                self._services,
                self._folder,
                self._scope,
                self._job,
                unit,
                None,
                self._main.id,
                self._events,
            )
            self._keep(output={"tables": [], "failures": []})
        elif "none" in {self._main.staging_input, self._main.staging_output}:
            self._keep(output={"tables": [], "failures": []})
        else:
            stored = await self._store_outputs(unit)
            self._keep(output=self._events.masker.document(stored))

    async def _store_what_is_always_written(self, unit: DefinitionContext) -> None:
        """Load the tables that want it even though the definition has failed; never raises of that.

        Source: mapping.md section 6.16.
        """
        staged = {self._main.staging_input, self._main.staging_output}
        if is_debug(self._job.record) or "none" in staged:
            return
        try:
            await self._store_outputs(unit, failed=True)
        except EngineError as error:
            log.info("output.skipped", extra={"error": self._events.masker.text(str(error))})

    async def _store_outputs(
        self, unit: DefinitionContext, *, failed: bool = False
    ) -> dict[str, Any]:
        configuration = unit.configuration
        stored = await store(
            [OutputTable.parse(item) for item in configuration.output_tables],
            [OutputFile.parse(item) for item in configuration.output_files],
            backend=self._services.storage,
            scope=self._scope,
            folder=self._folder,
            **storing_options(self._services.config, self._job, unit, self._main),
            # of this attempt: one that begins anew has other outputs
            key=f"job-{self._job.record.id}-{self._job.record.attempt}-{self._index}",
            input_files=[InputFile.parse(item) for item in configuration.input_files],
            report=self._report,
            failed=failed,
            branch=self._job.branch,
        )
        return {
            "tables": [table.to_json() for table in stored.tables],
            "failures": list(stored.errors),
        }

    @property
    def moved(self) -> Mapping[str, int]:
        """Bytes of tables and files that came `in` from Storage and went `out` to it."""
        moved: Mapping[str, int] = self._left.get("moved", NOTHING_MOVED)
        return moved

    def result(self) -> DefinitionResult:
        """What the definition has left so far, all of it once `run` has returned."""
        left = self._left
        output = left.get("output", {})
        return DefinitionResult(
            images=tuple(
                {"id": record.image, "digests": list(record.digests)}
                for _, record in sorted(self._known.items())
                if record.status is not StageStatus.PLANNED
            ),
            input_tables=tuple(left.get("input_tables", ())),
            output_tables=tuple(output.get("tables", ())),
            output_variables=tuple(left.get("variables", ())),
            new_state={
                **JobState.parse(self._plan.state).extra,
                "component": left.get("component_state", {}),
                "storage": {"input": left.get("input_state", {"tables": [], "files": []})},
            },
            load_failures=tuple(output.get("failures", ())),
            artifacts=left.get("artifacts", {}),
        )

    # -- files and events ------------------------------------------------------------------------

    def _write_documents(self, stage: Stage, state: JobState) -> None:
        kind = stage.definition.configuration_format
        self._folder.write_config(dumps_config(stage.document, kind), f"config.{stage.extension}")
        if stage.kind == "main":
            self._folder.write_state(
                dumps_config(state.component, kind), f"state.{stage.extension}"
            )

    async def _left_over(self, stage: Stage) -> tuple[Any, list[dict[str, str]] | InvalidInput]:
        """What the main component wants to remember, hidden, and the variables it gives to its job."""
        data, given = await trio.to_thread.run_sync(self._read_left, stage)
        if data is None and given is None:
            return {}, []
        # what a component can put into a state takes seconds to look through
        return await in_turn(partial(self._parsed_left, stage, data, given))

    def _read_left(self, stage: Stage) -> tuple[bytes | None, bytes | InvalidInput | None]:
        data = self._folder.read_state(f"state.{stage.extension}")
        try:
            return data, self._folder.read_result(RESULT_FILE)
        except InvalidInput as error:
            return data, error

    def _parsed_left(
        self, stage: Stage, data: bytes | None, given: bytes | InvalidInput | None
    ) -> tuple[Any, list[dict[str, str]] | InvalidInput]:
        name = f"state.{stage.extension}"
        state: Any = {}
        if data is not None:
            state = parse_state_file(
                data, format=stage.definition.configuration_format, path=f"/data/out/{name}"
            )
            secret_count(state)  # too many are refused before each is looked for in all its forms
            self._hide(state)
        if isinstance(given, InvalidInput):
            return state, given
        try:
            variables = {} if given is None else parse_result(given, path=f"out/{RESULT_FILE}")
        except InvalidInput as error:
            return state, error
        named = [{"name": name, "value": text(value)} for name, value in variables.items()]
        return state, self._events.masker.document(named)

    async def _usage(self, stage: Stage) -> list[dict[str, Any]]:
        name = f"usage.{stage.extension}"
        data = await trio.to_thread.run_sync(self._folder.read_usage, name)
        return [] if data is None else await in_turn(partial(self._parsed_usage, stage, data))

    def _parsed_usage(self, stage: Stage, data: bytes) -> list[dict[str, Any]]:
        usage = parse_usage(data, format=stage.definition.configuration_format)
        masked: list[dict[str, Any]] = self._events.masker.document(usage)
        return masked

    def _entry(self, kind: str, message: str, stage: Stage, **data: Any) -> Entry:
        return Entry(
            kind,
            "info",
            message,
            definition=self._index,
            stage=stage.index,
            component=stage.definition.id,
            data=data,
        )

    def _note(self, level: Level, message: str, stage: Stage) -> Entry:
        return Entry(
            "note",
            level,
            message,
            definition=self._index,
            stage=stage.index,
            component=stage.definition.id,
        )

    async def _tell(self, message: str, level: Level = "info") -> None:
        await self._events.write(Entry("note", level, message, definition=self._index))

    async def _report(self, kind: str, level: Any, message: str, data: Mapping[str, Any]) -> None:
        direction = MOVES.get(kind)
        if direction is not None:
            count = self.moved[direction] + int(data.get("bytes") or 0)
            self._left["moved"] = {**self.moved, direction: count}
        await self._events.write(Entry(kind, level, message, definition=self._index, data=data))


def told(state: Any, masker: Masker) -> str:
    """A state as the operator's log shows it: JSON, masked, and nothing of a very long one."""
    parts: list[str] = []
    size = 0
    for part in json.JSONEncoder(ensure_ascii=False).iterencode(state):
        parts.append(part)
        size += len(part)
        if size > TOLD_STATE:  # not cut: half a secret would not be found any more
            return f"(more than {TOLD_STATE} characters)"
    return masker.text("".join(parts))


class _StageListener:
    """Journals what a stage's container does."""

    def __init__(self, actor: DefinitionActor, stage: Stage, stage_log: StageLog) -> None:
        self._actor = actor
        self._stage = stage
        self._log = stage_log

    def found(self, container_id: str) -> None:
        """From here on it is known whose messages are its own."""
        self._log.found(container_id)

    async def starting(self) -> None:
        """From here on an absent container is a lost one, so it is written down first."""
        await self._actor.journal_start(self._stage)

    def received(self, chunk: OutputChunk) -> None:
        """Lines are enough."""

    async def printed(self, stream: StreamName, lines: list[str], reader: OutputReader) -> None:
        """Hand lines to the event writer, with how far into the streams they reach."""
        await self._log.lines(stream, lines, reader.told)
