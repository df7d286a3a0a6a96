"""The engine: root of the supervision tree.

```python
async with Engine(EngineConfig(concurrency=4)) as engine:
    job = await engine.submit(JobSpec(image="alpine:3.20", timeout=60))
    async for event in job.events():
        print(event)
    outcome = await job.wait()
```

Leaving the block waits for running jobs (`EngineConfig.shutdown` says otherwise); cancelling around
it stops them, or leaves them to the next engine when `shutdown` is `adopt`. Either way no task is
left behind.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import math
import os
import resource
import secrets
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast

import trio

from vaka._no_runtime import NoRuntime
from vaka._plugins import Plugins
from vaka._supervision import is_for_want_of_room, leaves
from vaka.actors.action import Actions
from vaka.actors.admission import Admission
from vaka.actors.branch import branch_type
from vaka.actors.collector import apply, collect_forever, plan
from vaka.actors.dispatcher import Dispatcher
from vaka.actors.health import Health, HealthCheck
from vaka.actors.job_secrets import MAKE_KEYS, sealing_scope, token_scope
from vaka.actors.ledger import ImageLedger
from vaka.actors.limits import reserved_memory
from vaka.actors.operations import Operations
from vaka.actors.reconciler import reconcile_forever
from vaka.actors.reencryption import LegacyFamily, Reencryption
from vaka.actors.services import Services
from vaka.actors.stages import image_definition
from vaka.actors.triggers import Triggers
from vaka.audit import AuditLog
from vaka.config import EngineConfig
from vaka.encryption import Encryption, plain_secrets
from vaka.errors import (
    ApplicationError,
    CipherRefused,
    Conflict,
    HomeInUse,
    InvalidInput,
    NotFound,
    RuntimeUnavailable,
    UserError,
)
from vaka.hooks import Catalog, ContainerRuntime, MappingBackend, Resource
from vaka.models.ciphers import Scope, is_cipher
from vaka.models.client_event import ClientEvent, ClientEventQuery, NewClientEvent
from vaka.models.component import ComponentDefinition
from vaka.models.event import Event
from vaka.models.garbage import GarbagePlan, GarbageReport
from vaka.models.job import (
    ActionResult,
    ActionSpec,
    JobQuery,
    JobRecord,
    JobSpec,
    Outcome,
    Status,
)
from vaka.models.reencryption import Cursor, ReencryptionReport
from vaka.runtime import docker_runtime
from vaka.store import JobStore, NewJob, Owner
from vaka.turns import beside
from vaka.variables import BUILT_IN

log = logging.getLogger(__name__)
T = TypeVar("T")

EVENTS_PAGE = 1_000
CLOSE_TIMEOUT = 10.0
REMEMBER = 1.0
"""Seconds that a component or project is known while jobs are accepted for it."""
REMEMBERED = 1_000
FIRST_PROJECT = "Main"
FIRST_FEATURES = ("queuev2", "artifacts")
"""Component libraries ask for the first; without it they speak of a legacy queue."""
UNSIGNED = frozenset(
    {"token_id", "token_description", "idempotency_key", "buckets", "reads_all_files"}
)
"""What of a request says who sends it, and not what is asked for."""
SECRETIVE = {
    "config_data": "configData",
    "variable_values_data": "variableValuesData",
    "row": "row",
}
"""Members of a request that may hold secrets, and what its author calls them."""
PARALLELISM_LIMIT = "components.jobsParallelism"


class Job:
    """A caller's handle on one job. It holds no state of the job: every answer is the store's."""

    def __init__(self, engine: Engine, record: JobRecord) -> None:
        self._engine = engine
        self.record = record
        """What the store said last."""

        self.store = engine.services.store
        self.idle_poll = engine.config.idle_poll

    @property
    def id(self) -> int:
        return self.record.id

    async def refresh(self) -> JobRecord:
        """What the store says now."""
        self.record = await self.store.job(self.id)
        return self.record

    async def wait(self) -> Outcome:
        """Return once the job has ended, however it ended; failures are not raised."""
        watch = self.store.watch(("end", self.id))
        while not (await self.refresh()).status.is_finished:
            await watch.changed(self.idle_poll)
        return _outcome(self.record)

    def events(self, *, after: int = 0, follow: bool = True) -> AsyncIterator[Event]:
        """The job's events from its first on, less the first `after`.

        With `follow`, live ones as they come, until the job has ended; without, what there is now.
        """
        return _Events(self, after, follow)

    async def last_seq(self) -> int:
        """Number of the job's last event so far, 0 when it has none."""
        return await self.store.last_seq(self.id)

    async def cancel(self, by: Mapping[str, Any] | None = None) -> JobRecord:
        """Ask the job to end, and return at once: `wait` returns when it has.

        A waiting job is cancelled on the spot. A running one is stopped, killed after the grace
        period, and final only when nothing of it lives. Jobs that it has started end with it.

        Raises:
            Conflict: the job has ended already.
        """
        self.record = await self._engine.request_stop(self.id, by or {})
        return self.record


