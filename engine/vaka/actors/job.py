"""The job actor: one job from its claim to its one outcome.

Everything an engine must know after it was killed is in the store before the actor acts on it, so an
actor begins by reading how far the job got, and goes on there: a folder that was being filled is
filled again, a container that was started is found by its name, an output that was stored is not
stored twice. What its tasks raise becomes the job's outcome here and goes no further.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import trio
from pydantic import SecretStr

from vaka._supervision import Verdict, leaves, verdict
from vaka.actors.branch import job_branch, refuse_in_branch
from vaka.actors.definition import (
    DefinitionActor,
    DefinitionResult,
    Opened,
    Stopped,
    all_refused,
    open_definition,
    told,
)
from vaka.actors.events import Entry, EventLog, keep_events
from vaka.actors.job_secrets import (
    JobSecrets,
    job_entry,
    named,
    opened_token,
    tell_legacy,
    write_uses,
)
from vaka.actors.limits import reserved_memory
from vaka.actors.plan import DefinitionPlan, Plan, plan_definitions
from vaka.actors.resolving import resolve_plan
from vaka.actors.services import Services
from vaka.actors.stages import JobContext, image_definition, is_debug, job_folder
from vaka.encryption import unnamed_secrets
from vaka.errors import (
    CipherRefused,
    Conflict,
    ContainerLost,
    MappingFailed,
    NotFound,
    StoreUnavailable,
    UnderMaintenance,
    UserError,
)
from vaka.masking import Masker
from vaka.models.component import ComponentDefinition
from vaka.models.job import Cause, CauseKind, JobRecord, JobSpec, Phase, StageStatus, Status
from vaka.store import Fence, LeaseLost
from vaka.turns import beside

log = logging.getLogger(__name__)

SUCCESS = "Component processing finished."
NOTHING_EXECUTED = "No configurations executed."
TERMINATED = "Job has been terminated"
CLEANUP_RETRY = 5.0
"""Seconds before a container that could not be removed is tried again."""
STORE_RETRY = 1.0
"""Seconds before the store is asked again after it did not answer."""
PLAN = -1
"""Key of the plan among what a job's definitions leave in the journal."""
VERDICT = -2
"""Key of the verdict on a job that has failed, and only has to be cleaned up."""
VERIFIED_GONE = "verifiedGone"
"""Member of the result of a job that was stopped: the containers that were looked for and are gone."""
SO_FAR = "so_far"
"""Member of that verdict: what the result of the job names beside it."""


class AlreadyFailed(Exception):
    """There is a verdict already, on the job or on one of its definitions, and it is in the journal."""

    def __init__(self, verdict: Verdict, so_far: Mapping[str, Any] | None = None) -> None:
        super().__init__(verdict.detail)
        self.verdict = verdict
        self.so_far = so_far
        """Of a job that was being cleaned up when its engine died: what its result names."""


