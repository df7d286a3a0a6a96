"""An installation in this very process: the engine on a home, without any server."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trio

from vaka import Engine
from vaka.engine import FIRST_FEATURES
from vaka.errors import InvalidInput, NotFound
from vaka.models.audit import AuditEntry, AuditQuery
from vaka.models.catalog import Configuration, Project, Role
from vaka.models.event import Event
from vaka.models.job import JobQuery, JobRecord, Mode, Status
from vaka.models.moment import parse_moment
from vaka.models.storage import (
    ExportOptions,
    FileDetail,
    FileQuery,
    FileUpload,
    Filter,
    StorageScope,
    TableLoad,
)
from vaka_server import documents, encrypting, home
from vaka_server.cli.client import (
    Act,
    AuditFilter,
    Client,
    Document,
    JobFilter,
    Load,
    NewToken,
    Owner,
    Progress,
    ProjectChange,
    Run,
    Sealing,
    Select,
    Upload,
)
from vaka_server.requests import (
    OPERATORS,
    action_spec,
    changes_of,
    expected_version,
    flag,
    job_spec,
    stored_object,
    token_role,
)
from vaka_server.settings import Settings

DESCRIPTION = "vaka (this machine)"
"""How what was done without a token is signed."""
BASE = "http://127.0.0.1:8080"
"""Stands in addresses of documents, where a server would say its own."""


class EmbeddedClient(Client):
    """The engine on the home of `settings`; with `works` it runs the jobs that wait there."""

    def __init__(self, settings: Settings, *, works: bool) -> None:
        # jobs of others whose containers run are left to the next engine
        update: dict[str, Any] = {"worker": works, "shutdown": "adopt"}
        self._config = settings.engine.model_copy(update=update)
        self._base = settings.public_url or BASE
        self._engine: Engine
        self._project: Project
        self._stack = AsyncExitStack()

    @property
    def is_embedded(self) -> bool:
        return True

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.enter_context(home.hold(self._config.home, create=False))
            self._engine = await stack.enter_async_context(Engine(self._config))
            projects = await self._engine.catalog.projects()
            if not projects:
                raise NotFound(
                    f"The home {self._config.home} has no project; run `vaka init`.",
                    kind="home",
                    id=str(self._config.home),
                )
            self._project = projects[0]
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)

    @property
    def _scope(self) -> StorageScope:
        return StorageScope(project=self._project.id, token_description=DESCRIPTION)

    # -- jobs ----------------------------------------------------------------------------------

    async def run(self, wanted: Run) -> Document:
        try:
            await self._engine.catalog.component(wanted.component)
        except NotFound as error:
            raise InvalidInput(f"Component '{wanted.component}' not found.") from error
        spec = job_spec(wanted.body, wanted.component, Mode(wanted.mode), wanted.tag)
        job = await self._engine.submit(
            spec.model_copy(
                update={
                    "project": self._project.id,
                    "token_description": DESCRIPTION,
                    "idempotency_key": wanted.key,
                }
            )
        )
        return await self._job(job.record)

    async def act(self, wanted: Act) -> Any:
        spec = action_spec(wanted.body, wanted.component, wanted.action)
        update = {"project": self._project.id, "token_description": DESCRIPTION}
        result = await self._engine.act(spec.model_copy(update=update))
        return documents.action(result.value)

    async def job(self, job_id: int) -> Document:
        found = await self._engine.job(job_id, project=self._project.id)
        return await self._job(await found.refresh())

    async def jobs(self, wanted: JobFilter) -> list[Document]:
        try:
            statuses = tuple(Status(word) for word in wanted.statuses)
        except ValueError as error:
            raise InvalidInput(f"{error}; use one of {', '.join(Status)}.") from error
        query = JobQuery(
            project=self._project.id,
            component=wanted.component,
            config=wanted.config,
            statuses=statuses,
            created_since=_moment("since", wanted.since),
            limit=wanted.limit,
            offset=wanted.offset,
            search=wanted.query,
        )
        return [
            documents.job(each, self._project, self._base)
            for each in await self._engine.jobs(query)
        ]

    async def events(
        self, job_id: int, *, after: int = 0, follow: bool, kinds: tuple[str, ...] = ()
    ) -> AsyncGenerator[Event, None]:
        job = await self._engine.job(job_id, project=self._project.id)
        async for event in job.events(after=after, follow=follow):
            if not kinds or event.kind in kinds:
                yield event

    async def cancel(self, job_id: int) -> None:
        job = await self._engine.job(job_id, project=self._project.id)
        await job.cancel({"id": None, "description": DESCRIPTION})

    async def _job(self, record: JobRecord) -> Document:
        return documents.job(
            record,
            self._project,
            self._base,
            include=("stages",),
            waits_for=await self._engine.waits_for(record),
        )

    async def gc_plan(self) -> Document:
        return (await self._engine.gc_plan()).to_json()

    async def gc_apply(self, timeout: float | None, say: Callable[[str], None]) -> Document:
        planned = await self._engine.gc_plan()
        report = await self._engine.gc_apply(planned, timeout=timeout, say=say)
        await self._acted("garbage.collected")
        return report.to_json()

    # -- catalog -------------------------------------------------------------------------------

    async def components(self) -> list[Document]:
        found = await self._engine.catalog.components()
        return [documents.component(each, self._base) for each in found]

    async def component(self, component: str) -> Document:
        return documents.component(await self._engine.catalog.component(component), self._base)

    async def put_component(self, document: Mapping[str, Any]) -> Document:
        made = await self._engine.catalog.put_component(document)
        await self._acted("component.registered", component=made.id)
        return documents.component(made, self._base)

    async def configs(self, component: str | None) -> list[Document]:
        if component is not None:
            await self._engine.catalog.component(component)
        catalog, project = self._engine.catalog, self._project.id
        found = await catalog.configurations(project, component)
        states = await catalog.states(project, found)
        return [
            {"componentId": each.component_id, **documents.configuration(each, states=states)}
            for each in found
        ]

    async def config(self, component: str, config: str, version: int | None = None) -> Document:
        found = await self._engine.catalog.configuration(
            self._project.id, component, config, version=version
        )
        if version is not None:
            return documents.version_detail(found)
        return await self._config_of(found)

    async def config_versions(self, component: str, config: str) -> list[Document]:
        found = await self._engine.catalog.configuration_versions(
            self._project.id, component, config
        )
        return [documents.version(each) for each in found]

    async def create_config(self, component: str, body: Mapping[str, Any]) -> Document:
        await self._engine.catalog.component(component)
        created = await self._engine.catalog.create_configuration(
            self._project.id,
            component,
            str(body["name"]),
            config_id=body.get("configurationId"),
            description=str(body.get("description") or ""),
            configuration=stored_object(body, "configuration"),
            is_disabled=flag(body, "isDisabled"),
            change_description=str(body.get("changeDescription") or "Configuration created"),
        )
        return await self._config_of(created)

    async def update_config(self, component: str, config: str, body: Mapping[str, Any]) -> Document:
        updated = await self._engine.catalog.update_configuration(
            self._project.id,
            component,
            config,
            changes_of(body),
            change_description=str(body.get("changeDescription") or "Configuration updated"),
            expected_version=expected_version(body),
        )
        return await self._config_of(updated)

    async def create_row(self, component: str, config: str, body: Mapping[str, Any]) -> Document:
        created = await self._engine.catalog.create_row(
            self._project.id,
            component,
            config,
            row_id=body.get("rowId"),
            name=str(body.get("name") or ""),
            description=str(body.get("description") or ""),
            configuration=stored_object(body, "configuration"),
            is_disabled=flag(body, "isDisabled"),
            change_description=str(body.get("changeDescription") or ""),
        )
        return documents.row(created)

    async def update_row(
        self, component: str, config: str, row: str, body: Mapping[str, Any]
    ) -> Document:
        updated = await self._engine.catalog.update_row(
            self._project.id,
            component,
            config,
            row,
            changes_of(body),
            change_description=str(body.get("changeDescription") or ""),
        )
        return documents.row(updated)

    async def delete_config(self, component: str, config: str) -> None:
        await self._engine.catalog.delete_configuration(self._project.id, component, config)

    async def trash(self, component: str | None) -> list[Document]:
        found = await self._engine.catalog.deleted_configurations(self._project.id, component)
        return [
            {"componentId": each.component_id, **documents.configuration(each, details=False)}
            for each in found
        ]

    async def restore_config(self, component: str, config: str) -> Document:
        return await self._config_of(
            await self._engine.catalog.restore_configuration(self._project.id, component, config)
        )

    async def rollback_config(
        self, component: str, config: str, version: int, body: Mapping[str, Any]
    ) -> Document:
        changed = await self._engine.catalog.rollback_configuration(
            self._project.id, component, config, version, change_description=_change(body)
        )
        return {"version": changed.version}

    async def copy_config(
        self, component: str, config: str, version: int, body: Mapping[str, Any]
    ) -> Document:
        made = await self._engine.catalog.copy_configuration(
            self._project.id,
            component,
            config,
            version,
            name=body.get("name"),
            description=body.get("description"),
            change_description=_change(body),
        )
        return {"id": made.id}

    async def delete_row(
        self, component: str, config: str, row: str, body: Mapping[str, Any]
    ) -> None:
        await self._engine.catalog.delete_row(
            self._project.id, component, config, row, change_description=_change(body)
        )

    async def row_versions(self, component: str, config: str, row: str) -> list[Document]:
        found = await self._engine.catalog.row_versions(self._project.id, component, config, row)
        return [documents.version(each) for each in found]

    async def rollback_row(
        self, component: str, config: str, row: str, version: int, body: Mapping[str, Any]
    ) -> Document:
        return documents.row(
            await self._engine.catalog.rollback_row(
                self._project.id, component, config, row, version, change_description=_change(body)
            )
        )

    async def copy_row(
        self, component: str, config: str, row: str, version: int, body: Mapping[str, Any]
    ) -> Document:
        return documents.row(
            await self._engine.catalog.copy_row(
                self._project.id,
                component,
                config,
                row,
                version,
                target=body.get("targetConfigId"),
                change_description=_change(body),
            )
        )

    async def metadata(self, of: Owner | None) -> list[Document]:
        component, config = of or (None, None)
        found = await self._engine.catalog.metadata(
            self._project.id, component_id=component, config_id=config
        )
        return documents.remarks(found)

    async def all_metadata(self) -> list[Document]:
        return [
            {
                "idComponent": each.component_id,
                "configurationId": each.config_id,
                "metadata": documents.remarks(each.entries),
            }
            for each in await self._engine.catalog.find_metadata(self._project.id)
        ]

    async def put_metadata(self, of: Owner | None, values: Mapping[str, str]) -> list[Document]:
        component, config = of or (None, None)
        found = await self._engine.catalog.put_metadata(
            self._project.id, values, component_id=component, config_id=config
        )
        return documents.remarks(found)

    async def delete_metadata(self, of: Owner | None, entry: str) -> None:
        component, config = of or (None, None)
        await self._engine.catalog.delete_metadata(
            self._project.id, entry, component_id=component, config_id=config
        )

    async def state(self, component: str, config: str, row: str | None) -> Document:
        found = await self._engine.catalog.state(self._project.id, component, config, row)
        return {"state": {} if found.value is None else found.value, "version": found.version}

    async def put_state(
        self, component: str, config: str, row: str | None, body: Mapping[str, Any]
    ) -> None:
        await self._engine.catalog.put_state(
            self._project.id,
            component,
            config,
            row,
            stored_object(body, "state"),
            expected_version=expected_version(body),
        )

    async def project(self) -> Document:
        return documents.project(self._project)

    async def update_project(self, wanted: ProjectChange) -> Document:
        before = self._project
        kept = [each for each in before.features if each not in wanted.without]
        limits = {**before.limits, **wanted.limits}
        changed = await self._engine.catalog.update_project(
            before.id,
            features=[*kept, *(each for each in wanted.features if each not in kept)],
            limits={name: value for name, value in limits.items() if value is not None},
        )
        await self._acted("project.changed", project=before.id)
        return documents.project(changed)

    async def tokens(self) -> list[Document]:
        found = await self._engine.catalog.tokens(self._project.id)
        return [documents.token(each, self._base, owner=False) for each in found]

    async def create_token(self, wanted: NewToken) -> Document:
        expires = None
        if wanted.expires_in is not None:
            expires = datetime.now(UTC) + timedelta(seconds=wanted.expires_in)
        token, secret = await self._engine.catalog.create_token(
            self._project.id,
            wanted.description,
            token_role(wanted.role),
            expires=expires,
            component_access=wanted.component_access,
            bucket_permissions=wanted.bucket_permissions,
            can_read_all_file_uploads=wanted.bucket_permissions is None,
        )
        await self._acted("token.created", token=token.id)
        return documents.token(token, self._base, secret=secret)

    async def refresh_token(self, token_id: str) -> Document:
        token, secret = await self._engine.catalog.refresh_token(self._project.id, token_id)
        await self._acted("token.refreshed", token=token_id)
        return documents.token(token, self._base, secret=secret)

    async def revoke_token(self, token_id: str) -> None:
        await self._engine.catalog.revoke_token(self._project.id, token_id)
        await self._acted("token.revoked", token=token_id)

    async def projects(self) -> list[Document]:
        return [documents.project(each) for each in await self._engine.catalog.projects()]

    async def create_project(self, name: str, features: Sequence[str]) -> Document:
        catalog = self._engine.catalog
        made = await catalog.create_project(name, features=[*FIRST_FEATURES, *features])
        token, secret = await catalog.create_token(made.id, "admin", Role.ADMIN)
        await self._acted("project.created", project=made.id, token=token.id)
        return {**documents.project(made), "token": secret}

    async def audit(self, wanted: AuditFilter) -> list[Document]:
        query = AuditQuery(
            project=None if wanted.everything else self._project.id,
            kind=wanted.kind,
            token_id=wanted.token,
            since=_moment("since", wanted.since),
            limit=wanted.limit,
        )
        return [documents.audit_entry(each) for each in await self._engine.audit.entries(query)]

    async def _acted(self, kind: str, **subject: str) -> None:
        """Write into the audit log what was done here, without a token."""
        await self._engine.audit.record(
            AuditEntry(kind, self._project.id, token_description=DESCRIPTION, subject=subject)
        )

    async def branches(self) -> list[Document]:
        found = await self._engine.catalog.branches(self._project.id)
        return [documents.branch(each) for each in found]

    async def create_branch(self, name: str, description: str) -> Document:
        made = await self._engine.catalog.create_branch(
            self._project.id, name, description=description
        )
        await self._acted("branch.created", branch=made.id)
        return documents.branch(made)

    async def delete_branch(self, branch: str) -> None:
        await self._engine.delete_branch(self._project.id, branch)
        await self._acted("branch.removed", branch=branch)

    async def vault(self, branch: str | None) -> list[Document]:
        found = await self._engine.catalog.vault_variables(self._project.id, branch=branch)
        return [documents.vault_variable(each) for each in found]

    async def put_vault_variable(
        self, name: str, value: str, branch: str | None, *, is_encrypted: bool
    ) -> Document:
        if is_encrypted:
            value = await encrypting.vault_value(self._engine.encryption, value, self._project.id)
        made = await self._engine.catalog.put_vault_variable(
            self._project.id, name, value, is_encrypted=is_encrypted, branch=branch
        )
        await self._acted("vault.set", name=name)
        return documents.vault_variable(made)

    async def delete_vault_variable(self, name: str, branch: str | None) -> None:
        await self._engine.catalog.delete_vault_variable(self._project.id, name, branch=branch)
        await self._acted("vault.removed", name=name)

    async def credentials(self, component: str, credentials: str) -> Document:
        found = await self._engine.catalog.oauth_credentials(
            self._project.id, component, credentials
        )
        return dict(found)

    async def put_credentials(
        self, component: str, credentials: str, document: Mapping[str, Any]
    ) -> None:
        kept = await encrypting.credentials(
            self._engine.encryption, document, self._project.id, component
        )
        await self._engine.catalog.put_oauth_credentials(
            self._project.id, component, credentials, kept
        )
        await self._acted("credentials.set", component=component, credentials=credentials)

    async def delete_credentials(self, component: str, credentials: str) -> None:
        await self._engine.catalog.delete_oauth_credentials(
            self._project.id, component, credentials
        )
        await self._acted("credentials.removed", component=component, credentials=credentials)

    # -- secrets -------------------------------------------------------------------------------

    async def can_encrypt(self) -> bool:
        return self._engine.encryption.can_encrypt

    async def encrypt(self, wanted: Sealing) -> bytes:
        self._require_keys()
        scope = encrypting.scope_to_encrypt(wanted.ids)
        submitted = await encrypting.read_submitted(wanted.body, wanted.form)
        return await encrypting.encrypted(self._engine.encryption, submitted, scope)

    async def migrate(self, wanted: Sealing) -> bytes:
        self._require_keys()
        scope = encrypting.scope_to_migrate(wanted.ids)
        submitted = await encrypting.read_submitted(wanted.body, wanted.form)
        return await encrypting.migrated(self._engine.encryption, submitted, scope)

    def _require_keys(self) -> None:
        if not self._engine.encryption.can_encrypt:
            raise InvalidInput(
                f"The home {self._config.home} has no keys to encrypt with. Make some with "
                "`vaka keys init`, or restore the ring that it had."
            )

    async def _config_of(self, found: Configuration) -> Document:
        states = await self._engine.catalog.states(self._project.id, [found])
        return documents.configuration(found, states=states)

    # -- storage -------------------------------------------------------------------------------

    async def buckets(self) -> list[Document]:
        backend = self._engine.storage
        return [
            documents.bucket(each, self._base, backend=backend.backend_name)
            for each in await backend.tables.list_buckets(self._scope)
        ]

    async def create_bucket(self, stage: str, name: str, description: str) -> Document:
        backend = self._engine.storage
        created = await backend.tables.create_bucket(
            self._scope, stage, name, description=description
        )
        return documents.bucket(created, self._base, backend=backend.backend_name, tables=())

    async def tables(self, bucket: str | None) -> list[Document]:
        backend = self._engine.storage
        return [
            documents.table(each, self._base, backend=backend.backend_name)
            for each in await backend.tables.list_tables(self._scope, bucket)
        ]

    async def load(self, wanted: Load, progress: Progress) -> Document:  # noqa: ARG002 - one call
        async with self._regular(wanted.path) as path:
            load = TableLoad(
                table_id=wanted.table,
                paths=(path,),
                columns=wanted.columns,
                primary_key=wanted.primary_key,
                incremental=wanted.incremental,
                delimiter=wanted.delimiter,
                enclosure=wanted.enclosure,
            )
            results = await self._engine.storage.tables.load(self._scope, [load])
        return documents.load_result(results[0])

    async def export(self, wanted: Select, target: Path, progress: Progress) -> int:  # noqa: ARG002
        result = await self._engine.storage.tables.export(
            self._scope, wanted.table, _options(wanted), target
        )
        return result.rows

    async def preview(self, wanted: Select) -> Document:
        columns, rows = await self._engine.storage.tables.preview(
            self._scope, wanted.table, _options(wanted)
        )
        return documents.preview(columns, rows)

    async def files(self, tags: tuple[str, ...], query: str, limit: int) -> list[Document]:
        found = await self._engine.storage.files.list_files(
            self._scope, FileQuery(tags=tags, query=query, limit=limit)
        )
        return [self._file(each) for each in found]

    async def upload(self, wanted: Upload, progress: Progress) -> Document:  # noqa: ARG002
        upload = FileUpload(name=wanted.name, tags=wanted.tags, is_permanent=wanted.is_permanent)
        async with self._regular(wanted.path) as path:
            stored = await self._engine.storage.files.upload(self._scope, upload, path)
        return self._file(stored)

    async def download(self, file_id: int, target: Path, progress: Progress) -> Document:  # noqa: ARG002
        found = await self._engine.storage.files.download(self._scope, file_id, target)
        return self._file(found)

    def _file(self, value: FileDetail) -> Document:
        return documents.file(value, f"{self._base}/vaka/files/{value.id}")

    @asynccontextmanager
    async def _regular(self, path: Path) -> AsyncIterator[Path]:
        """A file that can be read from its start more than once: `path`, or a copy of a pipe."""
        if await trio.Path(path).is_file():
            yield path
            return
        with tempfile.TemporaryDirectory(dir=self._config.home) as folder:
            copy = Path(folder) / "input"
            await trio.to_thread.run_sync(_copy, path, copy)
            yield copy


def _change(body: Mapping[str, Any]) -> str:
    return str(body.get("changeDescription") or "")


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)


def _options(wanted: Select) -> ExportOptions:
    options = ExportOptions(
        columns=wanted.columns,
        changed_since=_moment("changed-since", wanted.changed_since),
        changed_until=_moment("changed-until", wanted.changed_until),
        limit=wanted.limit,
        gzip=wanted.gzip,
    )
    if wanted.where_column is None:
        return options
    operator: Any = OPERATORS[wanted.where_operator]
    return replace(options, filters=(Filter(wanted.where_column, wanted.where_values, operator),))


def _moment(name: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return parse_moment(text)
    except ValueError as error:
        raise InvalidInput(
            f"--{name} must be a time such as '-1 day' or '2024-01-31T12:00:00Z'."
        ) from error