class _Events:
    """Reads a job's events page by page. Leaving it half-way needs no closing."""

    def __init__(self, job: Job, after: int, follow: bool) -> None:
        self._job = job
        self._after = after
        self._follow = follow
        self._store = job.store
        self._watch = self._store.watch(("job", job.id))
        self._page: deque[Event] = deque()
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._page:
            self._page.extend(
                await self._store.events(self._job.id, after=self._after, limit=EVENTS_PAGE)
            )
            if self._page:
                break
            if self._ended:
                raise StopAsyncIteration
            # of a job that has finished, one more look finds all it has said
            self._ended = not self._follow or (await self._job.refresh()).status.is_finished
            if not self._ended:
                await self._watch.changed(self._job.idle_poll)
        event = self._page.popleft()
        self._after = event.seq
        return event


class Engine(AbstractAsyncContextManager["Engine"]):
    """Runs jobs. Open it with `async with`; two engines in a process share nothing."""

    def __init__(
        self, config: EngineConfig | None = None, *, plugins: Sequence[object] = ()
    ) -> None:
        self.config = config or EngineConfig()
        self.plugins = Plugins(plugins)
        self._exit: AbstractAsyncContextManager[None] | None = None
        self._parts: Services | None = None
        self._dispatcher: Dispatcher | None = None
        self._actions: Actions | None = None
        self._operations: Operations | None = None
        self._triggers: Triggers | None = None
        self._health: HealthCheck | None = None
        self._told: dict[tuple[str, str], tuple[float, object]] = {}

    # -- lifetime ------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._exit = self._lifetime()
        await self._exit.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._exit is not None  # noqa: S101 - only `async with` calls this
        try:
            await self._exit.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            # a caller's own error comes back as itself; a group means that we broke
            if error is None or list(leaves(group)) != list(leaves(error)):
                raise

    @asynccontextmanager
    async def _lifetime(self) -> AsyncGenerator[None, None]:
        config = self.config
        owner = Owner(
            id=f"{config.host}-{os.getpid()}-{secrets.token_hex(4)}",
            instance=config.instance,
            host=config.host,
            pid=os.getpid(),
        )
        async with AsyncExitStack() as stack:
            previous = None
            _make_home(config.home)
            _allow_many_files()
            if config.worker:
                previous = stack.enter_context(_Home(config.home, owner)).previous
            store = await stack.enter_async_context(JobStore(config.effective_store_url))
            storage = self.plugins.mapping_backend(config.effective_storage_url)
            catalog = self.plugins.catalog(config.effective_catalog_url)
            runtime = self._runtime()
            for part in (storage, catalog, runtime):
                stack.push_async_callback(_close, part)
                await part.open()
            if config.atomic_output and not storage.loads_together:
                raise ApplicationError(
                    f'The Storage "{storage.backend_name}" cannot load several tables in one '
                    "transaction, which the setting atomic_output asks for. Leave it out."
                )
            encryption = self._secrets()
            stack.push_async_callback(_close, encryption)
            await encryption.check()
            services = Services(
                config=config,
                plugins=self.plugins,
                store=store,
                runtime=runtime,
                storage=storage,
                catalog=catalog,
                owner=owner,
                admission=Admission(config),
                images=ImageLedger(config.home),
                starting=trio.CapacityLimiter(config.starting),
                tokens={},
                encryption=encryption,
                audit=AuditLog(store),
                imported=self._imported,
            )
            self._parts = services
            self._triggers = Triggers(store, catalog, self.submit)
            self._operations = Operations(services)
            if not await catalog.projects():
                await catalog.create_project(FIRST_PROJECT, features=FIRST_FEATURES)
            await _register_built_in(catalog)
            if previous is not None:
                await store.expire_owner(previous)
            async with trio.open_nursery() as helpers:
                self._health = HealthCheck(services, helpers)
                try:
                    if config.worker:
                        async with self._working(services):
                            yield
                    else:
                        yield
                finally:
                    self._health = None
                helpers.cancel_scope.cancel()

    def _secrets(self) -> Encryption:
        """What encrypts and decrypts, with the keys that plugins have."""
        settings = {name: getattr(self.config, name) for name in EngineConfig.model_fields}
        return Encryption(
            stack=self.config.stack_id,
            encryptors=self.plugins.encryptors(settings),
            readers=self.plugins.cipher_readers(settings),
            write_provider=self.config.write_provider,
            full_cipher=self.config.errors_full_cipher,
            scope_for=self.plugins.scope_for,
            secret_forms=self.plugins.secret_forms,
        )

    def _runtime(self) -> ContainerRuntime:
        """What runs containers here, not opened yet; nothing is asked of a daemon without need."""
        return self._any_runtime() if self.config.worker else NoRuntime()

    def _any_runtime(self) -> ContainerRuntime:
        url = self.config.runtime_url
        return self.plugins.container_runtime(url) or docker_runtime(
            url, network_holders=self.config.network_holders
        )

    @asynccontextmanager
    async def _working(self, services: Services) -> AsyncGenerator[None, None]:
        """Jobs run while this is open; leaving it ends them as the settings say."""
        dispatcher = self._dispatcher = Dispatcher(services)
        async with trio.open_nursery() as helpers:
            helpers.start_soon(reconcile_forever, services)
            if self.config.gc_interval is not None:
                helpers.start_soon(collect_forever, services, self.config.gc_interval)
            try:
                async with self._operating(), trio.open_nursery() as jobs:
                    await helpers.start(dispatcher.run, jobs)
                    mode = "adopt" if self.config.shutdown == "adopt" else "stop"
                    try:
                        yield
                        mode = self.config.shutdown
                    finally:
                        # jobs are shielded: only this ends them, whatever happens around
                        await self._leave(dispatcher, mode)
            finally:
                dispatcher.end()
                self._dispatcher = None
            helpers.cancel_scope.cancel()

    @asynccontextmanager
    async def _operating(self) -> AsyncGenerator[None, None]:
        """Operations are done while this is open; leaving it ends what is under way.

        When engines drain, it waits for that. Else it is left for the next engine, as what has not
        begun is in any case.
        """
        operations = self.operations
        async with trio.open_nursery() as helpers:
            try:
                async with trio.open_nursery() as works:
                    await helpers.start(operations.run, works)
                    try:
                        yield
                        operations.close()
                        if self.config.shutdown == "drain":
                            await operations.drained()
                    finally:
                        operations.close()
                        operations.stop()
            finally:
                operations.end()
            helpers.cancel_scope.cancel()

    async def _leave(self, dispatcher: Dispatcher, mode: str) -> None:
        """Wait for what runs, hand it over, or stop it. Cancelled while it waits, it stops it."""
        dispatcher.close()
        if mode == "drain":
            try:
                await dispatcher.drained()
            except trio.Cancelled:
                mode = "stop"
                raise
            finally:
                if mode == "stop":
                    await self._stop_all(dispatcher)
        elif mode == "adopt":
            dispatcher.abandon()
        else:
            await self._stop_all(dispatcher)

    async def _stop_all(self, dispatcher: Dispatcher) -> None:
        by = {"id": None, "description": "engine shutdown"}
        with trio.move_on_after(self.config.cleanup_timeout, shield=True):
            for job_id in list(dispatcher.running):
                try:
                    await self.services.store.request_stop(job_id, by)
                except UserError:
                    continue  # it has ended meanwhile
        dispatcher.stop_all()

    @property
    def services(self) -> Services:
        """The engine's parts, for its own actors and handles."""
        if self._parts is None:
            raise _not_open()
        return self._parts

    @property
    def catalog(self) -> Catalog:
        """Projects, tokens, components, configurations and state."""
        return self.services.catalog

    @property
    def encryption(self) -> Encryption:
        """What encrypts and decrypts the secrets of documents."""
        return self.services.encryption

    @property
    def audit(self) -> AuditLog:
        """Who did what: administrative acts, and the use of tokens and of secrets."""
        return self.services.audit

    @property
    def storage(self) -> MappingBackend:
        """Tables and files."""
        return self.services.storage

    @property
    def operations(self) -> Operations:
        """What is done to Storage later than it is asked for; clients call these Storage jobs."""
        if self._operations is None:
            raise _not_open()
        return self._operations

    @property
    def triggers(self) -> Triggers:
        """What runs configurations when tables were loaded."""
        if self._triggers is None:
            raise _not_open()
        return self._triggers

    async def _imported(self, project: str, table_ids: Sequence[str]) -> None:
        await self.triggers.imported(project, table_ids)

    # -- clients' events, tickets ----------------------------------------------------------------

    async def ticket(self) -> int:
        """A number above all that were given before, by any engine on the same store."""
        return await self.services.store.ticket()

    async def add_event(self, new: NewClientEvent) -> ClientEvent:
        """Keep what a client says has happened."""
        return await self.services.store.add_client_event(new)

    async def event(self, event_id: int, *, project: str) -> ClientEvent:
        """One event that a client sent; `NotFound` when `project` has none such."""
        return await self.services.store.client_event(event_id, project)

    async def events(self, query: ClientEventQuery) -> list[ClientEvent]:
        """The events of clients that match, newest first."""
        return await self.services.store.client_events(query)

    # -- jobs ----------------------------------------------------------------------------------

    async def submit(self, spec: JobSpec) -> Job:
        """Accept a job. Returns once it is durable; it starts when a slot and its lock are free.

        Secrets of the request in the clear, and its token, are stored as ciphers.

        Raises:
            NotFound: there is no such component, or no such branch.
            Conflict: the idempotency key was used for another request.
            InvalidInput: it has a secret in the clear, and there is no key provider.
            ApplicationError: the key provider does not answer.
        """
        services = self.services
        definition = await self._definition(spec)
        project = await self._recent(
            ("project", spec.project), lambda: services.catalog.project(spec.project)
        )
        kind = await branch_type(services.catalog, spec.project, spec.branch)
        document = spec.model_dump(mode="json", exclude={"token"}, exclude_defaults=True)
        component = spec.component or definition.id
        scope = sealing_scope(project, Scope(component, spec.project, branch_type=kind))
        sealed = await self._sealed(document, scope)
        token = await self._sealed_token(spec, component)
        limit = project.limits.get(PARALLELISM_LIMIT)
        new = NewJob(
            project=spec.project,
            component=component,
            config=spec.config,
            spec=sealed,
            mode=spec.mode,
            lock_name=(
                None if spec.config is None else f"docker-{spec.project}-{component}-{spec.config}"
            ),
            memory_bytes=reserved_memory(self.config, project, definition, spec.container_type),
            project_parallelism=int(limit) if limit else None,
            parent_run_id=spec.parent_run_id,
            token_id=spec.token_id,
            token_description=spec.token_description,
            token=token,
            idempotency_key=spec.idempotency_key,
            idempotency_seconds=self.config.idempotency_age,
            host=services.owner.host,
            pid=services.owner.pid,
            request_hash=await self._request_hash(spec, document, sealed, scope),
        )
        try:
            record = await services.store.submit(new)
        except Conflict:
            if sealed == document:
                raise
            # the same request may have come twice at the same moment: its hash is stored only now
            hashed = await self._request_hash(spec, document, sealed, scope)
            record = await services.store.submit(replace(new, request_hash=hashed))
        if spec.token is not None and token is None:
            services.tokens[record.id] = spec.token
        return Job(self, record)

    async def _sealed(self, document: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
        """A request with the secrets in it encrypted: as it is stored, listed and logged.

        Raises:
            InvalidInput: a secret is in the clear, and nothing here encrypts; names its key.
            ApplicationError: the key provider does not answer.
        """
        secretive = {SECRETIVE[name]: document[name] for name in SECRETIVE if name in document}
        if self.encryption.can_encrypt:
            secretive = await self.encryption.encrypt_for("job-config", secretive, scope)
        elif paths := await beside(secretive, partial(plain_secrets, secretive)):
            raise InvalidInput(
                f"The value of '{paths[0]}' must be encrypted before it is stored, and this "
                f"installation has no keys. {MAKE_KEYS}",
                path=paths[0],
            )
        sealed = {name: secretive[word] for name, word in SECRETIVE.items() if word in secretive}
        return {**document, **sealed}

    async def _sealed_token(self, spec: JobSpec, component: str) -> str | None:
        """The token of a request as a cipher; None when it has none, or nothing here encrypts."""
        if spec.token is None or not self.encryption.can_encrypt:
            return None
        scope = token_scope(spec.project, component)
        return await self.encryption.encrypt_bytes(
            spec.token.get_secret_value().encode(),
            scope,
            family=self.encryption.family("token", scope),
        )

    async def _request_hash(
        self, spec: JobSpec, document: Mapping[str, Any], sealed: Mapping[str, Any], scope: Scope
    ) -> str | None:
        """What tells a repeated request from another one, as it is stored; None without a key.

        It is taken from the request as given. With secrets in it, a weak one could be guessed from it,
        so it is stored as a cipher, and that of an equal request is the stored one.
        """
        if spec.idempotency_key is None:
            return None
        plain = _request_hash(document)
        if sealed == document:
            return plain
        known = await self.services.store.request_hash(spec.project, spec.idempotency_key)
        if known is not None and is_cipher(known):
            with suppress(CipherRefused):
                if await self.encryption.decrypt_bytes(known, scope) == plain.encode():
                    return known
        return await self.encryption.encrypt_bytes(
            plain.encode(), scope, family=self.encryption.family("job-config", scope)
        )

    async def delete_branch(self, project: str, branch: str) -> None:
        """Remove a development branch: from the catalog, and from a Storage that keeps branches apart.

        In any other Storage what jobs in it have made stays, under its prefix. No job may be running in
        the branch.

        Raises:
            NotFound: there is no such branch.
            InvalidInput: it is the default one.
        """
        await self.catalog.delete_branch(project, branch)
        if self.storage.keeps_branches_apart:
            await self.storage.drop_branch(project, branch)

    async def job(self, job_id: int, *, project: str | None = None) -> Job:
        """A handle on a job that was submitted before; `NotFound` when `project` has none such."""
        return Job(self, await self.services.store.job(job_id, project=project))

    async def jobs(self, query: JobQuery) -> list[JobRecord]:
        """The jobs that match; `InvalidInput` when `query.search` cannot be understood."""
        return await self.services.store.jobs(query)

    async def job_groups(self, query: JobQuery) -> list[tuple[str, str | None]]:
        """Component and configuration of the jobs that match, each pair once, in the query's order."""
        return await self.services.store.job_groups(query)

    async def waits_for(self, record: JobRecord) -> str | None:
        """What a waiting job waits for, in words; None for a job that does not wait."""
        if record.status is not Status.WAITING:
            return None
        blocker = await self.services.store.blocker(record.id)
        if blocker is not None and blocker.job_id is not None:
            return f"job {blocker.job_id} of the same configuration, which has not ended"
        if blocker is not None:
            return f"one of the project's {blocker.project_running} running jobs to end"
        reason = await self.services.admission.reason()
        if reason is not None:
            return reason
        return "a free place and memory" if self.config.worker else "an engine that runs jobs"

    async def run_seconds(self, project: str) -> int:
        """Seconds that the finished jobs of a project ran, together."""
        return await self.services.store.run_seconds(project)

    async def daily_run_seconds(
        self, project: str, first: date, last: date, *, offset: timedelta = timedelta(0)
    ) -> list[tuple[date, int]]:
        """The same for each day from `first` to `last`: of the jobs that ended on it.

        Days begin at midnight, `offset` from UTC; those without a job have 0.
        """
        return await self.services.store.daily_run_seconds(project, first, last, offset)

    async def set_error_note(
        self, job_id: int, note: str | None, *, project: str | None = None
    ) -> JobRecord:
        """Attach a free text to a job."""
        return await self.services.store.set_error_note(job_id, note, project=project)

    async def request_stop(self, job_id: int, by: Mapping[str, Any]) -> JobRecord:
        """What `Job.cancel` does; `by` says who asked: `id` and `description`."""
        record = await self.services.store.request_stop(job_id, by)
        if self._dispatcher is not None:
            self._dispatcher.stop_run(record)
        return record

    async def gc_plan(self) -> GarbagePlan:
        """What this installation has kept and nobody needs any more; nothing is removed."""
        async with self._collecting() as services:
            return await plan(services)

    async def gc_apply(
        self,
        planned: GarbagePlan,
        *,
        timeout: float | None = None,
        say: Callable[[str], None] = lambda line: None,  # noqa: ARG005
    ) -> GarbageReport:
        """Remove what a plan names, and nothing else; return once that is done or time is over.

        `timeout` is seconds, `EngineConfig.gc_timeout` when None; `say` is given a line a step.
        """
        seconds = self.config.gc_timeout if timeout is None else timeout
        async with self._collecting() as services:
            return await apply(services, planned, timeout=seconds, say=say)

    async def reencrypt(
        self,
        *,
        dry_run: bool,
        legacy_family: LegacyFamily = "ProjectSecure",
        after: Cursor = (),
        on_document: Callable[[Cursor], None] = lambda cursor: None,  # noqa: ARG005
    ) -> ReencryptionReport:
        """Make the ciphers of all that is stored anew, with the active key, in the scope they have.

        A document is written as a whole or not at all, and never over somebody else's change; so this
        may be interrupted, and goes on `after` the last cursor that `on_document` was told. Of older
        ciphers `legacy_family` becomes the family. In a dry run nothing is written.

        Raises:
            ApplicationError: there is no key to encrypt with, or a key provider does not answer.
        """
        walk = Reencryption(
            self.services, dry_run=dry_run, legacy_family=legacy_family, on_document=on_document
        )
        return await walk.run(after)

    @asynccontextmanager
    async def _collecting(self) -> AsyncGenerator[Services, None]:
        """The engine's parts, with a container runtime also where it runs nothing."""
        if self.config.worker:
            yield self.services
            return
        runtime = self._any_runtime()
        try:
            with suppress(RuntimeUnavailable):  # every question about it says so again
                await runtime.open()
            yield replace(self.services, runtime=runtime)
        finally:
            await _close(runtime)

    async def act(self, spec: ActionSpec) -> ActionResult:
        """Run a synchronous action and return its answer, once nothing of it is left."""
        if self._actions is None:
            self._actions = Actions(self.services)
        return await self._actions.act(spec)

    async def health(self) -> Health:
        """Whether the engine can work: what the store, the runtime and the disk answer.

        While one of them takes long to answer, what was learnt in the last seconds is told again.
        """
        if self._health is None:
            raise _not_open()
        return await self._health.now()

    async def _definition(self, spec: JobSpec) -> ComponentDefinition:
        if spec.component is None:
            return image_definition(spec)
        return await self._recent(
            ("component", spec.component), lambda: self._registered(spec.component or "")
        )

    async def _registered(self, component: str) -> ComponentDefinition:
        return ComponentDefinition.parse(await self.services.catalog.component(component))

    async def _recent(self, key: tuple[str, str], ask: Callable[[], Awaitable[T]]) -> T:
        """What the catalog said a moment ago, or says now.

        For accepting jobs only, where it decides how much memory is reserved: a job that runs asks
        the catalog itself.
        """
        now = trio.current_time()
        told, value = self._told.get(key, (-math.inf, None))
        if now - told > REMEMBER:
            if len(self._told) >= REMEMBERED:
                self._told.clear()
            value = await ask()
            self._told[key] = (now, value)
        return cast(T, value)


def _not_open() -> ApplicationError:
    return ApplicationError("The engine is not open; use it inside `async with Engine(...)`.")


OF_CLIENTS: Final = {"keboola.mcp-server-tool": "MCP server"}
"""Components whose configurations clients make for themselves (storage-api.md section 12)."""


async def _register_built_in(catalog: Catalog) -> None:
    """Components that only hold configurations must be there before somebody configures them."""
    for component_id, name in {**BUILT_IN, **OF_CLIENTS}.items():
        try:
            await catalog.component(component_id)
        except NotFound:
            await catalog.put_component(
                {"id": component_id, "type": "other", "name": name, "data": {}}
            )


def _make_home(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True)
        (home / "engine.lock").touch()
    except OSError as error:
        raise _unusable(home.absolute(), error) from error


def _unusable(home: Path, error: OSError) -> ApplicationError:
    advice = (
        "Free space on its disk."
        if is_for_want_of_room(error)
        else "Choose another one, or give this user the right to write there."
    )
    return ApplicationError(f"The home {home} cannot be used: {error.strerror}. {advice}")


def _allow_many_files() -> None:
    """Take as many descriptors as the process may have: one a running container, one a slice."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Home:
    """The home folder, held by one working engine at a time."""

    def __init__(self, home: Path, owner: Owner) -> None:
        self.previous: str | None = None
        """The engine that held it before and cannot be alive."""
        self._home = home.absolute()
        self._owner = owner

    def __enter__(self) -> Self:
        self._file = (self._home / "engine.lock").open("r+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            holder = _parse_owner(self._file.read())
            self._file.close()
            raise HomeInUse(
                f"The home {self._home} is in use by process {holder.get('pid', '?')}. Talk to it "
                "over HTTP (`--url`), stop it, or choose another home.",
                pid=holder.get("pid"),
            ) from error
        try:
            self.previous = _parse_owner(self._file.read()).get("id")
            # over what is there: a full disk takes that, and keeps who was here before if it does not
            self._file.seek(0)
            self._file.write(json.dumps({"id": self._owner.id, "pid": self._owner.pid}))
            self._file.truncate()
        except OSError as error:
            with suppress(OSError):  # it tries once more to write
                self._file.close()
            raise _unusable(self._home, error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _parse_owner(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        return {}  # an empty file, or one that an engine was killed while writing
    return document if isinstance(document, dict) else {}


async def _close(part: Resource | Encryption) -> None:
    with trio.move_on_after(CLOSE_TIMEOUT, shield=True) as closing:
        await part.aclose()
    if closing.cancelled_caught:
        log.error("close.timed_out", extra={"part": type(part).__name__})


def _request_hash(document: Mapping[str, Any]) -> str:
    """Equal for equal requests, whoever of the project sends them."""
    unsigned = {name: value for name, value in document.items() if name not in UNSIGNED}
    text = json.dumps(unsigned, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _outcome(record: JobRecord) -> Outcome:
    return Outcome(
        job_id=record.id,
        status=record.status,
        message=str(record.result.get("message", "")),
        error=record.error,
        exception_id=record.result.get("exceptionId"),
        cause=record.cause,
        result=record.result,
    )