class JobActor:
    """Runs one claimed job to its outcome. `run` once; `stop` and `abandon` may come at any time."""

    def __init__(self, services: Services, record: JobRecord) -> None:
        self.record = record
        self.seen_by_renewal = False
        """Whether the lease was there when leases were last renewed."""
        self.is_over = False
        """Whether its end is stored, and its lease given back with it; its folder may be going still."""
        self._services = services
        self._fence = Fence(record.id, services.owner.id, record.attempt)
        self._scope = trio.CancelScope()
        self._cleanup = trio.CancelScope(shield=True)
        self._stop = trio.Event()
        self._abandoned = False
        self._definitions: list[DefinitionActor] = []
        self._running: set[DefinitionActor] = set()
        self._plan: Plan | None = None
        self._containers = {
            stage.container for stage in record.stages if stage.attempt == record.attempt
        }
        self._gone: list[str] = []
        """Containers that were verified to be gone at the job's end."""
        if record.stop_requested:
            self._stop.set()

    def stop(self) -> None:
        """End the job because somebody asked for it: its containers first, then the rest."""
        self._stop.set()
        if not self._running:
            self._scope.cancel()
        for definition in self._running:
            definition.stop()

    def abandon(self) -> None:
        """Leave the job as it is, containers running, to whoever claims it next."""
        self._abandoned = True
        self._scope.cancel()
        self._cleanup.cancel()

    async def run(self) -> None:
        """Bring the job to its outcome and store it. Raises nothing but cancellation.

        When the store does not answer, the job is left as its journal says and claimed again later.
        """
        interrupted: list[BaseException] = []
        try:
            async with trio.open_nursery() as nursery:
                masker = Masker(shortest=self._services.config.secret_min_length)
                told = sum(
                    stage.stdout_bytes + stage.stderr_bytes
                    for stage in self.record.stages
                    if stage.attempt == self.record.attempt
                )
                async with await nursery.start(
                    keep_events, self._services, self._fence, masker, told
                ) as events:
                    await self._supervise(events)
        except* (StoreUnavailable, LeaseLost) as group:
            interrupted.extend(leaves(group))
        except* Exception:
            # our own fault, after the job's outcome could be told apart from it: the lease runs out,
            # and whoever claims the job then reads in the journal how far it got
            log.exception("job.crashed", extra={"job_id": self.record.id})
        for error in interrupted:
            log.error("job.interrupted", extra={"job_id": self.record.id, "error": str(error)})
        if interrupted or self._abandoned:
            await self._release()

    # -- supervision ---------------------------------------------------------------------------

    async def _supervise(self, events: EventLog) -> None:
        faults: list[BaseException] = []
        result: Mapping[str, Any] | None = None
        if self._stop.is_set() and not self._containers:
            self._scope.cancel()  # nothing has run yet
        with self._scope:
            try:
                result = await self._work(events)
            except* Stopped:
                pass
            except* Exception as group:  # noqa: BLE001 - the boundary: it becomes the outcome
                faults.extend(leaves(group))
        for fault in faults:
            if isinstance(fault, StoreUnavailable | LeaseLost):
                raise fault
        with self._cleanup:
            failure = None
            so_far: Mapping[str, Any] = {}
            closed = _maintenance(faults)
            if faults and closed is None:
                failure, so_far = await self._judge(events, faults)
            await self._clean_up(events)
            if closed is not None:
                await self._remove_folder()
                if await self._put_back(events, closed):
                    return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._remove_folder)
                if failure is not None:
                    await self._fail(events, failure, so_far)
                elif result is not None:
                    is_skipped = self._plan is not None and self._plan.is_skipped
                    status = Status.WARNING if is_skipped else Status.SUCCESS
                    tables = [table["id"] for table in result["output"]["tables"]]
                    await self._services.imported(self.record.project, tables)
                    await self._finish(events, status, result)
                elif not self._abandoned:
                    await self._finish(
                        events,
                        Status.TERMINATED,
                        {
                            "message": TERMINATED,
                            VERIFIED_GONE: list(self._gone),
                            **_rows(self._definitions),
                        },
                        cause=await self._stopped_by(),
                    )
                self.is_over = True

    async def _judge(
        self, events: EventLog, faults: Sequence[BaseException]
    ) -> tuple[Verdict, Mapping[str, Any]]:
        """The verdict and what the result names beside it, in the journal before any evidence goes."""
        judged = [fault for fault in faults if isinstance(fault, AlreadyFailed)]
        if judged and judged[0].so_far is not None:
            return judged[0].verdict, judged[0].so_far
        others = [fault for fault in faults if not isinstance(fault, AlreadyFailed)]
        verdicts = [each.verdict for each in judged]
        if others:
            verdicts.append(self._pronounce(events, others))
        # as among the faults of one definition: our own fault outranks the author's
        failure = next((each for each in verdicts if each.error == "application"), verdicts[0])
        so_far = {} if self._plan is None else _so_far(self._plan, self._definitions)
        document = failure.to_json() | {SO_FAR: so_far}
        await self._services.store.save_definition(self._fence, VERDICT, document)
        return failure, so_far

    def _pronounce(self, events: EventLog, faults: Sequence[BaseException]) -> Verdict:
        """The verdict on these faults, told to the engine's log."""
        failure = verdict(faults).map(events.masker.document)
        extra = {
            "job_id": self.record.id,
            "exception_id": failure.exception_id,
            "error": failure.detail,
        }
        if failure.error == "user":
            log.info("job.failed", extra=extra)
        else:
            culprit = next(fault for fault in faults if not isinstance(fault, UserError))
            # not `exc_info`: what the error says may hold what must not be in any log
            trace = "".join(traceback.format_exception(culprit))
            log.error("job.failed", extra={**extra, "exception": events.masker.text(trace)})
        return failure

    async def _put_back(self, events: EventLog, closed: UnderMaintenance) -> bool:
        """Let the job wait until what it needs is open again; False when it was asked to stop."""
        if self._stop.is_set():
            return False
        text = events.masker.text(closed.message)
        self._services.admission.pause(text, closed.retry_after)
        await events.write(Entry("job.requeued", "warn", f"The job waits again: {text}"))
        try:
            await events.store_with(
                lambda tail: self._services.store.requeue(self._fence, tail=tail)
            )
        except Conflict:
            return False  # its stop was asked for in this moment
        log.warning("job.requeued", extra={"job_id": self.record.id, "reason": text})
        return True

    async def _fail(self, events: EventLog, failure: Verdict, so_far: Mapping[str, Any]) -> None:
        await self._finish(
            events,
            Status.ERROR,
            {
                "message": failure.message,
                "exceptionId": failure.exception_id,
                "context": [],
                **so_far,
            },
            failure=failure,
            cause=failure.cause,
        )

    async def _finish(
        self,
        events: EventLog,
        status: Status,
        result: Mapping[str, Any],
        *,
        failure: Verdict | None = None,
        cause: Cause | None = None,
    ) -> None:
        cause = cause or Cause(CauseKind.FINISHED)
        masked = events.masker.document(result)
        await events.write(
            Entry(
                "job.finished",
                "error" if status is Status.ERROR else "info",
                masked["message"],
                data={"status": status.value},
            )
        )
        await events.store_with(
            lambda tail: self._services.store.finish(
                self._fence,
                status,
                result=masked,
                error=failure.error if failure else None,
                cause=cause,
                metrics=self._metrics(),
                tail=tail,
            )
        )
        self._services.tokens.pop(self.record.id, None)
        log.info("job.finished", extra={"job_id": self.record.id, "status": status.value})

    async def _stopped_by(self) -> Cause:
        """Who wanted the job to end, which was written down after it was claimed."""
        record = await self._services.store.job(self.record.id)
        return Cause(CauseKind.CANCELLED, dict(record.terminated_by or {}))

    def _metrics(self) -> dict[str, Any]:
        """What the job moved, also when it failed (runner.md section 2.1)."""
        moved = [definition.moved for definition in self._definitions]
        return {
            "storage": {
                "inBytes": sum(each["in"] for each in moved),
                "outBytes": sum(each["out"] for each in moved),
            },
            "backend": self._services.storage.backend_name,
        }

    async def _clean_up(self, events: EventLog) -> None:
        """Nothing of the job may live when its final status is written."""
        for name in sorted(self._containers):
            await self._end_container(name, events)

    async def _remove_folder(self) -> None:
        try:
            await trio.to_thread.run_sync(job_folder(self._services, self.record.id).remove)
        except OSError:
            log.exception("folder.leaked", extra={"job_id": self.record.id})

    async def _end_container(self, name: str, events: EventLog) -> None:
        """Stop, kill, remove; again until it is verified gone."""
        config = self._services.config
        while True:
            try:
                with trio.fail_after(config.stop_grace + config.cleanup_timeout):
                    await self._services.runtime.stop(name, grace=config.stop_grace)
                    await self._services.runtime.remove(name)
                    is_there = await self._services.runtime.find(name) is not None
            except Exception as error:
                log.exception("container.leaked", extra={"container": name})
                await events.note("warn", f"Cannot remove container {name} yet: {error}")
                await trio.sleep(CLEANUP_RETRY)
            else:
                if is_there:  # somebody has made another one of that name
                    continue
                self._containers.discard(name)
                self._gone.append(name)
                return

    async def _release(self) -> None:
        """Give the lease back, so that the job goes on at once, here or elsewhere.

        An owner's own leases do not run out while it renews them, so this tries until the store
        answers; only an engine that is leaving gives up, and its leases run out with it.
        """
        with trio.CancelScope(shield=True) as scope:
            while True:
                if self._abandoned and scope.deadline == math.inf:
                    scope.deadline = trio.current_time() + self._services.config.cleanup_timeout
                try:
                    await self._services.store.release(self._fence)
                except StoreUnavailable:
                    await trio.sleep(STORE_RETRY)
                except LeaseLost:
                    return
                else:
                    return

    # -- the work ------------------------------------------------------------------------------

    async def _work(self, events: EventLog) -> Mapping[str, Any]:
        """Run all definitions and store what they leave; return the job's result."""
        services, record = self._services, self.record
        spec = JobSpec.model_validate(dict(record.spec))
        token = await self._token()
        if token is not None:
            events.masker.add([token.get_secret_value()])
            spec = spec.model_copy(update={"token": token})
        main = await self._main_component(spec)
        project = await services.catalog.project(record.project)
        journal = (
            {} if record.is_fresh else await services.store.definitions(record.id, record.attempt)
        )
        if VERDICT in journal:
            document = dict(journal[VERDICT])
            so_far = document.pop(SO_FAR)
            raise AlreadyFailed(Verdict.from_json(document), so_far)
        record = self.record = await self._taken_over(journal, events)
        branch = await job_branch(services.catalog, services.storage, project, spec.branch)
        if record.phase is Phase.CLAIMED:
            await events.write(Entry("job.claimed", "info", f"Job {record.id} is processing."))
            await refuse_in_branch(services.catalog, main, spec, project, branch)
        else:
            await events.write(
                Entry(
                    "job.resumed",
                    "info",
                    "The runner was restarted; the job goes on where it was.",
                    data={"phase": record.phase, "definition": record.definition},
                )
            )
        secrets = JobSecrets(
            services.encryption,
            events.masker,
            project=project,
            component=main.id,
            config=spec.config,
            branch_type="default" if branch.id is None else "dev",
        )
        unsaved: dict[int, Any] = {}
        kept = journal.get(PLAN)
        plan = await self._new_plan(spec, events) if kept is None else Plan.from_json(kept)
        opened = await _open(plan, journal, secrets)
        await write_uses(secrets, services.audit, job_entry(record, main.id))
        if kept is None:
            # only now: what was put in the place of a secret and is none must not be written down
            unit_bytes = reserved_memory(services.config, project, main, spec.container_type)
            plan = await self._keep_plan(plan, unit_bytes, unsaved, events)
        self._plan = plan
        context = JobContext(services.config, record, spec, project, branch)
        folder = job_folder(services, record.id)
        is_alone = plan.width == 1
        self._definitions = [
            DefinitionActor(
                services=services,
                job=context,
                fence=self._fence,
                main=main,
                plan=definition,
                opened=opened[index],
                secrets=secrets,
                index=index,
                total=len(plan.definitions),
                left=journal.get(index, {}),
                unsaved=unsaved if is_alone else {},
                events=events,
                stop=self._stop,
                containers=self._containers,
                folder=folder if is_alone else folder.part(str(index)),
                is_alone=is_alone,
            )
            for index, definition in enumerate(plan.definitions)
        ]
        for actor in self._definitions:
            await actor.prepare()
        if kept is None:
            await tell_legacy(secrets, events)
        results = await self._run_all(self._definitions, plan.width, events)
        await _tell_loads(results, events)
        failures = [failure for result in results for failure in result.load_failures]
        if failures:
            raise MappingFailed("Failed to process output mapping: " + "\n".join(failures))
        # the folder may go once this is written: nothing reads it again, and nothing tells again what
        # was told before
        await events.store_with(
            lambda tail: services.store.advance(
                self._fence, Phase.STATE, len(results), keep=unsaved, tail=tail
            )
        )
        if not is_debug(record):
            await self._store_states(spec, plan, results, events)
        return _result(plan, results, self._definitions)

    async def _token(self) -> SecretStr | None:
        """The token that the job was submitted with, from the store or from memory."""
        services, record = self._services, self.record
        cipher = await services.store.token(record.id)
        if cipher is None:
            return services.tokens.get(record.id)
        return await opened_token(services.encryption, cipher, record.project, record.component)

    async def _taken_over(self, journal: Mapping[int, Any], events: EventLog) -> JobRecord:
        """The record, less what must be done again because the job's folder is in another home.

        Raises:
            ContainerLost: a component has begun its work there.
            Stopped: it has, and somebody has asked to stop it.
        """
        record = self.record
        folder = job_folder(self._services, record.id).root
        if record.is_fresh or await trio.to_thread.run_sync(folder.is_dir):
            return record
        undone = [
            stage
            for stage in record.stages
            if stage.attempt == record.attempt
            and not _is_settled(journal.get(stage.definition, {}))
        ]
        begun = [stage for stage in undone if stage.status is not StageStatus.PLANNED]
        if begun and self._stop.is_set():
            raise Stopped
        if begun:
            raise ContainerLost(
                f"The engine that ran container {begun[-1].container} is gone, and {folder} is not "
                "here: what the container has left is in the home of that engine. It was not run "
                "again, because what a component does outside can be half done.",
                name=begun[-1].container,
            )
        for stage in undone:  # it may have been created, with the other home's folders
            await self._end_container(stage.container, events)
        return replace(record, stages=tuple(each for each in record.stages if each not in undone))

    async def _main_component(self, spec: JobSpec) -> ComponentDefinition:
        if spec.component is None:
            return image_definition(spec)
        try:
            component = await self._services.catalog.component(spec.component)
        except NotFound as error:
            raise UserError(f"Component '{spec.component}' not found.") from error
        return ComponentDefinition.parse(component)

    async def _run_all(
        self, definitions: Sequence[DefinitionActor], width: int, events: EventLog
    ) -> list[DefinitionResult]:
        """Results of all definitions, in their order; begun in their order, `width` under way.

        The first failure keeps later ones from beginning; those under way go on to their end, because
        what a container does outside can be half done.
        """
        results: dict[int, DefinitionResult] = {}
        failures: dict[int, Exception] = {
            index: AlreadyFailed(Verdict.from_json(each.failure))
            for index, each in enumerate(definitions)
            if each.failure is not None
        }
        waiting = iter(enumerate(definitions))

        async def run() -> None:
            for index, definition in waiting:
                has_begun = definition.is_done or definition.has_container
                if index in failures:
                    continue
                if (failures or self._stop.is_set()) and not has_begun:
                    definition.status = Status.TERMINATED
                    continue
                self._running.add(definition)
                try:
                    results[index] = await definition.run()
                except Exception as error:
                    faults = list(leaves(error))
                    if any(isinstance(fault, StoreUnavailable | LeaseLost) for fault in faults):
                        raise
                    failures[index] = error
                    if width > 1 and not isinstance(error, Stopped):
                        failures[index] = await self._row_failed(definition, faults, events)
                finally:
                    self._running.discard(definition)

        if width == 1:
            await run()
        else:
            async with trio.open_nursery() as nursery:
                for _ in range(width):
                    nursery.start_soon(run)
        if failures:
            raise ExceptionGroup("definitions", [failures[index] for index in sorted(failures)])
        if self._stop.is_set():
            raise Stopped
        return [results[index] for index in range(len(definitions))]

    async def _row_failed(
        self, definition: DefinitionActor, faults: Sequence[BaseException], events: EventLog
    ) -> Exception:
        """Keep and tell the failure of one definition while others go on."""
        stopped = [fault for fault in faults if isinstance(fault, Stopped)]
        faults = [fault for fault in faults if not isinstance(fault, Stopped)]
        if not faults:
            return stopped[0]
        closed = _maintenance(faults)
        if closed is not None:
            return closed
        failure = self._pronounce(events, faults)
        await definition.journal_failure(failure.to_json())
        await events.note("error", f"Row {definition.row_id} failed: {failure.message}")
        return AlreadyFailed(failure)

    async def _new_plan(self, spec: JobSpec, events: EventLog) -> Plan:
        """What is to be done, as stored configurations say now."""
        services = self._services
        unnamed: list[str] = []
        for document in (spec.config_data, spec.variable_values_data):
            unnamed += await beside(document, partial(unnamed_secrets, document))
        if unnamed:
            await events.note(
                "warn",
                "These values stand in lists, where a value has no key and is not encrypted: "
                f"{named(unnamed)}. Give each secret a key of its own that begins with #.",
            )
        plan = await resolve_plan(
            services.catalog,
            spec,
            await plan_definitions(services.catalog, spec),
            strict=services.config.strict_variables,
        )
        for note in plan.notes:
            await events.note("info", note)
        if spec.tag:
            await events.note("warn", f"Overriding component tag with: '{spec.tag}'")
        return plan

    async def _keep_plan(
        self, plan: Plan, unit_bytes: int, unsaved: dict[int, Any], events: EventLog
    ) -> Plan:
        """The plan as it is written down: a stored configuration may change meanwhile."""
        wanted = min(plan.parallelism, len(plan.definitions), self._services.config.parallel_rows)
        if wanted > 1:
            width = await self._services.store.reserve(
                self._fence,
                unit_bytes,
                wanted,
                memory_bytes=self._services.config.effective_memory_bytes,
            )
            await events.note(
                "info",
                f"Running up to {width} rows at a time"
                + ("." if width == wanted else f", not {wanted}: no more memory is free."),
            )
            plan = replace(plan, width=width)
        if plan.width > 1:
            await self._services.store.save_definition(self._fence, PLAN, plan.to_json())
        else:
            # stored with the first entry of the journal that comes of it
            unsaved[PLAN] = plan.to_json()
        return plan

    async def _store_states(
        self,
        spec: JobSpec,
        plan: Plan,
        results: Sequence[DefinitionResult],
        events: EventLog,
    ) -> None:
        """Keep what the definitions want to find again, each once, and only if nobody was faster."""
        if spec.component is None or not spec.config:
            return
        for index, (definition, result) in enumerate(zip(plan.definitions, results, strict=True)):
            if definition.state_version is None:
                continue
            try:
                await self._services.catalog.put_state(
                    self.record.project,
                    spec.component,
                    spec.config,
                    definition.row_id,
                    result.new_state,
                    expected_version=definition.state_version,
                    key=f"job-{self.record.id}-{self.record.attempt}-{index}",
                    branch=spec.branch,
                )
            except NotFound as error:
                await events.note("warn", f"Failed to store state: {error}")
            except Conflict as error:
                raise UserError(
                    f"Failed to store state: {error} Another run or a person has changed it while "
                    "this job ran; the outputs are stored, the state is as they left it."
                ) from error
            else:
                told_state = told(result.new_state, events.masker)
                await events.note("notice", f"Storing state: {told_state}")
                await events.write(
                    Entry("state.stored", "info", "Storing state.", definition=index)
                )


