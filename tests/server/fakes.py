"""An engine that a test directs: for failures and moments that a real one has only by chance."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import trio

from vaka import Engine, EngineConfig, Health
from vaka.errors import AuthenticationFailed, Conflict, NotFound
from vaka.models.audit import AuditEntry
from vaka.models.catalog import Component, Project, Role, Token
from vaka.models.event import Event
from vaka.models.job import JobQuery, JobRecord, JobSpec, Status
from vaka_server.app import App, create_app
from vaka_server.settings import Settings

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def project(id_: str = "1") -> Project:
    return Project(id=id_, name=f"Project {id_}", created=NOW)


def token(id_: str = "11", role: Role = Role.ADMIN, **changes: Any) -> Token:
    return replace(
        Token(id=id_, description=f"token {id_}", project=project(), role=role, created=NOW),
        **changes,
    )


@dataclass
class FakeCatalog:
    """Tokens by secret and components by id, and how often it was asked."""

    known: dict[str, Token] = field(default_factory=lambda: {"secret": token()})
    registered: dict[str, Component] = field(
        default_factory=lambda: {"C": Component(id="C", name="C", type="other", data={})}
    )
    asked: list[str] = field(default_factory=list)
    answering: Callable[[], Any] | None = None

    async def projects(self) -> list[Project]:
        return [token().project]

    async def verify_token(self, secret: str) -> Token:
        self.asked.append(f"token {secret}")
        found = self.known.get(secret)
        if self.answering is not None:
            await self.answering()
        if found is None:
            raise AuthenticationFailed("unknown")
        return found

    async def token(self, project: str, token_id: str) -> Token:
        for value in self.known.values():
            if value.id == token_id and value.project.id == project:
                return value
        raise NotFound(f"Token {token_id} not found", kind="token", id=token_id)

    async def revoke_token(self, project: str, token_id: str) -> None:
        for secret, value in list(self.known.items()):
            if value.id == token_id and value.project.id == project:
                del self.known[secret]
                return
        raise NotFound(f"Token {token_id} not found", kind="token", id=token_id)

    async def component(self, component_id: str) -> Component:
        self.asked.append(f"component {component_id}")
        if component_id not in self.registered:
            raise NotFound(f"Component {component_id} not found", kind="component", id=component_id)
        return self.registered[component_id]

    async def put_component(self, document: Mapping[str, Any]) -> Component:
        self.registered[document["id"]] = Component(
            id=document["id"], name="n", type="other", data=document.get("data", {})
        )
        return self.registered[document["id"]]


class FakeJob:
    def __init__(self, engine: FakeEngine, record: JobRecord) -> None:
        self._engine = engine
        self.record = record

    @property
    def id(self) -> int:
        return self.record.id

    async def refresh(self) -> JobRecord:
        self.record = self._engine.records[self.id]
        return self.record

    async def events(self, *, after: int = 0, follow: bool = True) -> AsyncIterator[Event]:
        while True:
            finished = (await self.refresh()).status.is_finished
            for event in self._engine.history[after:]:
                yield event
                after = event.seq
            if finished or not follow:
                return
            await self._engine.changed.wait()

    async def cancel(self, by: Mapping[str, Any] | None = None) -> JobRecord:
        if self.record.status.is_finished:
            raise Conflict("ended")
        return self.record


class FakeAudit:
    """Keeps what is written into the audit log."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []

    async def record(self, entry: AuditEntry) -> None:
        self.entries.append(entry)

    async def record_first(self, entry: AuditEntry) -> None:
        self.entries.append(entry)


class NoTriggers:
    async def list(self, project: str) -> tuple[()]:
        return ()


class FakeEngine:
    """Keeps what is submitted, and fails when it is told to."""

    def __init__(self, home: Path) -> None:
        self.config = EngineConfig(home=home)
        self.catalog = FakeCatalog()
        self.plugins = self
        self.storage: Any = None
        self.triggers = NoTriggers()
        self.audit = FakeAudit()
        self.records: dict[int, JobRecord] = {}
        self.history: list[Event] = []
        self.changed = trio.Event()
        self.failure: Exception | None = None
        self.state = Health(store=None, runtime=None, disk=None)
        self.routes: Callable[[App], None] = lambda app: None

    def server_routes(self, app: App) -> None:
        self.routes(app)

    async def submit(self, spec: JobSpec) -> FakeJob:
        if self.failure is not None:
            raise self.failure
        id_ = 1 + len(self.records)
        self.records[id_] = JobRecord(
            id=id_,
            run_id=str(id_),
            project=spec.project,
            spec=spec.model_dump(mode="json", exclude={"token"}),
            component=spec.component or "",
            config=spec.config,
            status=Status.WAITING,
            mode=spec.mode,
            created=NOW,
            lock_name=f"docker-{id_}",
            memory_bytes=1,
        )
        return FakeJob(self, self.records[id_])

    async def job(self, job_id: int, *, project: str | None = None) -> FakeJob:
        record = self.records.get(job_id)
        if record is None or project not in {None, record.project}:
            raise NotFound(f"Job {job_id} not found", kind="job", id=str(job_id))
        return FakeJob(self, record)

    async def jobs(self, query: JobQuery) -> list[JobRecord]:
        if self.failure is not None:
            raise self.failure
        return list(self.records.values())

    async def waits_for(self, record: JobRecord) -> str | None:
        return "something" if record.status is Status.WAITING else None

    async def health(self) -> Health:
        return self.state

    def say(self, message: str, *, kind: str = "log") -> None:
        """Something happens in a job."""
        self.history.append(Event(len(self.history) + 1, NOW, kind, "info", message))
        self.changed.set()
        self.changed = trio.Event()

    def finish(self, job_id: int) -> None:
        self.records[job_id] = replace(self.records[job_id], status=Status.SUCCESS)
        self.changed.set()


def make_app(engine: FakeEngine, **settings: Any) -> App:
    return create_app(cast("Engine", engine), Settings(home=engine.config.home, **settings))


def scope(path: str, *, method: str = "GET", secret: str | None = None, query: str = "") -> Any:
    """What an ASGI server says of a request."""
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "query_string": query.encode(),
        "headers": [(b"x-storageapi-token", secret.encode())] if secret else [],
    }