async def _open(plan: Plan, journal: Mapping[int, Any], secrets: JobSecrets) -> list[Opened | None]:
    """What all definitions say that are not done, with their secrets in the clear.

    Raises:
        CipherRefused: some of them cannot be read; names all of these.
        UserError: a definition cannot be used.
    """
    opened: list[Opened | None] = []
    refusals: list[CipherRefused] = []
    for index, definition in enumerate(plan.definitions):
        one = None
        if "output" not in journal.get(index, {}):
            try:
                one = await open_definition(definition, secrets)
            except CipherRefused as refusal:
                refusals.append(refusal)
        opened.append(one)
    if refusals:
        raise all_refused(refusals)
    return opened


def _is_settled(left: Mapping[str, Any]) -> bool:
    """Whether a definition that left this in the journal has ended, and needs its folder no more."""
    return "output" in left or "failure" in left


def _maintenance(faults: Sequence[BaseException]) -> UnderMaintenance | None:
    """What a job has met, when all that went wrong is that something is closed for a while."""
    closed = [fault for fault in faults if isinstance(fault, UnderMaintenance)]
    return closed[0] if closed and len(closed) == len(faults) else None


async def _tell_loads(results: Sequence[DefinitionResult], events: EventLog) -> None:
    """Loads end with their definition here; jobs say all the same how many there were."""
    failed = sum(len(result.load_failures) for result in results)
    loads = failed + sum(len(result.output_tables) for result in results)
    if loads:
        await events.note("info", f"Waiting for {loads} Storage jobs to finish.")
    if loads and not failed:
        await events.note("info", "Output mapping done.")


def _result(
    plan: Plan, results: Sequence[DefinitionResult], definitions: Sequence[DefinitionActor]
) -> dict[str, Any]:
    """The result of a job that succeeded (runner.md section 2.6)."""
    document = {
        "message": SUCCESS if results else NOTHING_EXECUTED,
        **_ran(list(zip(plan.definitions, results, strict=True))),
        **_rows(definitions),
    }
    document["output"]["tables"] = [table for result in results for table in result.output_tables]
    if results:
        document["artifacts"] = {
            each: [
                {"storageFileId": file_id}
                for result in results
                for file_id in result.artifacts.get(each, ())
            ]
            for each in ("uploaded", "downloaded")
        }
    variables = [variable for result in results for variable in result.output_variables]
    if variables:
        document["output"]["variables"] = variables
    return document


def _so_far(plan: Plan, definitions: Sequence[DefinitionActor]) -> dict[str, Any]:
    """What the result of a job that failed says of the definitions whose turn had come."""
    ran = [
        (planned, definition.result())
        for planned, definition in zip(plan.definitions, definitions, strict=False)
        if definition.has_begun
    ]
    return {**_ran(ran), **_rows(definitions)}


def _ran(ran: Sequence[tuple[DefinitionPlan, DefinitionResult]]) -> dict[str, Any]:
    version = ran[0][0].version if ran else ""
    variables = [dict(each) for planned, _ in ran for each in planned.variables]
    return {
        "images": [list(result.images) for _, result in ran],
        "configVersion": int(version) if version else None,
        "input": {"tables": [table for _, result in ran for table in result.input_tables]},
        "output": {"tables": []},
        **({"variables": variables} if variables else {}),
    }


def _rows(definitions: Sequence[DefinitionActor]) -> dict[str, Any]:
    """Which rows of the configuration ran, in its order; nothing for a job without rows."""
    if all(definition.row_id is None for definition in definitions):
        return {}
    return {
        "rows": [
            {"id": definition.row_id, "status": definition.status}
            for definition in definitions
            if definition.has_begun
        ]
    }
